//! Which shards have something to be done for them: found without looking at all of them.
//!
//! Indexes over all shards, kept up by whoever changes one (see [`crate::progress::ShardGuard`]):
//! - when the first delivery of a shard ends, so that one timer wakes the receives of all shards, and nobody looks before;
//! - which shards hold messages that are to become dead letters, and from when on;
//! - in which shards an owner holds something, so that renewing and releasing it cost what it holds.
//!
//! Derived from the shards' states, which are the truth. What must always hold:
//! - a shard with an end at `t` is noted at `t` or earlier; too early costs a look
//!   (`a_waiting_receive_gets_a_message_whose_delivery_ends`);
//! - a shard in which messages were found that have no attempt left is noted
//!   (`exhausted_messages_move_to_the_dead_letter_topic_once_and_name_their_origin`);
//! - an owner that holds something in a shard is noted with it
//!   (`leases_of_a_living_client_are_renewed_and_end_soon_after_it_is_gone`).

use gantry_proto::model::{ClientHash, GroupId, Timestamp, TopicId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::sync::Notify;

/// What a shard is found by.
pub(crate) type ShardKey = (GroupId, TopicId);

/// The indexes.
#[derive(Default)]
pub(crate) struct Upkeep {
    /// When something ends that nobody has looked at.
    pub ends: DueShards,
    /// When dead letters may be made.
    pub spent: DueShards,
    owners: Mutex<HashMap<ClientHash, BTreeSet<ShardKey>>>,
}

/// Shards by when they are due.
#[derive(Default)]
pub(crate) struct DueShards {
    due: Mutex<BTreeSet<(Timestamp, ShardKey)>>,
    /// Wakes whoever waits for the first that is due: an earlier one was noted.
    earlier: Notify,
}

impl DueShards {
    /// Moves a shard from `before` to `now`.
    pub(crate) fn note(&self, shard: ShardKey, before: Option<Timestamp>, now: Option<Timestamp>) {
        let mut due = self.due.lock();
        let first = due.first().copied();
        if let Some(before) = before {
            due.remove(&(before, shard));
        }
        if let Some(now) = now {
            due.insert((now, shard));
            if first.is_none_or(|(first, _)| now < first) {
                self.earlier.notify_one();
            }
        }
    }

    /// When the first shard is due, and which are by `now`. They stay noted.
    pub(crate) fn due_by(&self, now: Timestamp) -> (Option<Timestamp>, Vec<ShardKey>) {
        let due = self.due.lock();
        let shards = due.iter().take_while(|(at, _)| *at <= now).map(|(_, shard)| *shard).collect();
        (due.iter().map(|(at, _)| *at).find(|at| *at > now), shards)
    }

    /// Completes when a shard was noted that is due before all others. Cancel-safe.
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}

impl Upkeep {
    /// An owner holds something in a shard from now on, or nothing any more.
    pub(crate) fn note_owner(&self, owner: ClientHash, shard: ShardKey, holds: bool) {
        let mut owners = self.owners.lock();
        if holds {
            owners.entry(owner).or_default().insert(shard);
        } else if let Some(shards) = owners.get_mut(&owner) {
            shards.remove(&shard);
            if shards.is_empty() {
                owners.remove(&owner);
            }
        }
    }

    /// The shards in which these owners hold something, in order, each with those owners.
    pub(crate) fn held_by(&self, wanted: &[ClientHash]) -> BTreeMap<ShardKey, Vec<ClientHash>> {
        let owners = self.owners.lock();
        let mut held: BTreeMap<ShardKey, Vec<ClientHash>> = BTreeMap::new();
        for owner in wanted {
            for shard in owners.get(owner).into_iter().flatten() {
                held.entry(*shard).or_default().push(*owner);
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(number: u32) -> ShardKey {
        (GroupId(number), TopicId(1))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn what_is_due_is_found_in_order_and_moves() {
        let due = DueShards::default();
        due.note(shard(1), None, Some(at(5)));
        due.note(shard(2), None, Some(at(3)));
        assert_eq!(due.due_by(at(2)), (Some(at(3)), vec![]));
        assert_eq!(due.due_by(at(3)), (Some(at(5)), vec![shard(2)]));
        due.note(shard(2), Some(at(3)), Some(at(9)));
        due.note(shard(1), Some(at(5)), None);
        assert_eq!(due.due_by(at(10)), (None, vec![shard(2)]));
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_end_before_all_others_wakes() {
        let due = DueShards::default();
        due.note(shard(1), None, Some(at(5)));
        due.earlier().await;
        due.note(shard(2), None, Some(at(6)));
        let wait = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, due.earlier()).await.is_err());
        due.note(shard(2), Some(at(6)), Some(at(4)));
        due.earlier().await;
    }

    #[test]
    fn an_owner_is_found_where_it_holds_something() {
        let upkeep = Upkeep::default();
        let (one, two) = (ClientHash(1), ClientHash(2));
        upkeep.note_owner(one, shard(1), true);
        upkeep.note_owner(one, shard(2), true);
        upkeep.note_owner(two, shard(2), true);
        let held: Vec<_> = upkeep.held_by(&[one, two, ClientHash(3)]).into_iter().collect();
        assert_eq!(held, [(shard(1), vec![one]), (shard(2), vec![one, two])]);
        upkeep.note_owner(one, shard(1), false);
        upkeep.note_owner(two, shard(2), false);
        assert_eq!(upkeep.held_by(&[one, two]).into_iter().collect::<Vec<_>>(), [(shard(2), vec![one])]);
        assert_eq!(upkeep.owners.lock().len(), 1, "who holds nothing is not kept");
    }
}
