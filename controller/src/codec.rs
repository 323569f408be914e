//! Commands and states as bytes: what the journal and snapshots hold, and later a replicated log.
//!
//! Written by hand so that every byte is accounted for. What must always hold:
//! - Numbers given to kinds and fields never change their meaning. A change of a layout is a new version, and every older
//!   version stays readable.
//! - Decoding accepts any bytes: what cannot be right is an error, never a panic, and never more memory than bytes given.
//!
//! All numbers are little endian. One file per record kind.

mod backoff;
mod command;
mod fields;
mod group;
mod state;
mod topic;

pub(crate) use command::{decode_command, encode_command};
pub(crate) use fields::Reader;
pub(crate) use state::{decode_state, encode_state};

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Written by a newer program. Not damage: nothing may be cut off or overwritten because of it.
    #[error("record version {found} is newer than this program understands ({known})")]
    Newer {
        /// The version of the record.
        found: u8,
        /// The newest that this program understands.
        known: u8,
    },
    /// Not what was written.
    #[error("{0}")]
    Damaged(&'static str),
}
