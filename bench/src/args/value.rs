//! How values of flags are written, and what is refused.

use crate::body::BODY_BYTES_MIN;
use clap::builder::RangedU64ValueParser;
use gantry_proto::model::limits::{BODY_BYTES_MAX, INVISIBLE_DURATION_MAX, INVISIBLE_DURATION_MIN};
use std::time::Duration;

const RATE_MIN: f64 = 0.01;
const RATE_MAX: f64 = 1e7;
const COUNT_MAX: u64 = 1_000_000_000_000;
const SPAN_MAX: Duration = Duration::from_secs(30 * 86_400);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

pub(super) fn at_most(max: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(max))
}

/// A number of bytes: `1024`, `1KiB`, `4MB`.
pub(super) fn body_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "kb" => 1000,
        "mb" => 1_000_000,
        _ => return Err("expected a size such as 256, 1KiB or 4MiB".to_owned()),
    };
    let bytes: u64 = number.parse().map_err(|_| "expected a size such as 256, 1KiB or 4MiB".to_owned())?;
    let bytes = usize::try_from(bytes.saturating_mul(factor)).unwrap_or(usize::MAX);
    if bytes < BODY_BYTES_MIN {
        return Err(format!("at least {BODY_BYTES_MIN} bytes are needed, for the sequence number and the checksum"));
    }
    if bytes > BODY_BYTES_MAX {
        return Err(format!("the protocol's largest body has {BODY_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// A number of messages: `100000`, `100k`, `1M`.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor = factor_of(unit).ok_or("expected a number such as 500, 100k or 1M")?;
    let number: u64 = number.parse().map_err(|_| "expected a number such as 500, 100k or 1M".to_owned())?;
    match number.saturating_mul(factor) {
        0 => Err("at least 1 is needed".to_owned()),
        count if count > COUNT_MAX => Err(format!("at most {COUNT_MAX} are possible")),
        count => Ok(count),
    }
}

/// Messages per second: `1000`, `2.5k`, `1000/s`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = split_unit(text.strip_suffix("/s").unwrap_or(text));
    let factor = factor_of(unit).ok_or("expected messages per second such as 1000, 2.5k or 1000/s")?;
    let number: f64 =
        number.parse().map_err(|_| "expected messages per second such as 1000, 2.5k or 1000/s".to_owned())?;
    let rate = number * factor as f64;
    if !(RATE_MIN..=RATE_MAX).contains(&rate) {
        return Err(format!("from {RATE_MIN} to {RATE_MAX} messages per second are possible"));
    }
    Ok(rate)
}

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1), TIMEOUT_MAX)
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1), SPAN_MAX)
}

pub(super) fn warmup(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO, SPAN_MAX)
}

pub(super) fn long_poll(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1), TIMEOUT_MAX)
}

pub(super) fn invisible(text: &str) -> Result<Duration, String> {
    duration(text, INVISIBLE_DURATION_MIN, INVISIBLE_DURATION_MAX)
}

/// A span such as `15s`; a number alone is seconds.
fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let parsed = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(u64::from(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|_| "expected a time such as 500ms, 15s or 2m".to_owned())?,
    };
    if parsed < min || parsed > max {
        let [min, max] = [min, max].map(humantime::format_duration);
        return Err(format!("from {min} to {max} are possible"));
    }
    Ok(parsed)
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()))
}

fn factor_of(unit: &str) -> Option<u64> {
    match unit {
        "" => Some(1),
        "k" | "K" => Some(1000),
        "m" | "M" => Some(1_000_000),
        _ => None,
    }
}
