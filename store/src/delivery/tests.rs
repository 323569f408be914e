//! Random histories against a model that keeps one plain entry per message.

use super::record::DeliveryRecord;
use super::state::{DeliveryState, Over};
use super::{PopParams, QueueReader};
use crate::queue_index::IndexEntry;
use bytes::BytesMut;
use gantry_proto::contract::StoreError;
use gantry_proto::model::limits::AUTO_RENEW_MAX;
use gantry_proto::model::{
    ClientHash, FilterExpression, GroupId, LogOffset, QueueId, QueueOffset, Timestamp, TopicId, tag_hash,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const QUEUES: u32 = 3;
const MAX_ATTEMPTS: u32 = 3;
const LEASE: Duration = Duration::from_secs(30);
const OWNERS: u64 = 2;

/// A topic in memory: tags by queue and offset.
#[derive(Default)]
struct Topic {
    queues: Vec<Vec<&'static str>>,
    min: Vec<u64>,
}

impl Topic {
    fn new() -> Topic {
        Topic {
            queues: vec![Vec::new(); QUEUES as usize],
            min: vec![0; QUEUES as usize],
        }
    }
}

impl QueueReader for Topic {
    fn queue_count(&self) -> u32 {
        QUEUES
    }

    fn range(&self, queue: QueueId) -> (QueueOffset, QueueOffset) {
        let index = queue.0 as usize;
        (
            QueueOffset(self.min[index]),
            QueueOffset(self.queues[index].len() as u64),
        )
    }

    fn scan(&self, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<IndexEntry>) -> Result<(), StoreError> {
        let index = queue.0 as usize;
        if from.0 < self.min[index] {
            return Ok(());
        }
        let tags = self.queues[index]
            .iter()
            .enumerate()
            .skip(from.0 as usize)
            .take(max.min(2));
        out.extend(tags.map(|(offset, tag)| IndexEntry {
            queue_offset: QueueOffset(offset as u64),
            log_offset: LogOffset(offset as u64),
            len: 1,
            tag_hash: tag_hash(Some(tag)),
            store_time: Timestamp::ZERO,
        }));
        Ok(())
    }

    fn tag_matches(&self, _: &IndexEntry, matches: &dyn Fn(Option<&str>) -> bool) -> Result<bool, StoreError> {
        // Only asked when the hash says yes, and these tags do not collide.
        Ok(matches(Some("a")))
    }
}

/// A message as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Held {
        lease: LogOffset,
        attempt: u32,
        counted: bool,
        hidden: Hidden,
    },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Hidden {
    Until(Timestamp),
    Owned(ClientHash, Timestamp),
}

/// The state under test, its rebuilt twin, and the model.
struct History {
    topic: Topic,
    now: Timestamp,
    log_end: u64,
    state: DeliveryState,
    twin: DeliveryState,
    fates: BTreeMap<(QueueId, QueueOffset), Fate>,
    owners: BTreeMap<ClientHash, Timestamp>,
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        queue: u32,
        tag: &'static str,
    },
    Pop {
        batch: usize,
        owner: Option<u64>,
        only_a: bool,
    },
    Ack {
        pick: usize,
    },
    Change {
        pick: usize,
        seconds: u64,
        suspend: bool,
    },
    Renew {
        owner: u64,
    },
    Release {
        owner: u64,
    },
    Pass {
        seconds: u64,
    },
    Bury,
    Expire {
        queue: u32,
    },
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tag = prop_oneof![Just("a"), Just("b")];
    let step = prop_oneof![
        6 => (0..QUEUES, tag).prop_map(|(queue, tag)| Step::Append { queue, tag }),
        5 => (1usize..6, proptest::option::of(0..OWNERS), any::<bool>())
            .prop_map(|(batch, owner, only_a)| Step::Pop { batch, owner, only_a: only_a && batch == 5 }),
        4 => any::<usize>().prop_map(|pick| Step::Ack { pick }),
        2 => (any::<usize>(), 0u64..40, any::<bool>())
            .prop_map(|(pick, seconds, suspend)| Step::Change { pick, seconds, suspend }),
        1 => (0..OWNERS).prop_map(|owner| Step::Renew { owner }),
        1 => (0..OWNERS).prop_map(|owner| Step::Release { owner }),
        3 => (0u64..40).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Bury),
        1 => (0..QUEUES).prop_map(|queue| Step::Expire { queue }),
        1 => Just(Step::Reload),
    ];
    proptest::collection::vec(step, 1..120)
}

impl History {
    fn new() -> History {
        History {
            topic: Topic::new(),
            now: Timestamp::from_millis(1_000_000),
            log_end: 0,
            state: DeliveryState::default(),
            twin: DeliveryState::default(),
            fates: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Logs a record: to the state as it is, to the twin through its bytes, as recovery does.
    fn log(&mut self, record: &DeliveryRecord) -> LogOffset {
        let at = LogOffset(self.log_end);
        self.log_end += 100;
        self.state.apply(record, at);
        let mut bytes = Vec::new();
        record.encode(GroupId(1), TopicId(1), &mut bytes);
        self.twin.apply(&DeliveryRecord::decode(&bytes).unwrap().2, at);
        at
    }

    fn visible_at(&self, hidden: Hidden) -> Timestamp {
        match hidden {
            Hidden::Until(time) => time,
            Hidden::Owned(owner, latest) => self.owners[&owner].min(latest),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { queue, tag } => self.topic.queues[queue as usize].push(tag),
            Step::Pop { batch, owner, only_a } => {
                self.pop(batch, owner.map(ClientHash), only_a);
            }
            Step::Ack { pick } => {
                if let Some((place, Fate::Held { lease, hidden, .. })) = self.pick(pick) {
                    let live = self.now < self.visible_at(hidden);
                    assert_eq!(self.state.check(place.0, place.1, lease, self.now).is_ok(), live);
                    if live {
                        self.log(&DeliveryRecord::Acked { entries: vec![place] });
                        self.finish(place);
                        assert_eq!(self.state.check(place.0, place.1, lease, self.now), Err(Over::Finished));
                    }
                }
            }
            Step::Change { pick, seconds, suspend } => {
                if let Some((
                    place,
                    Fate::Held {
                        lease, attempt, hidden, ..
                    },
                )) = self.pick(pick)
                    && self.now < self.visible_at(hidden)
                {
                    let visible_at = self.now.after(Duration::from_secs(seconds));
                    let counted = !suspend;
                    let entries = vec![place];
                    self.log(&DeliveryRecord::VisibilityChanged {
                        visible_at,
                        counted,
                        entries,
                    });
                    let hidden = Hidden::Until(visible_at);
                    self.fates.insert(
                        place,
                        Fate::Held {
                            lease,
                            attempt,
                            counted,
                            hidden,
                        },
                    );
                    self.forget_idle_owners();
                }
            }
            Step::Renew { owner } => {
                let until = self.now.after(LEASE);
                if let Some(record) = self.state.plan_renewal(&[ClientHash(owner)], until) {
                    self.log(&record);
                    let lease = self.owners.get_mut(&ClientHash(owner)).expect("it holds something");
                    *lease = (*lease).max(until);
                }
            }
            Step::Release { owner } => {
                let visible_at = self.now.after(Duration::from_secs(1));
                if let Some(record) = self.state.plan_release(ClientHash(owner), visible_at) {
                    self.log(&record);
                }
                for fate in self.fates.values_mut() {
                    if let Fate::Held { hidden, counted, .. } = fate
                        && matches!(hidden, Hidden::Owned(holder, _) if *holder == ClientHash(owner))
                    {
                        (*hidden, *counted) = (Hidden::Until(visible_at), true);
                    }
                }
                self.forget_idle_owners();
            }
            Step::Pass { seconds } => self.now = self.now.after(Duration::from_secs(seconds)),
            Step::Bury => self.bury(),
            Step::Expire { queue } => {
                let index = queue as usize;
                self.topic.min[index] = (self.topic.min[index] + 1).min(self.topic.queues[index].len() as u64);
            }
            Step::Reload => {
                let mut bytes = BytesMut::new();
                self.state.encode(&mut bytes);
                self.state = DeliveryState::decode(&bytes).unwrap();
            }
        }
    }

    fn pop(&mut self, batch: usize, owner: Option<ClientHash>, only_a: bool) -> usize {
        let filter = if only_a {
            FilterExpression::parse_tag("a").unwrap()
        } else {
            FilterExpression::ALL
        };
        let visible_at = self.now.after(LEASE);
        let params = PopParams {
            batch_max: batch,
            visible_at,
            owner,
            filter: &filter,
            max_attempts: MAX_ATTEMPTS,
            inflight_max: 50,
        };
        let plan = self.state.plan_pop(self.now, &params, &self.topic).unwrap();
        assert!(plan.messages.len() <= batch);
        let Some(record) = plan.record else {
            assert!(plan.messages.is_empty());
            return 0;
        };
        for (entry, queue, attempt) in &plan.messages {
            let expected = match self.fates.get(&(*queue, entry.queue_offset)) {
                None => 1,
                Some(Fate::Done) => panic!("delivered after it was finished"),
                Some(Fate::Held {
                    attempt,
                    counted,
                    hidden,
                    ..
                }) => {
                    assert!(self.visible_at(*hidden) <= self.now, "two live leases");
                    attempt + u32::from(*counted)
                }
            };
            assert_eq!(*attempt, expected);
            assert!(*attempt <= MAX_ATTEMPTS);
        }
        let lease = self.log(&record);
        let DeliveryRecord::Delivered { dropped, cursors, .. } = &record else {
            panic!("a pop delivers")
        };
        for place in dropped {
            let gone = place.1.0 < self.topic.min[place.0.0 as usize];
            let unwanted = only_a && self.topic.queues[place.0.0 as usize][place.1.0 as usize] == "b";
            assert!(gone || unwanted, "dropped for no reason");
            self.fates.insert(*place, Fate::Done);
        }
        for (queue, next) in cursors {
            for offset in 0..next.0 {
                // Not delivered and behind the cursor: skipped, because it expired or did not match.
                self.fates.entry((*queue, QueueOffset(offset))).or_insert(Fate::Done);
            }
        }
        if let Some(owner) = owner
            && !plan.messages.is_empty()
        {
            let until = self.owners.entry(owner).or_insert(visible_at);
            *until = (*until).max(visible_at);
        }
        for (entry, queue, attempt) in &plan.messages {
            let hidden = match owner {
                Some(owner) => Hidden::Owned(owner, self.now.after(AUTO_RENEW_MAX)),
                None => Hidden::Until(visible_at),
            };
            let fate = Fate::Held {
                lease,
                attempt: *attempt,
                counted: true,
                hidden,
            };
            self.fates.insert((*queue, entry.queue_offset), fate);
        }
        self.forget_idle_owners();
        plan.messages.len()
    }

    fn bury(&mut self) {
        for place in self.state.exhausted(self.now, MAX_ATTEMPTS, usize::MAX, &self.topic) {
            let Some(Fate::Held {
                attempt,
                counted: true,
                hidden,
                ..
            }) = self.fates.get(&place).copied()
            else {
                panic!("buried for no reason: {place:?}");
            };
            assert!(attempt >= MAX_ATTEMPTS && self.visible_at(hidden) <= self.now);
            self.state.finish(place.0, place.1);
            self.twin.finish(place.0, place.1);
            self.finish(place);
        }
    }

    fn pick(&self, pick: usize) -> Option<((QueueId, QueueOffset), Fate)> {
        let held: Vec<_> = self.fates.iter().filter(|(_, fate)| **fate != Fate::Done).collect();
        let (place, fate) = held.get(pick.checked_rem(held.len())?)?;
        Some((**place, **fate))
    }

    fn finish(&mut self, place: (QueueId, QueueOffset)) {
        self.fates.insert(place, Fate::Done);
        self.forget_idle_owners();
    }

    /// An owner that holds nothing has no lease: it starts anew.
    fn forget_idle_owners(&mut self) {
        let fates = &self.fates;
        self.owners.retain(|owner, _| {
            fates
                .values()
                .any(|fate| matches!(fate, Fate::Held { hidden: Hidden::Owned(holder, _), .. } if holder == owner))
        });
    }

    fn check(&self) {
        let held = self.fates.values().filter(|fate| **fate != Fate::Done).count();
        assert_eq!(self.state.inflight(), held);
        let (mut state, mut twin) = (BytesMut::new(), BytesMut::new());
        self.state.encode(&mut state);
        self.twin.encode(&mut twin);
        assert_eq!(state, twin, "the state is not what its records say");
    }

    /// Time passes and everything is consumed or buried: nothing may be left over.
    fn drain(&mut self) {
        for _ in 0..2 * MAX_ATTEMPTS {
            self.now = self.now.after(2 * AUTO_RENEW_MAX);
            while self.pop(32, None, false) > 0 {}
            self.bury();
        }
        for (queue, tags) in self.topic.queues.iter().enumerate() {
            for offset in 0..tags.len() as u64 {
                let fate = self.fates.get(&(QueueId(queue as u32), QueueOffset(offset)));
                let expired_unseen = fate.is_none() && offset < self.topic.min[queue];
                assert!(
                    expired_unseen || fate == Some(&Fate::Done),
                    "forgotten: queue {queue} offset {offset}: {fate:?}"
                );
            }
        }
        assert_eq!(self.state.inflight(), 0);
        assert_eq!(self.state.next_due_after(Timestamp::ZERO), None, "the schedule leaks");
        assert!(self.state.owners.is_empty(), "owners leak");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_promises(steps in steps()) {
        let mut history = History::new();
        for step in &steps {
            history.take(step);
            history.check();
        }
        history.drain();
    }
}

fn request(batch_max: usize, now: Timestamp) -> PopParams<'static> {
    PopParams {
        batch_max,
        visible_at: now.after(LEASE),
        owner: None,
        filter: &FilterExpression::ALL,
        max_attempts: MAX_ATTEMPTS,
        inflight_max: 10,
    }
}

#[test]
fn queues_are_served_in_turn() {
    let mut history = History::new();
    for queue in 0..QUEUES as usize {
        history.topic.queues[queue] = vec!["a"; 10];
    }
    let mut served = Vec::new();
    for _ in 0..6 {
        let plan = history
            .state
            .plan_pop(history.now, &request(1, history.now), &history.topic)
            .unwrap();
        served.push(plan.messages[0].1.0);
        history.log(&plan.record.unwrap());
    }
    assert_eq!(served, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn redeliveries_leave_half_of_a_batch_to_new_messages() {
    let mut history = History::new();
    history.topic.queues[0] = vec!["a"; 20];
    let plan = history
        .state
        .plan_pop(history.now, &request(8, history.now), &history.topic)
        .unwrap();
    history.log(&plan.record.unwrap());
    history.now = history.now.after(LEASE);
    let plan = history
        .state
        .plan_pop(history.now, &request(4, history.now), &history.topic)
        .unwrap();
    let attempts: Vec<u32> = plan.messages.iter().map(|(.., attempt)| *attempt).collect();
    assert_eq!(attempts, [2, 2, 1, 1]);
    assert!(plan.more);
}

#[test]
fn a_full_group_still_gets_its_redeliveries() {
    let mut history = History::new();
    history.topic.queues[0] = vec!["a"; 20];
    let plan = history
        .state
        .plan_pop(history.now, &request(32, history.now), &history.topic)
        .unwrap();
    assert_eq!(plan.messages.len(), 10, "up to the bound");
    history.log(&plan.record.unwrap());
    let plan = history
        .state
        .plan_pop(history.now, &request(32, history.now), &history.topic)
        .unwrap();
    assert!(plan.inflight_full && plan.record.is_none());
    history.now = history.now.after(LEASE);
    let plan = history
        .state
        .plan_pop(history.now, &request(32, history.now), &history.topic)
        .unwrap();
    assert_eq!(plan.messages.len(), 10);
    assert!(plan.messages.iter().all(|(.., attempt)| *attempt == 2));
}
