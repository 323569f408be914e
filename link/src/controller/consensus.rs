use crate::local_peer::LocalPeer;
use crate::transport::{CONSENSUS_BYTES_MAX, CallFailure, Dialer, Peer};
use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusNetwork};
use gantry_proto::convert::Wire;
use gantry_proto::env::Env;
use gantry_proto::wire::controller::v1::consensus_client::ConsensusClient;
use gantry_proto::wire::controller::v1::consensus_reply::Result as Answer;
use gantry_proto::wire::controller::v1::{ConsensusReply, ConsensusRequest};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Addresses whose connections are kept. A cluster has at most five members; the others were replaced.
const PEERS_MAX: usize = 32;

/// Calls other members of the controller, over one connection to each.
pub struct ConsensusLink {
    dialer: Dialer,
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
}

impl ConsensusLink {
    /// No connections yet: each is made by the first call to its address.
    pub fn new(env: &Env, local: &LocalPeer) -> ConsensusLink {
        ConsensusLink { dialer: Dialer::new(env, local), peers: Mutex::default() }
    }

    fn peer(&self, address: &str) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(address) {
            return peer.clone();
        }
        if peers.len() >= PEERS_MAX {
            peers.clear();
        }
        let peer = Peer::new(address, self.dialer.clone());
        peers.insert(address.to_owned(), peer.clone());
        peer
    }
}

#[async_trait::async_trait]
impl ConsensusNetwork for ConsensusLink {
    async fn call(&self, address: &str, call: ConsensusCall, timeout: Duration) -> Result<Bytes, ConsensusError> {
        let request = ConsensusRequest {
            kind: call.kind,
            payload: call.payload,
            target: call.target,
            cluster: call.cluster.as_ref().map(Wire::to_wire),
        };
        let answered: Result<ConsensusReply, _> = (self.peer(address))
            .call(timeout, |channel| async move {
                ConsensusClient::with_origin(channel.clone(), channel.origin())
                    .max_decoding_message_size(CONSENSUS_BYTES_MAX)
                    .call(request)
                    .await
            })
            .await;
        let answered = answered.map_err(|failure| match failure {
            CallFailure::NotSent(why) => ConsensusError::NotSent(why),
            CallFailure::Unknown(why) => ConsensusError::Unreachable(why),
        });
        match answered?.result {
            Some(Answer::Payload(payload)) => Ok(payload),
            Some(Answer::Refused(why)) => Err(ConsensusError::Refused(why)),
            Some(Answer::Unreachable(why)) => Err(ConsensusError::Unreachable(why)),
            Some(Answer::NotTaken(why)) => Err(ConsensusError::NotSent(why)),
            None => Err(ConsensusError::Refused(format!("{address} does not speak this protocol"))),
        }
    }
}
