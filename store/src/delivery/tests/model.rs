//! Random histories against a model that keeps one plain entry per message and looks at all of them each time.

use super::fixture::{Delivery, Group, LEASE, Topic, seconds};
use crate::delivery::pop::PopPlan;
use crate::delivery::{DeliveryRecord, DeliveryState, NotHeld, PopParams, Renewal};
use gantry_proto::model::limits::AUTO_RENEW_MAX;
use gantry_proto::model::{ClientHash, FilterExpression, GroupId, LogOffset, QueueId, QueueOffset, Timestamp, TopicId};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Place = (QueueId, QueueOffset);

const QUEUES: u32 = 3;
const INFLIGHT_MAX: usize = 12;
const TAGS: [Option<&str>; 3] = [Some("a"), Some("b"), None];
const EXPRESSIONS: [&str; 4] = ["*", "*", "a", "a || b"];

#[derive(Clone, Debug)]
enum Step {
    Append {
        queue: usize,
        tag: usize,
        count: usize,
    },
    Pop {
        batch: usize,
        bytes: u64,
        owner: Option<u64>,
        expression: usize,
    },
    /// With any handle that was ever given.
    Ack {
        picks: Vec<prop::sample::Index>,
    },
    /// What was delivered turns out to be damaged.
    SetAside {
        picks: Vec<prop::sample::Index>,
    },
    Change {
        pick: prop::sample::Index,
        after: u64,
        suspend: bool,
    },
    Renew {
        owners: Vec<u64>,
    },
    /// Recorded only after the next step.
    Release {
        owner: u64,
    },
    Wait {
        seconds: u64,
    },
    /// The clock is put back a little.
    SetBack,
    DeadLetter {
        limit: usize,
    },
    Retain {
        queue: usize,
        count: u64,
    },
    Trim,
    SetMaxAttempts {
        max_attempts: u32,
    },
    /// From a checkpoint.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0..QUEUES as usize, 0..TAGS.len(), 1..6usize)
            .prop_map(|(queue, tag, count)| Step::Append { queue, tag, count }),
        8 => (1..8usize, prop_oneof![1..16u64, Just(u64::MAX)], proptest::option::of(0..3u64), 0..EXPRESSIONS.len())
            .prop_map(|(batch, bytes, owner, expression)| Step::Pop { batch, bytes, owner, expression }),
        1 => vec(pick(), 1..3).prop_map(|picks| Step::SetAside { picks }),
        4 => vec(pick(), 1..6).prop_map(|picks| Step::Ack { picks }),
        3 => (pick(), 0..40u64, any::<bool>()).prop_map(|(pick, after, suspend)| Step::Change { pick, after, suspend }),
        2 => vec(0..3u64, 1..3).prop_map(|owners| Step::Renew { owners }),
        1 => (0..3u64).prop_map(|owner| Step::Release { owner }),
        5 => prop_oneof![8 => 0..40u64, 1 => Just(AUTO_RENEW_MAX.as_secs() - 20)]
            .prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::SetBack),
        2 => (1..4usize).prop_map(|limit| Step::DeadLetter { limit }),
        1 => (0..QUEUES as usize, 1..4u64).prop_map(|(queue, count)| Step::Retain { queue, count }),
        1 => Just(Step::Trim),
        1 => (1..4u32).prop_map(|max_attempts| Step::SetMaxAttempts { max_attempts }),
        1 => Just(Step::Restart),
    ]
}

/// What the model knows of a message. None at all: never delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Held { lease: LogOffset, attempt: u32, counted: bool, end: End },
    Damaged,
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    At(Timestamp),
    Owned(ClientHash, Timestamp),
}

/// What is in the log, to rebuild from.
enum Logged {
    Record(Vec<u8>, LogOffset),
    DeadLetter(Place),
}

struct History {
    group: Group,
    log: Vec<Logged>,
    /// Follows the log, as a replica does.
    follower: DeliveryState,
    fates: BTreeMap<Place, Fate>,
    /// First offset that was not looked at, by queue.
    next: [u64; QUEUES as usize],
    turn: u32,
    owners: BTreeMap<ClientHash, Timestamp>,
    /// Every delivery there was.
    deliveries: Vec<Delivery>,
    acked: BTreeSet<Place>,
    late: Option<DeliveryRecord>,
    /// The number of attempts by which it was last found out what is exhausted.
    looked_with: u32,
}

impl History {
    fn new() -> History {
        let mut group = Group::on(&[0; QUEUES as usize]);
        group.inflight_max = INFLIGHT_MAX;
        group.topic.scan_max = 2;
        group.tells_growth = true;
        History {
            group,
            log: Vec::new(),
            follower: DeliveryState::default(),
            fates: BTreeMap::new(),
            next: [0; QUEUES as usize],
            turn: 0,
            owners: BTreeMap::new(),
            deliveries: Vec::new(),
            acked: BTreeSet::new(),
            late: None,
            looked_with: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        let late = self.late.take();
        match step {
            Step::Append { queue, tag, count } => {
                self.group.topic.queues[*queue].extend(std::iter::repeat_n(TAGS[*tag], *count));
                self.group.state.grew([QueueId(*queue as u32)]);
            }
            Step::Pop { batch, bytes, owner, expression } => {
                self.group.bytes_max = *bytes;
                self.pop(*batch, owner.map(ClientHash), EXPRESSIONS[*expression]);
            }
            Step::Ack { picks } => {
                let held: BTreeSet<Place> = picks.iter().filter_map(|pick| self.held(*pick)).map(place).collect();
                if !held.is_empty() {
                    let entries = held.iter().copied().collect();
                    self.log(&DeliveryRecord::Acked { entries });
                    held.iter().for_each(|place| self.finish(*place));
                    self.acked.extend(held);
                }
            }
            Step::SetAside { picks } => {
                let held: BTreeSet<Place> = picks.iter().filter_map(|pick| self.held(*pick)).map(place).collect();
                self.log(&DeliveryRecord::SetAside { entries: held.iter().copied().collect() });
                self.fates.extend(held.into_iter().map(|place| (place, Fate::Damaged)));
                self.forget_idle_owners();
            }
            Step::Change { pick, after, suspend } => {
                if let Some(delivery) = self.held(*pick) {
                    let visible_at = self.group.now.after(seconds(*after));
                    let (counted, entries) = (!suspend, vec![place(delivery)]);
                    self.log(&DeliveryRecord::VisibilityChanged { visible_at, counted, entries });
                    let (lease, attempt) = (delivery.lease, delivery.attempt);
                    let end = End::At(visible_at);
                    self.fates.insert(place(delivery), Fate::Held { lease, attempt, counted, end });
                    self.forget_idle_owners();
                }
            }
            Step::Renew { owners } => {
                let until = self.group.now.after(LEASE);
                let owners: Vec<ClientHash> = owners.iter().copied().map(ClientHash).collect();
                if let Some(record) = self.group.state.plan_renewal(&owners, until) {
                    self.log(&record);
                }
                for owner in owners {
                    self.owners.entry(owner).and_modify(|lease| *lease = until.max(*lease));
                }
            }
            Step::Release { owner } => {
                let visible_at = self.group.now.after(seconds(1));
                self.late = self.group.state.plan_release(ClientHash(*owner), visible_at);
                assert_eq!(self.late.is_some(), self.owners.contains_key(&ClientHash(*owner)));
            }
            Step::Wait { seconds: duration } => self.group.wait(seconds(*duration)),
            Step::SetBack => self.group.now = Timestamp::from_millis(self.group.now.as_millis() - 5_000),
            Step::DeadLetter { limit } => self.dead_letter(*limit),
            Step::Retain { queue, count } => {
                let (min, end) = (&self.group.topic.min[*queue], self.group.topic.queues[*queue].len() as u64);
                min.set((min.get() + count).min(end));
            }
            Step::Trim => self.trim(),
            Step::SetMaxAttempts { max_attempts } => self.group.max_attempts = *max_attempts,
            Step::Restart => self.group.state = DeliveryState::decode(&self.group.snapshot()).unwrap(),
        }
        if let Some(DeliveryRecord::OwnerReleased { owner, visible_at }) = late {
            self.log(&DeliveryRecord::OwnerReleased { owner, visible_at });
            let owners = self.owners.clone();
            for fate in self.fates.values_mut() {
                if let Fate::Held { end: end @ End::Owned(..), .. } = fate
                    && let End::Owned(holder, latest) = *end
                    && holder == owner
                {
                    *end = End::At(owners[&holder].min(latest).min(visible_at));
                }
            }
            self.forget_idle_owners();
        }
        self.check();
    }

    fn log(&mut self, record: &DeliveryRecord) -> LogOffset {
        let at = self.group.log(record);
        let mut bytes = Vec::new();
        record.encode(GroupId(1), TopicId(2), &mut bytes);
        let (group, topic, read) = DeliveryRecord::decode(&bytes).unwrap();
        assert_eq!((group, topic, &read), (GroupId(1), TopicId(2), record));
        self.follower.apply(&read, at);
        self.log.push(Logged::Record(bytes, at));
        at
    }

    /// The delivery that a handle stands for, if the model says that it holds. The state must say the same.
    fn held(&self, pick: prop::sample::Index) -> Option<Delivery> {
        if self.deliveries.is_empty() {
            return None;
        }
        let delivery = *pick.get(&self.deliveries);
        let expected = match self.fates[&place(delivery)] {
            Fate::Held { lease, end, .. } if lease == delivery.lease && self.group.now < self.ends_at(end) => Ok(()),
            Fate::Held { .. } | Fate::Damaged => Err(NotHeld::Expired),
            Fate::Finished => Err(NotHeld::Finished),
        };
        assert_eq!(self.group.check(delivery), expected, "{delivery:?}");
        expected.ok().map(|()| delivery)
    }

    fn pop(&mut self, batch: usize, owner: Option<ClientHash>, expression: &str) -> PopPlan {
        self.group.filter = FilterExpression::parse_tag(expression).unwrap();
        let expected = self.predict(batch);
        let plan = self.group.try_plan(batch, owner).unwrap();
        self.looked_with = self.group.max_attempts;

        let mut recovered = DeliveryState::decode(&self.group.snapshot()).unwrap();
        let params = PopParams {
            batch_max: batch,
            bytes_max: self.group.bytes_max,
            visible_at: self.group.now.after(LEASE),
            renewal: owner.map(|owner| Renewal { owner, latest: self.group.now.after(AUTO_RENEW_MAX) }),
            filter: &self.group.filter,
            max_attempts: self.group.max_attempts,
            inflight_max: self.group.inflight_max,
        };
        let same = recovered.plan_pop(self.group.now, &params, &self.group.topic).unwrap();
        assert_eq!(same, plan, "a recovered state plans otherwise");

        let messages: Vec<_> =
            plan.messages.iter().map(|(entry, queue, n)| ((*queue, entry.queue_offset), *n)).collect();
        assert_eq!(messages, expected.messages);
        assert_eq!((plan.more, plan.inflight_full), (expected.more, expected.inflight_full));
        if !plan.more && !plan.inflight_full && messages.len() < batch {
            self.assert_nothing_else_can_be_had(&messages);
        }
        if let Some(record) = &plan.record {
            let DeliveryRecord::Delivered { dropped, cursors, .. } = record else { panic!("{record:?}") };
            assert_eq!((dropped, cursors), (&expected.dropped, &expected.cursors));
            self.deliver(record.clone(), &messages, owner);
        } else {
            assert!(messages.is_empty() && expected.dropped.is_empty() && expected.cursors.is_empty());
            self.assert_next_due_is_not_late();
        }
        plan
    }

    /// Which messages the next pop gets, by looking at all of them.
    fn predict(&self, batch: usize) -> Prediction {
        let mut plan = Prediction::default();
        let (mut due, spent): (Vec<_>, Vec<_>) =
            self.ended().into_iter().partition(|(.., used)| *used < self.group.max_attempts);
        due.sort_unstable();
        plan.dropped.extend(spent.into_iter().map(|(_, place, _)| place).filter(|place| !self.is_retained(*place)));
        let mut due = due.into_iter().peekable();
        let bytes_max = self.group.bytes_max;
        let mut redeliver = |plan: &mut Prediction, count: usize, bytes_max: u64| {
            while let Some((_, place, used)) = due.peek().copied() {
                if plan.messages.len() == count {
                    plan.more |= count == batch;
                    break;
                }
                if !(self.is_retained(place) && self.is_wanted(place)) {
                    plan.dropped.push(place);
                } else if plan.messages.is_empty() || plan.fits(place, bytes_max) {
                    plan.messages.push((place, used + 1));
                } else {
                    plan.more = true;
                    break;
                }
                due.next();
            }
        };
        redeliver(&mut plan, batch.div_ceil(2), bytes_max / 2);
        let redelivered = plan.messages.len();
        let held = self.held_count() - plan.dropped.len();
        let len_max = plan.messages.len() + INFLIGHT_MAX.saturating_sub(held);
        for queue in (self.turn..QUEUES).chain(0..self.turn.min(QUEUES)) {
            let (index, queue) = (queue as usize, QueueId(queue));
            let end = self.group.topic.queues[index].len() as u64;
            let from = self.next[index].max(self.group.topic.min[index].get());
            let mut next = from;
            if next == end {
                continue;
            }
            if plan.messages.len() < len_max.min(batch) {
                while next < end && plan.messages.len() < len_max.min(batch) {
                    let place = (queue, QueueOffset(next));
                    if self.is_wanted(place) {
                        if plan.messages.len() > redelivered && !plan.fits(place, bytes_max) {
                            break;
                        }
                        plan.messages.push((place, 1));
                    }
                    next += 1;
                }
                if next > from {
                    plan.cursors.push((queue, QueueOffset(next)));
                }
            }
            if next < end {
                plan.inflight_full = plan.messages.len() >= len_max;
                plan.more |= !plan.inflight_full;
                break;
            }
        }
        redeliver(&mut plan, batch, bytes_max);
        plan
    }

    /// Applies a pop to the log and the model, with all that may never happen.
    fn deliver(&mut self, record: DeliveryRecord, messages: &[(Place, u32)], owner: Option<ClientHash>) {
        let DeliveryRecord::Delivered { dropped, cursors, .. } = &record else { panic!("{record:?}") };
        for (place, attempt) in messages {
            assert!(!self.acked.contains(place), "{place:?} was acknowledged");
            assert!(self.is_retained(*place) && self.is_wanted(*place));
            assert!(*attempt <= self.group.max_attempts);
            match self.fates.get(place) {
                None => assert_eq!(*attempt, 1),
                Some(Fate::Finished | Fate::Damaged) => panic!("{place:?} was finished or damaged"),
                Some(Fate::Held { attempt: before, counted, end, .. }) => {
                    assert!(self.ends_at(*end) <= self.group.now, "{place:?} is held");
                    assert_eq!(*attempt, before + u32::from(*counted));
                }
            }
        }
        for place in dropped {
            assert!(!self.is_retained(*place) || !self.is_wanted(*place));
        }
        let lease = self.log(&record);
        // Taken before anything changes: an owner that gets back its own message keeps its lease.
        let until = owner.and_then(|owner| self.owners.get(&owner).copied()).unwrap_or_default();
        let until = until.max(self.group.now.after(LEASE));
        for (place, attempt) in messages {
            let end = match owner {
                None => End::At(self.group.now.after(LEASE)),
                Some(owner) => End::Owned(owner, self.group.now.after(AUTO_RENEW_MAX)),
            };
            self.fates.insert(*place, Fate::Held { lease, attempt: *attempt, counted: true, end });
            self.deliveries.push(Delivery {
                queue: place.0,
                offset: place.1,
                attempt: *attempt,
                lease,
                promised: self.group.now.after(LEASE),
            });
            self.owners.extend(owner.map(|owner| (owner, until)));
        }
        for place in dropped {
            self.fates.insert(*place, Fate::Finished);
        }
        for (queue, next) in cursors {
            for offset in self.next[queue.0 as usize]..next.0 {
                self.fates.entry((*queue, QueueOffset(offset))).or_insert(Fate::Finished);
            }
            self.next[queue.0 as usize] = next.0;
            self.turn = (queue.0 + 1) % QUEUES;
        }
        self.forget_idle_owners();
    }

    fn dead_letter(&mut self, limit: usize) {
        let mut expected: Vec<_> = (self.ended().into_iter())
            .filter(|(_, place, used)| *used >= self.group.max_attempts && self.is_retained(*place))
            .collect();
        expected.sort_unstable_by_key(|(_, place, _)| *place);
        let expected: Vec<Place> = expected.into_iter().map(|(_, place, _)| place).take(limit).collect();
        let found =
            self.group.state.has_spent() || self.group.state.next_end().is_some_and(|end| end <= self.group.now);
        // After a change of the number it is the next receive that makes somebody look.
        let changed = self.looked_with != self.group.max_attempts;
        assert!(expected.is_empty() || found || changed, "nobody would look");
        self.looked_with = self.group.max_attempts;
        let (now, max_attempts) = (self.group.now, self.group.max_attempts);
        assert_eq!(self.group.state.exhausted(now, max_attempts, limit, &self.group.topic), expected);
        for place in expected {
            assert!(self.group.state.is_exhausted(place.0, place.1, now, max_attempts));
            self.group.state.finish(place.0, place.1);
            self.follower.finish(place.0, place.1);
            self.log.push(Logged::DeadLetter(place));
            self.finish(place);
        }
    }

    fn trim(&mut self) {
        let plan = self.group.state.plan_trim(&self.group.topic);
        let gone =
            |(place, fate): (&Place, &Fate)| (*fate != Fate::Finished && !self.is_retained(*place)).then_some(*place);
        let gone: Vec<Place> = self.fates.iter().filter_map(gone).collect();
        assert_eq!(plan.is_some(), !gone.is_empty());
        if let Some(record) = plan {
            self.log(&record);
            for (queue, _) in &gone {
                let index = queue.0 as usize;
                self.next[index] = self.next[index].max(self.group.topic.min[index].get());
            }
            gone.into_iter().for_each(|place| self.finish(place));
        }
    }

    fn finish(&mut self, place: Place) {
        self.fates.insert(place, Fate::Finished);
        self.forget_idle_owners();
    }

    fn forget_idle_owners(&mut self) {
        let mut held = BTreeSet::new();
        for fate in self.fates.values() {
            if let Fate::Held { end: End::Owned(owner, _), .. } = fate {
                held.insert(*owner);
            }
        }
        self.owners.retain(|owner, _| held.contains(owner));
    }

    /// Messages whose delivery ended: when, which, and how many attempts are used up.
    fn ended(&self) -> Vec<(Timestamp, Place, u32)> {
        let ended = |(place, fate): (&Place, &Fate)| match fate {
            Fate::Held { attempt, counted, end, .. } if self.ends_at(*end) <= self.group.now => {
                Some((self.ends_at(*end), *place, attempt - u32::from(!counted)))
            }
            _ => None,
        };
        self.fates.iter().filter_map(ended).collect()
    }

    fn ends_at(&self, end: End) -> Timestamp {
        match end {
            End::At(at) => at,
            End::Owned(owner, latest) => self.owners[&owner].min(latest),
        }
    }

    fn held_count(&self) -> usize {
        self.fates.values().filter(|fate| matches!(fate, Fate::Held { .. })).count()
    }

    fn is_retained(&self, (queue, offset): Place) -> bool {
        offset.0 >= self.group.topic.min[queue.0 as usize].get()
    }

    fn is_wanted(&self, (queue, offset): Place) -> bool {
        self.group.filter.matches(self.group.topic.tag(queue, offset))
    }

    fn assert_nothing_else_can_be_had(&self, messages: &[(Place, u32)]) {
        for (queue, tags) in self.group.topic.queues.iter().enumerate() {
            for offset in 0..tags.len() as u64 {
                let place = (QueueId(queue as u32), QueueOffset(offset));
                let taken = messages.iter().any(|(taken, _)| *taken == place);
                let possible = match self.fates.get(&place) {
                    None => offset >= self.next[queue],
                    Some(Fate::Held { attempt, counted, end, .. }) => {
                        let used = attempt - u32::from(!counted);
                        self.ends_at(*end) <= self.group.now && used < self.group.max_attempts
                    }
                    Some(Fate::Finished | Fate::Damaged) => false,
                };
                assert!(taken || !possible || !self.is_retained(place) || !self.is_wanted(place), "{place:?} is left");
            }
        }
    }

    /// Nothing was there to be had: whoever waits must be told when to look again.
    fn assert_next_due_is_not_late(&self) {
        let ends = self.fates.values().filter_map(|fate| match fate {
            Fate::Held { attempt, counted, end, .. } if attempt - u32::from(!counted) < self.group.max_attempts => {
                Some(self.ends_at(*end))
            }
            _ => None,
        });
        let expected = ends.filter(|end| *end > self.group.now).min();
        let found = self.group.state.next_due_after(self.group.now);
        assert!(found.is_none_or(|found| found >= self.group.now));
        if let Some(expected) = expected {
            assert!(found.is_some_and(|found| found <= expected), "{found:?} is later than {expected}");
        }
    }

    fn check(&self) {
        assert_eq!(self.group.state.inflight(), self.held_count());
        let damaged = self.fates.values().filter(|fate| **fate == Fate::Damaged).count();
        assert_eq!(self.group.state.damaged(), damaged as u64);
        assert_eq!(self.group.state, self.follower, "the state is not what its records say");
        assert_eq!(DeliveryState::decode(&self.group.snapshot()).unwrap(), self.group.state);
        assert!(self.ended().is_empty() || self.group.state.any_due(self.group.now));
        let leases: BTreeMap<_, _> = self.group.state.schedule.owner_leases().collect();
        assert_eq!(leases, self.owners);
    }

    /// Time passes and everything is consumed or a dead letter: nothing may be left over.
    fn drain(&mut self) {
        self.late = None;
        self.group.bytes_max = u64::MAX;
        for _ in 0..=4 {
            self.group.wait(2 * AUTO_RENEW_MAX);
            loop {
                let plan = self.pop(7, None, "*");
                self.dead_letter(100);
                if plan.record.is_none() && !plan.inflight_full {
                    break;
                }
                if plan.inflight_full {
                    self.group.wait(LEASE);
                }
            }
        }
        for (queue, tags) in self.group.topic.queues.iter().enumerate() {
            for offset in 0..tags.len() as u64 {
                let place = (QueueId(queue as u32), QueueOffset(offset));
                let over = matches!(self.fates.get(&place), Some(Fate::Finished | Fate::Damaged));
                let forgotten = !over && self.is_retained(place);
                assert!(!forgotten, "{place:?} is forgotten");
            }
        }
        assert!(self.group.state.inflight() == 0, "something is left");
        assert!(!self.group.state.any_due(Timestamp::MAX), "the schedule leaks");
        self.check();
    }

    fn rebuild(&self) -> DeliveryState {
        let mut state = DeliveryState::default();
        for logged in &self.log {
            match logged {
                Logged::Record(bytes, at) => state.apply(&DeliveryRecord::decode(bytes).unwrap().2, *at),
                Logged::DeadLetter((queue, offset)) => state.finish(*queue, *offset),
            }
        }
        state
    }
}

#[derive(Default)]
struct Prediction {
    messages: Vec<(Place, u32)>,
    dropped: Vec<Place>,
    cursors: Vec<Place>,
    more: bool,
    inflight_full: bool,
}

impl Prediction {
    fn fits(&self, (_, offset): Place, bytes_max: u64) -> bool {
        let bytes: u64 = self.messages.iter().map(|((_, offset), _)| u64::from(Topic::len_of(*offset))).sum();
        bytes + u64::from(Topic::len_of(offset)) <= bytes_max
    }
}

fn place(delivery: Delivery) -> Place {
    (delivery.queue, delivery.offset)
}

proptest! {
    #[test]
    fn any_history_keeps_the_promises(steps in vec(step(), 1..120)) {
        let mut history = History::new();
        for step in &steps {
            history.take(step);
        }
        history.drain();
        prop_assert_eq!(history.rebuild(), history.group.state);
    }

    #[test]
    fn a_damaged_snapshot_is_survived(
        steps in vec(step(), 1..40),
        change in any::<prop::sample::Index>(),
        to in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut history = History::new();
        for step in &steps {
            history.take(step);
        }
        let mut bytes = history.group.snapshot();
        prop_assert!(DeliveryState::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let place = change.index(bytes.len());
        bytes[place] = to;
        if let Ok(mut state) = DeliveryState::decode(&bytes) {
            // Whatever it says, it can be worked with.
            std::mem::swap(&mut history.group.state, &mut state);
            let _ = history.group.try_plan(8, None);
            let _ = history.group.exhausted();
        }
        bytes.extend_from_slice(&[0]);
        prop_assert!(DeliveryState::decode(&bytes).is_err());
    }
}
