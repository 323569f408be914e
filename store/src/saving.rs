//! Saves what recovery starts from: what has changed since the last save, or all of it when a generation begins. See
//! [`crate::checkpoint`].
//!
//! A change marks its queue or its shard before its record is in the log, both under the lock that the record is made
//! under. So whoever looks at the end of the log first and takes the marks then misses nothing before that end.

use crate::checkpoint::{Changes, Position, ShardState};
use crate::progress::Shard;
use crate::store::Store;
use bytes::BytesMut;
use gantry_proto::contract::StoreError;
use gantry_proto::model::LogOffset;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Saves where everything is. After an error the next save says everything.
pub(crate) async fn checkpoint(store: &Arc<Store>) -> Result<(), StoreError> {
    let saved = try_checkpoint(store).await;
    if saved.is_err() {
        store.checkpoints.lock().begin_generation();
    }
    saved
}

async fn try_checkpoint(store: &Arc<Store>) -> Result<(), StoreError> {
    let stopped = |panicked| StoreError::WritesStopped(format!("saving progress: {panicked}"));
    let captured = {
        // A removal is in the log and applied, or neither.
        let _removing = store.removing.lock().await;
        let store = store.clone();
        store.env.clone().run_blocking(move || capture(&store)).await.map_err(stopped)?
    };
    // A checkpoint speaks of the log up to here: none of it may be lost any more.
    store.log.confirmed(store.log.appended_to()).await?;
    let store = store.clone();
    store.env.clone().run_blocking(move || save(&store, &captured)).await.map_err(stopped)?
}

/// What changed, where recovery reads on, and where the log began.
fn capture(store: &Store) -> (Changes, LogOffset, LogOffset) {
    let everything = {
        let mut checkpoints = store.checkpoints.lock();
        let begins = checkpoints.begins_generation();
        if begins {
            checkpoints.begin_generation();
        }
        begins
    };
    let retained_from = store.log.segments.retained_from();
    // First: see above.
    let at = store.log.appended_to();
    let (changed, shards_gone) = store.progress.take_unsaved();
    let queues = store.queues.take_changed();
    let mut changes = Changes { shards_gone, queues, shards: Vec::new() };
    if everything {
        changes = Changes::default();
        for topic in store.queues.list() {
            let queues = topic.queues();
            let rows = queues.iter().flatten().map(|queue| queue.capture());
            changes.queues.extend(rows.filter(|row| row.next.0 > 0));
        }
        changes.shards.extend(store.progress.list().iter().map(|shard| capture_shard(store, shard)));
    } else {
        changes.shards.extend(changed.iter().map(|shard| capture_shard(store, shard)));
    }
    (changes, at, retained_from)
}

fn capture_shard(store: &Store, shard: &Shard) -> ShardState {
    let mut bytes = BytesMut::new();
    let state = shard.lock();
    shard.is_saved();
    state.encode(&mut bytes);
    // Under the shard's lock: every record of it before this is in its state.
    let good_for = store.log.appended_to();
    drop(state);
    ShardState { group: shard.group, topic: shard.topic, good_for, state: bytes.freeze() }
}

fn save(store: &Store, (changes, at, retained_from): &(Changes, LogOffset, LogOffset)) -> Result<(), StoreError> {
    store.log.flush()?;
    let position = Position { at: *at, retained_from: *retained_from, log_to: store.log.flushed_to() };
    let mut checkpoints = store.checkpoints.lock();
    let written = checkpoints
        .save(&*store.env.files, changes, position)
        .map_err(|error| StoreError::WritesStopped(format!("writing the checkpoint: {error}")))?;
    metrics::counter!("gantry_checkpoint_written_bytes_total").increment(written);
    store.needed_from.store(checkpoints.needed_from().0, Ordering::Relaxed);
    Ok(())
}
