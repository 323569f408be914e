//! `gantry inspect checkpoint`.

use super::print::Printer;
use super::{folder_of, note_in_use};
use clap::Args;
use gantry_proto::env::Files;
use gantry_store::inspect::{CheckpointFacts, GenerationFacts, read_checkpoints};
use serde::Serialize;
use std::path::PathBuf;

/// Which checkpoint, and what of it.
#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    /// The file, or the folder that it is in.
    path: PathBuf,
    /// Only what is about the topic with this number.
    #[arg(long, value_name = "ID")]
    topic: Option<u32>,
}

#[derive(Serialize)]
struct Queue {
    topic: u32,
    queue: u32,
    min_offset: u64,
    next_offset: u64,
}

#[derive(Serialize)]
struct Progress<'a> {
    group: u32,
    topic: u32,
    good_for: u64,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    queues: Vec<QueueProgress>,
}

#[derive(Serialize)]
struct QueueProgress {
    queue: u32,
    next_offset: u64,
    unfinished: u64,
    damaged: u64,
}

/// Prints every generation. `false`: something is not whole.
pub(super) fn run(files: &dyn Files, args: &CheckpointArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let dir = folder_of(files, &args.path, "checkpoint")?;
    note_in_use(&dir);
    let mut whole = true;
    printer.begin_list(None)?;
    for GenerationFacts { path, read, newer } in read_checkpoints(files, &dir)? {
        printer.begin_object(None)?;
        printer.value(Some("file"), &path.display().to_string())?;
        match read {
            Ok(facts) => {
                printer.line(|| format!("{}:", path.display()))?;
                whole &= show(&facts, args, printer)?;
            }
            Err(cause) => {
                whole = false;
                printer.value(Some("newer"), &newer)?;
                printer.value(Some("cause"), &cause)?;
                printer.line(|| format!("{}: NOT WHOLE: {cause}", path.display()))?;
            }
        }
        printer.end()?;
    }
    printer.end()?;
    Ok(whole)
}

fn show(facts: &CheckpointFacts, args: &CheckpointArgs, printer: &mut Printer) -> anyhow::Result<bool> {
    let CheckpointFacts { at, retained_from, log_to, cut_off, queues_begin, queues, progress } = facts;
    let wanted = |topic: u32| args.topic.is_none_or(|only| only == topic);
    let mut whole = !cut_off;
    printer.value(Some("at"), &at.0)?;
    printer.value(Some("retained_from"), &retained_from.0)?;
    printer.value(Some("log_to"), &log_to.0)?;
    printer.value(Some("cut_off"), cut_off)?;
    printer.line(|| {
        let cut_off = if *cut_off { "; its END IS CUT OFF or damaged" } else { "" };
        format!("  recovery reads the log from {at} on; the log reached from {retained_from} to {log_to}{cut_off}")
    })?;
    printer.value(Some("queues_begin"), &queues_begin.0)?;
    if queues_begin.0 > 0 {
        printer.line(|| format!("  queues that are not named begin at offset {queues_begin}"))?;
    }
    printer.begin_list(Some("queues"))?;
    for queue in queues.iter().filter(|queue| wanted(queue.topic.0)) {
        let (min_offset, next_offset) = (queue.min.0, queue.next.0);
        printer.value(None, &Queue { topic: queue.topic.0, queue: queue.queue.0, min_offset, next_offset })?;
        printer.line(|| {
            format!("  topic {} queue {}: from offset {min_offset} to {next_offset}", queue.topic, queue.queue)
        })?;
    }
    printer.end()?;
    printer.begin_list(Some("progress"))?;
    for shard in progress.iter().filter(|shard| wanted(shard.topic.0)) {
        whole &= shard.queues.is_ok();
        let of_queue = |(queue, next, unfinished, damaged): &(gantry_proto::model::QueueId, _, u64, u64)| {
            let next: &gantry_proto::model::QueueOffset = next;
            QueueProgress { queue: queue.0, next_offset: next.0, unfinished: *unfinished, damaged: *damaged }
        };
        let queues: Vec<QueueProgress> = shard.queues.iter().flatten().map(of_queue).collect();
        printer.line(|| {
            let (group, topic, good_for) = (shard.group, shard.topic, shard.good_for);
            format!("  group {group} on topic {topic}, as at {good_for}, {} bytes", shard.bytes)
        })?;
        for queue in &queues {
            printer.line(|| {
                let QueueProgress { queue, next_offset, unfinished, damaged } = queue;
                format!("    queue {queue}: delivered up to {next_offset}, {unfinished} unfinished, {damaged} damaged")
            })?;
        }
        if let Err(cause) = &shard.queues {
            printer.line(|| format!("    NOT READABLE: {cause}"))?;
        }
        let (group, topic, good_for, bytes) = (shard.group.0, shard.topic.0, shard.good_for.0, shard.bytes);
        let cause = shard.queues.as_ref().err().map(String::as_str);
        printer.value(None, &Progress { group, topic, good_for, bytes, cause, queues })?;
    }
    printer.end()?;
    Ok(whole)
}
