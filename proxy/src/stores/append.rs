//! Sending: which queue takes the messages, and what follows when its store does not.
//!
//! An error that says that nothing happened sends the messages to another store group, each at most once while it refuses.
//! After one that leaves it open, only the same group is asked again: it knows what it stored, by the messages' ids. So is
//! it when the producer itself sends a message again of which it was told that nothing is known.

use super::paths::{Place, Placed};
use super::{Backoff, Deadline, StoreGroups, TopicPaths, no_leader};
use crate::translate::Refusal;
use gantry_proto::contract::{AppendError, AppendReply, AppendRequest, StoreError, StoreService};
use gantry_proto::model::{QueueId, StoreGroup, StoreGroupId, StoredMessage, Topic};
use gantry_proto::wire::v2::Code;
use smallvec::SmallVec;
use std::sync::Arc;

/// Messages that are sent together, to one queue.
pub(crate) struct Sending {
    /// The topic as it was when the call began.
    pub(crate) topic: Arc<Topic>,
    /// The hash of the message group that all of them share: they stay on its queue, whatever happens.
    pub(crate) lane: Option<u64>,
    /// Hash of the first message's id. Chooses the queue that is tried first: a producer's retry begins where the first
    /// attempt did, whichever proxy it comes to.
    pub(crate) id_hash: u64,
    /// At least one. Cloned for each attempt: their bytes are shared.
    pub(crate) messages: Vec<StoredMessage>,
    /// When the client must be answered.
    pub(crate) deadline: Deadline,
}

/// What an error means for the messages.
enum Fate {
    /// Nothing happened, and this group will say so again.
    RefusedHere,
    /// Nothing happened, and a moment later this group may take them.
    NotNow,
    /// They may have been stored.
    Unknown,
    /// The client has to know.
    Final,
}

/// What groups said, the last thing each.
#[derive(Default)]
struct Refusals(SmallVec<[(Arc<StoreGroup>, AppendError); 2]>);

impl StoreGroups {
    /// Appends the messages to a queue that takes them.
    pub(crate) async fn append(&self, paths: &TopicPaths, sending: Sending) -> Result<AppendReply, Refusal> {
        let mut placed = paths.placed(&sending.topic, &self.view);
        if let Some(place) = self.doubted(&placed, &sending) {
            let unasked = no_leader(&place.1).into();
            return self.append_again(place, &sending, unasked).await;
        }
        let mut refusals = Refusals::default();
        // Asked since the last pause, and refused for good.
        let (mut asked, mut refused) = (SmallVec::<[StoreGroupId; 4]>::new(), SmallVec::<[StoreGroupId; 4]>::new());
        let mut backoff = Backoff::default();
        loop {
            while let Some((queue, group, store)) = self.choose(&placed, &sending, |id| asked.contains(&id)) {
                let error = match self.append_to(&*store, *queue, &sending).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => error,
                };
                if others_will_run_into(&error) {
                    self.suspects.add(group.id);
                }
                match fate(&error) {
                    Fate::RefusedHere => refused.push(group.id),
                    Fate::NotNow => {}
                    Fate::Unknown => {
                        tracing::debug!(store_group = %group.name, %error, "messages may be stored, asking again");
                        return self.append_again((*queue, group.clone()), &sending, error).await;
                    }
                    Fate::Final => return Err(error.into()),
                }
                asked.push(group.id);
                refusals.note(group, error);
            }
            let candidates = candidates(&placed, &sending);
            let hopeless = !candidates.is_empty() && candidates.iter().all(|(_, group)| refused.contains(&group.id));
            if hopeless || !backoff.wait(sending.deadline).await {
                return Err(refusals.into_refusal(&sending.topic, candidates));
            }
            // The metadata may have changed during the pause, and that may be what helps.
            let topic = self.view.topic_by_id(sending.topic.id);
            let topic = topic.ok_or_else(|| Refusal::topic_not_found(sending.topic.name.as_str()))?;
            placed = paths.placed(&topic, &self.view);
            asked.clone_from(&refused);
        }
    }

    /// The next queue whose group has a leader that answers and is not `excluded`.
    fn choose<'a>(
        &self,
        placed: &'a Placed,
        sending: &Sending,
        excluded: impl Fn(StoreGroupId) -> bool,
    ) -> Option<(&'a QueueId, &'a Arc<StoreGroup>, Arc<dyn StoreService>)> {
        let ask = |(queue, group): &'a Place| {
            if excluded(group.id) {
                return None;
            }
            Some((queue, group, self.stores.leader_of(group)?))
        };
        if let Some(hash) = sending.lane {
            return ask(placed.lane(hash)?);
        }
        let around = || {
            let first = sending.id_hash % placed.writable.len().max(1) as u64;
            let (before, after) = placed.writable.split_at(first as usize);
            after.iter().chain(before)
        };
        let trusted = around().filter(|(_, group)| !self.suspects.contains(group.id)).find_map(ask);
        trusted.or_else(|| around().find_map(ask))
    }

    /// Where the messages may be stored already, since their producer did not hear what became of them.
    fn doubted(&self, placed: &Placed, sending: &Sending) -> Option<Place> {
        let doubted = self.doubts.get(sending.topic.id, sending.id_hash)?;
        candidates(placed, sending).into_iter().find(|(_, group)| group.id == doubted).cloned()
    }

    /// One attempt, bounded by the deadline: a store that hangs may have stored the messages.
    async fn append_to(
        &self,
        store: &dyn StoreService,
        queue: QueueId,
        sending: &Sending,
    ) -> Result<AppendReply, AppendError> {
        let request = AppendRequest { topic: sending.topic.id, queue, messages: sending.messages.clone() };
        match tokio::time::timeout_at(sending.deadline.instant(), store.append(request)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unreachable("no answer in time".to_owned()).into()),
        }
    }

    /// The messages may be stored at `place`: only its group can tell, and store them if they are not.
    async fn append_again(
        &self,
        place: Place,
        sending: &Sending,
        mut error: AppendError,
    ) -> Result<AppendReply, Refusal> {
        let (queue, group) = place;
        let mut backoff = Backoff::default();
        while backoff.wait(sending.deadline).await {
            let Ok(store) = self.leader_by_id(group.id) else { continue };
            error = match self.append_to(&*store, queue, sending).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match (&error, fate(&error)) {
                // It would know what it had stored: these it never takes.
                (AppendError::TooLarge { .. } | AppendError::IdReused { .. }, _) => return Err(error.into()),
                // No wonder will happen within this call.
                (_, Fate::Final | Fate::RefusedHere) => break,
                (_, Fate::NotNow | Fate::Unknown) => {}
            }
        }
        self.doubts.add(sending.topic.id, sending.id_hash, group.id);
        Err(Refusal::new(
            Code::ProxyTimeout,
            format!(
                "it is not known whether the messages were stored: store group {}: {}",
                group.name,
                Refusal::from(error).message
            ),
        ))
    }
}

/// Where the messages may go.
fn candidates<'a>(placed: &'a Placed, sending: &Sending) -> Vec<&'a Place> {
    match sending.lane {
        Some(hash) => placed.lane(hash).into_iter().collect(),
        None => placed.writable.iter().collect(),
    }
}

fn fate(error: &AppendError) -> Fate {
    match error {
        AppendError::TooLarge { .. } | AppendError::IdReused { .. } => Fate::Final,
        // The store lags behind the metadata seen here, or is ahead of them.
        AppendError::UnknownQueue(_) | AppendError::Draining => Fate::NotNow,
        AppendError::Store(error) => match error {
            // Some of it until somebody looks after the store.
            StoreError::Busy(_)
            | StoreError::DiskFull(_)
            | StoreError::WritesStopped(_)
            | StoreError::Unsupported(_) => Fate::RefusedHere,
            StoreError::ShuttingDown | StoreError::NoLeader(_) | StoreError::NotLeader(_) => Fate::NotNow,
            StoreError::Interrupted(_) | StoreError::Unreachable(_) => Fate::Unknown,
            // Whether the messages are there cannot be read.
            StoreError::Unreadable(_) => Fate::Final,
        },
    }
}

/// Whether it is about the store, and not about these messages or this moment.
fn others_will_run_into(error: &AppendError) -> bool {
    matches!(error, AppendError::Store(error) if !matches!(error, StoreError::Busy(_)))
}

impl Refusals {
    fn note(&mut self, group: &Arc<StoreGroup>, error: AppendError) {
        self.0.retain(|(of, _)| of.id != group.id);
        self.0.push((group.clone(), error));
    }

    /// Nobody takes the messages, and each group's reason.
    fn into_refusal(mut self, topic: &Topic, candidates: Vec<&Place>) -> Refusal {
        for (_, group) in candidates {
            if self.0.iter().all(|(of, _)| of.id != group.id) {
                self.0.push((group.clone(), no_leader(group).into()));
            }
        }
        if self.0.is_empty() {
            return Refusal::new(Code::Forbidden, format!("topic {} has no queue that takes messages", topic.name));
        }
        self.0.sort_by_key(|(group, _)| group.id);
        // One that may pass makes producers wait and try again.
        let mut code = Code::InternalServerError;
        let mut reasons = Vec::with_capacity(self.0.len());
        for (group, error) in self.0 {
            let refusal = Refusal::from(error);
            if refusal.code == Code::TooManyRequests {
                code = refusal.code;
            }
            reasons.push(format!("store group {}: {}", group.name, refusal.message));
        }
        Refusal::new(code, format!("no store group takes messages of topic {} now: {}", topic.name, reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::paths::tests::two_groups;
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
        let topic = two_groups(&view);
        let down = Arc::new(AllDown::default());
        let stores = StoreGroups::new(down.clone(), view);
        let paths = stores.paths(&topic);
        let send = async |lane| {
            let deadline = Deadline::after(Duration::from_secs(1));
            let sending = Sending { topic: topic.clone(), lane, id_hash: 1, messages: Vec::new(), deadline };
            stores.append(&paths, sending).await.unwrap_err()
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
        let elsewhere = |error: AppendError| matches!(fate(&error), Fate::RefusedHere | Fate::NotNow);
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
