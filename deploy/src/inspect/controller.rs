//! `gantry inspect controller`.

use super::print::{Printer, instant};
use super::{WrongPath, note_in_use};
use clap::Args;
use gantry_controller::{
    Acknowledged, OpenError, StoredContent, StoredValue, Unreadable, inspect, inspect_acknowledged, way_out,
};
use gantry_proto::convert::Wire as _;
use gantry_proto::env::Files;
use gantry_proto::model::{MetadataCommand, Timestamp};
use gantry_proto::wire::controller::v1 as wire;
use serde::Serialize;
use std::path::{Path, PathBuf};
use wire::log_entry::Payload;

/// Which folder, and what of it.
#[derive(Debug, Args)]
pub(super) struct ControllerArgs {
    /// A data folder (what `--data` names), or the controller's folder in it.
    dir: PathBuf,
    /// Only entries of the log from this index on.
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// At most so many entries of the log.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

#[derive(Serialize)]
struct Value<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    bytes: usize,
    state: &'a str,
    says: &'a str,
}

/// What a look at a controller's folder came to, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) entries: u64,
    pub(super) last: Option<u64>,
    pub(super) problems: u64,
}

/// Prints what the folder of a controller's member holds. `false`: something is not whole.
pub(super) fn run(files: &dyn Files, args: &ControllerArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let dir = controller_dir(files, &args.dir).ok_or_else(|| {
        let dir = args.dir.display();
        WrongPath(format!("{dir} is not a controller's folder: consensus.redb is not in it"))
    })?;
    note_in_use(&dir);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut printed = Ok(());
    let mut whole = true;
    printer.begin_object(None)?;
    printer.value(Some("folder"), &dir.display().to_string())?;
    printer.begin_list(Some("values"))?;
    let looked = values(files, &dir, |value| {
        whole &= value.content.is_ok();
        let wanted = value.index.is_none_or(|index| index >= args.from && left > 0);
        if wanted && printed.is_ok() {
            left -= u64::from(value.index.is_some());
            printed = show(&value, printer);
        }
    });
    printed?;
    printer.end()?;
    let error = looked.err().map(|error| error.to_string());
    printer.value(Some("error"), &error)?;
    if let Some(error) = &error {
        printer.line(|| format!("NOT READABLE: {error}"))?;
    }
    printer.end()?;
    Ok(whole && error.is_none())
}

/// The controller's folder: `path`, or the part of it that is the controller's.
pub(super) fn controller_dir(files: &dyn Files, path: &Path) -> Option<PathBuf> {
    let holds =
        |dir: &Path| files.list(dir).is_ok_and(|names| names.iter().any(|entry| entry.name == "consensus.redb"));
    let parent = path.parent().filter(|_| path.file_name().is_some_and(|name| name == "consensus.redb"));
    let places = [Some(path.to_owned()), Some(path.join("controller")), parent.map(Path::to_owned)];
    places.into_iter().flatten().find(|dir| holds(dir))
}

/// One value of the folder, in words. The secrets of store groups are left out.
struct Shown {
    kind: String,
    /// Of an entry of the log.
    index: Option<u64>,
    len: usize,
    content: Result<String, Unreadable>,
    /// Which commit of the database this is, if that is what it says.
    commit: Option<u64>,
}

/// Shows `visit` all values, the entries of the log last.
fn values(files: &dyn Files, dir: &Path, mut visit: impl FnMut(Shown)) -> Result<(), OpenError> {
    let mut before = None;
    for StoredValue { name, bytes, content } in inspect(files, dir)? {
        let index = name.strip_prefix("log ").and_then(|index| index.parse().ok());
        if let ("purged", Ok(StoredContent::LogId(id))) = (name.as_str(), &content) {
            before = Some(id.index);
        }
        let commit = match &content {
            Ok(StoredContent::Commit(commit)) => Some(commit.number),
            _ => None,
        };
        let mut content = content.and_then(|content| in_words(content, index));
        if let Some(index) = index {
            if content.is_ok() && before.is_some_and(|before: u64| before.checked_add(1) != Some(index)) {
                content = Err(Unreadable::Damaged("entries before this one are missing".into()));
            }
            before = Some(index);
        }
        let kind = if index.is_some() { "log".to_owned() } else { name };
        visit(Shown { kind, index, len: bytes.len(), content, commit });
    }
    Ok(())
}

fn in_words(content: StoredContent, index: Option<u64>) -> Result<String, Unreadable> {
    Ok(match content {
        StoredContent::Folder(folder) => format!("of member {}", folder.member),
        StoredContent::Vote(vote) => {
            let leads = if vote.committed { ", who leads" } else { "" };
            format!("term {} for member {}{leads}", vote.term, vote.member)
        }
        StoredContent::LogId(id) => log_id(&id),
        StoredContent::Commit(commit) => format!("number {}", commit.number),
        StoredContent::Snapshot { meta, state } => {
            let state = (*state)?;
            let at = meta.last.as_ref().map_or_else(|| "nothing".to_owned(), log_id);
            format!(
                "up to {at}; {}; state version {}, {} topics, {} groups, {} store groups, {} proxies",
                meta.membership.as_ref().map(membership).unwrap_or_default(),
                state.version,
                state.topics.len(),
                state.groups.len(),
                state.store_groups.len(),
                state.proxies.len()
            )
        }
        StoredContent::Entry(entry) => {
            let id = entry.id.unwrap_or_default();
            if index.is_some_and(|index| index != id.index) {
                return Err(Unreadable::Damaged("it is of another place in the log".into()));
            }
            let says = match entry.payload {
                None => return Err(Unreadable::Newer("an entry of an unknown kind".into())),
                Some(Payload::Blank(_)) => "a leader began".to_owned(),
                Some(Payload::Membership(members)) => membership(&members),
                Some(Payload::Commands(commands)) => {
                    let at = instant(Timestamp::from_millis(commands.at_ms));
                    // The model's words leave secrets out; those of the wire do not.
                    let commands: Result<Vec<_>, _> =
                        commands.commands.into_iter().map(MetadataCommand::from_wire).collect();
                    let commands = commands.map_err(|error| Unreadable::Newer(error.to_string()))?;
                    format!("at {at}: {commands:?}")
                }
            };
            format!("term {} of member {}: {says}", id.term, id.member)
        }
        StoredContent::Other => return Err(Unreadable::Newer("a value of an unknown kind".into())),
    })
}

fn log_id(id: &wire::LogId) -> String {
    format!("index {}, term {} of member {}", id.index, id.term, id.member)
}

fn membership(membership: &wire::ControllerMembership) -> String {
    let members: Vec<String> =
        membership.members.iter().map(|member| format!("{} at {}", member.id, member.address)).collect();
    let voters: Vec<&[u64]> = membership.configs.iter().map(|config| config.ids.as_slice()).collect();
    format!("members {}; voters {voters:?}", members.join(", "))
}

/// Looks at all of a controller's folder; `tell` hears of each problem: in which file, what, and what to do.
pub(super) fn verify(
    files: &dyn Files,
    dir: &Path,
    mut tell: impl FnMut(&'static str, String, &str),
) -> Result<Seen, OpenError> {
    let mut seen = Seen::default();
    let way_out = way_out(dir);
    // Before the database: a running member goes on meanwhile.
    let acknowledged = inspect_acknowledged(files, dir)?;
    let mut found = 0;
    values(files, dir, |value| {
        found = value.commit.unwrap_or(found);
        if let Some(index) = value.index {
            seen.entries += 1;
            seen.last = Some(index);
        }
        if let Err(unread) = &value.content {
            seen.problems += 1;
            let which = value.index.map_or_else(String::new, |index| format!(" {index}"));
            let advice = match unread {
                Unreadable::Newer(_) => "use the version of Gantry that wrote it, or a later one",
                Unreadable::Damaged(_) => &way_out,
            };
            tell(DATABASE, format!("{}{which}: {unread}", value.kind), advice);
        }
    })?;
    let problem = match acknowledged {
        Some(Acknowledged::Newest(number)) if number > found => Some((
            format!(
                "the database is at commit {found}, and commit {number} was acknowledged: its end is damaged, or it is an older copy"
            ),
            way_out.as_str(),
        )),
        Some(Acknowledged::Newer(format)) => {
            let what = format!("written by a newer gantry: format {format}");
            Some((what, "use the version of Gantry that wrote it, or a later one"))
        }
        Some(Acknowledged::Damaged) => Some((
            "damaged: it does not say how far the database was".to_owned(),
            "the next start makes it again, and cannot tell whether the database is all there",
        )),
        None if found > 0 => Some((
            "missing: nothing says how far the database was".to_owned(),
            "the next start makes it again, and cannot tell whether the database is all there",
        )),
        Some(Acknowledged::Newest(_)) | None => None,
    };
    if let Some((what, advice)) = problem {
        seen.problems += 1;
        tell(ACKNOWLEDGED, what, advice);
    }
    Ok(seen)
}

/// The files of a member's folder.
pub(super) const DATABASE: &str = "consensus.redb";
const ACKNOWLEDGED: &str = "acknowledged";

fn show(value: &Shown, printer: &mut Printer) -> anyhow::Result<()> {
    let (state, says) = match &value.content {
        Ok(says) => ("whole", says),
        Err(Unreadable::Newer(cause)) => ("newer", cause),
        Err(Unreadable::Damaged(cause)) => ("damaged", cause),
    };
    printer.value(None, &Value { kind: &value.kind, index: value.index, bytes: value.len, state, says })?;
    printer.line(|| {
        let which = value.index.map_or_else(String::new, |index| format!(" {index}"));
        let judged = match state {
            "whole" => String::new(),
            _ => format!("{} ", state.to_uppercase()),
        };
        format!("{}{which}: {judged}{says}", value.kind)
    })
}
