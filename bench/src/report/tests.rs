use super::*;
use serde_json::json;

fn sample(messages: u64, micros: u64) -> Sample {
    let mut sample = Sample::default();
    (sample.messages, sample.bytes) = (messages, messages << 10);
    for step in 1..=1000 {
        sample.record(Duration::from_micros(micros * step / 1000));
    }
    sample
}

fn report(line: &str, ended_by: EndedBy) -> Report {
    let seconds = Seconds {
        warmup: Duration::from_secs(2),
        measured: Duration::from_secs(15),
        total: Duration::from_millis(17_004),
    };
    let started = Moment::from_unix_nanos(1_755_777_296_123_000_000);
    Report::new(crate::flags::parse(line).unwrap(), RunId(0x1f), started, ended_by, seconds)
}

fn with_sends(mut report: Report) -> Report {
    let sends = sample(612_345, 31_000);
    report.produce = Some(ProduceResult {
        amount: Amount::new(&sends, Duration::from_secs(15)),
        acknowledged: 700_000,
        unsent: 0,
        latency_us: sends.quantiles(),
        start_delay_us: sample(0, 90).quantiles(),
    });
    report
}

fn end_to_end(counts: Counts, lost: Option<u64>) -> Report {
    let arrivals = sample(15_000, 4000);
    let result = ConsumeResult {
        amount: Amount::new(&arrivals, Duration::from_secs(15)),
        acknowledged: 17_000,
        empty_receives: 12,
        end_to_end_us: arrivals.quantiles(),
        receive_latency_us: arrivals.quantiles(),
        ack_latency_us: sample(0, 500).quantiles(),
        integrity: Integrity { received: counts.received(), counts, gaps: None, lost, complete: lost == Some(0) },
    };
    let line = "end-to-end --topic bench --rate 1000 --batch 16 --group readers --consumers 1";
    let mut report = with_sends(report(line, EndedBy::Duration));
    report.consume = Some(result);
    report
}

fn error(operation: &'static str, code: &str, count: u64, first: &str) -> ErrorCount {
    ErrorCount { operation, code: code.to_owned(), count, first: first.to_owned() }
}

#[test]
fn table_of_a_clean_produce() {
    let report = with_sends(report("produce --topic bench", EndedBy::Duration)).judged();
    assert_eq!(report.failures, [""; 0]);
    let expected = "\
produce: topic bench at 127.0.0.1:8081
  4 producers, closed loop of 128 calls in flight, one message of 1 KiB per call
  measured 15.00 s after 2.00 s of warm-up, run 000000000000001f

                   messages        msg/s       MiB/s
  sent              612,345       40,823       39.87

  latency            p50        p90        p99      p99.9        max
  send          15.50 ms   27.90 ms   30.70 ms   30.98 ms   31.01 ms

  errors: none
";
    assert_eq!(report.render(OutputFormat::Table).unwrap(), expected);
}

#[test]
fn table_of_an_end_to_end_run_with_every_trouble() {
    let counts = Counts { unique: 16_997, duplicates: 1, foreign: 5, corrupt: 1, untracked: 0 };
    let mut report = end_to_end(counts, Some(3));
    report.ended_by = EndedBy::Interrupt;
    report.produce.as_mut().unwrap().unsent = 1234;
    report.errors = vec![
        error("ack", "GRPC_UNAVAILABLE", 2, "connection refused\nsecond line"),
        error("send", "TOO_MANY_REQUESTS", 1010, "slow down"),
    ];
    let report = report.judged();
    assert_eq!(report.failures, ["1,012 errors", "3 messages lost", "1 corrupt message"]);
    let expected = "\
end-to-end: topic bench at 127.0.0.1:8081
  4 producers, open loop of 1000 msg/s, at most 128 calls in flight, 16 messages of 1 KiB per call
  1 simple consumer in group readers, batches of 32, acknowledged one by one
  measured 15.00 s after 2.00 s of warm-up, interrupted, run 000000000000001f

                   messages        msg/s       MiB/s
  sent              612,345       40,823       39.87
  received           15,000        1,000        0.98

  latency            p50        p90        p99      p99.9        max
  end to end     2.00 ms    3.60 ms    3.96 ms    4.00 ms    4.00 ms
  send          15.50 ms   27.90 ms   30.70 ms   30.98 ms   31.01 ms
  start delay      45 µs      81 µs      89 µs      89 µs      90 µs
  receive        2.00 ms    3.60 ms    3.96 ms    4.00 ms    4.00 ms
  ack             250 µs     450 µs     495 µs     499 µs     500 µs

  not sent: 1,234 messages were due with all calls in flight taken; server or client cannot keep this rate up
  messages: 700,000 accepted, 17,004 received, 3 lost, 1 duplicate, 1 corrupt, 5 foreign
  errors: 1,012
          2  ack         GRPC_UNAVAILABLE: connection refused
      1,010  send        TOO_MANY_REQUESTS: slow down
";
    assert_eq!(report.render(OutputFormat::Table).unwrap(), expected);
}

#[test]
fn table_of_a_consume_that_got_nothing() {
    let empty = Sample::default();
    let result = ConsumeResult {
        amount: Amount::new(&empty, Duration::ZERO),
        acknowledged: 0,
        empty_receives: 3,
        end_to_end_us: None,
        receive_latency_us: None,
        ack_latency_us: None,
        integrity: Integrity { received: 0, counts: Counts::default(), gaps: Some(0), lost: Some(0), complete: false },
    };
    let line = "consume --topic bench --group readers --connections 1 --no-ack --count 1000";
    let mut report = report(line, EndedBy::Idle);
    report.consume = Some(result);
    report.seconds.warmup = Duration::ZERO;
    let report = report.judged();
    assert_eq!(report.failures, ["only 0 of 1,000 messages came"]);
    let expected = "\
consume: topic bench at 127.0.0.1:8081
  1 simple consumer in group readers, batches of 32, no acknowledgements
  measured 15.00 s, ended because nothing more came, run 000000000000001f

                   messages        msg/s       MiB/s
  received                0            0        0.00

  messages: 0 received, 0 lost, 0 duplicates, 0 corrupt
  errors: none
";
    assert_eq!(report.render(OutputFormat::Table).unwrap(), expected);
}

#[test]
fn an_unknown_loss_is_said_and_is_no_failure() {
    let report = end_to_end(Counts { unique: 5, ..Counts::default() }, None).judged();
    assert!(report.failures.is_empty());
    let table = report.render(OutputFormat::Table).unwrap();
    assert!(table.contains("700,000 accepted, 5 received, loss unknown, 0 duplicates"), "{table}");
}

#[test]
fn json_has_the_documented_fields() {
    let counts = Counts { unique: 17_000, ..Counts::default() };
    let mut report = end_to_end(counts, Some(0));
    report.errors = vec![error("send", "TOO_MANY_REQUESTS", 2, "slow down")];
    let report = report.judged();
    let document: serde_json::Value = serde_json::from_str(&report.render(OutputFormat::Json).unwrap()).unwrap();
    let expected = json!({
        "format": 1,
        "benchmark": "end-to-end",
        "gantry_version": env!("CARGO_PKG_VERSION"),
        "run_id": "000000000000001f",
        "started_at": "2025-08-21T11:54:56.123Z",
        "ok": false,
        "failures": ["2 errors"],
        "ended_by": "duration",
        "seconds": { "warmup": 2.0, "measured": 15.0, "total": 17.004 },
        "parameters": {
            "endpoints": ["127.0.0.1:8081"],
            "namespace": "",
            "topic": "bench",
            "timeout_ms": 3000,
            "duration_ms": 15000,
            "count": null,
            "produce": {
                "connections": 4, "inflight": 128, "batch": 16, "size_bytes": 1024, "rate_per_second": 1000.0
            },
            "consume": {
                "group": "readers", "client": "simple", "connections": 1, "pollers": 2, "batch": 32, "ack_batch": 1,
                "long_poll_ms": 5000, "invisible_ms": 30000
            }
        },
        "produce": {
            "messages": 612_345, "bytes": 627_041_280, "messages_per_second": 40_823.0, "mib_per_second": 39.87,
            "acknowledged": 700_000,
            "unsent": 0,
            "latency_us": {
                "count": 1000, "mean": 15_516, "p50": 15_503, "p90": 27_903, "p99": 30_703, "p99_9": 30_975,
                "max": 31_007
            },
            "start_delay_us": {
                "count": 1000, "mean": 45, "p50": 45, "p90": 81, "p99": 89, "p99_9": 89, "max": 90
            }
        },
        "consume": {
            "messages": 15_000, "bytes": 15_360_000, "messages_per_second": 1000.0, "mib_per_second": 0.98,
            "acknowledged": 17_000,
            "empty_receives": 12,
            "end_to_end_us": {
                "count": 1000, "mean": 2002, "p50": 2000, "p90": 3601, "p99": 3961, "p99_9": 3997, "max": 4001
            },
            "receive_latency_us": {
                "count": 1000, "mean": 2002, "p50": 2000, "p90": 3601, "p99": 3961, "p99_9": 3997, "max": 4001
            },
            "ack_latency_us": {
                "count": 1000, "mean": 250, "p50": 250, "p90": 450, "p99": 495, "p99_9": 499, "max": 500
            },
            "integrity": {
                "received": 17_000, "unique": 17_000, "duplicates": 0, "foreign": 0, "corrupt": 0, "untracked": 0,
                "gaps": null, "lost": 0, "complete": true
            }
        },
        "errors": [{ "operation": "send", "code": "TOO_MANY_REQUESTS", "count": 2, "first": "slow down" }]
    });
    assert_eq!(document, expected);
}

#[test]
fn every_field_of_the_document_is_explained() {
    let mut report = end_to_end(Counts::default(), None);
    report.errors = vec![error("send", "TOO_MANY_REQUESTS", 2, "slow down")];
    let report = report.judged();
    let document: serde_json::Value = serde_json::from_str(&report.render(OutputFormat::Json).unwrap()).unwrap();
    let mut fields = Vec::new();
    for (name, value) in document.as_object().unwrap() {
        fields.push(name.as_str());
        // The flags explain themselves.
        let inner = value.as_object().filter(|_| name != "parameters");
        fields.extend(inner.into_iter().flat_map(|inner| inner.keys()).map(String::as_str));
    }
    fields.extend(document["consume"]["integrity"].as_object().unwrap().keys().map(String::as_str));
    fields.extend(document["errors"][0].as_object().unwrap().keys().map(String::as_str));
    for field in fields {
        assert!(JSON_FIELDS.contains(&format!("{field}`")), "{field} is not explained");
    }
}
