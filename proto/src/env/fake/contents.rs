//! One file's bytes: what a reader sees now, what survives a crash, and the changes in between.

use super::random::SplitMix;
use std::collections::BTreeMap;

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// A file's bytes with their durability.
#[derive(Default)]
pub(super) struct Contents {
    live: Image,
    durable: Image,
    /// What happened to `live` since the last sync, in order.
    pending: Vec<Change>,
    /// Sectors whose sync failed: a later sync does not save them (as Linux marks such pages clean), a crash may keep them.
    abandoned: BTreeMap<u64, Vec<u8>>,
}

enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

/// Sparse bytes. Everything past `len` is zero.
#[derive(Clone, Default)]
struct Image {
    pages: BTreeMap<u64, Box<[u8]>>,
    len: u64,
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.live.len
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.live.read(offset, len)
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.change(Change::Write { offset, data: data.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len != self.live.len {
            self.change(Change::SetLen(len));
        }
    }

    /// Makes everything durable, except what an earlier failed sync abandoned.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            for sector in change.sectors() {
                self.abandoned.remove(&sector);
            }
            self.durable.apply(&change);
        }
        self.durable.set_len(self.live.len);
    }

    /// A sync that did not work: the pending bytes are still seen by readers, but nothing will make them durable.
    pub(super) fn fail_sync(&mut self) {
        for change in self.pending.drain(..) {
            for sector in change.sectors() {
                self.abandoned.insert(sector, self.live.read(sector * SECTOR, SECTOR as usize));
            }
        }
    }

    /// Flips the bits of `mask` in one byte, on the disk and in what readers see.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        for image in [&mut self.live, &mut self.durable] {
            if offset < image.len {
                let byte = image.read(offset, 1)[0];
                image.write(offset, &[byte ^ mask]);
            }
        }
    }

    /// Power loss. Without randomness everything unsynced is lost; with it, the draw decides what reached the disk.
    pub(super) fn crash(&mut self, random: Option<&mut SplitMix>) {
        if let Some(random) = random {
            match random.below(4) {
                0 => {}
                1 => self.keep_prefix(self.pending.len(), 0),
                2 => {
                    let whole = random.below(self.pending.len() as u64 + 1) as usize;
                    let torn = match self.pending.get(whole) {
                        Some(Change::Write { data, .. }) => random.below(data.len() as u64) as usize,
                        _ => 0,
                    };
                    self.keep_prefix(whole, torn);
                }
                _ => self.keep_scattered(random),
            }
            for (sector, bytes) in &self.abandoned {
                let start = sector * SECTOR;
                if start < self.durable.len && random.coin() {
                    let kept = bytes.len().min((self.durable.len - start) as usize);
                    self.durable.write(start, &bytes[..kept]);
                }
            }
        }
        self.pending.clear();
        self.abandoned.clear();
        self.live = self.durable.clone();
    }

    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.pending.push(change);
    }

    /// A disk that wrote in order: `whole` changes, and `torn` bytes of the next.
    fn keep_prefix(&mut self, whole: usize, torn: usize) {
        for (index, change) in self.pending.iter().enumerate().take(whole + 1) {
            match change {
                change if index < whole => self.durable.apply(change),
                Change::Write { offset, data } => self.durable.write(*offset, &data[..torn]),
                Change::SetLen(_) => {}
            }
        }
    }

    /// A disk that wrote in any order: each sector, and the length, stopped at a change of its own.
    fn keep_scattered(&mut self, random: &mut SplitMix) {
        let count = self.pending.len();
        if self
            .pending
            .iter()
            .any(|change| matches!(change, Change::SetLen(len) if *len < self.live.len.max(self.durable.len)))
        {
            // Cutting a file is one change of its metadata: what came before stays in order.
            return self.keep_prefix(random.below(count as u64 + 1) as usize, 0);
        }
        let mut len = self.durable.len;
        for change in self.pending.iter().take(random.below(count as u64 + 1) as usize) {
            len = len.max(change.end());
        }
        let mut by_sector: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, change) in self.pending.iter().enumerate() {
            for sector in change.sectors() {
                by_sector.entry(sector).or_default().push(index);
            }
        }
        for (sector, writes) in by_sector {
            let kept = random.below(writes.len() as u64 + 1) as usize;
            for &index in &writes[..kept] {
                if let Change::Write { offset, data } = &self.pending[index] {
                    let from = (sector * SECTOR).max(*offset);
                    let to = ((sector + 1) * SECTOR).min(offset + data.len() as u64);
                    self.durable.write(from, &data[(from - offset) as usize..(to - offset) as usize]);
                }
            }
        }
        self.durable.set_len(len);
    }
}

impl Change {
    /// The sectors that its data touches.
    fn sectors(&self) -> std::ops::Range<u64> {
        match self {
            Change::Write { offset, data } if !data.is_empty() => {
                offset / SECTOR..(offset + data.len() as u64).div_ceil(SECTOR)
            }
            _ => 0..0,
        }
    }

    /// How long the file is at least, afterwards.
    fn end(&self) -> u64 {
        match self {
            Change::Write { offset, data } => offset + data.len() as u64,
            Change::SetLen(len) => *len,
        }
    }
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, data } => self.write(*offset, data),
            Change::SetLen(len) => self.set_len(*len),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let page = self.pages.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize].into());
            let within = (at % PAGE) as usize;
            let now = rest.len().min(PAGE as usize - within);
            page[within..within + now].copy_from_slice(&rest[..now]);
            (at, rest) = (at + now as u64, &rest[now..]);
        }
        self.len = self.len.max(at);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                page[(len % PAGE) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len as u64).min(self.len);
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let within = (at % PAGE) as usize;
            let now = ((end - at) as usize).min(PAGE as usize - within);
            match self.pages.get(&(at / PAGE)) {
                Some(page) => out.extend_from_slice(&page[within..within + now]),
                None => out.resize(out.len() + now, 0),
            }
            at += now as u64;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(contents: &Contents) -> Vec<u8> {
        contents.read(0, usize::MAX)
    }

    #[test]
    fn unsynced_changes_are_lost_without_a_draw() {
        let mut contents = Contents::default();
        contents.write(0, b"synced");
        contents.sync();
        contents.write(3, b"lost");
        assert_eq!(text(&contents), b"synlost");
        contents.crash(None);
        assert_eq!(text(&contents), b"synced");
    }

    #[test]
    fn draws_keep_synced_bytes_and_reach_every_kind_of_loss() {
        let (mut lost, mut kept, mut torn, mut holes) = (0, 0, 0, 0);
        for seed in 1..400 {
            let mut contents = Contents::default();
            contents.write(0, &[1; 700]);
            contents.sync();
            contents.write(700, &[2; 3000]);
            contents.write(3700, &[3; 500]);
            contents.crash(Some(&mut SplitMix::new(seed)));
            let bytes = text(&contents);
            assert!(bytes.len() >= 700 && bytes[..700] == [1; 700], "seed {seed} lost synced bytes");
            let whole: Vec<u8> = [[2; 3000].as_slice(), &[3; 500]].concat();
            assert!(bytes[700..].iter().zip(&whole).all(|(have, want)| have == want || *have == 0), "seed {seed}");
            lost += usize::from(bytes.len() == 700);
            kept += usize::from(bytes[700..] == whole);
            let within_a_sector = !bytes.len().is_multiple_of(SECTOR as usize);
            torn += usize::from(within_a_sector && bytes.len() > 700 && bytes.len() < 3700);
            holes += usize::from(bytes[700..].contains(&0));
        }
        assert!(lost > 0 && kept > 0 && torn > 0 && holes > 0, "{lost} {kept} {torn} {holes}");
    }

    #[test]
    fn a_failed_sync_leaves_bytes_that_a_later_sync_does_not_save() {
        let mut contents = Contents::default();
        contents.write(0, &[1; 2048]);
        contents.sync();
        contents.write(0, &[2; 512]);
        contents.fail_sync();
        assert_eq!(contents.read(0, 1), [2], "readers see the cache");
        contents.write(1024, &[3; 512]);
        contents.sync();
        contents.crash(None);
        assert_eq!(contents.read(0, 1), [1]);
        assert_eq!(contents.read(1024, 1), [3]);
    }

    #[test]
    fn cutting_and_extending_leaves_zeros() {
        let mut contents = Contents::default();
        contents.write(0, &[7; 10_000]);
        contents.set_len(5000);
        contents.set_len(9000);
        let bytes = text(&contents);
        assert_eq!((bytes.len(), bytes[4999], bytes[5000], bytes[8999]), (9000, 7, 0, 0));
        contents.sync();
        contents.crash(None);
        assert_eq!(text(&contents), bytes);
    }
}
