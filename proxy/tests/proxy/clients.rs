//! Telemetry, heartbeats, goodbyes: what clients need to start, to stay, and to leave nothing behind.

use crate::support::{
    Client, Server, Telemetry, code, connect, consumer_settings, endpoints, eventually, from_client, message,
    producer_settings, query_route, receive, receive_request, resource, send,
};
use gantry_proto::model::{ClientHash, limits};
use gantry_proto::wire::v2::retry_policy::Strategy;
use gantry_proto::wire::v2::settings::PubSub;
use gantry_proto::wire::v2::{
    self, ClientType, Code, HeartbeatRequest, NotifyClientTerminationRequest, Resource, Settings,
};
use std::time::Duration;
use tokio_stream::pending;

async fn heartbeat(client: &mut Client, client_id: &str, group: Option<&str>) -> Code {
    let request = HeartbeatRequest { group: group.map(resource), ..HeartbeatRequest::default() };
    let reply = client.heartbeat(from_client(client_id, request)).await.unwrap().into_inner();
    code(reply.status.as_ref())
}

async fn goodbye(client: &mut Client, client_id: &str, group: Option<&str>) -> Code {
    let request = NotifyClientTerminationRequest { group: group.map(resource) };
    let reply = client.notify_client_termination(from_client(client_id, request)).await.unwrap().into_inner();
    code(reply.status.as_ref())
}

#[tokio::test]
async fn a_stream_opens_before_its_client_says_anything() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let opened = client.telemetry(from_client("rust", pending::<v2::TelemetryCommand>()));
    tokio::time::timeout(Duration::from_secs(2), opened).await.expect("headers at once").unwrap();
}

#[tokio::test]
async fn the_answer_to_settings_is_their_echo_with_the_servers_values() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let simple = {
        let mut settings = consumer_settings(ClientType::SimpleConsumer, "group");
        settings.client_properties.insert("team".to_owned(), "a".to_owned());
        settings
    };
    for (id, sent) in [
        ("producer", producer_settings("orders")),
        (
            "producer-without-topics",
            Settings { pub_sub: Some(PubSub::Publishing(v2::Publishing::default())), ..Settings::default() },
        ),
        ("push", consumer_settings(ClientType::PushConsumer, "group")),
        ("simple", simple),
    ] {
        let mut telemetry = Telemetry::open(&mut client, id).await;
        telemetry.tell(sent.clone()).await;
        let mut reply = telemetry.settings().await;
        let policy = reply.backoff_policy.take().expect("a backoff policy");
        assert!(!reply.metric.take().expect("a metric").on);
        match reply.pub_sub.as_mut().expect("the echoed branch") {
            PubSub::Publishing(publishing) => {
                assert!(
                    matches!(policy.strategy, Some(Strategy::ExponentialBackoff(b)) if b.initial.is_some() && b.max.is_some())
                );
                assert_eq!((publishing.max_body_size, publishing.validate_message_type), (4 << 20, true));
                (publishing.max_body_size, publishing.validate_message_type) = (0, false);
            }
            PubSub::Subscription(subscription) => {
                assert!(policy.strategy.is_some());
                assert_eq!(policy.max_attempts, 17);
                assert_eq!(subscription.fifo.take(), Some(false));
                assert_eq!(subscription.receive_batch_size.take(), Some(32));
                assert_eq!(subscription.long_polling_timeout.take().map(|d| d.seconds), Some(20));
            }
        }
        assert_eq!(reply, sent, "everything else is an echo");
        assert_eq!(heartbeat(&mut client, id, None).await, Code::Ok);
    }
    assert!(server.metadata.view.group("group").is_some(), "made on first use");
}

#[tokio::test]
async fn every_settings_command_is_answered_and_the_first_answer_comes_twice() {
    let server = Server::start_with(|config, _| config.settings_resend_after = Duration::from_millis(100)).await;
    let mut client = server.client().await;
    let mut telemetry = connect(&mut client, "node", producer_settings("orders")).await;
    assert!(matches!(telemetry.settings().await.pub_sub, Some(PubSub::Publishing(_))), "the second sending");
    telemetry.tell(producer_settings("other")).await;
    let Some(PubSub::Publishing(publishing)) = telemetry.settings().await.pub_sub else { panic!("not an echo") };
    assert_eq!(publishing.topics, [resource("other")]);
    let more = tokio::time::timeout(Duration::from_millis(300), telemetry.inbound.message()).await;
    assert!(more.is_err(), "only once per stream: {more:?}");
}

#[tokio::test]
async fn settings_that_cannot_be_served_get_a_status_and_the_stream_ends_with_ok() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let subscribed = |filter_type: v2::FilterType, expression: &str| {
        let mut settings = consumer_settings(ClientType::PushConsumer, "group");
        if let Some(PubSub::Subscription(subscription)) = &mut settings.pub_sub {
            let expression = v2::FilterExpression { r#type: filter_type as i32, expression: expression.to_owned() };
            let topic = Some(resource("orders"));
            subscription.subscriptions = vec![v2::SubscriptionEntry { topic, expression: Some(expression) }];
        }
        settings
    };
    for (settings, expected) in [
        (producer_settings("a b"), Code::IllegalTopic),
        (consumer_settings(ClientType::PushConsumer, ""), Code::IllegalConsumerGroup),
        (Settings::default(), Code::BadRequest),
        (consumer_settings(ClientType::LitePushConsumer, "group"), Code::NotImplemented),
        (subscribed(v2::FilterType::Sql, "a > 1"), Code::NotImplemented),
        (subscribed(v2::FilterType::Tag, "||"), Code::IllegalFilterExpression),
    ] {
        let mut telemetry = Telemetry::open(&mut client, "c").await;
        telemetry.tell(settings).await;
        let heard = telemetry.hear().await.unwrap();
        assert_eq!((code(heard.status.as_ref()), heard.command), (expected, None));
        assert_eq!(telemetry.hear().await, None);
    }
    let mut anonymous = client.telemetry(pending()).await.unwrap().into_inner();
    let heard = anonymous.message().await.unwrap().unwrap();
    assert_eq!(code(heard.status.as_ref()), Code::ClientIdRequired);
    assert_eq!(anonymous.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_consumer_starts_without_a_controller() {
    let server = Server::start().await;
    server.metadata.unavailable.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut client = server.client().await;
    connect(&mut client, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
}

#[tokio::test]
async fn a_session_outlives_its_stream() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut telemetry = connect(&mut client, "rust", producer_settings("orders")).await;
    telemetry.commands = None;
    assert_eq!(telemetry.hear().await, None, "a half-closed stream is closed");
    drop(telemetry);
    assert_eq!(heartbeat(&mut client, "rust", None).await, Code::Ok);
    query_route(&mut client, "orders").await;
    assert_eq!(code(send(&mut client, vec![message("orders", "id")]).await.status.as_ref()), Code::Ok);
}

#[tokio::test]
async fn heartbeats_are_answered_without_settings_and_headerless_ones_do_no_harm() {
    let server = Server::start().await;
    let mut client = server.client().await;
    assert_eq!(heartbeat(&mut client, "stranger", Some("group")).await, Code::Ok);
    assert_eq!(heartbeat(&mut client, "stranger", Some("a b")).await, Code::IllegalConsumerGroup);
    let reply = client.heartbeat(HeartbeatRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(reply.status.as_ref()), Code::ClientIdRequired);
    let _push = connect(&mut client, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
    for (group, expected) in
        [(None, Code::Ok), (Some(""), Code::Ok), (Some("group"), Code::Ok), (Some("a b"), Code::IllegalConsumerGroup)]
    {
        assert_eq!(heartbeat(&mut client, "push", group).await, expected, "{group:?}");
    }
}

#[tokio::test]
async fn a_goodbye_ends_the_session_and_releases_what_the_client_holds() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let _push = connect(&mut client, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
    let request = v2::ReceiveMessageRequest {
        auto_renew: true,
        invisible_duration: None,
        long_polling_timeout: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        ..receive_request("orders", "group")
    };
    let parked = tokio::spawn({
        let mut client = client.clone();
        async move { receive(&mut client, from_client("push", request)).await }
    });
    eventually("the receive is parked", || server.store.seen().parked == 1).await;
    assert_eq!(goodbye(&mut client, "push", Some("a b")).await, Code::IllegalConsumerGroup);
    assert_eq!(heartbeat(&mut client, "push", None).await, Code::Ok, "a bad goodbye changes nothing");
    assert_eq!(goodbye(&mut client, "push", Some("group")).await, Code::Ok);
    assert_eq!(parked.await.unwrap().code(), Code::MessageNotFound, "its receives end");
    let released = (ClientHash::of("push"), limits::ABANDONED_VISIBLE_AFTER);
    eventually("its leases are released", || server.store.seen().releases == [released]).await;

    // Go's producers send an empty group.
    let _producer = connect(&mut client, "go", producer_settings("orders")).await;
    assert_eq!(goodbye(&mut client, "go", Some("")).await, Code::Ok);
    assert_eq!(server.store.seen().releases.len(), 1, "a producer holds nothing");
}

#[tokio::test]
async fn leases_are_renewed_while_a_client_lives_and_left_to_end_when_it_is_silent() {
    let server = Server::start_with(|config, _| {
        config.renew_interval = Duration::from_millis(50);
        config.session_timeout = Duration::from_millis(600);
    })
    .await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let _push = connect(&mut client, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
    let _simple = connect(&mut client, "simple", consumer_settings(ClientType::SimpleConsumer, "group")).await;
    let renewing = v2::ReceiveMessageRequest { auto_renew: true, ..receive_request("orders", "group") };
    receive(&mut client, from_client("push", renewing)).await;
    receive(&mut client, from_client("simple", receive_request("orders", "group"))).await;
    let owner = ClientHash::of("push");
    eventually("renewals", || server.store.seen().renewals.len() >= 3).await;
    assert!(server.store.seen().renewals.iter().all(|owners| *owners == [owner]), "simple consumers renew nothing");
    tokio::time::sleep(Duration::from_millis(800)).await;
    let renewals = server.store.seen().renewals.len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.store.seen().renewals.len(), renewals);
    assert_eq!(server.store.seen().releases, [], "it may be alive at another proxy");
}

#[tokio::test]
async fn the_leases_of_a_client_without_settings_are_renewed_by_its_heartbeats_and_released_by_its_goodbye() {
    let quick = |config: &mut gantry_proxy::ProxyConfig, _: &mut gantry_proxy::ProxyDeps| {
        config.renew_interval = Duration::from_millis(50);
        config.session_timeout = Duration::from_millis(600);
    };
    let server = Server::start_with(quick).await;
    let mut client = server.client().await;
    // C# sends its settings once in its life, and then only heartbeats, also to the proxy that it goes to.
    let beat = async |client: &mut Client, id: &str, client_type: ClientType| {
        let request = HeartbeatRequest { group: Some(resource("group")), client_type: client_type as i32 };
        code(client.heartbeat(from_client(id, request)).await.unwrap().into_inner().status.as_ref())
    };
    let started = tokio::time::Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        assert_eq!(beat(&mut client, "csharp", ClientType::PushConsumer).await, Code::Ok);
        assert_eq!(beat(&mut client, "simple", ClientType::SimpleConsumer).await, Code::Ok);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let owner = ClientHash::of("csharp");
    let before = server.store.seen().renewals.len();
    eventually("they go on", || server.store.seen().renewals.len() > before).await;
    assert!(server.store.seen().renewals.iter().all(|owners| *owners == [owner]), "simple consumers renew nothing");
    assert_eq!(goodbye(&mut client, "csharp", Some("group")).await, Code::Ok);
    let released = |id: &str| (ClientHash::of(id), limits::ABANDONED_VISIBLE_AFTER);
    eventually("its leases are released", || server.store.seen().releases == [released("csharp")]).await;
    // This proxy has never heard of it; it holds what another one gave it.
    assert_eq!(goodbye(&mut client, "stranger", Some("group")).await, Code::Ok);
    let both = [released("csharp"), released("stranger")];
    eventually("its leases are released", || server.store.seen().releases == both).await;
    assert_eq!(goodbye(&mut client, "nobody", None).await, Code::Ok);
}

#[tokio::test]
async fn a_push_consumer_may_receive_before_its_settings_arrive() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    send(&mut client, vec![message("orders", "id")]).await;
    let request = v2::ReceiveMessageRequest { auto_renew: true, ..receive_request("orders", "group") };
    assert_eq!(receive(&mut client, from_client("python", request)).await.shape, "smt");
    assert_eq!(heartbeat(&mut client, "python", None).await, Code::Ok);
}

#[tokio::test]
async fn names_keep_their_namespace_in_the_echo() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut settings = producer_settings("orders");
    let namespaced = Resource { resource_namespace: "ns".to_owned(), name: "orders".to_owned() };
    if let Some(PubSub::Publishing(publishing)) = &mut settings.pub_sub {
        publishing.topics = vec![namespaced.clone()];
    }
    let mut telemetry = Telemetry::open(&mut client, "cpp").await;
    telemetry.tell(settings).await;
    let reply = telemetry.settings().await;
    assert_eq!(reply.access_point, Some(endpoints("mq", 80)));
    let Some(PubSub::Publishing(publishing)) = reply.pub_sub else { panic!("not an echo") };
    assert_eq!(publishing.topics, [namespaced]);
}

#[tokio::test]
async fn leases_go_on_when_a_client_moves_to_another_proxy() {
    let quick = |config: &mut gantry_proxy::ProxyConfig, _: &mut gantry_proxy::ProxyDeps| {
        config.renew_interval = Duration::from_millis(50);
        config.session_timeout = Duration::from_millis(600);
    };
    let old = Server::start_with(quick).await;
    let second = old.add_store_group();
    let new = old.sibling(quick).await;
    let mut client = old.client().await;
    query_route(&mut client, "orders").await;
    let settings = || consumer_settings(ClientType::PushConsumer, "group");
    let stream = connect(&mut client, "push", settings()).await;
    let request = v2::ReceiveMessageRequest { auto_renew: true, ..receive_request("orders", "group") };
    receive(&mut client, from_client("push", request)).await;
    drop(stream);
    drop(client);

    // There it sends its settings and is alive, and receives nothing: it is busy with what it has.
    let mut client = new.client().await;
    let _stream = connect(&mut client, "push", settings()).await;
    let alive = tokio::spawn({
        let mut client = client.clone();
        async move {
            loop {
                assert_eq!(heartbeat(&mut client, "push", None).await, Code::Ok);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let stores = [&old.store, &second];
    for store in stores {
        let before = store.seen().renewals.len();
        eventually("renewals go on, on every group", || store.seen().renewals.len() > before + 2).await;
        assert!(store.seen().renewals.iter().flatten().all(|owner| *owner == ClientHash::of("push")));
        assert_eq!(store.seen().releases, [], "nobody cut its leases short");
    }
    // One group that is down does not keep the goodbye from the other.
    alive.abort();
    old.stores.set_up(crate::support::FIRST, false);
    assert_eq!(goodbye(&mut client, "push", None).await, Code::Ok);
    let released = (ClientHash::of("push"), limits::ABANDONED_VISIBLE_AFTER);
    eventually("its leases are released", || second.seen().releases == [released]).await;
}

#[tokio::test]
async fn a_broken_stream_and_a_drained_proxy_release_nothing() {
    let server = Server::start_with(|config, _| config.renew_interval = Duration::from_millis(50)).await;
    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    let stream = connect(&mut client, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
    let request = v2::ReceiveMessageRequest { auto_renew: true, ..receive_request("orders", "group") };
    receive(&mut client, from_client("push", request)).await;
    drop(stream);
    let before = server.store.seen().renewals.len();
    eventually("renewals go on without a stream", || server.store.seen().renewals.len() > before + 3).await;
    let store = server.store.clone();
    server.shut_down();
    server.ended().await.unwrap();
    assert_eq!(store.seen().releases, []);
}
