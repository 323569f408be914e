//! A number for what a state holds: members whose numbers differ at the same entry of the log have decided differently.
//!
//! The objects' part is kept up to date with each change, so a digest costs what changed, not what there is. It is computed
//! from the objects' bytes as snapshots hold them; a program that writes them differently under the same rules differs.

use gantry_proto::convert::Wire;
use gantry_proto::model::fnv1a;
use prost::Message;
use std::sync::Arc;

/// The sum of all objects' numbers. Which order they came in does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectSum(u64);

impl ObjectSum {
    /// One object came, went, or became another.
    pub(super) fn replace<T: Wire<Message: Message>>(&mut self, before: Option<&Arc<T>>, after: Option<&Arc<T>>) {
        let number = |object: Option<&Arc<T>>| object.map_or(0, |object| mixed(&object.to_wire().encode_to_vec()));
        self.0 = self.0.wrapping_sub(number(before)).wrapping_add(number(after));
    }

    /// With what is not an object.
    pub(super) fn with(self, rest: &impl Message) -> u64 {
        self.0.wrapping_add(mixed(&rest.encode_to_vec()))
    }
}

/// FNV-1a, and a last step that spreads each bit over all: sums of such numbers do not cancel by chance.
fn mixed(bytes: &[u8]) -> u64 {
    let hashed = fnv1a(bytes.iter().copied());
    let hashed = (hashed ^ (hashed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hashed = (hashed ^ (hashed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hashed ^ (hashed >> 31)
}
