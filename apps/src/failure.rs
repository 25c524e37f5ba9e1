//! How a command ends badly.

use std::process::ExitCode;

use thiserror::Error;

/// Why a command did not do what it was asked to. The text is one line: the culprit, and what to do.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 1; everything was said already.
    #[error("")]
    Said,
    /// Exit code 3.
    #[error("{0}")]
    TimedOut(String),
}

impl Failure {
    pub(crate) fn of(error: impl std::fmt::Display) -> Failure {
        Failure::Failed(error.to_string())
    }

    /// What the shell sees. 0 is success, and 2 is usage: clap says that.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Failed(_) | Failure::Said => ExitCode::from(1),
            Failure::TimedOut(_) => ExitCode::from(3),
        }
    }
}
