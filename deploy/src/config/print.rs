//! Configuration as commented TOML.

use super::declaration::SECTIONS;
use super::option::{OptionSpec, SectionSpec};
use super::resolver::{Effective, Origin};
use std::fmt::Write as _;

/// The reference file: every option with its description and its default. Settings are commented out with a bare `#`, so
/// that a file made from it sets what its owner decided and nothing else.
pub fn print_reference() -> String {
    let mut out = String::from(
        "# Gantry's configuration: every option with its default.\n\
         # Made by `gantry config print --defaults`. To change an option, remove the # before it.\n\
         # The server reads the file that --config or GANTRY_CONFIG names. An environment variable overrides the file, and a\n\
         # flag overrides both.\n",
    );
    for section in SECTIONS {
        print_section(&mut out, section, |out, spec| {
            let shown = if spec.default.is_empty() { spec.example } else { spec.default };
            let toml = (spec.to_toml)(shown).unwrap_or_default();
            let note = if spec.default.is_empty() { "  # an example; not set by default" } else { "" };
            line(out, &format!("#{} = {toml}{note}", spec.name()));
        });
    }
    out
}

/// The configuration in force: every option with its description, its value and where that comes from.
pub fn print_effective(effective: &[Effective]) -> String {
    let mut out = String::from("# The configuration in force, each value with where it comes from.\n");
    for section in SECTIONS {
        print_section(&mut out, section, |out, spec| {
            let found = effective.iter().find(|e| e.spec.key == spec.key);
            let origin = found.map_or(&Origin::Default, |e| &e.origin);
            match found.and_then(|e| e.toml.as_ref()) {
                Some(toml) => line(out, &format!("{} = {toml}  # {origin}", spec.name())),
                None => line(out, &format!("#{} =  # not set", spec.name())),
            }
        });
    }
    out
}

fn print_section(out: &mut String, section: &SectionSpec, mut setting: impl FnMut(&mut String, &OptionSpec)) {
    line(out, "");
    comment(out, section.doc);
    line(out, &format!("[{}]", section.name));
    for spec in section.options {
        line(out, "");
        comment(out, spec.doc);
        let range = spec.range.map(|(min, max)| format!("From {min} to {max}. ")).unwrap_or_default();
        line(out, &format!("# {range}Environment {}, flag --{}.", spec.variable(), spec.flag()));
        setting(out, spec);
    }
}

fn comment(out: &mut String, doc: &[&str]) {
    for text in doc {
        line(out, &format!("# {}", text.trim()));
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}
