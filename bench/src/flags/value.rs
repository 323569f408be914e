//! How values of flags are written, and what is refused.

use crate::body::BODY_BYTES_MIN;
use clap::builder::RangedU64ValueParser;
use gantry_proto::model::limits::BODY_BYTES_MAX;
use std::time::Duration;

const RATE_MIN: f64 = 0.01;
const RATE_MAX: f64 = 1e7;
const COUNT_MAX: u64 = 1_000_000_000_000;

pub(super) fn at_most(max: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(max))
}

/// A number of bytes: `1024`, `1KiB`, `4MB`.
pub(super) fn body_size(text: &str) -> Result<usize, String> {
    let [k, m] = [1 << 10, 1 << 20];
    let units = [("b", 1), ("k", k), ("kib", k), ("m", m), ("mib", m), ("kb", 1000), ("mb", 1_000_000)];
    let bytes = number(text, &units, u64::saturating_mul).ok_or("expected a size such as 256, 1KiB or 4MiB")?;
    match usize::try_from(bytes).unwrap_or(usize::MAX) {
        ..BODY_BYTES_MIN => {
            Err(format!("at least {BODY_BYTES_MIN} bytes are needed, for the sequence number and the checksum"))
        }
        bytes if bytes > BODY_BYTES_MAX => Err(format!("the protocol's largest body has {BODY_BYTES_MAX} bytes")),
        bytes => Ok(bytes),
    }
}

const THOUSANDS: [(&str, u64); 2] = [("k", 1000), ("m", 1_000_000)];

/// A number of messages: `100000`, `100k`, `1M`.
pub(super) fn count(text: &str) -> Result<u64, String> {
    match number(text, &THOUSANDS, u64::saturating_mul).ok_or("expected a number such as 500, 100k or 1M")? {
        0 => Err("at least 1 is needed".to_owned()),
        count if count > COUNT_MAX => Err(format!("at most {COUNT_MAX} are possible")),
        count => Ok(count),
    }
}

/// Messages per second: `1000`, `2.5k`, `1000/s`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate =
        number(text.strip_suffix("/s").unwrap_or(text), &THOUSANDS, |number: f64, factor| number * factor as f64)
            .ok_or("expected messages per second such as 1000, 2.5k or 1000/s")?;
    if !(RATE_MIN..=RATE_MAX).contains(&rate) {
        return Err(format!("from {RATE_MIN} to {RATE_MAX} messages per second are possible"));
    }
    Ok(rate)
}

/// A span such as `15s`; a number alone is seconds.
pub(super) fn span(min: Duration, max: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let parsed = match text.parse::<u32>() {
            Ok(seconds) => Duration::from_secs(u64::from(seconds)),
            Err(_) => humantime::parse_duration(text).map_err(|_| "expected a time such as 500ms, 15s or 2m")?,
        };
        if parsed < min || parsed > max {
            let [min, max] = [min, max].map(humantime::format_duration);
            return Err(format!("from {min} to {max} are possible"));
        }
        Ok(parsed)
    }
}

/// A number, perhaps with a unit, whatever its case.
fn number<T: std::str::FromStr>(text: &str, units: &[(&str, u64)], times: fn(T, u64) -> T) -> Option<T> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let mut named = units.iter().chain(&[("", 1)]).filter(|(name, _)| name.eq_ignore_ascii_case(unit));
    Some(times(number.parse().ok()?, named.next()?.1))
}
