//! Saves what recovery starts from: what has changed since the last save, or all of it when a generation begins. See
//! [`crate::checkpoint`].
//!
//! A change marks its queue or its shard before its record is in the log, both under the lock that the record is made
//! under. So whoever looks at the end of the log first and takes the marks then misses nothing before that end.
//!
//! One save is made at a time: whoever makes it holds the checkpoints from the moment it takes the marks until it is
//! written, on its workers, too (`two_saves_never_overlap`). If it never is written, because it failed or because nobody waits
//! for it any more, the next one says everything (`a_save_that_failed_is_made_up_for`,
//! `what_was_taken_for_a_save_that_nobody_waited_for_is_in_the_next_one`).

use crate::checkpoint::{Changes, Checkpoints, Position, ShardState};
use crate::progress::Shard;
use crate::store::Store;
use bytes::BytesMut;
use gantry_proto::contract::StoreError;
use gantry_proto::model::LogOffset;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Saves are not made more often than this.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Less log than this part of a segment is not worth a save.
const WORTH_SEGMENT_PART: u64 = 1024;

/// What is to be saved.
struct Captured {
    changes: Changes,
    /// Where recovery reads on.
    at: LogOffset,
    retained_from: LogOffset,
}

/// Saves checkpoints until the store stops.
pub(crate) async fn save(store: Arc<Store>) {
    let pause = store.config.checkpoint_interval.max(PAUSE_MIN);
    loop {
        let log_is_pinned = tokio::select! {
            biased;
            () = store.stopping.cancelled() => return,
            () = store.log_is_pinned.notified() => true,
            () = tokio::time::sleep(pause) => false,
        };
        let behind = {
            let mut checkpoints = store.checkpoints.lock().await;
            if log_is_pinned {
                // Only a new generation lets segments go.
                checkpoints.begin_generation();
            }
            store.log.written_to().0.saturating_sub(checkpoints.last().at.0)
        };
        if (log_is_pinned || behind >= store.config.segment_bytes / WORTH_SEGMENT_PART)
            && let Err(error) = checkpoint(&store).await
        {
            tracing::error!(%error, "progress cannot be saved; recovery will have to read more");
        }
    }
}

/// Saves where everything is.
pub(crate) async fn checkpoint(store: &Arc<Store>) -> Result<(), StoreError> {
    let stopped = |panicked| StoreError::WritesStopped(format!("saving progress: {panicked}"));
    let mut checkpoints = store.checkpoints.clone().lock_owned().await;
    let (mut checkpoints, captured) = {
        // A removal is in the log and applied, or neither.
        let _removing = store.removing.lock().await;
        let capturing = store.clone();
        let capture = move || {
            let captured = capture(&capturing, checkpoints.begin_save());
            (checkpoints, captured)
        };
        store.env.run_blocking(capture).await.map_err(stopped)?
    };
    // A checkpoint speaks of the log up to here: none of it may be lost any more.
    store.log.confirmed(store.log.appended_to()).await?;
    let saving = store.clone();
    let save = move || write(&saving, &mut checkpoints, &captured);
    store.env.run_blocking(save).await.map_err(stopped)?
}

/// Saves where everything is, before anything is written to the log. Blocks.
pub(crate) fn save_first(store: &Store) -> Result<(), StoreError> {
    let mut checkpoints = store.checkpoints.try_lock().expect("nobody saves before the store's tasks run");
    let captured = capture(store, checkpoints.begin_save());
    write(store, &mut checkpoints, &captured)
}

fn capture(store: &Store, everything: bool) -> Captured {
    let retained_from = store.log.segments.retained_from();
    // First: see above.
    let at = store.log.appended_to();
    let (changed, shards_gone) = store.progress.take_unsaved();
    let queues = store.queues.take_changed();
    let mut changes = Changes { shards_gone, queues, ..Changes::default() };
    if everything {
        let begin = store.queues.queues_begin();
        changes = Changes { queues_begin: begin, ..Changes::default() };
        for topic in store.queues.list() {
            let queues = topic.queues();
            let rows = queues.iter().flatten().map(|queue| queue.capture());
            // What is as it would be without a word is not named.
            changes.queues.extend(rows.filter(|row| (row.min, row.next) != (begin, begin)));
        }
        changes.shards.extend(store.progress.list().iter().map(|shard| capture_shard(store, shard)));
    } else {
        changes.shards.extend(changed.iter().map(|shard| capture_shard(store, shard)));
    }
    Captured { changes, at, retained_from }
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

fn write(store: &Store, checkpoints: &mut Checkpoints, captured: &Captured) -> Result<(), StoreError> {
    let Captured { changes, at, retained_from } = captured;
    store.log.flush()?;
    let position = Position { at: *at, retained_from: *retained_from, log_to: store.log.flushed_to() };
    let written = checkpoints
        .save(&*store.env.files, changes, position)
        .map_err(|error| StoreError::WritesStopped(format!("writing the checkpoint: {error}")))?;
    metrics::counter!("gantry_checkpoint_written_bytes_total").increment(written);
    store.needed_from.store(checkpoints.needed_from().0, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;
    use crate::commit_log::Flush;
    use crate::support::*;

    fn machine(seed: u64) -> (Machine, Arc<HeldWorkers>) {
        let (mut machine, workers) = (Machine::new(seed), Arc::new(HeldWorkers::default()));
        machine.env.workers = workers.clone();
        machine.config.checkpoint_interval = std::time::Duration::from_secs(3600);
        (machine, workers)
    }

    async fn consume(store: &Store, round: u32, count: u32) {
        for number in 0..count {
            send(store, number % QUEUES, &format!("m{round}-{number}")).await.unwrap();
        }
        for message in pop_all(store).await {
            ack(store, &message.handle).await.unwrap();
        }
    }

    /// The process dies, and the next one finds what the checkpoint and the log behind it say.
    async fn nothing_comes_back(machine: &Machine, store: Arc<Store>) {
        machine.files.kill();
        let _ = store.shutdown().await;
        drop(store);
        let store = machine.must_open();
        assert!(pop_all(&store).await.is_empty(), "an acknowledged message came back");
        let _ = store.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn two_saves_never_overlap() {
        let (machine, workers) = machine(1);
        let store = machine.must_open();
        consume(&store, 0, 9).await;
        workers.hold(true);
        let (mut first, mut second) = (Box::pin(checkpoint(&store)), Box::pin(checkpoint(&store)));
        let mut works = 0;
        let finished = loop {
            let finished = (poll_once(first.as_mut()), poll_once(second.as_mut()));
            if finished.0.is_some() || finished.1.is_some() {
                break finished;
            }
            let count = workers.work();
            assert_eq!(count, 1, "one save is made at a time");
            works += count;
        };
        finished.0.expect("the first one is done first").unwrap();
        assert!(works == 2 && finished.1.is_none());
        workers.hold(false);
        workers.work();
        second.await.unwrap();
        drop(first);
        nothing_comes_back(&machine, store).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_for_a_save_that_nobody_waited_for_is_in_the_next_one() {
        for steps in 0..2 {
            let (machine, workers) = machine(steps);
            let store = machine.must_open();
            consume(&store, 0, 9).await;
            checkpoint(&store).await.unwrap();
            consume(&store, 1, 9).await;
            workers.hold(true);
            let mut abandoned = Box::pin(checkpoint(&store));
            assert!(poll_once(abandoned.as_mut()).is_none());
            for _ in 0..steps {
                assert_eq!(workers.work(), 1);
                assert!(poll_once(abandoned.as_mut()).is_none());
            }
            drop(abandoned);
            let mut next = Box::pin(checkpoint(&store));
            assert!(poll_once(next.as_mut()).is_none());
            // What a worker was given it does, and nobody gets in between.
            assert_eq!(workers.work(), 1, "a second save began while a worker was at the first");
            workers.hold(false);
            next.await.unwrap();
            nothing_comes_back(&machine, store).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_waits_until_the_log_has_what_it_speaks_of() {
        let (machine, _) = machine(3);
        let store = machine.must_open();
        consume(&store, 0, 4).await;
        send(&store, 0, "left").await.unwrap();
        let message = pop(&store, 1).await.unwrap().remove(0);
        // The record is in the log's tail, and nobody has written it.
        let mut acking = Box::pin(ack(&store, &message.handle));
        assert!(poll_once(acking.as_mut()).is_none());
        let mut saving = Box::pin(checkpoint(&store));
        assert!(poll_once(saving.as_mut()).is_none(), "it speaks of what is in memory only");
        // The power fails: the acknowledgement has not happened.
        drop((acking, saving));
        machine.files.crash(3);
        let _ = store.shutdown().await;
        drop(store);
        let store = machine.must_open();
        machine.clock.advance(INVISIBLE);
        assert_eq!(pop_all(&store).await.iter().map(body).collect::<Vec<_>>(), ["left"]);
        let _ = store.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_makes_durable_what_it_speaks_of() {
        let (mut machine, _) = machine(4);
        machine.config.flush = Flush::Async;
        let store = machine.must_open();
        consume(&store, 0, 9).await;
        assert!(store.log.flushed_to() < store.log.written_to(), "nothing has flushed it yet");
        checkpoint(&store).await.unwrap();
        machine.files.crash(4);
        let _ = store.shutdown().await;
        drop(store);
        let store = machine.must_open();
        assert!(pop_all(&store).await.is_empty(), "an acknowledged message came back");
        assert_eq!(send(&store, 0, "next").await.unwrap().queue_offset.0, 5);
        let _ = store.shutdown().await;
    }
}
