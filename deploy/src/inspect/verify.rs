//! `gantry inspect verify`.

use super::print::Printer;
use super::{WrongPath, controller, note_in_use};
use crate::beside;
use clap::Args;
use gantry_controller::{OpenError, metadata_in, way_out};
use gantry_proto::env::Files;
use gantry_store::inspect::{Finding, Severity, Verified, verify_store};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Which folder.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A data folder (what `--data` names), or the store's or the controller's folder in it.
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
    controller_entries: u64,
}

/// Reads the whole folder: the store's part, the controller's part, or both. `false`: it has a problem.
pub(super) fn run(files: &dyn Files, args: &VerifyArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let controller = controller::controller_dir(files, &args.dir);
    let store = match store_dir(files, &args.dir) {
        Err(_) if controller.is_some() => None,
        store => Some(store?),
    };
    printer.begin_object(None)?;
    printer.value(Some("folder"), &args.dir.display().to_string())?;
    printer.begin_list(Some("findings"))?;
    let mut sum = Verified::default();
    if let Some(dir) = &store {
        note_in_use(dir);
        let mut printed = Ok(());
        sum = verify_store(files, dir, &mut |finding| {
            if printed.is_ok() && !(args.quiet && finding.severity == Severity::Whole) {
                printed = show(&finding, printer);
            }
        })?;
        printed?;
    }
    let mut entries = 0;
    if let Some(dir) = &controller {
        note_in_use(dir);
        let (seen, problems) = of_controller(files, dir, args.quiet, printer)?;
        entries = seen;
        sum.problems += problems;
    }
    if let (Some(data), Some(controller)) = (data_of(&args.dir, store.as_deref(), controller.as_deref()), &controller)
        && let Some(finding) = beside_each_other(files, &data, controller)
    {
        sum.problems += 1;
        show(&finding, printer)?;
    }
    printer.end()?;
    let Verified { segments, records, messages, bytes, problems, notes } = sum;
    let summary =
        Summary { problems, notes, segments, records, messages, record_bytes: bytes, controller_entries: entries };
    printer.value(Some("summary"), &summary)?;
    printer.end()?;
    printer.line(|| {
        let mut text = match problems {
            0 => "whole".to_owned(),
            1 => "1 PROBLEM".to_owned(),
            many => format!("{many} PROBLEMS"),
        };
        if store.is_some() {
            let many = if segments == 1 { "" } else { "s" };
            let _ = write!(
                text,
                ", {notes} notes: {records} records, {messages} messages, {bytes} bytes in {segments} segment{many}"
            );
        }
        if controller.is_some() {
            let _ = write!(text, "; {entries} entries in the controller's log");
        }
        text
    })?;
    Ok(problems == 0)
}

/// The data folder, if the whole of it is looked at.
fn data_of(path: &Path, store: Option<&Path>, controller: Option<&Path>) -> Option<PathBuf> {
    let holds = |part: &str, found: Option<&Path>| found.is_none_or(|found| found == path.join(part));
    (controller.is_some() && holds("store", store) && holds("controller", controller)).then(|| path.to_owned())
}

/// What is wrong between the store's folder and the controller's. What one of them is by itself was said before.
fn beside_each_other(files: &dyn Files, data: &Path, controller: &Path) -> Option<Finding> {
    let store = data.join("store");
    let identity = beside::identity_in(files, &store);
    if identity.is_none() && beside::holds_segments(files, &store) {
        return None;
    }
    let misfit = beside::misfit(identity.as_ref(), &metadata_in(files, controller).ok()?)?;
    let (what, advice) = (misfit.to_string(), Some(misfit.advice(data)));
    Some(Finding { severity: Severity::Problem, path: store, at: None, what, advice })
}

/// Entries and problems.
fn of_controller(files: &dyn Files, dir: &Path, quiet: bool, printer: &mut Printer) -> anyhow::Result<(u64, u64)> {
    let finding = |severity, file, what, advice: Option<&str>| Finding {
        severity,
        path: dir.join(file),
        at: None,
        what,
        advice: advice.map(str::to_owned),
    };
    let mut found = Vec::new();
    let seen = controller::verify(files, dir, |file, what, advice| {
        found.push(finding(Severity::Problem, file, what, Some(advice)))
    });
    let (entries, mut problems) = match seen {
        Ok(seen) => {
            if seen.problems == 0 {
                let last = seen.last.map_or_else(String::new, |last| format!(", the last with index {last}"));
                let what = format!("{} entries{last}", seen.entries);
                found.push(finding(Severity::Whole, controller::DATABASE, what, None));
            }
            (seen.entries, seen.problems)
        }
        Err(OpenError::Damaged { what, .. }) => {
            let what = format!("damaged: {what}");
            found.push(finding(Severity::Problem, controller::DATABASE, what, Some(&way_out(dir))));
            (0, 1)
        }
        Err(error) => {
            found.push(finding(Severity::Problem, controller::DATABASE, error.to_string(), None));
            (0, 1)
        }
    };
    problems = problems.max(found.iter().filter(|finding| finding.severity == Severity::Problem).count() as u64);
    for finding in found.iter().filter(|finding| !(quiet && finding.severity == Severity::Whole)) {
        show(finding, printer)?;
    }
    Ok((entries, problems))
}

/// The store's folder: `path`, or the part of it that is the store's.
pub(crate) fn store_dir(files: &dyn Files, path: &Path) -> Result<PathBuf, WrongPath> {
    let is_store = |dir: &Path| {
        files.list(dir).is_ok_and(|names| {
            names
                .iter()
                .any(|entry| ["commit-log", "identity", "identity.copy", "positions"].contains(&entry.name.as_str()))
        })
    };
    let found = [path.to_owned(), path.join("store")].into_iter().find(|dir| is_store(dir));
    found.ok_or_else(|| {
        let path = path.display();
        WrongPath(format!(
            "{path} is not the folder of a store or a controller: neither commit-log nor identity nor positions nor \
             consensus.redb is in it"
        ))
    })
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
