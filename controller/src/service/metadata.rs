//! Commands and the watch.

use crate::controller::Controller;
use crate::raft::{Kind, NodeError};
use gantry_proto::contract::{MetadataError, MetadataService, MetadataStream};
use gantry_proto::convert::Wire as _;
use gantry_proto::model::{MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion};
use gantry_proto::wire::controller::v1 as wire;

#[async_trait::async_trait]
impl MetadataService for Controller {
    /// Not cancel-safe: once it has been polled, the command may be carried out although nobody waits any more.
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        let request = wire::ProposeRequest { command: Some(command.to_wire()) };
        match self.passed_on(Kind::Propose, &request).await? {
            None => self.propose_answered(command).await,
            Some(answer) => answer,
        }
    }

    /// Served from what this member has applied. A watcher that has seen more than that waits until this member has, too,
    /// so what it sees never goes back.
    async fn watch(&self, after: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        if self.is_stopping() {
            return Err(MetadataError::Unavailable("the controller has stopped".to_owned()));
        }
        if let Some(reason) = self.core.node.failure() {
            return Err(MetadataError::Unavailable(reason));
        }
        if after > self.core.feed.version() {
            // After this, whoever still has seen more has seen another history, and begins anew.
            self.core.node.catch_up().await?;
        }
        Ok(self.core.feed.follow(after))
    }
}

impl Controller {
    /// Carries a command out here, or says that another one leads.
    pub(super) async fn propose_answered(
        &self,
        command: MetadataCommand,
    ) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        let now = self.core.feed.read(|state| state.rules().number());
        // A member that does not know a command's rules stops at it; and rules are raised by the leading member alone.
        if command.rules() > now || matches!(command, MetadataCommand::RaiseRules { .. }) {
            return Err(MetadataRefusal::Rules { now, asked: command.rules() }.into());
        }
        if matches!(command, MetadataCommand::CreateTopic { .. } | MetadataCommand::CreateGroup { .. }) {
            self.may_give_ids().await?;
        }
        let joins = matches!(command, MetadataCommand::JoinStore { .. });
        let carried_out = self.propose_here(command).await??;
        if let MetadataOutcome::StoreGroup(group) = &carried_out.1
            && joins
        {
            // Who joins here has said what there is to say.
            self.core.heard_ids.lock().told(group.id);
        }
        Ok(carried_out)
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
