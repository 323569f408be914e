//! Puts layers on top of each other and finds mistakes in all of them.

use super::declaration::SECTIONS;
use super::mistake::Mistake;
use super::option::OptionSpec;
use super::suggest::suggest;
use super::value::{Form, Value};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file's line. Line 0: the file as a whole.
    File {
        /// As the file was named.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag, without dashes.
    Flag(String),
}

/// What an option came out as.
#[derive(Debug)]
pub struct Effective {
    /// Which option.
    pub spec: &'static OptionSpec,
    /// Its value as TOML. None: not set.
    pub toml: Option<String>,
    /// Which layer won.
    pub origin: Origin,
}

/// Collects what the layers say, then hands out values.
#[derive(Default)]
pub(super) struct Resolver {
    /// Per key, weakest first.
    settings: HashMap<&'static str, Vec<Setting>>,
    /// Defaults that depend on the machine.
    defaults: HashMap<&'static str, String>,
    effective: Vec<Effective>,
    mistakes: Vec<Mistake>,
    mistaken: HashSet<&'static str>,
    layer_lost: bool,
}

/// What one layer says about an option.
struct Setting {
    origin: Origin,
    raw: Raw,
}

/// A value before its type is considered.
pub(super) enum Raw {
    /// From a place where everything is text.
    Text(String),
    /// From TOML, where types differ: its text, and its type in words.
    Toml(String, TomlType),
}

/// Types of TOML as far as options differ in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TomlType {
    String,
    Integer,
    Boolean,
    /// Any type that no option has.
    Other(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line: 0 } => write!(f, "file {path}"),
            Origin::File { path, line } => write!(f, "file {path}:{line}"),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

impl Resolver {
    /// Gives an option another default than the declared one.
    pub(super) fn replace_default(&mut self, key: &'static str, value: String) {
        self.defaults.insert(key, value);
    }

    /// Records what a layer says. Layers come weakest first. An unknown key is a mistake.
    pub(super) fn set(&mut self, key: &str, origin: Origin, raw: Raw) {
        match specs().find(|spec| spec.key == key) {
            Some(spec) => self.settings.entry(spec.key).or_default().push(Setting { origin, raw }),
            None => {
                let hint = suggest(key, specs().map(|spec| spec.key)).map(|close| format!("; did you mean {close}?"));
                self.mistake(origin, format!("{key} is not an option{}", hint.unwrap_or_default()));
            }
        }
    }

    /// Records that something is wrong.
    pub(super) fn mistake(&mut self, origin: Origin, message: String) {
        self.mistakes.push(Mistake { origin, message });
    }

    /// Records that nothing is known of a whole layer.
    pub(super) fn layer_lost(&mut self, origin: Origin, message: String) {
        self.layer_lost = true;
        self.mistake(origin, message);
    }

    /// An option's value: that of the strongest layer without a mistake in it.
    pub(super) fn value<T: Value>(&mut self, key: &'static str) -> T {
        let spec = specs().find(|spec| spec.key == key).expect("the declaration made this key");
        let default = self.defaults.get(key).map_or(spec.default, String::as_str);
        // Declared defaults are covered by a test; one from the machine that does not parse gives way.
        let mut value = T::parse(default).ok().or_else(T::unset).or_else(|| T::parse(spec.default).ok());
        let mut origin = Origin::Default;
        for setting in self.settings.remove(key).unwrap_or_default() {
            match parse::<T>(spec, setting.raw) {
                Ok(parsed) => (value, origin) = (Some(parsed), setting.origin),
                Err(message) => {
                    self.mistaken.insert(key);
                    self.mistake(setting.origin, format!("{key}: {message}"));
                }
            }
        }
        let value = value.expect("declared defaults parse");
        self.effective.push(Effective { spec, toml: value.to_toml(), origin });
        value
    }

    /// Records that options contradict each other, unless what they were meant to be is not known. Said of the last one
    /// that somebody set.
    pub(super) fn contradiction(&mut self, keys: &[&str], message: impl Into<String>) {
        if self.layer_lost || keys.iter().any(|key| self.mistaken.contains(key)) {
            return;
        }
        let origins = keys.iter().filter_map(|key| self.effective.iter().find(|e| e.spec.key == *key));
        let origin = origins.map(|e| &e.origin).rfind(|origin| **origin != Origin::Default);
        let origin = origin.cloned().unwrap_or(Origin::Default);
        self.mistake(origin, message.into());
    }

    /// What came of it. Mistakes are in the order of the layers, those of a file in the order of its lines.
    pub(super) fn finish(mut self) -> (Vec<Effective>, Vec<Mistake>) {
        self.mistakes.sort_by_key(|mistake| match mistake.origin {
            Origin::Default => (0, 0),
            Origin::File { line, .. } => (1, line),
            Origin::Environment(_) => (2, 0),
            Origin::Flag(_) => (3, 0),
        });
        (self.effective, self.mistakes)
    }
}

/// Every declared option.
pub(super) fn specs() -> impl Iterator<Item = &'static OptionSpec> {
    SECTIONS.iter().flat_map(|section| section.options)
}

fn parse<T: Value>(spec: &OptionSpec, raw: Raw) -> Result<T, String> {
    let expected = T::expected();
    let text = match raw {
        Raw::Text(text) => text,
        Raw::Toml(text, toml_type) => {
            check_toml_type(T::FORM, toml_type, &expected)?;
            text
        }
    };
    let value = T::parse(&text).map_err(|reason| {
        let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
        format!("{text:?} is not {expected}{reason}")
    })?;
    if let Some((min, max)) = spec.range
        && !(T::parse(min).is_ok_and(|min| min <= value) && T::parse(max).is_ok_and(|max| value <= max))
    {
        return Err(format!("{text:?} is out of range; expected {expected}, from {min} to {max}"));
    }
    Ok(value)
}

fn check_toml_type(form: Form, found: TomlType, expected: &str) -> Result<(), String> {
    match (form, found) {
        (Form::Text | Form::TextOrInteger, TomlType::String)
        | (Form::Integer | Form::TextOrInteger, TomlType::Integer)
        | (Form::Boolean, TomlType::Boolean) => Ok(()),
        (Form::Text | Form::TextOrInteger, _) => {
            Err(format!("found {}; expected {expected}, in quotes", in_words(found)))
        }
        (Form::Integer | Form::Boolean, _) => {
            Err(format!("found {}; expected {expected}, without quotes", in_words(found)))
        }
    }
}

fn in_words(toml_type: TomlType) -> &'static str {
    match toml_type {
        TomlType::String => "a string",
        TomlType::Integer => "an integer",
        TomlType::Boolean => "a boolean",
        TomlType::Other(words) => words,
    }
}
