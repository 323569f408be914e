//! A cluster of processes, with clients at work: what keeps metadata goes away and comes back; stores and proxies come and
//! go.

#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "real processes in real time")]

use gantry_tests::{Client, PATIENCE, Running, Server, assert_all_there_once};
use serde_json::Value;
use std::time::Instant;

/// How many answered sends prove that messages flow.
const FLOW: usize = 100;

fn producer(client: &Client, server: &Server) -> Running {
    let mut producer = client.start(server.endpoint(), &["--timeout", "120", "produce-until-stopped"]);
    producer.wait_for("ACKED", FLOW);
    producer
}

/// Takes what is in the topic and what comes into it, until nothing came for a while.
fn consumer(client: &Client, endpoint: &str) -> Running {
    let mut consumer = client.start(endpoint, &["--timeout", "120", "consume-until-quiet"]);
    consumer.wait_for("RECEIVED", FLOW);
    consumer
}

/// Stops the producer and lets the consumers empty the topic: every message whose send was answered was received, once.
fn settle(mut producer: Running, consumers: Vec<Running>) {
    producer.wait_for("ACKED", FLOW);
    producer.finish();
    let mut received = Vec::new();
    for mut consumer in consumers {
        consumer.finish();
        received.extend(consumer.said("RECEIVED"));
    }
    assert_all_there_once("python", &producer.said("ACKED"), &received);
}

/// Creates a topic through a controller that is coming back. It exists already only if a call before did not hear what became
/// of it: what is said not to have been asked was not done.
fn create_once_decided(server: &Server, topic: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut in_doubt = false;
    while let Err(stderr) = server.try_admin(&["topic", "create", topic]) {
        match &stderr {
            said if said.contains("exists already") && in_doubt => return,
            said if said.contains("did not say whether it was done") => in_doubt = true,
            said => assert!(said.contains("the controller cannot be asked now"), "in doubt: {in_doubt}, {said}"),
        }
        assert!(Instant::now() < deadline, "it does not come back: {stderr}");
    }
}

fn store_group<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["store_groups"].as_array().expect("a list").iter().find(|group| group["name"] == name)
}

#[test]
fn messages_flow_while_the_controller_is_away_and_changes_are_refused() {
    let client = Client::build("python");
    let mut server = Server::start_apart(3, 2, 2);
    let before = server.admin_until(&["cluster", "status"], |status| status["proxies"].as_array().unwrap().len() == 2);
    assert_eq!(before["controller_away"], Value::Null);
    let mut producer = producer(&client, &server);
    let mut early = consumer(&client, server.endpoint());

    server.kill_controllers();
    producer.wait_for("ACKED", 2 * FLOW);
    let refused = server.try_admin(&["topic", "create", "new"]).expect_err("nobody can decide it");
    assert!(refused.contains("the controller cannot be asked now"), "{refused}");
    let away = server.admin(&["cluster", "status"]);
    assert!(away["controller_away"].as_str().unwrap().contains("cannot be asked now"), "{away:#}");
    assert_eq!(away["cluster"], before["cluster"]);
    for name in ["store-1", "store-2"] {
        let (seen, was) = (store_group(&away, name).unwrap(), store_group(&before, name).unwrap());
        assert_eq!((&seen["leader"], &seen["epoch"]), (&was["leader"], &was["epoch"]));
        assert_eq!(seen["confirmed_to"], Value::Null, "only the controller hears that");
    }
    // The topic and its group are known: new clients may join in, and those that are there go on.
    let late = consumer(&client, server.entrance(1));
    early.wait_for("RECEIVED", FLOW);

    server.start_controllers_again();
    create_once_decided(&server, "new");
    let after = server.admin_until(&["cluster", "status"], |status| {
        let heard = |list: &str| {
            status[list].as_array().unwrap().iter().all(|member| member["heard_ms_ago"].as_u64().is_some())
        };
        status["controller_away"].is_null() && heard("store_groups") && heard("proxies")
    });
    assert_eq!(after["cluster"], before["cluster"]);
    settle(producer, vec![early, late]);
    server.assert_no_errors();
}

#[test]
fn a_cluster_grows_and_shrinks_under_its_clients() {
    let client = Client::build("python");
    let mut server = Server::start_apart(1, 1, 1);
    let mut producer = producer(&client, &server);

    let (second, entrance) = (server.add_store(), server.add_entrance());
    let bytes_there = |status: &Value| store_group(status, &second)?["confirmed_to"].as_u64();
    let joined = server.admin_until(&["cluster", "status"], |status| {
        status["proxies"].as_array().unwrap().len() == 2 && bytes_there(status).is_some()
    });
    assert_eq!(bytes_there(&joined), Some(0), "old topics stay where they are: {joined:#}");
    let spread = server.admin(&["cluster", "spread"]);
    assert!(spread["topics_changed"].as_u64().unwrap() >= 1, "{spread:#}");
    producer.wait_for("ACKED", FLOW);
    server.admin_until(&["cluster", "status"], |status| bytes_there(status) > Some(0));

    let refused = server.try_admin(&["cluster", "remove", "store-1"]).expect_err("it is in use");
    assert!(refused.contains("store-1"), "{refused}");
    server.admin(&["cluster", "drain", "store-1"]);
    let refused = server.try_admin(&["cluster", "remove", "store-1"]).expect_err("it holds messages");
    assert!(refused.contains("still holds"), "{refused}");
    producer.wait_for("ACKED", FLOW);
    let consumer = consumer(&client, server.entrance(entrance));
    server.admin_until(&["cluster", "remove", "store-1"], |_| true);
    server.kill_store(0);

    settle(producer, vec![consumer]);
    let status = server.admin(&["cluster", "status"]);
    assert!(store_group(&status, "store-1").is_none(), "{status:#}");
}
