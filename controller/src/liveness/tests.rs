use super::*;
use gantry_proto::model::{FolderId, Replica, StoreGroupName, StoreGroupState};
use proptest::prelude::*;

const FOLDER: FolderId = FolderId([1; 16]);
const MARGIN: Duration = Duration::from_millis(500);
const DURATION: Duration = Duration::from_secs(3);

fn settings(sole: Option<Duration>) -> LeaseSettings {
    LeaseSettings { duration: DURATION, margin: MARGIN, sole_replica_lease: sole, ..LeaseSettings::default() }
}

fn group(epoch: u32, led: bool) -> StoreGroup {
    StoreGroup {
        id: StoreGroupId(1),
        name: StoreGroupName::parse("s").unwrap(),
        state: StoreGroupState::Active,
        replicas: vec![Replica { folder: FOLDER, address: "s:1".into() }],
        in_sync: vec![FOLDER],
        leader: led.then_some(FOLDER),
        epoch: Epoch(epoch),
        created_at: Timestamp::ZERO,
    }
}

fn grant(table: &mut LeaseTable, epoch: u32, now: Instant) -> StoreLease {
    table.grant(&group(epoch, true), "0.1".into(), Timestamp::ZERO, now)
}

fn renew(table: &mut LeaseTable, epoch: u32, now: Instant) -> Option<StoreLease> {
    table.renew(&group(epoch, true), Epoch(epoch), (StorePositions::default(), None), now)
}

#[tokio::test(start_paused = true)]
async fn a_lease_keeps_others_out_until_it_and_the_margin_have_passed() {
    let mut table = LeaseTable::new(settings(Some(DURATION)));
    let now = Instant::now();
    assert_eq!(grant(&mut table, 1, now), StoreLease::For(DURATION));
    assert_eq!(table.admit(&group(1, true), now), Err(DURATION + MARGIN));
    let end = now + DURATION + MARGIN;
    assert_eq!(table.admit(&group(1, true), end - Duration::from_millis(1)), Err(Duration::from_millis(1)));
    assert_eq!(table.admit(&group(1, true), end), Ok(()));
    assert_eq!(renew(&mut table, 1, end), None, "what ended is not extended");
    assert_eq!(table.ended([&Arc::new(group(1, true))].into_iter(), end), [(StoreGroupId(1), Epoch(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_seen_to_end_is_not_extended_even_if_the_metadata_still_say_that_it_holds() {
    let mut table = LeaseTable::new(settings(Some(DURATION)));
    let now = Instant::now();
    grant(&mut table, 1, now);
    let group = Arc::new(group(1, true));
    assert_eq!(table.ended([&group].into_iter(), now + DURATION), []);
    let end = now + DURATION + MARGIN;
    assert_eq!(table.ended([&group].into_iter(), end).len(), 1);
    assert_eq!(renew(&mut table, 1, end), None);
    assert_eq!(table.ended([&group].into_iter(), end).len(), 1, "until the metadata say so");
}

#[tokio::test(start_paused = true)]
async fn who_begins_to_lead_waits_for_leases_that_it_does_not_know() {
    let mut table = LeaseTable::new(settings(Some(DURATION)));
    let now = Instant::now();
    assert_eq!(table.admit(&group(4, true), now), Err(DURATION + MARGIN));
    assert_eq!(table.admit(&group(4, false), now), Ok(()), "nobody leads");
    assert_eq!(renew(&mut table, 4, now + DURATION), Some(StoreLease::For(DURATION)));
    assert!(table.admit(&group(4, true), now + DURATION + MARGIN).is_err());
    let older = table.renew(&group(4, true), Epoch(3), (StorePositions::default(), None), now + DURATION);
    assert_eq!(older, None);
}

#[tokio::test(start_paused = true)]
async fn the_only_replica_in_sync_leads_without_an_end_unless_it_is_silent_or_gave_up() {
    let mut table = LeaseTable::new(settings(None));
    let now = Instant::now();
    assert_eq!(table.admit(&group(1, true), now), Ok(()), "after a change of leaders nobody waits");
    assert_eq!(grant(&mut table, 1, now), StoreLease::UntilSuperseded);
    let late = now + Duration::from_secs(3600);
    assert_eq!(table.ended([&Arc::new(group(1, true))].into_iter(), late), []);
    assert_eq!(renew(&mut table, 1, late), Some(StoreLease::UntilSuperseded));
    assert_eq!(table.admit(&group(1, true), late + Duration::from_secs(2)), Err(Duration::from_secs(1)));
    assert_eq!(table.admit(&group(1, true), late + Duration::from_secs(3)), Ok(()));
    table.give_up(StoreGroupId(1), Epoch(1));
    assert_eq!(table.admit(&group(1, true), late), Ok(()));
    assert_eq!(renew(&mut table, 1, late), None);
}

#[tokio::test(start_paused = true)]
async fn several_replicas_in_sync_make_leases_end() {
    let mut table = LeaseTable::new(settings(None));
    let two = StoreGroup { in_sync: vec![FOLDER, FolderId([2; 16])], ..group(1, true) };
    assert_eq!(table.grant(&two, "0.1".into(), Timestamp::ZERO, Instant::now()), StoreLease::For(DURATION));
}

#[tokio::test(start_paused = true)]
async fn proxies_are_gone_after_three_silent_intervals() {
    let mut table = LeaseTable::new(settings(None));
    let now = Instant::now();
    let (heard, unheard) = (ProxyId([1; 16]), ProxyId([2; 16]));
    table.proxy_alive(heard, 3, now);
    let both = || [heard, unheard].into_iter();
    assert_eq!(table.gone_proxies(both(), now), []);
    table.proxy_alive(heard, 3, now + Duration::from_secs(2));
    assert_eq!(table.gone_proxies(both(), now + Duration::from_secs(3)), [unheard]);
    assert_eq!(table.gone_proxies(both(), now + Duration::from_secs(5)), [heard, unheard]);
    table.retain(|_| true, |id| id == heard);
    assert!(table.heard_proxy(unheard).is_none() && table.heard_proxy(heard).is_some());
}

/// One thing that happens, and how much later than the one before.
#[derive(Clone, Debug)]
enum Step {
    /// A store asks to lead. Its call takes that long, each way.
    Join { call_ms: u64 },
    /// The store that was let in last, or one before it, asks to go on.
    Renew { which: usize, call_ms: u64 },
    /// The member looks for leases that ended; its command is carried out at once or much later.
    Look { carried_out: bool },
    /// Another member begins to lead.
    NewLeader,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        3 => (0..300u64).prop_map(|call_ms| Step::Join { call_ms }),
        5 => (0..3usize, 0..300u64).prop_map(|(which, call_ms)| Step::Renew { which, call_ms }),
        2 => any::<bool>().prop_map(|carried_out| Step::Look { carried_out }),
        1 => Just(Step::NewLeader),
    ];
    (0..2500u64, step)
}

/// A store as it sees its own lease, on a clock that is at most a tenth slower.
struct Holder {
    epoch: u32,
    until: Instant,
}

proptest! {
    /// Whatever is granted, extended, forgotten and passed on, on clocks that run differently: no two stores may write at
    /// one moment.
    #[test]
    fn no_two_leases_overlap_in_true_time(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        // A store's clock that is slow by a tenth makes its lease this long.
        let stretched = DURATION + DURATION / 10;
        let mut table = LeaseTable::new(settings(Some(DURATION)));
        let mut now = Instant::now();
        let mut current = group(0, false);
        let mut holders: Vec<Holder> = Vec::new();
        for (pause, step) in steps {
            now += Duration::from_millis(pause);
            match step {
                Step::Join { call_ms } => {
                    let sent = now;
                    now += Duration::from_millis(call_ms);
                    if table.admit(&current, now).is_err() {
                        continue;
                    }
                    prop_assert!(holders.iter().all(|holder| holder.until <= now), "somebody still writes");
                    current = group(current.epoch.0 + 1, true);
                    grant(&mut table, current.epoch.0, now);
                    holders.push(Holder { epoch: current.epoch.0, until: sent + stretched });
                }
                Step::Renew { which, call_ms } => {
                    let count = holders.len();
                    let Some(holder) = holders.iter_mut().rev().nth(which.min(count.saturating_sub(1))) else { continue };
                    let sent = now;
                    now += Duration::from_millis(call_ms);
                    if table.renew(&current, Epoch(holder.epoch), (StorePositions::default(), None), now).is_some() {
                        prop_assert_eq!(holder.epoch, current.epoch.0, "only the last one is extended");
                        holder.until = holder.until.max(sent + stretched);
                    }
                }
                Step::Look { carried_out } => {
                    let ended = table.ended([&Arc::new(current.clone())].into_iter(), now);
                    if carried_out && !ended.is_empty() {
                        prop_assert!(holders.iter().all(|holder| holder.until <= now), "somebody still writes");
                        current.leader = None;
                    }
                }
                Step::NewLeader => table = LeaseTable::new(settings(Some(DURATION))),
            }
        }
    }
}
