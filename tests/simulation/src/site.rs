//! What everybody in one simulation knows: who there is, how far the run has come, and where to record.

use crate::draw::Draw;
use crate::history::StoreState;
use crate::recorder::Recorder;
use crate::scenario::Scenario;
use gantry_proto::contract::StoreLease;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Where clients reach a proxy.
pub const PROXY_PORT: u16 = 8081;
/// Where operators reach a proxy.
pub const ADMIN_PORT: u16 = 8085;
/// Where peers reach a store or a member of the controller.
pub const PEER_PORT: u16 = 9090;
/// How long a timed lease lasts. Short, so that leases end while faults last.
pub const LEASE: Duration = Duration::from_secs(3);
/// How long a client waits for an answer, beyond what it asked the server to wait.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// The group whose consumers refuse some messages until they are dead letters.
pub const CAREFUL: &str = "careful";
/// A group that gets everything done sooner or later.
pub const PATIENT: &str = "patient";
/// The group whose clients' leases are renewed for them, as push consumers' are.
pub const PUSHED: &str = "pushed";
/// The lease of a receive with automatic renewal.
pub const AUTO_RENEW_LEASE: Duration = Duration::from_secs(5);
/// The group that subscribes to one tag.
pub const CHOOSY: &str = "choosy";
/// That tag.
pub const CHOSEN: &str = "blue";
/// The group that reads dead letters.
pub const GRAVES: &str = "graves";

/// Stages of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The cluster comes up; topics and groups are created.
    Prepare,
    /// Work, and faults.
    Run,
    /// The faults are over; work goes on.
    Settle,
    /// Nothing is sent any more; consumers take what is left.
    Drain,
    /// It is over.
    Done,
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// First members of the controller.
    pub controllers: usize,
    /// Machines for members that the operator puts in the place of others. None: members stay.
    pub spares: usize,
    /// Store groups, each of one store.
    pub stores: usize,
    pub proxies: usize,
    /// Clients that send.
    pub producers: usize,
    /// Clients that receive, in each group.
    pub consumers: usize,
}

/// What the operator does at the machines themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A machine that runs nothing becomes a member of the controller, with an empty folder. The number is a new one.
    Enlist {
        host: String,
        /// The member's number.
        number: u64,
    },
    /// Whatever runs on the machine is stopped for good.
    Retire { host: String },
}

/// What clients and operators do in a run, besides what they always do. Drawn for each seed: runs differ in kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// How many of a hundred sends have several messages.
    pub batches: u64,
    /// How many of a hundred messages have a tag.
    pub tags: u64,
    /// How many of a hundred changes of an invisible duration say that the delivery was no attempt.
    pub suspensions: u64,
    /// How many of a hundred looks of the operator change a topic: more queues, or a topic for a short while.
    pub alterations: u64,
    /// One in this many messages is never acknowledged by the careful group.
    pub poison: u64,
    /// Messages that a push client holds before it asks for no more.
    pub cache: usize,
    /// How long a producer waits for an answer.
    pub patience: Duration,
    /// How long a producer waits between two requests, at most.
    pub pause: Duration,
    /// How many of a hundred messages are large.
    pub large: u64,
    /// How many of a hundred deliveries are acknowledged at once; of the others some late, some never, some come again.
    pub prompt: u64,
    /// How often a store writes a checkpoint.
    pub checkpoints: Duration,
    /// Commands after which a member of the controller makes a snapshot, and entries that it keeps behind it: few, so that
    /// logs are purged, and who was away gets a snapshot.
    pub snapshots: (usize, u64),
}

impl Habits {
    pub(crate) fn drawn(seed: u64) -> Habits {
        let draw = Draw::new(seed, "habits");
        let some = |most: &[u64]| *draw.pick(most);
        Habits {
            batches: some(&[0, 10, 50]),
            tags: some(&[30, 80]),
            suspensions: some(&[0, 30, 80]),
            alterations: some(&[0, 0, 15, 40]),
            poison: some(&[6, 12, 12, 24]),
            cache: some(&[4, 16, 1000]) as usize,
            patience: PATIENCE,
            pause: Duration::from_millis(some(&[80, 250, 250, 700])),
            large: some(&[0, 3, 3, 12]),
            prompt: some(&[30, 66, 66, 90]),
            checkpoints: Duration::from_millis(some(&[300, 2000, 2000])),
            snapshots: *draw.pick(&[(20, 10), (20, 10), (3, 1), (200, 500)]),
        }
    }
}

/// What stores may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// What is oldest, while the log has more bytes.
    Bytes(u64),
    /// What is older.
    Age(Duration),
}

/// One simulation.
pub struct Site {
    /// What determines it.
    pub seed: u64,
    /// Who there is.
    pub shape: Shape,
    /// Operators in a hurry.
    pub hurried: usize,
    /// What is done.
    pub habits: Habits,
    /// The kind of lease that the only replica of a store group is granted (`controller.lease_only_replica`). What each
    /// promises is said with the invariant that holds it: `invariants::single_writer`.
    pub lease: StoreLease,
    /// What stores may remove. `None`: nothing within any run.
    pub retention: Option<Retention>,
    /// Where everything is recorded.
    pub recorder: Recorder,
    stage: AtomicU8,
    /// Topics that clients may use, in the order of their creation.
    topics: Mutex<Vec<Arc<str>>>,
    orders: Mutex<Vec<Order>>,
    /// States with which stores ended gracefully, by machine, until they are opened again.
    pub(crate) ended: Mutex<BTreeMap<Arc<str>, StoreState>>,
}

impl Site {
    /// A site at its first stage.
    pub fn new(seed: u64, scenario: &Scenario, recorder: Recorder) -> Arc<Site> {
        let retention = scenario.retention(seed);
        recorder.history(|history| history.retention = retention);
        let (stage, topics) = (AtomicU8::new(Stage::Prepare as u8), Mutex::default());
        Arc::new(Site {
            seed,
            shape: scenario.shape,
            hurried: scenario.hurried,
            habits: scenario.habits(seed),
            lease: scenario.lease(seed),
            retention,
            recorder,
            stage,
            topics,
            orders: Mutex::default(),
            ended: Mutex::default(),
        })
    }

    /// How far the run has come.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Prepare,
            1 => Stage::Run,
            2 => Stage::Settle,
            3 => Stage::Drain,
            _ => Stage::Done,
        }
    }

    /// Goes on to a later stage.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
        crate::note!(self.recorder.trace, "-", "STAGE {stage:?}");
    }

    /// Topics that clients may use.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.topics.lock().clone()
    }

    /// Lets clients use a topic, and notes which groups consume it.
    pub fn add_topic(&self, topic: &str) {
        let topic: Arc<str> = topic.into();
        self.recorder.history(|history| {
            for group in [CAREFUL, PATIENT, PUSHED, CHOOSY] {
                if let Some(group) = history.groups.get_mut(group) {
                    group.topics.push(topic.clone());
                }
            }
        });
        self.topics.lock().push(topic);
    }

    /// Clients use a topic no more: it is about to be deleted.
    pub fn remove_topic(&self, topic: &str) {
        self.topics.lock().retain(|other| **other != *topic);
        let began = self.recorder.moment();
        self.recorder.history(|history| history.deletions.push((topic.into(), began)));
    }

    /// Has something done at a machine, soon.
    pub fn order(&self, order: Order) {
        self.orders.lock().push(order);
    }

    /// What is to be done at machines, in order. Nobody else is told.
    pub fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut *self.orders.lock())
    }

    /// Host names of the controller's first members, then of the machines for others.
    pub fn controllers(&self) -> Vec<String> {
        (1..=self.shape.controllers + self.shape.spares).map(|number| format!("controller-{number}")).collect()
    }

    /// Where the first members of the controller are.
    pub fn first_members(&self) -> BTreeMap<u64, String> {
        (1..).zip(self.controller_addresses()).take(self.shape.controllers).collect()
    }

    /// Host names of stores; also the names of their groups.
    pub fn stores(&self) -> Vec<String> {
        ('a'..).take(self.shape.stores).map(|letter| format!("store-{letter}")).collect()
    }

    /// Host names of proxies.
    pub fn proxies(&self) -> Vec<String> {
        (1..=self.shape.proxies).map(|number| format!("proxy-{number}")).collect()
    }

    /// Host names of clients.
    pub fn clients(&self) -> Vec<String> {
        let of = |kind: &'static str, count| (1..=count).map(move |number| format!("{kind}-{number}"));
        let Shape { producers, consumers, .. } = self.shape;
        (of("producer", producers)
            .chain(of(CAREFUL, consumers))
            .chain(of(PATIENT, consumers))
            .chain(of(PUSHED, consumers)))
        .chain(of(CHOOSY, 1))
        .chain(of(GRAVES, 1))
        .chain(std::iter::once("operator".to_owned()))
        .chain(of("hurried", self.hurried))
        .collect()
    }

    /// Where peers reach the controller, or may.
    pub fn controller_addresses(&self) -> Vec<String> {
        self.controllers().into_iter().map(|host| format!("{host}:{PEER_PORT}")).collect()
    }
}
