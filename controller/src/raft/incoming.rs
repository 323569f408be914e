//! A snapshot that another member sends, part by part.

use super::codec::{need, read_snapshot_meta, read_vote};
use super::type_config::{SnapshotMeta, Vote};
use crate::codec::CodecError;
use bytes::{Bytes, BytesMut};
use gantry_proto::wire::controller::v1 as wire;
use parking_lot::Mutex;

/// Bytes of one part.
pub(super) const PART_BYTES: usize = 8 << 20;
/// Bytes of a whole state: far more than the largest cluster's, and few enough to be held twice.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 2 << 30;

/// What came of a part.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// More are to come.
    Part,
    /// It was the last one.
    Whole(Vote, SnapshotMeta, Bytes),
    /// It does not follow the parts that are here: the sender begins anew.
    OutOfOrder,
}

/// The snapshot that is on its way. One at a time: another one takes its place.
#[derive(Default)]
pub(super) struct Incoming {
    begun: Mutex<Option<Begun>>,
}

struct Begun {
    vote: wire::Vote,
    meta: wire::SnapshotMeta,
    total: u64,
    bytes: BytesMut,
}

impl Incoming {
    pub(super) fn take(&self, message: wire::InstallSnapshot) -> Result<Taken, CodecError> {
        let wire::InstallSnapshot { vote, meta, part, offset, total } = message;
        let vote = need(vote, "the vote of a leader")?;
        let meta = need(meta, "the description of a snapshot")?;
        let mut place = self.begun.lock();
        if offset == 0 {
            *place = Some(Begun { vote, meta: meta.clone(), total, bytes: BytesMut::new() });
        }
        let Some(begun) = place.as_mut().filter(|begun| {
            let same = (begun.vote, &begun.meta, begun.total) == (vote, &meta, total);
            let len = begun.bytes.len() as u64;
            same && offset == len && len + part.len() as u64 <= total && total <= SNAPSHOT_BYTES_MAX
        }) else {
            *place = None;
            return Ok(Taken::OutOfOrder);
        };
        begun.bytes.extend_from_slice(&part);
        if (begun.bytes.len() as u64) < total {
            return Ok(Taken::Part);
        }
        let bytes = std::mem::take(&mut begun.bytes).freeze();
        *place = None;
        Ok(Taken::Whole(read_vote(vote), read_snapshot_meta(meta)?, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{put_snapshot_meta, put_vote};
    use super::*;

    fn part(term: u64, offset: u64, part: &'static [u8], total: u64) -> wire::InstallSnapshot {
        let vote = Vote { leader_id: super::super::type_config::LeaderId { term, node_id: 1 }, committed: true };
        wire::InstallSnapshot {
            vote: Some(put_vote(&vote)),
            meta: Some(put_snapshot_meta(&SnapshotMeta::default())),
            part: Bytes::from_static(part),
            offset,
            total,
        }
    }

    fn whole(taken: Taken) -> Bytes {
        match taken {
            Taken::Whole(_, _, bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_make_a_whole_in_their_order_only() {
        let incoming = Incoming::default();
        assert_eq!(incoming.take(part(1, 0, b"abc", 5)), Ok(Taken::Part));
        assert_eq!(whole(incoming.take(part(1, 3, b"de", 5)).unwrap()), b"abcde"[..]);
        // Nothing is left of it.
        assert_eq!(incoming.take(part(1, 3, b"de", 5)), Ok(Taken::OutOfOrder));
        for wrong in [part(1, 2, b"de", 5), part(2, 3, b"de", 5), part(1, 3, b"de", 6), part(1, 3, b"def", 5)] {
            assert_eq!(incoming.take(part(1, 0, b"abc", 5)), Ok(Taken::Part));
            assert_eq!(incoming.take(wrong), Ok(Taken::OutOfOrder));
        }
        assert_eq!(whole(incoming.take(part(1, 0, b"", 0)).unwrap()), b""[..]);
    }

    #[test]
    fn another_snapshot_takes_the_place_of_one_that_is_on_its_way() {
        let incoming = Incoming::default();
        assert_eq!(incoming.take(part(1, 0, b"abc", 5)), Ok(Taken::Part));
        assert_eq!(whole(incoming.take(part(2, 0, b"xy", 2)).unwrap()), b"xy"[..]);
        assert_eq!(incoming.take(part(1, 3, b"de", 5)), Ok(Taken::OutOfOrder));
    }
}
