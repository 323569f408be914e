//! A topic in memory, and one group that consumes from it.

use crate::delivery::pop::PopPlan;
use crate::delivery::{DeliveryRecord, DeliveryState, NotHeld, PopParams, QueueReader, Renewal};
use crate::queue_index::IndexEntry;
use bytes::BytesMut;
use gantry_proto::contract::StoreError;
use gantry_proto::model::limits::AUTO_RENEW_MAX;
use gantry_proto::model::{ClientHash, FilterExpression, LogOffset, QueueId, QueueOffset, Timestamp, tag_hash};
use std::cell::Cell;
use std::time::Duration;

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long deliveries stay hidden.
pub(super) const LEASE: Duration = seconds(30);

/// Tags by queue and offset.
pub(super) struct Topic {
    pub queues: Vec<Vec<Option<&'static str>>>,
    pub min: Vec<Cell<u64>>,
    /// Index entries that lie together.
    pub scan_max: usize,
    /// All tags have the hash of this one.
    pub colliding: Option<&'static str>,
    /// Retention removes everything before this when the index is read next.
    pub overtaking: Cell<Option<u64>>,
    /// An offset that the index does not have although it should.
    pub hole: Option<u64>,
    /// How often somebody asked what a queue holds.
    pub looks: Cell<usize>,
}

impl Topic {
    pub(super) fn new(queues: usize) -> Topic {
        Topic {
            queues: vec![Vec::new(); queues],
            min: vec![Cell::new(0); queues],
            scan_max: usize::MAX,
            colliding: None,
            overtaking: Cell::new(None),
            hole: None,
            looks: Cell::new(0),
        }
    }

    pub(super) fn tag(&self, queue: QueueId, offset: QueueOffset) -> Option<&'static str> {
        self.queues[queue.0 as usize][offset.0 as usize]
    }

    /// Bytes of a message.
    pub(super) fn len_of(offset: QueueOffset) -> u32 {
        1 + (offset.0 % 4) as u32
    }

    fn entry(&self, queue: QueueId, offset: u64) -> IndexEntry {
        let tag = self.tag(queue, QueueOffset(offset));
        IndexEntry {
            queue_offset: QueueOffset(offset),
            // So that the message behind an entry can be found.
            log_offset: LogOffset(u64::from(queue.0) << 32 | offset),
            len: Topic::len_of(QueueOffset(offset)),
            tag_hash: tag_hash(self.colliding.or(tag)),
            message_group_hash: 0,
            store_time: Timestamp::ZERO,
        }
    }
}

impl QueueReader for Topic {
    fn queue_count(&self) -> u32 {
        self.queues.len() as u32
    }

    fn range(&self, queue: QueueId) -> (QueueOffset, QueueOffset) {
        self.looks.set(self.looks.get() + 1);
        let index = queue.0 as usize;
        (QueueOffset(self.min[index].get()), QueueOffset(self.queues[index].len() as u64))
    }

    fn scan(&self, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError> {
        assert!(max > 0);
        if let Some(min) = self.overtaking.take() {
            self.min[queue.0 as usize].set(min);
        }
        let (min, end) = self.range(queue);
        if from < min || self.hole == Some(from.0) {
            return Ok(());
        }
        let entries = (from.0..end.0).take(max.min(self.scan_max)).take_while(|offset| Some(*offset) != self.hole);
        out.extend(entries.map(|offset| self.entry(queue, offset)));
        Ok(())
    }
}

/// One delivery that a consumer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub queue: QueueId,
    pub offset: QueueOffset,
    pub attempt: u32,
    pub lease: LogOffset,
    /// When it ends if nothing changes that.
    pub promised: Timestamp,
}

/// A group with the settings of its receives.
pub(super) struct Group {
    pub topic: Topic,
    pub state: DeliveryState,
    pub now: Timestamp,
    pub log_end: u64,
    pub filter: FilterExpression,
    pub max_attempts: u32,
    pub inflight_max: usize,
    pub bytes_max: u64,
    /// The test says which queues grow.
    pub tells_growth: bool,
}

impl Group {
    /// A new group on a topic whose queues hold as many messages without tags.
    pub(super) fn on(counts: &[usize]) -> Group {
        let mut topic = Topic::new(counts.len());
        for (queue, count) in topic.queues.iter_mut().zip(counts) {
            *queue = vec![None; *count];
        }
        Group {
            topic,
            state: DeliveryState::default(),
            now: Timestamp::from_millis(1_000_000),
            log_end: 0,
            filter: FilterExpression::ALL,
            max_attempts: 3,
            inflight_max: 1_000_000,
            bytes_max: u64::MAX,
            tells_growth: false,
        }
    }

    /// A new group on one queue with these tags, whose consumers want `expression`.
    pub(super) fn on_tags(tags: &[Option<&'static str>], expression: &str) -> Group {
        let mut group = Group::on(&[0]);
        group.topic.queues[0] = tags.to_vec();
        group.filter = FilterExpression::parse_tag(expression).unwrap();
        group
    }

    pub(super) fn try_plan(&mut self, batch_max: usize, owner: Option<ClientHash>) -> Result<PopPlan, StoreError> {
        if !self.tells_growth {
            self.state.grew((0..self.topic.queue_count()).map(QueueId));
        }
        let renewal = owner.map(|owner| Renewal { owner, latest: self.now.after(AUTO_RENEW_MAX) });
        self.try_plan_with(batch_max, renewal)
    }

    fn try_plan_with(&mut self, batch_max: usize, renewal: Option<Renewal>) -> Result<PopPlan, StoreError> {
        let params = PopParams {
            batch_max,
            bytes_max: self.bytes_max,
            visible_at: self.now.after(LEASE),
            renewal,
            filter: &self.filter,
            max_attempts: self.max_attempts,
            inflight_max: self.inflight_max,
        };
        self.state.plan_pop(self.now, &params, &self.topic)
    }

    pub(super) fn plan(&mut self, batch_max: usize) -> PopPlan {
        self.try_plan(batch_max, None).unwrap()
    }

    pub(super) fn pop(&mut self, batch_max: usize) -> Vec<Delivery> {
        let plan = self.plan(batch_max);
        self.carry_out(plan)
    }

    pub(super) fn pop_as(&mut self, owner: ClientHash, batch_max: usize) -> Vec<Delivery> {
        let plan = self.try_plan(batch_max, Some(owner)).unwrap();
        self.carry_out(plan)
    }

    /// Pops messages that are not renewed before they are known to have arrived.
    pub(super) fn pop_unconfirmed(&mut self, owner: ClientHash, batch_max: usize) -> Vec<Delivery> {
        self.state.grew((0..self.topic.queue_count()).map(QueueId));
        let renewal = Some(Renewal { owner, latest: self.now.after(LEASE) });
        let plan = self.try_plan_with(batch_max, renewal).unwrap();
        self.carry_out(plan)
    }

    /// Those of deliveries of now that are in their first lease.
    pub(super) fn in_first_lease(&self, owner: ClientHash, deliveries: &[Delivery]) -> Vec<(QueueId, QueueOffset)> {
        let of = |delivery: &Delivery| (delivery.queue, delivery.offset, delivery.lease, delivery.promised);
        self.state.in_first_lease(owner, deliveries.iter().map(of), self.now)
    }

    /// Pops one message.
    pub(super) fn pop_one(&mut self) -> Delivery {
        self.pop(1)[0]
    }

    /// Pops until nothing is left.
    pub(super) fn pop_all(&mut self) -> Vec<Delivery> {
        let mut all = Vec::new();
        loop {
            let plan = self.plan(32);
            if plan.record.is_none() {
                return all;
            }
            all.extend(self.carry_out(plan));
        }
    }

    pub(super) fn carry_out(&mut self, plan: PopPlan) -> Vec<Delivery> {
        let Some(record) = plan.record else { return Vec::new() };
        let lease = self.log(&record);
        let promised = self.now.after(LEASE);
        let delivery = |(entry, queue, attempt): &(IndexEntry, QueueId, u32)| Delivery {
            queue: *queue,
            offset: entry.queue_offset,
            attempt: *attempt,
            lease,
            promised,
        };
        plan.messages.iter().map(delivery).collect()
    }

    pub(super) fn log(&mut self, record: &DeliveryRecord) -> LogOffset {
        let at = LogOffset(self.log_end);
        self.log_end += 100;
        self.state.apply(record, at);
        at
    }

    pub(super) fn ack(&mut self, deliveries: &[Delivery]) {
        let entries = deliveries.iter().map(|delivery| (delivery.queue, delivery.offset)).collect();
        self.log(&DeliveryRecord::Acked { entries });
    }

    pub(super) fn set_aside(&mut self, deliveries: &[Delivery]) {
        let entries = deliveries.iter().map(|delivery| (delivery.queue, delivery.offset)).collect();
        self.log(&DeliveryRecord::SetAside { entries });
    }

    pub(super) fn change(&mut self, delivery: Delivery, visible_in: Duration, counted: bool) {
        let record = DeliveryRecord::VisibilityChanged {
            visible_at: self.now.after(visible_in),
            counted,
            entries: vec![(delivery.queue, delivery.offset)],
        };
        self.log(&record);
    }

    pub(super) fn renew(&mut self, owner: ClientHash) {
        if let Some(record) = self.state.plan_renewal(&[owner], self.now.after(LEASE)) {
            self.log(&record);
        }
    }

    pub(super) fn release(&mut self, owner: ClientHash) {
        if let Some(record) = self.state.plan_release(owner, self.now.after(seconds(1))) {
            self.log(&record);
        }
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    pub(super) fn check(&self, delivery: Delivery) -> Result<(), NotHeld> {
        self.state.check(delivery.queue, delivery.offset, delivery.lease, self.now)
    }

    pub(super) fn exhausted(&mut self) -> Vec<(QueueId, QueueOffset)> {
        self.state.exhausted(self.now, self.max_attempts, 1_000_000, &self.topic)
    }

    pub(super) fn snapshot(&self) -> BytesMut {
        let mut bytes = BytesMut::new();
        self.state.encode(&mut bytes);
        bytes
    }
}

/// Offsets and attempts, which is what most tests look at.
pub(super) fn attempts(deliveries: &[Delivery]) -> Vec<(u64, u32)> {
    deliveries.iter().map(|delivery| (delivery.offset.0, delivery.attempt)).collect()
}
