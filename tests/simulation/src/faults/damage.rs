//! Disks that give other bytes than were written to them, and disks that are lost.

use super::machines::Stop;
use super::{Fault, Nemesis, ms};
use crate::history::{Append, Flip, LostDisk};
use crate::hosts::{Tier, store_data};
use crate::note;
use gantry_proto::env::Files;
use gantry_proto::model::{LogOffset, StoreGroupId};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// A message is changed this long after its acknowledgement at the earliest: by then the store has written down that its log
/// was whole beyond it. Before, it cannot tell damage from a write that the power failure cut short, and says so.
const SETTLED: Duration = Duration::from_secs(2);
/// Bytes of a segment before its first record.
const SEGMENT_HEADER: u64 = 4096;
/// Bytes from a message's place on that are changed, as far as its record reaches: its header, its head, some of its body.
const RECORD_BYTES: u64 = 160;
/// Checkpoints changed in a run at most: there are two generations, and either is enough.
const CHECKPOINTS_MAX: u64 = 1;

impl Nemesis {
    pub(super) fn flip_a_byte(&mut self, fault: Fault) -> bool {
        let Some((name, path, at)) = self.target(fault) else { return false };
        let mask = 1 << self.draw.below(8);
        let machine = &self.hosts[&name].machine;
        if machine.disk.flip_bits(&path, at, mask).is_err() {
            return false;
        }
        note!(self.site.recorder.trace, &name, "FAULT {fault:?}: byte {at} of {}, mask {mask}", path.display());
        true
    }

    /// On which machine, in which file, which byte.
    fn target(&mut self, fault: Fault) -> Option<(String, PathBuf, u64)> {
        match fault {
            Fault::FlipMessage => self.some_message(),
            Fault::FlipIndex => self.some_file(&store_data().join("commit-log"), |name| name.ends_with(".index")),
            _ if self.injected().get(&fault).is_some_and(|count| *count >= CHECKPOINTS_MAX) => None,
            _ => self.some_file(store_data(), |name| name.starts_with("checkpoint-")),
        }
    }

    fn some_message(&mut self) -> Option<(String, PathBuf, u64)> {
        let now = self.site.recorder.trace.now();
        let old = |append: &&Append| append.answered.at + SETTLED < now;
        let records = |append: &Append| Some((append.store_group, append.place, append.end?));
        let old: Vec<(StoreGroupId, LogOffset, LogOffset)> =
            self.site.recorder.history(|history| history.appends.iter().filter(old).filter_map(records).collect());
        let (store_group, place, end) = *old.get(self.draw.below(old.len() as u64) as usize)?;
        let name = self.site.recorder.history(|history| history.machines.get(&store_group).cloned())?.to_string();
        let dir = store_data().join("commit-log");
        let segments = self.hosts[&name].machine.disk.list(&dir).ok()?;
        let bases = segments.iter().filter_map(|entry| entry.name.strip_suffix(".log")?.parse::<u64>().ok());
        let base = bases.filter(|base| *base <= place.0).max()?;
        let at = SEGMENT_HEADER + place.0 - base + self.draw.below(RECORD_BYTES.min(end.0 - place.0));
        let moment = self.site.recorder.moment();
        self.site.recorder.history(|history| history.flips.push(Flip { store_group, place, end, at: moment }));
        Some((name, dir.join(format!("{base:020}.log")), at))
    }

    fn some_file(&mut self, dir: &Path, wanted: impl Fn(&str) -> bool) -> Option<(String, PathBuf, u64)> {
        let name = self.draw.pick(&self.hosts_of(|tier| tier == Tier::Store)).clone();
        let entries = self.hosts[&name].machine.disk.list(dir).ok()?;
        let files: Vec<_> = entries.into_iter().filter(|entry| entry.len > 0 && wanted(&entry.name)).collect();
        let file = files.get(self.draw.below(files.len() as u64) as usize)?;
        Some((name, dir.join(&file.name), self.draw.below(file.len)))
    }

    /// The process dies with its disk, and finds an empty one when it starts again. Once in a run: somebody has to be left.
    pub(super) fn lose_a_disk(&mut self, sim: &mut Sim<'_>, now: Duration) -> bool {
        let up: Vec<String> = self.up().into_iter().filter(|name| self.hosts[name].tier == Tier::Store).collect();
        let known: Vec<(StoreGroupId, Arc<str>)> = self
            .site
            .recorder
            .history(|history| history.machines.iter().map(|(group, machine)| (*group, machine.clone())).collect());
        let known: Vec<_> = known.into_iter().filter(|(_, machine)| up.iter().any(|up| **up == **machine)).collect();
        if known.is_empty() || self.injected().contains_key(&Fault::LoseDisk) || now < ms(3000) {
            return false;
        }
        let (store_group, machine) = self.draw.pick(&known).clone();
        note!(self.site.recorder.trace, &machine, "FAULT LoseDisk");
        self.stop(sim, now, &machine, Stop::Kill);
        if let Err(error) = wipe(&self.hosts[&*machine].machine.disk, store_data()) {
            note!(self.site.recorder.trace, &machine, "the disk is not empty: {error}");
        }
        let at = self.site.recorder.moment();
        self.site.ended.lock().remove(&machine);
        self.site.recorder.history(|history| history.lost_disks.push(LostDisk { store_group, machine, at }));
        true
    }
}

/// Removes all files for good.
fn wipe(disk: &dyn Files, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            wipe(disk, &path)?;
        } else {
            disk.remove(&path)?;
        }
    }
    disk.sync_dir(dir)
}
