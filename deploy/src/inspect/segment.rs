//! `gantry inspect segment`.

use super::note_in_use;
use super::print::{Printer, instant};
use clap::Args;
use gantry_proto::env::Files;
use gantry_proto::model::LogOffset;
use gantry_store::inspect::{Ending, MessageInfo, RecordContent, RecordInfo, Seen, SegmentFile, segment_paths};
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Which records.
#[derive(Debug, Args)]
pub(super) struct SegmentArgs {
    /// A segment (00000000000000000000.log), or the folder of a log or of a store: then all segments in it.
    path: PathBuf,
    /// Only records from this log offset on.
    #[arg(long, value_name = "OFFSET", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// At most so many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only messages of the topic with this number, and changes of progress on it.
    #[arg(long, value_name = "ID")]
    topic: Option<u32>,
    /// Show the bodies of messages, too.
    #[arg(long)]
    bodies: bool,
}

#[derive(Serialize)]
struct Header<'a> {
    base: u64,
    capacity: u64,
    file_bytes: u64,
    next_segment: Option<u64>,
    folder: String,
    cluster: Option<String>,
    store_group: Option<u32>,
    epochs: Vec<Epoch>,
    damage: Option<&'a str>,
}

#[derive(Serialize)]
struct Epoch {
    epoch: u32,
    from: u64,
}

#[derive(Serialize, Default)]
struct Record<'a> {
    offset: u64,
    position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Batch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

#[derive(Serialize)]
struct Message<'a> {
    topic: u32,
    queue: u32,
    queue_offset: u64,
    message_id: &'a str,
    tag: Option<&'a str>,
    keys: Vec<&'a str>,
    message_group: Option<&'a str>,
    dead_letter_of: Option<&'a str>,
    head_bytes: usize,
    body_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

#[derive(Serialize)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<u32>,
    queue: u32,
    queue_offset: u64,
}

#[derive(Serialize)]
struct Progress<'a> {
    group: u32,
    topic: u32,
    change: &'a str,
    messages: Vec<Place>,
}

#[derive(Serialize)]
struct Batch {
    records: u32,
    bytes: u64,
}

#[derive(Serialize)]
struct End<'a> {
    offset: Option<u64>,
    why: &'a str,
    to: Option<u64>,
    cause: Option<&'a str>,
    bytes: Option<u64>,
}

/// Prints the records. `false`: something is not whole.
pub(super) fn run(files: &dyn Files, args: &SegmentArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let paths = segment_paths(files, &args.path)?;
    if let Some(dir) = paths.first().and_then(|path| path.parent()?.parent()) {
        note_in_use(dir);
    }
    let many = paths != [args.path.clone()];
    if many {
        printer.begin_list(None)?;
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut whole = true;
    for path in &paths {
        let file = SegmentFile::open(files, path)?;
        if file.facts().next.is_some_and(|next| next.0 <= args.from) {
            continue;
        }
        whole &= one(path, &file, args, &mut left, printer)?;
        if left == 0 {
            break;
        }
    }
    if many {
        printer.end()?;
    }
    Ok(whole)
}

fn one(
    path: &Path,
    file: &SegmentFile,
    args: &SegmentArgs,
    left: &mut u64,
    printer: &mut Printer,
) -> anyhow::Result<bool> {
    let facts = file.facts();
    let mut whole = facts.header_damage.is_none();
    printer.begin_object(None)?;
    printer.value(Some("file"), &path.display().to_string())?;
    printer.value(Some("segment"), &header(file))?;
    printer.line(|| header_text(path, file))?;
    printer.begin_list(Some("records"))?;
    let mut printed = Ok(());
    let ending = file.walk(|seen| {
        let at = match &seen {
            Seen::Record(record) => record.at,
            Seen::NotUnderstood { at, .. } | Seen::Damaged { at, .. } => *at,
        };
        if seen.end().0 <= args.from || at.0 < args.from && matches!(seen, Seen::Record(_)) {
            return ControlFlow::Continue(());
        }
        let wanted = match &seen {
            Seen::Record(record) => args.topic.is_none_or(|topic| concerns(record, topic)),
            _ => true,
        };
        if !wanted {
            return ControlFlow::Continue(());
        }
        whole &= matches!(seen, Seen::Record(_));
        printed = show(&seen, file.position(at), args.bodies, printer);
        *left -= 1;
        if printed.is_err() || *left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    printed?;
    printer.end()?;
    whole &= ending.is_whole();
    let (end, text) = explain(&ending);
    printer.value(Some("end"), &end)?;
    printer.line(|| text)?;
    printer.end()?;
    Ok(whole)
}

fn concerns(record: &RecordInfo<'_>, topic: u32) -> bool {
    match &record.content {
        RecordContent::Message(_) => record.topic.0 == topic,
        RecordContent::DeadLetter { origin, .. } => record.topic.0 == topic || origin.topic.0 == topic,
        RecordContent::Delivery(delivery) => delivery.topic.0 == topic,
        RecordContent::Batch(_) | RecordContent::Other(_) => false,
    }
}

fn header(file: &SegmentFile) -> Header<'_> {
    let facts = file.facts();
    Header {
        base: facts.base.0,
        capacity: facts.capacity,
        file_bytes: facts.file_len,
        next_segment: facts.next.map(|next| next.0),
        folder: facts.folder.to_string(),
        cluster: facts.cluster.map(|cluster| cluster.to_string()),
        store_group: facts.group.map(|group| group.0),
        epochs: facts.epochs.iter().map(|(epoch, from)| Epoch { epoch: epoch.0, from: from.0 }).collect(),
        damage: facts.header_damage.as_deref(),
    }
}

fn header_text(path: &Path, file: &SegmentFile) -> String {
    let facts = file.facts();
    let mut text = format!("{}: from log offset {}, made for {} bytes", path.display(), facts.base, facts.capacity);
    match &facts.header_damage {
        Some(damage) => {
            let _ = write!(text, "\n  its first page is not right: {damage}");
        }
        None => {
            let _ = write!(text, "\n  folder {}", facts.folder);
            if let (Some(cluster), Some(group)) = (facts.cluster, facts.group) {
                let _ = write!(text, ", cluster {cluster}, store group number {group}");
            }
            for (epoch, from) in &facts.epochs {
                let _ = write!(text, "\n  epoch {epoch} began at {from}");
            }
        }
    }
    text
}

fn show(seen: &Seen<'_>, position: u64, bodies: bool, printer: &mut Printer) -> anyhow::Result<()> {
    match seen {
        Seen::Record(record) => {
            printer.value(None, &json(record, bodies))?;
            printer.line(|| text(record, bodies))
        }
        Seen::NotUnderstood { at, to, cause, newer } => {
            let kind = if *newer { "newer" } else { "contradictory" };
            let value =
                Record { offset: at.0, position, to: Some(to.0), kind, cause: Some(cause), ..Record::default() };
            printer.value(None, &value)?;
            printer.line(|| format!("{at}  NOT UNDERSTOOD up to {to}, though whole: {cause}"))
        }
        Seen::Damaged { at, to, cause } => {
            let value = Record {
                offset: at.0,
                position,
                to: Some(to.0),
                kind: "damaged",
                cause: Some(cause),
                ..Record::default()
            };
            printer.value(None, &value)?;
            printer.line(|| {
                format!("{at}  DAMAGED up to {to} ({} bytes, byte {position} of the file): {cause}", to.0 - at.0)
            })
        }
    }
}

fn json<'a>(record: &'a RecordInfo<'_>, bodies: bool) -> Record<'a> {
    let mut out = Record {
        offset: record.at.0,
        position: record.position,
        len: Some(record.len),
        epoch: Some(record.epoch.0),
        time: Some(instant(record.store_time)),
        ..Record::default()
    };
    out.message = record.message().map(|message| message_json(record, message, bodies));
    match &record.content {
        RecordContent::Message(_) => out.kind = "message",
        RecordContent::DeadLetter { origin, .. } => {
            out.kind = "dead letter";
            out.origin = Some(Place {
                group: Some(origin.group.0),
                topic: Some(origin.topic.0),
                queue: origin.queue.0,
                queue_offset: origin.queue_offset.0,
            });
        }
        RecordContent::Delivery(delivery) => {
            out.kind = "progress";
            let place = |(queue, offset): &(gantry_proto::model::QueueId, gantry_proto::model::QueueOffset)| Place {
                group: None,
                topic: None,
                queue: queue.0,
                queue_offset: offset.0,
            };
            out.progress = Some(Progress {
                group: delivery.group.0,
                topic: delivery.topic.0,
                change: delivery.change,
                messages: delivery.messages.iter().map(place).collect(),
            });
        }
        RecordContent::Batch(batch) => {
            out.kind = "batch";
            out.batch = Some(Batch { records: batch.count, bytes: batch.bytes });
        }
        RecordContent::Other(name) => out.kind = name,
    }
    out
}

fn message_json<'a>(record: &RecordInfo<'_>, message: &'a MessageInfo<'_>, bodies: bool) -> Message<'a> {
    let head = &message.head;
    Message {
        topic: record.topic.0,
        queue: record.queue.0,
        queue_offset: record.queue_offset.0,
        message_id: head.message_id,
        tag: head.tag,
        keys: head.keys.to_vec(),
        message_group: head.message_group,
        dead_letter_of: head.dead_letter_origin.map(|origin| origin.topic),
        head_bytes: message.head_len,
        body_bytes: message.body.len(),
        body: bodies.then(|| String::from_utf8_lossy(message.body).into_owned()),
    }
}

fn text(record: &RecordInfo<'_>, bodies: bool) -> String {
    let mut text = format!("{}  {}  epoch {}  ", record.at, instant(record.store_time), record.epoch);
    if let RecordContent::DeadLetter { origin, .. } = &record.content {
        let _ = write!(
            text,
            "dead letter (group {} on topic {} queue {} offset {})  ",
            origin.group, origin.topic, origin.queue, origin.queue_offset
        );
    }
    match &record.content {
        RecordContent::Delivery(delivery) => {
            let _ =
                write!(text, "progress  group {} on topic {}: {}", delivery.group, delivery.topic, delivery.details);
        }
        RecordContent::Batch(batch) => {
            let _ = write!(text, "batch of {} records, {} bytes", batch.count, batch.bytes);
        }
        RecordContent::Other(name) => text.push_str(name),
        RecordContent::Message(_) | RecordContent::DeadLetter { .. } => {}
    }
    if let Some(message) = record.message() {
        let head = &message.head;
        let _ = write!(
            text,
            "message  topic {} queue {} offset {}  id {:?}",
            record.topic, record.queue, record.queue_offset, head.message_id
        );
        for (name, value) in [("tag", head.tag), ("message group", head.message_group)] {
            if let Some(value) = value {
                let _ = write!(text, "  {name} {value:?}");
            }
        }
        if !head.keys.is_empty() {
            let _ = write!(text, "  keys {:?}", &head.keys[..]);
        }
        let _ = write!(text, "  {} + {} bytes", message.head_len, message.body.len());
        if bodies {
            let _ = write!(text, "\n    {:?}", String::from_utf8_lossy(message.body));
        }
    }
    text
}

fn explain(ending: &Ending) -> (End<'_>, String) {
    let end =
        |offset: Option<LogOffset>, why| End { offset: offset.map(|at| at.0), why, to: None, cause: None, bytes: None };
    match ending {
        Ending::Complete { at } => (end(Some(*at), "complete"), format!("{at}  the segment ends")),
        Ending::LogEnds { at } => {
            (end(Some(*at), "log ends"), format!("{at}  the log ends: nothing was written behind it"))
        }
        Ending::Unfinished { at, cause, bytes } => {
            let end = End { cause: Some(cause), bytes: Some(*bytes), ..end(Some(*at), "unfinished") };
            let text = format!(
                "{at}  the log ends: {bytes} bytes behind it are of a write that did not end ({cause}); nothing proves that \
                 they were ever on disk, and the next start cuts them off"
            );
            (end, text)
        }
        Ending::Missing { at, to, cause } => {
            let end = End { to: Some(to.0), cause: Some(cause), ..end(Some(*at), "missing") };
            (end, format!("{at}  MISSING up to {to}: {cause}"))
        }
        Ending::Stopped => (end(None, "limit"), "… there may be more (--limit)".to_owned()),
    }
}
