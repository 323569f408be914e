use super::*;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

pub(crate) fn parse(line: &str) -> Result<Plan, String> {
    let words = std::iter::once("bench").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    cli.bench.plan().map_err(|error| error.to_string())
}

fn produce(line: &str) -> Plan {
    parse(&format!("produce {line}")).unwrap()
}

fn load(line: &str) -> LoadArgs {
    produce(line).produce.unwrap()
}

#[test]
fn without_flags_a_local_server_is_loaded() {
    let (plan, load) = (produce(""), load(""));
    assert_eq!(plan.target.endpoint[0].to_string(), "127.0.0.1:8081");
    assert!(plan.target.create_topic);
    assert_eq!(load.rate, None, "a closed loop");
    assert_eq!((load.size, load.slots_of(0), load.slots_of(3)), (1024, 32, 32));
    assert_eq!(plan.warmup, Duration::from_secs(2));
    let topics = ["produce", "consume", "end-to-end"].map(|line| parse(line).unwrap().target.topic().to_owned());
    assert_eq!(topics, ["gantry-bench", "gantry-bench", "gantry-bench-end-to-end"]);
}

#[test]
fn units_are_understood() {
    let line = "--size 2KiB --rate 2.5k/s --duration 1m --timeout 500ms --endpoint a:1,[::1]:2";
    let (plan, load) = (produce(line), load(line));
    assert_eq!(load.size, 2048);
    assert_eq!(load.rate, Some(2500.0));
    assert_eq!(plan.span.duration, Some(Duration::from_secs(60)));
    assert_eq!(plan.target.timeout, Duration::from_millis(500));
    assert_eq!(plan.target.endpoint.len(), 2);
    assert_eq!(produce("--duration 5").span.duration, Some(Duration::from_secs(5)));
    assert_eq!(produce("--count 100k").span.count, Some(100_000));
    assert_eq!(produce("--count 100k").warmup, Duration::ZERO, "every message is measured");
}

#[test]
fn a_named_topic_is_not_created_unasked() {
    assert!(!produce("--topic orders").target.create_topic);
    assert!(produce("--topic orders --create-topic").target.create_topic);
}

#[test]
fn calls_in_flight_are_spread_evenly() {
    let load = load("--inflight 10 --connections 4");
    assert_eq!([0, 1, 2, 3].map(|index| load.slots_of(index)), [3, 3, 2, 2]);
}

#[test]
fn the_same_flag_is_named_and_preset_as_its_command_needs() {
    let group = |line| parse(line).unwrap().consume.unwrap();
    let consume = group("consume --connections 3 --batch 5 --no-ack");
    assert_eq!((consume.consumers, consume.receive_batch, consume.ack_batch), (3, 5, None));
    assert_eq!(group("consume").consumers, 4);
    let end_to_end = group("end-to-end --connections 3 --batch 5 --push");
    assert_eq!((end_to_end.consumers, end_to_end.receive_batch, end_to_end.ack_batch), (2, 32, Some(1)));
    assert_eq!(end_to_end.invisible, None);
    let [fixed, closed] = ["end-to-end", "produce"].map(|line| parse(line).unwrap().produce.unwrap().rate);
    assert_eq!((fixed, closed), (Some(1000.0), None));
    for refused in ["consume --consumers 3", "consume --warmup 1s", "end-to-end --no-ack", "produce --group g"] {
        assert!(parse(refused).is_err(), "{refused}");
    }
}

#[test]
fn zero_and_everything_out_of_range_is_refused() {
    for flags in [
        "produce --size 0",
        "produce --size 35",
        "produce --size 5MiB",
        "produce --size 1GiB",
        "produce --inflight 0",
        "produce --inflight 70000",
        "produce --connections 0",
        "produce --connections 2000",
        "produce --batch 0",
        "produce --rate 0",
        "produce --rate -5",
        "produce --rate inf",
        "produce --rate NaN",
        "produce --duration 0s",
        "produce --duration 0",
        "produce --duration 5x",
        "produce --duration 31d",
        "produce --count 0",
        "produce --count 5 --duration 5s",
        "produce --timeout 0s",
        "produce --threads 0",
        "produce --queues 0",
        "produce --output xml",
        "produce --endpoint nowhere",
        "consume --batch 0",
        "consume --batch 33",
        "consume --connections 0",
        "consume --pollers 0",
        "consume --ack-batch 0",
        "consume --invisible 5s",
        "consume --long-poll 0s",
        "consume --idle-timeout 0s",
        "end-to-end --consumers 0",
        "end-to-end --rate 0",
        "end-to-end --settle 0s",
    ] {
        assert!(parse(flags).is_err(), "{flags}");
    }
}

#[test]
fn contradictions_are_reported_together() {
    let line = "produce --topic a/b --inflight 2 --connections 4 --batch 1000 --size 4MiB";
    let message = parse(line).unwrap_err();
    assert_eq!(
        message,
        "--topic: the name contains '/'; allowed are letters, digits and % | _ -\n\
         --inflight 2 is less than --connections 4: some connections would be idle\n\
         --batch 1000 messages of --size 4194304 bytes do not fit into one call of 136314880 bytes\n\
         --inflight 2 calls of --batch 1000 messages of --size 4194304 bytes are 8000 MiB at once, at most 2048 are \
         possible"
    );
    assert!(parse("consume --group CID_RMQ_SYS_x").unwrap_err().starts_with("--group: "));
}
