use super::server::Served;
use crate::controller::server::{ConsensusServer, MembershipServer, MetadataServer};
use crate::local_peer::LocalPeer;
use crate::store::server::ExchangeServer;
use crate::store::{FRAME_BYTES_LIMIT, StoreIdentity};
use gantry_proto::contract::{ConsensusPeer, MembershipService, MetadataService, StoreService};
use gantry_proto::wire::controller::v1::consensus_server::ConsensusServer as ConsensusGrpc;
use gantry_proto::wire::controller::v1::membership_server::MembershipServer as MembershipGrpc;
use gantry_proto::wire::controller::v1::metadata_server::MetadataServer as MetadataGrpc;
use gantry_proto::wire::store::v1::store_exchange_server::StoreExchangeServer;
use std::sync::Arc;
use tonic::service::Routes;

/// Largest call among the controller's members: a snapshot.
pub(crate) const CONSENSUS_BYTES_MAX: usize = 256 << 20;

/// What a process serves to its peers.
#[derive(Clone, Default)]
pub struct PeerServices {
    store: Option<(Arc<dyn StoreService>, Arc<dyn StoreIdentity>)>,
    routes: Routes,
    member: Option<Arc<dyn ConsensusPeer>>,
}

impl PeerServices {
    /// A store, to proxies.
    #[must_use]
    pub fn store(self, service: Arc<dyn StoreService>, identity: Arc<dyn StoreIdentity>) -> PeerServices {
        PeerServices { store: Some((service, identity)), ..self }
    }

    /// A member of the controller, to everybody.
    #[must_use]
    pub fn controller(
        self,
        metadata: Arc<dyn MetadataService>,
        membership: Arc<dyn MembershipService>,
        consensus: Arc<dyn ConsensusPeer>,
    ) -> PeerServices {
        let member = Some(consensus.clone());
        let consensus = ConsensusGrpc::new(ConsensusServer(consensus));
        let routes = (self.routes)
            .add_service(MetadataGrpc::new(MetadataServer(metadata)))
            .add_service(MembershipGrpc::new(MembershipServer(membership)))
            .add_service(consensus.max_decoding_message_size(CONSENSUS_BYTES_MAX));
        PeerServices { routes, member, ..self }
    }

    /// Of the peer `local`.
    pub(super) fn into_served(self, local: &LocalPeer) -> Served {
        let PeerServices { store, mut routes, member } = self;
        if let Some((service, identity)) = store {
            let server = StoreExchangeServer::new(ExchangeServer::new(service, identity, local.clone()));
            routes = routes.add_service(server.max_decoding_message_size(FRAME_BYTES_LIMIT));
        }
        if let Some(member) = &member {
            local.is_member(member);
        }
        Served { routes: routes.prepare(), member }
    }
}
