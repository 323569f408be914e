use super::record::DeliveryRecord;
use super::record::Malformed;
use crate::queue_index::IndexEntry;
use bytes::{Buf, BufMut, BytesMut};
use gantry_proto::contract::StoreError;
use gantry_proto::model::{limits::AUTO_RENEW_MAX, *};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(crate) trait QueueReader {
    fn queue_count(&self) -> u32;
    fn range(&self, queue: QueueId) -> (QueueOffset, QueueOffset);
    fn scan(&self, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError>;
    fn tag_matches(&self, entry: &IndexEntry, matches: &dyn Fn(Option<&str>) -> bool) -> Result<bool, StoreError>;
}
pub(crate) struct PopParams<'a> {
    pub batch_max: usize,
    pub visible_at: Timestamp,
    pub owner: Option<ClientHash>,
    pub filter: &'a FilterExpression,
    pub max_attempts: u32,
    pub inflight_max: usize,
}
pub(crate) struct PopPlan {
    pub record: Option<DeliveryRecord>,
    pub messages: Vec<(IndexEntry, QueueId, u32)>,
    pub more: bool,
    pub inflight_full: bool,
}
pub(crate) struct Held;
#[derive(Debug)]
pub(crate) enum Over {
    Finished,
    Expired,
}
#[derive(Clone, Copy, PartialEq, Debug)]
enum Vis {
    At(Timestamp),
    Owned(ClientHash, Timestamp),
}
#[derive(Clone, Copy, PartialEq, Debug)]
struct Out {
    lease: LogOffset,
    attempt: u32,
    counted: bool,
    vis: Vis,
}
#[derive(Default)]
pub(crate) struct DeliveryState {
    next: BTreeMap<QueueId, QueueOffset>,
    out: BTreeMap<(QueueId, QueueOffset), Out>,
    owners: HashMap<ClientHash, (Timestamp, usize)>,
    sched: BTreeSet<(Timestamp, QueueId, QueueOffset)>,
    cursor: u32,
}
impl DeliveryState {
    fn vis(&self, o: &Out) -> Timestamp {
        match o.vis {
            Vis::At(t) => t,
            Vis::Owned(c, latest) => self.owners.get(&c).map_or(Timestamp::ZERO, |x| x.0).min(latest),
        }
    }
    fn due(&mut self, now: Timestamp, n: usize) -> Vec<(QueueId, QueueOffset, Out)> {
        let mut v = Vec::new();
        let mut re = vec![];
        while v.len() < n {
            let Some(&(t, q, o)) = self.sched.first() else { break };
            if t > now {
                break;
            }
            self.sched.pop_first();
            let Some(x) = self.out.get(&(q, o)).copied() else {
                continue;
            };
            let vis = self.vis(&x);
            if vis > now {
                re.push((vis, q, o));
                continue;
            }
            re.push((vis, q, o));
            v.push((q, o, x));
        }
        self.sched.extend(re);
        v
    }
    pub fn plan_pop(&mut self, now: Timestamp, p: &PopParams, r: &dyn QueueReader) -> Result<PopPlan, StoreError> {
        let (mut deliveries, mut dropped, mut cursors, mut messages) = (vec![], vec![], vec![], vec![]);
        if self.out.len() >= p.inflight_max {
            return Ok(PopPlan {
                record: None,
                messages,
                more: false,
                inflight_full: true,
            });
        }
        let exact = |e: &IndexEntry| -> Result<bool, StoreError> {
            if !p.filter.may_match(e.tag_hash) {
                return Ok(false);
            }
            if *p.filter == FilterExpression::ALL {
                return Ok(true);
            }
            r.tag_matches(e, &|t| p.filter.matches(t))
        };
        let mut buf = vec![];
        for (q, o, x) in self.due(now, p.batch_max * 4) {
            if deliveries.len() >= p.batch_max {
                break;
            }
            if x.counted && x.attempt >= p.max_attempts {
                continue;
            }
            buf.clear();
            r.scan(q, o, 1, &mut buf)?;
            let Some(e) = buf.first().copied() else {
                dropped.push((q, o));
                continue;
            };
            if !exact(&e)? {
                dropped.push((q, o));
                continue;
            }
            let a = if x.counted { x.attempt + 1 } else { x.attempt };
            deliveries.push((q, o, a));
            messages.push((e, q, a));
        }
        let n = r.queue_count();
        let mut more = false;
        for i in 0..n {
            let q = QueueId((self.cursor + i) % n);
            let (min, end) = r.range(q);
            let mut at = self.next.get(&q).copied().unwrap_or_default().max(min);
            let start = self.next.get(&q).copied().unwrap_or_default();
            while at < end && deliveries.len() < p.batch_max {
                buf.clear();
                r.scan(q, at, (end.0 - at.0).min(64) as usize, &mut buf)?;
                if buf.is_empty() {
                    break;
                }
                for e in &buf {
                    if deliveries.len() >= p.batch_max {
                        break;
                    }
                    at = e.queue_offset.next();
                    if exact(e)? {
                        deliveries.push((q, e.queue_offset, 1));
                        messages.push((*e, q, 1));
                    }
                }
            }
            if at != start {
                cursors.push((q, at));
            }
            if at < end {
                more = true;
            }
        }
        if n > 0 {
            self.cursor = (self.cursor + 1) % n;
        }
        let record = (!deliveries.is_empty() || !dropped.is_empty() || !cursors.is_empty()).then_some(
            DeliveryRecord::Delivered {
                at: now,
                visible_at: p.visible_at,
                owner: p.owner,
                deliveries,
                dropped,
                cursors,
            },
        );
        Ok(PopPlan {
            record,
            messages,
            more,
            inflight_full: false,
        })
    }
    pub fn exhausted(
        &mut self,
        now: Timestamp,
        max: u32,
        n: usize,
        _: &dyn QueueReader,
    ) -> Vec<(QueueId, QueueOffset, u32)> {
        self.due(now, n * 4)
            .into_iter()
            .filter(|(_, _, x)| x.counted && x.attempt >= max)
            .take(n)
            .map(|(q, o, x)| (q, o, x.attempt))
            .collect()
    }
    pub fn check(&self, q: QueueId, o: QueueOffset, lease: LogOffset, now: Timestamp) -> Result<Held, Over> {
        match self.out.get(&(q, o)) {
            None => Err(Over::Finished),
            Some(x) if x.lease == lease && self.vis(x) > now => Ok(Held),
            _ => Err(Over::Expired),
        }
    }
    pub fn plan_renewal(&self, owners: &[ClientHash], until: Timestamp) -> Option<DeliveryRecord> {
        let owners: Vec<_> = owners.iter().copied().filter(|o| self.owners.contains_key(o)).collect();
        (!owners.is_empty()).then_some(DeliveryRecord::OwnersRenewed { until, owners })
    }
    pub fn plan_release(&self, owner: ClientHash, visible_at: Timestamp) -> Option<DeliveryRecord> {
        let entries: Vec<_> = self
            .out
            .iter()
            .filter(|(_, x)| matches!(x.vis, Vis::Owned(c,_) if c==owner))
            .map(|(k, _)| *k)
            .collect();
        (!entries.is_empty()).then_some(DeliveryRecord::VisibilityChanged {
            visible_at,
            counted: true,
            entries,
        })
    }
    pub fn next_due(&mut self) -> Option<Timestamp> {
        self.sched.first().map(|x| x.0)
    }
    pub fn inflight(&self) -> usize {
        self.out.len()
    }
    pub fn ready(&self, r: &dyn QueueReader) -> u64 {
        (0..r.queue_count())
            .map(|q| {
                let (min, end) = r.range(QueueId(q));
                end.0
                    - self
                        .next
                        .get(&QueueId(q))
                        .copied()
                        .unwrap_or_default()
                        .max(min)
                        .0
                        .min(end.0)
            })
            .sum()
    }
    fn put(&mut self, k: (QueueId, QueueOffset), x: Out) {
        self.drop_owner(k);
        if let Vis::Owned(c, _) = x.vis {
            self.owners.entry(c).or_default().1 += 1;
        }
        self.out.insert(k, x);
        let v = self.vis(&x);
        self.sched.insert((v, k.0, k.1));
    }
    fn drop_owner(&mut self, k: (QueueId, QueueOffset)) {
        if let Some(x) = self.out.remove(&k) {
            let v = self.vis(&x);
            self.sched.remove(&(v, k.0, k.1));
            if let Vis::Owned(c, _) = x.vis
                && let Some(e) = self.owners.get_mut(&c)
            {
                e.1 -= 1;
                if e.1 == 0 {
                    self.owners.remove(&c);
                }
            }
        }
    }
    pub fn finish(&mut self, q: QueueId, o: QueueOffset) {
        self.drop_owner((q, o));
    }
    pub fn apply(&mut self, r: &DeliveryRecord, at: LogOffset) {
        match r {
            DeliveryRecord::Delivered {
                at: t,
                visible_at,
                owner,
                deliveries,
                dropped,
                cursors,
            } => {
                for k in dropped {
                    self.drop_owner(*k);
                }
                if let Some(c) = owner
                    && !deliveries.is_empty()
                {
                    let e = self.owners.entry(*c).or_default();
                    e.0 = e.0.max(*visible_at);
                }
                for (q, o, a) in deliveries {
                    let vis = match owner {
                        None => Vis::At(*visible_at),
                        Some(c) => Vis::Owned(*c, t.after(AUTO_RENEW_MAX)),
                    };
                    self.put(
                        (*q, *o),
                        Out {
                            lease: at,
                            attempt: *a,
                            counted: true,
                            vis,
                        },
                    );
                }
                for (q, o) in cursors {
                    let e = self.next.entry(*q).or_default();
                    *e = (*e).max(*o);
                }
            }
            DeliveryRecord::Acked { entries } => {
                for k in entries {
                    self.drop_owner(*k)
                }
            }
            DeliveryRecord::VisibilityChanged {
                visible_at,
                counted,
                entries,
            } => {
                for k in entries {
                    if let Some(x) = self.out.get(k).copied() {
                        self.put(
                            *k,
                            Out {
                                counted: *counted,
                                vis: Vis::At(*visible_at),
                                ..x
                            },
                        )
                    }
                }
            }
            DeliveryRecord::OwnersRenewed { until, owners } => {
                for o in owners {
                    if let Some(e) = self.owners.get_mut(o) {
                        e.0 = e.0.max(*until)
                    }
                }
            }
        }
    }
    pub fn encode(&self, b: &mut BytesMut) {
        b.put_u32_le(self.next.len() as u32);
        for (q, o) in &self.next {
            b.put_u32_le(q.0);
            b.put_u64_le(o.0);
        }
        b.put_u32_le(self.out.len() as u32);
        for ((q, o), x) in &self.out {
            b.put_u32_le(q.0);
            b.put_u64_le(o.0);
            b.put_u64_le(x.lease.0);
            b.put_u32_le(x.attempt);
            b.put_u8(x.counted as u8);
            match x.vis {
                Vis::At(t) => {
                    b.put_u8(0);
                    b.put_u64_le(t.as_millis());
                    b.put_u64_le(0)
                }
                Vis::Owned(c, t) => {
                    b.put_u8(1);
                    b.put_u64_le(t.as_millis());
                    b.put_u64_le(c.0)
                }
            }
        }
        b.put_u32_le(self.owners.len() as u32);
        for (c, (t, _)) in &self.owners {
            b.put_u64_le(c.0);
            b.put_u64_le(t.as_millis());
        }
    }
    pub fn decode(mut b: &[u8]) -> Result<Self, Malformed> {
        let mut s = DeliveryState::default();
        let m = |_| Malformed;
        for _ in 0..b.try_get_u32_le().map_err(m)? {
            s.next.insert(
                QueueId(b.try_get_u32_le().map_err(m)?),
                QueueOffset(b.try_get_u64_le().map_err(m)?),
            );
        }
        let mut v = vec![];
        for _ in 0..b.try_get_u32_le().map_err(m)? {
            let k = (
                QueueId(b.try_get_u32_le().map_err(m)?),
                QueueOffset(b.try_get_u64_le().map_err(m)?),
            );
            let lease = LogOffset(b.try_get_u64_le().map_err(m)?);
            let attempt = b.try_get_u32_le().map_err(m)?;
            let counted = b.try_get_u8().map_err(m)? != 0;
            let owned = b.try_get_u8().map_err(m)?;
            let t = Timestamp::from_millis(b.try_get_u64_le().map_err(m)?);
            let c = ClientHash(b.try_get_u64_le().map_err(m)?);
            v.push((
                k,
                Out {
                    lease,
                    attempt,
                    counted,
                    vis: if owned == 1 { Vis::Owned(c, t) } else { Vis::At(t) },
                },
            ));
        }
        for _ in 0..b.try_get_u32_le().map_err(m)? {
            let c = ClientHash(b.try_get_u64_le().map_err(m)?);
            s.owners
                .insert(c, (Timestamp::from_millis(b.try_get_u64_le().map_err(m)?), 0));
        }
        for (k, x) in v {
            s.put(k, x)
        }
        Ok(s)
    }
}
