//! What may happen to the cluster's identity and to proxies.

use super::{Decision, MetadataState};
use gantry_proto::model::{ClusterId, MetadataChange, MetadataOutcome, ProxyId, ProxyMember, Timestamp};
use std::sync::Arc;

impl MetadataState {
    /// The first identity stays.
    pub(super) fn found(&self, asked: ClusterId) -> Decision {
        match self.cluster {
            Some(cluster) => self.decided(MetadataOutcome::Cluster(cluster), Vec::new()),
            None => self.decided(MetadataOutcome::Cluster(asked), vec![MetadataChange::ClusterInitialized(asked)]),
        }
    }

    pub(super) fn join_proxy(&self, id: ProxyId, address: &Arc<str>, version: &Arc<str>, at: Timestamp) -> Decision {
        let now = self.proxies.get(&id);
        let joined_at = now.map_or(at, |now| now.joined_at);
        let proxy = Arc::new(ProxyMember { id, address: address.clone(), version: version.clone(), joined_at });
        let changes = if now == Some(&proxy) { Vec::new() } else { vec![MetadataChange::ProxyUpsert(proxy.clone())] };
        self.decided(MetadataOutcome::Proxy(proxy), changes)
    }

    pub(super) fn remove_proxy(&self, id: ProxyId) -> Decision {
        let changes = self.proxies.get(&id).map(|proxy| MetadataChange::ProxyRemoved(proxy.id));
        self.decided(MetadataOutcome::Deleted, changes.into_iter().collect())
    }
}
