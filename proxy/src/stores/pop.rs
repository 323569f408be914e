//! Receiving: from the store groups of a topic in turn, and when none has messages, from the first that gets some.
//!
//! No message is lost on the way: a pop whose future is dropped gives its messages back, and when two store groups answer
//! at once, the messages of the second are handed back. A store group that is down is left out and asked again while the
//! others are waited for; only when all are down is the answer an error.
//!
//! A consumer group that holds as many messages as it may gets none from that store group until it acknowledges some: it waits
//! for room as it would wait for messages, and is told at the end of the wait.

use super::rotation::Rotation;
use super::route::Route;
use super::{Backoff, Deadline, StoreGroups, is_transient};
use crate::handback::Handback;
use crate::translate::Refusal;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use gantry_proto::contract::{PopError, PopRequest, PoppedMessage, StoreError};
use gantry_proto::model::limits::RECEIVE_BYTES_MAX;
use gantry_proto::model::{ClientHash, FilterExpression, GroupId, MetadataVersion, ReceiptHandle, StoreGroupId, Topic};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a store group may take to say whether it has messages, before the others are asked.
const TRY_PATIENCE: Duration = Duration::from_millis(500);
/// How long after the wait's end an answer may still come: the store writes down which messages it found before it answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting receive looks whether other store groups have got queues of its topic.
const GROWTH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a consumer asks for.
#[derive(Debug)]
pub(crate) struct PopAttempt {
    /// The consumer group.
    pub(crate) group: GroupId,
    /// The topic as it was when the call began.
    pub(crate) topic: Arc<Topic>,
    /// Which of its messages.
    pub(crate) filter: FilterExpression,
    pub(crate) batch_max: u32,
    /// How long they stay invisible to other consumers.
    pub(crate) invisible: Duration,
    /// The client whose life extends the leases.
    pub(crate) owner: Option<ClientHash>,
    /// Until when to wait when there is nothing.
    pub(crate) until: Instant,
}

impl PopAttempt {
    fn request(&self, wait: Duration) -> PopRequest {
        PopRequest {
            group: self.group,
            topic: self.topic.id,
            filter: self.filter.clone(),
            batch_max: self.batch_max,
            bytes_max: RECEIVE_BYTES_MAX,
            invisible: self.invisible,
            owner: self.owner,
            // What is lost on its way must not be hidden for as long as its client lives.
            once_arrived: self.owner.is_some(),
            wait,
        }
    }
}

type Popped = Result<Vec<PoppedMessage>, PopError>;

impl StoreGroups {
    /// Messages for a consumer. Empty: the wait ended without any. Cancel-safe: no message is lost.
    pub(crate) async fn pop(&self, attempt: &PopAttempt, handback: &Handback) -> Result<Vec<PoppedMessage>, Refusal> {
        let mut route = self.route(&attempt.topic);
        let until = attempt.until;
        loop {
            let grown = tokio::select! {
                biased;
                popped = self.pop_along(&route, attempt, Instant::now(), until, handback) => return Ok(popped?),
                grown = self.growth(attempt, &route) => grown,
            };
            let topic = grown.ok_or_else(|| Refusal::topic_not_found(attempt.topic.name.as_str()))?;
            route = self.route(&topic);
        }
    }

    /// Waits until other store groups have queues of the topic. `None`: the topic is gone.
    async fn growth(&self, attempt: &PopAttempt, route: &Route) -> Option<Arc<Topic>> {
        loop {
            tokio::time::sleep(GROWTH_CHECK_INTERVAL).await;
            let topic = self.view.topic_by_id(attempt.topic.id)?;
            if !self.route(&topic).same_store_groups(route) {
                return Some(topic);
            }
        }
    }

    async fn pop_along(
        &self,
        route: &Route,
        attempt: &PopAttempt,
        now: Instant,
        until: Instant,
        handback: &Handback,
    ) -> Popped {
        match &route.store_groups[..] {
            [only] => self.pop_from(only.id, attempt, now, until).await,
            [] => {
                tokio::time::sleep_until(until).await;
                Err(StoreError::NoLeader(format!("no store group has queues of topic {}", attempt.topic.name)).into())
            }
            several => {
                let store_groups = several.iter().map(|store_group| store_group.id).collect();
                self.pop_in_turn(store_groups, attempt, now, until, handback).await
            }
        }
    }

    /// From each store group in turn, without waiting; then from all of them at once.
    async fn pop_in_turn(
        &self,
        store_groups: Vec<StoreGroupId>,
        attempt: &PopAttempt,
        now: Instant,
        until: Instant,
        handback: &Handback,
    ) -> Popped {
        let rotation = self.rotation(attempt);
        let store_groups = rotation.lock().begin(store_groups);
        let mut outcome = PopOutcome::default();
        for store_group in &store_groups {
            rotation.lock().asked(*store_group);
            let popped = match self.leader_by_id(*store_group) {
                Ok(store) => tokio::time::timeout(TRY_PATIENCE, store.pop(attempt.request(Duration::ZERO)))
                    .await
                    .unwrap_or_else(|_| Err(StoreError::Unreachable("no answer in time".to_owned()).into())),
                Err(error) => Err(error.into()),
            };
            if let Some(messages) = outcome.take(popped.map(|reply| reply.messages)) {
                return Ok(messages);
            }
        }
        if until <= now {
            return outcome.into_answer();
        }
        self.pop_from_first_with_messages(store_groups, attempt, until, handback).await
    }

    async fn pop_from_first_with_messages(
        &self,
        store_groups: Vec<StoreGroupId>,
        attempt: &PopAttempt,
        until: Instant,
        handback: &Handback,
    ) -> Popped {
        let now = Instant::now();
        let pop = async |store_group| (store_group, self.pop_from(store_group, attempt, now, until).await);
        let mut pops: FuturesUnordered<_> = store_groups.into_iter().map(pop).collect();
        let mut outcome = PopOutcome::default();
        while let Some((store_group, popped)) = pops.next().await {
            let Some(messages) = outcome.take(popped) else { continue };
            self.rotation(attempt).lock().asked(store_group);
            // Pops that are dropped give back what they took. One that is done already does not: it is handed back here.
            while let Some(Some((_, also))) = pops.next().now_or_never() {
                handback.unsent(attempt.group, attempt.topic.id, also.map(handles_of).unwrap_or_default());
            }
            return Ok(messages);
        }
        outcome.into_answer()
    }

    /// From one store group, waiting for its messages, and for the store group itself while it is down.
    async fn pop_from(
        &self,
        store_group: StoreGroupId,
        attempt: &PopAttempt,
        mut now: Instant,
        until: Instant,
    ) -> Popped {
        let mut backoff = Backoff::default();
        loop {
            let seen = self.view.version();
            let popped = match self.leader_by_id(store_group) {
                Ok(store) => {
                    let request = attempt.request(until.saturating_duration_since(now));
                    match tokio::time::timeout_at(until + ANSWER_PATIENCE, store.pop(request)).await {
                        Ok(reply) => reply.map(|reply| reply.messages),
                        Err(_) => Err(StoreError::Unreachable("no answer in time".to_owned()).into()),
                    }
                }
                Err(error) => Err(error.into()),
            };
            match &popped {
                Ok(messages) if !messages.is_empty() => return popped,
                Ok(_) => {}
                Err(error) if !is_worth_another_try(error) => return popped,
                Err(error) => tracing::debug!(%store_group, %error, "no messages can be had from it now"),
            }
            // It answered before the wait was over, or it is down: it is asked again a moment later.
            let changed = self.view.reached(MetadataVersion(seen.0 + 1));
            let there_is_time = tokio::select! {
                biased;
                there_is_time = backoff.wait(Deadline::at(until)) => there_is_time,
                () = changed, if popped.is_err() => Instant::now() < until,
            };
            if !there_is_time {
                tokio::time::sleep_until(until).await;
                return popped;
            }
            now = Instant::now();
        }
    }

    fn rotation(&self, attempt: &PopAttempt) -> Arc<Mutex<Rotation>> {
        self.rotations.lock().entry((attempt.group, attempt.topic.id)).or_default().clone()
    }
}

/// What store groups answered that gave no messages.
#[derive(Default)]
struct PopOutcome {
    /// At least one of them answered that it has none.
    nothing: bool,
    error: Option<PopError>,
}

impl PopOutcome {
    /// The messages, if there are any.
    fn take(&mut self, popped: Popped) -> Option<Vec<PoppedMessage>> {
        match popped {
            Ok(messages) if !messages.is_empty() => return Some(messages),
            Ok(_) => self.nothing = true,
            // An error that the consumer can do something about is told rather than one that may pass.
            Err(error) if self.error.as_ref().is_none_or(|before| weight(before) < weight(&error)) => {
                self.error = Some(error);
            }
            Err(_) => {}
        }
        None
    }

    /// No messages, if at least one store group is up; else why none could be asked. But that the group is full is always
    /// told.
    fn into_answer(self) -> Popped {
        match self.error {
            Some(error) if !self.nothing || matches!(error, PopError::InflightFull { .. }) => Err(error),
            _ => Ok(Vec::new()),
        }
    }
}

/// Whether the same store group may well have an answer in a moment. A store that does not know the topic or the consumer
/// group yet has older metadata than this proxy; a group that is full has room once it acknowledges something.
fn is_worth_another_try(error: &PopError) -> bool {
    match error {
        PopError::UnknownTopic(_) | PopError::UnknownGroup(_) | PopError::InflightFull { .. } => true,
        PopError::PollingFull { .. } => false,
        PopError::Store(error) => is_transient(error),
    }
}

/// Of two errors, the one with more of it is told.
fn weight(error: &PopError) -> u8 {
    match error {
        PopError::InflightFull { .. } => 2,
        error => u8::from(!is_worth_another_try(error)),
    }
}

fn handles_of(messages: Vec<PoppedMessage>) -> Vec<ReceiptHandle> {
    messages.into_iter().map(|popped| popped.handle).collect()
}
