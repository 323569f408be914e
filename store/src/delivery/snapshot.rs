//! The truth in a checkpoint.
//!
//! Layout, little endian, format 1: format 1; turn 4;
//! number of owners 4, each: owner 8, until 8, sorted;
//! number of queues 4, each: queue 4, next 8, its outstanding messages as runs (see [`super::runs`]), sorted, with in
//! common: lease 8, attempt 4, flags 1 (1: counted, 2: owned), and visible at 8 or, if owned, owner 8 and latest 8; then
//! its damaged messages as runs, sorted.

use super::runs::{Malformed, end, put_runs, take_owner, take_runs, take_time};
use super::state::{DeliveryState, Outstanding, QueueProgress, Visibility};
use bytes::{Buf, BufMut, BytesMut};
use gantry_proto::model::{ClientHash, LogOffset, QueueId, QueueOffset, Timestamp};
use std::collections::BTreeMap;

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// By a later version of this program.
    #[error("it was written in format {0}, this gantry knows {FORMAT}")]
    Newer(u8),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Each part can be read, but they do not fit together.
    #[error("{0}")]
    Contradiction(&'static str),
}

const FORMAT: u8 = 1;
const COUNTED: u8 = 1;
const OWNED: u8 = 2;

impl DeliveryState {
    /// Appends the state, without what is derived.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(FORMAT);
        out.put_u32_le(self.turn.0);
        let leases = self.schedule.owner_leases();
        out.put_u32_le(leases.len() as u32);
        for (owner, until) in leases {
            out.put_u64_le(owner.0);
            out.put_u64_le(until.as_millis());
        }
        out.put_u32_le(self.queues.len() as u32);
        for (queue, progress) in &self.queues {
            out.put_u32_le(queue.0);
            out.put_u64_le(progress.next.0);
            let outstanding = progress.outstanding.iter();
            put_runs(out, outstanding.map(|(offset, outstanding)| (*queue, *offset, *outstanding)), put_outstanding);
            put_runs(out, progress.damaged.iter().map(|offset| (*queue, offset, ())), |_, ()| {});
        }
    }

    /// Reads a state. It is equal to the one that was written.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<DeliveryState, SnapshotError> {
        let bytes = &mut bytes;
        let format = bytes.try_get_u8().map_err(Malformed::from)?;
        if format != FORMAT {
            return Err(SnapshotError::Newer(format));
        }
        let turn = QueueId(take_u32(bytes)?);
        let mut leases = BTreeMap::new();
        for _ in 0..take_u32(bytes)? {
            leases.insert(take_owner(bytes)?, take_time(bytes)?);
        }
        let mut state = DeliveryState::default();
        for _ in 0..take_u32(bytes)? {
            state.decode_queue(bytes, &leases)?;
        }
        state.turn = turn;
        if state.schedule.owner_leases().len() != leases.len() {
            return Err(SnapshotError::Contradiction("an owner holds nothing"));
        }
        end(bytes)?;
        Ok(state)
    }

    fn decode_queue(
        &mut self,
        bytes: &mut &[u8],
        leases: &BTreeMap<ClientHash, Timestamp>,
    ) -> Result<(), SnapshotError> {
        let queue = QueueId(take_u32(bytes)?);
        let next = QueueOffset(bytes.try_get_u64_le().map_err(Malformed::from)?);
        let progress = QueueProgress { next, ..QueueProgress::default() };
        if self.queues.insert(queue, progress).is_some() {
            return Err(SnapshotError::Contradiction("a queue is there twice"));
        }
        take_runs(bytes, take_outstanding, |own_queue, offset, outstanding| {
            if own_queue != queue || offset >= next || self.outstanding(queue, offset).is_some() {
                return Err(SnapshotError::Contradiction("an outstanding message is out of place"));
            }
            let until = match outstanding.visibility {
                Visibility::At(at) => at,
                Visibility::Owned { owner, .. } => {
                    *leases.get(&owner).ok_or(SnapshotError::Contradiction("an owner has no lease"))?
                }
            };
            self.insert(queue, offset, outstanding, until);
            Ok(())
        })?;
        take_runs(
            bytes,
            |_| Ok(()),
            |own_queue, offset, ()| {
                let taken = self.outstanding(queue, offset).is_some() || self.is_damaged(queue, offset);
                if own_queue != queue || offset >= next || taken {
                    return Err(SnapshotError::Contradiction("a damaged message is out of place"));
                }
                self.insert_damaged(queue, offset);
                Ok(())
            },
        )
    }
}

fn put_outstanding(out: &mut BytesMut, outstanding: &Outstanding) {
    out.put_u64_le(outstanding.lease.0);
    out.put_u32_le(outstanding.attempt);
    let counted = if outstanding.counted { COUNTED } else { 0 };
    match outstanding.visibility {
        Visibility::At(at) => {
            out.put_u8(counted);
            out.put_u64_le(at.as_millis());
        }
        Visibility::Owned { owner, latest } => {
            out.put_u8(counted | OWNED);
            out.put_u64_le(owner.0);
            out.put_u64_le(latest.as_millis());
        }
    }
}

fn take_outstanding(bytes: &mut &[u8]) -> Result<Outstanding, SnapshotError> {
    let lease = LogOffset(bytes.try_get_u64_le().map_err(Malformed::from)?);
    let attempt = take_u32(bytes)?;
    let flags = bytes.try_get_u8().map_err(Malformed::from)?;
    if flags & !(COUNTED | OWNED) != 0 {
        return Err(Malformed::UnknownFlags(flags).into());
    }
    let visibility = if flags & OWNED == 0 {
        Visibility::At(take_time(bytes)?)
    } else {
        let (owner, latest) = (take_owner(bytes)?, take_time(bytes)?);
        Visibility::Owned { owner, latest }
    };
    Ok(Outstanding { lease, attempt, counted: flags & COUNTED != 0, visibility })
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, SnapshotError> {
    Ok(bytes.try_get_u32_le().map_err(Malformed::from)?)
}
