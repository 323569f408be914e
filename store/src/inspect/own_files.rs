//! The two small files that are a replica's own: how far its disk has the log, and who it is.

use super::{InspectError, io_error};
use crate::commit_log::positions::{self, POSITIONS_NAME, Positions, Slot};
use crate::identity::{COPY, Identity, IdentityError, NAME};
use gantry_proto::env::Files;
use gantry_proto::model::{ClusterId, Epoch, FolderId, LogOffset, StoreGroupId, StoreGroupName, Timestamp};
use std::path::Path;

/// One of the two places in the positions file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionsSlot {
    Whole {
        /// The slot with the larger one counts.
        sequence: u64,
        positions: PositionsFacts,
    },
    /// Of a later version, with that format.
    Newer(u32),
    /// Its checksum does not match.
    Damaged,
}

/// How far a disk has the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionsFacts {
    /// The folder that it belongs to.
    pub folder: FolderId,
    /// Where the log begins.
    pub retained_from: LogOffset,
    /// Where the newest segment begins.
    pub sealed_to: LogOffset,
    /// Up to here the log was on this disk.
    pub flushed_to: LogOffset,
    /// Up to here consumers see it.
    pub confirmed_to: LogOffset,
    /// The epoch that it goes on in.
    pub epoch: Epoch,
    /// Answers were given before the log was flushed.
    pub answered_unflushed: bool,
    /// The time that retention believed last. The file says 0 when it has not looked yet.
    pub time: Timestamp,
}

/// One of the two files with a folder's identity.
#[derive(Debug)]
pub struct IdentityCopy {
    pub name: &'static str,
    /// What it says; `None`: it is missing. The text says what is wrong with it.
    pub facts: Result<Option<IdentityFacts>, String>,
    /// A later version wrote it.
    pub newer: bool,
}

/// Who a folder is. The key of its receipt handles is in the file, too, and never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFacts {
    pub folder: FolderId,
    /// How often the file was written.
    pub written: u64,
    /// The last epoch that may have written to the folder.
    pub last_epoch: Epoch,
    /// Where it belongs, once it has joined a cluster.
    pub home: Option<(ClusterId, StoreGroupId, StoreGroupName)>,
}

/// Both slots of the positions file in a store's folder. `None`: there is no such file.
pub fn read_positions(files: &dyn Files, dir: &Path) -> Result<Option<[PositionsSlot; 2]>, InspectError> {
    let slots = positions::slots(files, dir).map_err(io_error("reading", dir.join(POSITIONS_NAME)))?;
    Ok(slots.map(|slots| {
        slots.map(|slot| match slot {
            Slot::Held(sequence, positions) => PositionsSlot::Whole { sequence, positions: positions.into() },
            Slot::Newer(format) => PositionsSlot::Newer(format),
            Slot::Damaged => PositionsSlot::Damaged,
        })
    }))
}

/// The identity of a store's folder and its copy.
pub fn read_identity(files: &dyn Files, dir: &Path) -> [IdentityCopy; 2] {
    [NAME, COPY].map(|name| {
        let found = Identity::read_one(files, dir, name);
        let newer = matches!(found, Err(IdentityError::Newer { .. } | IdentityError::NewerField { .. }));
        let facts = match found {
            Ok(identity) => Ok(identity.map(IdentityFacts::from)),
            Err(IdentityError::Damaged) => Err("it is damaged: its checksum does not match".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        IdentityCopy { name, facts, newer }
    })
}

impl From<Positions> for PositionsFacts {
    fn from(positions: Positions) -> PositionsFacts {
        let Positions { folder, retained_from, sealed_to, flushed_to, confirmed_to, epoch, answered_unflushed, time } =
            positions;
        let time = time.unwrap_or(Timestamp::ZERO);
        PositionsFacts { folder, retained_from, sealed_to, flushed_to, confirmed_to, epoch, answered_unflushed, time }
    }
}

impl From<Identity> for IdentityFacts {
    fn from(identity: Identity) -> IdentityFacts {
        let written = identity.written();
        let home = identity.home.map(|home| (home.cluster, home.group, home.name));
        IdentityFacts { folder: identity.folder, written, last_epoch: identity.last_epoch, home }
    }
}
