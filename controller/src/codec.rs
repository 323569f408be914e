//! Commands, states and answers as bytes: what the replicated log and snapshots hold, and what members say to each other.
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
mod member;
mod outcome;
mod placement;
mod refusal;
mod state;
mod topic;

pub(crate) use command::{decode_command, encode_command};
pub(crate) use fields::{Reader, put_bool, put_bytes, put_duration, put_list, put_option, put_text};
pub(crate) use member::{put_proxy, put_store_group, read_proxy, read_store_group, read_store_group_name};
pub(crate) use outcome::{put_outcome, read_outcome};
pub(crate) use refusal::{put_refusal, read_refusal};
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
