//! Ways to break the product on purpose, to show that the simulation notices. Each is a small text in `mutants/`: what is
//! broken, the scenario that must notice, the file, and which text stands in it for which other.
//!
//! ```text
//! The store answers an append before the disk has it.
//! scenario: crashes
//! file: store/src/commit_log/writer.rs
//! ---
//! text that occurs once in the file
//! +++
//! text that takes its place
//! ---
//! ```

use anyhow::{Context as _, bail};
use std::fs;
use std::path::Path;

/// A way to break the product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The name of its file, without `.txt`.
    pub name: String,
    /// What is broken.
    pub about: String,
    /// Which scenario must notice.
    pub scenario: String,
    /// Which file is changed, from the top of the project.
    pub file: String,
    old: String,
    new: String,
}

impl Mutant {
    fn parse(name: &str, text: &str) -> anyhow::Result<Mutant> {
        let (head, change) = text.split_once("\n---\n").context("there is no line of three dashes")?;
        let (old, new) = change.split_once("+++\n").context("there is no line of three plus signs")?;
        let new = new.strip_suffix("---\n").context("the last line is not three dashes")?;
        let mut head = head.lines();
        let about = head.next().context("the first line says what is broken")?;
        let mut field = |key: &str| {
            let value = head.next().and_then(|line| line.strip_prefix(key)).map(str::trim);
            value.map(str::to_owned).with_context(|| format!("there is no line {key:?}"))
        };
        let (scenario, file) = (field("scenario:")?, field("file:")?);
        let (name, about, old, new) = (name.to_owned(), about.to_owned(), old.to_owned(), new.to_owned());
        Ok(Mutant { name, about, scenario, file, old, new })
    }

    /// The file as it is when broken. `root`: the top of a copy of the project.
    pub fn broken(&self, root: &Path) -> anyhow::Result<String> {
        let path = root.join(&self.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", self.file))?;
        match text.matches(&self.old).count() {
            1 => Ok(text.replacen(&self.old, &self.new, 1)),
            count => {
                bail!("{}: the text occurs {count} times in {}: bring the mutant up to date", self.name, self.file)
            }
        }
    }
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
        assert!(mutants.len() >= 5);
        for mutant in mutants {
            assert!(scenario::named(&mutant.scenario).is_some(), "{}: no such scenario", mutant.name);
            assert_ne!(mutant.broken(&root).unwrap(), fs::read_to_string(root.join(&mutant.file)).unwrap());
        }
    }
}
