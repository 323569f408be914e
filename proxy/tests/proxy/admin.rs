//! The operator's API.

use crate::support::{
    Server, connect, consumer_settings, from_client, message, query_route, receive, receive_request, send,
};
use gantry_proto::contract::StoreError;
use gantry_proto::wire::admin::v1::{self, TopicType, backoff_policy::Strategy};
use gantry_proto::wire::v2::ClientType;
use gantry_proto::wire::v2::settings::PubSub;
use std::sync::atomic::Ordering;
use tonic::Code;

#[tokio::test]
async fn topics_are_made_shown_altered_listed_and_removed() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let create = |name: &str, if_not_exists| v1::CreateTopicRequest {
        name: name.to_owned(),
        r#type: TopicType::Mixed as i32,
        queue_count: 0,
        if_not_exists,
    };
    let created = admin.create_topic(create("orders", false)).await.unwrap().into_inner();
    assert!(created.created);
    let topic = created.topic.unwrap();
    assert_eq!((topic.name.as_str(), topic.r#type(), topic.queue_count), ("orders", TopicType::Mixed, 8));
    assert_eq!(admin.create_topic(create("orders", false)).await.unwrap_err().code(), Code::AlreadyExists);
    assert!(!admin.create_topic(create("orders", true)).await.unwrap().into_inner().created);
    assert_eq!(admin.create_topic(create("a b", false)).await.unwrap_err().code(), Code::InvalidArgument);

    let alter = |queue_count| v1::AlterTopicRequest { name: "orders".to_owned(), r#type: None, queue_count };
    let altered = admin.alter_topic(alter(Some(10))).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(altered.queue_count, 10);
    assert_eq!(admin.alter_topic(alter(Some(2))).await.unwrap_err().code(), Code::FailedPrecondition);

    send(&mut server.client().await, vec![message("orders", "id")]).await;
    let name = || "orders".to_owned();
    let shown = admin.describe_topic(v1::DescribeTopicRequest { name: name() }).await.unwrap().into_inner();
    let ranges = shown.queues.iter().map(|queue| (queue.min_offset, queue.max_offset));
    assert_eq!(ranges.filter(|range| *range == (0, 1)).count(), 1);

    admin.delete_topic(v1::DeleteTopicRequest { name: name() }).await.unwrap();
    let gone = admin.describe_topic(v1::DescribeTopicRequest { name: name() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    for n in 0..5 {
        let name = format!("t{n}");
        admin.create_topic(v1::CreateTopicRequest { name, ..v1::CreateTopicRequest::default() }).await.unwrap();
    }
    let (mut names, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = v1::ListTopicsRequest { prefix: "t".to_owned(), page_size: 2, page_token };
        let page = admin.list_topics(request).await.unwrap().into_inner();
        assert!(page.topics.len() <= 2);
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        page_token = page.next_page_token;
        pages += 1;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((names, pages), (["t0", "t1", "t2", "t3", "t4"].map(str::to_owned).to_vec(), 3));
}

#[tokio::test]
async fn groups_are_made_shown_altered_and_their_consumers_learn_of_it() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let request = v1::CreateGroupRequest { name: "group".to_owned(), ..v1::CreateGroupRequest::default() };
    let group = admin.create_group(request.clone()).await.unwrap().into_inner().group.unwrap();
    assert_eq!((group.max_attempts, group.dead_letter_topic.as_str()), (17, "%DLQ%group"));
    let Some(Strategy::Customized(backoff)) = group.backoff.unwrap().strategy else { panic!("not the default") };
    assert_eq!(backoff.next.len(), 18);
    assert_eq!(admin.create_group(request.clone()).await.unwrap_err().code(), Code::AlreadyExists);
    let again = v1::CreateGroupRequest { if_not_exists: true, ..request };
    assert!(!admin.create_group(again).await.unwrap().into_inner().created);

    let mut client = server.client().await;
    query_route(&mut client, "orders").await;
    send(&mut client, vec![message("orders", "id")]).await;
    let mut push = connect(&mut client, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
    receive(&mut client, from_client("push", receive_request("orders", "group"))).await;
    let alter =
        v1::AlterGroupRequest { name: "group".to_owned(), fifo: Some(true), ..v1::AlterGroupRequest::default() };
    admin.alter_group(alter).await.unwrap();
    let Some(PubSub::Subscription(subscription)) = push.settings().await.pub_sub else { panic!("not its settings") };
    assert_eq!(subscription.fifo, Some(true));

    let name = || "group".to_owned();
    let shown = admin.describe_group(v1::DescribeGroupRequest { name: name() }).await.unwrap().into_inner();
    let progress: Vec<_> = shown.progress.iter().map(|p| (p.topic.as_str(), p.inflight)).collect();
    assert_eq!(progress, [("orders", 1)]);
    let listed = admin.list_groups(v1::ListGroupsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.groups.len(), 1);
    admin.delete_group(v1::DeleteGroupRequest { name: name() }).await.unwrap();
    let gone = admin.delete_group(v1::DeleteGroupRequest { name: name() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_group_that_is_altered_through_one_proxy_is_told_to_the_consumers_of_another() {
    let server = Server::start().await;
    let sibling = server.sibling(|_, _| {}).await;
    let mut client = sibling.client().await;
    let mut push = connect(&mut client, "push", consumer_settings(ClientType::PushConsumer, "group")).await;
    let mut other = connect(&mut client, "other", consumer_settings(ClientType::PushConsumer, "other")).await;
    // The second sending to each comes a second after the first.
    push.settings().await;
    other.settings().await;
    let alter =
        v1::AlterGroupRequest { name: "group".to_owned(), max_attempts: Some(5), ..v1::AlterGroupRequest::default() };
    server.admin().await.alter_group(alter).await.unwrap();
    assert_eq!(push.settings().await.backoff_policy.unwrap().max_attempts, 5);
    // Nothing else that changes is told, nor to anybody else.
    server.metadata.add_topic("another", gantry_proto::model::TopicType::Mixed, 1);
    for telemetry in [&mut push, &mut other] {
        let more = tokio::time::timeout(std::time::Duration::from_millis(400), telemetry.inbound.message()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

#[tokio::test]
async fn impossible_policies_and_absent_services_have_their_statuses() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let backoff =
        v1::BackoffPolicy { strategy: Some(Strategy::Customized(v1::CustomizedBackoff { next: vec![negative] })) };
    let request =
        |backoff| v1::CreateGroupRequest { name: "group".to_owned(), backoff, ..v1::CreateGroupRequest::default() };
    for impossible in [backoff, v1::BackoffPolicy::default()] {
        let error = admin.create_group(request(Some(impossible))).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    server.metadata.unavailable.store(true, Ordering::Relaxed);
    assert_eq!(admin.create_group(request(None)).await.unwrap_err().code(), Code::Unavailable);
    query_route(&mut server.client().await, "orders").await;
    server.metadata.unavailable.store(false, Ordering::Relaxed);
    query_route(&mut server.client().await, "orders").await;
    server.store.fail_with(Some(StoreError::Unreadable("log".to_owned())));
    let describe = v1::DescribeTopicRequest { name: "orders".to_owned() };
    assert_eq!(admin.describe_topic(describe).await.unwrap_err().code(), Code::Internal);
}
