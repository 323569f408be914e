//! What clients asked and were told, and what stores did where nobody but the simulation sees it.
//!
//! Every record carries [`Moment`]s: true time, and a number that orders all that happened. What must always hold: an
//! operation that began has exactly one outcome, and one that was never answered is [`Outcome::Unknown`].

use gantry_proto::model::{ClientHash, Epoch, LogOffset, StoreGroupId};
use std::collections::BTreeMap;
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
    /// Who.
    pub client: Arc<str>,
    /// To which topic.
    pub topic: Arc<str>,
    /// The message's id, unique among all sends.
    pub id: Arc<str>,
    /// Of its body.
    pub digest: u64,
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
    /// Its id.
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
    /// Its store group.
    pub store_group: StoreGroupId,
    /// Whose.
    pub owners: Vec<ClientHash>,
    /// For how long, from when it was asked.
    pub invisible: Duration,
    /// When it was asked.
    pub began: Moment,
    /// When it was answered with success.
    pub ended: Moment,
}

/// An acknowledgement.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Who.
    pub client: Arc<str>,
    /// For which consumer group.
    pub group: Arc<str>,
    /// Of which message.
    pub position: Position,
    /// Its id.
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
    /// Deliveries of a message before it is a dead letter.
    pub max_attempts: u32,
}

/// A store answered an append with success.
#[derive(Clone, Debug)]
pub struct Append {
    /// Which process: machine and start.
    pub process: Arc<str>,
    /// Its store group.
    pub store_group: StoreGroupId,
    /// The epoch in which it took itself for the leader.
    pub epoch: Epoch,
    /// Where in the store group's log. (A message that was appended before may be in another queue than was asked for.)
    pub place: LogOffset,
    /// The message's id.
    pub id: Arc<str>,
    /// When the answer was given.
    pub answered: Moment,
}

/// A store handed a message out.
#[derive(Clone, Debug)]
pub struct Pop {
    /// Which process.
    pub process: Arc<str>,
    /// For which consumer group, topic and queue, and where.
    pub position: (u32, u32, u32, u64),
    /// As the store says.
    pub attempt: u32,
    /// When.
    pub answered: Moment,
}

/// Something after which a delivery may count as an attempt or not: a receive at a store whose answer nobody waited for, or
/// deliveries that were taken back.
#[derive(Clone, Debug)]
pub struct Uncounted {
    /// For which consumer group.
    pub group: u32,
    /// Of which topic.
    pub topic: u32,
    /// When.
    pub at: Moment,
}

/// A lease that a store heard of.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Which process.
    pub process: Arc<str>,
    /// Its store group.
    pub store_group: StoreGroupId,
    /// The leadership.
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
    /// Which process.
    pub process: Arc<str>,
    /// Its store group.
    pub store_group: StoreGroupId,
    /// Epochs before this one are over.
    pub by: Epoch,
    /// When it had heard it.
    pub at: Moment,
}

/// How far a store said that its log reaches.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// Its store group.
    pub store_group: StoreGroupId,
    /// Confirmed up to here.
    pub to: LogOffset,
    /// When it said so.
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
    /// Which process.
    pub process: Arc<str>,
    /// The version.
    pub version: u64,
    /// When.
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
    /// Where attempts may not be counted as they are otherwise, in order.
    pub uncounted: Vec<Uncounted>,
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
    /// By how much wall clocks were ever moved, all moves added up.
    pub clocks_moved: Duration,
    /// When the faults stopped.
    pub healed: Option<Moment>,
    /// When the last message had been waited for: whatever was to be delivered has been.
    pub drained: Option<Moment>,
    /// Copies of one disk served at the same time: acknowledged messages may be lost, and positions used twice.
    pub disk_was_copied: bool,
}

impl History {
    /// Now.
    pub fn moment(&mut self, at: Duration) -> Moment {
        self.moments += 1;
        Moment { number: self.moments, at }
    }

    /// The topic of a group's dead letters.
    pub fn dead_letters_of(group: &str) -> String {
        format!("%DLQ%{group}")
    }
}

/// A digest of a body: FNV-1a, 64 bits.
pub fn digest(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
