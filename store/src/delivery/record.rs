//! Changes of a group's progress, as they are in the log.
//!
//! Layout, little endian: group id 4, topic id 4, tag 1, then by tag. The tags are on disk and never change.
//!
//! | tag | record | fields |
//! |---|---|---|
//! | 1 | delivered | at 8, visible at 8, owned 1, owner 8 (if owned), deliveries, dropped places, cursors |
//! | 2 | acked | places |
//! | 3 | visibility changed | visible at 8, counted 1, places |
//! | 4 | owners renewed | until 8, count 4, owners 8 each |
//!
//! Times are milliseconds since the Unix epoch. Places: number of runs 4, each: queue 4, first offset 8, length 4.
//! Deliveries: the same with the attempt 4 behind each run's length. Cursors: count 4, each: queue 4, next offset 8.

use bytes::Buf;
use gantry_proto::model::{ClientHash, GroupId, QueueId, QueueOffset, Timestamp, TopicId};

/// A message of a topic.
pub(crate) type Place = (QueueId, QueueOffset);

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryRecord {
    /// Messages went out to a consumer.
    Delivered {
        /// When.
        at: Timestamp,
        /// When they come back if nothing happens.
        visible_at: Timestamp,
        /// The client whose life extends the leases.
        owner: Option<ClientHash>,
        /// Each with its attempt, counted from 1.
        deliveries: Vec<(QueueId, QueueOffset, u32)>,
        /// Messages that waited for another delivery and will not get one: they expired, or do not match.
        dropped: Vec<Place>,
        /// Where queues go on, for those that moved.
        cursors: Vec<(QueueId, QueueOffset)>,
    },
    /// Deliveries were finished.
    Acked {
        /// Which.
        entries: Vec<Place>,
    },
    /// Messages that were delivered become visible at another time.
    VisibilityChanged {
        /// When.
        visible_at: Timestamp,
        /// Whether their next delivery is another attempt.
        counted: bool,
        /// Which.
        entries: Vec<Place>,
    },
    /// Clients are alive.
    OwnersRenewed {
        /// Their leases last until then, at least.
        until: Timestamp,
        /// Which.
        owners: Vec<ClientHash>,
    },
}

/// Bytes that are not a delivery record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delivery record is damaged")]
pub(crate) struct MalformedDelivery;

impl From<bytes::TryGetError> for MalformedDelivery {
    fn from(_: bytes::TryGetError) -> MalformedDelivery {
        MalformedDelivery
    }
}

const DELIVERED: u8 = 1;
const ACKED: u8 = 2;
const VISIBILITY_CHANGED: u8 = 3;
const OWNERS_RENEWED: u8 = 4;

impl DeliveryRecord {
    /// Appends the record's body.
    pub(crate) fn encode(&self, group: GroupId, topic: TopicId, out: &mut Vec<u8>) {
        put_u32(out, group.0);
        put_u32(out, topic.0);
        match self {
            DeliveryRecord::Delivered {
                at,
                visible_at,
                owner,
                deliveries,
                dropped,
                cursors,
            } => {
                out.push(DELIVERED);
                put_u64(out, at.as_millis());
                put_u64(out, visible_at.as_millis());
                out.push(u8::from(owner.is_some()));
                if let Some(owner) = owner {
                    put_u64(out, owner.0);
                }
                let same_run = |run: &(QueueId, QueueOffset, u32), next: &(QueueId, QueueOffset, u32), len: u32| {
                    run.0 == next.0 && run.1.0 + u64::from(len) == next.1.0 && run.2 == next.2
                };
                put_runs(out, deliveries, same_run, |out, (queue, first, attempt), len| {
                    put_run(out, (*queue, *first), len);
                    put_u32(out, *attempt);
                });
                put_places(out, dropped);
                put_u32(out, cursors.len() as u32);
                for (queue, next) in cursors {
                    put_u32(out, queue.0);
                    put_u64(out, next.0);
                }
            }
            DeliveryRecord::Acked { entries } => {
                out.push(ACKED);
                put_places(out, entries);
            }
            DeliveryRecord::VisibilityChanged {
                visible_at,
                counted,
                entries,
            } => {
                out.push(VISIBILITY_CHANGED);
                put_u64(out, visible_at.as_millis());
                out.push(u8::from(*counted));
                put_places(out, entries);
            }
            DeliveryRecord::OwnersRenewed { until, owners } => {
                out.push(OWNERS_RENEWED);
                put_u64(out, until.as_millis());
                put_u32(out, owners.len() as u32);
                owners.iter().for_each(|owner| put_u64(out, owner.0));
            }
        }
    }

    /// Reads a record's body.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(GroupId, TopicId, DeliveryRecord), MalformedDelivery> {
        let mut rest = bytes;
        let (group, topic) = (GroupId(rest.try_get_u32_le()?), TopicId(rest.try_get_u32_le()?));
        let record = match rest.try_get_u8()? {
            DELIVERED => {
                let (at, visible_at) = (get_time(&mut rest)?, get_time(&mut rest)?);
                let owned = rest.try_get_u8()? != 0;
                let owner = if owned {
                    Some(ClientHash(rest.try_get_u64_le()?))
                } else {
                    None
                };
                let mut deliveries = Vec::new();
                for _ in 0..rest.try_get_u32_le()? {
                    let run = get_run(&mut rest)?;
                    let attempt = rest.try_get_u32_le()?;
                    deliveries.extend(run.map(|(queue, offset)| (queue, offset, attempt)));
                }
                let dropped = get_places(&mut rest)?;
                let mut cursors = Vec::new();
                for _ in 0..rest.try_get_u32_le()? {
                    cursors.push((QueueId(rest.try_get_u32_le()?), QueueOffset(rest.try_get_u64_le()?)));
                }
                DeliveryRecord::Delivered {
                    at,
                    visible_at,
                    owner,
                    deliveries,
                    dropped,
                    cursors,
                }
            }
            ACKED => DeliveryRecord::Acked {
                entries: get_places(&mut rest)?,
            },
            VISIBILITY_CHANGED => DeliveryRecord::VisibilityChanged {
                visible_at: get_time(&mut rest)?,
                counted: rest.try_get_u8()? != 0,
                entries: get_places(&mut rest)?,
            },
            OWNERS_RENEWED => {
                let until = get_time(&mut rest)?;
                let mut owners = Vec::new();
                for _ in 0..rest.try_get_u32_le()? {
                    owners.push(ClientHash(rest.try_get_u64_le()?));
                }
                DeliveryRecord::OwnersRenewed { until, owners }
            }
            _ => return Err(MalformedDelivery),
        };
        if rest.is_empty() {
            Ok((group, topic, record))
        } else {
            Err(MalformedDelivery)
        }
    }
}

/// More messages than any record has: a damaged length must not fill the memory.
const RUN_LEN_MAX: u32 = 1 << 20;

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_run(out: &mut Vec<u8>, (queue, first): Place, len: u32) {
    put_u32(out, queue.0);
    put_u64(out, first.0);
    put_u32(out, len);
}

fn put_places(out: &mut Vec<u8>, places: &[Place]) {
    let same_run = |run: &Place, next: &Place, len: u32| run.0 == next.0 && run.1.0 + u64::from(len) == next.1.0;
    put_runs(out, places, same_run, |out, place, len| put_run(out, *place, len));
}

/// Writes the number of runs and each run: `same_run(first of a run, next item, length so far)` says where one goes on.
fn put_runs<T>(
    out: &mut Vec<u8>,
    items: &[T],
    same_run: impl Fn(&T, &T, u32) -> bool,
    put: impl Fn(&mut Vec<u8>, &T, u32),
) {
    let count_at = out.len();
    put_u32(out, 0);
    let (mut count, mut rest) = (0u32, items);
    while let Some(first) = rest.first() {
        let mut len = 1;
        while rest.get(len as usize).is_some_and(|next| same_run(first, next, len)) {
            len += 1;
        }
        put(out, first, len);
        count += 1;
        rest = &rest[len as usize..];
    }
    out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
}

fn get_time(rest: &mut &[u8]) -> Result<Timestamp, MalformedDelivery> {
    Ok(Timestamp::from_millis(rest.try_get_u64_le()?))
}

fn get_run(rest: &mut &[u8]) -> Result<impl Iterator<Item = Place> + use<>, MalformedDelivery> {
    let (queue, first, len) = (
        QueueId(rest.try_get_u32_le()?),
        rest.try_get_u64_le()?,
        rest.try_get_u32_le()?,
    );
    if len > RUN_LEN_MAX {
        return Err(MalformedDelivery);
    }
    let end = first.checked_add(u64::from(len)).ok_or(MalformedDelivery)?;
    Ok((first..end).map(move |offset| (queue, QueueOffset(offset))))
}

fn get_places(rest: &mut &[u8]) -> Result<Vec<Place>, MalformedDelivery> {
    let mut places = Vec::new();
    for _ in 0..rest.try_get_u32_le()? {
        places.extend(get_run(rest)?);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn places() -> impl Strategy<Value = Vec<Place>> {
        vec(
            (0u32..3, 0u64..9).prop_map(|(queue, offset)| (QueueId(queue), QueueOffset(offset))),
            0..20,
        )
    }

    fn records() -> impl Strategy<Value = DeliveryRecord> {
        let time = any::<u64>().prop_map(Timestamp::from_millis);
        let owner = any::<u64>().prop_map(ClientHash);
        let deliveries = vec((0u32..3, 0u64..9, 1u32..3), 0..20);
        prop_oneof![
            (
                time.clone(),
                time.clone(),
                proptest::option::of(owner.clone()),
                deliveries,
                places(),
                places()
            )
                .prop_map(|(at, visible_at, owner, deliveries, dropped, cursors)| {
                    DeliveryRecord::Delivered {
                        at,
                        visible_at,
                        owner,
                        deliveries: deliveries
                            .into_iter()
                            .map(|(q, o, a)| (QueueId(q), QueueOffset(o), a))
                            .collect(),
                        dropped,
                        cursors,
                    }
                }),
            places().prop_map(|entries| DeliveryRecord::Acked { entries }),
            (time.clone(), any::<bool>(), places()).prop_map(|(visible_at, counted, entries)| {
                DeliveryRecord::VisibilityChanged {
                    visible_at,
                    counted,
                    entries,
                }
            }),
            (time, vec(owner, 0..5)).prop_map(|(until, owners)| DeliveryRecord::OwnersRenewed { until, owners }),
        ]
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(record in records(), group: u32, topic: u32) {
            let (group, topic) = (GroupId(group), TopicId(topic));
            let mut bytes = Vec::new();
            record.encode(group, topic, &mut bytes);
            prop_assert_eq!(DeliveryRecord::decode(&bytes), Ok((group, topic, record)));
        }

        #[test]
        fn damaged_bytes_are_errors_and_never_panics(bytes in vec(any::<u8>(), 0..200)) {
            let _ = DeliveryRecord::decode(&bytes);
        }
    }

    #[test]
    fn a_batch_of_consecutive_messages_is_one_run() {
        let deliveries = (0..32).map(|offset| (QueueId(1), QueueOffset(offset), 1)).collect();
        let (at, visible_at) = (Timestamp::ZERO, Timestamp::MAX);
        let record = DeliveryRecord::Delivered {
            at,
            visible_at,
            owner: None,
            deliveries,
            dropped: vec![],
            cursors: vec![],
        };
        let mut bytes = Vec::new();
        record.encode(GroupId(1), TopicId(1), &mut bytes);
        assert!(bytes.len() < 64, "{} bytes", bytes.len());
    }
}
