//! Whether the store takes messages for its store group. Every append asks, so it is looked up again only when a store group
//! changed.
//!
//! A store group that is to be removed is closed first: its leader takes no message any more, and says so to the controller once
//! it holds none. What must always hold: after it has said so for a closing, no message is taken until the metadata say
//! that the store group was opened again
//! (`a_store_that_confirmed_that_it_is_closed_takes_no_message_that_was_on_its_way`).

use gantry_proto::model::{MetadataVersion, MetadataView, StoreGroupId, StoreGroupState};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Which messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    All,
    /// Those that have nowhere else to go.
    Stranded,
    None,
}

/// What the metadata last said: the revision of the store groups, and in its last two bits what is taken.
pub(crate) struct Draining {
    known: AtomicU64,
    /// Nothing is taken. Appends read it while the log's tail is locked.
    closed: AtomicBool,
    /// Held while the metadata are followed, so that what was seen later counts.
    follower: Mutex<()>,
}

impl Default for Draining {
    fn default() -> Draining {
        // No revision: the first look looks.
        Draining { known: AtomicU64::new(u64::MAX), closed: AtomicBool::new(false), follower: Mutex::new(()) }
    }
}

impl Draining {
    /// What `group` takes. Two atomic loads while nothing changes.
    pub(crate) fn look(&self, view: &MetadataView, group: StoreGroupId) -> Takes {
        // Before the group is looked at: if it changes meanwhile, the next look looks again.
        let revision = view.store_groups_revision();
        let known = self.known.load(Ordering::Relaxed);
        let bits = if known >> 2 == revision & (u64::MAX >> 2) {
            known & 3
        } else {
            let bits = match view.store_group(group).map(|group| group.state) {
                None | Some(StoreGroupState::Active) => 0,
                Some(StoreGroupState::Draining) => 1,
                Some(StoreGroupState::Closing(_) | StoreGroupState::Closed) => 2,
            };
            self.known.store(revision << 2 | bits, Ordering::Relaxed);
            bits
        };
        match bits {
            0 => Takes::All,
            1 => Takes::Stranded,
            _ => Takes::None,
        }
    }

    /// Closes the group if the metadata say so, and opens it again if they do; a group that is gone stays as it was. Returns
    /// since when it is closing.
    pub(crate) fn follow(&self, view: &MetadataView, group: StoreGroupId) -> Option<MetadataVersion> {
        let _follower = self.follower.lock();
        let state = view.store_group(group)?.state;
        let closed = matches!(state, StoreGroupState::Closing(_) | StoreGroupState::Closed);
        self.closed.store(closed, Ordering::SeqCst);
        match state {
            StoreGroupState::Closing(since) => Some(since),
            _ => None,
        }
    }

    /// Whether nothing is taken. To be asked while the log's tail is locked.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}
