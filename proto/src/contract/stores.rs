use super::StoreService;
use crate::model::StoreGroup;
use std::sync::Arc;

/// The stores of all store groups, as a proxy reaches them.
pub trait Stores: Send + Sync + 'static {
    /// The leading store of a group. `None`: the group has no leader, or it is known not to answer; nothing was tried.
    fn leader_of(&self, group: &StoreGroup) -> Option<Arc<dyn StoreService>>;
}
