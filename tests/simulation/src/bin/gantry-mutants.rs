//! Breaks the product on purpose, one way after the other, in a copy of the project, and says which seed of the simulation
//! notices each. Fails if none does. `cargo run -p gantry-simulation --bin gantry-mutants [name …]`, at the top of the
//! project; builds with the profile `sim`, a minute or two for each, and some more for the first one of all.

use anyhow::{Context as _, bail};
use gantry_simulation::mutants::{self, Mutant};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

/// Seeds that are tried with each.
const SEEDS_MAX: u64 = 20;
/// Simulated seconds with faults in each run.
const TIME: &str = "20";

fn main() -> anyhow::Result<ExitCode> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let root = PathBuf::from(".").canonicalize()?;
    let tree = root.join("target/mutants");
    // Of its own: cargo takes a crate that was built in the copy for the same crate of the project.
    let target = root.join("target/mutants-build");
    let mut missed = 0;
    for mutant in mutants::all(&root).context("run this at the top of the project")? {
        if !names.is_empty() && !names.contains(&mutant.name) {
            continue;
        }
        copy_project(&root, &tree)?;
        fs::write(tree.join(&mutant.file), mutant.broken(&root)?)?;
        build(&tree, &target)?;
        let noticed = try_seeds(&mutant, &target.join("sim/gantry-sim"))?;
        let mut out = io::stdout().lock();
        match noticed {
            Some((seed, how)) => writeln!(out, "{}: seed {seed} of {} notices: {how}", mutant.name, mutant.scenario)?,
            None => {
                missed += 1;
                writeln!(out, "{}: NOT NOTICED by {SEEDS_MAX} seeds of {}", mutant.name, mutant.scenario)?;
            }
        }
    }
    fs::remove_dir_all(&tree)?;
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that belongs to the project, unless it is there already, unchanged.
fn copy_project(root: &Path, tree: &Path) -> anyhow::Result<()> {
    let listed = finish(Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root))?;
    for name in String::from_utf8(listed.stdout)?.lines() {
        let (from, to) = (root.join(name), tree.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(to, bytes)?;
    }
    Ok(())
}

fn build(tree: &Path, target: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--profile", "sim", "-p", "gantry-simulation", "--bin", "gantry-sim"]);
    finish(command.env("CARGO_TARGET_DIR", target).current_dir(tree)).map(drop)
}

/// The first seed that notices, and how.
fn try_seeds(mutant: &Mutant, program: &Path) -> anyhow::Result<Option<(u64, String)>> {
    for seed in 1..=SEEDS_MAX {
        let mut command = Command::new(program);
        command.args(["--seed", &seed.to_string(), "--scenario", &mutant.scenario, "--time", TIME]);
        let output = command.output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let violated = text.lines().find_map(|line| line.trim().strip_prefix("violated "));
            if let Some(violated) = violated {
                return Ok(Some((seed, violated.to_owned())));
            }
        }
    }
    Ok(None)
}

fn finish(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output)
}
