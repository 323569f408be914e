//! How a command that did not do what was asked ends: the one place where that becomes an exit code.

use crate::config::Mistakes;
use crate::inspect::WrongPath;
use crate::output;
use std::process::ExitCode;

#[derive(Debug)]
pub enum Failure {
    /// The command line or the configuration cannot be meant: trying again cannot help.
    WronglyAsked(String),
    Failed(anyhow::Error),
    /// What was looked at is not whole. The result, already printed, says so.
    NotWhole,
}

impl Failure {
    /// Tells the user. 2: wrongly asked, 1: everything else.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::WronglyAsked(what) => {
                output::note(what);
                ExitCode::from(2)
            }
            Failure::Failed(error) => {
                output::note(&output::in_one_line(error));
                ExitCode::FAILURE
            }
            Failure::NotWhole => ExitCode::FAILURE,
        }
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Failure {
        Failure::WronglyAsked(mistakes.to_string())
    }
}

impl From<WrongPath> for Failure {
    fn from(wrong: WrongPath) -> Failure {
        Failure::WronglyAsked(wrong.to_string())
    }
}

impl From<gantry_bench::Error> for Failure {
    fn from(error: gantry_bench::Error) -> Failure {
        match error {
            gantry_bench::Error::WrongFlags(flags) => Failure::WronglyAsked(flags.to_string()),
            gantry_bench::Error::Failed(error) => Failure::Failed(error),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Failed(error)
    }
}
