//! A store that joins, renews, loses and regains the leadership of its group, against a controller that can be away. Time is
//! paused: it moves only when everybody waits.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use futures_util::FutureExt as _;
use gantry_proto::contract::StoreService as _;
use gantry_proto::contract::{
    AppendError, AppendRequest, ClusterStatus, ControllerChange, JoinStoreRequest, MembershipError, MembershipService,
    MetadataError, ProxyAliveRequest, RenewStoreLeaseRequest, StoreError, StoreGrant, StoreLease, StorePositions,
    StoreReport,
};
use gantry_proto::env::fake::{FakeFiles, FakeOp, SeededRandom};
use gantry_proto::model::{
    Epoch, GroupId, MetadataChange, MetadataVersion, MetadataView, QueueId, StoreGroupId, StoreGroupName,
    StoreGroupState, Timestamp, TopicId,
};
use gantry_store::{HostError, Kept, Member, MemberConfig, MemberError, REOPENINGS_MAX, Store, StoreHost};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use support::*;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const MILLI: Duration = Duration::from_millis(1);
const LEASE: StoreLease = StoreLease::For(Duration::from_secs(6));

/// Grants leases as the real one does: counted from its answer, a margin longer.
struct Controller {
    files: FakeFiles,
    margin: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
struct State {
    lease: StoreLease,
    epoch: Epoch,
    /// Nobody else may lead before. `None`: as far as time goes, somebody else might now.
    held_until: Option<Instant>,
    link: Link,
    refusal: Option<String>,
    /// How long a call takes on its way, and an answer on its way back.
    delays: (Duration, Duration),
    joins: usize,
    renewals: usize,
    positions: StorePositions,
    closed: Option<MetadataVersion>,
    /// Of the last join and of the last renewal.
    reports: [Option<StoreReport>; 2],
    given_up: Option<(Epoch, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    /// Calls fail at once.
    Down,
    /// Calls are never answered.
    Silent,
}

impl Controller {
    fn new(machine: &Machine, lease: StoreLease) -> Arc<Controller> {
        let state = State {
            lease,
            epoch: Epoch(0),
            held_until: None,
            link: Link::Up,
            refusal: None,
            delays: (MILLI, MILLI),
            joins: 0,
            renewals: 0,
            positions: StorePositions::default(),
            closed: None,
            reports: [None; 2],
            given_up: None,
        };
        let margin = machine.config.lease_margin;
        Arc::new(Controller { files: machine.files.clone(), margin, state: Mutex::new(state) })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
    }

    fn seen(&self) -> State {
        self.state.lock().clone()
    }

    /// Whether the group is led by `epoch`, or nobody else may lead it yet.
    fn would_wait_for(&self, epoch: Epoch) -> bool {
        let state = self.state.lock();
        state.epoch == epoch && state.held_until.is_some_and(|until| Instant::now() < until)
    }

    async fn reached(&self) -> Result<(), MembershipError> {
        sleep(self.seen().delays.0).await;
        match self.seen() {
            State { link: Link::Down, .. } => Err(MembershipError::Unavailable("nobody is there".into())),
            State { link: Link::Silent, .. } => std::future::pending().await,
            State { refusal: Some(refusal), .. } => Err(MembershipError::Refused(refusal)),
            _ => Ok(()),
        }
    }

    fn hold(&self, state: &mut State) -> StoreLease {
        state.held_until = Some(match state.lease {
            StoreLease::For(lease) => Instant::now() + lease + self.margin,
            StoreLease::UntilSuperseded => Instant::now() + Duration::from_secs(86_400),
        });
        state.lease
    }

    /// The way back: the answer may be late, or lost.
    async fn answered<T>(&self, answer: T) -> T {
        sleep(self.seen().delays.1).await;
        if self.seen().link != Link::Up {
            std::future::pending::<()>().await;
        }
        answer
    }
}

#[async_trait::async_trait]
impl MembershipService for Controller {
    async fn join_store(&self, request: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        self.reached().await?;
        let answer = {
            let mut state = self.state.lock();
            state.joins += 1;
            state.reports[0] = request.report;
            match state.held_until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(remaining) if !remaining.is_zero() => {
                    Err(MembershipError::Held { store_group: request.store_group, epoch: state.epoch, remaining })
                }
                _ => {
                    state.epoch = Epoch(state.epoch.max(request.last_epoch).0 + 1);
                    let lease = self.hold(&mut state);
                    Ok(StoreGrant { epoch: state.epoch, ..granted(0, lease).grant })
                }
            }
        };
        self.answered(answer).await
    }

    async fn renew_store_lease(&self, request: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        self.reached().await?;
        let answer = {
            let mut state = self.state.lock();
            state.renewals += 1;
            let over = state.held_until.is_none_or(|until| Instant::now() >= until);
            if request.epoch != state.epoch || over {
                Err(MembershipError::Superseded { store_group: request.store_group, epoch: request.epoch })
            } else {
                state.positions = request.positions;
                state.closed = request.closed;
                state.reports[1] = request.report;
                Ok(self.hold(&mut state))
            }
        };
        self.answered(answer).await
    }

    async fn give_up_store_lease(&self, _group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError> {
        self.reached().await?;
        let mut state = self.state.lock();
        state.given_up = Some((epoch, self.files.mutations()));
        if state.epoch == epoch {
            state.held_until = None;
        }
        Ok(())
    }

    async fn proxy_alive(&self, _request: ProxyAliveRequest) -> Result<Duration, MembershipError> {
        Err(MembershipError::Refused("no proxy is part of these tests".into()))
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        Err(MetadataError::Unavailable("nobody asks for it in these tests".into()))
    }

    async fn change_controllers(&self, _change: ControllerChange) -> Result<(), MetadataError> {
        Err(MetadataError::Unavailable("nobody asks for it in these tests".into()))
    }
}

/// A store that is a member.
struct Joined {
    store: Arc<Store>,
    keeping: JoinHandle<Result<Kept, MemberError>>,
}

fn member(machine: &Machine, controller: &Arc<Controller>) -> Member {
    let store_group = StoreGroupName::parse("store-2").unwrap();
    let config = MemberConfig { store_group, address: "store:1".into(), version: "test".into() };
    Member::new(controller.clone(), machine.env.clone(), config)
}

async fn join(machine: &Machine, controller: &Arc<Controller>) -> Joined {
    let member = member(machine, controller);
    let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
    let granted = member.join(&store).await.unwrap();
    let keeping = tokio::spawn({
        let store = store.clone();
        async move { member.keep(store, granted).await }
    });
    Joined { store, keeping }
}

impl Joined {
    async fn end(self) {
        self.store.shutdown().await.unwrap();
        self.keeping.await.unwrap().unwrap();
    }

    async fn leads_within(&self, limit: Duration) {
        let start = Instant::now();
        while self.store.leads().is_err() {
            assert!(start.elapsed() < limit, "it does not lead after {limit:?}");
            sleep(10 * MILLI).await;
        }
    }

    async fn is_fenced_within(&self, limit: Duration) {
        let start = Instant::now();
        while self.store.leads().is_ok() {
            assert!(start.elapsed() < limit, "it still leads after {limit:?}");
            sleep(10 * MILLI).await;
        }
        let refused = send(&self.store, 0, "refused").await;
        assert!(matches!(refused, Err(AppendError::Store(StoreError::NotLeader(_)))));
    }
}

impl Controller {
    /// What the first renewal says that begins now or later.
    async fn next_closed(&self) -> Option<MetadataVersion> {
        // The one that is under way may have looked before.
        let renewals = self.seen().renewals;
        while self.seen().renewals < renewals + 2 {
            sleep(10 * MILLI).await;
        }
        self.seen().closed
    }
}

/// Both messages in one request.
async fn send_both(store: &Store, first: &str, second: &str) -> Result<(), AppendError> {
    let messages = vec![message(first, Some("t")), message(second, Some("t"))];
    store.append(AppendRequest { topic: TOPIC, queue: QueueId(0), messages }).await.map(|_| ())
}

async fn finish_all(store: &Store) {
    for popped in pop_all(store).await {
        ack(store, &popped.handle).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_confirmed_that_it_is_closed_takes_no_message_that_was_on_its_way() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    let joined = join(&machine, &controller).await;
    let store = &joined.store;
    send(store, 0, "before").await.unwrap();
    finish_all(store).await;
    // Two calls, begun while the group is open. The second one goes on only when it is polled again: it has found that the
    // first of its messages is being written, and waits.
    let mut writing = Box::pin(send(store, 0, "again"));
    assert!((&mut writing).now_or_never().is_none());
    let mut waiting = Box::pin(send_both(store, "again", "late"));
    assert!((&mut waiting).now_or_never().is_none());
    writing.await.unwrap();
    let since = MetadataVersion(41);
    machine.set_store_groups(&[(HERE, StoreGroupState::Closing(since))]);
    assert_eq!(controller.next_closed().await, None, "it holds a message");
    assert!(matches!(send(store, 0, "refused").await, Err(AppendError::Draining)));
    finish_all(store).await;
    assert_eq!(controller.next_closed().await, Some(since));
    assert!(matches!(waiting.await, Err(AppendError::Draining)), "it has confirmed that it takes none");
    assert_eq!(store.remains().await.unwrap(), Default::default());
    joined.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_confirms_only_what_its_metadata_say_and_is_open_again_when_they_do() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    let joined = join(&machine, &controller).await;
    let store = &joined.store;
    let set = |state| machine.set_store_groups(&[(HERE, state)]);
    let refused = async |text: &str| matches!(send(store, 0, text).await, Err(AppendError::Draining));
    // Its metadata are old: it takes messages, and so says nothing.
    assert_eq!(controller.next_closed().await, None, "though it holds none");
    set(StoreGroupState::Draining);
    assert_eq!(controller.next_closed().await, None);
    for (since, open) in [(5, StoreGroupState::Draining), (9, StoreGroupState::Active)] {
        set(StoreGroupState::Closing(MetadataVersion(since)));
        assert_eq!(controller.next_closed().await, Some(MetadataVersion(since)));
        assert!(refused("closing").await);
        set(StoreGroupState::Closed);
        assert_eq!(controller.next_closed().await, None, "it is known");
        assert!(refused("closed").await);
        set(open);
        assert!(!refused(&format!("open since {since}")).await, "at once");
        assert_eq!(controller.next_closed().await, None);
        finish_all(store).await;
    }
    set(StoreGroupState::Closing(MetadataVersion(12)));
    assert_eq!(controller.next_closed().await, Some(MetadataVersion(12)));
    let version = MetadataVersion(machine.view.version().0 + 1);
    machine.view.apply(version, &[MetadataChange::StoreGroupRemoved(HERE)]);
    assert_eq!(controller.next_closed().await, None);
    assert!(refused("removed").await, "its lease may last a while");
    joined.end().await;
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_nobody_can_replace_goes_on_while_the_controller_is_away() {
    for link in [Link::Down, Link::Silent] {
        let machine = Machine::new(1);
        let controller = Controller::new(&machine, StoreLease::UntilSuperseded);
        let joined = join(&machine, &controller).await;
        controller.change(|state| state.link = link);
        for hour in 0..3 {
            send(&joined.store, 0, &format!("hour {hour}")).await.unwrap();
            sleep(seconds(3600)).await;
        }
        controller.change(|state| state.link = Link::Up);
        let before = controller.seen().renewals;
        sleep(seconds(10)).await;
        assert!((9..=11).contains(&(controller.seen().renewals - before)), "it says that it is alive each second");
        assert_eq!(controller.seen().positions, joined.store.positions());
        assert_eq!((controller.seen().joins, joined.store.epoch()), (1, Epoch(1)));
        joined.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_tells_what_the_controller_must_not_forget() {
    let mut machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    let told = |at: usize| controller.seen().reports[at].unwrap();
    let joined = join(&machine, &controller).await;
    send(&joined.store, 0, "a").await.unwrap();
    // Named once, by metadata that were then put back.
    let named = |last_topic, last_group| MetadataChange::Given { last_topic, last_group, lost: None };
    let cluster = machine.view.cluster().map(MetadataChange::ClusterInitialized);
    let all = |given| [MetadataChange::Reset].into_iter().chain(cluster.clone()).chain([given]).collect::<Vec<_>>();
    machine.view.apply(MetadataVersion(500), &all(named(TopicId(50), GroupId(900))));
    machine.view.apply(MetadataVersion(3), &all(named(TopicId(1), GroupId(1))));
    sleep(seconds(10)).await;
    let report = told(1);
    assert_eq!((report.known.topic, report.known.group), (TopicId(50), GroupId(900)));
    assert_eq!(Some(report.known.store_group), joined.store.store_group());
    assert_eq!((report.durable_to, report.accept_missing), (joined.store.positions().confirmed_to, false));
    joined.end().await;
    // What it keeps it knows from its own disk.
    machine.config.accept_missing_log = true;
    let machine = Machine { view: Arc::new(MetadataView::default()), ..machine };
    let joined = join(&machine, &controller).await;
    let again = told(0);
    assert_eq!((again.known.topic, again.accept_missing), (TOPIC, true));
    assert!(again.durable_to >= report.durable_to, "{again:?}");
    joined.end().await;
}

/// An older copy of a folder is known by what the controller heard of the newer one, however short its leadership was.
#[tokio::test(start_paused = true)]
async fn a_leadership_of_a_moment_is_told_with_its_epoch_and_its_last_position() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, StoreLease::UntilSuperseded);
    let joined = join(&machine, &controller).await;
    sleep(10 * MILLI).await;
    assert_eq!(controller.seen().renewals, 1, "it says at once that the epoch began");
    let began = controller.seen().reports[1].unwrap().durable_to;
    send(&joined.store, 0, "a").await.unwrap();
    let store = joined.store.clone();
    joined.end().await;
    let told = controller.seen().reports[1].unwrap().durable_to;
    assert!(told > began, "the last report is of what was stored since");
    assert_eq!(told, store.positions().confirmed_to);
}

#[tokio::test(start_paused = true)]
async fn a_timed_lease_is_renewed_and_fences_the_store_when_it_cannot_be() {
    for link in [Link::Down, Link::Silent] {
        let machine = Machine::new(1);
        let controller = Controller::new(&machine, LEASE);
        let joined = join(&machine, &controller).await;
        sleep(seconds(600)).await;
        assert_eq!((controller.seen().joins, joined.store.epoch()), (1, Epoch(1)), "renewed for ten minutes");
        controller.change(|state| state.link = link);
        joined.is_fenced_within(seconds(6)).await;
        assert!(controller.would_wait_for(Epoch(1)), "the store ended after the controller did");
        sleep(seconds(60)).await;
        assert!(joined.store.leads().is_err());
        controller.change(|state| state.link = Link::Up);
        joined.leads_within(seconds(8)).await;
        assert_eq!(joined.store.epoch(), Epoch(2));
        send(&joined.store, 0, "again").await.unwrap();
        joined.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_schedule_of_failures_lets_the_store_lead_when_another_could() {
    for seed in 0..30 {
        let machine = Machine::new(seed);
        let controller = Controller::new(&machine, LEASE);
        let joined = join(&machine, &controller).await;
        let random = SeededRandom::new(seed);
        let (mut led, mut fenced) = (0, 0);
        for _ in 0..60 {
            let link = [Link::Up, Link::Up, Link::Up, Link::Down, Link::Silent][random.below(5) as usize];
            // An answer may be on its way for longer than both margins together.
            let delay = || Duration::from_millis([1, 1, 50, 1500, 4000][random.below(5) as usize]);
            let delays = (delay(), delay());
            controller.change(|state| (state.link, state.delays) = (link, delays));
            for _ in 0..random.below(600) {
                sleep(10 * MILLI).await;
                if joined.store.leads().is_ok() {
                    led += 1;
                    assert!(controller.would_wait_for(joined.store.epoch()), "seed {seed}: two may lead");
                } else {
                    fenced += 1;
                }
            }
        }
        assert!(led > 300 && fenced > 300, "seed {seed}: led {led} times, was fenced {fenced} times");
        controller.change(|state| (state.link, state.delays) = (Link::Up, (MILLI, MILLI)));
        joined.leads_within(seconds(20)).await;
        joined.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn jumps_of_the_wall_clock_neither_end_nor_lengthen_a_lease() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    let joined = join(&machine, &controller).await;
    for millis in [1, 4_000_000_000_000, 1_700_000_000_000] {
        machine.clock.set(Timestamp::from_millis(millis));
        sleep(seconds(20)).await;
        assert_eq!((joined.store.leads().is_ok(), joined.store.epoch()), (true, Epoch(1)));
    }
    controller.change(|state| state.link = Link::Silent);
    machine.clock.set(Timestamp::from_millis(1));
    joined.is_fenced_within(seconds(6)).await;
    joined.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_epoch_is_over_waits_until_it_may_join_again() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, StoreLease::UntilSuperseded);
    let joined = join(&machine, &controller).await;
    send(&joined.store, 0, "before").await.unwrap();
    // Somebody else leads for a while.
    controller.change(|state| {
        state.epoch = Epoch(5);
        state.held_until = Some(Instant::now() + seconds(30));
    });
    joined.is_fenced_within(seconds(2)).await;
    sleep(seconds(20)).await;
    assert!(joined.store.leads().is_err());
    assert!(controller.seen().joins < 40, "{} joins: it asks too often", controller.seen().joins);
    joined.leads_within(seconds(15)).await;
    assert_eq!(joined.store.epoch(), Epoch(6));
    // A proxy heard of a later epoch before the store did.
    controller.change(|state| {
        state.epoch = Epoch(8);
        state.held_until = None;
    });
    joined.store.newer_epoch(Epoch(8));
    joined.is_fenced_within(Duration::ZERO).await;
    joined.leads_within(seconds(5)).await;
    assert_eq!(joined.store.epoch(), Epoch(9));
    assert_eq!(pop_all(&joined.store).await.len(), 1);
    joined.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_given_up_after_the_last_write() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    let joined = join(&machine, &controller).await;
    for number in 0..50 {
        send(&joined.store, 0, &format!("m{number}")).await.unwrap();
    }
    joined.end().await;
    let (epoch, mutations) = controller.seen().given_up.expect("it was given up");
    assert_eq!((epoch, mutations), (Epoch(1), machine.files.mutations()));
    machine.files.kill();
    let start = Instant::now();
    let joined = join(&machine, &controller).await;
    assert!(start.elapsed() < seconds(1), "nobody had to wait for the lease's end");
    assert_eq!(joined.store.epoch(), Epoch(2));
    joined.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_ends_in_time_when_the_controller_is_away() {
    for link in [Link::Down, Link::Silent] {
        let machine = Machine::new(1);
        let controller = Controller::new(&machine, LEASE);
        let joined = join(&machine, &controller).await;
        controller.change(|state| state.link = link);
        sleep(seconds(20)).await;
        let start = Instant::now();
        joined.end().await;
        assert!(start.elapsed() < seconds(3), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_refused_ends_with_the_reason() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, StoreLease::UntilSuperseded);
    let joined = join(&machine, &controller).await;
    controller.change(|state| state.refusal = Some("the group was removed".into()));
    let Joined { store, keeping } = joined;
    let error = keeping.await.unwrap().unwrap_err();
    assert!(matches!(&error, MemberError::Refused(reason) if reason.contains("removed")), "{error}");
    assert!(store.leads().is_err(), "it goes on without being a member");
    store.shutdown().await.unwrap();
    drop(store);
    machine.files.kill();
    let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
    assert!(matches!(member(&machine, &controller).join(&store).await, Err(MemberError::Refused(_))));
    store.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_shorter_than_its_margins_is_an_error_that_names_both() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, StoreLease::For(Duration::from_millis(900)));
    let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
    let error = member(&machine, &controller).join(&store).await.map(|_| ()).unwrap_err().to_string();
    assert!(store.leads().is_err());
    assert!(error.contains("900ms") && error.contains("500ms"), "{error}");
    store.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_join_waits_for_a_controller_that_is_away_and_for_a_lease_that_somebody_holds() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    controller.change(|state| state.link = Link::Down);
    let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
    let member = member(&machine, &controller);
    let start = Instant::now();
    let (granted, ()) = tokio::join!(member.join(&store), async {
        sleep(seconds(60)).await;
        controller.change(|state| {
            state.link = Link::Up;
            state.held_until = Some(Instant::now() + seconds(10));
        });
    });
    assert_eq!(granted.unwrap().grant.epoch, Epoch(1));
    assert!(start.elapsed() >= seconds(70) && start.elapsed() < seconds(73), "{:?}", start.elapsed());
    let seen = controller.seen();
    assert!(seen.joins > 3, "{} joins: it noticed late that it may ask", seen.joins);
    store.shutdown().await.unwrap();
}

/// A store that is kept running.
struct Hosted {
    host: Arc<StoreHost>,
    keeping: JoinHandle<Result<(), HostError>>,
}

async fn host(machine: &Machine, controller: &Arc<Controller>) -> Hosted {
    let (config, env, view) = (machine.config.clone(), machine.env.clone(), machine.view.clone());
    let member = member(machine, controller);
    let (host, granted) = StoreHost::start(config, env, view, machine.dir.clone(), member).await.unwrap();
    let keeping = tokio::spawn({
        let host = host.clone();
        async move { host.keep(granted).await }
    });
    Hosted { host, keeping }
}

impl Hosted {
    async fn append(&self, text: &str) -> Result<(), AppendError> {
        let request = AppendRequest { topic: TOPIC, queue: QueueId(0), messages: vec![message(text, None)] };
        self.host.append(request).await.map(|_| ())
    }

    async fn takes_messages_within(&self, limit: Duration) {
        let start = Instant::now();
        while let Err(error) = self.host.takes_messages() {
            assert!(start.elapsed() < limit, "not after {limit:?}: {error}");
            sleep(10 * MILLI).await;
        }
    }

    async fn end(self) {
        self.host.shutdown().await.unwrap();
        self.keeping.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_log_failed_gives_its_lease_back_at_once_and_goes_on_by_itself() {
    for op in [FakeOp::Sync, FakeOp::Write] {
        let machine = Machine::new(1);
        let controller = Controller::new(&machine, LEASE);
        let hosted = host(&machine, &controller).await;
        for round in 0..3u32 {
            hosted.append(&format!("kept {round}")).await.unwrap();
            machine.files.fail_next(op, 0, std::io::ErrorKind::Other);
            let start = Instant::now();
            let failed = hosted.append(&format!("in doubt {round}")).await.unwrap_err();
            assert!(matches!(failed, AppendError::Store(StoreError::Interrupted(_))), "{failed}");
            sleep(20 * MILLI).await;
            let (epoch, mutations) = controller.seen().given_up.expect("it is given back");
            assert_eq!((epoch, mutations), (Epoch(round + 1), machine.files.mutations()), "after the last write");
            let refused = hosted.append("refused").await.unwrap_err();
            let says = |word: &str| refused.to_string().contains(word);
            assert!(matches!(refused, AppendError::Store(StoreError::NotLeader(_))) && says("log failed"), "{refused}");
            assert!(hosted.host.takes_messages().is_err());
            hosted.takes_messages_within(seconds(2)).await;
            assert!(start.elapsed() < seconds(2), "a well disk: {:?}", start.elapsed());
            assert_eq!(hosted.host.epoch(), Epoch(round + 2));
        }
        let popped = pop_all(&hosted.host.store()).await;
        let kept = popped.iter().map(body).filter(|text| text.starts_with("kept")).count();
        assert_eq!(kept, 3, "what was acknowledged");
        hosted.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stays_ill_is_tried_a_bounded_number_of_times_and_then_the_reason_is_told() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    let hosted = host(&machine, &controller).await;
    hosted.append("kept").await.unwrap();
    for _ in 0..10_000 {
        machine.files.fail_next(FakeOp::Sync, 0, std::io::ErrorKind::Other);
    }
    let start = Instant::now();
    assert!(hosted.append("lost").await.is_err());
    let error = hosted.keeping.await.unwrap().unwrap_err();
    assert!(matches!(error, HostError::Failed { attempts: REOPENINGS_MAX, .. }), "{error}");
    assert!(start.elapsed() > seconds(30) && start.elapsed() < seconds(180), "{:?}", start.elapsed());
    assert!(error.to_string().contains("mend it, and start the store again"), "{error}");
    assert!(controller.seen().given_up.is_some());
    machine.files.kill();
    drop(hosted.host);
    let store = machine.must_open();
    assert_eq!(pop_all(&store).await.iter().map(body).next().unwrap(), "kept");
    store.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_opening_again_cannot_mend_ends_the_store_at_once() {
    let machine = Machine::new(1);
    let controller = Controller::new(&machine, LEASE);
    let hosted = host(&machine, &controller).await;
    for file in ["identity", "identity.copy"] {
        machine.files.flip_bits(&machine.dir.join(file), 20, 1).unwrap();
    }
    machine.files.fail_next(FakeOp::Sync, 0, std::io::ErrorKind::Other);
    let start = Instant::now();
    assert!(hosted.append("lost").await.is_err());
    let error = hosted.keeping.await.unwrap().unwrap_err();
    assert!(matches!(error, HostError::Open(_)) && error.to_string().contains("backup"), "{error}");
    assert!(start.elapsed() < seconds(1));
}

#[tokio::test(start_paused = true)]
async fn a_store_can_be_stopped_while_it_is_being_opened_again() {
    for millis in [0, 100, 201, 203, 205, 400, 700] {
        let machine = Machine::new(1);
        let controller = Controller::new(&machine, LEASE);
        let hosted = host(&machine, &controller).await;
        machine.files.fail_next(FakeOp::Sync, 0, std::io::ErrorKind::Other);
        if millis > 200 {
            // The first attempt is in vain.
            machine.files.fail_next(FakeOp::Open, 0, std::io::ErrorKind::Other);
        }
        assert!(hosted.append("in doubt").await.is_err());
        sleep(Duration::from_millis(millis)).await;
        let _ = hosted.host.shutdown().await;
        let start = Instant::now();
        hosted.keeping.await.unwrap().unwrap();
        assert!(start.elapsed() < seconds(3), "after {millis} ms: {:?}", start.elapsed());
        drop(hosted.host);
        sleep(MILLI).await;
        machine.open_folder().unwrap_or_else(|error| panic!("after {millis} ms: {error}"));
    }
}
