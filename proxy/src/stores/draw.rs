//! Receiving: from the store groups of a topic in turn, and when none has anything, waiting for the first that does.
//!
//! Nothing is lost on the way: a pop whose future is dropped gives its messages back, and messages of a second winner are
//! handed back. A store group that is down is left out and looked at again while others are waited for; only when
//! all are down is the answer an error.

use super::paths::Placed;
use super::{Backoff, Deadline, StoreGroups, passes};
use crate::handback::Handback;
use crate::translate::Refusal;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use gantry_proto::contract::{PopError, PopRequest, PoppedMessage, StoreError};
use gantry_proto::model::limits::RECEIVE_BYTES_MAX;
use gantry_proto::model::{ClientHash, FilterExpression, GroupId, MetadataVersion, ReceiptHandle, StoreGroupId, Topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a group may take to say whether it has messages, before the others are asked.
const TRY_PATIENCE: Duration = Duration::from_millis(500);
/// How long after the wait's end an answer may still come: what was found is written down first.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting receive looks whether its topic has grown onto other groups.
const GROWTH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a consumer asks for.
#[derive(Debug)]
pub(crate) struct Draw {
    /// For which group.
    pub(crate) group: GroupId,
    /// From which topic, as it was when the call began.
    pub(crate) topic: Arc<Topic>,
    /// Which of its messages.
    pub(crate) filter: FilterExpression,
    /// At most this many.
    pub(crate) batch_max: u32,
    /// How long they stay hidden.
    pub(crate) invisible: Duration,
    /// Whose life extends the leases.
    pub(crate) owner: Option<ClientHash>,
    /// How long to wait when there is nothing.
    pub(crate) wait: Duration,
}

impl Draw {
    fn request(&self, wait: Duration) -> PopRequest {
        PopRequest {
            group: self.group,
            topic: self.topic.id,
            filter: self.filter.clone(),
            batch_max: self.batch_max,
            bytes_max: RECEIVE_BYTES_MAX,
            invisible: self.invisible,
            owner: self.owner,
            wait,
        }
    }
}

type Popped = Result<Vec<PoppedMessage>, PopError>;

impl StoreGroups {
    /// Messages for a consumer. Empty: the wait ended without any. Cancel-safe: no message is lost.
    pub(crate) async fn draw(&self, draw: &Draw, handback: &Handback) -> Result<Vec<PoppedMessage>, Refusal> {
        let paths = self.paths(&draw.topic);
        let mut placed = paths.placed(&draw.topic, &self.view);
        let mut now = Instant::now();
        let until = now + draw.wait;
        loop {
            let grown = tokio::select! {
                biased;
                popped = self.draw_from(&placed, draw, now, until, handback) => return Ok(popped?),
                grown = self.growth(draw, &placed) => grown,
            };
            let topic = grown.ok_or_else(|| Refusal::topic_not_found(draw.topic.name.as_str()))?;
            placed = paths.placed(&topic, &self.view);
            now = Instant::now();
        }
    }

    /// Waits until other groups have queues of the topic. `None`: it is gone.
    async fn growth(&self, draw: &Draw, placed: &Placed) -> Option<Arc<Topic>> {
        let paths = self.paths(&draw.topic);
        loop {
            tokio::time::sleep(GROWTH_CHECK_INTERVAL).await;
            let topic = self.view.topic_by_id(draw.topic.id)?;
            if !paths.placed(&topic, &self.view).same_groups(placed) {
                return Some(topic);
            }
        }
    }

    async fn draw_from(
        &self,
        placed: &Placed,
        draw: &Draw,
        now: Instant,
        until: Instant,
        handback: &Handback,
    ) -> Popped {
        match &placed.groups[..] {
            [only] => self.wait_at(only.id, draw, now, until).await,
            [] => {
                tokio::time::sleep_until(until).await;
                Err(StoreError::NoLeader(format!("no store group has queues of topic {}", draw.topic.name)).into())
            }
            several => {
                let groups = several.iter().map(|group| group.id).collect();
                self.draw_in_turn(groups, draw, now, until, handback).await
            }
        }
    }

    /// Each group in turn, without waiting; then all of them at once.
    async fn draw_in_turn(
        &self,
        groups: Vec<StoreGroupId>,
        draw: &Draw,
        now: Instant,
        until: Instant,
        handback: &Handback,
    ) -> Popped {
        let rotation = self.rotation(draw.group, draw.topic.id);
        let groups = rotation.lock().begin(groups);
        let mut outcome = Outcome::default();
        for group in &groups {
            rotation.lock().drawn(*group);
            let popped = match self.leader_by_id(*group) {
                Ok(store) => tokio::time::timeout(TRY_PATIENCE, store.pop(draw.request(Duration::ZERO)))
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
        self.wait_at_all(groups, draw, until, handback).await
    }

    async fn wait_at_all(&self, groups: Vec<StoreGroupId>, draw: &Draw, until: Instant, handback: &Handback) -> Popped {
        let now = Instant::now();
        let wait = async |group| (group, self.wait_at(group, draw, now, until).await);
        let mut waits: FuturesUnordered<_> = groups.into_iter().map(wait).collect();
        let mut outcome = Outcome::default();
        while let Some((group, popped)) = waits.next().await {
            let Some(messages) = outcome.take(popped) else { continue };
            self.rotation(draw.group, draw.topic.id).lock().drawn(group);
            // The others give back what they took when they are dropped; one that is through already has to be told.
            while let Some(Some((_, also))) = waits.next().now_or_never() {
                handback.unsent(draw.group, draw.topic.id, also.map(handles_of).unwrap_or_default());
            }
            return Ok(messages);
        }
        outcome.into_answer()
    }

    /// Waits for messages of one group, and for the group if it is down.
    async fn wait_at(&self, group: StoreGroupId, draw: &Draw, mut now: Instant, until: Instant) -> Popped {
        let mut backoff = Backoff::default();
        loop {
            let seen = self.view.version();
            let popped = match self.leader_by_id(group) {
                Ok(store) => {
                    let request = draw.request(until.saturating_duration_since(now));
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
                Err(error) if !may_pass(error) => return popped,
                Err(error) => tracing::debug!(store_group = %group, %error, "no messages can be had from it now"),
            }
            // It answered before its time, or it is down: a moment later it may do better.
            let changed = self.view.reached(MetadataVersion(seen.0 + 1));
            let go_on = tokio::select! {
                biased;
                go_on = backoff.wait(Deadline::at(until)) => go_on,
                () = changed, if popped.is_err() => Instant::now() < until,
            };
            if !go_on {
                tokio::time::sleep_until(until).await;
                return popped;
            }
            now = Instant::now();
        }
    }
}

/// What groups answered, apart from messages.
#[derive(Default)]
struct Outcome {
    /// One of them looked and has nothing.
    nothing: bool,
    error: Option<PopError>,
}

impl Outcome {
    /// The messages, if there are any.
    fn take(&mut self, popped: Popped) -> Option<Vec<PoppedMessage>> {
        match popped {
            Ok(messages) if !messages.is_empty() => return Some(messages),
            Ok(_) => self.nothing = true,
            // What the consumer itself can change is worth more than what passes.
            Err(error) if self.error.as_ref().is_none_or(may_pass) => self.error = Some(error),
            Err(_) => {}
        }
        None
    }

    /// Nothing, if a single group is up; else why nobody could be asked.
    fn into_answer(self) -> Popped {
        match self.error {
            Some(error) if !self.nothing => Err(error),
            _ => Ok(Vec::new()),
        }
    }
}

/// Whether the same group may well have an answer in a moment. A store that does not know the topic or the group lags
/// behind the metadata seen here.
fn may_pass(error: &PopError) -> bool {
    match error {
        PopError::UnknownTopic(_) | PopError::UnknownGroup(_) => true,
        PopError::InflightFull { .. } | PopError::PollingFull { .. } => false,
        PopError::Store(error) => passes(error),
    }
}

fn handles_of(messages: Vec<PoppedMessage>) -> Vec<ReceiptHandle> {
    messages.into_iter().map(|popped| popped.handle).collect()
}
