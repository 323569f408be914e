//! Codes that old clients cannot read. The Rust client 5.0.0 panics on a number that it does not know.

use gantry_proto::wire::v2::Code;

/// The code that a client is told: this one, or the nearest that its version knows.
pub(crate) fn code_for(language: &str, version: &str, code: Code) -> Code {
    if language != "RUST" || version != "5.0.0" {
        return code;
    }
    // All numbers that came after its release.
    match code {
        Code::MessageBodyEmpty => Code::MessageCorrupted,
        Code::IllegalOffset | Code::IllegalLiteTopic | Code::InvalidClientProperties => Code::BadRequest,
        Code::OffsetNotFound => Code::NotFound,
        Code::LiteTopicQuotaExceeded | Code::LiteSubscriptionQuotaExceeded => Code::TooManyRequests,
        known => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers in the definitions that `rocketmq` 5.0.0 was built with.
    const KNOWN_TO_RUST_5_0_0: [i32; 47] = [
        0, 20000, 30000, 40000, 40001, 40002, 40003, 40004, 40005, 40006, 40007, 40008, 40009, 40010, 40011, 40012,
        40013, 40014, 40015, 40016, 40017, 40018, 40100, 40200, 40300, 40400, 40401, 40402, 40403, 40800, 41300, 41301,
        42800, 42900, 43100, 43101, 50000, 50001, 50002, 50100, 50400, 50401, 50402, 50500, 50501, 50502, 60000,
    ];

    #[test]
    fn an_old_rust_client_is_told_only_numbers_that_it_knows() {
        for code in (0..70_000).filter_map(|number| Code::try_from(number).ok()) {
            let told = code_for("RUST", "5.0.0", code);
            assert!(KNOWN_TO_RUST_5_0_0.contains(&(told as i32)), "{code:?} is told as {told:?}");
            assert_eq!(told == code, KNOWN_TO_RUST_5_0_0.contains(&(code as i32)), "{code:?} is told as {told:?}");
            for (language, version) in [("RUST", "5.1.0"), ("JAVA", "5.0.0")] {
                assert_eq!(code_for(language, version, code), code);
            }
        }
        assert_eq!(code_for("RUST", "5.0.0", Code::MessageBodyEmpty), Code::MessageCorrupted);
    }
}
