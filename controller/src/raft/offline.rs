//! The metadata that a member's folder holds, without a controller: for who compares folders with each other.
//!
//! All entries count, also those of which it is not known that most members have them.

use super::codec::{need, read_entry, read_snapshot_meta};
use super::disk::SNAPSHOT;
use super::state_machine::beyond;
use super::type_config::Membership;
use crate::codec::{CodecError, unseal};
use crate::state::{MetadataState, Rules};
use gantry_proto::wire::controller::v1 as wire;
use openraft::EntryPayload;

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct FolderMetadata {
    /// The metadata.
    pub state: MetadataState,
    /// The addresses of the members.
    pub members: Vec<String>,
}

impl FolderMetadata {
    /// From all values of the database, as [`super::read_values`] gives them.
    pub(crate) fn of(values: &[(String, Vec<u8>)]) -> Result<FolderMetadata, CodecError> {
        let mut found = FolderMetadata::default();
        let mut last = None;
        if let Some((_, snapshot)) = values.iter().find(|(name, _)| name == SNAPSHOT) {
            let wire::StoredSnapshot { meta, state } = unseal(snapshot)?;
            let meta = read_snapshot_meta(need(meta, "the description of a snapshot")?)?;
            last = meta.last_log_id.map(|last| last.index);
            found.state = MetadataState::unsealed(&state)?;
            found.joined_by(meta.last_membership.membership());
            if let Some(newer) = beyond(&found.state, Rules::NEWEST.number()) {
                return Err(newer);
            }
        }
        for (_, entry) in values.iter().filter(|(name, _)| name.starts_with("log ")) {
            let entry = read_entry(unseal(entry)?)?;
            if last.is_some_and(|last| entry.log_id.index <= last) {
                continue;
            }
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => found.joined_by(&membership),
                EntryPayload::Normal(batch) => {
                    if let Some(newer) = batch.beyond(Rules::NEWEST.number()) {
                        return Err(newer);
                    }
                    for command in batch.commands.iter() {
                        // A refusal is an answer like any other.
                        let _ = found.state.apply(command, batch.at);
                    }
                }
            }
        }
        Ok(found)
    }

    fn joined_by(&mut self, membership: &Membership) {
        self.members = membership.nodes().map(|(_, node)| node.addr.clone()).collect();
    }
}
