//! What is known of segments that have no index yet: which queues have messages in them, and the hashes of ids and keys.
//! Their entries are with the queues ([`super::queue`]). The index is written from both.

use super::Queue;
use gantry_proto::model::LogOffset;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// The segments without an index, oldest first. The last one is written.
#[derive(Default)]
pub(crate) struct Unsealed {
    segments: Mutex<VecDeque<Arc<UnsealedSegment>>>,
}

pub(crate) struct UnsealedSegment {
    pub base: LogOffset,
    queues: Mutex<Vec<Arc<Queue>>>,
    hashes: Mutex<HashRows>,
}

/// Hashes with the places of their messages. Grows without ever being copied: that would take long under the log's lock.
#[derive(Default)]
pub(crate) struct HashRows {
    chunks: Vec<Vec<[u32; 3]>>,
}

/// Rows of a chunk: 192 KiB.
const CHUNK_ROWS: usize = 16 << 10;

impl Unsealed {
    /// The segment that begins at `base`: the last one, or a new one behind it.
    pub(super) fn segment(&self, base: LogOffset) -> Arc<UnsealedSegment> {
        let mut segments = self.segments.lock();
        match segments.back() {
            Some(last) if last.base == base => last.clone(),
            _ => {
                let fresh = Arc::new(UnsealedSegment::new(base));
                segments.push_back(fresh.clone());
                fresh
            }
        }
    }

    /// The one that begins at `base`, if something was put into it.
    pub(super) fn get(&self, base: LogOffset) -> Option<Arc<UnsealedSegment>> {
        self.segments.lock().iter().find(|segment| segment.base == base).cloned()
    }

    /// Forgets the segments before `end`: they have an index.
    pub(super) fn forget_before(&self, end: LogOffset) {
        self.segments.lock().retain(|segment| segment.base >= end);
    }

    /// Adds the places of messages with that hash.
    pub(super) fn find(&self, hash: u64, out: &mut Vec<LogOffset>) {
        let segments: Vec<_> = self.segments.lock().iter().cloned().collect();
        for segment in segments {
            segment.hashes.lock().find(hash, |place| out.push(segment.base.plus(u64::from(place))));
        }
    }
}

impl UnsealedSegment {
    pub(crate) fn new(base: LogOffset) -> UnsealedSegment {
        UnsealedSegment { base, queues: Mutex::default(), hashes: Mutex::default() }
    }

    /// The queues with messages in it, in no order.
    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.lock().clone()
    }

    pub(super) fn hashes(&self) -> MutexGuard<'_, HashRows> {
        self.hashes.lock()
    }

    pub(super) fn add_queue(&self, queue: &Arc<Queue>) {
        self.queues.lock().push(queue.clone());
    }
}

impl HashRows {
    pub(super) fn push(&mut self, hash: u64, place: u32) {
        let row = [(hash >> 32) as u32, hash as u32, place];
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ROWS => chunk.push(row),
            _ => {
                // The first one small: most segments of a test hold little.
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 0 } else { CHUNK_ROWS });
                chunk.push(row);
                self.chunks.push(chunk);
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// The hashes whose upper four bits are `part`, sorted. In this order the parts make up all.
    pub(super) fn sorted_part(&self, part: u32) -> impl Iterator<Item = (u64, u32)> + use<> {
        let rows = self.chunks.iter().flatten().filter(|row| row[0] >> 28 == part);
        let mut rows: Vec<[u32; 3]> = rows.copied().collect();
        rows.sort_unstable();
        rows.into_iter().map(|[high, low, place]| ((u64::from(high) << 32) | u64::from(low), place))
    }

    fn find(&self, hash: u64, mut found: impl FnMut(u32)) {
        let (high, low) = ((hash >> 32) as u32, hash as u32);
        for row in self.chunks.iter().flatten().filter(|row| row[0] == high && row[1] == low) {
            found(row[2]);
        }
    }
}
