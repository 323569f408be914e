//! `gantry inspect verify`.

use super::print::Printer;
use super::{WrongPath, note_in_use};
use clap::Args;
use gantry_proto::env::Files;
use gantry_store::inspect::{Finding, Severity, Verified, verify_store};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Which folder.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A data folder (what `--data` names), or the store's folder in it.
    dir: PathBuf,
    /// Only what is not whole.
    #[arg(long)]
    quiet: bool,
}

#[derive(Serialize)]
struct Found<'a> {
    severity: &'a str,
    file: String,
    offset: Option<u64>,
    what: &'a str,
    advice: Option<&'a str>,
}

#[derive(Serialize)]
struct Summary {
    problems: u64,
    notes: u64,
    segments: u64,
    records: u64,
    messages: u64,
    record_bytes: u64,
}

/// Reads the whole folder. `false`: it has a problem.
pub(super) fn run(files: &dyn Files, args: &VerifyArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let dir = store_dir(files, &args.dir)?;
    note_in_use(&dir);
    printer.begin_object(None)?;
    printer.value(Some("folder"), &dir.display().to_string())?;
    printer.begin_list(Some("findings"))?;
    let mut printed = Ok(());
    let verified = verify_store(files, &dir, &mut |finding| {
        if printed.is_ok() && !(args.quiet && finding.severity == Severity::Whole) {
            printed = show(&finding, printer);
        }
    })?;
    printed?;
    printer.end()?;
    let Verified { segments, records, messages, bytes, problems, notes } = verified;
    printer.value(Some("summary"), &Summary { problems, notes, segments, records, messages, record_bytes: bytes })?;
    printer.end()?;
    printer.line(|| {
        let judged = match problems {
            0 => "whole".to_owned(),
            1 => "1 PROBLEM".to_owned(),
            many => format!("{many} PROBLEMS"),
        };
        let many = if segments == 1 { "" } else { "s" };
        format!(
            "{judged}, {notes} notes: {records} records, {messages} messages, {bytes} bytes in {segments} segment{many}"
        )
    })?;
    Ok(problems == 0)
}

/// The store's folder: `path`, or the part of it that is the store's.
pub(crate) fn store_dir(files: &dyn Files, path: &Path) -> anyhow::Result<PathBuf> {
    let is_store = |dir: &Path| {
        files.list(dir).is_ok_and(|names| {
            names
                .iter()
                .any(|entry| ["commit-log", "identity", "identity.copy", "positions"].contains(&entry.name.as_str()))
        })
    };
    let found = [path.to_owned(), path.join("store")].into_iter().find(|dir| is_store(dir));
    Ok(found.ok_or_else(|| {
        let path = path.display();
        WrongPath(format!("{path} is not a store's folder: neither commit-log nor identity nor positions is in it"))
    })?)
}

fn show(finding: &Finding, printer: &mut Printer) -> anyhow::Result<()> {
    let severity = match finding.severity {
        Severity::Whole => "whole",
        Severity::Note => "note",
        Severity::Problem => "problem",
    };
    let Finding { path, at, what, advice, .. } = finding;
    let file = path.display().to_string();
    let offset = at.map(|at| at.0);
    printer.value(None, &Found { severity, file: file.clone(), offset, what, advice: advice.as_deref() })?;
    printer.line(|| {
        let at = at.map_or_else(String::new, |at| format!(" at {at}"));
        let advice = advice.as_ref().map_or_else(String::new, |advice| format!(". {advice}"));
        format!("{severity:8} {file}{at}: {what}{advice}")
    })
}
