//! Numbers for people.

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", count(number / 1000), number % 1000),
    }
}

/// Microseconds in the unit that suits them, with three digits or so.
pub(crate) fn micros(micros: u64) -> String {
    match micros as f64 {
        value if value < 1e3 => format!("{micros} µs"),
        value if value < 1e5 => format!("{:.2} ms", value / 1e3),
        value if value < 1e6 => format!("{:.0} ms", value / 1e3),
        value if value < 1e8 => format!("{:.2} s", value / 1e6),
        value => format!("{} s", count((value / 1e6).round() as u64)),
    }
}

/// Bytes in the largest unit that tells them exactly.
pub(crate) fn bytes(bytes: usize) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{} B", count(bytes as u64)),
    }
}

/// Rounded to that many digits after the point.
pub(crate) fn rounded(number: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (number * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_keep_about_three_digits() {
        let texts = [0, 999, 1000, 99_990, 100_000, 1_500_000, 99_999_999, 7_200_000_000].map(micros);
        assert_eq!(texts, ["0 µs", "999 µs", "1.00 ms", "99.99 ms", "100 ms", "1.50 s", "100.00 s", "7,200 s"]);
    }

    #[test]
    fn sizes_are_exact() {
        assert_eq!([36, 1024, 1500, 4 << 20].map(bytes), ["36 B", "1 KiB", "1,500 B", "4 MiB"]);
    }
}
