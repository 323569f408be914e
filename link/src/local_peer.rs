//! This process as a peer: its cluster, and the credentials that prove that it belongs to it.

use crate::security::PeerCredentials;
use gantry_proto::contract::ConsensusPeer;
use gantry_proto::model::ClusterId;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

/// One per process; clones are the same peer. The cluster is learned from the first controller that answers, and never
/// changes from then on. A member of the controller knows it from its own metadata.
#[derive(Clone)]
pub struct LocalPeer {
    pub(crate) credentials: PeerCredentials,
    cluster: Arc<Cluster>,
}

#[derive(Default)]
struct Cluster {
    known: OnceLock<ClusterId>,
    member: OnceLock<Weak<dyn ConsensusPeer>>,
}

/// A peer belongs to another cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it belongs to cluster {theirs}, this process to cluster {ours}")]
pub struct OtherCluster {
    /// This process's.
    pub ours: ClusterId,
    /// The other one's.
    pub theirs: ClusterId,
}

impl LocalPeer {
    /// A process that does not know its cluster yet.
    pub fn new(credentials: PeerCredentials) -> LocalPeer {
        LocalPeer { credentials, cluster: Arc::default() }
    }

    /// The cluster, once it is known.
    pub fn cluster(&self) -> Option<ClusterId> {
        if let Some(known) = self.cluster.known.get() {
            return Some(*known);
        }
        let founded = self.cluster.member.get()?.upgrade()?.cluster()?;
        Some(*self.cluster.known.get_or_init(|| founded))
    }

    /// Notes that this process belongs to `cluster`, unless it is known to belong to another one.
    pub fn belongs_to(&self, cluster: ClusterId) -> Result<(), OtherCluster> {
        let ours = self.cluster().unwrap_or_else(|| *self.cluster.known.get_or_init(|| cluster));
        if ours == cluster { Ok(()) } else { Err(OtherCluster { ours, theirs: cluster }) }
    }

    /// This process is a member of the controller, which knows the cluster.
    pub(crate) fn is_member(&self, member: &Arc<dyn ConsensusPeer>) {
        let _ = self.cluster.member.set(Arc::downgrade(member));
    }
}

impl fmt::Debug for LocalPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (credentials, cluster) = (&self.credentials, self.cluster());
        f.debug_struct("LocalPeer").field("credentials", credentials).field("cluster", &cluster).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cluster_stays() {
        let (a, b) = (ClusterId([1; 16]), ClusterId([2; 16]));
        let peer = LocalPeer::new(PeerCredentials::None);
        assert_eq!(peer.cluster(), None);
        peer.clone().belongs_to(a).unwrap();
        assert_eq!(peer.cluster(), Some(a));
        let error = peer.belongs_to(b).unwrap_err();
        assert_eq!((error, peer.cluster()), (OtherCluster { ours: a, theirs: b }, Some(a)));
        peer.belongs_to(a).unwrap();
    }
}
