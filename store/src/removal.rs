//! Forgetting is a record: that a topic or a group was deleted is put into the log by the leader, because an explicit
//! deletion in the metadata says so, and its state goes when that record is confirmed. Recovery forgets the same at the same
//! place of the log, and nothing else makes it forget.
//!
//! What must always hold:
//! - behind the record nothing follows of the shards that it ends: they are closed first, then it is put into the log
//!   (`a_shard_that_is_opened_while_others_are_closed_is_closed_before_the_record`);
//! - it happens as a whole or not at all (`power_that_fails_at_any_step_of_a_deletion_leaves_all_of_a_topic_or_nothing`);
//! - a checkpoint sees the record and its effect, or neither: [`Store::removing`](crate::store::Store) is held meanwhile
//!   (`a_checkpoint_is_taken_before_a_removal_or_after_its_effect`).
//!
//! What the record ends of queues is what lies before it in the log: a message that came in behind it stays.

use crate::apply;
use crate::commit_log::record::{record_len, removed_body};
use crate::commit_log::tail::{NoRoom, Purpose};
use crate::progress::Shard;
use crate::queue_index::Queue;
use crate::store::Store;
use gantry_proto::model::{LogOffset, QueueOffset, Removal, Removed};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Room for the record of a removal.
const REMOVAL_BYTES: usize = 64;
/// When removals that could not be recorded are tried again.
const FORGET_AGAIN: Duration = Duration::from_secs(1);

/// Why something deleted was not forgotten now.
#[derive(Debug)]
pub(crate) enum NotRemoved {
    /// There is no room: wait for it and try again.
    SegmentNotReady,
    /// The store does not lead, or its log takes nothing.
    Refused,
}

/// A removal that is in the log, not yet applied.
struct Pushed {
    /// The shards that end.
    closed: Vec<Arc<Shard>>,
    end: LogOffset,
    /// Where the topic's queues ended there.
    ends: Vec<(Arc<Queue>, QueueOffset)>,
}

/// A removal that there was no room for.
struct NotPushed {
    closed: Vec<Arc<Shard>>,
    why: NoRoom,
}

impl Store {
    /// Forgets what was deleted, if there is any of it here.
    pub(crate) async fn remove(&self, removed: Removed) -> Result<(), NotRemoved> {
        if !self.has(removed) {
            if let Removed::Topic(topic) = removed
                && let Some(topic) = self.queues.get(topic)
            {
                topic.set_removed(true);
            }
            return Ok(());
        }
        let _removing = self.removing.lock().await;
        let pushed = match self.push_removal(removed) {
            Ok(pushed) => pushed,
            Err(NotPushed { closed, why }) => {
                closed.iter().for_each(|shard| shard.set_closed(false));
                let full = matches!(why, NoRoom::SegmentNotReady);
                return Err(if full { NotRemoved::SegmentNotReady } else { NotRemoved::Refused });
            }
        };
        // If that fails the log has, and the store is opened anew.
        self.log.confirmed(pushed.end).await.map_err(|_| NotRemoved::Refused)?;
        apply::removed(&self.queues, &self.progress, removed, &pushed.closed, &pushed.ends);
        Ok(())
    }

    /// What the metadata say was deleted and the store still has.
    pub(crate) fn removed_and_here(&self) -> Vec<Removed> {
        let shards = self.progress.list();
        let groups: BTreeSet<_> = shards.iter().map(|shard| shard.group).collect();
        let topics = self.queues.list().into_iter().map(|topic| Removed::Topic(topic.id));
        topics.chain(groups.into_iter().map(Removed::Group)).filter(|here| self.view.knows_removed(*here)).collect()
    }

    fn has(&self, removed: Removed) -> bool {
        let holds = match removed {
            Removed::Topic(topic) => self.queues.get(topic).is_some_and(|topic| topic.holds_messages()),
            Removed::Group(_) => false,
        };
        holds || !self.concerned(removed).is_empty()
    }

    /// The shards that end with it.
    fn concerned(&self, removed: Removed) -> Vec<Arc<Shard>> {
        match removed {
            Removed::Topic(topic) => self.queues.get(topic).map(|topic| topic.shards()).unwrap_or_default(),
            Removed::Group(group) => self.progress.of_group(group),
        }
    }

    /// Closes the shards that end, and puts the record into the log.
    fn push_removal(&self, removed: Removed) -> Result<Pushed, NotPushed> {
        if let Removed::Topic(topic) = removed
            && let Some(topic) = self.queues.get(topic)
        {
            // From here on the metadata are asked before a message is taken.
            topic.set_removed(true);
        }
        loop {
            self.close(removed);
            if let Some(pushed) = self.push_closed(removed) {
                return pushed;
            }
        }
    }

    /// Before the tail is locked: a shard's lock comes before that.
    fn close(&self, removed: Removed) {
        self.concerned(removed).iter().for_each(|shard| shard.set_closed(true));
    }

    /// Puts the record into the log. `None`: a shard was opened after the others were closed.
    fn push_closed(&self, removed: Removed) -> Option<Result<Pushed, NotPushed>> {
        let (kind, body) = removed_body(removed);
        let _fail_on_panic = self.log.fail_on_panic();
        let mut appender = self.log.begin();
        let closed = self.concerned(removed);
        if !closed.iter().all(|shard| shard.is_closed()) {
            return None;
        }
        if let Err(why) = appender.reserve(Purpose::Progress, record_len(&body)) {
            return Some(Err(NotPushed { closed, why }));
        }
        appender.push(kind, Default::default(), |out| out.extend_from_slice(&body));
        let ends = match removed {
            Removed::Topic(topic) => self.queues.get(topic).map(|topic| topic.ends()).unwrap_or_default(),
            Removed::Group(_) => Vec::new(),
        };
        Some(Ok(Pushed { closed, end: appender.end(), ends }))
    }
}

/// Records that topics and groups were deleted, which drops their state: see above. Their messages go with their
/// segments. Who does not lead forgets nothing; once it leads it looks for what was deleted until then.
///
/// Only an explicit removal counts. A topic that the metadata merely do not name (an empty controller, one that was put
/// back to an earlier state) is left alone.
pub(crate) async fn forget(store: Arc<Store>, mut removals: Receiver<Removal>) {
    let tenure = &store.log.tenure;
    let (mut look, mut removed) = (true, Vec::new());
    loop {
        let epoch = tenure.epoch();
        if tenure.check().is_err() {
            look = true;
            tokio::select! {
                biased;
                () = store.stopping.cancelled() => return,
                () = tenure.begun_after(epoch) => continue,
            }
        }
        if std::mem::take(&mut look) {
            let here = store.removed_and_here();
            removed.retain(|gone| !here.contains(gone));
            removed.extend(here);
        }
        removed = remove_all(&store, removed).await;
        tokio::select! {
            biased;
            () = store.stopping.cancelled() => return,
            _ = tenure.over() => {}
            removal = removals.recv() => match removal {
                Ok(Removal::Of(gone)) => removed.push(gone),
                Ok(Removal::LookAgain) | Err(RecvError::Lagged(_)) => look = true,
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(FORGET_AGAIN), if !removed.is_empty() => {}
        }
    }
}

/// Returns those that could not be recorded now.
async fn remove_all(store: &Store, removed: Vec<Removed>) -> Vec<Removed> {
    let mut left = Vec::new();
    for gone in removed {
        let is_back = match gone {
            Removed::Topic(topic) => store.view.topic_by_id(topic).is_some(),
            Removed::Group(group) => store.view.group_by_id(group).is_some(),
        };
        if is_back {
            continue;
        }
        let mut done = store.remove(gone).await;
        if matches!(done, Err(NotRemoved::SegmentNotReady)) {
            // Whatever it is that is in the way, the next try finds out.
            let _ = store.log.room_for(Purpose::Progress, REMOVAL_BYTES).await;
            done = store.remove(gone).await;
        }
        if done.is_err() {
            left.push(gone);
        }
    }
    left
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;
    use crate::saving::checkpoint;
    use crate::support::*;
    use gantry_proto::contract::PopRequest;

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_is_opened_while_others_are_closed_is_closed_before_the_record() {
        let machine = Machine::new(1);
        let store = machine.must_open();
        send(&store, 0, "m").await.unwrap();
        assert_eq!(pop(&store, 1).await.unwrap().len(), 1);
        let removed = Removed::Topic(TOPIC);
        store.close(removed);
        let others = PopRequest { group: READER, ..pop_request(1) };
        assert_eq!(store.pop(others).await.unwrap().messages.len(), 1);
        let before = store.log.appended_to();
        assert!(store.push_closed(removed).is_none(), "the record came before the end of a shard");
        assert_eq!(store.log.appended_to(), before);
        let closed = store.push_removal(removed).ok().unwrap().closed;
        assert!(closed.len() == 2 && closed.iter().all(|shard| shard.is_closed()));
        // Nothing of them follows it.
        let end = store.log.appended_to();
        let others = PopRequest { group: READER, ..pop_request(1) };
        assert!(store.pop(others).await.is_err());
        assert!(pop(&store, 1).await.is_err());
        assert_eq!(store.log.appended_to(), end);
        let _ = store.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_is_taken_before_a_removal_or_after_its_effect() {
        for gone in [Removed::Topic(TOPIC), Removed::Group(GROUP)] {
            let mut machine = Machine::new(2);
            machine.config.checkpoint_interval = Duration::from_secs(3600);
            let store = machine.must_open();
            send(&store, 0, "m").await.unwrap();
            assert_eq!(pop(&store, 1).await.unwrap().len(), 1);
            // The record is in the log, and nobody has written it.
            let mut removing = Box::pin(store.remove(gone));
            assert!(poll_once(removing.as_mut()).is_none());
            let mut saving = Box::pin(checkpoint(&store));
            assert!(poll_once(saving.as_mut()).is_none());
            let (removed, saved) = tokio::join!(removing, saving);
            removed.unwrap();
            saved.unwrap();
            machine.files.kill();
            let _ = store.shutdown().await;
            drop(store);
            // What the checkpoint and the log behind it say.
            let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
            assert_eq!(store.progress(GROUP).await.unwrap(), [], "it came back with the checkpoint");
            let _ = store.shutdown().await;
        }
    }
}
