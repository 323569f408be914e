//! Results as they come: lines for people, or one JSON document whose lists are written item by item.

use super::Format;
use serde::Serialize;
use std::io::{self, BufWriter, Stdout, Write as _};

/// Writes one result to standard output.
pub(super) struct Printer {
    out: BufWriter<Stdout>,
    pub(super) format: Format,
    /// Brackets to close, innermost last; with whether something stands in them already.
    open: Vec<(char, bool)>,
}

impl Printer {
    pub(super) fn new(format: Format) -> Printer {
        Printer { out: BufWriter::new(io::stdout()), format, open: Vec::new() }
    }

    /// A line of text, unless the result is JSON.
    pub(super) fn line(&mut self, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.format == Format::Text {
            writeln!(self.out, "{}", text())?;
        }
        Ok(())
    }

    /// Begins a JSON object; named if it is a field.
    pub(super) fn begin_object(&mut self, name: Option<&str>) -> anyhow::Result<()> {
        self.begin(name, '{', '}')
    }

    /// Begins a JSON list; named if it is a field.
    pub(super) fn begin_list(&mut self, name: Option<&str>) -> anyhow::Result<()> {
        self.begin(name, '[', ']')
    }

    /// Ends the object or list that began last.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        if self.format == Format::Json
            && let Some((close, _)) = self.open.pop()
        {
            write!(self.out, "{close}")?;
            if self.open.is_empty() {
                writeln!(self.out)?;
            }
        }
        Ok(())
    }

    /// A JSON value; named if it is a field.
    pub(super) fn value(&mut self, name: Option<&str>, value: &impl Serialize) -> anyhow::Result<()> {
        if self.format == Format::Json {
            self.item(name)?;
            serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
            if self.open.is_empty() {
                writeln!(self.out)?;
            }
        }
        Ok(())
    }

    /// Writes out what is left.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.out.flush()?)
    }

    fn begin(&mut self, name: Option<&str>, bracket: char, close: char) -> anyhow::Result<()> {
        if self.format == Format::Json {
            self.item(name)?;
            write!(self.out, "{bracket}")?;
            self.open.push((close, false));
        }
        Ok(())
    }

    fn item(&mut self, name: Option<&str>) -> anyhow::Result<()> {
        if let Some((_, begun)) = self.open.last_mut() {
            let separator = if std::mem::replace(begun, true) { ",\n" } else { "\n" };
            write!(self.out, "{separator}")?;
        }
        if let Some(name) = name {
            write!(self.out, "\"{name}\": ")?;
        }
        Ok(())
    }
}

/// RFC 3339 in UTC.
pub(crate) fn instant(time: gantry_proto::model::Timestamp) -> String {
    let millis = time.as_millis();
    let since = std::time::Duration::from_millis(millis);
    // The last second that RFC 3339 can write is the end of the year 9999.
    match std::time::SystemTime::UNIX_EPOCH.checked_add(since) {
        Some(instant) if millis / 1000 <= 253_402_300_799 => humantime::format_rfc3339_millis(instant).to_string(),
        _ => format!("{millis}ms"),
    }
}
