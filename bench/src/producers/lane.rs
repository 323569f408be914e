//! One connection's sending task. It owns its sequence numbers, its calls in flight and what was acknowledged, and shares
//! only the schedule with the others.

use crate::body::{self, BodyHeader};
use crate::client::{Caller, MessageIds};
use crate::clock::Moment;
use crate::run::Run;
use crate::schedule::{Schedule, Ticket};
use crate::stats::Recorder;
use crate::timer::PreciseTimer;
use crate::tracker::SequenceSet;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gantry_client::Failure;
use gantry_proto::wire::v2;
use std::sync::Arc;
use std::time::Duration;

/// A slot whose call failed rests this long: a server that refuses is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

pub(super) struct Lane {
    pub(super) run: Arc<Run>,
    pub(super) caller: Arc<Caller>,
    pub(super) producer: u32,
    pub(super) body_bytes: usize,
    pub(super) queues: Arc<[i32]>,
    pub(super) next_queue: usize,
    pub(super) next_sequence: u64,
    pub(super) ids: MessageIds,
    /// Calls in flight, at most.
    pub(super) slots: usize,
    pub(super) schedule: Arc<Schedule>,
    pub(super) timer: PreciseTimer,
    pub(super) sends: Arc<Recorder>,
    pub(super) start_delay: Arc<Recorder>,
    pub(super) acknowledged: SequenceSet,
}

/// What a lane leaves.
pub(super) struct LaneEnd {
    /// What the server accepted of it.
    pub(super) acknowledged: SequenceSet,
    /// When it made no more calls because somebody asked.
    pub(super) stopped_at: Option<Moment>,
}

/// A call that ended.
struct Outcome {
    ticket: Ticket,
    first_sequence: u64,
    ended: Moment,
    results: Result<Vec<Result<(), Failure>>, Failure>,
}

impl Lane {
    /// Sends until the schedule ends or somebody asks to stop.
    pub(super) async fn run(mut self) -> LaneEnd {
        let run = self.run.clone();
        let mut stopped_at = None;
        let mut calls = FuturesUnordered::new();
        let mut next: Option<Ticket> = None;
        let mut open = true;
        loop {
            let now = run.clock.now();
            if run.stop.is_asked() {
                (open, next) = (false, None);
                stopped_at.get_or_insert(now);
            }
            if open && next.is_none() && calls.len() < self.slots {
                next = self.schedule.take(now);
                open = next.is_some();
            }
            if let Some(ticket) = next.take_if(|ticket| ticket.due <= now) {
                self.start_delay.record(now, [(ticket.due, 0, 0)]);
                calls.push(self.send(ticket, now));
                continue;
            }
            if next.is_none() && calls.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                // A call that is due goes before results that will wait.
                () = sleep_until(&mut self.timer, next) => {}
                Some(outcome) = calls.next() => self.settle(outcome),
                () = run.stop.asked(), if open => {}
                () = run.stop.insisted() => break,
            }
        }
        LaneEnd { acknowledged: self.acknowledged, stopped_at }
    }

    /// Makes the messages of a call, and the call.
    fn send(&mut self, ticket: Ticket, now: Moment) -> impl Future<Output = Outcome> + use<> {
        let first_sequence = self.next_sequence;
        let messages: Vec<v2::Message> = (0..ticket.messages).map(|_| self.message(ticket.due, now)).collect();
        let (caller, clock) = (self.caller.clone(), self.run.clock);
        async move {
            let results = caller.send(messages).await;
            let ended = clock.now();
            if !results.as_ref().is_ok_and(|results| results.iter().any(Result::is_ok)) {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
            Outcome { ticket, first_sequence, ended, results }
        }
    }

    fn message(&mut self, intended: Moment, now: Moment) -> v2::Message {
        let queue_id = self.queues[self.next_queue % self.queues.len()];
        self.next_queue = self.next_queue.wrapping_add(1);
        let header = BodyHeader { run: self.run.id, producer: self.producer, sequence: self.next_sequence, intended };
        self.next_sequence += 1;
        let born = now.since_epoch();
        v2::Message {
            topic: self.caller.topic(),
            user_properties: Default::default(),
            system_properties: Some(v2::SystemProperties {
                message_id: self.ids.next(now),
                body_encoding: v2::Encoding::Identity.into(),
                message_type: v2::MessageType::Normal.into(),
                // Clients tell milliseconds.
                born_timestamp: Some(prost_types::Timestamp {
                    seconds: born.as_secs().cast_signed(),
                    nanos: born.subsec_millis().cast_signed() * 1_000_000,
                }),
                born_host: "gantry-bench".to_owned(),
                queue_id,
                ..Default::default()
            }),
            body: body::encode(header, self.body_bytes),
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let Outcome { ticket, first_sequence, ended, results } = outcome;
        let results = match results {
            Ok(results) => results,
            Err(failure) => return self.run.errors.add("send", &failure, u64::from(ticket.messages)),
        };
        let mut accepted = 0;
        for (sequence, result) in (first_sequence..).zip(&results) {
            match result {
                Ok(()) => {
                    accepted += 1;
                    self.acknowledged.insert(sequence);
                }
                Err(failure) => self.run.errors.add("send", failure, 1),
            }
        }
        if accepted > 0 {
            self.sends.record(ended, [(ticket.due, accepted, accepted * self.body_bytes as u64)]);
        }
    }
}

/// Returns when the ticket is due; never without one. Cancel safe.
async fn sleep_until(timer: &mut PreciseTimer, ticket: Option<Ticket>) {
    match ticket {
        Some(ticket) => timer.until(ticket.due).await,
        None => std::future::pending().await,
    }
}
