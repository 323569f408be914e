//! Damaged parts of the log that an operator gave up (`gantry repair record`): consumer groups go on behind what lay there.
//!
//! A receive that comes to such a message takes it for gone. What groups had set aside before is finished here, by a record
//! of the group's progress. A message whose record nobody can find any more counts as given up when every damaged part is
//! that it can have lain in: those between its neighbours in the queue.

use crate::commit_log::damage::DamagedRange;
use crate::delivery::DeliveryRecord;
use crate::progress::Shard;
use crate::queue_index::{IndexEntry, Queue};
use crate::store::Store;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{LogOffset, QueueId, QueueOffset};
use std::ops::Range;
use std::sync::Arc;

/// Entries that are read at a time.
const SCAN_MAX: usize = 256;

impl Store {
    /// Lets groups pass what they had set aside and an operator gave up since. Blocks.
    pub(crate) fn pass_given_up(&self) -> Result<(), StoreError> {
        if !self.log.damage.list().iter().any(DamagedRange::is_given_up) {
            return Ok(());
        }
        // All of them: in front of what was given up there may be any number that was not.
        self.progress.each_set_aside(|shard, set_aside| self.pass(shard, set_aside))
    }

    /// Lets a group pass those of the messages that were given up.
    fn pass(&self, shard: &Shard, set_aside: Vec<(QueueId, QueueOffset)>) -> Result<(), StoreError> {
        let entries = self.given_up_among(shard, set_aside)?;
        if entries.is_empty() {
            return Ok(());
        }
        let count = entries.len();
        let mut state = shard.lock();
        self.record(shard, &mut state, &DeliveryRecord::Dropped { entries }).map_err(StoreError::from)?;
        tracing::info!(group = %shard.group, topic = %shard.topic, count, "a group passes damaged messages that an operator gave up");
        Ok(())
    }

    fn given_up_among(
        &self,
        shard: &Shard,
        messages: Vec<(QueueId, QueueOffset)>,
    ) -> Result<Vec<(QueueId, QueueOffset)>, StoreError> {
        let mut given_up = Vec::new();
        // What was found out of the lost messages in front: of their queue, before that offset.
        let mut last: Option<(QueueId, Range<QueueOffset>, bool)> = None;
        for (id, offset) in messages {
            let known = last.as_ref().filter(|(queue, offsets, _)| *queue == id && offsets.contains(&offset));
            let is_given_up = match known {
                Some((_, _, is_given_up)) => *is_given_up,
                None => {
                    let Some(queue) = self.queues.get(shard.topic).and_then(|topic| topic.queue(id)) else { continue };
                    let (offsets, places) = self.where_it_was(&queue, offset)?;
                    let damage = self.log.damage.ever_in(places.start, places.end);
                    let mut damage = damage.iter().filter(|range| !range.is_whole_again()).peekable();
                    let is_given_up = damage.peek().is_some() && damage.all(DamagedRange::is_given_up);
                    last = Some((id, offsets, is_given_up));
                    is_given_up
                }
            };
            if is_given_up {
                given_up.push((id, offset));
            }
        }
        Ok(given_up)
    }

    /// Where in the log the message at `offset` lies, or can have lain; and for which offsets that is the answer, too.
    fn where_it_was(
        &self,
        queue: &Arc<Queue>,
        offset: QueueOffset,
    ) -> Result<(Range<QueueOffset>, Range<LogOffset>), StoreError> {
        let whole = |entry: &&IndexEntry| !entry.is_damaged();
        let (min, end) = queue.range();
        let mut found = Vec::new();
        let mut from = offset;
        // The next one that is there.
        let next = loop {
            found.clear();
            queue.scan(from, SCAN_MAX, &mut found)?;
            if let Some(next) = found.iter().find(whole) {
                break Some(*next);
            }
            let Some(last) = found.last() else { break None };
            from = last.queue_offset.next();
        };
        if let Some(entry) = next.filter(|next| next.queue_offset == offset) {
            let end = entry.log_offset.plus(u64::from(entry.len));
            return Ok((offset..offset.next(), entry.log_offset..end));
        }
        // The last one before it that is there.
        let mut step = 1;
        let before = loop {
            let from = QueueOffset(offset.0.saturating_sub(step).max(min.0));
            found.clear();
            while let Some(at) = found.last().map_or(Some(from), |last: &IndexEntry| Some(last.queue_offset.next()))
                && at < offset
            {
                let had = found.len();
                queue.scan(at, (offset.0 - at.0) as usize, &mut found)?;
                if found.len() == had {
                    break;
                }
            }
            if let Some(before) = found.iter().rev().find(whole) {
                break Some(*before);
            }
            if from <= min {
                break None;
            }
            step *= 4;
        };
        let log_from = before.map_or(LogOffset(0), |before| before.log_offset.plus(u64::from(before.len)));
        let log_to = next.map_or(LogOffset(u64::MAX), |next| next.log_offset);
        let offsets =
            before.map_or(min, |before| before.queue_offset.next())..next.map_or(end, |next| next.queue_offset);
        Ok((offsets, log_from..log_to))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;
    use crate::commit_log::damage::{DamageCause, Standing};
    use crate::progress::SET_ASIDE_MAX;
    use crate::support::*;
    use gantry_proto::contract::AppendRequest;
    use gantry_proto::model::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_is_passed_however_much_in_front_of_it_was_not() {
        let machine = Machine::new(1);
        let store = machine.must_open();
        for from in (0..SET_ASIDE_MAX).step_by(32) {
            let messages = (from..from + 32).map(|number| message(&format!("m{number}"), None)).collect();
            store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await.unwrap();
        }
        let last = send(&store, 1, "last").await.unwrap().log_offset;
        let mut left = SET_ASIDE_MAX + 1;
        while left > 0 {
            let popped = pop(&store, 32).await.unwrap();
            left -= popped.len();
            let shard = store.progress.get(GROUP, TOPIC).unwrap();
            let damaged = popped.iter().map(|message| (message.queue, message.queue_offset, String::new())).collect();
            store.set_aside(&shard, &mut shard.lock(), damaged).unwrap();
        }
        let now = Timestamp::from_millis(1);
        let open = DamagedRange::found(LogOffset(0), last, DamageCause::Changed, now);
        let given_up = DamagedRange::found(last, store.log.appended_to(), DamageCause::Changed, now);
        store.log.damage.note(open);
        store.log.damage.note(DamagedRange { standing: Standing::GivenUp(now), ..given_up });
        store.pass_given_up().unwrap();
        let shard = store.progress.get(GROUP, TOPIC).unwrap();
        let damaged = shard.lock().damaged();
        assert_eq!(damaged, SET_ASIDE_MAX as u64, "only the last one was given up");
        let _ = store.shutdown().await;
    }
}
