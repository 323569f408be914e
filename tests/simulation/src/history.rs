//! What clients asked and were told, and what stores did where nobody but the simulation sees it.
//!
//! Every record carries [`Moment`]s: true time, and a number that orders all that happened. What must always hold: an
//! operation that began has exactly one outcome, and one that was never answered is [`Outcome::Unknown`].

use crate::site::Retention;
use gantry_proto::model::{ClientHash, Epoch, LogOffset, StoreGroupId, fnv1a};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// An instant of true time, and its place in the order of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Counts everything that happened: what is smaller was earlier.
    pub number: u64,
    /// Since the simulation began.
    pub at: Duration,
}

/// What an operation's caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with success.
    Done,
    /// It was answered with an error that says that nothing happened.
    Refused,
    /// Nobody knows: no answer, or one that leaves it open.
    Unknown,
}

/// One message sent, with all repetitions under its id.
#[derive(Clone, Debug)]
pub struct Send {
    pub client: Arc<str>,
    /// To which topic.
    pub topic: Arc<str>,
    /// The message's id, unique among all sends.
    pub id: Arc<str>,
    /// Of its body.
    pub digest: u64,
    /// Its tag.
    pub tag: Option<Arc<str>>,
    /// The id of the first message of its request.
    pub request: Arc<str>,
    /// Of the first attempt.
    pub began: Moment,
    /// Of the last attempt. `None`: it was not heard of again.
    pub ended: Option<Moment>,
    /// Of all attempts together.
    pub outcome: Outcome,
    /// Where the answer said that it is.
    pub offset: Option<u64>,
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// On which topic.
    pub topic: Arc<str>,
    /// In which queue.
    pub queue: i32,
    /// Where there.
    pub offset: i64,
}

/// One message received.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Who received it.
    pub client: Arc<str>,
    /// For which consumer group.
    pub group: Arc<str>,
    /// Where it is.
    pub position: Position,
    pub id: Arc<str>,
    /// Of its body.
    pub digest: u64,
    /// As the server says.
    pub attempt: u32,
    /// When the receive was asked.
    pub began: Moment,
    /// When it arrived.
    pub received: Moment,
    /// For how long it was asked to stay hidden.
    pub invisible: Duration,
    /// The client with whose life the lease is extended, if it is renewed for it.
    pub owner: Option<ClientHash>,
    /// Whether the receive came to its proper end. If not, the server may have taken the delivery back.
    pub kept: bool,
}

/// A store extended the leases of clients.
#[derive(Clone, Debug)]
pub struct Renewal {
    pub store_group: StoreGroupId,
    /// Whose.
    pub owners: Vec<ClientHash>,
    /// For how long, from when it was asked.
    pub invisible: Duration,
    /// When it was asked.
    pub began: Moment,
    /// When it was answered, or given up.
    pub ended: Moment,
    /// Whether it was answered with success.
    pub done: bool,
}

/// A store was told that a delivery had reached its client. From then on its lease is extended with the client's.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub store_group: StoreGroupId,
    /// Whose.
    pub owner: ClientHash,
    /// Of which message, and which attempt.
    pub position: Place,
    pub attempt: u32,
    /// When it was told.
    pub began: Moment,
    /// When it answered, or that was given up.
    pub ended: Moment,
    /// Whether it answered with success.
    pub done: bool,
}

/// A wall clock was moved.
#[derive(Clone, Debug)]
pub struct ClockMove {
    /// Of which machine.
    pub machine: Arc<str>,
    /// By how much.
    pub millis: i64,
    pub at: Moment,
}

/// A process did nothing for a while.
#[derive(Clone, Debug)]
pub struct Stall {
    /// On which machine.
    pub machine: Arc<str>,
    /// From when on.
    pub from: Moment,
    /// Until when. `None`: it never went on.
    pub to: Option<Moment>,
}

/// The state of a store, as its own calls describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreState {
    /// First and next offset of each queue that has any, by topic and queue.
    pub queues: BTreeMap<(u32, u32), (u64, u64)>,
    /// Never delivered and outstanding messages, by consumer group and topic, where there are any.
    pub progress: BTreeMap<(u32, u32), (u64, u64)>,
}

/// A store's state when it had ended gracefully, and when it was opened the next time.
#[derive(Clone, Debug)]
pub struct Reopened {
    /// The process that opened it.
    pub process: Arc<str>,
    /// At the end of the one before.
    pub before: StoreState,
    /// At the beginning of this one.
    pub after: StoreState,
    pub at: Moment,
}

/// An acknowledgement.
#[derive(Clone, Debug)]
pub struct Ack {
    pub client: Arc<str>,
    /// For which consumer group.
    pub group: Arc<str>,
    /// Of which message.
    pub position: Position,
    pub id: Arc<str>,
    /// Of which delivery.
    pub attempt: u32,
    /// When it was asked.
    pub began: Moment,
    /// When it was answered.
    pub ended: Option<Moment>,
    /// With what.
    pub outcome: Outcome,
}

/// A change of how long a delivery stays hidden.
#[derive(Clone, Debug)]
pub struct Hide {
    /// For which consumer group.
    pub group: Arc<str>,
    /// Of which message.
    pub position: Position,
    /// Of which delivery.
    pub attempt: u32,
    /// From then on.
    pub invisible: Duration,
    /// Whether the delivery is to be no attempt.
    pub suspends: bool,
    /// When the delivery had arrived that it is about: one that was no attempt has the same number as the next one.
    pub received: Moment,
    /// When it was asked.
    pub began: Moment,
    /// With what it was answered.
    pub outcome: Outcome,
}

/// A consumer group of the scenario.
#[derive(Clone, Debug)]
pub struct Group {
    /// What it consumes, from the beginning.
    pub topics: Vec<Arc<str>>,
    /// The only tag that it subscribes to. None: all messages.
    pub tag: Option<Arc<str>>,
    /// Deliveries of a message before it is a dead letter.
    pub max_attempts: u32,
}

/// A store answered an append with success.
#[derive(Clone, Debug)]
pub struct Append {
    /// Which process: machine and start.
    pub process: Arc<str>,
    pub store_group: StoreGroupId,
    /// The epoch in which it took itself for the leader when it answered.
    pub epoch: Epoch,
    /// The one in which it put the message into its log, for this call. A message that it had already is of no other.
    pub written_in: Epoch,
    /// To which topic, by number.
    pub topic: u32,
    /// Where in its queue.
    pub offset: u64,
    /// Where in the store group's log. (A message that was appended before may be in another queue than was asked for.)
    pub place: LogOffset,
    /// Where its record ends there. `None`: it was there before this call.
    pub end: Option<LogOffset>,
    /// Where the log began when the store had decided where the message is.
    pub retained_from: LogOffset,
    pub id: Arc<str>,
    /// Whether the store knew, when it was asked, that its store group is being drained and that others take the messages.
    pub while_drained: bool,
    /// When the answer was given.
    pub answered: Moment,
}

/// Where a message stands for a consumer group: group, topic and queue by number, and the offset.
pub type Place = (u32, u32, u32, u64);

/// A store handed a message out.
#[derive(Clone, Debug)]
pub struct Pop {
    pub process: Arc<str>,
    pub store_group: StoreGroupId,
    /// The consumer group's name.
    pub group: Arc<str>,
    pub topic: Arc<str>,
    /// Which message.
    pub position: Place,
    pub id: Arc<str>,
    /// As the store says.
    pub attempt: u32,
    pub invisible: Duration,
    /// The client with whose life that is extended.
    pub owner: Option<ClientHash>,
    /// First offset of each queue of the topic then, where something was removed.
    pub minima: BTreeMap<u32, u64>,
    /// When it was asked for.
    pub began: Moment,
    /// When it was handed out.
    pub answered: Moment,
}

/// A receive at a store ended without a message, properly.
#[derive(Clone, Debug)]
pub struct EmptyReceive {
    pub process: Arc<str>,
    pub store_group: StoreGroupId,
    /// For which consumer group, by number.
    pub group: u32,
    /// Of which topic, by number.
    pub topic: u32,
    /// Whether it wanted all messages.
    pub unfiltered: bool,
    /// When it was asked.
    pub began: Moment,
    /// When it was answered.
    pub ended: Moment,
}

/// What somebody asked a store to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is finished.
    Acknowledge,
    /// It is to come again after this time, as another attempt if it is counted.
    Hide {
        /// From then on.
        invisible: Duration,
        /// Whether it was an attempt.
        counted: bool,
    },
    /// It is to become a dead letter.
    Bury,
}

/// A call about a delivery, as its store sees it.
#[derive(Clone, Debug)]
pub struct Touch {
    pub store_group: StoreGroupId,
    /// Which message.
    pub position: Place,
    /// Which delivery.
    pub attempt: u32,
    pub wish: Wish,
    /// When it was asked.
    pub began: Moment,
    /// When it was answered. `None`: never.
    pub ended: Option<Moment>,
    /// With what. Unknown: never, or with an error that leaves it open.
    pub outcome: Outcome,
}

/// A receive at a store that had taken messages, and whose answer nobody waited for any more.
#[derive(Clone, Debug)]
pub struct LostReceive {
    pub process: Arc<str>,
    pub store_group: StoreGroupId,
    /// For which consumer group, by number.
    pub group: u32,
    /// Of which topic, by number.
    pub topic: u32,
    /// When it was asked.
    pub began: Moment,
    /// When it was given up.
    pub at: Moment,
    /// For how long it had hidden what it took, from then at most.
    pub hidden: Duration,
    /// How many messages it had taken for the first time.
    pub took: u64,
    /// Whether the store could have written something when it was given up.
    pub able: bool,
    /// Whether it did.
    pub gave_back: bool,
}

/// A lease that a store heard of.
#[derive(Clone, Debug)]
pub struct Lease {
    pub process: Arc<str>,
    pub store_group: StoreGroupId,
    pub epoch: Epoch,
    /// When it was asked for.
    pub called: Moment,
    /// When it was heard of.
    pub heard: Moment,
    /// When it ends, in true time. `None`: when somebody else leads.
    pub until: Option<Duration>,
    /// True if it began the epoch, false for a renewal.
    pub begins: bool,
}

/// A store heard that somebody else leads, or may.
#[derive(Clone, Debug)]
pub struct Superseded {
    pub process: Arc<str>,
    pub store_group: StoreGroupId,
    /// Epochs before this one are over.
    pub by: Epoch,
    /// When it had heard it.
    pub at: Moment,
}

/// How far a store said that its log reaches.
#[derive(Clone, Debug)]
pub struct Confirmed {
    pub store_group: StoreGroupId,
    /// Confirmed up to here.
    pub to: LogOffset,
    /// When it said so.
    pub at: Moment,
}

/// A store's log as the store shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Where it begins.
    pub retained_from: LogOffset,
    /// Where it ends.
    pub appended_to: LogOffset,
    /// Parts that the store says are damaged.
    pub damaged: Vec<Range<LogOffset>>,
    /// First offset that there still is of each queue, by topic and queue.
    pub minima: BTreeMap<(u32, u32), u64>,
}

/// The same, whenever something was removed or found to be damaged.
#[derive(Clone, Debug)]
pub struct LogSeen {
    pub store_group: StoreGroupId,
    /// What the store showed.
    pub state: LogState,
    /// When that was seen: a look's interval after it was so, at most.
    pub at: Moment,
}

/// A byte was changed on a disk, within a message that had been acknowledged.
#[derive(Clone, Debug)]
pub struct Flip {
    /// The message's store group.
    pub store_group: StoreGroupId,
    /// Where the message is in the log.
    pub place: LogOffset,
    /// Where its record ends.
    pub end: LogOffset,
    pub at: Moment,
}

/// A store group's data are gone for ever.
#[derive(Clone, Debug)]
pub struct LostDisk {
    /// The store group.
    pub store_group: StoreGroupId,
    pub machine: Arc<str>,
    pub at: Moment,
}

/// A member of the controller that said that it cannot go on.
#[derive(Clone, Debug)]
pub struct GaveUp {
    /// Which process.
    pub process: Arc<str>,
    /// Why.
    pub why: String,
    /// When.
    pub at: Moment,
}

/// Whether a member of the controller serves.
#[derive(Clone, Debug)]
pub struct MemberSeen {
    /// Why not, if so.
    pub why: Option<String>,
    /// When that was seen.
    pub at: Moment,
}

/// A process that ended by itself.
#[derive(Clone, Debug)]
pub struct Ended {
    pub process: Arc<str>,
    /// What it said.
    pub error: String,
    pub at: Moment,
}

/// The cluster as the controller described it.
#[derive(Clone, Debug)]
pub struct StatusSeen {
    /// When it was asked.
    pub began: Moment,
    /// When it was answered.
    pub ended: Moment,
    /// The version of the metadata.
    pub version: u64,
    /// Each store group's epoch.
    pub epochs: BTreeMap<u32, u32>,
    /// The number of the controller's leading member.
    pub leader: Option<u64>,
    /// The numbers of the controller's members, and whether each of them votes.
    pub members: BTreeMap<u64, bool>,
}

/// A change of the controller's members, with all repetitions.
#[derive(Clone, Debug)]
pub struct MemberChange {
    /// The member. Its number is never used again.
    pub number: u64,
    /// Whether it was added, else removed.
    pub added: bool,
    /// Of the first attempt.
    pub began: Moment,
    /// When success was answered.
    pub ended: Option<Moment>,
}

/// The metadata's version as a process saw it.
#[derive(Clone, Debug)]
pub struct ViewSeen {
    pub process: Arc<str>,
    /// The version.
    pub version: u64,
    /// A digest of all metadata.
    pub digest: u64,
    pub at: Moment,
}

/// Everything that was recorded.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Counts moments.
    moments: u64,
    /// Consumer groups by name.
    pub groups: BTreeMap<Arc<str>, Group>,
    /// Sends, in the order in which they began.
    pub sends: Vec<Send>,
    /// Deliveries, in the order in which they arrived.
    pub deliveries: Vec<Delivery>,
    /// Renewals, in the order of their answers.
    pub renewals: Vec<Renewal>,
    /// What stores were told to have arrived, in the order of their answers.
    pub arrivals: Vec<Arrival>,
    /// Clients that said goodbye, with when they began to.
    pub goodbyes: Vec<(ClientHash, Moment)>,
    /// Acknowledgements, in the order in which they began.
    pub acks: Vec<Ack>,
    /// Changes of invisible durations, in the order in which they began.
    pub hides: Vec<Hide>,
    /// Successful appends, in the order of their answers.
    pub appends: Vec<Append>,
    /// Messages handed out by stores, in order.
    pub pops: Vec<Pop>,
    /// Receives at stores that found nothing, in the order of their answers.
    pub empty_receives: Vec<EmptyReceive>,
    /// Calls about deliveries, in the order in which they began.
    pub touches: Vec<Touch>,
    /// Receives at stores that took something and whose answers were lost there, in order.
    pub lost_receives: Vec<LostReceive>,
    /// What receipt handles stand for: the message and the attempt.
    pub handles: BTreeMap<Arc<str>, (Place, u32)>,
    /// Stores that were opened after a graceful end, in order.
    pub reopened: Vec<Reopened>,
    /// Leases, in the order in which stores heard of them.
    pub leases: Vec<Lease>,
    /// News that leases had ended, in order.
    pub superseded: Vec<Superseded>,
    /// Leases that their holders were about to give up before their time.
    pub given_up: Vec<(StoreGroupId, Epoch)>,
    /// Positions, in order.
    pub confirmed: Vec<Confirmed>,
    /// Descriptions of the cluster, in the order of their answers.
    pub statuses: Vec<StatusSeen>,
    /// Changes of the controller's members, in the order in which they began.
    pub member_changes: Vec<MemberChange>,
    /// Versions seen, in order.
    pub views: Vec<ViewSeen>,
    /// Panics of the code under test.
    pub panics: Vec<String>,
    /// Topics that were deleted, with when that began.
    pub deletions: Vec<(Arc<str>, Moment)>,
    /// Moves of wall clocks, in order.
    pub clock_moves: Vec<ClockMove>,
    /// How much faster than true time processes' own clocks run, in millionths; by machine.
    pub drift_ppm: BTreeMap<Arc<str>, i64>,
    /// Processes that stood still, in order.
    pub stalls: Vec<Stall>,
    /// Machines with a slow disk, from when on, and until when all that it was asked for meanwhile is done.
    pub slow_disks: Vec<(Arc<str>, Duration, Duration)>,
    /// Machines whose power failed, in order.
    pub power_failures: Vec<(Arc<str>, Moment)>,
    /// When faults concerned the controller's members: another one may have led after it.
    pub disturbed: Vec<Moment>,
    /// What stores may remove. `None`: nothing within any run.
    pub retention: Option<Retention>,
    /// What stores showed of their logs, in order.
    pub logs: Vec<LogSeen>,
    /// Bytes that were changed in messages, in order.
    pub flips: Vec<Flip>,
    /// Disks that were lost, in order.
    pub lost_disks: Vec<LostDisk>,
    /// Processes that ended with an error, in order.
    pub ended: Vec<Ended>,
    /// Members of the controller that gave up, in order.
    pub gave_up: Vec<GaveUp>,
    /// The last look at each member of the controller, by machine.
    pub members: BTreeMap<Arc<str>, MemberSeen>,
    /// How often a member served again without a new process.
    pub members_reopened: u64,
    /// Faults of disks that can refuse a write, by machine, in order.
    pub spoiled: Vec<(Arc<str>, Moment)>,
    /// Machines of store groups.
    pub machines: BTreeMap<StoreGroupId, Arc<str>>,
    /// When the faults stopped.
    pub healed: Option<Moment>,
    /// When the last message had been waited for: whatever was to be delivered has been.
    pub drained: Option<Moment>,
    /// Copies of one disk served at the same time: acknowledged messages may be lost, and positions used twice.
    pub disk_was_copied: bool,
}

/// Stores flush what they wrote within half a second, though nobody waits for it. Time for the flush itself included.
const FLUSHED_AFTER: Duration = Duration::from_secs(1);

impl History {
    /// Now.
    pub fn moment(&mut self, at: Duration) -> Moment {
        self.moments += 1;
        Moment { number: self.moments, at }
    }

    /// By how much the wall clock of a machine was set ahead after `from` and until `to`, all moves added up: leases of its
    /// store may be that much shorter.
    pub fn set_ahead(&self, machine: Option<&Arc<str>>, from: Duration, to: Duration) -> Duration {
        let of_it = |moved: &&ClockMove| machine.is_none_or(|machine| *machine == moved.machine);
        let within = |moved: &&ClockMove| moved.at.at >= from && moved.at.at <= to;
        let ahead = self.clock_moves.iter().filter(of_it).filter(within).map(|moved| moved.millis.max(0) as u64);
        Duration::from_millis(ahead.sum())
    }

    /// Whether the wall clock of a machine was ever moved until `to`. Once it was, times of its store may be off for long.
    pub fn clock_moved(&self, machine: &str, to: Duration) -> bool {
        self.clock_moves.iter().any(|moved| *moved.machine == *machine && moved.at.at <= to)
    }

    /// How much shorter than asked for a lease may be in true time because the machine's clock runs fast. `None`: any.
    pub fn drifted(&self, machine: Option<&Arc<str>>, span: Duration) -> Duration {
        let fast = |ppm: &i64| (*ppm).max(0) as u64;
        let ppm = match machine {
            Some(machine) => self.drift_ppm.get(machine).map_or(0, fast),
            None => self.drift_ppm.values().map(fast).max().unwrap_or(0),
        };
        Duration::from_micros(span.as_millis() as u64 * ppm / 1000)
    }

    /// Whether a machine's process stood still some time between those.
    pub fn stalled(&self, machine: &str, from: Duration, to: Duration) -> bool {
        let of_it = |stall: &&Stall| *stall.machine == *machine;
        self.stalls.iter().filter(of_it).any(|stall| stall.from.at <= to && stall.to.is_none_or(|end| end.at >= from))
    }

    /// Whether a power failure until `to` may have taken back a delivery that was asked for at `began` and known of at `known`:
    /// its record is flushed within [`FLUSHED_AFTER`], whoever waits for it. `None`: on any machine.
    pub fn delivery_lost(&self, machine: Option<&Arc<str>>, began: Duration, known: Duration, to: Duration) -> bool {
        let of_it = |failed: &Arc<str>| machine.is_none_or(|machine| machine == failed);
        self.power_failures.iter().filter(|(failed, at)| of_it(failed) && at.at <= to).any(|(failed, at)| {
            let (soon, late) = (known + FLUSHED_AFTER, self.stalled(failed, began, known + FLUSHED_AFTER));
            let mut slow =
                self.slow_disks.iter().filter(|(slow, from, to)| slow == failed && *from <= soon && *to >= began);
            at.at >= began && (at.at <= soon || late || slow.any(|(_, _, to)| at.at <= *to + FLUSHED_AFTER))
        })
    }

    /// The machine that serves a message's store group, if that is known.
    pub fn machine_of(&self, position: &Position) -> Option<&Arc<str>> {
        let of_it = |pop: &&Pop| {
            *pop.topic == *position.topic
                && i64::from(pop.position.2) == i64::from(position.queue)
                && i64::try_from(pop.position.3) == Ok(position.offset)
        };
        self.machines.get(&self.pops.iter().find(of_it)?.store_group)
    }

    /// Whether a message of a topic, by number, is gone from wherever it was acknowledged: with a disk that was lost, removed as
    /// old, or shown as damaged. False for one that was never acknowledged.
    pub fn is_gone(&self, store_group: Option<StoreGroupId>, topic: Option<u32>, id: &str) -> bool {
        let of_it = |append: &&Append| {
            *append.id == *id
                && topic.is_none_or(|topic| append.topic == topic)
                && store_group.is_none_or(|group| append.store_group == group)
        };
        let mut places = self.appends.iter().filter(of_it).peekable();
        places.peek().is_some() && places.all(|append| self.gone_since(append.store_group, append.place).is_some())
    }

    /// Whether a store whose disk was lost has ended because its folder is not the one that it should be.
    pub fn is_named(&self, lost: &LostDisk) -> bool {
        self.ended.iter().any(|ended| {
            ended.process.split('#').next() == Some(&lost.machine)
                && ended.at > lost.at
                && ended.error.contains("has its data in the folder")
        })
    }

    /// When a place in a log was first seen to be gone.
    pub fn gone_since(&self, store_group: StoreGroupId, place: LogOffset) -> Option<Moment> {
        let lost = self.lost_disks.iter().find(|lost| lost.store_group == store_group).map(|lost| lost.at);
        let gone = |seen: &&LogSeen| {
            let LogState { retained_from, damaged, .. } = &seen.state;
            place < *retained_from || damaged.iter().any(|range| range.contains(&place))
        };
        let seen = self.logs.iter().filter(|seen| seen.store_group == store_group).find(gone).map(|seen| seen.at);
        lost.into_iter().chain(seen).min()
    }

    /// First offset of a queue that was not removed.
    pub fn minimum(&self, store_group: StoreGroupId, topic: u32, queue: u32) -> u64 {
        let of_it = self.logs.iter().filter(|seen| seen.store_group == store_group);
        of_it.filter_map(|seen| seen.state.minima.get(&(topic, queue)).copied()).max().unwrap_or(0)
    }

    /// Whether a byte of the record at a place of a log was changed before `by`.
    pub fn was_flipped(&self, store_group: StoreGroupId, place: LogOffset, by: Moment) -> bool {
        let mut of_it = self.flips.iter().filter(|flip| (flip.store_group, flip.place) == (store_group, place));
        of_it.any(|flip| flip.at < by)
    }

    /// Whether a store's disk was lost before `by`.
    pub fn was_lost(&self, store_group: StoreGroupId, by: Moment) -> bool {
        self.lost_disks.iter().any(|lost| lost.store_group == store_group && lost.at < by)
    }

    /// Whether what a store had handed out is gone: see [`History::is_gone`].
    pub fn is_pop_gone(&self, pop: &Pop) -> bool {
        let (_, topic, queue, offset) = pop.position;
        offset < self.minimum(pop.store_group, topic, queue)
            || self.lost_disks.iter().any(|lost| lost.store_group == pop.store_group)
            || self.is_gone(Some(pop.store_group), Some(topic), &pop.id)
    }

    /// The topic of a group's dead letters.
    pub fn dead_letters_of(group: &str) -> String {
        format!("%DLQ%{group}")
    }
}

/// A digest of a body: FNV-1a, 64 bits.
pub fn digest(body: &[u8]) -> u64 {
    fnv1a(body.iter().copied())
}
