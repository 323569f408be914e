//! `gantry inspect positions` and `gantry inspect identity`.

use super::print::{Printer, instant};
use super::{folder_of, note_in_use};
use gantry_proto::env::Files;
use gantry_store::inspect::{PositionsSlot, read_identity, read_positions};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize, Default)]
struct Slot {
    state: &'static str,
    counts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<Positions>,
}

#[derive(Serialize)]
struct Positions {
    sequence: u64,
    folder: String,
    retained_from: u64,
    sealed_to: u64,
    flushed_to: u64,
    confirmed_to: u64,
    epoch: u32,
    answered_unflushed: bool,
    time: String,
}

#[derive(Serialize)]
struct Copy {
    file: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
}

#[derive(Serialize)]
struct Identity {
    folder: String,
    written: u64,
    last_epoch: u32,
    cluster: Option<String>,
    store_group: Option<u32>,
    store_group_name: Option<String>,
}

/// Prints both slots. `false`: one of them is not whole.
pub(super) fn positions(files: &dyn Files, path: &Path, printer: &mut Printer) -> anyhow::Result<bool> {
    let dir = folder_of(files, path, "positions")?;
    note_in_use(&dir);
    let slots = read_positions(files, &dir)?.unwrap_or([PositionsSlot::Damaged; 2]);
    let newest = slots.iter().filter_map(|slot| match slot {
        PositionsSlot::Whole { sequence, .. } => Some(*sequence),
        _ => None,
    });
    let newest = newest.max();
    let mut whole = true;
    printer.begin_list(None)?;
    for (number, slot) in slots.into_iter().enumerate() {
        let number = number + 1;
        match slot {
            PositionsSlot::Whole { sequence, positions } => {
                let counts = newest == Some(sequence);
                let shown = Positions {
                    sequence,
                    folder: positions.folder.to_string(),
                    retained_from: positions.retained_from.0,
                    sealed_to: positions.sealed_to.0,
                    flushed_to: positions.flushed_to.0,
                    confirmed_to: positions.confirmed_to.0,
                    epoch: positions.epoch.0,
                    answered_unflushed: positions.answered_unflushed,
                    time: instant(positions.time),
                };
                printer.value(None, &Slot { state: "whole", counts, positions: Some(shown), format: None })?;
                printer.line(|| {
                    let counts = if counts { ", the one that counts" } else { "" };
                    let early = if positions.answered_unflushed { "\n  answers were given before the flush" } else { "" };
                    format!(
                        "slot {number}, written as number {sequence}{counts}\n  folder {}\n  retained from {}\n  sealed to     \
                         {}\n  flushed to    {}\n  confirmed to  {}\n  epoch {}, at {}{early}",
                        positions.folder,
                        positions.retained_from,
                        positions.sealed_to,
                        positions.flushed_to,
                        positions.confirmed_to,
                        positions.epoch,
                        instant(positions.time)
                    )
                })?;
            }
            PositionsSlot::Newer(format) => {
                whole = false;
                printer.value(None, &Slot { state: "newer", format: Some(format), ..Slot::default() })?;
                printer.line(|| format!("slot {number} was written by a newer Gantry (format {format})"))?;
            }
            PositionsSlot::Damaged => {
                whole = false;
                printer.value(None, &Slot { state: "damaged", ..Slot::default() })?;
                printer.line(|| format!("slot {number} is DAMAGED: its checksum does not match"))?;
            }
        }
    }
    printer.end()?;
    Ok(whole)
}

/// Prints the identity and its copy. `false`: one of them is not whole.
pub(super) fn identity(files: &dyn Files, path: &Path, printer: &mut Printer) -> anyhow::Result<bool> {
    let dir = folder_of(files, path, "identity")?;
    note_in_use(&dir);
    let mut whole = true;
    printer.begin_list(None)?;
    for copy in read_identity(files, &dir) {
        let file = copy.name;
        whole &= matches!(copy.facts, Ok(Some(_)));
        match copy.facts {
            Ok(Some(facts)) => {
                let home = facts.home.as_ref();
                let identity = Identity {
                    folder: facts.folder.to_string(),
                    written: facts.written,
                    last_epoch: facts.last_epoch.0,
                    cluster: home.map(|home| home.0.to_string()),
                    store_group: home.map(|home| home.1.0),
                    store_group_name: home.map(|home| home.2.to_string()),
                };
                printer.value(None, &Copy { file, state: "whole", cause: None, identity: Some(identity) })?;
                printer.line(|| {
                    let home = match &facts.home {
                        Some((cluster, group, name)) => {
                            format!("store group {name} (number {group}) of cluster {cluster}")
                        }
                        None => "no cluster yet".to_owned(),
                    };
                    let (folder, epoch, written) = (facts.folder, facts.last_epoch, facts.written);
                    format!(
                        "{file}: folder {folder}\n  belongs to {home}\n  last epoch {epoch}, written {written} times"
                    )
                })?;
            }
            Ok(None) => {
                printer.value(None, &Copy { file, state: "missing", cause: None, identity: None })?;
                printer.line(|| format!("{file} is MISSING"))?;
            }
            Err(cause) => {
                let state = if copy.newer { "newer" } else { "damaged" };
                printer.line(|| format!("{file} is not whole: {cause}"))?;
                printer.value(None, &Copy { file, state, cause: Some(cause), identity: None })?;
            }
        }
    }
    printer.end()?;
    Ok(whole)
}
