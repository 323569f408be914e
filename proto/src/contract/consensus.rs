//! What the controller's members say to each other. The bytes are theirs; whoever carries them does not look inside.

use bytes::Bytes;
use std::time::Duration;

/// Carries calls to other members.
#[async_trait::async_trait]
pub trait ConsensusNetwork: Send + Sync + 'static {
    /// Asks the member at `address` (`host:port`), for at most `timeout`. An error leaves open whether it was heard.
    async fn call(&self, address: &str, call: ConsensusCall, timeout: Duration) -> Result<Bytes, ConsensusError>;
}

/// Takes calls of other members.
#[async_trait::async_trait]
pub trait ConsensusPeer: Send + Sync + 'static {
    /// Answers a call.
    async fn answer(&self, call: ConsensusCall) -> Result<Bytes, ConsensusError>;
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsensusCall {
    /// Which of the members' calls it is.
    pub kind: u32,
    /// What it says.
    pub payload: Bytes,
}

/// Why a call brought no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The member cannot be reached or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The member does not understand the call.
    #[error("{0}")]
    Refused(String),
}
