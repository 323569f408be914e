//! The store's own tasks. Each has one reason to exist and ends when the store does.
//!
//! | task | why | wakes |
//! |---|---|---|
//! | [`writer::write`] | writes the log, tells callers and receivers what was written | when something was appended |
//! | [`writer::flush`] | with asynchronous flush, makes durable what was written | each half second |
//! | [`prepared::prepare`] | makes room behind the current segment | when room is needed, else each half second; less often while nothing is written |
//! | [`fence`] | tells waiting receives that the store does not lead any more | when its tenure ends |
//! | [`wake`] | wakes receives for what may be delivered again | when a delivery has ended |
//! | [`dead_letter`] | moves exhausted messages to dead-letter topics | when the last delivery of one has ended |
//! | [`forget`](removal::forget) | records that topics and groups were deleted, which drops their state | when one is deleted; when the store begins to lead |
//! | [`index`](indexing::index) | writes the indexes of full segments, builds those that are missing or damaged | when an index is missing, else each half second |
//! | [`remember_older_ids`](rebuild::remember_older_ids) | fills the window of message ids after a start | once |
//! | [`save`](saving::save) | saves checkpoints | each `checkpoint_interval`; when retention needs one |
//! | [`expire`](expiry::expire) | removes what expired | each 5 s |
//! | [`trim`](expiry::trim) | lets groups forget what expired | when a segment was removed; when the store begins to lead |
//! | [`list_damage`] | saves the list of damaged parts of the log | after a part was found damaged |
//! | [`watch_files`] | looks whether the log's files are still what they were | each 5 s |
//! | [`pass_given_up`] | lets groups pass what an operator gave up | each 5 s |
//! | [`give_back_restored`] | gives groups what they had set aside and is whole again | each 5 s |
//! | [`keep`](names::keep) | keeps a copy of the names of topics and groups | when the metadata change |
//! | [`measure`] | sets the gauges | each 5 s |
//!
//! What blocks is sent to a worker; one at a time for each task.

use crate::commit_log::writer::LogWriter;
use crate::commit_log::{Flush, prepared, writer};
use crate::observe::observe;
use crate::periodic::{INTERVAL, repeat};
use crate::store::Store;
use crate::upkeep::{DueShards, ShardKey};
use crate::{expiry, indexing, names, rebuild, removal, restored, saving};
use gantry_proto::contract::StoreError;
use gantry_proto::model::Epoch;
use std::sync::Arc;
use std::time::Duration;

/// Between two savings of the list of damaged parts.
const LIST_DAMAGE_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks for exhausted messages.
const DEAD_LETTER_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks for deliveries that ended.
const WAKE_PAUSE: Duration = Duration::from_millis(5);
/// Shards that are looked at before others get a turn on the thread.
const SHARDS_IN_ONE_GO: usize = 64;
/// How long to wait at most for a time of the wall clock, which may be set meanwhile.
const CLOCK_LOOK: Duration = Duration::from_secs(1);

/// Starts all of them. `last_epoch`: the last one of the store's folder.
pub(crate) fn start(store: &Arc<Store>, writer: LogWriter, last_epoch: Epoch) {
    let (log, stopping) = (&store.log, &store.stopping);
    store.spawn("writing", writer::write(log.clone(), writer, stopping.clone()));
    if store.config.flush == Flush::Async {
        store.spawn("flushing", writer::flush(log.clone(), stopping.clone()));
    }
    store.spawn("preparing", prepared::prepare(log.clone(), stopping.clone()));
    store.spawn("fencing", fence(store.clone(), last_epoch));
    store.spawn("waking", wake(store.clone()));
    store.spawn("dead-lettering", dead_letter(store.clone()));
    store.spawn("forgetting", removal::forget(store.clone(), store.view.removals()));
    store.spawn("indexing", indexing::index(store.clone()));
    store.spawn("remembering", rebuild::remember_older_ids(store.clone()));
    store.spawn("saving", saving::save(store.clone()));
    store.spawn("expiring", expiry::expire(store.clone()));
    store.spawn("trimming", expiry::trim(store.clone()));
    store.spawn("damage-listing", list_damage(store.clone()));
    store.spawn("file-watching", watch_files(store.clone()));
    store.spawn("passing", pass_given_up(store.clone()));
    store.spawn("giving-back", give_back_restored(store.clone()));
    store.spawn("naming", names::keep(store.clone()));
    store.spawn("measuring", measure(store.clone()));
}

async fn measure(store: Arc<Store>) {
    repeat(store, "measuring", observe).await;
}

async fn watch_files(store: Arc<Store>) {
    // A failure has stopped the log and was reported there.
    repeat(store, "watching files", |store: &Store| drop(store.log.check_files())).await;
}

async fn pass_given_up(store: Arc<Store>) {
    let work = |store: &Store| {
        if store.leads().is_ok()
            && let Err(error) = store.pass_given_up()
        {
            tracing::warn!(%error, "groups do not pass yet what an operator gave up; that is tried again");
        }
    };
    repeat(store, "passing what was given up", work).await;
}

async fn give_back_restored(store: Arc<Store>) {
    loop {
        if store.leads().is_ok()
            && let Err(error) = restored::give_back(&store).await
        {
            tracing::warn!(%error, "groups do not get yet what is whole again; that is tried again");
        }
        if store.stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}

/// What is found within a short while is saved at once.
async fn list_damage(store: Arc<Store>) {
    loop {
        let saving = store.clone();
        match store.env.run_blocking(move || saving.log.damage.save()).await {
            Err(panicked) => {
                return store.log.fail(StoreError::WritesStopped(format!("listing damage: {panicked}")));
            }
            Ok(Err(error)) => tracing::warn!(%error, "the list of damaged parts of the log cannot be saved"),
            Ok(Ok(())) => {}
        }
        let next = async {
            tokio::time::sleep(LIST_DAMAGE_PAUSE).await;
            if !store.log.damage.is_unsaved() {
                store.log.damage.noted.notified().await;
            }
        };
        if store.stopping.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}

/// Lets receives that wait find out that a tenure has ended. The next one is later than `last`.
async fn fence(store: Arc<Store>, mut last: Epoch) {
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
async fn wake(store: Arc<Store>) {
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
async fn dead_letter(store: Arc<Store>) {
    let stopping = store.stopping.clone();
    stopping.run_until_cancelled(dead_letter_exhausted(&store)).await;
}

async fn dead_letter_exhausted(store: &Store) {
    let spent = &store.progress.upkeep().spent;
    loop {
        for (group, topic) in due_shards(store, spent).await {
            if let Some(shard) = store.progress.get(group, topic) {
                store.dead_letter_exhausted(&shard).await;
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(DEAD_LETTER_PAUSE).await;
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
