//! The sealed segments with their indexes: finds out which of them holds a queue's offset, or a message id.
//!
//! An index that is missing or damaged has a place here all the same: what it would hold is not known for now, which is
//! said, and it is asked for ([`SealedSet::missing_bases`]) until it was built again.

use super::filter::Filter;
use super::{QueueRun, SealedIndex, SealedIndexError};
use gantry_proto::contract::StoreError;
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, Timestamp, TopicId};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// All of them, oldest first.
#[derive(Default)]
pub(crate) struct SealedSet {
    segments: RwLock<Arc<VecDeque<IndexedSegment>>>,
    /// Where queues were read last.
    recently: Mutex<HashMap<(TopicId, QueueId), RunAt>>,
    filters: Mutex<Filters>,
    /// True: what is missing at the front of a queue may have expired without its queue being told.
    begins_unknown: AtomicBool,
    /// Wakes whoever builds indexes.
    pub missing: Notify,
    /// Held while an index is put into its place, or goes with its segment. Only workers take it.
    pub placing: Mutex<()>,
}

/// A run and the index that it is in.
type RunAt = (Arc<SealedIndex>, QueueRun);

#[derive(Clone)]
pub(crate) struct IndexedSegment {
    pub base: LogOffset,
    pub end: LogOffset,
    /// `None`: it has to be built.
    pub index: Option<Arc<SealedIndex>>,
}

/// Where a queue's offset is.
pub(crate) enum OffsetPlace {
    /// In this run.
    Run(Arc<SealedIndex>, QueueRun),
    /// In none. The queue's next run begins at `next`, if there is one; `after`: where the segment begins that holds the run
    /// before it, if there is one.
    Nowhere { next: Option<QueueOffset>, after: Option<LogOffset> },
}

/// Filters of ids and keys that are in memory.
#[derive(Default)]
struct Filters {
    /// Used last at the back.
    held: VecDeque<(LogOffset, Arc<Filter>)>,
    bytes: usize,
}

/// Places of queues that are remembered: 80 bytes each.
const RECENTLY_MAX: usize = 8192;
/// Memory for filters. What does not fit is read again when it is needed.
const FILTER_BYTES_MAX: usize = 64 << 20;

impl IndexedSegment {
    /// Store time of its newest message, if its index is there.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.index.as_ref().map(|index| index.newest)
    }
}

impl SealedSet {
    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Arc<VecDeque<IndexedSegment>> {
        self.segments.read().clone()
    }

    /// Where the last one ends.
    pub(crate) fn end(&self) -> Option<LogOffset> {
        self.segments.read().back().map(|segment| segment.end)
    }

    /// Adds one behind the last.
    pub(crate) fn push(&self, segment: IndexedSegment) {
        let missing = segment.index.is_none();
        Arc::make_mut(&mut *self.segments.write()).push_back(segment);
        if missing {
            self.missing.notify_one();
        }
    }

    pub(crate) fn pop_front(&self) -> Option<IndexedSegment> {
        let gone = Arc::make_mut(&mut *self.segments.write()).pop_front()?;
        self.recently.lock().retain(|_, (index, _)| index.base > gone.base);
        self.filters.lock().remove(gone.base);
        Some(gone)
    }

    /// Whether every queue knows where its retained messages begin.
    pub(crate) fn begins_known(&self) -> bool {
        !self.begins_unknown.load(Ordering::Relaxed)
    }

    /// From now on they do not.
    pub(crate) fn forget_begins(&self) {
        self.begins_unknown.store(true, Ordering::Relaxed);
    }

    /// Where the segments begin whose index has to be built, oldest first.
    pub(crate) fn missing_bases(&self) -> Vec<LogOffset> {
        self.segments.read().iter().filter(|segment| segment.index.is_none()).map(|segment| segment.base).collect()
    }

    /// Where the segment ends that begins at `base`, if its index has to be built.
    pub(crate) fn missing_end(&self, base: LogOffset) -> Option<LogOffset> {
        let segments = self.segments.read();
        segments.iter().find(|segment| segment.base == base && segment.index.is_none()).map(|segment| segment.end)
    }

    /// Puts an index into its place, if its segment is still there.
    pub(crate) fn replace(&self, index: Arc<SealedIndex>) {
        let mut segments = self.segments.write();
        if let Some(segment) = Arc::make_mut(&mut *segments).iter_mut().find(|segment| segment.base == index.base) {
            segment.index = Some(index);
        }
    }

    /// Finds a queue's offset.
    pub(crate) fn find(&self, topic: TopicId, queue: QueueId, offset: QueueOffset) -> Result<OffsetPlace, StoreError> {
        let key = (topic, queue);
        let last = self.recently.lock().get(&key).cloned();
        if let Some((index, run)) = &last
            && (run.first..run.end()).contains(&offset)
        {
            return Ok(OffsetPlace::Run(index.clone(), *run));
        }
        let segments = self.list();
        // The next read of this queue begins behind this one.
        let from = match &last {
            Some((index, run)) if run.end() <= offset => segments.partition_point(|segment| segment.base <= index.base),
            _ => 0,
        };
        let (mut low, mut high) = (from, segments.len());
        let mut after = if from > 0 { last.map(|(index, _)| index.base) } else { None };
        let mut next = None;
        let mut step = 0;
        while low < high {
            // Nearby first, then by halves.
            let middle = if from > 0 && step < 3 { low } else { low + (high - low) / 2 };
            step += 1;
            let mut probe = middle;
            let run = loop {
                if probe == high {
                    break None;
                }
                if let Some(found) = self.run(&segments[probe], key)? {
                    break Some(found);
                }
                probe += 1;
            };
            match run {
                Some((index, run)) if run.end() <= offset => {
                    after = Some(index.base);
                    low = probe + 1;
                }
                Some((index, run)) if run.first <= offset => {
                    let mut recently = self.recently.lock();
                    if recently.len() >= RECENTLY_MAX {
                        recently.clear();
                    }
                    recently.insert(key, (index.clone(), run));
                    return Ok(OffsetPlace::Run(index, run));
                }
                Some((_, run)) => {
                    next = Some(run.first);
                    high = middle;
                }
                None => high = middle,
            }
        }
        Ok(OffsetPlace::Nowhere { next, after })
    }

    /// Adds the places of messages that have that hash of an id or a key.
    pub(crate) fn find_hash(&self, hash: u64, out: &mut Vec<LogOffset>) -> Result<(), StoreError> {
        for segment in self.list().iter() {
            let index = segment.index.as_ref().ok_or_else(|| being_built(segment.base))?;
            let filter = self.filter(index).map_err(|error| self.unusable(index, &error))?;
            if filter.may_contain(hash) {
                index.find(hash, out).map_err(|error| self.unusable(index, &error))?;
            }
        }
        Ok(())
    }

    /// An index could not be used: if it is damaged it has to be built again.
    pub(crate) fn unusable(&self, index: &Arc<SealedIndex>, error: &SealedIndexError) -> StoreError {
        if !error.is_damage() {
            return StoreError::Unreadable(error.to_string());
        }
        let mut segments = self.segments.write();
        let segments = Arc::make_mut(&mut *segments);
        let held =
            segments.iter_mut().find(|segment| segment.index.as_ref().is_some_and(|held| Arc::ptr_eq(held, index)));
        if let Some(segment) = held {
            tracing::error!(%error, "the index of a segment is damaged and is built again from the segment");
            segment.index = None;
            self.recently.lock().retain(|_, (used, _)| !Arc::ptr_eq(used, index));
            self.filters.lock().remove(index.base);
            self.missing.notify_one();
        }
        being_built(index.base)
    }

    fn run(&self, segment: &IndexedSegment, (topic, queue): (TopicId, QueueId)) -> Result<Option<RunAt>, StoreError> {
        let index = segment.index.as_ref().ok_or_else(|| being_built(segment.base))?;
        let run = index.run(topic, queue).map_err(|error| self.unusable(index, &error))?;
        Ok(run.map(|run| (index.clone(), run)))
    }

    fn filter(&self, index: &SealedIndex) -> Result<Arc<Filter>, SealedIndexError> {
        if let Some(filter) = self.filters.lock().get(index.base) {
            return Ok(filter);
        }
        let filter = Arc::new(index.filter()?);
        self.filters.lock().insert(index.base, filter.clone());
        Ok(filter)
    }
}

impl Filters {
    fn get(&mut self, base: LogOffset) -> Option<Arc<Filter>> {
        let place = self.held.iter().position(|(held, _)| *held == base)?;
        let used = self.held.remove(place)?;
        let filter = used.1.clone();
        self.held.push_back(used);
        Some(filter)
    }

    fn insert(&mut self, base: LogOffset, filter: Arc<Filter>) {
        self.remove(base);
        self.bytes += filter.bytes();
        self.held.push_back((base, filter));
        while self.bytes > FILTER_BYTES_MAX
            && let Some((_, oldest)) = self.held.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }

    fn remove(&mut self, base: LogOffset) {
        if let Some(place) = self.held.iter().position(|(held, _)| *held == base)
            && let Some((_, gone)) = self.held.remove(place)
        {
            self.bytes -= gone.bytes();
        }
    }
}

fn being_built(base: LogOffset) -> StoreError {
    StoreError::Busy(format!("the index of the segment at log offset {base} is being built again"))
}
