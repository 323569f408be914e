//! Breaks the product on purpose, one way after the other, in a copy of the project, and says which seed of the simulation
//! notices each. Fails if none does and nobody knows why. `cargo run -p gantry-simulation --bin gantry-mutants [name …]`, at the top of the
//! project; builds once with the profile `sim`, for some minutes.

use anyhow::{Context as _, bail};
use gantry_simulation::mutants::{self, Mutant};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

/// Seeds that are tried with each.
const SEEDS_MAX: u64 = 20;
/// Simulated seconds with faults in each run.
const TIME: &str = "12";

fn main() -> anyhow::Result<ExitCode> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let root = PathBuf::from(".").canonicalize()?;
    let tree = root.join("target/mutants");
    // Of its own: cargo takes a crate that was built in the copy for the same crate of the project.
    let target = root.join("target/mutants-build");
    let mutants = mutants::all(&root).context("run this at the top of the project")?;
    copy_project(&root, &tree)?;
    for (file, text) in mutants::changed_files(&root, &mutants)? {
        write_if_changed(&tree.join(file), text.as_bytes())?;
    }
    build(&tree, &target)?;
    let program = target.join("sim/gantry-sim");
    let mut missed = 0;
    for mutant in mutants {
        if !names.is_empty() && !names.contains(&mutant.name) {
            continue;
        }
        let noticed = try_seeds(&mutant, &program)?;
        let mut out = io::stdout().lock();
        let Mutant { name, scenario, missed: known, .. } = &mutant;
        match (noticed, known) {
            (Some((seed, how)), None) => writeln!(out, "{name}: seed {seed} of {scenario} notices: {how}")?,
            (Some((seed, how)), Some(why)) => {
                missed += 1;
                writeln!(out, "{name}: seed {seed} of {scenario} notices: {how}. It says that none does: {why}")?;
            }
            (None, Some(why)) => writeln!(out, "{name}: known to be missed by {SEEDS_MAX} seeds of {scenario}: {why}")?,
            (None, None) => {
                missed += 1;
                writeln!(out, "{name}: NOT NOTICED by {SEEDS_MAX} seeds of {scenario}")?;
            }
        }
        out.flush()?;
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that belongs to the project, unless it is there already, unchanged.
fn copy_project(root: &Path, tree: &Path) -> anyhow::Result<()> {
    let listed = finish(Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root))?;
    for name in String::from_utf8(listed.stdout)?.lines() {
        let (from, to) = (root.join(name), tree.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        write_if_changed(&to, &bytes)?;
    }
    Ok(())
}

/// So that only what changed is compiled anew.
fn write_if_changed(to: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, bytes)
}

fn build(tree: &Path, target: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--profile", "sim", "-p", "gantry-simulation", "--bin", "gantry-sim"]);
    finish(command.env("CARGO_TARGET_DIR", target).current_dir(tree)).map(drop)
}

/// The first seed that notices, and how. One that fails without the mutant, too, has noticed something else.
fn try_seeds(mutant: &Mutant, program: &Path) -> anyhow::Result<Option<(u64, String)>> {
    for seed in 1..=SEEDS_MAX {
        let violated = |with: &[&str]| -> anyhow::Result<Option<String>> {
            let mut command = Command::new(program);
            command.args(["--seed", &seed.to_string(), "--scenario", &mutant.scenario, "--time", TIME]).args(with);
            let text = String::from_utf8_lossy(&command.output()?.stdout).into_owned();
            Ok(text.lines().find_map(|line| line.trim().strip_prefix("violated ")).map(str::to_owned))
        };
        if let Some(how) = violated(&["--mutant", &mutant.name])?
            && violated(&[])?.is_none()
        {
            return Ok(Some((seed, how)));
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
