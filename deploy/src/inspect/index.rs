//! `gantry inspect index`.

use super::print::{Printer, instant};
use super::{WrongPath, note_in_use};
use clap::Args;
use gantry_proto::env::Files;
use gantry_store::inspect::{IndexEntryAt, IndexFile, IndexRun};
use serde::Serialize;
use std::path::PathBuf;

/// Which index, and what of it.
#[derive(Debug, Args)]
pub(super) struct IndexArgs {
    /// An index (00000000000000000000.index).
    file: PathBuf,
    /// Only queues of the topic with this number.
    #[arg(long, value_name = "ID")]
    topic: Option<u32>,
    /// Show each message, too.
    #[arg(long)]
    entries: bool,
    /// At most so many queues.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Contents {
    base: u64,
    end: u64,
    newest: String,
    blocks: u64,
    damaged_blocks: Vec<u64>,
    hashes: u64,
    sections: Vec<Section>,
}

#[derive(Serialize)]
struct Section {
    kind: u16,
    rows: u64,
    row_bytes: u32,
}

#[derive(Serialize)]
struct Queue {
    topic: u32,
    queue: u32,
    first: u64,
    messages: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    queue_offset: u64,
    offset: u64,
    len: u32,
    damaged: bool,
    tag_hash: u32,
    message_group_hash: u32,
    time: String,
}

/// Prints the index. `false`: something in it is not whole.
pub(super) fn run(files: &dyn Files, args: &IndexArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    if !args.file.is_file() {
        let path = args.file.display();
        return Err(WrongPath(format!("there is no file {path}: name an index of a log's folder (…0000.index)")).into());
    }
    if args.file.extension().is_some_and(|extension| extension == "log") {
        let (segment, index) = (args.file.display(), args.file.with_extension("index"));
        let index = index.display();
        return Err(WrongPath(format!(
            "{segment} is a log segment: gantry inspect segment shows it, and its index is {index}, if it is sealed"
        ))
        .into());
    }
    if let Some(dir) = args.file.parent().and_then(|log| log.parent()) {
        note_in_use(dir);
    }
    let index = IndexFile::open(files, &args.file)?;
    let contents = index.contents()?;
    let sections = contents.sections.iter().map(|(kind, rows, row_bytes)| Section {
        kind: *kind,
        rows: *rows,
        row_bytes: *row_bytes,
    });
    let whole = contents.damaged_blocks.is_empty();
    printer.begin_object(None)?;
    printer.value(
        Some("index"),
        &Contents {
            base: contents.base.0,
            end: contents.end.0,
            newest: instant(contents.newest),
            blocks: contents.blocks,
            damaged_blocks: contents.damaged_blocks.clone(),
            hashes: contents.hashes,
            sections: sections.collect(),
        },
    )?;
    printer.line(|| {
        format!(
            "{}: of the segment from {} to {}, newest message {}, {} blocks, {} ids and keys",
            args.file.display(),
            contents.base,
            contents.end,
            instant(contents.newest),
            contents.blocks,
            contents.hashes
        )
    })?;
    if !whole {
        printer.line(|| {
            let damaged = &contents.damaged_blocks;
            format!("  DAMAGED in blocks {damaged:?}: a server makes it again from its segment when it starts")
        })?;
    }
    printer.begin_list(Some("queues"))?;
    let mut read_all = true;
    match index.runs() {
        Ok(runs) => {
            let wanted = runs.iter().filter(|run| args.topic.is_none_or(|topic| run.topic.0 == topic));
            for run in wanted.take(args.limit.unwrap_or(usize::MAX)) {
                let entries = if args.entries { index.entries(run) } else { Ok(Vec::new()) };
                read_all &= entries.is_ok();
                queue(run, entries, printer)?;
            }
        }
        Err(error) => {
            read_all = false;
            printer.line(|| format!("  the queues cannot be read: {error}"))?;
        }
    }
    printer.end()?;
    match index.damaged_ranges() {
        Ok(ranges) => {
            let pairs: Vec<[u64; 2]> = ranges.iter().map(|range| [range.start.0, range.end.0]).collect();
            printer.value(Some("damaged_in_segment"), &pairs)?;
            for range in ranges {
                printer.line(|| {
                    format!("  {} to {}: damaged in the segment when the index was made", range.start, range.end)
                })?;
            }
        }
        Err(error) => {
            read_all = false;
            printer.line(|| format!("  the damaged parts cannot be read: {error}"))?;
        }
    }
    printer.end()?;
    Ok(whole && read_all)
}

fn queue(
    run: &IndexRun,
    entries: Result<Vec<IndexEntryAt>, gantry_store::inspect::IndexFileError>,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let (entries, error) = match entries {
        Ok(entries) => (entries, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let entry = |entry: &IndexEntryAt| Entry {
        queue_offset: entry.queue_offset.0,
        offset: entry.log_offset.0,
        len: entry.len,
        damaged: entry.len == 0,
        tag_hash: entry.tag_hash,
        message_group_hash: entry.message_group_hash,
        time: instant(entry.store_time),
    };
    printer.value(
        None,
        &Queue {
            topic: run.topic.0,
            queue: run.queue.0,
            first: run.first.0,
            messages: run.count,
            entries: entries.iter().map(entry).collect(),
        },
    )?;
    printer.line(|| {
        let (topic, queue, count) = (run.topic, run.queue, run.count);
        format!("  topic {topic} queue {queue}: {count} messages from offset {} on", run.first)
    })?;
    for at in &entries {
        printer.line(|| match at.len {
            0 => format!("    {}  its record around log offset {} is damaged", at.queue_offset, at.log_offset),
            len => format!(
                "    {}  log offset {}, {len} bytes, {}",
                at.queue_offset,
                at.log_offset,
                instant(at.store_time)
            ),
        })?;
    }
    if let Some(error) = error {
        printer.line(|| format!("    its messages cannot be read: {error}"))?;
    }
    Ok(())
}
