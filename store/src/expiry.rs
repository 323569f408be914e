//! What is too old goes: whole segments, the oldest first, and what groups still held of them.
//!
//! What must always hold: the log never gets a hole, whatever fails in between
//! (`a_power_failure_while_segments_are_removed_leaves_no_hole_in_the_log`, `a_removal_that_fails_leaves_no_hole_in_the_log`);
//! and a group forgets what it held of a segment that is gone, however long it takes until that can be recorded
//! ([`Store::untrimmed`], `a_group_forgets_what_expired_also_if_that_could_not_be_recorded_at_once`).

use crate::commit_log::retention::{SealedSegment, expired};
use crate::commit_log::segment::{index_name, segment_name};
use crate::periodic::repeat;
use crate::store::Store;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{LogOffset, TopicId};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// When trimming that could not be recorded is tried again.
const TRIM_AGAIN: Duration = Duration::from_millis(500);

/// Removes what expired until the store stops. Who does not lead removes nothing.
pub(crate) async fn expire(store: Arc<Store>) {
    let work = |store: &Store| {
        if store.leads().is_ok()
            && let Err(error) = retain(store)
        {
            tracing::error!(%error, "expired segments cannot be removed");
        }
    };
    repeat(store, "removing what expired", work).await;
}

/// Lets groups forget what expired until the store stops. Who does not lead records nothing.
pub(crate) async fn trim(store: Arc<Store>) {
    let stopping = store.stopping.clone();
    stopping.run_until_cancelled(trim_after_removals(&store)).await;
}

async fn trim_after_removals(store: &Arc<Store>) {
    loop {
        let epoch = store.epoch();
        if store.leads().is_err() {
            store.log.tenure.begun_after(epoch).await;
            continue;
        }
        let trimming = store.clone();
        match store.env.run_blocking(move || trim_all(&trimming)).await {
            Err(panicked) => return store.log.fail(StoreError::WritesStopped(format!("trimming: {panicked}"))),
            Ok(Ok(())) => store.segment_removed.notified().await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "groups forget what expired as soon as that can be recorded");
                tokio::time::sleep(TRIM_AGAIN).await;
            }
        }
    }
}

/// Lets groups forget messages that expired while they were outstanding: those of the topics that lost messages. What cannot
/// be recorded now is tried again with the next call.
fn trim_all(store: &Store) -> Result<(), StoreError> {
    loop {
        // Taken out first: what goes while groups are looked at has it looked at again.
        let Some(topic) = store.untrimmed.lock().pop_first() else { return Ok(()) };
        if let Err(error) = trim_topic(store, topic) {
            store.untrimmed.lock().insert(topic);
            return Err(error);
        }
    }
}

fn trim_topic(store: &Store, topic: TopicId) -> Result<(), StoreError> {
    let Some((queues, reader)) = store.queues.get(topic).zip(store.reader(topic)) else { return Ok(()) };
    for shard in queues.shards() {
        shard.is_to_be_observed();
        let holding = shard.lock().queues_held();
        // After a start it may not be known yet where a queue begins.
        for queue in holding.into_iter().filter_map(|queue| queues.queue(queue)) {
            queue.find_begin()?;
        }
        let mut state = shard.lock();
        if let Some(change) = state.plan_trim(&reader).filter(|_| !shard.is_closed()) {
            store.record(&shard, &mut state, &change).map_err(StoreError::from)?;
        }
    }
    Ok(())
}

/// Watches the disk and removes what expired.
fn retain(store: &Store) -> Result<(), StoreError> {
    let files = &*store.env.files;
    let failed = |what: &str, error: std::io::Error| StoreError::Unreadable(format!("{what}: {error}"));
    let space = files.space(&store.dir).map_err(|error| failed("measuring the disk", error))?;
    // How old a segment is its index tells: what has none yet stays, and what is behind it.
    let sealed = store.queues.sealed.list();
    let sealed: Vec<SealedSegment> = (sealed.iter())
        .map_while(|segment| {
            let (end, bytes) = (segment.end, segment.end.0 - segment.base.0);
            Some(SealedSegment { base: segment.base, end, bytes, newest: segment.newest()? })
        })
        .collect();
    store.disk.observe(space, store.config.disk_full_percent);
    let needed_from = LogOffset(store.needed_from.load(Ordering::Relaxed));
    let active_bytes = store.log.config.segment_bytes;
    let (policy, now) = (&store.config.retention, store.log.believed_now());
    let count = expired(policy, &sealed, active_bytes, space, Some(needed_from), now);
    let wanted = expired(policy, &sealed, active_bytes, space, None, now);
    if wanted > count {
        store.log_is_pinned.notify_one();
    }
    if count == 0 {
        return Ok(());
    }
    // The oldest first, and none after one that could not be removed: the log must not get a hole.
    let removed = sealed[..count].iter().try_for_each(|segment| {
        if now.since(segment.newest) > policy.age {
            tracing::info!(segment = segment_name(segment.base), "removing an expired segment");
        } else {
            tracing::warn!(
                segment = segment_name(segment.base), newest = %segment.newest,
                "removing a segment before its time: the log or its disk is larger or fuller than retention allows. \
                 Messages in it that were not consumed are gone"
            );
        }
        remove_segment(store, segment)
    });
    removed?;
    let space = files.space(&store.dir).map_err(|error| failed("measuring the disk", error))?;
    store.disk.observe(space, store.config.disk_full_percent);
    Ok(())
}

/// Removes the oldest segment. In this order: it is on disk that the log begins behind it; its files are gone; that is on
/// disk; then it is forgotten. Whatever fails, what is left is a log without a hole, and a leftover that the next start
/// removes.
pub(crate) fn remove_segment(store: &Store, segment: &SealedSegment) -> Result<(), StoreError> {
    let (files, dir) = (&*store.env.files, &store.log.config.dir);
    store.log.retain_from(segment.end)?;
    // An index that is being built does not come into its place behind this.
    let _placing = store.queues.sealed.placing.lock();
    for name in [segment_name(segment.base), index_name(segment.base)] {
        match files.remove(&dir.join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Unreadable(format!("removing {name}: {error}")));
            }
            _ => {}
        }
    }
    files.sync_dir(dir).map_err(|error| StoreError::Unreadable(format!("flushing {}: {error}", dir.display())))?;
    match store.queues.drop_oldest() {
        Some(topics) => store.untrimmed.lock().extend(topics),
        None => store.untrimmed.lock().extend(store.queues.list().iter().map(|topic| topic.id)),
    }
    store.segment_removed.notify_one();
    store.log.segments.remove(segment.base);
    store.log.damage.forget_before(segment.end);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use crate::support::*;
    use gantry_proto::contract::{PopRequest, StoreLease};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_group_forgets_what_expired_also_if_that_could_not_be_recorded_at_once() {
        for reopened in [false, true] {
            let mut machine = Machine::new(1);
            machine.config.retention.age = Duration::from_secs(3600);
            let mut store = machine.must_open();
            send(&store, 0, "held").await.unwrap();
            assert_eq!(pop(&store, 1).await.unwrap().len(), 1);
            let mut number = 0;
            while store.queues.sealed.list().len() < 2 {
                send(&store, 0, &format!("m{number}-{}", "x".repeat(3000))).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                number += 1;
            }
            // The segment goes while nothing can be put into the log.
            let oldest = store.queues.sealed.list()[0].clone();
            let (base, end, newest) = (oldest.base, oldest.end, oldest.newest().unwrap());
            store.end_tenure(store.epoch(), "a test");
            super::remove_segment(&store, &super::SealedSegment { base, end, bytes: end.0 - base.0, newest }).unwrap();
            assert!(super::trim_all(&store).is_err());
            tokio::time::sleep(Duration::from_secs(30)).await;
            let inflight = async |store: &crate::Store| store.progress(GROUP).await.unwrap()[0].inflight;
            assert_eq!(inflight(&store).await, 1, "who does not lead changes nothing");
            if reopened {
                machine.files.kill();
                let _ = store.shutdown().await;
                drop(store);
                store = machine.must_open();
            } else {
                store.lead(&granted(9, StoreLease::UntilSuperseded)).await.unwrap();
            }
            let forgotten = async {
                while inflight(&store).await > 0 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), forgotten).await.expect("the group must forget it");
            assert!(store.untrimmed.lock().is_empty());
            let _ = store.shutdown().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_while_groups_forget_is_forgotten_too() {
        let machine = Machine::new(1);
        let store = machine.must_open();
        let mut number = 0;
        while store.queues.sealed.list().len() < 3 {
            send(&store, 0, &format!("m{number}-{}", "x".repeat(3000))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            number += 1;
        }
        for group in [GROUP, READER] {
            while !store.pop(PopRequest { group, ..pop_request(32) }).await.unwrap().messages.is_empty() {}
        }
        let remove_oldest = || {
            let oldest = store.queues.sealed.list()[0].clone();
            let (base, end, newest) = (oldest.base, oldest.end, oldest.newest().unwrap());
            super::remove_segment(&store, &super::SealedSegment { base, end, bytes: end.0 - base.0, newest }).unwrap();
        };
        let [first, second] = [GROUP, READER].map(|group| store.progress.get(group, TOPIC).unwrap());
        remove_oldest();
        let held_up = second.lock();
        std::thread::scope(|scope| {
            let trimming = scope.spawn(|| super::trim_all(&store));
            while first.lock().inflight() == number {
                std::thread::yield_now();
            }
            // The first group has forgotten what it had to, and it is the other one's turn.
            remove_oldest();
            drop(held_up);
            trimming.join().unwrap().unwrap();
        });
        let reader = store.reader(TOPIC).unwrap();
        for shard in [first, second] {
            let left = shard.lock().plan_trim(&reader);
            assert_eq!(left, None, "group {} holds what is gone", shard.group);
        }
        let _ = store.shutdown().await;
    }
}
