//! QueryRoute and QueryAssignment.

use crate::support::{
    Server, code, endpoints, from_client, message, query_route, receive, receive_request, resource, send,
};
use gantry_proto::model::TopicType;
use gantry_proto::wire::v2::{
    AddressScheme, Code, Endpoints, MessageType, Permission, QueryAssignmentRequest, QueryRouteRequest, Resource,
};
use gantry_proxy::AdvertisedEndpoints;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn a_route_is_complete_stable_and_made_on_first_use() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let first = query_route(&mut client, "orders").await;
    assert_eq!(code(first.status.as_ref()), Code::Ok);
    let ids: Vec<i32> = first.message_queues.iter().map(|queue| queue.id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7]);
    for queue in &first.message_queues {
        assert_eq!(queue.topic, Some(resource("orders")));
        assert_eq!(queue.permission(), Permission::ReadWrite);
        let broker = queue.broker.as_ref().unwrap();
        assert_eq!((broker.name.as_str(), broker.id), ("gantry-0", 0));
        assert_eq!(broker.endpoints, Some(endpoints("mq", 80)), "the client's own words");
        let accepted: Vec<MessageType> = queue.accept_message_types().collect();
        assert_eq!(accepted, [MessageType::Normal], "sends of the other types are refused");
    }
    assert_eq!(query_route(&mut client, "orders").await, first);
    assert_eq!(server.metadata.proposals.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn creation_on_first_use_ends_before_the_callers_deadline_whoever_else_creates() {
    let server = Server::start().await;
    server.metadata.silent.store(true, Ordering::Relaxed);
    let client = server.client().await;
    let started = Instant::now();
    let asking = (0..5).map(|n| {
        let mut client = client.clone();
        let topic = Some(resource(&format!("topic-{n}")));
        let mut request = from_client("c", QueryRouteRequest { topic, endpoints: Some(endpoints("mq", 80)) });
        request.set_timeout(Duration::from_secs(1));
        tokio::spawn(async move { client.query_route(request).await })
    });
    for answer in futures_util::future::join_all(asking).await {
        let answer = answer.unwrap().expect("an answer, and not the end of the client's patience").into_inner();
        assert_eq!(code(answer.status.as_ref()), Code::ProxyTimeout);
    }
    assert!(started.elapsed() >= Duration::from_millis(700), "they waited");
}

#[tokio::test]
async fn many_clients_that_ask_at_once_create_a_topic_once() {
    let server = Server::start().await;
    let client = server.client().await;
    let asking = (0..50).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { query_route(&mut client, "orders").await })
    });
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(code(answer.unwrap().status.as_ref()), Code::Ok);
    }
    assert_eq!(server.metadata.proposals.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn names_decide_whether_a_topic_is_found_made_or_refused() {
    let server = Server::start().await;
    let strict = Server::start_with(|config, _| config.auto_create_topics = false).await;
    strict.metadata.add_topic("known", TopicType::Fifo, 2);
    for (server, name, expected) in [
        (&server, "", Code::IllegalTopic),
        (&server, "a.b", Code::IllegalTopic),
        (&server, "rmq_sys_x", Code::IllegalTopic),
        (&server, "TBW102", Code::IllegalTopic),
        (&server, "%DLQ%nobody", Code::TopicNotFound),
        (&server, "%RETRY%nobody", Code::TopicNotFound),
        (&server, "new", Code::Ok),
        (&strict, "new", Code::TopicNotFound),
        (&strict, "known", Code::Ok),
    ] {
        let answer = query_route(&mut server.client().await, name).await;
        assert_eq!(code(answer.status.as_ref()), expected, "{name:?}");
        assert_eq!(answer.message_queues.is_empty(), expected != Code::Ok, "{name:?}");
    }
    let known = query_route(&mut strict.client().await, "known").await;
    assert_eq!(known.message_queues[1].accept_message_types, [MessageType::Fifo as i32]);
}

#[tokio::test]
async fn an_absent_controller_is_an_error_for_new_topics_only() {
    let server = Server::start().await;
    let mut client = server.client().await;
    query_route(&mut client, "old").await;
    server.metadata.unavailable.store(true, Ordering::Relaxed);
    assert_eq!(code(query_route(&mut client, "old").await.status.as_ref()), Code::Ok);
    assert_eq!(code(query_route(&mut client, "new").await.status.as_ref()), Code::InternalServerError);
}

#[tokio::test]
async fn endpoints_are_the_advertised_or_the_asked_or_those_of_the_connection() {
    let advertised = Server::start_with(|config, _| {
        config.advertised_endpoints = Some(AdvertisedEndpoints::parse("mq.example.org:9000").unwrap());
    })
    .await;
    let server = Server::start().await;
    let told = async |server: &Server, asked: Option<Endpoints>| {
        let request = QueryRouteRequest { topic: Some(resource("orders")), endpoints: asked };
        let answer = server.client().await.query_route(from_client("c", request)).await.unwrap().into_inner();
        answer.message_queues[0].broker.clone().unwrap().endpoints.unwrap()
    };
    assert_eq!(told(&advertised, Some(endpoints("mq", 1))).await, endpoints("mq.example.org", 9000));
    assert_eq!(told(&server, Some(endpoints("mq", 1))).await, endpoints("mq", 1));
    let unspecified = Endpoints { scheme: 0, ..endpoints("10.0.0.7", 1) };
    assert_eq!(told(&server, Some(unspecified)).await.scheme(), AddressScheme::IPv4);
    for nothing in [None, Some(Endpoints::default())] {
        let told = told(&server, nothing).await;
        assert_eq!(told.scheme(), AddressScheme::IPv4);
        assert_eq!(told.addresses[0].host, "127.0.0.1");
        assert_eq!(told.addresses[0].port, i32::from(server.address.port()));
    }
}

#[tokio::test]
async fn a_proxy_that_listens_on_all_addresses_names_the_one_that_the_client_reached() {
    let server = Server::start_with(|config, _| config.listen = SocketAddr::from(([0, 0, 0, 0], 0))).await;
    assert!(server.address.ip().is_unspecified());
    let mut client = server.client().await;
    let request = QueryRouteRequest { topic: Some(resource("orders")), endpoints: None };
    let answer = client.query_route(from_client("c", request)).await.unwrap().into_inner();
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    let told = answer.message_queues[0].broker.clone().unwrap().endpoints.unwrap();
    assert_eq!(told.addresses[0].host, "127.0.0.1");
    send(&mut client, vec![message("orders", "id")]).await;
    let received = receive(&mut client, from_client("c", receive_request("orders", "group"))).await;
    let store_host = &received.messages[0].system_properties.as_ref().unwrap().store_host;
    assert_eq!(*store_host, format!("127.0.0.1:{}", server.address.port()));
}

#[tokio::test]
async fn unordered_groups_are_assigned_any_queue_and_ordered_ones_each() {
    let server = Server::start().await;
    let topic = Resource { resource_namespace: "ns".to_owned(), name: "orders".to_owned() };
    let ask = async |topic: &str, group: &str| {
        let request = QueryAssignmentRequest {
            topic: Some(Resource { resource_namespace: "ns".to_owned(), name: topic.to_owned() }),
            group: Some(resource(group)),
            endpoints: Some(endpoints("mq", 80)),
        };
        server.client().await.query_assignment(from_client("c", request)).await.unwrap().into_inner()
    };
    let any = ask("orders", "group").await;
    assert_eq!(code(any.status.as_ref()), Code::Ok);
    let queues: Vec<_> = any.assignments.into_iter().filter_map(|assignment| assignment.message_queue).collect();
    assert_eq!(queues.len(), 1);
    assert_eq!(queues[0].id, -1);
    assert_eq!(queues[0].topic, Some(topic));
    assert_eq!(queues[0].permission(), Permission::ReadWrite);
    assert_eq!(queues[0].broker.as_ref().unwrap().endpoints, Some(endpoints("mq", 80)));
    assert!(server.metadata.view.group("group").is_some(), "made on first use");

    let mut fifo = gantry_proto::model::ConsumerGroup::clone(&server.metadata.view.group("group").unwrap());
    fifo.fifo = true;
    let change = gantry_proto::model::MetadataChange::GroupUpsert(std::sync::Arc::new(fifo));
    server.metadata.view.apply(server.metadata.view.version(), &[change]);
    let each = ask("orders", "group").await;
    let ids: Vec<_> = each.assignments.iter().map(|a| a.message_queue.as_ref().unwrap().id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7]);

    assert_eq!(code(ask("a.b", "group").await.status.as_ref()), Code::IllegalTopic);
    assert_eq!(code(ask("orders", "CID_RMQ_SYS_x").await.status.as_ref()), Code::IllegalConsumerGroup);
}
