//! The layer of the TOML file.

use super::declaration::SECTIONS;
use super::resolver::{Origin, Raw, Resolver, TomlType, specs};
use super::suggest::suggest;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Reads a file into the resolver. A file that cannot be read or parsed is a mistake like any other. Of one that is not
/// TOML nothing counts: what a broken line was meant to say would only make up further mistakes.
pub(super) fn read(path: &Path, resolver: &mut Resolver) {
    let file = File { path: path.display().to_string(), text: std::fs::read_to_string(path) };
    let text = match &file.text {
        Ok(text) => text,
        Err(error) => return resolver.layer_lost(file.origin_of_line(0), format!("cannot be read: {error}")),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let position = error.span().map_or(0, |span| span.start);
        let message = format!("is not TOML: {}", error.message().replace('\n', ", "));
        resolver.layer_lost(file.origin(text, position), message);
    }
    if !errors.is_empty() {
        return;
    }
    for (name, value) in table.get_ref().iter() {
        file.read_section(text, name.get_ref(), name.span().start, value.get_ref(), resolver);
    }
}

struct File {
    path: String,
    text: std::io::Result<String>,
}

impl File {
    fn read_section(&self, text: &str, name: &str, position: usize, value: &DeValue<'_>, resolver: &mut Resolver) {
        let known = SECTIONS.iter().any(|section| section.name == name);
        match value.as_table() {
            Some(table) if known || !table.is_empty() => {
                for (key, value) in table.iter() {
                    let key_path = format!("{name}.{}", key.get_ref());
                    let origin = self.origin(text, key.span().start);
                    resolver.set(&key_path, origin, raw(value.get_ref()));
                }
            }
            None if known => {
                let message = format!("{name} is a section; write [{name}] and its options below");
                resolver.mistake(self.origin(text, position), message);
            }
            // An empty section that nobody knows, or an option outside any section.
            Some(_) | None => {
                let names = SECTIONS.iter().map(|section| section.name).chain(specs().map(|spec| spec.key));
                let hint = suggest(name, names).map(|close| format!("; did you mean {close}?")).unwrap_or_default();
                let message = format!("{name} is neither a section nor an option{hint}");
                resolver.mistake(self.origin(text, position), message);
            }
        }
    }

    fn origin(&self, text: &str, position: usize) -> Origin {
        let before = &text.as_bytes()[..position.min(text.len())];
        self.origin_of_line(1 + before.iter().filter(|byte| **byte == b'\n').count())
    }

    fn origin_of_line(&self, line: usize) -> Origin {
        Origin::File { path: self.path.clone(), line }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Toml(text.to_string(), TomlType::String),
        // An integer in another base becomes decimal; one too large for that stays as it is and is refused.
        DeValue::Integer(integer) => {
            let decimal = i128::from_str_radix(integer.as_str(), integer.radix());
            let text = decimal.map_or_else(|_| integer.to_string(), |number| number.to_string());
            Raw::Toml(text, TomlType::Integer)
        }
        DeValue::Boolean(value) => Raw::Toml(value.to_string(), TomlType::Boolean),
        DeValue::Float(_) => Raw::Toml(String::new(), TomlType::Other("a number with a fraction")),
        DeValue::Datetime(_) => Raw::Toml(String::new(), TomlType::Other("a date")),
        DeValue::Array(_) => Raw::Toml(String::new(), TomlType::Other("an array")),
        DeValue::Table(_) => Raw::Toml(String::new(), TomlType::Other("a table")),
    }
}
