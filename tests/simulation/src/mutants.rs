//! Ways to break the product on purpose, to show that the simulation notices. Each is a small text in `mutants/`: what is
//! broken, the scenario that must notice, and, once or several times, a file and which text stands in it for which other.
//!
//! ```text
//! The store answers an append before the disk has it.
//! scenario: crashes
//! file: store/src/commit_log/writer.rs
//! ---
//! text that occurs once in the file
//! +++
//! text that takes its place, with MUTANT in it
//! ---
//! ```
//!
//! After the scenario's line there may be one that begins with `missed:` and says why no seed notices.
//!
//! All of them are put into one copy of the project, so that it is built once. Which one is at work is said to the program
//! when it runs, in the variable [`CHOSEN`]: `MUTANT` in the text that takes the place stands for an expression that is true
//! in that run only. So without one the program does what the project does.

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The environment variable that names the mutant at work.
pub const CHOSEN: &str = "GANTRY_MUTANT";

/// A way to break the product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The name of its file, without `.txt`.
    pub name: String,
    /// What is broken.
    pub about: String,
    /// Which scenario must notice.
    pub scenario: String,
    /// Why it goes unnoticed, if that is known.
    pub missed: Option<String>,
    edits: Vec<Edit>,
}

/// One change of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edit {
    /// Which, from the top of the project.
    file: String,
    old: String,
    new: String,
}

impl Mutant {
    fn parse(name: &str, text: &str) -> anyhow::Result<Mutant> {
        let mut parts = text.split("file:");
        let mut head = parts.next().unwrap_or_default().lines();
        let about = head.next().context("the first line says what is broken")?;
        let scenario = head.next().and_then(|line| line.strip_prefix("scenario:")).map(str::trim);
        let scenario = scenario.context("the second line names the scenario")?;
        let missed = head.next().and_then(|line| line.strip_prefix("missed:")).map(|why| why.trim().to_owned());
        let edits: Vec<Edit> = parts.map(Edit::parse).collect::<anyhow::Result<_>>()?;
        if edits.is_empty() {
            bail!("it changes no file");
        }
        let (name, about, scenario) = (name.to_owned(), about.to_owned(), scenario.to_owned());
        Ok(Mutant { name, about, scenario, missed, edits })
    }
}

impl Edit {
    fn parse(text: &str) -> anyhow::Result<Edit> {
        let (file, change) = text.split_once("\n---\n").context("there is no line of three dashes")?;
        let (old, new) = change.split_once("+++\n").context("there is no line of three plus signs")?;
        let new = new.strip_suffix("---\n").context("the last line is not three dashes")?;
        let (file, old, new) = (file.trim().to_owned(), old.to_owned(), new.to_owned());
        Ok(Edit { file, old, new })
    }

    /// The text of its file, with the mutant of that name in it.
    fn put_into(&self, text: &str, name: &str) -> anyhow::Result<String> {
        let chosen = format!("std::env::var_os({CHOSEN:?}).is_some_and(|name| name == {name:?})");
        let new = self.new.replace("MUTANT", &chosen);
        if new == self.new {
            bail!("{name}: MUTANT does not occur in what takes the place of the text");
        }
        match text.matches(&self.old).count() {
            1 => Ok(text.replacen(&self.old, &new, 1)),
            count => bail!("{name}: the text occurs {count} times in {}: bring the mutant up to date", self.file),
        }
    }
}

/// The files that mutants change, with all of them in them. `root`: the top of the project.
pub fn changed_files(root: &Path, mutants: &[Mutant]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for mutant in mutants {
        for edit in &mutant.edits {
            let text = match files.get(&edit.file) {
                Some(text) => String::clone(text),
                None => fs::read_to_string(root.join(&edit.file))
                    .with_context(|| format!("{}: cannot read {}", mutant.name, edit.file))?,
            };
            files.insert(edit.file.clone(), edit.put_into(&text, &mutant.name)?);
        }
    }
    Ok(files)
}

/// All mutants, by name. `root`: the top of the project.
pub fn all(root: &Path) -> anyhow::Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for entry in fs::read_dir(root.join("tests/simulation/mutants"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).context("a name is not text")?.to_owned();
        let mutant = Mutant::parse(&name, &fs::read_to_string(&path)?).with_context(|| format!("mutant {name}"))?;
        mutants.push(mutant);
    }
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn every_mutant_is_up_to_date() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mutants = all(&root).unwrap();
        assert!(mutants.len() >= 20, "{}", mutants.len());
        for mutant in &mutants {
            assert!(scenario::named(&mutant.scenario).is_some(), "{}: no such scenario", mutant.name);
        }
        for (file, text) in changed_files(&root, &mutants).unwrap() {
            assert_ne!(text, fs::read_to_string(root.join(&file)).unwrap());
        }
    }

    #[test]
    fn a_mutant_may_say_why_it_goes_unnoticed() {
        let mutant = |line: &str| {
            let text = format!("It breaks.\nscenario: steady\n{line}file: a.rs\n---\na\n+++\nMUTANT\n---\n");
            Mutant::parse("m", &text).unwrap()
        };
        assert_eq!(mutant("").missed, None);
        assert_eq!(mutant("missed: nobody looks\n").missed.as_deref(), Some("nobody looks"));
    }

    #[test]
    fn a_mutant_whose_text_is_gone_or_that_is_always_at_work_is_refused() {
        let text = |old: &str, new: &str| format!("a.rs\n---\n{old}+++\n{new}---\n");
        let edit = Edit::parse(&text("old();\n", "if !MUTANT { old(); }\n")).unwrap();
        let changed = edit.put_into("one();\nold();\n", "m").unwrap();
        let expected = "one();\nif !std::env::var_os(\"GANTRY_MUTANT\").is_some_and(|name| name == \"m\") { old(); }\n";
        assert_eq!(changed, expected);
        assert!(edit.put_into("one();\n", "m").is_err());
        assert!(edit.put_into("old();\nold();\n", "m").is_err());
        let always = Edit::parse(&text("old();\n", "new();\n")).unwrap();
        assert!(always.put_into("old();\n", "m").is_err());
    }
}
