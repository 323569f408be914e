//! Changes of a group's progress, as they are in the log.
//!
//! Body, little endian: group id 4, topic id 4, kind 1, then by kind:
//! 1 delivered: at 8, visible at 8, owned 1 (and owner 8), runs of deliveries, dropped runs, cursors
//! 2 acked: runs; 3 visibility changed: visible at 8, counted 1, runs; 4 owners renewed: until 8, count 4, owners 8 each.

use bytes::Buf;
use gantry_proto::model::{ClientHash, GroupId, QueueId, QueueOffset, Timestamp, TopicId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryRecord {
    Delivered {
        at: Timestamp,
        visible_at: Timestamp,
        owner: Option<ClientHash>,
        deliveries: Vec<(QueueId, QueueOffset, u32)>,
        dropped: Vec<(QueueId, QueueOffset)>,
        cursors: Vec<(QueueId, QueueOffset)>,
    },
    Acked {
        entries: Vec<(QueueId, QueueOffset)>,
    },
    VisibilityChanged {
        visible_at: Timestamp,
        counted: bool,
        entries: Vec<(QueueId, QueueOffset)>,
    },
    OwnersRenewed {
        until: Timestamp,
        owners: Vec<ClientHash>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delivery record is damaged")]
pub(crate) struct Malformed;

impl DeliveryRecord {
    pub(crate) fn encode(&self, group: GroupId, topic: TopicId, out: &mut Vec<u8>) {
        out.extend_from_slice(&group.0.to_le_bytes());
        out.extend_from_slice(&topic.0.to_le_bytes());
        match self {
            DeliveryRecord::Delivered {
                at,
                visible_at,
                owner,
                deliveries,
                dropped,
                cursors,
            } => {
                out.push(1);
                out.extend_from_slice(&at.as_millis().to_le_bytes());
                out.extend_from_slice(&visible_at.as_millis().to_le_bytes());
                out.push(owner.is_some() as u8);
                if let Some(owner) = owner {
                    out.extend_from_slice(&owner.0.to_le_bytes());
                }
                out.extend_from_slice(&(deliveries.len() as u32).to_le_bytes());
                for (q, o, a) in deliveries {
                    out.extend_from_slice(&q.0.to_le_bytes());
                    out.extend_from_slice(&o.0.to_le_bytes());
                    out.extend_from_slice(&a.to_le_bytes());
                }
                pairs(out, dropped);
                pairs(out, cursors);
            }
            DeliveryRecord::Acked { entries } => {
                out.push(2);
                pairs(out, entries);
            }
            DeliveryRecord::VisibilityChanged {
                visible_at,
                counted,
                entries,
            } => {
                out.push(3);
                out.extend_from_slice(&visible_at.as_millis().to_le_bytes());
                out.push(*counted as u8);
                pairs(out, entries);
            }
            DeliveryRecord::OwnersRenewed { until, owners } => {
                out.push(4);
                out.extend_from_slice(&until.as_millis().to_le_bytes());
                out.extend_from_slice(&(owners.len() as u32).to_le_bytes());
                for o in owners {
                    out.extend_from_slice(&o.0.to_le_bytes());
                }
            }
        }
    }
    pub(crate) fn decode(mut b: &[u8]) -> Result<(GroupId, TopicId, DeliveryRecord), Malformed> {
        let b = &mut b;
        let g = GroupId(b.try_get_u32_le().map_err(|_| Malformed)?);
        let t = TopicId(b.try_get_u32_le().map_err(|_| Malformed)?);
        let time = |b: &mut &[u8]| b.try_get_u64_le().map(Timestamp::from_millis).map_err(|_| Malformed);
        let r = match b.try_get_u8().map_err(|_| Malformed)? {
            1 => {
                let (at, visible_at) = (time(b)?, time(b)?);
                let owner = if b.try_get_u8().map_err(|_| Malformed)? != 0 {
                    Some(ClientHash(b.try_get_u64_le().map_err(|_| Malformed)?))
                } else {
                    None
                };
                let n = b.try_get_u32_le().map_err(|_| Malformed)?;
                let mut deliveries = Vec::new();
                for _ in 0..n {
                    deliveries.push((
                        QueueId(b.try_get_u32_le().map_err(|_| Malformed)?),
                        QueueOffset(b.try_get_u64_le().map_err(|_| Malformed)?),
                        b.try_get_u32_le().map_err(|_| Malformed)?,
                    ));
                }
                DeliveryRecord::Delivered {
                    at,
                    visible_at,
                    owner,
                    deliveries,
                    dropped: unpairs(b)?,
                    cursors: unpairs(b)?,
                }
            }
            2 => DeliveryRecord::Acked { entries: unpairs(b)? },
            3 => DeliveryRecord::VisibilityChanged {
                visible_at: time(b)?,
                counted: b.try_get_u8().map_err(|_| Malformed)? != 0,
                entries: unpairs(b)?,
            },
            4 => {
                let until = time(b)?;
                let n = b.try_get_u32_le().map_err(|_| Malformed)?;
                let mut owners = Vec::new();
                for _ in 0..n {
                    owners.push(ClientHash(b.try_get_u64_le().map_err(|_| Malformed)?));
                }
                DeliveryRecord::OwnersRenewed { until, owners }
            }
            _ => return Err(Malformed),
        };
        Ok((g, t, r))
    }
}
fn pairs(out: &mut Vec<u8>, e: &[(QueueId, QueueOffset)]) {
    out.extend_from_slice(&(e.len() as u32).to_le_bytes());
    for (q, o) in e {
        out.extend_from_slice(&q.0.to_le_bytes());
        out.extend_from_slice(&o.0.to_le_bytes());
    }
}
fn unpairs(b: &mut &[u8]) -> Result<Vec<(QueueId, QueueOffset)>, Malformed> {
    let n = b.try_get_u32_le().map_err(|_| Malformed)?;
    let mut v = Vec::new();
    for _ in 0..n {
        v.push((
            QueueId(b.try_get_u32_le().map_err(|_| Malformed)?),
            QueueOffset(b.try_get_u64_le().map_err(|_| Malformed)?),
        ));
    }
    Ok(v)
}
