//! Why a call did not do what it should: the code to count it by, and the words of whoever refused.

use gantry_proto::wire::v2::{self, Code};
use std::time::Duration;
use tonic::Status;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Failure {
    /// A name of `apache.rocketmq.v2.Code`, or `GRPC_` and the name of a gRPC code.
    pub code: String,
    /// For people.
    pub text: String,
    /// Nothing came in time, not even a refusal.
    pub unanswered: bool,
}

impl Failure {
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Failure {
        Failure { code: code.into(), text: text.into(), unanswered: false }
    }

    pub fn no_answer(within: Duration) -> Failure {
        let text = format!("no answer within {}", humantime::format_duration(within));
        Failure { unanswered: true, ..Failure::new(DEADLINE_EXCEEDED, text) }
    }

    /// The server, or somebody on the way, says that there was not time enough.
    pub fn is_deadline(&self) -> bool {
        self.code == DEADLINE_EXCEEDED && !self.unanswered
    }
}

const DEADLINE_EXCEEDED: &str = "GRPC_DEADLINE_EXCEEDED";

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        // "DeadlineExceeded" becomes "GRPC_DEADLINE_EXCEEDED".
        let mut code = "GRPC".to_owned();
        for letter in format!("{:?}", status.code()).chars() {
            if letter.is_ascii_uppercase() {
                code.push('_');
            }
            code.push(letter.to_ascii_uppercase());
        }
        Failure::new(code, status.message())
    }
}

/// What a status in an answer means. An answer without one is wrong.
pub fn check(status: Option<&v2::Status>) -> Result<(), Failure> {
    match status {
        Some(status) if status.code == i32::from(Code::Ok) => Ok(()),
        Some(status) => {
            let code = Code::try_from(status.code).map(|code| code.as_str_name().to_owned());
            Err(Failure::new(code.unwrap_or_else(|_| format!("CODE_{}", status.code)), &status.message))
        }
        None => Err(Failure::new("BAD_REPLY", "the reply has no status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_as_the_protocol_names_them() {
        let status = |code| v2::Status { code, message: "why".to_owned() };
        assert_eq!(check(Some(&status(20_000))), Ok(()));
        assert_eq!(check(Some(&status(42_900))), Err(Failure::new("TOO_MANY_REQUESTS", "why")));
        assert_eq!(check(Some(&status(1))), Err(Failure::new("CODE_1", "why")));
        assert_eq!(check(None).unwrap_err().code, "BAD_REPLY");
        let late = Failure::from(Status::deadline_exceeded("late"));
        assert_eq!(late, Failure::new("GRPC_DEADLINE_EXCEEDED", "late"));
        assert!(late.is_deadline() && !Failure::no_answer(Duration::ZERO).is_deadline());
    }
}
