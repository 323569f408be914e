//! The services of a member: each call is answered here if this member leads, and by the one that leads if not. A call is
//! passed on once at most; the one that it reaches answers or says that it cannot.

mod membership;
mod metadata;
mod peer;

use crate::codec::decode;
use crate::controller::Controller;
use crate::raft::{Kind, Leader, NodeError};
use gantry_proto::contract::ConsensusError;
use gantry_proto::convert::Wire;
use prost::Message;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How soon a leader that was not reached is tried again, unless another one leads before.
const RETRY_AFTER: Duration = Duration::from_millis(100);

impl Controller {
    /// The answer of the member that leads. None: that is this one.
    ///
    /// What did not reach it was not asked: it is asked again, of the next leader if there is one by then. For a third of
    /// the time that answers are waited for, so that who called here learns that nothing happened.
    async fn passed_on<T>(&self, kind: Kind, request: &impl Message) -> Result<Option<T>, NodeError>
    where
        T: Wire<Message: Message + Default>,
    {
        let node = &self.core.node;
        let deadline = Instant::now() + self.core.config.request_timeout / 3;
        loop {
            if self.is_stopping() {
                return Err(NodeError::Unavailable("the controller is stopping".to_owned()));
            }
            if let Some(reason) = node.failure() {
                return Err(NodeError::Unavailable(reason));
            }
            let leader = node.find_leader().await?;
            let Leader::Other { id, address } = &leader else { return Ok(None) };
            match node.call(*id, address, kind, request).await {
                // It was heard; that its answer is not understood says nothing about what it did.
                Ok(answer) => return read(&answer).map(Some).map_err(NodeError::Unknown),
                Err(ConsensusError::Unreachable(reason)) => return Err(NodeError::Unknown(reason)),
                Err(ConsensusError::Refused(reason)) => return Err(NodeError::Unavailable(reason)),
                Err(ConsensusError::NotSent(reason)) if Instant::now() >= deadline => {
                    return Err(NodeError::Unavailable(reason));
                }
                Err(ConsensusError::NotSent(_)) => tokio::select! {
                    biased;
                    going_on = node.leadership_changed(&leader) => if !going_on {
                        return Err(NodeError::Unavailable("the controller is stopping".to_owned()));
                    },
                    () = sleep(RETRY_AFTER) => {}
                },
            }
        }
    }
}

/// What another member said, or that it was not understood.
fn read<T: Wire<Message: Message + Default>>(message: &[u8]) -> Result<T, String> {
    let message = decode(message).map_err(|newer| newer.to_string())?;
    T::from_wire(message).map_err(|newer| newer.to_string())
}
