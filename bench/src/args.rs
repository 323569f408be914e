//! The flags of `gantry bench`: their defaults, their limits, and what they say together.

mod checked;
mod value;

pub use checked::WrongFlags;
pub(super) use checked::{Load, Reception};

use super::report::{JSON_FIELDS, Parameters, millis};
use clap::{Args, Subcommand, ValueEnum};
use gantry_proto::model::limits::{QUEUE_COUNT_MAX, RECEIVE_BATCH_MAX};
use gantry_proto::model::{HostPort, TopicName};
use std::time::Duration;
use value::{at_most, body_size, count, invisible, long_poll, rate, span, timeout, warmup};

/// Load a server over the RocketMQ 5 gRPC protocol and measure it.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = format!("{NOTES}\n\n{JSON_FIELDS}"), disable_help_subcommand = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(super) command: Command,
}

const NOTES: &str = "\
The result goes to standard output, progress to standard error. The exit code is 1 when there were errors,
lost or corrupt messages. Ctrl-C ends a run early and still reports; a second Ctrl-C does not wait for calls
in flight.";

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Send messages, as fast as the calls in flight allow or at a fixed rate.
    Produce(ProduceArgs),
    /// Receive and acknowledge messages, and check that they are whole and there.
    Consume(ConsumeArgs),
    /// Send at a fixed rate and receive at the same time; measure from the intended send time to reception, and check
    /// that nothing is lost, duplicated or damaged.
    EndToEnd(EndToEndArgs),
}

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

const THREADS_MAX: u32 = 256;
const CONNECTIONS_MAX: u32 = 1024;
const INFLIGHT_MAX: u32 = 1 << 16;
const SEND_BATCH_MAX: u32 = 1024;
const POLLERS_MAX: u32 = 64;

/// The topic of `produce` and `consume` when none is named. It is created when it does not exist.
const DEFAULT_TOPIC: &str = "gantry-bench";
/// The same for `end-to-end`: what `produce` leaves behind would be in the way.
const DEFAULT_END_TO_END_TOPIC: &str = "gantry-bench-end-to-end";

#[derive(Clone, Debug, Args)]
pub(super) struct CommonArgs {
    /// Where the server listens. Several, separated by commas, are used in turn.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:8081",
        env = "GANTRY_ENDPOINT",
        hide_env_values = true
    )]
    pub(super) endpoint: Vec<HostPort>,
    /// The topic. Without this, one that this command creates on a Gantry server.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Namespace of topic and group.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) namespace: String,
    /// Create the topic, and the group of consumers, through gantry.admin.v1 when they do not exist.
    #[arg(long)]
    create_topic: bool,
    /// Queues of a topic that is created.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_most(QUEUE_COUNT_MAX))]
    pub(super) queues: u32,
    /// Deadline of a call.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = timeout)]
    pub(super) timeout: Duration,
    /// Threads of the load generator. Without this, one per CPU.
    #[arg(long, value_name = "N", value_parser = at_most(THREADS_MAX))]
    pub(super) threads: Option<u32>,
    /// How the result is written.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: OutputFormat,
    /// No progress on standard error.
    #[arg(long)]
    pub(super) quiet: bool,
}

/// How long a run takes.
#[derive(Clone, Debug, Args)]
pub(super) struct SpanArgs {
    /// Time to measure, after the warm-up.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = span, conflicts_with = "count")]
    pub(super) duration: Duration,
    /// Messages to send, instead of a time.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(super) count: Option<u64>,
    /// Time before measuring begins [default: 2s, with --count 0s].
    #[arg(long, value_name = "TIME", value_parser = warmup)]
    warmup: Option<Duration>,
}

/// What producers do.
#[derive(Clone, Debug, Args)]
pub(super) struct LoadArgs {
    /// Size of a message's body.
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = body_size)]
    size: usize,
    /// Calls in flight, over all connections: the load of a closed loop, the limit of an open one.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_most(INFLIGHT_MAX))]
    inflight: u32,
    /// Producers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_most(CONNECTIONS_MAX))]
    connections: u32,
    /// Messages per call.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most(SEND_BATCH_MAX))]
    batch: u32,
}

/// What consumers do.
#[derive(Clone, Debug, Args)]
pub(super) struct GroupArgs {
    /// The consumer group.
    #[arg(long, value_name = "NAME", default_value = "gantry-bench")]
    group: String,
    /// Behave as push consumers, whose leases the server renews, instead of simple ones.
    #[arg(long)]
    push: bool,
    /// Receive calls in flight per connection and assigned queue.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_most(POLLERS_MAX))]
    pollers: u32,
    /// Messages per acknowledging call. The official clients acknowledge one by one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most(RECEIVE_BATCH_MAX))]
    ack_batch: u32,
    /// How long a receive waits for messages.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = long_poll)]
    long_poll: Duration,
    /// How long a received message stays hidden from others. Not for --push.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = invisible)]
    invisible: Duration,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ProduceArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Open loop: messages per second, at times fixed beforehand. Latency counts from the intended time.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    #[command(flatten)]
    pub(super) span: SpanArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ConsumeArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    group: GroupArgs,
    /// Consumers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_most(CONNECTIONS_MAX))]
    connections: u32,
    /// Messages per receive call.
    #[arg(long, value_name = "N", default_value_t = RECEIVE_BATCH_MAX, value_parser = at_most(RECEIVE_BATCH_MAX))]
    batch: u32,
    /// Do not acknowledge: messages come back when their time hidden is over.
    #[arg(long)]
    no_ack: bool,
    /// Time to receive. Throughput counts from the first message.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = span, conflicts_with = "count")]
    pub(super) duration: Duration,
    /// Different messages to receive, instead of a time.
    #[arg(long, value_name = "N", value_parser = count)]
    pub(super) count: Option<u64>,
    /// With --count: give up when nothing new came for this long.
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = span)]
    pub(super) idle_timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub(super) struct EndToEndArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Messages per second, at times fixed beforehand.
    #[arg(long, value_name = "N/s", default_value = "1000", value_parser = rate)]
    rate: f64,
    #[command(flatten)]
    group: GroupArgs,
    /// Consumers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_most(CONNECTIONS_MAX))]
    consumers: u32,
    /// Messages per receive call.
    #[arg(long, value_name = "N", default_value_t = RECEIVE_BATCH_MAX, value_parser = at_most(RECEIVE_BATCH_MAX))]
    receive_batch: u32,
    #[command(flatten)]
    pub(super) span: SpanArgs,
    /// After the last send: give messages up for lost when nothing new came for this long.
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = span)]
    pub(super) settle: Duration,
}

impl Command {
    /// The flags that every run has.
    pub(super) fn common(&self) -> &CommonArgs {
        match self {
            Command::Produce(args) => &args.common,
            Command::Consume(args) => &args.common,
            Command::EndToEnd(args) => &args.common,
        }
    }

    /// The topic's name.
    pub(super) fn topic(&self) -> &str {
        let default = match self {
            Command::Produce(_) | Command::Consume(_) => DEFAULT_TOPIC,
            Command::EndToEnd(_) => DEFAULT_END_TO_END_TOPIC,
        };
        self.common().topic.as_deref().unwrap_or(default)
    }

    /// The consumer group, if any.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            Command::Produce(_) => None,
            Command::Consume(args) => Some(&args.group.group),
            Command::EndToEnd(args) => Some(&args.group.group),
        }
    }

    /// Finds contradictions among flags that are right one by one.
    pub(super) fn check(&self) -> Result<(), WrongFlags> {
        let mut mistakes = Vec::new();
        if let Err(mistake) = TopicName::parse(self.topic()) {
            mistakes.push(format!("--topic: {mistake}"));
        }
        if !self.common().namespace.bytes().all(|byte| byte.is_ascii_graphic()) {
            mistakes.push("--namespace: only printable ASCII characters without spaces are possible".to_owned());
        }
        match self {
            Command::Produce(args) => args.load().check(&mut mistakes),
            Command::Consume(args) => args.reception().check(&mut mistakes),
            Command::EndToEnd(args) => {
                args.load().check(&mut mistakes);
                args.reception().check(&mut mistakes);
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(WrongFlags(mistakes)) }
    }
}

impl CommonArgs {
    /// True when an unknown topic should be created.
    pub(super) fn creates_topic(&self) -> bool {
        self.create_topic || self.topic.is_none()
    }

    fn parameters(&self, topic: &str) -> Parameters {
        Parameters {
            endpoints: self.endpoint.iter().map(ToString::to_string).collect(),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            timeout_ms: millis(self.timeout),
            duration_ms: None,
            count: None,
            produce: None,
            consume: None,
        }
    }
}

impl SpanArgs {
    #[cfg(test)]
    pub(super) fn new(duration: Duration, count: Option<u64>, warmup: Duration) -> SpanArgs {
        SpanArgs { duration, count, warmup: Some(warmup) }
    }

    /// Time before measuring begins.
    pub(super) fn warmup(&self) -> Duration {
        let default = if self.count.is_some() { Duration::ZERO } else { Duration::from_secs(2) };
        self.warmup.unwrap_or(default)
    }

    fn duration_ms(&self) -> Option<u64> {
        self.count.is_none().then(|| millis(self.duration))
    }
}

impl ProduceArgs {
    /// What the producers do.
    pub(super) fn load(&self) -> Load {
        self.load.at(self.rate)
    }

    /// For the report.
    pub(super) fn parameters(&self, topic: &str) -> Parameters {
        Parameters {
            duration_ms: self.span.duration_ms(),
            count: self.span.count,
            produce: Some(self.load().parameters()),
            ..self.common.parameters(topic)
        }
    }
}

impl ConsumeArgs {
    /// What the consumers do.
    pub(super) fn reception(&self) -> Reception {
        let ack_batch = (!self.no_ack).then_some(self.group.ack_batch);
        self.group.with(self.connections, self.batch, ack_batch)
    }

    /// For the report.
    pub(super) fn parameters(&self, topic: &str) -> Parameters {
        Parameters {
            duration_ms: self.count.is_none().then(|| millis(self.duration)),
            count: self.count,
            consume: Some(self.reception().parameters()),
            ..self.common.parameters(topic)
        }
    }
}

impl EndToEndArgs {
    /// What the producers do.
    pub(super) fn load(&self) -> Load {
        self.load.at(Some(self.rate))
    }

    /// What the consumers do.
    pub(super) fn reception(&self) -> Reception {
        self.group.with(self.consumers, self.receive_batch, Some(self.group.ack_batch))
    }

    /// For the report.
    pub(super) fn parameters(&self, topic: &str) -> Parameters {
        Parameters {
            duration_ms: self.span.duration_ms(),
            count: self.span.count,
            produce: Some(self.load().parameters()),
            consume: Some(self.reception().parameters()),
            ..self.common.parameters(topic)
        }
    }
}

impl LoadArgs {
    fn at(&self, rate: Option<f64>) -> Load {
        let LoadArgs { size, inflight, connections, batch } = *self;
        Load { size, inflight, connections, batch, rate }
    }
}

impl GroupArgs {
    fn with(&self, connections: u32, batch: u32, ack_batch: Option<u32>) -> Reception {
        Reception {
            group: self.group.clone(),
            push: self.push,
            connections,
            pollers: self.pollers,
            batch,
            ack_batch,
            long_poll: self.long_poll,
            invisible: self.invisible,
        }
    }
}

#[cfg(test)]
mod tests;
