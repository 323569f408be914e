//! The store's own tasks. Each has one reason to exist and ends when the store does.
//!
//! | task | why | wakes |
//! |---|---|---|
//! | [`write`](crate::commit_log::writer::write) | writes the log, tells callers and receivers what was written | when something was appended |
//! | [`flush`](crate::commit_log::writer::flush) | with asynchronous flush, makes durable what was written | each half second |
//! | [`wake`] | wakes receives for what may be delivered again | when a delivery has ended |
//! | [`bury`] | moves exhausted messages to dead-letter topics | when the last delivery of one has ended |
//! | [`remember`] | fills the window of message ids after a start | once |
//! | [`fence`] | tells waiting receives that the store does not lead any more | when its tenure ends |
//! | [`forget`] | records that topics and groups were deleted, which drops their state | when one is deleted; when the store begins to lead |
//! | [`index`](crate::indexing::index) | writes the indexes of full segments, builds those that are missing or damaged | when an index is missing, else each half second |
//! | [`maintain`] | prepares segments, saves checkpoints, drops what expired ([`crate::expiry`]), watches the disk, measures | each [`TICK`], or each [`RETENTION_INTERVAL`] while nothing is written |
//!
//! What blocks is sent to a worker; one at a time for each task.

use crate::dedup::Generation;
use crate::expiry::{retain, trim};
use crate::observe::observe;
use crate::queue_index::{SealedIndex, SealedIndexError};
use crate::removal::NotRemoved;
use crate::saving::checkpoint;
use crate::store::Store;
use crate::upkeep::{DueShards, ShardKey};
use gantry_proto::contract::StoreError;
use gantry_proto::model::{Epoch, LogOffset, Removal, Removed};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

const TICK: Duration = Duration::from_millis(500);
/// Between two looks for exhausted messages.
const BURY_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks for deliveries that ended.
const WAKE_PAUSE: Duration = Duration::from_millis(5);
/// Shards that are looked at before others get a turn on the thread.
const SHARDS_IN_ONE_GO: usize = 64;
/// Whoever waits for a time of the wall clock looks again after this: it may be set.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// A checkpoint is not worth writing for less log than this part of a segment.
const CHECKPOINT_SEGMENT_PART: u64 = 1024;
const RETENTION_INTERVAL: Duration = Duration::from_secs(5);

/// Lets receives that wait find out that a tenure has ended. The next one is later than `last`.
pub(crate) async fn fence(store: Arc<Store>, mut last: Epoch) {
    loop {
        tokio::select! {
            biased;
            () = store.stopping.cancelled() => return,
            () = store.log.tenure.begun_after(last) => {}
        }
        let (epoch, over) = tokio::select! {
            biased;
            () = store.stopping.cancelled() => return,
            over = store.log.tenure.over() => over,
        };
        last = epoch;
        let group = store.store_group().unwrap_or_default();
        tracing::warn!(%group, %epoch, reason = %over, "the store does not lead its group any more: it answers no success");
        for shard in store.progress.list() {
            shard.wake_all();
        }
    }
}

/// Wakes receives when deliveries have ended, on time. One timer is enough for all: that of the shard whose delivery ends
/// first.
pub(crate) async fn wake(store: Arc<Store>) {
    let stopping = store.stopping.clone();
    stopping.run_until_cancelled(wake_on_time(&store)).await;
}

async fn wake_on_time(store: &Store) {
    let ends = &store.progress.upkeep().ends;
    loop {
        let due = due_shards(store, ends).await;
        for (number, (group, topic)) in due.into_iter().enumerate() {
            if number % SHARDS_IN_ONE_GO == SHARDS_IN_ONE_GO - 1 {
                tokio::task::yield_now().await;
            }
            let Some(shard) = store.progress.get(group, topic) else { continue };
            // Of a group that is not known nothing is used up.
            let max_attempts = store.view.group_by_id(group).map_or(u32::MAX, |group| group.max_attempts);
            let mut state = shard.lock();
            let comes_again = state.look_for_ends(store.log.now(), max_attempts);
            state.looked_for_ends();
            if comes_again {
                shard.wake_one();
            }
        }
        // What ends about the same time is dealt with in one go.
        tokio::time::sleep(WAKE_PAUSE).await;
    }
}

/// Moves messages whose last delivery ended to their dead-letter topics. Looks only at shards in which there are some.
pub(crate) async fn bury(store: Arc<Store>) {
    let stopping = store.stopping.clone();
    stopping.run_until_cancelled(bury_what_is_spent(&store)).await;
}

async fn bury_what_is_spent(store: &Store) {
    let spent = &store.progress.upkeep().spent;
    loop {
        for (group, topic) in due_shards(store, spent).await {
            if let Some(shard) = store.progress.get(group, topic) {
                store.bury_exhausted(&shard).await;
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(BURY_PAUSE).await;
    }
}

/// Waits until shards are due while the store leads: who does not lead changes nothing.
async fn due_shards(store: &Store, shards: &DueShards) -> Vec<ShardKey> {
    loop {
        let epoch = store.log.tenure.epoch();
        if store.log.tenure.check().is_err() {
            store.log.tenure.begun_after(epoch).await;
            continue;
        }
        let now = store.log.now();
        let next_in = match shards.due_by(now) {
            (_, due) if !due.is_empty() => return due,
            (Some(next), _) => next.since(now).min(CLOCK_LOOK),
            (None, _) => Duration::MAX,
        };
        tokio::select! {
            () = shards.earlier() => {}
            () = tokio::time::sleep(next_in) => {}
        }
    }
}

/// Fills the window of remembered message ids with what recovery left for later: ids in sealed segments, the latest first.
pub(crate) async fn remember(store: Arc<Store>) {
    let stopping = store.stopping.clone();
    stopping.run_until_cancelled(remember_older_ids(&store)).await;
}

async fn remember_older_ids(store: &Arc<Store>) {
    let segments = store.queues.sealed.list();
    let indexes: Vec<_> = segments.iter().rev().map_while(|segment| segment.index.clone()).collect();
    let Some(newest) = indexes.first().map(|index| index.newest) else { return };
    let within = |index: &&Arc<SealedIndex>| newest.since(index.newest) <= store.config.dedup_window;
    let indexes: Vec<_> = indexes.iter().take_while(within).cloned().collect();
    let hashes: u64 = indexes.iter().map(|index| index.hash_count()).sum();
    if hashes <= store.config.dedup_recalled_at_once as u64 {
        return;
    }
    for index in indexes {
        let reading = store.env.run_blocking(move || {
            let mut older = Generation::new(index.base, index.newest);
            for (hash, at) in index.newest_hashes(usize::MAX)? {
                older.add(hash, at, index.newest);
            }
            Ok::<_, SealedIndexError>(older)
        });
        match reading.await {
            Ok(Ok(older)) => {
                if !store.dedup.lock().add_older(older) {
                    return;
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "not all message ids of the last minutes can be remembered");
                return;
            }
            Err(panicked) => {
                tracing::error!(%panicked, "remembering message ids");
                return;
            }
        }
    }
}

/// Records that topics and groups were deleted, which drops their state: see [`crate::removal`]. Their messages go with their
/// segments. Who does not lead forgets nothing; once it leads it looks for what was deleted until then.
///
/// Only an explicit removal counts. A topic that the metadata merely do not name (an empty controller, one that was put
/// back to an earlier state) is left alone.
pub(crate) async fn forget(store: Arc<Store>, mut removals: Receiver<Removal>) {
    let tenure = &store.log.tenure;
    let (mut look, mut removed) = (true, Vec::new());
    loop {
        let epoch = tenure.epoch();
        if tenure.check().is_err() {
            look = true;
            tokio::select! {
                biased;
                () = store.stopping.cancelled() => return,
                () = tenure.begun_after(epoch) => continue,
            }
        }
        if std::mem::take(&mut look) {
            let here = store.removed_and_here();
            removed.retain(|gone| !here.contains(gone));
            removed.extend(here);
        }
        removed = remove_all(&store, removed).await;
        tokio::select! {
            biased;
            () = store.stopping.cancelled() => return,
            _ = tenure.over() => {}
            removal = removals.recv() => match removal {
                Ok(Removal::Of(gone)) => removed.push(gone),
                Ok(Removal::LookAgain) | Err(RecvError::Lagged(_)) => look = true,
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(FORGET_AGAIN), if !removed.is_empty() => {}
        }
    }
}

/// Returns those that could not be recorded now.
async fn remove_all(store: &Store, removed: Vec<Removed>) -> Vec<Removed> {
    let mut left = Vec::new();
    for gone in removed {
        let is_back = match gone {
            Removed::Topic(topic) => store.view.topic_by_id(topic).is_some(),
            Removed::Group(group) => store.view.group_by_id(group).is_some(),
        };
        if is_back {
            continue;
        }
        let mut done = store.remove(gone).await;
        if matches!(done, Err(NotRemoved::SegmentNotReady)) {
            // Whatever it is that is in the way, the next try finds out.
            let _ = store.log.room_for(REMOVAL_BYTES).await;
            done = store.remove(gone).await;
        }
        if done.is_err() {
            left.push(gone);
        }
    }
    left
}

/// Room for the record of a removal.
const REMOVAL_BYTES: usize = 64;
/// When removals that could not be recorded are tried again.
const FORGET_AGAIN: Duration = Duration::from_secs(1);

/// Keeps the folder in order.
pub(crate) async fn maintain(store: Arc<Store>) {
    let stopping = store.stopping.clone();
    let (mut last_checkpoint, mut last_retention) = (Instant::now(), None);
    let mut seen_to = LogOffset::default();
    loop {
        let written_to = store.log.written_to();
        let checkpoint_due = last_checkpoint.elapsed() >= store.config.checkpoint_interval;
        let retention_due = last_retention.is_none_or(|at: Instant| at.elapsed() >= RETENTION_INTERVAL);
        let ran = {
            let store = store.clone();
            store.env.clone().run_blocking(move || run(&store, retention_due)).await
        };
        if let Err(panicked) = ran {
            return store.log.fail(StoreError::WritesStopped(format!("maintenance: {panicked}")));
        }
        let behind = store.log.written_to().0.saturating_sub(store.checkpoints.lock().await.last().at.0);
        let pinned = store.log_is_pinned.swap(false, Ordering::Relaxed);
        if pinned {
            // Older checkpoints keep segments that are to go.
            store.checkpoints.lock().await.begin_generation();
        }
        if checkpoint_due || pinned {
            if (pinned || behind >= store.config.segment_bytes / CHECKPOINT_SEGMENT_PART)
                && let Err(error) = checkpoint(&store).await
            {
                tracing::error!(%error, "progress cannot be saved; recovery will have to read more");
            }
            last_checkpoint = Instant::now();
        }
        if retention_due {
            last_retention = Some(Instant::now());
        }
        // While nothing is written there is nothing to prepare, to flush or to save; the writer says when that changes.
        let pause = if written_to == std::mem::replace(&mut seen_to, written_to) { RETENTION_INTERVAL } else { TICK };
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = store.log.wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn run(store: &Store, retention_due: bool) {
    store.log.prepare_next_segment();
    if let Err(error) = store.log.damage.save() {
        tracing::warn!(%error, "the list of damaged parts of the log cannot be saved");
    }
    if retention_due {
        observe(store);
        // A failure has stopped the log and was reported there.
        let _ = store.log.check_files();
    }
    let leads = store.log.tenure.check().is_ok();
    if retention_due
        && leads
        && let Err(error) = store.pass_given_up()
    {
        tracing::warn!(%error, "groups do not pass yet what an operator gave up; that is tried again");
    }
    if retention_due
        && leads
        && let Err(error) = retain(store)
    {
        tracing::error!(%error, "expired segments cannot be removed");
    }
    if leads && let Err(error) = trim(store) {
        tracing::debug!(%error, "groups forget what expired as soon as that can be recorded");
    }
}
