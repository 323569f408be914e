//! A store behind a link does what it does without one; and what happens when the link breaks.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use futures_util::{FutureExt as _, StreamExt as _};
use gantry_link::{LinkedStores, LocalPeer, PeerCredentials, PeerServices, StoreLink};
use gantry_proto::contract::*;
use gantry_proto::env::Env;
use gantry_proto::env::fake::{Loopback, Wires};
use gantry_proto::model::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::raw::dial;
use support::store::*;
use support::{CLUSTER, Served, env, eventually, local, local_of};
use tokio::sync::Semaphore;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

fn services(store: &Arc<MemoryStore>) -> PeerServices {
    PeerServices::default().store(store.clone(), store.clone())
}

fn link_to(env: &Env, port: u16) -> Arc<StoreLink> {
    let replica = replica(&format!("127.0.0.1:{port}"));
    Arc::new(StoreLink::open(env, &local(), replica, STORE_GROUP, Epoch(1)))
}

/// A store behind wires, and a link to it.
async fn wired() -> (Wires, Arc<MemoryStore>, Served, Arc<StoreLink>) {
    let wires = Wires::default();
    let (env, store) = (env(wires.clone()), Arc::new(MemoryStore::default()));
    let served = Served::start(&env, 1, &local(), services(&store)).await;
    let link = link_to(&env, 1);
    link.queues(TOPIC).await.unwrap();
    link.append(append(vec![message("first", b"")])).await.unwrap();
    (wires, store, served, link)
}

// ---- the contract, with and without a link ----

async fn does_what_a_store_does(service: Arc<dyn StoreService>, store: &MemoryStore) {
    let sent: Vec<_> = (0..5u8).map(|n| message(&format!("id-{n}"), &vec![n; 1000 * usize::from(n)])).collect();
    let reply = service.append(append(sent.clone())).await.unwrap();
    assert_eq!(reply.appended.len(), 5);
    let last =
        Appended { queue_offset: QueueOffset(4), log_offset: LogOffset(400), store_time: Timestamp::from_millis(1004) };
    assert_eq!(reply.appended[4], last);

    let popped = service.pop(pop(4, Duration::ZERO)).await.unwrap().messages;
    assert_eq!(popped.iter().map(|popped| &popped.message).collect::<Vec<_>>(), sent[..4].iter().collect::<Vec<_>>());
    assert_eq!((popped[3].queue, popped[3].queue_offset, popped[3].attempt), (QueueId(1), QueueOffset(3), 1));
    assert_eq!(popped[3].store_time, Timestamp::from_millis(1003));

    let strangers = [ReceiptHandle("nothing".to_owned()), ReceiptHandle::new(STORE_GROUP, "unknown")];
    let [malformed, expired] = strangers;
    let results = service.ack(ack(vec![popped[0].handle.clone(), malformed, expired, popped[1].handle.clone()])).await;
    let results: Vec<_> = results.unwrap().into_iter().map(|result| format!("{result:?}")).collect();
    assert_eq!(results, ["Ok(())", "Err(Malformed)", "Err(Expired)", "Ok(())"]);

    let changed = service.change_invisible(change(popped[2].handle.clone(), SOON)).await.unwrap();
    assert_ne!(changed, popped[2].handle);
    let letter = DeadLetterRequest { group: GROUP, topic: TOPIC, handle: changed };
    service.forward_to_dead_letter(letter).await.unwrap();
    let (client, gone) = (ClientHash::of("client"), ClientHash(u64::MAX));
    service.renew(RenewRequest { owners: vec![client, gone], invisible: SOON, arrived: Vec::new() }).await.unwrap();
    service.release(ReleaseRequest { owner: gone, invisible: Duration::from_secs(1) }).await.unwrap();
    assert_eq!(store.living(), (vec![client, gone], vec![gone]));

    let queue = QueueStatus { queue: QueueId(1), min_offset: QueueOffset(0), max_offset: QueueOffset(5) };
    assert_eq!(service.queues(TOPIC).await.unwrap(), [queue]);
    let progress = TopicProgress { topic: TOPIC, ready: 1, inflight: 1, damaged: 0 };
    assert_eq!(service.progress(GROUP).await.unwrap(), [progress]);
    assert_eq!(service.remains().await.unwrap(), Remains { unfinished: 2, unclaimed: 1 << 40 });
}

async fn fails_as_a_store_fails(service: Arc<dyn StoreService>, store: &MemoryStore) {
    let text = || "why".to_owned();
    let store_errors = || {
        [
            StoreError::Busy(text()),
            StoreError::DiskFull(text()),
            StoreError::WritesStopped(text()),
            StoreError::Unreadable(text()),
            StoreError::ShuttingDown,
            StoreError::NotLeader(text()),
            StoreError::Interrupted(text()),
            StoreError::Unreachable(text()),
            StoreError::NoLeader(text()),
        ]
    };
    let append_errors = [
        AppendError::UnknownQueue(TopicId(77)),
        AppendError::Draining,
        AppendError::TooLarge { bytes: 1 << 33, max: 5 },
        AppendError::IdReused { message_id: "id".to_owned() },
    ];
    for error in append_errors.into_iter().chain(store_errors().map(AppendError::Store)) {
        let expected = format!("{error:?}");
        *store.append_error.lock() = Some(error);
        assert_eq!(format!("{:?}", service.append(append(vec![message("x", b"")])).await.unwrap_err()), expected);
    }
    let pop_errors = [
        PopError::UnknownTopic(TopicId(77)),
        PopError::UnknownGroup(GroupId(78)),
        PopError::InflightFull { inflight: 1 << 33 },
        PopError::PollingFull { waiting: 6 },
    ];
    for error in pop_errors.into_iter().chain(store_errors().map(PopError::Store)) {
        let expected = format!("{error:?}");
        *store.pop_error.lock() = Some(error);
        assert_eq!(format!("{:?}", service.pop(pop(1, Duration::ZERO)).await.unwrap_err()), expected);
    }
    let handle_errors =
        || [HandleError::Malformed, HandleError::Expired].into_iter().chain(store_errors().map(HandleError::Store));
    let handle = || ReceiptHandle::new(STORE_GROUP, "x");
    for error in handle_errors() {
        let expected = format!("{error:?}");
        *store.handle_error.lock() = Some(error);
        assert_eq!(format!("{:?}", service.change_invisible(change(handle(), SOON)).await.unwrap_err()), expected);
    }
    for error in handle_errors() {
        let expected = format!("{error:?}");
        *store.handle_error.lock() = Some(error);
        let letter = DeadLetterRequest { group: GROUP, topic: TOPIC, handle: handle() };
        assert_eq!(format!("{:?}", service.forward_to_dead_letter(letter).await.unwrap_err()), expected);
    }
    for call in 0..6 {
        for error in store_errors() {
            let expected = format!("{error:?}");
            *store.store_error.lock() = Some(error);
            let owner = ClientHash(1);
            let error = match call {
                0 => service.ack(ack(vec![handle()])).await.map(drop),
                1 => service.renew(RenewRequest { owners: vec![owner], invisible: SOON, arrived: Vec::new() }).await,
                2 => service.release(ReleaseRequest { owner, invisible: SOON }).await,
                3 => service.queues(TOPIC).await.map(drop),
                4 => service.progress(GROUP).await.map(drop),
                _ => service.remains().await.map(drop),
            };
            assert_eq!(format!("{:?}", error.unwrap_err()), expected, "call {call}");
        }
    }
}

async fn lets_pops_wait(service: Arc<dyn StoreService>, store: &MemoryStore) {
    let began = Instant::now();
    assert!(service.pop(pop(1, Duration::from_millis(50))).await.unwrap().messages.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(50));
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { service.pop(pop(1, SOON)).await }
    });
    eventually("the pop waits", || store.parked.load(Ordering::SeqCst) == 1).await;
    service.append(append(vec![message("late", b"body")])).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().messages[0].message, message("late", b"body"));

    let abandoned = tokio::spawn({
        let service = service.clone();
        async move { service.pop(pop(1, SOON)).await }
    });
    eventually("the pop waits", || store.parked.load(Ordering::SeqCst) == 1).await;
    abandoned.abort();
    eventually("the pop is cancelled", || store.parked.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_store_fulfils_the_contract_without_a_link() {
    let store = Arc::new(MemoryStore::default());
    does_what_a_store_does(store.clone(), &store).await;
    fails_as_a_store_fails(store.clone(), &store).await;
    let store = Arc::new(MemoryStore::default());
    lets_pops_wait(store.clone(), &store).await;
}

#[tokio::test]
async fn a_store_fulfils_the_contract_through_a_link() {
    let (env, store) = (env(Loopback), Arc::new(MemoryStore::default()));
    let served = Served::start(&env, 0, &local(), services(&store)).await;
    let link = link_to(&env, served.address.port());
    does_what_a_store_does(link.clone(), &store).await;
    fails_as_a_store_fails(link.clone(), &store).await;
    let store = Arc::new(MemoryStore::default());
    let served = Served::start(&env, 0, &local(), services(&store)).await;
    lets_pops_wait(link_to(&env, served.address.port()), &store).await;
}

#[tokio::test]
async fn many_calls_and_large_messages_go_through_one_link() {
    let (env, store) = (env(Loopback), Arc::new(MemoryStore::default()));
    let served = Served::start(&env, 0, &local(), services(&store)).await;
    let link = link_to(&env, served.address.port());
    let large = message("large", &vec![5; 4 << 20]);
    link.append(append(vec![large.clone(); 8])).await.unwrap();
    let popped = link.pop(pop(8, Duration::ZERO)).await.unwrap().messages;
    assert!(popped.len() == 8 && popped.iter().all(|popped| popped.message == large));
    let calls = (0..3000).map(|n: u32| {
        let link = link.clone();
        tokio::spawn(async move { link.append(append(vec![message(&n.to_string(), &n.to_le_bytes())])).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(store.appended(), 3008);
}

#[tokio::test]
async fn what_ends_deliveries_does_not_wait_behind_large_ones() {
    use gantry_proto::wire::store::v1::{self as wire, call::Call, reply::Outcome};
    let (env, store) = (env(Loopback), Arc::new(MemoryStore::default()));
    let served = Served::start(&env, 0, &local(), services(&store)).await;
    let large = || message("large", &vec![5; 1 << 20]);
    store.append(append(vec![large(), large(), large()])).await.unwrap();
    let acked = store.pop(pop(1, Duration::ZERO)).await.unwrap().messages.remove(0).handle.0;

    let hello = wire::Hello {
        versions: Some(wire::VersionRange { min: 1, max: 1 }),
        cluster: CLUSTER.0.to_vec().into(),
        group: STORE_GROUP.0,
        folder: FOLDER.0.to_vec().into(),
        epoch: 1,
        ..wire::Hello::default()
    };
    let call = |id, call| wire::Call { id, remaining_ms: 10_000, call: Some(call), must_understand: Vec::new() };
    let (group, topic) = (GROUP.0, TOPIC.0);
    let pop =
        || Call::Pop(wire::PopCall { group, topic, filter: "*".to_owned(), batch_max: 1, ..wire::PopCall::default() });
    let ack = Call::Ack(wire::AckCall { group, topic, handles: vec![acked] });
    let calls = vec![call(1, pop()), call(2, pop()), call(3, ack)];
    let frames = [
        wire::Requests { hello: Some(hello), ..wire::Requests::default() },
        wire::Requests { calls, ..wire::Requests::default() },
    ];
    let frames = futures_util::stream::iter(frames).chain(futures_util::stream::pending());
    let codec = tonic_prost::ProstCodec::<wire::Requests, wire::Replies>::default();
    let path = http::uri::PathAndQuery::from_static("/gantry.store.v1.StoreExchange/Exchange");
    let mut client = dial(served.address).await.max_decoding_message_size(64 << 20);
    let mut replies = client.streaming(tonic::Request::new(frames), path, codec).await.unwrap().into_inner();
    let mut order = Vec::new();
    while order.iter().map(Vec::len).sum::<usize>() < 3 {
        let frame: wire::Replies = replies.message().await.unwrap().unwrap();
        order.push(frame.replies.iter().map(|reply| reply.id).collect());
        let failed = frame.replies.iter().any(|reply| matches!(reply.outcome, Some(Outcome::Failure(_))));
        assert!(!failed, "{:?}", frame.replies);
    }
    order.retain(|frame: &Vec<u64>| !frame.is_empty());
    assert_eq!(order, [[3], [1], [2]], "the frames and what they carried");
}

#[tokio::test]
async fn receives_that_wait_keep_out_no_acknowledgement() {
    // More than one stream carries.
    const RECEIVES: usize = 66_000;
    let (_wires, _store, _served, link) = wired().await;
    let handle = link.pop(pop(1, Duration::ZERO)).await.unwrap().messages.remove(0).handle;
    let receive = |_| {
        let link = link.clone();
        tokio::spawn(async move { link.pop(pop(1, Duration::from_secs(60))).await.map(drop) })
    };
    let receives: Vec<_> = (0..RECEIVES).map(receive).collect();
    eventually("one more than fit is refused", || receives.iter().any(|receive| receive.is_finished())).await;
    let acked = link.ack(ack(vec![handle])).await.unwrap();
    assert!(acked[0].is_ok(), "{acked:?}");
    receives.iter().for_each(|receive| receive.abort());
}

// ---- the link breaks ----

#[tokio::test(start_paused = true)]
async fn a_link_comes_up_by_itself_and_calls_before_that_did_not_happen() {
    let wires = Wires::default();
    let (env, store) = (env(wires.clone()), Arc::new(MemoryStore::default()));
    let link = link_to(&env, 1);
    let error = link.append(append(vec![message("x", b"")])).await.unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::NoLeader(_))), "{error:?}");
    assert!(!link.is_up());
    let _served = Served::start(&env, 1, &local(), services(&store)).await;
    eventually("the link is up", || link.is_up()).await;
    link.append(append(vec![message("x", b"")])).await.unwrap();
    assert_eq!(store.appended(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_not_asked_again_and_again() {
    let wires = Wires::default();
    let link = link_to(&env(wires.clone()), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let dialed = wires.dialed();
    assert!((30..75).contains(&dialed), "three lanes dialed {dialed} times in a minute");
    drop(link);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(wires.dialed(), dialed, "a link that was dropped dials no more");
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_on_a_broken_connection_may_have_happened_and_the_link_comes_back() {
    let (wires, store, _served, link) = wired().await;
    *store.append_gate.lock() = Some(Arc::new(Semaphore::new(0)));
    let begun = store.begun.load(Ordering::SeqCst);
    let calling = tokio::spawn({
        let link = link.clone();
        async move { link.append(append(vec![message("x", b"")])).await }
    });
    eventually("the store has it", || store.begun.load(Ordering::SeqCst) > begun).await;
    wires.break_all();
    let error = calling.await.unwrap().unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::Unreachable(_))), "{error:?}");
    *store.append_gate.lock() = None;
    eventually("the link is up", || link.append(append(vec![message("y", b"")])).now_or_never().is_none()).await;
    link.append(append(vec![message("z", b"")])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes_without_a_word_is_noticed_within_seconds_by_both_sides() {
    let (wires, store, _served, link) = wired().await;
    store.append_gate.lock().replace(Arc::new(Semaphore::new(0)));
    link.pop(pop(1, Duration::ZERO)).await.unwrap();
    let waiting = tokio::spawn({
        let link = link.clone();
        async move { link.pop(pop(1, Duration::from_secs(60))).await }
    });
    eventually("the pop waits", || store.parked.load(Ordering::SeqCst) == 1).await;
    wires.swallow_all();
    let began = Instant::now();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, PopError::Store(StoreError::Unreachable(_))), "{error:?}");
    assert!(began.elapsed() <= Duration::from_secs(4), "noticed after {:?}", began.elapsed());
    eventually("the store drops the pop", || store.parked.load(Ordering::SeqCst) == 0).await;
    assert!(began.elapsed() <= Duration::from_secs(5), "noticed after {:?}", began.elapsed());
    eventually("the link is down", || !link.is_up()).await;
    wires.heal();
    eventually("the link is up", || link.is_up()).await;
    link.queues(TOPIC).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_answers_ends() {
    let (_wires, store, _served, link) = wired().await;
    store.append_gate.lock().replace(Arc::new(Semaphore::new(0)));
    let began = Instant::now();
    let error = link.append(append(vec![message("x", b"")])).await.unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::Unreachable(_))), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_store_ends_calls_whose_time_is_over() {
    let (_wires, store, _served, link) = wired().await;
    let gate = Arc::new(Semaphore::new(0));
    store.append_gate.lock().replace(gate.clone());
    link.append(append(vec![message("x", b"")])).await.unwrap_err();
    // The test's, the store's, and the call's.
    eventually("the call lets go of the gate", || Arc::strong_count(&gate) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_caller_is_gone_is_given_back() {
    let (wires, store, _served, link) = wired().await;
    wires.hold();
    let pops: Vec<_> = (0..2)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.pop(pop(1, SOON)).await })
        })
        .collect();
    eventually("one pop has the message, the other waits", || {
        store.hidden() == 1 && store.parked.load(Ordering::SeqCst) == 1
    })
    .await;
    pops.iter().for_each(|pop| pop.abort());
    eventually("the waiting pop is cancelled", || store.parked.load(Ordering::SeqCst) == 0).await;
    assert_eq!((store.visible(), store.hidden()), (0, 1), "the reply is under way");
    wires.release();
    eventually("the message is visible again", || (store.visible(), store.hidden()) == (1, 0)).await;
    let popped = link.pop(pop(1, Duration::ZERO)).await.unwrap().messages;
    assert_eq!(popped[0].attempt, 1, "a delivery that nobody got does not count");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_lost_with_its_connection_is_given_back_and_one_that_came_is_not() {
    let (wires, store, _served, link) = wired().await;
    let has = link.pop(pop(1, Duration::ZERO)).await.unwrap().messages;
    assert_eq!((has.len(), store.hidden()), (1, 1));
    let parked = tokio::spawn({
        let link = link.clone();
        async move { link.pop(pop(1, SOON)).await }
    });
    eventually("it waits", || store.parked.load(Ordering::SeqCst) == 1).await;
    // The reply is on its way when the connection breaks.
    wires.hold();
    store.append(append(vec![message("second", b"")])).await.unwrap();
    eventually("it is sent", || store.hidden() == 2 && store.parked.load(Ordering::SeqCst) == 0).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    wires.break_all();
    let error = parked.await.unwrap().unwrap_err();
    assert!(matches!(error, PopError::Store(StoreError::Unreachable(_))), "{error:?}");
    eventually("the link is up and the message visible", || link.is_up() && store.visible() == 1).await;
    assert_eq!(store.hidden(), 1, "the first one is with the proxy");
    let again = link.pop(pop(8, Duration::ZERO)).await.unwrap().messages;
    let attempts: Vec<_> = again.iter().map(|popped| (popped.queue_offset, popped.attempt)).collect();
    assert_eq!(attempts, [(QueueOffset(1), 1)], "it was no attempt");

    // The next break loses nothing, and gives nothing back.
    wires.break_all();
    while link.queues(TOPIC).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(SOON).await;
    assert_eq!((store.visible(), store.hidden()), (0, 2));
}

#[tokio::test]
async fn pops_that_are_dropped_at_any_moment_hide_nothing() {
    let (env, store) = (env(Loopback), Arc::new(MemoryStore::default()));
    let served = Served::start(&env, 0, &local(), services(&store)).await;
    let link = link_to(&env, served.address.port());
    link.append(append((0..20).map(|n| message(&n.to_string(), b"")).collect())).await.unwrap();
    for micros in 0..300 {
        let patience = Duration::from_micros(micros * 5);
        if let Ok(popped) = tokio::time::timeout(patience, link.pop(pop(3, Duration::ZERO))).await {
            let handles: Vec<_> = popped.unwrap().messages.into_iter().map(|popped| popped.handle).collect();
            for handle in handles {
                link.change_invisible(change(handle, Duration::ZERO)).await.unwrap();
            }
        }
    }
    eventually("everything is visible", || (store.visible(), store.hidden()) == (20, 0)).await;
}

// ---- who is who ----

/// The error of a link that means this store, where another one answers.
async fn refused(mean: impl Fn(&Env) -> StoreLink, named: &str) {
    let wires = Wires::default();
    let (env, store) = (env(wires.clone()), Arc::new(MemoryStore::default()));
    let _served = Served::start(&env, 1, &local(), services(&store)).await;
    let link = mean(&env);
    eventually("the link is down", || !link.is_up()).await;
    let error = link.queues(TOPIC).await.unwrap_err();
    assert!(matches!(&error, StoreError::NoLeader(why) if why.contains(named)), "{error}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(store.begun.load(Ordering::SeqCst), 0);
    assert_eq!(store.newer_epoch.load(Ordering::SeqCst), 0, "the epoch of somebody else is no news");
}

#[tokio::test(start_paused = true)]
async fn another_store_than_the_one_that_is_meant_is_refused_by_name_and_hears_of_no_epoch() {
    let (at, epoch) = (|| replica("127.0.0.1:1"), Epoch(1000));
    let group = |env: &Env| StoreLink::open(env, &local(), at(), StoreGroupId(8), epoch);
    refused(group, "group 3 is served here, not 8").await;
    let other = FolderId([8; 16]);
    let folder = |env: &Env| StoreLink::open(env, &local(), Replica { folder: other, ..at() }, STORE_GROUP, epoch);
    refused(folder, &format!("the data folder {FOLDER} is served here, not {other}")).await;
    let other = ClusterId([8; 16]);
    let cluster = |env: &Env| StoreLink::open(env, &local_of(other, &PeerCredentials::None), at(), STORE_GROUP, epoch);
    refused(cluster, &format!("belongs to cluster {CLUSTER}, the proxy asks for one of cluster {other}")).await;
    let nobody = |env: &Env| StoreLink::open(env, &LocalPeer::new(PeerCredentials::None), at(), STORE_GROUP, epoch);
    refused(nobody, "not known yet which cluster").await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_follows_another_one_at_the_same_address_is_linked_anew() {
    let (env, store) = (env(Wires::default()), Arc::new(MemoryStore::default()));
    let _served = Served::start(&env, 1, &local(), services(&store)).await;
    let view = Arc::new(MetadataView::default());
    let stores = LinkedStores::new(&env, &local(), view.clone());
    let tell = |version, group: &StoreGroup| {
        view.apply(MetadataVersion(version), &[MetadataChange::StoreGroupUpsert(Arc::new(group.clone()))]);
    };
    let mut first = group(3, 1, 1);
    (first.replicas[0].folder, first.leader) = (FolderId([9; 16]), Some(FolderId([9; 16])));
    tell(1, &first);
    stores.leader_of(&first);
    assert_eq!(stores.trouble_with(&first), None, "it has not failed yet");
    eventually("the store is not the one that led", || stores.leader_of(&first).is_none()).await;
    let trouble = stores.trouble_with(&first).unwrap();
    assert!(trouble.contains(&format!("the data folder {FOLDER} is served here")), "{trouble}");
    let second = group(3, 1, 2);
    tell(2, &second);
    stores.leader_of(&second).expect("it is tried at once").queues(TOPIC).await.unwrap();
    assert_eq!(stores.trouble_with(&second), None);
}

#[tokio::test(start_paused = true)]
async fn a_store_hears_of_a_newer_epoch_with_the_first_frame_and_with_later_ones() {
    let wires = Wires::default();
    let (env, store) = (env(wires.clone()), Arc::new(MemoryStore::default()));
    store.epoch.store(4, Ordering::SeqCst);
    let _served = Served::start(&env, 1, &local(), services(&store)).await;
    let link = StoreLink::open(&env, &local(), replica("127.0.0.1:1"), STORE_GROUP, Epoch(4));
    link.queues(TOPIC).await.unwrap();
    assert_eq!(store.newer_epoch.load(Ordering::SeqCst), 0, "its own epoch is no news");
    link.set_epoch(Epoch(5));
    eventually("it is told though nobody calls", || store.newer_epoch.load(Ordering::SeqCst) == 5).await;
    let _other = StoreLink::open(&env, &local(), replica("127.0.0.1:1"), STORE_GROUP, Epoch(6));
    eventually("it is told at once", || store.newer_epoch.load(Ordering::SeqCst) == 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_drains_answers_what_is_under_way_and_nothing_else() {
    let (_wires, store, served, link) = wired().await;
    let gate = Arc::new(Semaphore::new(0));
    *store.append_gate.lock() = Some(gate.clone());
    let begun = store.begun.load(Ordering::SeqCst);
    let calling = tokio::spawn({
        let link = link.clone();
        async move { link.append(append(vec![message("x", b"")])).await }
    });
    eventually("the store has it", || store.begun.load(Ordering::SeqCst) > begun).await;
    served.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = link.append(append(vec![message("y", b"")])).await.unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::ShuttingDown)), "{error:?}");
    gate.add_permits(1);
    calling.await.unwrap().unwrap();
    let began = Instant::now();
    served.drain().await;
    assert!(began.elapsed() < Duration::from_secs(1), "nothing is left to wait for");
}

fn group(id: u32, port: u16, epoch: u32) -> StoreGroup {
    let folder = FolderId([id as u8; 16]);
    StoreGroup {
        id: StoreGroupId(id),
        name: StoreGroupName::parse(&format!("store-{id}")).unwrap(),
        state: StoreGroupState::Active,
        replicas: vec![Replica { folder, address: format!("127.0.0.1:{port}").into() }],
        in_sync: vec![folder],
        leader: (epoch > 0).then_some(folder),
        epoch: Epoch(epoch),
        created_at: Timestamp::ZERO,
    }
}

#[tokio::test(start_paused = true)]
async fn stores_are_linked_while_their_groups_have_a_leader_that_answers() {
    let wires = Wires::default();
    let (env, store) = (env(wires.clone()), Arc::new(MemoryStore::default()));
    let view = Arc::new(MetadataView::default());
    let tell = |version, group: &StoreGroup| {
        view.apply(MetadataVersion(version), &[MetadataChange::StoreGroupUpsert(Arc::new(group.clone()))]);
    };
    let stores = LinkedStores::new(&env, &local(), view.clone());
    assert!(stores.leader_of(&group(3, 1, 0)).is_none(), "a group without a leader");

    let first = group(3, 1, 1);
    tell(1, &first);
    assert!(stores.leader_of(&first).is_some(), "it has not failed yet");
    eventually("its failure is known", || stores.leader_of(&first).is_none()).await;
    let served = Served::start(&env, 1, &local(), services(&store)).await;
    eventually("it is tried in the background", || stores.leader_of(&first).is_some()).await;
    stores.leader_of(&first).unwrap().queues(TOPIC).await.unwrap();

    let moved = group(3, 2, 2);
    tell(2, &moved);
    let elsewhere = Served::start(&env, 2, &local(), services(&store)).await;
    stores.leader_of(&first).unwrap().queues(TOPIC).await.unwrap();
    stores.leader_of(&moved).unwrap().queues(TOPIC).await.unwrap();
    assert_eq!(store.newer_epoch.load(Ordering::SeqCst), 2);
    served.drain().await;
    stores.leader_of(&moved).unwrap().queues(TOPIC).await.unwrap();

    view.apply(MetadataVersion(3), &[MetadataChange::StoreGroupRemoved(StoreGroupId(3))]);
    elsewhere.kill().await;
    let dialed = wires.dialed();
    assert!(stores.leader_of(&group(4, 3, 0)).is_none());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(wires.dialed(), dialed, "the link of a group that is gone is dropped");
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_yesterday_is_told_so_while_calls_are_under_way_there() {
    let (env, before, after) =
        (env(Wires::default()), Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
    let _before = Served::start(&env, 1, &local(), services(&before)).await;
    let _after = Served::start(&env, 2, &local(), services(&after)).await;
    let view = Arc::new(MetadataView::default());
    let stores = LinkedStores::new(&env, &local(), view.clone());
    let first = group(3, 1, 1);
    view.apply(MetadataVersion(1), &[MetadataChange::StoreGroupUpsert(Arc::new(first.clone()))]);
    let gate = Arc::new(Semaphore::new(0));
    *before.append_gate.lock() = Some(gate.clone());
    let leader = stores.leader_of(&first).unwrap();
    let calling = tokio::spawn(async move { leader.append(append(vec![message("x", b"")])).await });
    eventually("the store has it", || before.begun.load(Ordering::SeqCst) > 0).await;

    let moved = group(3, 2, 2);
    view.apply(MetadataVersion(2), &[MetadataChange::StoreGroupUpsert(Arc::new(moved.clone()))]);
    stores.leader_of(&moved).unwrap().queues(TOPIC).await.unwrap();
    eventually("it hears of it", || before.newer_epoch.load(Ordering::SeqCst) == 2).await;
    gate.add_permits(1);
    calling.await.unwrap().unwrap();
}
