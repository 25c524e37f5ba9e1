//! A network in a word: `plane`, `sphere`, `transit-stub`, `matrix:FILE`, `constant:MS`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::{Matrix, TransitStub};

/// How long a frame takes from one slot to another, before jitter. `docs/simulation.md` describes the models.
///
/// As text: `plane`, `sphere`, `transit-stub`, `matrix:FILE`, `constant:MS`; `plane:NEAREST,ACROSS`,
/// `sphere:NEAREST,ACROSS` and `pairs:LEAST,MOST` in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Topology {
    /// The same between any two.
    Constant(Duration),
    /// Nodes stand at random on a square, and latency grows with their distance: `nearest` for two at one point,
    /// `nearest + across` for two in opposite corners.
    Plane {
        /// The latency that even neighbours have.
        nearest: Duration,
        /// The latency that the square's diagonal adds.
        across: Duration,
    },
    /// Nodes stand at random on a sphere: `nearest` for two at one point, `nearest + across` for two at opposite ones.
    Sphere {
        /// The latency that even neighbours have.
        nearest: Duration,
        /// The latency that half a great circle adds.
        across: Duration,
    },
    /// Each pair has a latency of its own, at random: what is near to what says nothing.
    Pairs {
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// Nodes hang on the routers of an internet of transit and stub domains.
    TransitStub(TransitStub),
    /// Nodes stand at random points of a measured matrix.
    Matrix(Matrix),
}

const ACROSS: Duration = Duration::from_millis(100);

impl Topology {
    /// The Pastry paper's plane: the distance and nothing else, up to 100 ms.
    pub const PLANE: Topology = Topology::Plane { nearest: Duration::ZERO, across: ACROSS };
    /// The sphere, likewise.
    pub const SPHERE: Topology = Topology::Sphere { nearest: Duration::ZERO, across: ACROSS };

    /// The Scribe paper's internet: 5,050 routers.
    pub fn transit_stub() -> Topology {
        Topology::TransitStub(TransitStub::default())
    }
}

/// Parses back, unless the transit-stub model has figures of its own.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topology::Constant(latency) => write!(f, "constant:{}", Millis(*latency)),
            plane if *plane == Topology::PLANE => f.write_str("plane"),
            sphere if *sphere == Topology::SPHERE => f.write_str("sphere"),
            Topology::Plane { nearest, across } => {
                write!(f, "plane:{},{}", Millis(*nearest), Millis(*across))
            }
            Topology::Sphere { nearest, across } => {
                write!(f, "sphere:{},{}", Millis(*nearest), Millis(*across))
            }
            Topology::Pairs { least, most } => write!(f, "pairs:{},{}", Millis(*least), Millis(*most)),
            Topology::TransitStub(_) => f.write_str("transit-stub"),
            Topology::Matrix(matrix) => write!(f, "matrix:{}", matrix.path()),
        }
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_nanos() as f64 / 1e6)
    }
}

/// A text that names no topology, or one that cannot be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseTopologyError {
    /// No such model.
    #[error(
        "`{0}` is no topology: plane, sphere, transit-stub, pairs:LEAST,MOST, matrix:FILE or constant:MS is expected"
    )]
    Unknown(String),
    /// A model whose figures do not parse.
    #[error("topology `{topology}`: `{figure}` is no time in milliseconds")]
    Figure {
        /// The whole text.
        topology: String,
        /// The part that is wrong.
        figure: String,
    },
    /// A matrix that cannot be read.
    #[error("topology matrix:{path}: {why}")]
    Matrix {
        /// The file.
        path: String,
        /// The mistake in it.
        why: String,
    },
}

impl ParseTopologyError {
    pub(super) fn matrix(path: &str, why: String) -> ParseTopologyError {
        ParseTopologyError::Matrix { path: path.to_string(), why }
    }
}

impl FromStr for Topology {
    type Err = ParseTopologyError;

    fn from_str(text: &str) -> Result<Topology, ParseTopologyError> {
        let unknown = || ParseTopologyError::Unknown(text.chars().take(128).collect());
        let millis = |figure: &str| millis(text, figure);
        match text.split_once(':') {
            None => match text {
                "plane" => Ok(Topology::PLANE),
                "sphere" => Ok(Topology::SPHERE),
                "transit-stub" => Ok(Topology::transit_stub()),
                _ => Err(unknown()),
            },
            Some(("constant", figure)) => Ok(Topology::Constant(millis(figure)?)),
            Some(("matrix", path)) => Matrix::read(path).map(Topology::Matrix),
            Some((model @ ("plane" | "sphere" | "pairs"), figures)) => {
                let (nearest, across) = figures.split_once(',').unwrap_or((figures, ""));
                let (nearest, across) = (millis(nearest)?, millis(across)?);
                Ok(match model {
                    "plane" => Topology::Plane { nearest, across },
                    "pairs" => Topology::Pairs { least: nearest.min(across), most: nearest.max(across) },
                    _ => Topology::Sphere { nearest, across },
                })
            }
            Some(_) => Err(unknown()),
        }
    }
}

/// Longest latency that a text can name: a minute.
const MAX_MILLIS: f64 = 60_000.0;

fn millis(topology: &str, figure: &str) -> Result<Duration, ParseTopologyError> {
    let parsed = figure.parse::<f64>().ok().filter(|millis| (0.0..=MAX_MILLIS).contains(millis));
    parsed.map(|millis| Duration::from_nanos((millis * 1e6).round() as u64)).ok_or_else(|| {
        ParseTopologyError::Figure { topology: topology.to_string(), figure: figure.to_string() }
    })
}
