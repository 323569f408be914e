//! The cluster as operators see and change it, and the proxy as its member.

use crate::support::{FIRST, SECOND, Server, eventually, message, send};
use gantry_client::Connection;
use gantry_proto::contract::{ControllerChange, Remains, StoreError};
use gantry_proto::model::{ClusterId, MetadataChange, ProxyId, StoreGroupState, TopicType};
use gantry_proto::wire::admin::v1;
use gantry_proto::wire::admin::v1::cluster_service_client::ClusterServiceClient;
use gantry_proto::wire::v2::ClientType;
use gantry_proxy::AdvertisedEndpoints;
use std::sync::atomic::Ordering;
use tonic::Code;

fn named(name: &str) -> v1::DrainStoreGroupRequest {
    v1::DrainStoreGroupRequest { name: name.to_owned() }
}

fn remove(name: &str, force: bool) -> v1::RemoveStoreGroupRequest {
    v1::RemoveStoreGroupRequest { name: name.to_owned(), force }
}

#[tokio::test]
async fn the_status_tells_who_leads_and_who_is_alive() {
    let server = Server::start().await;
    let second = server.add_store_group();
    server.metadata.set_store_group(SECOND, StoreGroupState::Draining);
    server.metadata.apply(MetadataChange::ClusterInitialized(ClusterId([0xab; 16])));
    second.set_remains(Remains { unfinished: 7, unclaimed: 2 });
    eventually("the proxy joined", || !server.membership.alive.lock().unwrap().is_empty()).await;
    let mut cluster = server.cluster().await;
    let status = cluster.get_cluster_status(v1::GetClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.cluster, "ab".repeat(16));
    assert_eq!(status.metadata_version, server.metadata.view.version().0);
    assert!(status.controllers[0].leader && status.controllers[0].matched == Some(9));
    assert_eq!(status.proxies[0].address, server.address.to_string());
    let [first, draining] = &status.stores[..] else { panic!("{:?}", status.stores) };
    let group = first.group.as_ref().unwrap();
    assert_eq!((group.name.as_str(), group.state(), group.epoch), ("store-1", v1::StoreGroupState::Active, 1));
    assert!(group.replicas[0].leader && group.replicas[0].in_sync);
    assert_eq!(group.replicas[0].address, "10.0.0.1:9000");
    assert_eq!((first.retained_from, first.confirmed_to, first.appended_to), (Some(1), Some(2), Some(3)));
    assert_eq!((first.remains, first.version.as_str()), (None, "1.2.3"));
    assert_eq!(draining.remains, Some(v1::StoreRemains { unfinished: 7, unclaimed: 2 }));

    assert_eq!((status.controller_away.as_str(), first.trouble.as_str()), ("", ""));
    server.stores.set_up(FIRST, false);
    let troubled = cluster.get_cluster_status(v1::GetClusterStatusRequest {}).await.unwrap().into_inner();
    let troubles: Vec<_> = troubled.stores.iter().map(|store| store.trouble.as_str()).collect();
    assert_eq!(troubles, ["store-1 speaks another version", ""]);
    server.stores.set_up(FIRST, true);

    server.membership.unavailable.store(true, Ordering::Relaxed);
    let seen = cluster.get_cluster_status(v1::GetClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(seen.controller_away, "the controller cannot be asked now: no controller");
    assert_eq!((seen.cluster.as_str(), seen.metadata_version), ("ab".repeat(16).as_str(), status.metadata_version));
    assert!(seen.controllers.is_empty());
    let groups = |status: &v1::GetClusterStatusResponse| {
        status.stores.iter().map(|store| store.group.clone()).collect::<Vec<_>>()
    };
    assert_eq!(groups(&seen), groups(&status), "what the metadata say");
    let [first, draining] = &seen.stores[..] else { panic!("{:?}", seen.stores) };
    assert_eq!((first.confirmed_to, first.heard_ago, first.leading_since), (None, None, None), "nobody told");
    assert_eq!(draining.remains, Some(v1::StoreRemains { unfinished: 7, unclaimed: 2 }), "the store is asked as ever");
}

#[tokio::test]
async fn a_group_is_added_topics_spread_over_it_and_the_other_one_drained_and_removed() {
    let server = Server::start().await;
    let mut cluster = server.cluster().await;
    assert_eq!(cluster.drain_store_group(named("store-1")).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(cluster.drain_store_group(named("nowhere")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(cluster.drain_store_group(named("a b")).await.unwrap_err().code(), Code::InvalidArgument);

    // More than a page of topics.
    for n in 0..300 {
        server.metadata.add_topic(&format!("topic-{n}"), TopicType::Mixed, 1);
    }
    server.add_store_group();
    let spread = async |cluster: &mut ClusterServiceClient<Connection>| {
        cluster.spread_topics(v1::SpreadTopicsRequest {}).await.unwrap().into_inner().topics_changed
    };
    assert_eq!(spread(&mut cluster).await, 300);
    assert_eq!(spread(&mut cluster).await, 0, "they are spread");

    let drained = cluster.drain_store_group(named("store-1")).await.unwrap().into_inner();
    assert_eq!(drained.group.unwrap().state(), v1::StoreGroupState::Draining);
    assert_eq!(drained.topics_changed, 300, "message groups move");
    let again = cluster.drain_store_group(named("store-1")).await.unwrap().into_inner();
    assert_eq!(again.topics_changed, 0);

    let mut admin = server.admin().await;
    let describe = || v1::DescribeTopicRequest { name: "topic-7".to_owned() };
    let shown = admin.describe_topic(describe()).await.unwrap().into_inner();
    let queues: Vec<_> = shown.queues.iter().map(|queue| (queue.store_group.as_str(), queue.writable)).collect();
    assert_eq!(queues, [("store-1", false), ("store-2", true), ("store-2", true)]);
    assert_eq!(shown.topic.unwrap().queue_count, 3);

    let activate = || v1::ActivateStoreGroupRequest { name: "store-1".to_owned() };
    let active = cluster.activate_store_group(activate()).await.unwrap().into_inner();
    assert_eq!(active.group.unwrap().state(), v1::StoreGroupState::Active);
    assert_eq!(cluster.remove_store_group(remove("store-1", true)).await.unwrap_err().code(), Code::FailedPrecondition);

    cluster.drain_store_group(named("store-1")).await.unwrap();
    for remains in [Remains { unfinished: 1, unclaimed: 0 }, Remains { unfinished: 0, unclaimed: 1 }] {
        server.store.set_remains(remains);
        let error = cluster.remove_store_group(remove("store-1", false)).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    }
    server.store.set_remains(Remains::default());
    server.stores.set_up(FIRST, false);
    let error = cluster.remove_store_group(remove("store-1", false)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "it cannot be asked");
    server.stores.set_up(FIRST, true);
    cluster.remove_store_group(remove("store-1", false)).await.unwrap();
    assert!(server.metadata.view.store_group(FIRST).is_none());
    assert_eq!(cluster.remove_store_group(remove("store-1", false)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_group_is_removed_when_its_store_has_confirmed_and_drains_on_if_it_does_not() {
    let server = Server::start().await;
    server.add_store_group();
    let mut cluster = server.cluster().await;
    let state = || server.metadata.view.store_group(SECOND).map(|group| group.state);
    cluster.drain_store_group(named("store-2")).await.unwrap();
    server.metadata.closes.store(false, Ordering::Relaxed);
    let caller = cluster.clone();
    let removing = || {
        let mut cluster = caller.clone();
        tokio::spawn(async move { cluster.remove_store_group(remove("store-2", false)).await })
    };
    let closing = || eventually("it is closing", || matches!(state(), Some(StoreGroupState::Closing(_))));

    // Opened again while it waits.
    let opened = removing();
    closing().await;
    server.metadata.set_store_group(SECOND, StoreGroupState::Active);
    let error = opened.await.unwrap().unwrap_err();
    assert!(error.code() == Code::FailedPrecondition && error.message().contains("opened again"), "{error}");
    assert_eq!(state(), Some(StoreGroupState::Active), "nor is it closed again");

    // The store says nothing.
    cluster.drain_store_group(named("store-2")).await.unwrap();
    let silent = removing();
    closing().await;
    let status = cluster.get_cluster_status(v1::GetClusterStatusRequest {}).await.unwrap().into_inner();
    let shown = status.stores.iter().filter_map(|store| store.group.as_ref()).map(|group| group.state());
    assert_eq!(shown.collect::<Vec<_>>(), [v1::StoreGroupState::Active, v1::StoreGroupState::Closing]);
    let error = silent.await.unwrap().unwrap_err();
    assert!(error.code() == Code::FailedPrecondition && error.message().contains("did not confirm"), "{error}");
    assert_eq!(state(), Some(StoreGroupState::Draining));

    let removed = removing();
    closing().await;
    assert!(state().is_some());
    server.metadata.set_store_group(SECOND, StoreGroupState::Closed);
    removed.await.unwrap().unwrap();
    assert_eq!(state(), None);
}

#[tokio::test]
async fn a_lost_group_is_removed_by_force() {
    let server = Server::start().await;
    server.add_store_group();
    let mut cluster = server.cluster().await;
    cluster.drain_store_group(named("store-2")).await.unwrap();
    server.stores.set_up(SECOND, false);
    cluster.remove_store_group(remove("store-2", true)).await.unwrap();
    assert!(server.metadata.view.store_group(SECOND).is_none());
}

#[tokio::test]
async fn controllers_come_and_go() {
    let server = Server::start().await;
    let mut cluster = server.cluster().await;
    let add = |address: &str| v1::AddControllerRequest { id: 2, address: address.to_owned() };
    assert_eq!(cluster.add_controller(add("nowhere")).await.unwrap_err().code(), Code::InvalidArgument);
    cluster.add_controller(add("controller-2:9100")).await.unwrap();
    cluster.remove_controller(v1::RemoveControllerRequest { id: 1 }).await.unwrap();
    let address = "controller-2:9100".to_owned();
    let expected = [ControllerChange::Add { id: 2, address }, ControllerChange::Remove { id: 1 }];
    assert_eq!(*server.membership.changes.lock().unwrap(), expected);
}

#[tokio::test]
async fn descriptions_say_which_groups_could_not_be_asked() {
    let server = Server::start().await;
    let second = server.add_store_group();
    server.metadata.add_topic("orders", TopicType::Mixed, 2);
    let mut admin = server.admin().await;
    send(&mut server.client().await, vec![message("orders", "id")]).await;
    let create = v1::CreateGroupRequest { name: "group".to_owned(), ..v1::CreateGroupRequest::default() };
    admin.create_group(create).await.unwrap();
    second.fail_with(Some(StoreError::Unreadable("log".to_owned())));
    let describe = || v1::DescribeTopicRequest { name: "orders".to_owned() };
    let shown = admin.describe_topic(describe()).await.unwrap().into_inner();
    assert_eq!((shown.queues[0].max_offset, shown.queues[0].unavailable.as_str()), (1, ""));
    assert!(shown.queues[1].unavailable.contains("log"), "{:?}", shown.queues);
    let describe_group = || v1::DescribeGroupRequest { name: "group".to_owned() };
    let shown = admin.describe_group(describe_group()).await.unwrap().into_inner();
    assert_eq!(shown.unavailable_store_groups, ["store-2"]);
    server.stores.set_up(FIRST, false);
    assert!(admin.describe_topic(describe()).await.is_err());
    assert!(admin.describe_group(describe_group()).await.is_err());
}

#[tokio::test]
async fn a_proxy_says_that_it_is_alive_and_serves_on_while_nobody_hears_it() {
    let server = Server::start_with(|config, _| {
        config.advertised_endpoints = Some(AdvertisedEndpoints::parse("mq.example.org:9000").unwrap());
    })
    .await;
    let mut client = server.client().await;
    let settings = crate::support::consumer_settings(ClientType::PushConsumer, "group");
    let _push = crate::support::connect(&mut client, "push", settings).await;
    let alive = || server.membership.alive.lock().unwrap().clone();
    eventually("it tells its sessions", || alive().last().is_some_and(|alive| alive.sessions == 1)).await;
    let told = alive();
    assert!(told.iter().all(|alive| alive.id == told[0].id && alive.id != ProxyId::default()));
    assert_eq!(&*told[0].address, "mq.example.org:9000");
    assert_eq!(&*told[0].version, env!("CARGO_PKG_VERSION"));

    server.membership.unavailable.store(true, Ordering::Relaxed);
    server.metadata.unavailable.store(true, Ordering::Relaxed);
    server.metadata.add_topic("orders", TopicType::Mixed, 1);
    let reply = send(&mut client, vec![message("orders", "id")]).await;
    assert_eq!(reply.status.unwrap().code, gantry_proto::wire::v2::Code::Ok as i32);
    let route = crate::support::query_route(&mut client, "new").await.status.unwrap();
    assert!(route.message.contains("topic new does not exist and cannot be made"), "{}", route.message);
    let before = alive().len();
    server.membership.unavailable.store(false, Ordering::Relaxed);
    eventually("it is heard again", || alive().len() > before).await;
}
