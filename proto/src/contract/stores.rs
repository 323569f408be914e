use super::StoreService;
use crate::model::StoreGroup;
use std::sync::Arc;

/// The stores of all store groups, as a proxy reaches them.
pub trait Stores: Send + Sync + 'static {
    /// The leading store of a store group. `None`: it has no leader, or it is known not to answer; nothing was tried.
    fn leader_of(&self, store_group: &StoreGroup) -> Option<Arc<dyn StoreService>>;

    /// Why the leader of a store group cannot be talked to, for operators: it may name addresses. `None`: nothing is known to be
    /// wrong with it.
    fn trouble_with(&self, store_group: &StoreGroup) -> Option<String>;
}
