//! The same scenarios with the unmodified official client of every language, each against a server of its own.

#![allow(missing_docs)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "real processes in real time; what was measured is shown with --nocapture"
)]

use gantry_tests::{Client, Outcome, PATIENCE, Server, Shape, assert_all_there_once};
use std::time::{Duration, Instant};

/// Normal messages, from the sender to the consumer's acknowledgement or to the dead-letter topic.
const SCENARIOS: [&str; 9] = [
    "send-receive-ack",
    "push-consume",
    "tag-filter",
    "redelivery",
    "change-invisible",
    "dead-letter",
    "push-retry",
    "large-body",
    "empty-poll",
];

/// How long clients take to have all their streams again after a restart.
const SETTLING: Duration = Duration::from_secs(3);

/// Runs all scenarios; exactly `skipped` are expected to be skipped, because that client lacks what they need.
fn all_scenarios(shape: Shape, language: &'static str, skipped: &[&str]) {
    let client = Client::build(language);
    let server = Server::start_as(shape);
    let group = format!("e2e-{language}-dead-letter-group");
    server.admin(&["group", "create", &group, "--max-attempts", "2"]);

    let outcomes = client.run(server.endpoint(), &[], &SCENARIOS, 2 * PATIENCE);
    let unexpected: Vec<_> = (outcomes.iter())
        .filter(|(scenario, outcome)| match outcome {
            Outcome::Passed => skipped.contains(&scenario.as_str()),
            Outcome::Skipped(_) => !skipped.contains(&scenario.as_str()),
            Outcome::Failed(_) => true,
        })
        .collect();
    assert!(unexpected.is_empty(), "{language}: {unexpected:#?}");
    server.assert_no_errors();
}

/// The same port speaks TLS, with a certificate that the server made for itself: what these clients do by default.
fn tls_with_the_servers_own_certificate(shape: Shape, language: &'static str) {
    let client = Client::build(language);
    let server = Server::start_as(shape);
    let scenarios = ["send-receive-ack", "empty-poll"];
    let outcomes = client.run(server.endpoint(), &["--tls"], &scenarios, 2 * PATIENCE);
    assert!(outcomes.values().all(|outcome| *outcome == Outcome::Passed), "{language}: {outcomes:#?}");
    server.assert_no_errors();
}

/// Kills the server (apart: its stores) while a producer is at it: every message whose send was answered is there afterwards, once.
fn acknowledged_messages_survive_kill(shape: Shape, language: &'static str) {
    let client = Client::build(language);
    let mut server = Server::start_as(shape);
    let mut producer = client.start(server.endpoint(), &["--timeout", "120", "produce-until-stopped"]);
    for _ in 0..3 {
        producer.wait_for("ACKED", 100);
        server.kill_and_restart();
    }
    producer.wait_for("ACKED", 100);
    // The Java client reopens its telemetry stream a second after it broke, and never ends when closed at that moment.
    producer.read_for(SETTLING);
    producer.finish();

    let acked = producer.said("ACKED");
    let mut consumer = client.start(server.endpoint(), &["--timeout", "120", "consume-until-quiet"]);
    consumer.finish();
    assert_all_there_once(language, &acked, &consumer.said("RECEIVED"));
    assert!(acked.len() >= 400);
}

/// Kills one of two proxies while a producer is at it: with both addresses it goes on with the other one, with one address it
/// waits until that is served again. Every message whose send was answered is there, once, also through the other proxy.
fn a_dead_proxy_is_survived(language: &'static str, knows_both: bool) {
    let client = Client::build(language);
    let mut server = Server::start_apart(1, 2, 2);
    let endpoints = match knows_both {
        true => format!("{};{}", server.entrance(0), server.entrance(1)),
        false => server.entrance(0).to_owned(),
    };
    let mut producer = client.start(&endpoints, &["--timeout", "120", "produce-until-stopped"]);
    producer.wait_for("ACKED", 100);
    server.kill_entrance(0);
    if !knows_both {
        server.start_entrance_again(0);
    }
    let alone = Instant::now();
    producer.wait_for("ACKED", 100);
    println!("{language} went on {:?} after the death of a proxy", alone.elapsed());
    producer.read_for(SETTLING);
    producer.finish();

    let acked = producer.said("ACKED");
    let mut consumer = client.start(server.entrance(1), &["--timeout", "120", "consume-until-quiet"]);
    consumer.finish();
    assert_all_there_once(language, &acked, &consumer.said("RECEIVED"));
}

/// The same list for both shapes of the server.
macro_rules! both_shapes {
    ($($name:ident: $test:ident($($argument:expr),*);)+) => {
        mod standalone {
            $(#[test]
            fn $name() {
                super::$test(gantry_tests::Shape::Standalone, $($argument),*);
            })+
        }

        mod apart {
            $(#[test]
            fn $name() {
                super::$test(gantry_tests::Shape::Apart, $($argument),*);
            })+
        }
    };
}

both_shapes! {
    python: all_scenarios("python", &[]);
    nodejs: all_scenarios("nodejs", &[]);
    golang: all_scenarios("golang", &[]);
    java: all_scenarios("java", &[]);
    rust: all_scenarios("rust", &["push-consume", "push-retry", "change-invisible"]);
    golang_speaks_tls: tls_with_the_servers_own_certificate("golang");
    java_speaks_tls: tls_with_the_servers_own_certificate("java");
    python_loses_nothing_to_a_kill: acknowledged_messages_survive_kill("python");
    nodejs_loses_nothing_to_a_kill: acknowledged_messages_survive_kill("nodejs");
    golang_loses_nothing_to_a_kill: acknowledged_messages_survive_kill("golang");
    java_loses_nothing_to_a_kill: acknowledged_messages_survive_kill("java");
    rust_loses_nothing_to_a_kill: acknowledged_messages_survive_kill("rust");
}

#[test]
fn python_survives_a_dead_proxy() {
    a_dead_proxy_is_survived("python", false);
}

#[test]
fn nodejs_survives_a_dead_proxy() {
    a_dead_proxy_is_survived("nodejs", false);
}

#[test]
fn golang_survives_a_dead_proxy() {
    a_dead_proxy_is_survived("golang", false);
}

#[test]
fn java_survives_a_dead_proxy() {
    a_dead_proxy_is_survived("java", true);
}

#[test]
fn rust_survives_a_dead_proxy() {
    a_dead_proxy_is_survived("rust", false);
}
