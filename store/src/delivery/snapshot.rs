//! A delivery state in a checkpoint.
//!
//! Layout, little endian, format 1: format 1; number of queues 4, each: next offset 8, number of outstanding 4, each:
//! offset 8, lease 8, attempt 4, flags 1 (1 counted, 2 owned), visible at or latest 8, owner 8 (if owned);
//! number of owners 4, each, sorted: owner 8, until 8.

use super::state::{DeliveryState, OwnerLease, Visibility};
use bytes::{Buf, BufMut, BytesMut};
use gantry_proto::model::{ClientHash, LogOffset, QueueId, QueueOffset, Timestamp};

/// Bytes that are not a delivery state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedSnapshot {
    #[error("it is damaged")]
    Damaged,
    #[error("format {0} is newer than this program understands")]
    Newer(u8),
}

impl From<bytes::TryGetError> for MalformedSnapshot {
    fn from(_: bytes::TryGetError) -> MalformedSnapshot {
        MalformedSnapshot::Damaged
    }
}

const FORMAT: u8 = 1;
const COUNTED: u8 = 1;
const OWNED: u8 = 2;

impl DeliveryState {
    /// Appends everything that records made; what is derived is left out.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(FORMAT);
        out.put_u32_le(self.queues.len() as u32);
        for progress in &self.queues {
            out.put_u64_le(progress.next.0);
            out.put_u32_le(progress.outstanding.len() as u32);
            for (offset, held) in &progress.outstanding {
                out.put_u64_le(offset.0);
                out.put_u64_le(held.lease.0);
                out.put_u32_le(held.attempt);
                let counted = if held.counted { COUNTED } else { 0 };
                match held.visibility {
                    Visibility::At(time) => {
                        out.put_u8(counted);
                        out.put_u64_le(time.as_millis());
                    }
                    Visibility::Owned { owner, latest } => {
                        out.put_u8(counted | OWNED);
                        out.put_u64_le(latest.as_millis());
                        out.put_u64_le(owner.0);
                    }
                }
            }
        }
        let mut owners: Vec<_> = self.owners.iter().collect();
        owners.sort_unstable_by_key(|(owner, _)| **owner);
        out.put_u32_le(owners.len() as u32);
        for (owner, lease) in owners {
            out.put_u64_le(owner.0);
            out.put_u64_le(lease.until.as_millis());
        }
    }

    /// Reads what [`DeliveryState::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<DeliveryState, MalformedSnapshot> {
        let mut rest = bytes;
        match rest.try_get_u8()? {
            FORMAT => {}
            format if format > FORMAT => return Err(MalformedSnapshot::Newer(format)),
            _ => return Err(MalformedSnapshot::Damaged),
        }
        let mut state = DeliveryState::default();
        let mut outstanding = Vec::new();
        for queue in 0..rest.try_get_u32_le()? {
            let queue = QueueId(queue);
            state.queue_mut(queue).next = QueueOffset(rest.try_get_u64_le()?);
            for _ in 0..rest.try_get_u32_le()? {
                let place = (queue, QueueOffset(rest.try_get_u64_le()?));
                let (lease, attempt) = (LogOffset(rest.try_get_u64_le()?), rest.try_get_u32_le()?);
                let (flags, time) = (rest.try_get_u8()?, Timestamp::from_millis(rest.try_get_u64_le()?));
                let visibility = if flags & OWNED != 0 {
                    Visibility::Owned {
                        owner: ClientHash(rest.try_get_u64_le()?),
                        latest: time,
                    }
                } else {
                    Visibility::At(time)
                };
                outstanding.push((place, lease, attempt, flags & COUNTED != 0, visibility));
            }
        }
        for _ in 0..rest.try_get_u32_le()? {
            let owner = ClientHash(rest.try_get_u64_le()?);
            let until = Timestamp::from_millis(rest.try_get_u64_le()?);
            state.owners.insert(owner, OwnerLease { until, holds: 0 });
        }
        // After the owners: when a message becomes visible depends on them.
        for (place, lease, attempt, counted, visibility) in outstanding {
            state.put(place, lease, attempt, counted, visibility);
        }
        if rest.is_empty() {
            Ok(state)
        } else {
            Err(MalformedSnapshot::Damaged)
        }
    }
}
