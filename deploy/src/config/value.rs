//! The types that options have: how each is written, checked and shown.

use gantry_proto::model::{HostPort, StoreGroupName};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A type of option.
pub(super) trait Value: Clone + PartialOrd + Sized {
    /// What stands for the value in the help.
    const NAME: &'static str;
    /// Which TOML types can hold it.
    const FORM: Form;
    /// What a correct value is, for messages: "a duration such as 72h".
    fn expected() -> String;
    /// Parses. The error says what is wrong with the text, or is empty when there is nothing to add.
    fn parse(text: &str) -> Result<Self, String>;
    /// Shows the value in the spelling that [`Value::parse`] takes.
    fn show(&self) -> String;
    /// The value that stands for "not set", for types that have one.
    fn unset() -> Option<Self> {
        None
    }
    /// As TOML. None when not set.
    fn to_toml(&self) -> Option<String> {
        Some(match Self::FORM {
            Form::Text | Form::TextOrInteger => quoted(&self.show()),
            Form::Integer | Form::Boolean => self.show(),
        })
    }
}

/// TOML types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A string.
    Text,
    /// A number without quotes.
    Integer,
    /// A string, or a number without quotes.
    TextOrInteger,
    /// true or false without quotes.
    Boolean,
}

/// Renders a text that parses as `T` as TOML.
pub(super) fn text_to_toml<T: Value>(text: &str) -> Option<String> {
    T::parse(text).ok().and_then(|value| value.to_toml())
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// When a change counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlushMode {
    /// When the disk has it.
    Sync,
    /// When the operating system has it.
    Async,
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyProtocolMode {
    /// None does.
    Off,
    /// One that does is understood.
    Detect,
    /// All do.
    Require,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Which log lines are written: a level, or directives per module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives as `tracing-subscriber` takes them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FlushMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Value for SocketAddr {
    const NAME: &'static str = "IP:PORT";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "an IP address and a port such as 127.0.0.1:8081".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| if text.contains(':') { "" } else { "the port is missing" }.to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for HostPort {
    const NAME: &'static str = "HOST:PORT";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "a host and a port such as mq.example.com:8081".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for StoreGroupName {
    const NAME: &'static str = "NAME";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "a name of letters, digits, - and _ such as store-1".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        StoreGroupName::parse(text).map_err(|error| error.to_string())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const NAME: &'static str = "NUMBER";
    const FORM: Form = Form::Integer;
    fn expected() -> String {
        "a whole number".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        // As in TOML, underscores may separate digits.
        text.replace('_', "").parse().map_err(|_| String::new())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Percent {
    const NAME: &'static str = "PERCENT";
    const FORM: Form = Form::Integer;
    fn expected() -> String {
        "a percentage such as 90".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        number.parse().map(Percent).map_err(|_| String::new())
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for bool {
    const NAME: &'static str = "true|false";
    const FORM: Form = Form::Boolean;
    fn expected() -> String {
        "true or false".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Duration {
    const NAME: &'static str = "DURATION";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "a duration such as 500ms, 30s, 15m or 72h".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map_err(|e| e.to_string())
    }
    /// In the largest unit that says it exactly, up to hours: people read 72h more easily than 3 days.
    fn show(&self) -> String {
        const UNITS: [(u128, &str); 4] = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
        let millis = self.as_millis();
        if millis == 0 {
            return "0s".to_owned();
        }
        (UNITS.iter().find(|(unit, _)| millis.is_multiple_of(*unit)))
            .map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
    }
}

/// Units of [`ByteSize`], largest first.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

impl Value for ByteSize {
    const NAME: &'static str = "SIZE";
    const FORM: Form = Form::TextOrInteger;
    fn expected() -> String {
        "a size such as 512MiB or 1GiB".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let number: u64 = digits.replace('_', "").parse().map_err(|_| "it does not start with a whole number")?;
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            1
        } else {
            let known = BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
            known.ok_or_else(|| format!("{unit:?} is not a unit; use KiB, MiB, GiB or TiB"))?.1
        };
        number.checked_mul(factor).map(ByteSize).ok_or_else(|| "it is too large".to_owned())
    }
    fn show(&self) -> String {
        let exact = BYTE_UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        exact.map_or_else(|| self.0.to_string(), |(name, factor)| format!("{}{name}", self.0 / factor))
    }
}

impl Value for PathBuf {
    const NAME: &'static str = "PATH";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "a path".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.into()) }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for FlushMode {
    const NAME: &'static str = "sync|async";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "sync or async".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "sync" => Ok(FlushMode::Sync),
            "async" => Ok(FlushMode::Async),
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        match self {
            FlushMode::Sync => "sync",
            FlushMode::Async => "async",
        }
        .to_owned()
    }
}

impl Value for ProxyProtocolMode {
    const NAME: &'static str = "off|detect|require";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "off, detect or require".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(ProxyProtocolMode::Off),
            "detect" => Ok(ProxyProtocolMode::Detect),
            "require" => Ok(ProxyProtocolMode::Require),
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        match self {
            ProxyProtocolMode::Off => "off",
            ProxyProtocolMode::Detect => "detect",
            ProxyProtocolMode::Require => "require",
        }
        .to_owned()
    }
}

impl Value for LogFormat {
    const NAME: &'static str = "text|json";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "text or json".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
        .to_owned()
    }
}

impl Value for LogFilter {
    const NAME: &'static str = "LEVEL";
    const FORM: Form = Form::Text;
    fn expected() -> String {
        "error, warn, info, debug or trace, or such levels per module (info,gantry_store=debug)".to_owned()
    }
    /// Stricter than the library, which takes a mistyped level for the name of a module.
    fn parse(text: &str) -> Result<Self, String> {
        for directive in text.split(',') {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            if !["off", "error", "warn", "info", "debug", "trace"].contains(&level) {
                return Err(format!("{level:?} is not a level"));
            }
        }
        tracing_subscriber::EnvFilter::try_new(text).map_err(|e| e.to_string())?;
        Ok(LogFilter(text.to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

impl<T: Value> Value for Option<T> {
    const NAME: &'static str = T::NAME;
    const FORM: Form = T::FORM;
    fn expected() -> String {
        T::expected()
    }
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
    fn unset() -> Option<Self> {
        Some(None)
    }
    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(T::to_toml)
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut toml = String::with_capacity(text.len() + 2);
    toml.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => toml.extend(['\\', c]),
            c if c.is_control() => toml.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => toml.push(c),
        }
    }
    toml.push('"');
    toml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_parses_to_the_same() {
        for text in ["0s", "1ms", "90s", "72h", "1h 1ms"] {
            let value = Duration::parse(text).unwrap();
            assert_eq!(Duration::parse(&value.show()), Ok(value), "{text}");
        }
        for text in ["0", "1", "1023", "1KiB", "1536MiB", "5GB", "1024TiB"] {
            let value = ByteSize::parse(text).unwrap();
            assert_eq!(ByteSize::parse(&value.show()), Ok(value), "{text}");
        }
        for text in ["a:1", "[::1]:8081", "10.0.0.1:65535"] {
            assert_eq!(HostPort::parse(text).map(|v| v.show()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn values_are_shown_in_the_unit_people_use() {
        assert_eq!(Duration::from_secs(72 * 3600).show(), "72h");
        assert_eq!(Duration::from_millis(1500).show(), "1500ms");
        assert_eq!(ByteSize(1 << 30).show(), "1GiB");
        assert_eq!(ByteSize(1_500_000).show(), "1500KB");
    }

    #[test]
    fn sizes_without_sense_are_refused() {
        for text in ["", "GiB", "1.5GiB", "1XiB", "-1", "99999999999TiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistyped_level_is_not_taken_for_a_module() {
        for text in ["inof", "info,gantry_store=dbug", ""] {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
        for text in ["info", "off", "warn,gantry_store=debug,gantry_proxy::listener=trace"] {
            assert!(LogFilter::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
    }
}
