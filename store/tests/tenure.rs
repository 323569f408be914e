//! A store answers no success without a tenure, whatever it was doing when the tenure ended; and a folder serves one group,
//! in growing epochs.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use futures_util::FutureExt as _;
use gantry_proto::contract::{
    AppendError, ChangeInvisibleRequest, DeadLetterRequest, HandleError, PopError, PopRequest, ReleaseRequest,
    RenewRequest, StoreError, StoreLease,
};
use gantry_proto::env::OpenMode;
use gantry_proto::model::{ClientHash, ClusterId, Epoch, StoreGroupId, StoreGroupName};
use gantry_store::Store;
use std::sync::Arc;
use std::time::Duration;
use support::*;

const SECOND: Duration = Duration::from_secs(1);
const FOREVER: StoreLease = StoreLease::UntilSuperseded;

fn not_leader(error: &StoreError) -> bool {
    matches!(error, StoreError::NotLeader(_))
}

fn in_doubt(error: &StoreError) -> bool {
    matches!(error, StoreError::Interrupted(_))
}

/// What a call comes to that has put its record into the log when `then` happens, and nothing was written yet.
async fn interrupted<T>(call: impl Future<Output = T>, store: &Arc<Store>, again: bool) -> T {
    let before = store.positions().appended_to;
    let mut call = Box::pin(call);
    assert!(call.as_mut().now_or_never().is_none(), "it was answered before anything was written");
    assert!(store.positions().appended_to > before, "its record is in the log");
    end_tenure(store);
    if again {
        store.lead(&granted(store.epoch().0 + 1, FOREVER)).await.unwrap();
        send(store, 1, &format!("in epoch {}", store.epoch())).await.unwrap();
    }
    call.await
}

fn end_tenure(store: &Store) {
    store.end_tenure(store.epoch(), "a test");
}

#[tokio::test]
async fn what_waits_when_the_tenure_ends_is_never_called_a_success_even_if_another_epoch_begins_here() {
    for again in [false, true] {
        let machine = Machine::new(1);
        let store = machine.must_open();
        let appended = interrupted(send(&store, 0, "appended"), &store, again).await;
        assert!(matches!(appended, Err(AppendError::Store(error)) if in_doubt(&error)));

        let store = reopen(&machine, store).await;
        let popped = interrupted(pop(&store, 1), &store, again).await;
        assert!(matches!(popped, Err(PopError::Store(error)) if in_doubt(&error)));

        let store = reopen(&machine, store).await;
        machine.clock.advance(INVISIBLE);
        let held = pop(&store, 1).await.unwrap().remove(0);
        let request = ChangeInvisibleRequest {
            group: GROUP,
            topic: TOPIC,
            handle: held.handle.clone(),
            invisible: 2 * INVISIBLE,
            suspend: false,
        };
        let changed = interrupted(store.change_invisible(request), &store, again).await;
        assert!(matches!(changed, Err(HandleError::Store(error)) if in_doubt(&error)));

        let store = reopen(&machine, store).await;
        let acked = interrupted(ack(&store, &held.handle), &store, again).await;
        assert!(matches!(acked, Err(HandleError::Store(error)) if in_doubt(&error)));

        // All of it took effect: the records were in the log, and the disk was well.
        let store = reopen(&machine, store).await;
        ack(&store, &held.handle).await.expect("it is true that this is acknowledged");
        assert_eq!(send(&store, 0, "appended").await.unwrap().queue_offset.0, 0, "and that the message is stored");
        store.shutdown().await.unwrap();
    }
}

async fn reopen(machine: &Machine, store: Arc<Store>) -> Arc<Store> {
    store.shutdown().await.unwrap();
    drop(store);
    machine.files.kill();
    machine.must_open()
}

#[tokio::test]
async fn without_a_tenure_every_call_is_refused_and_nothing_is_put_into_the_log() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let owner = ClientHash::of("client");
    for number in 0..4 {
        send(&store, 0, &format!("m{number}")).await.unwrap();
    }
    let first = store.pop(PopRequest { owner: Some(owner), ..pop_request(1) }).await.unwrap().messages.remove(0);
    let (finished, letter) = (pop(&store, 1).await.unwrap().remove(0), pop(&store, 1).await.unwrap().remove(0));
    ack(&store, &finished.handle).await.unwrap();
    end_tenure(&store);
    assert!(not_leader(&store.leads().unwrap_err()));
    let before = store.positions();
    machine.clock.advance(SECOND);

    assert!(matches!(send(&store, 0, "new").await, Err(AppendError::Store(error)) if not_leader(&error)));
    let known = send(&store, 0, "m0").await;
    assert!(matches!(known, Err(AppendError::Store(error)) if not_leader(&error)), "not even what is known already");
    assert!(matches!(pop(&store, 1).await, Err(PopError::Store(error)) if not_leader(&error)));
    for handle in [&first.handle, &finished.handle] {
        assert!(matches!(ack(&store, handle).await, Err(HandleError::Store(error)) if not_leader(&error)));
    }
    for handle in [&letter.handle, &finished.handle] {
        let request = DeadLetterRequest { group: GROUP, topic: TOPIC, handle: handle.clone() };
        let buried = store.forward_to_dead_letter(request).await;
        assert!(matches!(buried, Err(HandleError::Store(error)) if not_leader(&error)));
    }
    for owner in [owner, ClientHash::of("nobody")] {
        let renewed =
            store.renew(RenewRequest { owners: vec![owner], invisible: 60 * SECOND, arrived: Vec::new() }).await;
        assert!(not_leader(&renewed.unwrap_err()));
        let released = store.release(ReleaseRequest { owner, invisible: SECOND }).await;
        assert!(not_leader(&released.unwrap_err()));
    }
    assert!(not_leader(&store.remains().await.unwrap_err()));
    assert_eq!(store.positions(), before);
    store.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiting_receive_is_told_when_the_tenure_ends_by_time_and_goes_on_in_the_next_epoch() {
    let machine = Machine::new(1);
    let folder = machine.open_folder().unwrap();
    let lease = 10 * SECOND;
    let store = machine.open_with(folder, &granted(1, StoreLease::For(lease))).unwrap();
    let start = tokio::time::Instant::now();
    let refused = store.pop(PopRequest { wait: 60 * SECOND, ..pop_request(1) }).await;
    assert!(matches!(refused, Err(PopError::Store(error)) if not_leader(&error)));
    let ended = start.elapsed();
    let expected = lease - machine.config.lease_margin;
    assert!(ended >= expected && ended < expected + SECOND / 10, "{ended:?}");

    assert!(store.renew_tenure(Epoch(1), FOREVER, tokio::time::Instant::now()).is_err(), "an epoch came back");
    store.lead(&granted(2, FOREVER)).await.unwrap();
    let (popped, sent) =
        tokio::join!(store.pop(PopRequest { wait: 60 * SECOND, ..pop_request(1) }), send(&store, 0, "second"));
    sent.unwrap();
    assert_eq!(popped.unwrap().messages.len(), 1);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn deliveries_leases_and_attempts_survive_a_change_of_epoch() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    for text in ["held", "ended"] {
        send(&store, 0, text).await.unwrap();
    }
    let held = pop(&store, 1).await.unwrap().remove(0);
    store.lead(&granted(9, FOREVER)).await.unwrap();
    assert_eq!(store.epoch(), Epoch(9));
    let ended = pop(&store, 4).await.unwrap();
    assert_eq!(ended.iter().map(body).collect::<Vec<_>>(), ["ended"], "a live lease was given to somebody else");
    ack(&store, &held.handle).await.unwrap();
    machine.clock.advance(INVISIBLE);
    assert_eq!(pop(&store, 4).await.unwrap()[0].attempt, 2);
    let store = reopen(&machine, store).await;
    assert_eq!(store.epoch(), Epoch(10));
    machine.clock.advance(INVISIBLE);
    assert_eq!(pop(&store, 4).await.unwrap()[0].attempt, 3);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_later_epoch_that_a_peer_knows_ends_the_tenure_and_a_grant_before_it_is_worth_nothing() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    store.newer_epoch(Epoch(1));
    store.newer_epoch(Epoch(0));
    send(&store, 0, "kept").await.unwrap();
    store.newer_epoch(Epoch(3));
    assert!(matches!(send(&store, 0, "lost").await, Err(AppendError::Store(error)) if not_leader(&error)));
    // Granted before the later one, received after it was heard of.
    store.lead(&granted(2, FOREVER)).await.unwrap();
    assert!(send(&store, 0, "lost").await.is_err());
    store.lead(&granted(4, FOREVER)).await.unwrap();
    send(&store, 0, "kept, too").await.unwrap();
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_epoch_that_is_not_greater_is_refused_and_changes_nothing() {
    let machine = Machine::new(1);
    let folder = machine.open_folder().unwrap();
    let store = machine.open_with(folder, &granted(5, FOREVER)).unwrap();
    send(&store, 0, "kept").await.unwrap();
    assert!(store.lead(&granted(5, FOREVER)).await.is_err());
    assert!(send(&store, 0, "between epochs").await.is_err());
    store.lead(&granted(6, FOREVER)).await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);
    machine.files.kill();
    let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
    for epoch in [0, 1, 5, 6] {
        let error = store.lead(&granted(epoch, FOREVER)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("epoch {epoch} was granted")) && error.contains("in epoch 6"), "{error}");
        assert!(store.leads().is_err());
    }
    store.lead(&granted(7, FOREVER)).await.unwrap();
    assert_eq!(pop_all(&store).await.len(), 1);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_older_identity_beside_a_newer_log_does_not_begin_an_epoch_of_the_log_again() {
    let machine = Machine::new(1);
    let store = machine.must_open();
    let old = {
        let file = machine.env.files.open(&machine.dir.join("identity"), OpenMode::Read).unwrap();
        file.read_at(0, file.len().unwrap() as usize).unwrap()
    };
    store.lead(&granted(7, FOREVER)).await.unwrap();
    send(&store, 0, "kept").await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);
    machine.files.kill();
    for name in ["identity", "identity.copy"] {
        let file = machine.env.files.open(&machine.dir.join(name), OpenMode::ReadWrite).unwrap();
        file.write_all_at(&old, 0).unwrap();
    }
    let folder = machine.open_folder().unwrap();
    assert_eq!(folder.last_epoch(), Epoch(1));
    let store = machine.open_only(folder).unwrap();
    let error = store.lead(&granted(2, FOREVER)).await.unwrap_err().to_string();
    assert!(error.contains("epoch 2 was granted") && error.contains("in epoch 7"), "{error}");
    store.lead(&granted(8, FOREVER)).await.unwrap();
    assert_eq!((pop_all(&store).await.len(), store.epoch()), (1, Epoch(8)));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_folder_is_bound_before_anything_is_written_and_refuses_other_groups_and_clusters() {
    let machine = Machine::new(1);
    let mut other_cluster = granted(5, FOREVER);
    other_cluster.grant.cluster = ClusterId([2; 16]);
    let mut other_group = granted(5, FOREVER);
    other_group.grant.store_group = StoreGroupId(3);
    let mut other_name = granted(5, FOREVER);
    other_name.name = StoreGroupName::parse("another").unwrap();
    // The power fails at every moment of the first opening, the first epoch and the first message.
    let mut stored = false;
    for mutations in 0..60 {
        machine.files.power_off_after(mutations);
        let _ = async {
            if let Ok(store) = machine.open() {
                stored |= send(&store, 0, "first").await.is_ok();
                let _ = store.shutdown().await;
            }
        }
        .await;
        machine.files.crash(mutations);
        let folder = machine.open_folder().unwrap();
        let bound = folder.cluster().is_some();
        let store = machine.open_only(folder).unwrap();
        assert!(bound || store.positions().appended_to.0 == 0, "a record in a folder that is not bound");
        store.shutdown().await.unwrap();
        drop(store);
        machine.files.kill();
        if stored {
            break;
        }
        assert!(mutations < 59, "nothing was ever stored");
    }
    for (other, says) in [(other_cluster, "cluster"), (other_group, "store group"), (other_name, "store group")] {
        let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
        let error = store.lead(&other).await.unwrap_err().to_string();
        assert!(store.leads().is_err());
        store.shutdown().await.unwrap();
        drop(store);
        machine.files.kill();
        assert!(error.contains(says) && error.contains("choose another data folder"), "{error}");
    }
    let store = machine.must_open();
    let mut other_cluster = granted(90, FOREVER);
    other_cluster.grant.cluster = ClusterId([2; 16]);
    assert!(store.lead(&other_cluster).await.is_err());
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_opened_store_knows_everything_and_does_nothing_until_it_leads() {
    let machine = Machine::new(1);
    // Not even in a folder that was never led.
    for messages in [0, 3] {
        if messages > 0 {
            let store = machine.must_open();
            for number in 0..messages {
                send(&store, 0, &format!("m{number}")).await.unwrap();
            }
            pop(&store, 1).await.unwrap();
            store.shutdown().await.unwrap();
            drop(store);
            machine.files.kill();
        }
        let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
        let before = store.positions();
        assert!(not_leader(&store.leads().unwrap_err()));
        assert!(matches!(send(&store, 0, "new").await, Err(AppendError::Store(error)) if not_leader(&error)));
        assert!(matches!(pop(&store, 1).await, Err(PopError::Store(error)) if not_leader(&error)));
        assert!(not_leader(&store.remains().await.unwrap_err()));
        let renewed = store
            .renew(RenewRequest { owners: vec![ClientHash::of("c")], invisible: SECOND, arrived: Vec::new() })
            .await;
        assert!(not_leader(&renewed.unwrap_err()));
        machine.clock.advance(10 * INVISIBLE);
        tokio::time::sleep(SECOND).await;
        let ranges = store.queues(TOPIC).await.unwrap();
        assert_eq!(ranges.iter().map(|range| range.max_offset.0).sum::<u64>(), messages);
        assert_eq!(store.positions(), before, "it wrote without leading");
        store.shutdown().await.unwrap();
        drop(store);
        machine.files.kill();
    }
}

#[tokio::test]
async fn a_crash_at_any_moment_of_a_beginning_lets_no_epoch_begin_twice() {
    let machine = Machine::new(1);
    let mut last = 0;
    for mutations in 0..24 {
        let store = machine.open_only(machine.open_folder().unwrap()).unwrap();
        machine.files.power_off_after(mutations);
        let epoch = last + 1;
        let began = store.lead(&granted(epoch, FOREVER)).await.is_ok();
        let _ = store.shutdown().await;
        drop(store);
        machine.files.crash(mutations);
        let known = machine.open_folder().unwrap().last_epoch().0;
        assert!(known >= last && known <= epoch && (!began || known == epoch), "{known} after {last}, began: {began}");
        last = known;
    }
    assert!(last > 5, "it never began");
}
