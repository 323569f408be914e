//! Dead letters: a message that a group gives up moves to the group's dead-letter topic. One record does both, so it is
//! in exactly one of the two places whatever happens.
//!
//! The message is read under no lock; whether it is still to be moved is looked at again afterwards.

use super::read::ReadMessage;
use super::{FinishedSomehow, HandleState, check_open};
use crate::apply::{self, Arrival};
use crate::commit_log::record::{Origin, RecordKind, dead_letter_record_len, write_message};
use crate::commit_log::tail::{NoRoom, Purpose};
use crate::delivery::{DeliveryRecord, DeliveryState};
use crate::progress::Shard;
use crate::queue_index::{IndexEntry, Indexed, Queue};
use crate::store::Store;
use gantry_proto::contract::{DeadLetterRequest, HandleError, StoreError};
use gantry_proto::model::{ConsumerGroup, GroupId, LogOffset, QueueId, QueueOffset, StoredMessage, Topic};
use std::sync::Arc;
use std::time::Duration;

/// Dead letters made in one go, so that a shard is not locked for long and few messages are in memory.
const BATCH_MAX: usize = 64;
/// When it is tried again what did not work.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A dead letter about to be written.
struct Letter {
    queue: QueueId,
    queue_offset: QueueOffset,
    message: StoredMessage,
    indexed: Indexed,
}

/// Who gives up what, and where it goes.
struct Names {
    group: Arc<ConsumerGroup>,
    topic: Arc<Topic>,
    target: Arc<Queue>,
}

/// What became of a message that was to be made a dead letter.
enum Prepared {
    Letter(Letter),
    Damaged(String),
    /// It cannot be read now.
    Failed(String),
    Gone,
}

impl Prepared {
    /// Room that its record needs.
    fn record_len(&self) -> usize {
        match self {
            Prepared::Letter(letter) => dead_letter_record_len(&letter.message),
            Prepared::Damaged(_) | Prepared::Failed(_) | Prepared::Gone => 0,
        }
    }
}

impl Store {
    pub async fn forward_to_dead_letter(&self, request: DeadLetterRequest) -> Result<(), HandleError> {
        let (shard, receipt) = self.open_handle(request.group, request.topic, &request.handle)?;
        let names = self.names(&shard)?;
        let stands = || self.standing(&shard.lock(), &receipt, self.log.now());
        let place = (receipt.queue, receipt.queue_offset);
        let prepared = match stands() {
            HandleState::Held => self.prepare_letters(&names, &[place]).await?.pop(),
            // The client says it again because it did not hear the answer.
            HandleState::Finished | HandleState::GivenUp | HandleState::FinishedSomehow(_) => {
                return Ok(self.log.settled().await?);
            }
            HandleState::Expired => return Err(HandleError::Expired),
        };
        let end = {
            let mut state = shard.lock();
            match (self.standing(&state, &receipt, self.log.now()), prepared) {
                (HandleState::Held, Some(Prepared::Letter(letter))) => {
                    Some(self.record_letter(&shard, &names, &mut state, &letter).map_err(StoreError::from)?)
                }
                (HandleState::Held, Some(Prepared::Damaged(why))) => {
                    self.set_aside(&shard, &mut state, vec![(place.0, place.1, why.clone())])
                        .map_err(StoreError::from)?;
                    return Err(StoreError::Unreadable(format!("making a dead letter: {why}")).into());
                }
                (HandleState::Held, Some(Prepared::Failed(why))) => {
                    return Err(StoreError::Unreadable(format!("making a dead letter: {why}")).into());
                }
                (HandleState::Held, Some(Prepared::Gone) | None) => return Err(HandleError::Expired),
                (HandleState::Finished | HandleState::GivenUp | HandleState::FinishedSomehow(_), _) => None,
                (HandleState::Expired, _) => return Err(HandleError::Expired),
            }
        };
        match end {
            Some(end) => Ok(self.log.acknowledged(end).await?),
            None => Ok(self.log.settled().await?),
        }
    }

    /// Moves every message whose last delivery has ended, as far as that is possible now. Nobody waits for the result: what
    /// is not confirmed when the store dies is moved again after it.
    pub(crate) async fn dead_letter_exhausted(&self, shard: &Arc<Shard>) {
        let result = self.try_dead_letter_exhausted(shard).await;
        let postponed = match &result {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(group = %shard.group, topic = %shard.topic, %error, "dead letters have to wait");
                Some(self.log.now().after(RETRY_AFTER))
            }
        };
        shard.lock().dead_lettered(postponed);
        // What stood behind them may be visible, too.
        shard.wake_one();
    }

    async fn try_dead_letter_exhausted(&self, shard: &Arc<Shard>) -> Result<(), StoreError> {
        let names = self.names(shard)?;
        let max_attempts = names.group.max_attempts;
        let Some(reader) = self.reader(shard.topic) else {
            return Ok(());
        };
        loop {
            let exhausted = shard.lock().exhausted(self.log.now(), max_attempts, BATCH_MAX, &reader);
            let prepared = self.prepare_letters(&names, &exhausted).await?;
            let largest = prepared.iter().map(Prepared::record_len).max().unwrap_or_default();
            let count = exhausted.len();
            match self.record_letters(shard, &names, exhausted, prepared) {
                Err(NoRoom::SegmentNotReady) => {
                    self.log.room_for(Purpose::Messages, largest).await.map_err(StoreError::from)?
                }
                Err(refused) => return Err(StoreError::from(refused)),
                Ok(()) if count < BATCH_MAX => return Ok(()),
                Ok(()) => {}
            }
        }
    }

    /// Records what became of exhausted messages. What has no room is exhausted still.
    fn record_letters(
        &self,
        shard: &Shard,
        names: &Names,
        exhausted: Vec<(QueueId, QueueOffset)>,
        prepared: Vec<Prepared>,
    ) -> Result<(), NoRoom> {
        let mut state = shard.lock();
        let now = self.log.now();
        let (mut damaged, mut gone, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for ((queue, offset), prepared) in exhausted.into_iter().zip(prepared) {
            // A late renewal may have come while it was read.
            if !state.is_exhausted(queue, offset, now, names.group.max_attempts) {
                continue;
            }
            match prepared {
                Prepared::Letter(letter) => {
                    self.record_letter(shard, names, &mut state, &letter)?;
                }
                Prepared::Damaged(why) => damaged.push((queue, offset, why)),
                Prepared::Gone => gone.push((queue, offset)),
                Prepared::Failed(why) => {
                    tracing::error!(%queue, %offset, why, "a message cannot be made a dead letter now; it is tried again");
                    failed.push((queue, offset));
                }
            }
        }
        if !failed.is_empty() {
            // So that it does not keep the others from their turn.
            let visible_at = now.after(RETRY_AFTER);
            let change = DeliveryRecord::VisibilityChanged { visible_at, counted: true, entries: failed };
            self.record(shard, &mut state, &change)?;
        }
        if !damaged.is_empty() {
            self.set_aside(shard, &mut state, damaged)?;
        }
        if !gone.is_empty() {
            self.record(shard, &mut state, &DeliveryRecord::Dropped { entries: gone })?;
        }
        Ok(())
    }

    /// Reads messages of a topic and makes dead letters of them, in order.
    async fn prepare_letters(
        &self,
        names: &Names,
        places: &[(QueueId, QueueOffset)],
    ) -> Result<Vec<Prepared>, StoreError> {
        let mut entries: Vec<(QueueId, IndexEntry)> = Vec::with_capacity(places.len());
        let mut is_there = Vec::with_capacity(places.len());
        for (id, offset) in places {
            let mut found = Vec::with_capacity(1);
            if let Some(queue) = self.queues.get(names.topic.id).and_then(|queues| queues.queue(*id)) {
                queue.scan(*offset, 1, &mut found)?;
            }
            is_there.push(!found.is_empty());
            entries.extend(found.into_iter().map(|entry| (*id, entry)));
        }
        let mut found = self.read_messages(names.topic.id, entries.clone()).await?.into_iter().zip(entries);
        let mut prepared = Vec::with_capacity(places.len());
        for is_there in is_there {
            let found = if is_there { found.next() } else { None };
            prepared.push(match found {
                None | Some((ReadMessage::Gone, _)) => Prepared::Gone,
                Some((ReadMessage::Damaged(why), _)) => Prepared::Damaged(why),
                Some((ReadMessage::Failed(why), _)) => Prepared::Failed(why),
                Some((ReadMessage::Message(record, span), (queue, entry))) => {
                    let letter = span.message(&record.bytes).into_dead_letter(names.topic.name.as_str());
                    letter
                        .and_then(|message| {
                            let indexed = Indexed::of(names.target.topic, &message.parse_head()?);
                            Ok(Prepared::Letter(Letter { queue, queue_offset: entry.queue_offset, message, indexed }))
                        })
                        .unwrap_or_else(|error| Prepared::Damaged(format!("no dead letter can be made of it: {error}")))
                }
            });
        }
        Ok(prepared)
    }

    /// The queue of this store group in every dead-letter topic: see [`Placement::EveryGroup`].
    ///
    /// [`Placement::EveryGroup`]: gantry_proto::model::Placement::EveryGroup
    fn dead_letter_queue(&self) -> Result<QueueId, StoreError> {
        Ok(QueueId(self.home()?.0 - 1))
    }

    /// Which of these messages of a group may be dead letters: reads what it can find out on a worker, under no lock. All, if
    /// that fails.
    pub(crate) async fn may_be_given_up(&self, group: GroupId, messages: Vec<FinishedSomehow>) -> Vec<bool> {
        // Then it is among the group's dead letters, if there are any of that time.
        let group = self.view.group_by_id(group);
        let letters = group.and_then(|group| self.queues.get(group.dead_letter_topic));
        let letters = letters.zip(self.dead_letter_queue().ok()).and_then(|(topic, queue)| topic.queue(queue));
        let count = messages.len();
        let Some(letters) = letters.filter(|_| count > 0) else { return vec![false; count] };
        let may_be = move |message: &FinishedSomehow| {
            let first = letters.first_behind(message.lease);
            first.map_or(true, |first| first.is_some_and(|at| at < message.unknown_before))
        };
        let looking = self.env.run_blocking(move || messages.iter().map(may_be).collect());
        looking.await.unwrap_or_else(|_| vec![true; count])
    }

    fn names(&self, shard: &Shard) -> Result<Names, StoreError> {
        let unknown = |what: String| StoreError::Busy(format!("{what} is not known to the store"));
        let group = self.view.group_by_id(shard.group);
        let topic = self.view.topic_by_id(shard.topic);
        let group = group.ok_or_else(|| unknown(format!("consumer group {}", shard.group)))?;
        let topic = topic.ok_or_else(|| unknown(format!("topic {}", shard.topic)))?;
        let target = self
            .queue(group.dead_letter_topic, self.dead_letter_queue()?)
            .map_err(|error| StoreError::Busy(format!("making a dead letter: {error}")))?;
        Ok(Names { group, topic, target })
    }

    /// Moves the message: one record puts it into the dead-letter queue and finishes it for the group.
    fn record_letter(
        &self,
        shard: &Shard,
        Names { group, topic, target }: &Names,
        state: &mut DeliveryState,
        letter: &Letter,
    ) -> Result<LogOffset, NoRoom> {
        check_open(shard)?;
        let Letter { queue, queue_offset, message, indexed } = letter;
        let origin = Origin { group: shard.group, topic: shard.topic, queue: *queue, queue_offset: *queue_offset };
        let _fail_on_panic = self.log.fail_on_panic();
        let mut appender = self.log.begin();
        appender.reserve(Purpose::Messages, dead_letter_record_len(message))?;
        shard.will_change();
        let store_time = appender.store_time();
        let place = (target.topic, target.id, target.next());
        let (log_offset, len) = appender.push(RecordKind::DeadLetter, place, |out| {
            origin.write(out);
            write_message(out, message);
        });
        let Indexed { tag_hash, message_group_hash, hashes } = indexed;
        let (tag_hash, message_group_hash) = (*tag_hash, *message_group_hash);
        let entry = IndexEntry { queue_offset: place.2, log_offset, len, tag_hash, message_group_hash, store_time };
        let arrival = Arrival { entry, segment: appender.segment_base(), hashes, remember: None };
        apply::message(&self.queues, target, None, &arrival);
        appender.arrival(target, place.2.next());
        let end = appender.end();
        drop(appender);
        apply::given_up(state, &mut self.given_up.lock(), &origin, log_offset);
        let (group, topic) = (group.name.to_string(), topic.name.to_string());
        metrics::counter!("rocketmq_send_to_dlq_messages_total", "consumer_group" => group, "topic" => topic)
            .increment(1);
        Ok(end)
    }
}
