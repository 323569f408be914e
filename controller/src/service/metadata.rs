//! Commands and the watch.

use super::answers::{put_applied, read_applied};
use super::{Route, decoded};
use crate::codec::{decode_command, encode_command};
use crate::controller::Controller;
use crate::raft::{Kind, NodeError};
use gantry_proto::contract::{ConsensusError, MetadataError, MetadataService, MetadataStream};
use gantry_proto::model::{MetadataCommand, MetadataOutcome, MetadataVersion};

#[async_trait::async_trait]
impl MetadataService for Controller {
    /// Not cancel-safe: once it has been polled, the command may be carried out although nobody waits any more.
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        let route = self.route(Kind::Propose, || {
            let mut message = Vec::new();
            encode_command(&mut message, &command);
            message
        });
        match route.await? {
            Route::Here => Ok(self.propose_here(command).await??),
            Route::Answered(answer) => decoded(&answer, read_applied)?,
        }
    }

    /// Served from what this member has applied. A watcher that has seen more than that waits until this member has, too,
    /// so what it sees never goes back.
    async fn watch(&self, after: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        if self.is_stopping() {
            return Err(MetadataError::Unavailable("the controller has stopped".to_owned()));
        }
        if after > self.core.feed.version() {
            // After this, whoever still has seen more has seen another history, and begins anew.
            self.core.node.catch_up().await?;
        }
        Ok(self.core.feed.follow(after))
    }
}

impl Controller {
    /// A command that another member passed on.
    pub(super) async fn answer_propose(&self, message: &[u8]) -> Result<Vec<u8>, ConsensusError> {
        let command = decode_command(message).map_err(|error| ConsensusError::Refused(error.to_string()))?;
        let applied = match self.propose_here(command).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(refusal)) => Err(refusal.into()),
            Err(error) => Err(error.into()),
        };
        Ok(put_applied(&applied))
    }
}

impl From<NodeError> for MetadataError {
    fn from(error: NodeError) -> MetadataError {
        match error {
            NodeError::Unavailable(reason) => MetadataError::Unavailable(reason),
            NodeError::Unknown(reason) => MetadataError::Unknown(reason),
        }
    }
}
