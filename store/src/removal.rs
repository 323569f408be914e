//! Forgetting is a record: that a topic or a group was deleted is put into the log by the leader, because an explicit
//! deletion in the metadata says so, and its state goes when that record is confirmed. Recovery and followers forget the
//! same at the same place of the log, and nothing else makes them forget.
//!
//! What must always hold:
//! - behind the record nothing follows of the shards that it ends: they are closed first, then it is put into the log;
//! - what it ends of queues is what lies before it in the log: a message that came in behind it stays, here and at recovery;
//! - a checkpoint sees the record and its effect, or neither: [`Store::removing`](crate::store::Store) is held meanwhile.

use crate::apply;
use crate::commit_log::record::{record_len, removed_body};
use crate::commit_log::tail::NoRoom;
use crate::progress::Shard;
use crate::queue_index::Queue;
use crate::store::Store;
use gantry_proto::model::{LogOffset, QueueOffset, Removed};
use std::collections::BTreeSet;
use std::sync::Arc;

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
    end: LogOffset,
    /// Where the topic's queues ended there.
    ends: Vec<(Arc<Queue>, QueueOffset)>,
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
        let (closed, pushed) = self.push_removal(removed);
        let pushed = match pushed {
            Ok(pushed) => pushed,
            Err(no_room) => {
                closed.iter().for_each(|shard| shard.set_closed(false));
                let full = matches!(no_room, NoRoom::SegmentNotReady);
                return Err(if full { NotRemoved::SegmentNotReady } else { NotRemoved::Refused });
            }
        };
        // If that fails the log has, and the store is opened anew.
        self.log.confirmed(pushed.end).await.map_err(|_| NotRemoved::Refused)?;
        apply::removed(&self.queues, &self.progress, removed, &closed, &pushed.ends);
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
        holds || self.progress.list().iter().any(|shard| shard.is_of(removed))
    }

    /// Closes the shards that end, and puts the record into the log.
    fn push_removal(&self, removed: Removed) -> (Vec<Arc<Shard>>, Result<Pushed, NoRoom>) {
        let (kind, body) = removed_body(removed);
        let topic = match removed {
            Removed::Topic(topic) => self.queues.get(topic),
            Removed::Group(_) => None,
        };
        if let Some(topic) = &topic {
            // From here on the metadata are asked before a message is taken.
            topic.set_removed(true);
        }
        let concerned = || self.progress.list().into_iter().filter(|shard| shard.is_of(removed));
        loop {
            // A shard's lock comes before the tail's.
            concerned().for_each(|shard| shard.set_closed(true));
            let _whole = self.log.whole();
            let mut appender = self.log.begin();
            let closed: Vec<_> = concerned().collect();
            if closed.iter().any(|shard| !shard.is_closed()) {
                // Opened in between.
                continue;
            }
            if let Err(no_room) = appender.reserve(record_len(&body)) {
                return (closed, Err(no_room));
            }
            appender.push(kind, Default::default(), |out| out.extend_from_slice(&body));
            let ends = topic.map(|topic| topic.ends()).unwrap_or_default();
            return (closed, Ok(Pushed { end: appender.end(), ends }));
        }
    }
}
