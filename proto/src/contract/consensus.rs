//! What the controller's members say to each other. The bytes are theirs; whoever carries them does not look inside.

use crate::model::ClusterId;
use bytes::Bytes;
use std::time::Duration;

/// Carries calls to other members.
#[async_trait::async_trait]
pub trait ConsensusNetwork: Send + Sync + 'static {
    /// Asks the member at `address` (`host:port`), for at most `timeout`.
    async fn call(&self, address: &str, call: ConsensusCall, timeout: Duration) -> Result<Bytes, ConsensusError>;
}

/// Takes calls of other members.
#[async_trait::async_trait]
pub trait ConsensusPeer: Send + Sync + 'static {
    async fn answer(&self, call: ConsensusCall) -> Result<Bytes, ConsensusError>;

    /// The cluster whose member this is, as far as its metadata say. `None`: they do not say yet.
    fn cluster(&self) -> Option<ClusterId>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsensusCall {
    /// Which of the members' calls it is.
    pub kind: u32,
    /// The member that it is meant for: who listens at an address may have changed.
    pub target: u64,
    /// The caller's cluster, once it knows it.
    pub cluster: Option<ClusterId>,
    pub payload: Bytes,
}

/// Why a call brought no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsensusError {
    /// It was not sent, or not taken: the member cannot be reached, or has stopped. Nothing was done.
    #[error("{0}")]
    NotSent(String),
    /// The member does not answer. It may have heard the call.
    #[error("{0}")]
    Unreachable(String),
    /// The member did nothing: the call is not meant for it, or it does not understand it.
    #[error("{0}")]
    Refused(String),
}
