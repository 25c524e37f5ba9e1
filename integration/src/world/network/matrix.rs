//! Latencies measured elsewhere, from a file.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::Rng;

use super::topology::ParseTopologyError;

/// Most points of a matrix: 256 MiB.
const MAX_POINTS: usize = 8192;

/// One-way latencies between points, from a file: a line for each point, with one figure in milliseconds for every
/// point (this line's point to that one), separated by blanks, commas or semicolons. The diagonal is what two nodes of
/// one point need. Lines that are empty or begin with `#` are passed over.
#[derive(Clone, PartialEq, Eq)]
pub struct Matrix {
    path: String,
    points: usize,
    /// Microseconds, by (from, to).
    micros: Arc<[u32]>,
}

impl Matrix {
    /// Reads a file.
    pub fn read(path: &str) -> Result<Matrix, ParseTopologyError> {
        let wrong = |why: String| ParseTopologyError::matrix(path, why);
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Matrix::parse(path, &text).map_err(wrong)
    }

    fn parse(path: &str, text: &str) -> Result<Matrix, String> {
        let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (mut micros, mut points, mut rows) = (Vec::new(), 0, 0);
        for (number, line) in lines {
            let before = micros.len();
            for word in line.split([' ', '\t', ',', ';']).filter(|word| !word.is_empty()) {
                micros.push(figure(word).map_err(|why| format!("line {number}: `{word}` {why}"))?);
            }
            let wide = micros.len() - before;
            if rows == 0 {
                points = wide;
            }
            if points > MAX_POINTS {
                return Err(format!("line {number}: {points} points, and at most {MAX_POINTS} are allowed"));
            }
            if wide != points {
                return Err(format!("line {number} has {wide} figures, and the first one has {points}"));
            }
            rows += 1;
            if rows > points {
                break;
            }
        }
        if rows != points || points == 0 {
            return Err(format!(
                "{rows} lines of {points} figures: as many lines as figures in a line are expected"
            ));
        }
        Ok(Matrix { path: path.to_string(), points, micros: micros.into() })
    }

    /// So many points, each way between two of them as long as the dice say; within a point a tenth of the shortest.
    pub fn drawn(points: usize, least: Duration, most: Duration, dice: &mut Rng) -> Matrix {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let (least, most) = (micros(least), micros(most).max(micros(least)));
        let mut latency = |from: usize, to: usize| {
            if from == to { least / 10 } else { dice.random_range(least..=most) }
        };
        let micros = (0..points * points).map(|at| latency(at / points, at % points)).collect();
        Matrix { path: "drawn".to_string(), points, micros }
    }

    /// How many points it has.
    pub fn points(&self) -> usize {
        self.points
    }

    /// The file that it came from; `drawn` if there is none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One way.
    pub fn latency(&self, from: usize, to: usize) -> Duration {
        Duration::from_micros(u64::from(self.micros[from * self.points + to]))
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix({}, {} points)", self.path, self.points)
    }
}

fn figure(word: &str) -> Result<u32, &'static str> {
    let millis: f64 = word.parse().map_err(|_| "is no number")?;
    let micros = (millis * 1000.0).round();
    if !(0.0..=f64::from(u32::MAX)).contains(&micros) {
        return Err("is no latency: milliseconds from 0 to 4,294,967 are expected");
    }
    Ok(micros as u32)
}

/// The slots, each at a point of the matrix that is drawn at random.
#[derive(Debug)]
pub(super) struct Points {
    matrix: Matrix,
    slots: Vec<u32>,
}

impl Points {
    pub(super) fn new(matrix: Matrix) -> Points {
        Points { matrix, slots: Vec::new() }
    }

    pub(super) fn add(&mut self, dice: &mut Rng) {
        self.slots.push(dice.random_range(0..self.matrix.points as u32));
    }

    pub(super) fn point(&self, slot: usize) -> Option<u32> {
        self.slots.get(slot).copied()
    }

    pub(super) fn nanos(&self, a: usize, b: usize) -> u64 {
        let at = |slot| self.point(slot).unwrap_or_default() as usize;
        u64::from(self.matrix.micros[at(a) * self.matrix.points + at(b)]) * 1000
    }

    pub(super) fn bytes(&self) -> usize {
        self.matrix.micros.len() * size_of::<u32>() + self.slots.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_square_and_of_milliseconds() {
        let matrix = Matrix::parse("m", "# two points\n0.5 10\n\n20, 1\n").unwrap();
        assert_eq!((matrix.points(), matrix.latency(0, 1)), (2, Duration::from_millis(10)));
        assert_eq!(matrix.latency(1, 0), Duration::from_millis(20));
        assert_eq!(matrix.latency(0, 0), Duration::from_micros(500));
    }

    #[test]
    fn what_is_wrong_with_a_matrix_is_named() {
        for (text, why) in [
            ("", "0 lines of 0 figures"),
            ("1 2\n3", "line 2 has 1 figures, and the first one has 2"),
            ("1 2", "1 lines of 2 figures"),
            ("1\n2", "2 lines of 1 figures"),
            ("#\n1 two", "line 2: `two` is no number"),
            ("-1", "line 1: `-1` is no latency"),
            ("NaN", "line 1: `NaN` is no latency"),
            ("5e9", "line 1: `5e9` is no latency"),
        ] {
            let error = Matrix::parse("m", text).unwrap_err();
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }
}
