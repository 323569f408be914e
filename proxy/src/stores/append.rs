//! Sending: which queue takes the messages, and what to do when its store does not take them.
//!
//! After an error that says that nothing happened, another store group is tried, each at most once while it refuses. After
//! an error that leaves it open whether the messages were stored, only the same store group is asked again: it knows by the
//! messages' ids what it stored. That holds across calls, too: when a producer was told that the outcome is unknown and
//! sends a message again, the same store group is asked.

use super::route::{Route, RoutedQueue};
use super::{Backoff, Deadline, StoreGroups, no_leader};
use crate::translate::Refusal;
use gantry_proto::contract::{AppendError, AppendReply, AppendRequest, StoreError, StoreService};
use gantry_proto::model::{QueueId, StoreGroup, StoreGroupId, StoredMessage, Topic};
use gantry_proto::wire::v2::Code;
use smallvec::SmallVec;
use std::sync::Arc;

/// Messages that are sent together, to one queue.
pub(crate) struct SendBatch {
    /// The topic as it was when the call began.
    pub(crate) topic: Arc<Topic>,
    /// The hash of the message group that all of them share: only its queue takes them.
    pub(crate) message_group_hash: Option<u64>,
    /// Hash of the first message's id. Chooses the queue that is tried first, so that a producer's retry begins with the
    /// queue of the first attempt, whichever proxy it comes to.
    pub(crate) id_hash: u64,
    /// At least one. Cloned for each attempt; the clones share their bytes.
    pub(crate) messages: Vec<StoredMessage>,
    /// When the client must be answered.
    pub(crate) deadline: Deadline,
}

/// What an error means for the messages.
enum AppendFailure {
    /// Nothing happened. This store group would refuse them again, another one may take them.
    RefusedHere,
    /// Nothing happened. A moment later this store group may take them.
    NotNow,
    /// They may have been stored.
    Unknown,
    /// No store group will take them: the client is told.
    Final,
}

/// The last error of each store group that was asked.
#[derive(Default)]
struct Refusals(SmallVec<[(Arc<StoreGroup>, AppendError); 2]>);

impl StoreGroups {
    /// Appends the messages to a queue that takes them.
    pub(crate) async fn append(&self, batch: SendBatch) -> Result<AppendReply, Refusal> {
        let mut route = self.route(&batch.topic);
        if let Some(routed) = self.queue_of_unknown_outcome(&route, &batch) {
            let not_asked_yet = no_leader(&routed.store_group).into();
            return self.append_again(routed, &batch, not_asked_yet).await;
        }
        let mut refusals = Refusals::default();
        // Store groups asked since the last pause, and those that refused for good.
        let (mut asked, mut refused) = (SmallVec::<[StoreGroupId; 4]>::new(), SmallVec::<[StoreGroupId; 4]>::new());
        let mut backoff = Backoff::default();
        loop {
            while let Some((routed, store)) = self.choose(&route, &batch, |id| asked.contains(&id)) {
                let store_group = &routed.store_group;
                let error = match self.append_to(&*store, routed.queue, &batch).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => error,
                };
                if is_about_the_store(&error) {
                    self.suspects.add(store_group.id);
                }
                match failure_of(&error) {
                    AppendFailure::RefusedHere => refused.push(store_group.id),
                    AppendFailure::NotNow => {}
                    AppendFailure::Unknown => {
                        tracing::debug!(store_group = %store_group.name, %error, "messages may be stored, asking again");
                        return self.append_again(routed, &batch, error).await;
                    }
                    AppendFailure::Final => return Err(error.into()),
                }
                asked.push(store_group.id);
                refusals.note(store_group, error);
            }
            let candidates = candidates(&route, &batch);
            let all_refused =
                !candidates.is_empty() && candidates.iter().all(|routed| refused.contains(&routed.store_group.id));
            if all_refused || !backoff.wait(batch.deadline).await {
                return Err(refusals.into_refusal(&batch.topic, candidates));
            }
            // The metadata may have changed during the pause, and with them the queues.
            let topic = self.view.topic_by_id(batch.topic.id);
            let topic = topic.ok_or_else(|| Refusal::topic_not_found(batch.topic.name.as_str()))?;
            route = self.route(&topic);
            asked.clone_from(&refused);
        }
    }

    /// The next queue whose store group is not `excluded` and has a leader that answers, and that leader.
    fn choose<'a>(
        &self,
        route: &'a Route,
        batch: &SendBatch,
        excluded: impl Fn(StoreGroupId) -> bool,
    ) -> Option<(&'a RoutedQueue, Arc<dyn StoreService>)> {
        let with_leader = |routed: &'a RoutedQueue| {
            if excluded(routed.store_group.id) {
                return None;
            }
            Some((routed, self.stores.leader_of(&routed.store_group)?))
        };
        if let Some(hash) = batch.message_group_hash {
            return with_leader(route.message_group_queue(hash)?);
        }
        let from_first = || {
            let first = batch.id_hash % route.writable.len().max(1) as u64;
            let (before, after) = route.writable.split_at(first as usize);
            after.iter().chain(before)
        };
        let mut trusted = from_first().filter(|routed| !self.suspects.contains(routed.store_group.id));
        trusted.find_map(with_leader).or_else(|| from_first().find_map(with_leader))
    }

    /// The queue that may have the messages already: an earlier call was answered that the outcome is unknown.
    fn queue_of_unknown_outcome<'a>(&self, route: &'a Route, batch: &SendBatch) -> Option<&'a RoutedQueue> {
        let asked = self.unknown_outcomes.get(batch.topic.id, batch.id_hash)?;
        candidates(route, batch).into_iter().find(|routed| routed.store_group.id == asked)
    }

    /// One attempt, bounded by the deadline: a store that hangs may have stored the messages.
    async fn append_to(
        &self,
        store: &dyn StoreService,
        queue: QueueId,
        batch: &SendBatch,
    ) -> Result<AppendReply, AppendError> {
        let request = AppendRequest { topic: batch.topic.id, queue, messages: batch.messages.clone() };
        match tokio::time::timeout_at(batch.deadline.instant(), store.append(request)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unreachable("no answer in time".to_owned()).into()),
        }
    }

    /// The messages may be in this queue: only its store group can tell, and store them if they are not.
    async fn append_again(
        &self,
        RoutedQueue { queue, store_group, .. }: &RoutedQueue,
        batch: &SendBatch,
        mut error: AppendError,
    ) -> Result<AppendReply, Refusal> {
        let mut backoff = Backoff::default();
        while backoff.wait(batch.deadline).await {
            let Ok(store) = self.leader_by_id(store_group.id) else { continue };
            error = match self.append_to(&*store, *queue, batch).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match (&error, failure_of(&error)) {
                // The store would answer with success if it had them: it has not, and never takes them.
                (AppendError::TooLarge { .. } | AppendError::IdReused { .. }, _) => return Err(error.into()),
                // Retrying within this call cannot change the answer.
                (_, AppendFailure::Final | AppendFailure::RefusedHere) => break,
                (_, AppendFailure::NotNow | AppendFailure::Unknown) => {}
            }
        }
        self.unknown_outcomes.add(batch.topic.id, batch.id_hash, store_group.id);
        Err(Refusal::new(
            Code::ProxyTimeout,
            format!(
                "it is not known whether the messages were stored: store group {}: {}",
                store_group.name,
                Refusal::from(error).message
            ),
        ))
    }
}

/// The queues that may take the messages.
fn candidates<'a>(route: &'a Route, batch: &SendBatch) -> Vec<&'a RoutedQueue> {
    match batch.message_group_hash {
        Some(hash) => route.message_group_queue(hash).into_iter().collect(),
        None => route.writable.iter().collect(),
    }
}

fn failure_of(error: &AppendError) -> AppendFailure {
    match error {
        AppendError::TooLarge { .. } | AppendError::IdReused { .. } => AppendFailure::Final,
        // The store lags behind the metadata seen here, or is ahead of them.
        AppendError::UnknownQueue(_) | AppendError::Draining => AppendFailure::NotNow,
        AppendError::Store(error) => match error {
            // Some of these last until an operator looks after the store.
            StoreError::Busy(_)
            | StoreError::DiskFull(_)
            | StoreError::WritesStopped(_)
            | StoreError::Unsupported(_) => AppendFailure::RefusedHere,
            StoreError::ShuttingDown | StoreError::NoLeader(_) | StoreError::NotLeader(_) => AppendFailure::NotNow,
            StoreError::Interrupted(_) | StoreError::Unreachable(_) => AppendFailure::Unknown,
            // The store cannot read whether it has the messages.
            StoreError::Unreadable(_) => AppendFailure::Final,
        },
    }
}

/// Whether other messages would meet the same error for a while: it is about the store, not about these messages.
fn is_about_the_store(error: &AppendError) -> bool {
    matches!(error, AppendError::Store(error) if !matches!(error, StoreError::Busy(_)))
}

impl Refusals {
    fn note(&mut self, store_group: &Arc<StoreGroup>, error: AppendError) {
        self.0.retain(|(of, _)| of.id != store_group.id);
        self.0.push((store_group.clone(), error));
    }

    /// Nobody takes the messages, and each store group's reason.
    fn into_refusal(mut self, topic: &Topic, candidates: Vec<&RoutedQueue>) -> Refusal {
        for RoutedQueue { store_group, .. } in candidates {
            if self.0.iter().all(|(of, _)| of.id != store_group.id) {
                self.0.push((store_group.clone(), no_leader(store_group).into()));
            }
        }
        if self.0.is_empty() {
            return Refusal::new(Code::Forbidden, format!("topic {} has no queue that takes messages", topic.name));
        }
        self.0.sort_by_key(|(store_group, _)| store_group.id);
        // If a single one of the reasons may pass, producers shall wait and try again.
        let mut code = Code::InternalServerError;
        let mut reasons = Vec::with_capacity(self.0.len());
        for (store_group, error) in self.0 {
            let refusal = Refusal::from(error);
            if refusal.code == Code::TooManyRequests {
                code = refusal.code;
            }
            reasons.push(format!("store group {}: {}", store_group.name, refusal.message));
        }
        Refusal::new(code, format!("no store group takes messages of topic {} now: {}", topic.name, reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::tests::two_store_groups;
    use super::super::stable_hash;
    use super::*;
    use gantry_proto::contract::StoreError::{
        Busy, DiskFull, Interrupted, NoLeader, NotLeader, ShuttingDown, Unreachable, Unreadable, Unsupported,
        WritesStopped,
    };
    use gantry_proto::contract::Stores;
    use gantry_proto::model::{MetadataView, TopicId};
    use parking_lot::Mutex;
    use std::time::Duration;

    /// Nobody leads, and it is written down who was asked for.
    #[derive(Default)]
    struct AllDown(Mutex<Vec<StoreGroupId>>);

    impl Stores for AllDown {
        fn leader_of(&self, group: &StoreGroup) -> Option<Arc<dyn StoreService>> {
            self.0.lock().push(group.id);
            None
        }

        fn trouble_with(&self, _group: &StoreGroup) -> Option<String> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_group_waits_for_its_store_group_and_goes_nowhere_else() {
        let view = Arc::new(MetadataView::default());
        let topic = two_store_groups(&view);
        let down = Arc::new(AllDown::default());
        let stores = StoreGroups::new(down.clone(), view);
        let send = async |message_group_hash| {
            let deadline = Deadline::after(Duration::from_secs(1));
            let batch =
                SendBatch { topic: topic.clone(), message_group_hash, id_hash: 1, messages: Vec::new(), deadline };
            stores.append(batch).await.unwrap_err()
        };
        let refusal = send(Some(stable_hash("orders"))).await;
        assert_eq!(refusal.code, Code::TooManyRequests);
        let mut asked = std::mem::take(&mut *down.0.lock());
        assert!(asked.len() > 1, "again and again");
        asked.dedup();
        assert_eq!(asked, [StoreGroupId(2)], "queue 1 is there");
        assert!(refusal.message.contains("store-2") && !refusal.message.contains("store-1"), "{}", refusal.message);
        send(None).await;
        assert!(down.0.lock().contains(&StoreGroupId(1)));
    }

    #[test]
    fn only_errors_that_say_that_nothing_happened_send_messages_elsewhere() {
        let elsewhere =
            |error: AppendError| matches!(failure_of(&error), AppendFailure::RefusedHere | AppendFailure::NotNow);
        for error in [Busy, DiskFull, WritesStopped, NotLeader, NoLeader, Unsupported].map(|error| error(String::new()))
        {
            assert!(elsewhere(error.into()));
        }
        assert!(elsewhere(ShuttingDown.into()));
        assert!(elsewhere(AppendError::UnknownQueue(TopicId(1))));
        assert!(elsewhere(AppendError::Draining));
        for error in [Interrupted, Unreachable, Unreadable].map(|error| error(String::new())) {
            assert!(!elsewhere(error.into()));
        }
        assert!(!elsewhere(AppendError::IdReused { message_id: String::new() }));
    }
}
