//! The real binary, started and stopped as an operator does it.

#![expect(clippy::unwrap_used, reason = "a panic here is the report, also in what tests share")]
#![expect(clippy::disallowed_methods, reason = "what is measured and inherited here is the real machine's")]

mod gantry;
mod hanging_call;
mod lost_controller;
mod lost_store;

use gantry::{Gantry, run, run_with_files};
use serde_json::json;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A second is the promise; code that is not optimised, on a machine that builds at the same time, gets more.
const READY_MS_MAX: u64 = if cfg!(debug_assertions) { 5000 } else { 1000 };

#[test]
fn it_is_ready_soon_answers_probes_and_stops_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let starts = ["first", "second"].map(|_| {
        let gantry = Gantry::start(dir.path(), &[]);
        let ready = gantry.ready().clone();
        assert_eq!(ready["data_dir"], dir.path().to_str().unwrap());
        assert_eq!(ready["flush"], "sync");
        for path in ["/livez", "/readyz"] {
            let answer = http_get(&gantry.ops_address(), path);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        }
        let metrics = http_get(&gantry.ops_address(), "/metrics");
        assert!(metrics.contains("\ngantry_build_info{version="), "{metrics}");

        let stopping = Instant::now();
        let (code, log) = gantry.stop("TERM");
        assert_eq!(code, Some(0), "{log}");
        assert!(stopping.elapsed() < Duration::from_secs(5), "stopping took {:?}", stopping.elapsed());
        assert!(!log.contains("\"ERROR\"") && !log.contains("\"WARN\""), "{log}");
        ready["start_ms"].as_u64().unwrap()
    });
    // The better one, because other tests run at the same time.
    assert!(starts.into_iter().min().unwrap() < READY_MS_MAX, "starting took {starts:?} ms");
}

#[test]
fn a_call_that_does_not_end_is_cut_off_after_the_drain_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let gantry = Gantry::start(dir.path(), &["--listen-drain-timeout", "300ms"]);
    let _call = hanging_call::begin(&gantry.address());
    let (code, log) = gantry.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("cut off") && log.contains("\"stopped\""), "{log}");
}

#[test]
fn while_draining_it_is_live_and_not_ready_and_a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let gantry = Gantry::start(dir.path(), &["--listen-drain-timeout", "10m"]);
    let _call = hanging_call::begin(&gantry.address());
    gantry.signal("TERM");
    let ops = gantry.ops_address();
    let draining = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        http_get(&ops, "/readyz").ends_with("draining\n")
    });
    assert!(draining);
    assert!(http_get(&ops, "/livez").starts_with("HTTP/1.1 200 "));
    let (code, log) = gantry.insist("INT");
    assert_eq!(code, Some(1), "{log}");
}

#[test]
fn it_stops_on_sigint_too() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Gantry::start(dir.path(), &[]).stop("INT").0, Some(0));
}

#[test]
fn a_busy_port_is_named_with_the_flag_that_helps() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();

    let (code, stderr) =
        run(&["--data", data, "--listen", &address, "--admin-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
    let advice = "the address is in use; stop the other server or choose another with --listen";
    assert_eq!(last_line(&stderr), format!("gantry: cannot listen on {address}: {advice}"));
    assert_eq!(code, Some(1));

    let (code, stderr) =
        run(&["--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--ops-listen", &address]);
    let advice = "the address is in use; stop the other server or choose another with --ops-listen";
    assert_eq!(last_line(&stderr), format!("gantry: cannot listen on {address}: {advice}"));
    assert_eq!(code, Some(1));
}

#[test]
fn a_data_folder_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("data");
    let (code, stderr) = run(&["--data", below.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let advice = "it is, or lies below, a file; choose another folder with --data";
    assert_eq!(last_line(&stderr), format!("gantry: cannot keep data in {}: {advice}", below.display()));
    assert_eq!(code, Some(1));
}

#[test]
fn a_damaged_folder_is_reported_once_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Gantry::start(dir.path(), &[]).stop("TERM").0, Some(0));
    let positions = dir.path().join("store/positions");
    fs::write(&positions, vec![1; 4608]).unwrap();
    let data = dir.path().to_str().unwrap();
    let (code, stderr) = run(&[
        "--data",
        data,
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stderr.matches("are damaged").count(), 1, "{stderr}");
    let line = last_line(&stderr);
    assert!(line.starts_with("gantry: ") && line.contains("store.accept_missing_log"), "{line}");
}

#[test]
fn out_of_descriptors_is_said_as_that() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Gantry::start(dir.path(), &[]).stop("TERM").0, Some(0));
    let data = dir.path().to_str().unwrap();
    let said = (13..=16).map(|files| {
        let flags =
            ["--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
        let (code, stderr) = run_with_files(files, &flags);
        assert_eq!(code, Some(1), "{files}: {stderr}");
        last_line(&stderr).to_owned()
    });
    let said: Vec<String> = said.collect();
    assert!(said.iter().all(|line| !line.contains("full") && !line.contains("hoose")), "{said:?}");
    let store = said.iter().find(|line| line.contains("cannot open the store")).unwrap();
    assert!(store.matches("Too many open files").count() == 1 && store.contains("ulimit -n"), "{store}");
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Gantry::start(dir.path(), &[]);
    let data = dir.path().to_str().unwrap();
    let (code, stderr) = run(&[
        "--data",
        data,
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    let line = last_line(&stderr);
    assert!(line.starts_with("gantry: ") && line.contains(data) && line.contains("another"), "{line}");
    assert_eq!(first.stop("TERM").0, Some(0));
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.pem");
    fs::write(&garbage, "not a certificate").unwrap();
    let (garbage, data) = (garbage.to_str().unwrap(), dir.path().join("data"));
    let start = |certificate: &str, key: &str| {
        run(&[
            "--data",
            data.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--listen-tls-certificate",
            certificate,
            "--listen-tls-key",
            key,
        ])
    };
    let (code, stderr) = start(garbage, garbage);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(last_line(&stderr).contains(garbage), "{stderr}");

    let (code, stderr) = start("/absent.pem", garbage);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(last_line(&stderr).starts_with("gantry: cannot read the certificate /absent.pem: No such file"));
}

#[test]
fn mistakes_in_the_configuration_are_usage_errors() {
    let (code, stderr) = run(&["--flush", "maybe", "--listen", "nowhere"]);
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("gantry: the configuration has 2 mistakes:\n"), "{stderr}");
    assert_eq!(run(&["--no-such-flag"]).0, Some(2));
}

#[test]
fn the_self_signed_certificate_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = || fs::read_to_string(dir.path().join("tls/certificate.pem")).unwrap();
    Gantry::start(dir.path(), &[]).stop("TERM");
    let first = certificate();
    assert!(first.starts_with("-----BEGIN CERTIFICATE-----"));
    Gantry::start(dir.path(), &[]).stop("TERM");
    assert_eq!(certificate(), first);
}

#[test]
fn an_operator_manages_topics_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let gantry = Gantry::start(dir.path(), &[]);
    let admin = |command: &str| gantry.admin(command);

    let (created, _) = admin("topic create orders --type fifo --queues 4").unwrap();
    assert_eq!(created["created"], true);
    assert_eq!(created["topic"]["type"], "fifo");
    assert_eq!(created["topic"]["queue_count"], 4);
    let (code, stderr) = admin("topic create orders").unwrap_err();
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("exists already") && stderr.contains("--if-not-exists"), "{stderr}");
    assert_eq!(admin("topic create orders --if-not-exists").unwrap().0["created"], false);
    assert_eq!(admin("topic alter orders --queues 6").unwrap().0["topic"]["queue_count"], 6);
    assert_eq!(admin("topic alter orders --queues 2").unwrap_err().0, Some(1));
    let (described, _) = admin("topic describe orders").unwrap();
    assert_eq!(described["queues"].as_array().unwrap().len(), 6);
    let first = json!({
        "queue_id": 0, "min_offset": 0, "max_offset": 0, "store_group": "store-1", "writable": true, "unavailable": null
    });
    assert_eq!(described["queues"][0], first);

    let (created, _) = admin("group create payments --fifo --max-attempts 5 --backoff 1s,5s").unwrap();
    assert_eq!(created["group"]["max_attempts"], 5);
    assert_eq!(created["group"]["backoff"], json!({"kind": "customized", "next_ms": [1000, 5000]}));
    assert_eq!(admin("group alter payments --max-attempts 3").unwrap().0["group"]["max_attempts"], 3);
    assert_eq!(admin("group describe payments").unwrap().0["group"]["fifo"], true);
    assert_eq!(admin("group list").unwrap().0["groups"][0]["name"], "payments");

    assert_eq!(admin("group delete payments").unwrap().0["deleted"], "payments");
    assert_eq!(admin("topic delete orders").unwrap().0["deleted"], "orders");
    assert_eq!(admin("topic list").unwrap().0, json!({"topics": []}));
    assert_eq!(admin("topic describe orders").unwrap_err().0, Some(1));
    assert_eq!(gantry.stop("TERM").0, Some(0));
}

#[test]
fn an_unreachable_server_is_said_so() {
    // No system gives port 1 out, and none of ours listens there.
    let endpoint = "127.0.0.1:1";
    let (code, stderr) = run(&["admin", "topic", "list", "--endpoint", endpoint]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with(&format!("gantry: cannot reach a server at {endpoint} (Connection refused")),
        "{stderr}"
    );
}

#[test]
fn a_benchmark_that_cannot_be_meant_or_has_no_server_says_which() {
    let (code, stderr) = run(&["bench", "produce", "--inflight", "1", "--connections", "2"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr, "gantry: --inflight 1 is less than --connections 2: some connections would be idle\n");
    let (code, stderr) = run(&["bench", "produce", "--endpoint", "127.0.0.1:1", "--count", "1"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.starts_with("gantry: cannot reach a server at 127.0.0.1:1 (Connection refused"), "{stderr}");
}

fn last_line(stderr: &str) -> &str {
    stderr.lines().last().unwrap_or_default()
}

fn http_get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
