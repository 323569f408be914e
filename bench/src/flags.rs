//! The flags of `gantry bench`: their defaults, their limits, and what they say together. As JSON they are the
//! `parameters` of the report.

mod value;

use super::report::JSON_FIELDS;
use clap::{Arg, Args, Subcommand, ValueEnum};
use gantry_proto::model::limits::{
    GRPC_MESSAGE_BYTES_MAX, INVISIBLE_DURATION_MAX, INVISIBLE_DURATION_MIN, QUEUE_COUNT_MAX, RECEIVE_BATCH_MAX,
};
use gantry_proto::model::{GroupName, HostPort, TopicName};
use serde::{Serialize, Serializer};
use std::time::Duration;
use value::{at_most, body_size, count, rate, span};

/// Load a server over the RocketMQ 5 gRPC protocol and measure it.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = format!("{NOTES}\n\n{JSON_FIELDS}"), disable_help_subcommand = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

/// Flags that cannot be meant: every mistake, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct WrongFlags(Vec<String>);

const NOTES: &str = "\
The result goes to standard output, progress to standard error. The exit code is 1 when there were errors,
lost or corrupt messages. Ctrl-C ends a run early and still reports; a second Ctrl-C does not wait for calls
in flight.";

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Send messages, as fast as the calls in flight allow or at a fixed rate.
    Produce {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        span: SpanArgs,
        #[command(flatten)]
        warmup: WarmupArgs,
    },
    /// Receive and acknowledge messages, and check that they are whole and there.
    #[command(
        mut_arg("consumers", |arg| arg.long("connections").default_value("4")),
        mut_arg("receive_batch", |arg| arg.long("batch")),
        mut_arg("duration", |arg| arg.help("Time to receive. Throughput counts from the first message")),
        mut_arg("count", |arg| arg.help("Different messages to receive, instead of a time"))
    )]
    Consume {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        group: GroupArgs,
        /// Do not acknowledge: messages come back when their time hidden is over.
        #[arg(long)]
        no_ack: bool,
        #[command(flatten)]
        span: SpanArgs,
        /// With --count: give up when nothing new came for this long.
        #[arg(long, value_name = "TIME", default_value = "40s", value_parser = span(MILLISECOND, SPAN_MAX))]
        idle_timeout: Duration,
    },
    /// Send at a fixed rate and receive at the same time; measure from the intended send time to reception, and check
    /// that nothing is lost, duplicated or damaged.
    #[command(mut_arg("rate", fixed_rate))]
    EndToEnd {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        group: GroupArgs,
        #[command(flatten)]
        span: SpanArgs,
        #[command(flatten)]
        warmup: WarmupArgs,
        /// After the last send: give messages up for lost when nothing new came for this long.
        #[arg(long, value_name = "TIME", default_value = "40s", value_parser = span(MILLISECOND, SPAN_MAX))]
        settle: Duration,
    },
}

fn fixed_rate(arg: Arg) -> Arg {
    arg.default_value("1000").help("Messages per second, at times fixed beforehand")
}

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

const CONNECTIONS_MAX: u32 = 1024;
const MILLISECOND: Duration = Duration::from_millis(1);
const SPAN_MAX: Duration = Duration::from_secs(30 * 86_400);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Bodies in flight at once: more would measure the memory of this machine.
const BYTES_IN_FLIGHT_MAX: u64 = 2 << 30;
/// What a message takes on the wire beside its body, at most.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct TargetArgs {
    /// Where the server listens. Several, separated by commas, are used in turn.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:8081",
        env = "GANTRY_ENDPOINT",
        hide_env_values = true
    )]
    #[serde(rename = "endpoints", serialize_with = "as_texts")]
    pub(crate) endpoint: Vec<HostPort>,
    /// The topic. Without this, one that this command creates on a Gantry server.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Namespace of topic and group.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) namespace: String,
    /// Create the topic, and the group of consumers, through gantry.admin.v1 when they do not exist.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) create_topic: bool,
    /// Queues of a topic that is created.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_most(QUEUE_COUNT_MAX))]
    #[serde(skip)]
    pub(crate) queues: u32,
    /// Deadline of a call.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = span(MILLISECOND, TIMEOUT_MAX))]
    #[serde(rename = "timeout_ms", serialize_with = "as_millis")]
    pub(crate) timeout: Duration,
    /// Threads of the load generator. Without this, one per CPU.
    #[arg(long, value_name = "N", value_parser = at_most(256))]
    #[serde(skip)]
    pub(crate) threads: Option<u32>,
    /// How the result is written.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    #[serde(skip)]
    pub(crate) output: OutputFormat,
    /// No progress on standard error.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) quiet: bool,
}

/// How long a run takes: one of the two, once planned.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct SpanArgs {
    /// Time to measure, after the warm-up.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "15s",
        value_parser = span(MILLISECOND, SPAN_MAX),
        conflicts_with = "count"
    )]
    #[serde(rename = "duration_ms", serialize_with = "as_millis")]
    pub(crate) duration: Option<Duration>,
    /// Messages to send, instead of a time.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) count: Option<u64>,
}

#[derive(Clone, Debug, Args)]
struct WarmupArgs {
    /// Time before measuring begins [default: 2s, with --count 0s].
    #[arg(long, value_name = "TIME", value_parser = span(Duration::ZERO, SPAN_MAX))]
    warmup: Option<Duration>,
}

/// What producers do.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct LoadArgs {
    /// Size of a message's body.
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = body_size)]
    #[serde(rename = "size_bytes")]
    pub(crate) size: usize,
    /// Calls in flight, over all connections: the load of a closed loop, the limit of an open one.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_most(1 << 16))]
    pub(crate) inflight: u32,
    /// Producers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_most(CONNECTIONS_MAX))]
    pub(crate) connections: u32,
    /// Messages per call.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most(1024))]
    pub(crate) batch: u32,
    /// Open loop: messages per second, at times fixed beforehand. Latency counts from the intended time.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    #[serde(rename = "rate_per_second")]
    pub(crate) rate: Option<f64>,
}

/// What consumers do.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct GroupArgs {
    /// The consumer group.
    #[arg(long, value_name = "NAME", default_value = "gantry-bench")]
    pub(crate) group: String,
    /// Behave as push consumers, whose leases the server renews, instead of simple ones.
    #[arg(long)]
    #[serde(rename = "client", serialize_with = "as_client")]
    pub(crate) push: bool,
    /// Receive calls in flight per connection and assigned queue.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_most(64))]
    pub(crate) pollers: u32,
    /// Messages per acknowledging call. The official clients acknowledge one by one.
    // Once planned, `None` when nothing is acknowledged.
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_most(RECEIVE_BATCH_MAX))]
    pub(crate) ack_batch: Option<u32>,
    /// How long a receive waits for messages.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = span(MILLISECOND, TIMEOUT_MAX))]
    #[serde(rename = "long_poll_ms", serialize_with = "as_millis")]
    pub(crate) long_poll: Duration,
    /// How long a received message stays hidden from others. Not for --push.
    // Once planned, `None` for push consumers.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        value_parser = span(INVISIBLE_DURATION_MIN, INVISIBLE_DURATION_MAX)
    )]
    #[serde(rename = "invisible_ms", serialize_with = "as_millis")]
    pub(crate) invisible: Option<Duration>,
    /// Consumers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value = "2", value_parser = at_most(CONNECTIONS_MAX))]
    #[serde(rename = "connections")]
    pub(crate) consumers: u32,
    /// Messages per receive call.
    #[arg(long, value_name = "N", default_value_t = RECEIVE_BATCH_MAX, value_parser = at_most(RECEIVE_BATCH_MAX))]
    #[serde(rename = "batch")]
    pub(crate) receive_batch: u32,
}

/// What a run does: the flags in force, with nothing left to decide.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    #[serde(skip)]
    pub(crate) benchmark: &'static str,
    #[serde(flatten)]
    pub(crate) target: TargetArgs,
    #[serde(flatten)]
    pub(crate) span: SpanArgs,
    #[serde(skip)]
    pub(crate) warmup: Duration,
    /// When nothing new came for this long, nothing more will.
    #[serde(skip)]
    pub(crate) patience: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) produce: Option<LoadArgs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consume: Option<GroupArgs>,
}

impl BenchArgs {
    /// Decides what was left open, and finds contradictions among flags that are right one by one.
    pub(crate) fn plan(self) -> Result<Plan, WrongFlags> {
        let none = Duration::ZERO;
        let (benchmark, mut target, mut span, warmup, produce, mut consume, patience) = match self.command {
            Command::Produce { target, load, span, warmup } => {
                ("produce", target, span, warmup.warmup, Some(load), None, none)
            }
            Command::Consume { target, mut group, no_ack, span, idle_timeout } => {
                group.ack_batch = group.ack_batch.filter(|_| !no_ack);
                ("consume", target, span, Some(none), None, Some(group), idle_timeout)
            }
            Command::EndToEnd { target, load, group, span, warmup, settle } => {
                ("end-to-end", target, span, warmup.warmup, Some(load), Some(group), settle)
            }
        };
        // What `produce` leaves behind would be in the way of a run that receives its own messages only.
        let default_topic = if benchmark == "end-to-end" { "gantry-bench-end-to-end" } else { "gantry-bench" };
        target.create_topic |= target.topic.is_none();
        target.topic.get_or_insert_with(|| default_topic.to_owned());
        span.duration = span.duration.filter(|_| span.count.is_none());
        if let Some(group) = &mut consume {
            group.invisible = group.invisible.filter(|_| !group.push);
        }
        let warmup = warmup.unwrap_or(if span.count.is_some() { none } else { Duration::from_secs(2) });
        let plan = Plan { benchmark, target, span, warmup, patience, produce, consume };
        let mistakes = plan.mistakes();
        if mistakes.is_empty() { Ok(plan) } else { Err(WrongFlags(mistakes)) }
    }
}

impl Plan {
    fn mistakes(&self) -> Vec<String> {
        let topic = TopicName::parse(self.target.topic()).err().map(|mistake| format!("--topic: {mistake}"));
        let namespace = !self.target.namespace.bytes().all(|byte| byte.is_ascii_graphic());
        let namespace =
            namespace.then(|| "--namespace: only printable ASCII characters without spaces are possible".to_owned());
        let load = self.produce.iter().flat_map(LoadArgs::mistakes);
        let group = self.consume.as_ref().and_then(|group| GroupName::parse(&group.group).err());
        let group = group.map(|mistake| format!("--group: {mistake}"));
        topic.into_iter().chain(namespace).chain(load).chain(group).collect()
    }
}

impl TargetArgs {
    pub(crate) fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or_default()
    }
}

impl LoadArgs {
    /// Calls in flight of the `index`th connection: all shares differ by one at most.
    pub(crate) fn slots_of(&self, index: u32) -> u32 {
        self.inflight / self.connections + u32::from(index < self.inflight % self.connections)
    }

    fn mistakes(&self) -> Vec<String> {
        let LoadArgs { size, inflight, connections, batch, .. } = *self;
        let at_once = u64::from(inflight) * u64::from(batch) * size as u64;
        let mistakes = [
            (
                inflight < connections,
                format!(
                    "--inflight {inflight} is less than --connections {connections}: some connections would be idle"
                ),
            ),
            (
                batch as usize * (size + MESSAGE_OVERHEAD_BYTES) > GRPC_MESSAGE_BYTES_MAX,
                format!(
                    "--batch {batch} messages of --size {size} bytes do not fit into one call of {GRPC_MESSAGE_BYTES_MAX} bytes"
                ),
            ),
            (
                at_once > BYTES_IN_FLIGHT_MAX,
                format!(
                    "--inflight {inflight} calls of --batch {batch} messages of --size {size} bytes are {} MiB at once, at \
                     most {} are possible",
                    at_once >> 20,
                    BYTES_IN_FLIGHT_MAX >> 20
                ),
            ),
        ];
        mistakes.into_iter().filter(|(made, _)| *made).map(|(_, mistake)| mistake).collect()
    }
}

pub(crate) fn client(push: bool) -> &'static str {
    if push { "push" } else { "simple" }
}

fn as_client<S: Serializer>(push: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    client(*push).serialize(serializer)
}

fn as_texts<S: Serializer>(endpoints: &[HostPort], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(endpoints.iter().map(ToString::to_string))
}

fn as_millis<S: Serializer>(span: &(impl Into<Option<Duration>> + Copy), serializer: S) -> Result<S::Ok, S::Error> {
    (*span).into().map(|span| span.as_millis() as u64).serialize(serializer)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::parse;
