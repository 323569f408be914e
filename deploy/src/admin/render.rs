//! Results as text.

use crate::output;
use clap::ValueEnum;
use serde::Serialize;

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

/// A result. Its serialization is what scripts rely on: fields are added, never renamed.
pub(super) trait Render: Serialize {
    /// For people, ending with a newline unless empty.
    fn to_table(&self) -> String;
}

/// Prints a result.
pub(super) fn show(result: &impl Render, format: OutputFormat) -> anyhow::Result<()> {
    let text = match format {
        OutputFormat::Table => result.to_table(),
        OutputFormat::Json => serde_json::to_string_pretty(result)? + "\n",
    };
    Ok(output::print(&text)?)
}

/// Columns as wide as their widest cell, two spaces between them.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One property a line.
pub(super) fn properties<const N: usize>(rows: [(&str, String); N]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_without_blanks() {
        let rows = [["orders".to_owned(), "8".to_owned()], ["a".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "QUEUES"], rows), "NAME    QUEUES\norders  8\na\n");
    }
}
