//! Whole runs against a small server that can be told to misbehave.

use super::flags::{BenchArgs, OutputFormat, Plan};
use super::progress::ProgressOutput;
use super::report::Report;
use super::run::Run;
use super::stop::Stop;
use clap::Parser;
use fake_server::{FakeServer, Faults};
use gantry_proto::env::{Env, fake};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

mod fake_server;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

fn plan(server: &FakeServer, line: &str) -> Plan {
    // A busy machine may take long to answer, and that is no error here.
    let line = format!("bench {line} --timeout 1m --endpoint {}", server.address());
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    cli.bench.plan().unwrap()
}

async fn execute(plan: Plan, stop: Stop) -> anyhow::Result<Report> {
    // Every run has other random numbers, so another id.
    static SEED: AtomicU64 = AtomicU64::new(0);
    let (env, _, _) = fake::env(SEED.fetch_add(1, Ordering::Relaxed));
    let env = Env { network: Arc::new(fake::Loopback), ..env };
    Run::new(plan, &env, stop, ProgressOutput::Quiet).execute().await
}

async fn bench(server: &FakeServer, line: &str) -> anyhow::Result<Report> {
    execute(plan(server, line), Stop::default()).await
}

/// Returns when it holds, which takes milliseconds on an idle machine.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to hold within a minute");
}

async fn report(server: &FakeServer, line: &str) -> (Report, Value) {
    let report = bench(server, line).await.unwrap();
    let json = serde_json::from_str(&report.render(OutputFormat::Json).unwrap()).unwrap();
    (report, json)
}

#[tokio::test]
async fn produce_sends_exactly_the_count_and_says_goodbye() {
    let server = FakeServer::start(Faults::default()).await;
    let (report, json) = report(&server, "produce --topic t --count 1000 --batch 7 --inflight 8 --connections 3").await;
    assert_eq!(report.failures, [""; 0]);
    assert_eq!(json["produce"]["messages"], 1000);
    assert_eq!(json["produce"]["acknowledged"], 1000);
    assert_eq!(json["produce"]["bytes"], 1000 * 1024);
    assert_eq!(json["ended_by"], "count");
    let seen = server.seen();
    assert_eq!(seen.message_ids.len(), 1000, "every id is new");
    assert!(seen.message_ids.iter().all(|id| id.len() == 34 && id.starts_with("01")));
    assert_eq!((seen.handshakes, seen.terminations), (3, 3));
    assert_eq!(seen.unsigned, 0, "every call names its client");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_said_with_the_remedy() {
    let server = FakeServer::start(Faults { unknown_topic: true, ..Faults::default() }).await;
    let error = bench(&server, "produce --topic orders --count 1").await.unwrap_err();
    let expected = format!(
        "the topic \"orders\" does not exist at {}; create it with `gantry admin topic create orders`, or let this command \
         do it with --create-topic",
        server.address()
    );
    assert_eq!(format!("{error:#}"), expected);
    let error = bench(&server, "produce --topic orders --count 1 --create-topic").await.unwrap_err();
    let expected = format!(
        "cannot create the topic \"orders\" at {}: the server has no gantry.admin.v1 service; create the topic with its own \
         tools",
        server.address()
    );
    assert_eq!(format!("{error:#}"), expected);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let server = FakeServer::start(Faults::default()).await;
    let (address, plan) = (server.address(), plan(&server, "produce --count 1"));
    server.stop().await;
    let error = execute(plan, Stop::default()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot reach a server at {address} (Connection refused")), "{error}");
}

#[tokio::test]
async fn what_the_server_cannot_take_is_refused_before_the_run() {
    let server = FakeServer::start(Faults::default()).await;
    let error = bench(&server, "produce --topic t --size 2MiB --count 1").await.unwrap_err();
    assert_eq!(error.to_string(), "--size 2097152 is more than the 1048576 bytes that the server takes");
}

#[tokio::test]
async fn refused_sends_are_counted_by_code() {
    let server = FakeServer::start(Faults { refuse_send: Some(3), ..Faults::default() }).await;
    let (report, json) = report(&server, "produce --topic t --count 100 --inflight 4 --connections 1").await;
    assert_eq!(report.failures, ["3 errors"]);
    assert_eq!(json["produce"]["acknowledged"], 97);
    let error = &json["errors"][0];
    assert_eq!(error["operation"], "send");
    assert_eq!(error["code"], "TOO_MANY_REQUESTS");
    assert_eq!((&error["count"], &error["first"]), (&3.into(), &"busy".into()));
}

#[tokio::test]
async fn an_open_loop_shows_a_stall_that_a_closed_loop_hides() {
    let stall = || FakeServer::start(Faults { stall_at: Some(100), ..Faults::default() });
    let server = stall().await;
    let open = "produce --topic t --rate 200 --count 400 --inflight 4 --connections 1";
    let (_, open) = report(&server, open).await;
    let server = stall().await;
    let closed = "produce --topic t --count 400 --inflight 4 --connections 1";
    let (_, closed) = report(&server, closed).await;
    // The server pauses for a second. Four calls of four hundred wait, but two hundred were due.
    let [open, closed] = [open, closed].map(|json| json["produce"]["latency_us"]["p90"].as_u64().unwrap());
    assert!(open > 400_000, "open loop p90 {open} µs");
    // On a busy machine each call is slow, and an open loop falls behind the more.
    assert!(closed < open / 2, "closed loop p90 {closed} µs, open loop p90 {open} µs");
}

#[tokio::test]
async fn end_to_end_accounts_for_every_message() {
    let server = FakeServer::start(Faults::default()).await;
    let line = "end-to-end --topic t --rate 2000 --count 1000 --inflight 16 --connections 2";
    let (report, json) = report(&server, line).await;
    assert_eq!(report.failures, [""; 0]);
    let integrity = &json["consume"]["integrity"];
    assert_eq!((&integrity["received"], &integrity["lost"]), (&1000.into(), &0.into()));
    assert_eq!(json["consume"]["acknowledged"], 1000);
    assert_eq!(json["consume"]["end_to_end_us"]["count"], 1000);
    assert_eq!(json["produce"]["unsent"], 0);
    assert_eq!(server.seen().message_ids.len(), 1000);
}

#[tokio::test]
async fn end_to_end_first_takes_what_others_left() {
    let server = FakeServer::start(Faults::default()).await;
    report(&server, "produce --topic t --count 3000 --batch 10").await;
    let (report, json) = report(&server, "end-to-end --topic t --rate 500 --count 100").await;
    assert_eq!(report.failures, [""; 0]);
    assert_eq!(json["consume"]["integrity"]["foreign"], 3000);
    assert_eq!(json["consume"]["messages"], 100);
}

#[tokio::test]
async fn end_to_end_finds_loss_duplicates_and_damage() {
    let faults = Faults { lose: Some(10), repeat: Some(20), damage: Some(30), ..Faults::default() };
    let server = FakeServer::start(faults).await;
    let line = "end-to-end --topic t --rate 1000 --count 200 --settle 2s --push";
    let (report, json) = report(&server, line).await;
    // The damaged message did not arrive as it was sent, so it is lost as well.
    assert_eq!(report.failures, ["2 messages lost", "1 corrupt message"]);
    let integrity = &json["consume"]["integrity"];
    assert_eq!((&integrity["duplicates"], &integrity["unique"]), (&1.into(), &198.into()));
    assert_eq!(integrity["complete"], false);
}

#[tokio::test]
async fn consume_reads_what_produce_left() {
    let server = FakeServer::start(Faults::default()).await;
    report(&server, "produce --topic t --count 500 --size 100").await;
    let (report, json) = report(&server, "consume --topic t --group g --count 500 --batch 16 --ack-batch 16").await;
    assert_eq!(report.failures, [""; 0]);
    assert_eq!((&json["consume"]["messages"], &json["consume"]["bytes"]), (&500.into(), &50_000.into()));
    assert_eq!(json["consume"]["integrity"]["gaps"], 0);
    assert_eq!(json["consume"]["integrity"]["lost"], Value::Null);
    assert_eq!(json["consume"]["acknowledged"], 500);
}

#[tokio::test]
async fn consume_knows_what_is_missing_when_nothing_more_comes() {
    let server = FakeServer::start(Faults { lose: Some(100), ..Faults::default() }).await;
    report(&server, "produce --topic t --count 500 --connections 1").await;
    let line = "consume --topic t --count 500 --idle-timeout 2s --no-ack --connections 1";
    let (report, json) = report(&server, line).await;
    assert_eq!(report.failures, ["1 message lost", "only 499 of 500 messages came"]);
    assert_eq!((&json["ended_by"], &json["consume"]["acknowledged"]), (&"idle".into(), &0.into()));
}

#[tokio::test]
async fn a_run_that_is_stopped_still_reports() {
    let server = FakeServer::start(Faults::default()).await;
    let stop = Stop::default();
    let running = execute(plan(&server, "end-to-end --topic t --duration 1h --warmup 0s"), stop.clone());
    let stopping = async {
        until(|| server.seen().acks > 100).await;
        stop.ask();
    };
    let (report, ()) = tokio::join!(running, stopping);
    let report = report.unwrap();
    assert_eq!(report.failures, [""; 0]);
    let json: Value = serde_json::from_str(&report.render(OutputFormat::Json).unwrap()).unwrap();
    assert_eq!(json["ended_by"], "interrupt");
    assert!(json["seconds"]["measured"].as_f64().unwrap() < 3600.0, "the hour was not waited for");
    assert!(json["consume"]["messages"].as_u64().unwrap() > 100);
}

#[tokio::test]
async fn a_client_comes_back_after_its_server_did() {
    let server = FakeServer::start(Faults::default()).await;
    let plan = plan(&server, "produce --topic t --rate 200 --duration 1h --warmup 0s --connections 1");
    let stop = Stop::default();
    let running = execute(plan, stop.clone());
    let restarting = async {
        until(|| server.seen().message_ids.len() > 100).await;
        let server = server.restart().await;
        until(|| server.seen().message_ids.len() > 100).await;
        stop.ask();
        server
    };
    let (report, server) = tokio::join!(running, restarting);
    let report = report.unwrap();
    let lost = report.errors.iter().find(|error| error.operation == "connection").unwrap();
    assert_eq!((lost.code.as_str(), lost.count), ("LOST", 1));
    assert!(report.produce.unwrap().acknowledged > 200, "sending went on");
    assert_eq!(server.seen().handshakes, 1, "with a new handshake");
}
