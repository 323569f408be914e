use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusNetwork};
use std::time::Duration;

/// The network of a controller that has no other members.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

#[async_trait::async_trait]
impl ConsensusNetwork for NoPeers {
    async fn call(&self, address: &str, _call: ConsensusCall, _timeout: Duration) -> Result<Bytes, ConsensusError> {
        Err(ConsensusError::NotSent(format!("this controller has no other members, not at {address} either")))
    }
}
