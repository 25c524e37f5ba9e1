//! How a failure is told: the seed, the command that reproduces it, and the last steps.

use std::fmt;
use std::time::Duration;

use treecast_overlay::time::Instant;

/// The environment variable that overrides a test's seed.
pub const SEED_VARIABLE: &str = "TREECAST_SEED";

/// One test case and the seed that it runs with. Made by [`case!`](crate::case).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    target: String,
    name: String,
    /// Everything random in the run follows from it.
    pub seed: u64,
}

impl Case {
    /// The case `name` of the test target `target`, run with `seed` unless `TREECAST_SEED` says otherwise.
    pub fn new(target: &str, name: &str, seed: u64) -> Case {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => parse_seed(&text),
            Err(_) => seed,
        };
        // The library's own tests are no target of their own.
        let target = match target {
            "treecast_integration" => "--lib".to_string(),
            other => format!("--test {other}"),
        };
        Case { target, name: name.to_string(), seed }
    }

    /// No test: a run of a command, which is given as it is typed. No environment variable overrides its seed.
    pub fn of_command(command: &str, seed: u64) -> Case {
        Case { target: String::new(), name: command.to_string(), seed }
    }

    /// The same case with another seed, for tests that compare runs.
    pub fn with_seed(&self, seed: u64) -> Case {
        Case { seed, ..self.clone() }
    }
}

/// The command that runs this case again.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { target, name, seed } = self;
        if target.is_empty() {
            return f.write_str(name);
        }
        write!(f, "{SEED_VARIABLE}={seed} cargo test -p treecast-integration {target} {name}")
    }
}

fn parse_seed(text: &str) -> u64 {
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text}: a number from 0 to 2^64-1 is expected"))
}

/// `case!("name", 7)`: the [`Case`](crate::world::Case) `name` of the test target that says so, by default with
/// seed 7.
#[macro_export]
macro_rules! case {
    ($name:expr, $seed:expr) => {
        $crate::world::Case::new(env!("CARGO_CRATE_NAME"), $name, $seed)
    };
}

/// Something that was waited for did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedOut {
    /// How long it was waited for.
    pub limit: Duration,
    /// When the waiting ended.
    pub at: Instant,
    /// The case that runs it again.
    pub case: Case,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimedOut { limit, at, case } = self;
        write!(f, "what was waited for did not come within {limit:?}, until {at}; reproduce with: {case}")
    }
}

impl std::error::Error for TimedOut {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_says_how_to_run_it_again() {
        let case = Case::new("rings", "joins_survive_crashes", 7).with_seed(8);
        assert_eq!(
            case.to_string(),
            "TREECAST_SEED=8 cargo test -p treecast-integration --test rings joins_survive_crashes"
        );
        assert_eq!(Case::of_command("lab routing --seed 3", 3).to_string(), "lab routing --seed 3");
        let here = crate::case!("report", 1);
        assert!(here.to_string().contains("--lib report"), "{here}");
    }

    #[test]
    #[should_panic(expected = "TREECAST_SEED=one")]
    fn a_seed_that_is_no_number_is_named() {
        parse_seed("one");
    }
}
