//! Messages that groups had set aside as damaged and that are whole again, because a file was put back or the disk gives
//! them again: the groups get them.
//!
//! Maintenance calls it where the store leads. Must always hold: only what lies where damage was found to be gone comes back,
//! and once each time that it is found. When all groups have what is theirs, on disk, that is noted of the damage
//! ([`Standing::GivenBack`]); what is set aside in that part of the log for another reason after that stays so
//! (`what_is_set_aside_for_another_reason_is_not_given_back_for_ever`,
//! `a_power_failure_while_messages_are_given_back_loses_none`).

use crate::commit_log::damage::{DamagedRange, Standing};
use crate::delivery::DeliveryRecord;
use crate::progress::Shard;
use crate::store::Store;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, TopicId};
use std::sync::Arc;

/// Gives groups back what they had set aside and is whole again.
pub(crate) async fn give_back(store: &Arc<Store>) -> Result<(), StoreError> {
    let mut ranges = store.log.damage.ever_in(LogOffset(0), LogOffset(u64::MAX));
    ranges.retain(|range| matches!(range.standing, Standing::WholeAgain(_)));
    if ranges.is_empty() {
        return Ok(());
    }
    let stopped = |panicked| StoreError::WritesStopped(format!("giving back: {panicked}"));
    let giving = {
        let (store, ranges) = (store.clone(), ranges.clone());
        move || store.progress.each_set_aside(|shard, set_aside| store.give_back(shard, set_aside, &ranges))
    };
    store.env.run_blocking(giving).await.map_err(stopped)??;
    // Else they would stay set aside for ever, should the power fail now.
    store.log.confirmed(store.log.appended_to()).await?;
    let flushing = store.clone();
    store.env.run_blocking(move || flushing.log.flush()).await.map_err(stopped)??;
    store.log.damage.given_back(&ranges);
    Ok(())
}

impl Store {
    /// Gives a group back those of the messages that are whole again.
    fn give_back(
        &self,
        shard: &Shard,
        set_aside: Vec<(QueueId, QueueOffset)>,
        whole_again: &[DamagedRange],
    ) -> Result<(), StoreError> {
        let mut deliveries = Vec::new();
        for (queue, offset) in set_aside {
            if self.is_restored(shard.topic, queue, offset, whole_again)? {
                // Of its attempts none is known.
                deliveries.push((queue, offset, 0));
            }
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        let count = deliveries.len();
        let (dropped, cursors) = Default::default();
        // A delivery that has ended already.
        let visible_at = self.log.now();
        let change = DeliveryRecord::Delivered { visible_at, renewal: None, deliveries, dropped, cursors };
        let mut state = shard.lock();
        self.record(shard, &mut state, &change).map_err(StoreError::from)?;
        drop(state);
        shard.wake_all();
        tracing::info!(group = %shard.group, topic = %shard.topic, count, "a group gets messages that it had set aside and that are whole again");
        Ok(())
    }

    fn is_restored(
        &self,
        topic: TopicId,
        queue: QueueId,
        offset: QueueOffset,
        whole_again: &[DamagedRange],
    ) -> Result<bool, StoreError> {
        let Some(queue) = self.queues.get(topic).and_then(|topic| topic.queue(queue)) else { return Ok(false) };
        let mut found = Vec::with_capacity(1);
        queue.scan(offset, 1, &mut found)?;
        let Some(entry) = found.first().filter(|entry| entry.queue_offset == offset && !entry.is_damaged()) else {
            return Ok(false);
        };
        let end = entry.log_offset.plus(u64::from(entry.len));
        let was_damaged = whole_again.iter().any(|range| range.from < end && entry.log_offset < range.to);
        Ok(was_damaged && self.log.damage.touching(entry.log_offset, entry.len).is_none())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;
    use crate::commit_log::Flush;
    use crate::commit_log::damage::DamageCause;
    use crate::support::*;
    use gantry_proto::model::Timestamp;
    use std::time::Duration;

    fn set_aside(store: &Store, queue: QueueId, offset: QueueOffset) {
        let shard = store.progress.get(GROUP, TOPIC).unwrap();
        store.set_aside(&shard, &mut shard.lock(), vec![(queue, offset, "a test".into())]).unwrap();
    }

    /// A store whose group has set one message aside, in a part of the log that is whole again since.
    async fn with_a_restored_message(machine: &Machine) -> Arc<Store> {
        let store = machine.must_open();
        send(&store, 0, "m").await.unwrap();
        let popped = pop(&store, 1).await.unwrap().remove(0);
        set_aside(&store, popped.queue, popped.queue_offset);
        store.log.confirmed(store.log.appended_to()).await.unwrap();
        store.log.flush().unwrap();
        let now = Timestamp::from_millis(1);
        let range = DamagedRange::found(LogOffset(0), store.log.appended_to(), DamageCause::Changed, now);
        store.log.damage.note(range);
        store.log.damage.whole_again(&range, now);
        store
    }

    async fn get_back(store: &Store) -> Option<(QueueId, QueueOffset)> {
        for _ in 0..120 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if let Some(message) = pop(store, 1).await.ok()?.pop() {
                return Some((message.queue, message.queue_offset));
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_set_aside_for_another_reason_is_not_given_back_for_ever() {
        let machine = Machine::new(1);
        let mut store = with_a_restored_message(&machine).await;
        let (queue, offset) = get_back(&store).await.expect("it is whole again");
        // Long before it is looked at next, and so it is when that is due.
        tokio::time::sleep(Duration::from_secs(60)).await;
        set_aside(&store, queue, offset);
        for restarted in [false, true] {
            if restarted {
                store.shutdown().await.unwrap();
                drop(store);
                machine.files.crash(1);
                store = machine.must_open();
            }
            assert_eq!(get_back(&store).await, None, "restarted: {restarted}");
            assert_eq!(store.progress.get(GROUP, TOPIC).unwrap().lock().damaged(), 1);
        }
        let _ = store.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_power_failure_while_messages_are_given_back_loses_none() {
        let mut noted = [0, 0];
        for step in 0..40u64 {
            let machine = Machine::new(step).with_flush(if step % 2 == 0 { Flush::Sync } else { Flush::Async });
            let store = with_a_restored_message(&machine).await;
            store.log.damage.save().unwrap();
            machine.files.power_off_after(step / 2);
            let _ = give_back(&store).await;
            let _ = store.log.damage.save();
            let _ = store.shutdown().await;
            drop(store);
            machine.files.crash(step);
            machine.clock.advance(2 * INVISIBLE);
            let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
            let is_noted = store
                .log
                .damage
                .ever_in(LogOffset(0), LogOffset(1))
                .iter()
                .any(|range| matches!(range.standing, Standing::GivenBack(_)));
            noted[usize::from(is_noted)] += 1;
            let _ = store.shutdown().await;
            drop(store);
            machine.files.kill();
            let store = machine.must_open();
            assert!(get_back(&store).await.is_some(), "step {step}: it stays set aside");
            let _ = store.shutdown().await;
        }
        assert!(noted.iter().all(|count| *count > 2), "{noted:?}");
    }
}
