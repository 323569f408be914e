//! A backoff policy. Part of commands and groups, versioned by them.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind: 1 customized, 2 exponential |
//! | | customized: |
//! | 1 | number of durations |
//! | 12 each | duration |
//! | | exponential: |
//! | 12 | initial |
//! | 12 | max |
//! | 8 | multiplier, as the bits of an IEEE 754 double |

use super::CodecError;
use super::fields::{Reader, put_duration};
use gantry_proto::model::BackoffPolicy;

const CUSTOMIZED: u8 = 1;
const EXPONENTIAL: u8 = 2;

pub(super) fn put_backoff(out: &mut Vec<u8>, backoff: &BackoffPolicy) {
    match backoff {
        BackoffPolicy::Customized(next) => {
            out.push(CUSTOMIZED);
            out.push(u8::try_from(next.len()).expect("a validated policy has at most 64 durations"));
            for duration in next {
                put_duration(out, *duration);
            }
        }
        BackoffPolicy::Exponential { initial, max, multiplier } => {
            out.push(EXPONENTIAL);
            put_duration(out, *initial);
            put_duration(out, *max);
            out.extend(multiplier.to_bits().to_le_bytes());
        }
    }
}

pub(super) fn read_backoff(reader: &mut Reader<'_>) -> Result<BackoffPolicy, CodecError> {
    match reader.u8()? {
        CUSTOMIZED => {
            let count = reader.u8()?;
            (0..count).map(|_| reader.duration()).collect::<Result<_, _>>().map(BackoffPolicy::Customized)
        }
        EXPONENTIAL => Ok(BackoffPolicy::Exponential {
            initial: reader.duration()?,
            max: reader.duration()?,
            multiplier: f64::from_bits(reader.u64()?),
        }),
        _ => Err(CodecError::Damaged("a backoff policy is of no known kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::any_backoff;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_policy_reads_back_as_it_was_written(backoff in any_backoff()) {
            let mut bytes = Vec::new();
            put_backoff(&mut bytes, &backoff);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(read_backoff(&mut reader), Ok(backoff));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
