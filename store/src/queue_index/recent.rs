//! A queue's newest entries, those that no sealed index has yet.

use super::IndexEntry;
use gantry_proto::model::{LogOffset, QueueOffset, Timestamp};
use std::collections::VecDeque;

/// Entries by queue offset. Offsets that were given and are not there belong to records that were damaged.
pub(super) struct Recent {
    first: QueueOffset,
    /// The segment in which the queue got its last entry.
    segment: LogOffset,
    entries: VecDeque<RecentEntry>,
}

/// An [`IndexEntry`] in 32 bytes: a queue never has 2^32 of them in memory.
struct RecentEntry {
    log_offset: LogOffset,
    store_time: Timestamp,
    len: u32,
    tag_hash: u32,
    message_group_hash: u32,
    /// Distance from the low half of the first entry's queue offset tells the high half.
    queue_offset_low: u32,
}

impl Recent {
    /// None yet; the first to come is `first`, in the segment that begins at `segment`.
    pub(super) fn starting(first: QueueOffset, segment: LogOffset) -> Recent {
        Recent { first, segment, entries: VecDeque::new() }
    }

    pub(super) fn first(&self) -> QueueOffset {
        self.first
    }

    /// The offset behind the last entry.
    pub(super) fn end(&self) -> QueueOffset {
        self.entries.back().map_or(self.first, |last| self.offset(last).next())
    }

    /// Where the record of the last entry is.
    pub(super) fn last_at(&self) -> Option<LogOffset> {
        self.entries.back().map(|last| last.log_offset)
    }

    /// True: the queue has no entry in that segment yet. From now on it has.
    pub(super) fn enters(&mut self, segment: LogOffset) -> bool {
        let enters = self.segment != segment || self.entries.is_empty();
        self.segment = segment;
        enters
    }

    pub(super) fn push(&mut self, entry: IndexEntry) {
        debug_assert!(entry.queue_offset >= self.end(), "queue offsets are given in order");
        if self.entries.is_empty() {
            self.first = entry.queue_offset;
        }
        self.entries.push_back(RecentEntry {
            log_offset: entry.log_offset,
            store_time: entry.store_time,
            len: entry.len,
            tag_hash: entry.tag_hash,
            message_group_hash: entry.message_group_hash,
            queue_offset_low: entry.queue_offset.0 as u32,
        });
    }

    /// Adds at most `max` entries of records before `end`, from `from` on, without a gap: what was damaged has an entry that
    /// says so.
    pub(super) fn copy(&self, from: QueueOffset, end: LogOffset, max: usize, out: &mut Vec<IndexEntry>) {
        let mut wanted = from;
        let before = out.len();
        for entry in self.entries.range(self.position(from)..) {
            if entry.log_offset >= end {
                return;
            }
            let offset = self.offset(entry);
            while wanted < offset && out.len() - before < max {
                out.push(IndexEntry::damaged(wanted, entry.log_offset));
                wanted = wanted.next();
            }
            if out.len() - before == max {
                return;
            }
            out.push(IndexEntry {
                queue_offset: offset,
                log_offset: entry.log_offset,
                len: entry.len,
                tag_hash: entry.tag_hash,
                message_group_hash: entry.message_group_hash,
                store_time: entry.store_time,
            });
            wanted = offset.next();
        }
    }

    /// Drops the entries of records before `end`. False: none is left.
    pub(super) fn drop_before(&mut self, end: LogOffset) -> bool {
        let covered = self.entries.partition_point(|entry| entry.log_offset < end);
        let first = self.entries.get(covered).map(|entry| self.offset(entry));
        self.entries.drain(..covered);
        if self.entries.capacity() > 4 * self.entries.len() + 16 {
            self.entries.shrink_to_fit();
        }
        self.first = first.unwrap_or(self.first);
        first.is_some()
    }

    /// Where the first entry is that is not before `from`.
    fn position(&self, from: QueueOffset) -> usize {
        let guess = from.0.saturating_sub(self.first.0) as usize;
        match self.entries.get(guess) {
            Some(entry) if self.offset(entry) == from => guess,
            _ => self.entries.partition_point(|entry| self.offset(entry) < from),
        }
    }

    fn offset(&self, entry: &RecentEntry) -> QueueOffset {
        QueueOffset(self.first.0 + u64::from(entry.queue_offset_low.wrapping_sub(self.first.0 as u32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_across_gaps_and_where_offsets_pass_32_bits() {
        let start = (1 << 32) - 3;
        let offsets = [0, 1, 2, 3, 6, 7, 20, 21].map(|offset| QueueOffset(start + offset));
        let mut recent = Recent::starting(offsets[0], LogOffset(0));
        let place = |offset: QueueOffset| LogOffset(1000 + (offset.0 - start) * 100);
        for offset in offsets {
            recent.push(IndexEntry { len: 60, ..IndexEntry::damaged(offset, place(offset)) });
        }
        for from in 0..22 {
            for max in [1, 3, 100] {
                let mut out = Vec::new();
                recent.copy(QueueOffset(start + from), LogOffset(u64::MAX), max, &mut out);
                assert_eq!(out.len(), max.min(22 - from as usize));
                for (entry, offset) in out.iter().zip(from..) {
                    assert_eq!(entry.queue_offset, QueueOffset(start + offset));
                    assert_eq!(entry.is_damaged(), !offsets.contains(&entry.queue_offset));
                }
            }
        }
        assert!(recent.drop_before(place(offsets[4])));
        assert_eq!((recent.first(), recent.end()), (offsets[4], QueueOffset(start + 22)));
        let mut out = Vec::new();
        recent.copy(recent.first(), place(offsets[6]), 100, &mut out);
        assert_eq!(out.iter().map(|entry| entry.queue_offset).collect::<Vec<_>>(), offsets[4..6]);
        assert!(!recent.drop_before(LogOffset(u64::MAX)));
    }
}
