//! The proxy's metrics, under the names that RocketMQ's dashboards know. Handles are kept, so counting a message costs an
//! atomic addition. The number of series is bounded: topics and consumer groups past a limit share one label.

use gantry_proto::model::{GroupId, MetadataView, TopicId};
use gantry_proto::wire::v2::Code;
use metrics::{Counter, Gauge, Histogram, Unit};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Topics, and pairs of topic and consumer group, that get series of their own.
const SERIES_MAX: usize = 10_000;
/// Label of all others.
const OTHER: &str = "_other";

/// Everything the proxy counts.
pub(crate) struct Metrics {
    success_latency: [OnceLock<Histogram>; Rpc::COUNT],
    other_latency: RwLock<HashMap<(Rpc, i32), Histogram>>,
    sends: RwLock<HashMap<TopicId, Arc<SendMeters>>>,
    deliveries: RwLock<HashMap<(TopicId, GroupId), Arc<DeliveryMeters>>>,
    topics: Labels,
    groups: Labels,
    versions: Labels,
    /// Connections open now.
    pub(crate) connections: Gauge,
    /// Connections closed at once because there were too many.
    pub(crate) connections_refused: Counter,
    /// Connections closed because they did not get to HTTP/2 in time.
    pub(crate) connections_late: Counter,
    /// Connections closed because nothing was called on them.
    pub(crate) connections_idle: Counter,
    /// Answers dropped because nobody read them.
    pub(crate) answers_unread: Counter,
    /// Deliveries that could not be handed back to the store and stay hidden until their invisible duration ends.
    pub(crate) handbacks_lost: Counter,
}

/// Values of one label that have series of their own.
#[derive(Default)]
struct Labels {
    known: RwLock<HashSet<Box<str>>>,
}

/// What is counted per topic sent to.
pub(crate) struct SendMeters {
    messages: Counter,
    bytes: Counter,
    sizes: Histogram,
}

/// What is counted per topic and group received by.
pub(crate) struct DeliveryMeters {
    messages: Counter,
    bytes: Counter,
}

/// The client protocol's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rpc {
    QueryRoute,
    Heartbeat,
    SendMessage,
    QueryAssignment,
    ReceiveMessage,
    AckMessage,
    ForwardMessageToDeadLetterQueue,
    PullMessage,
    UpdateOffset,
    GetOffset,
    QueryOffset,
    EndTransaction,
    Telemetry,
    NotifyClientTermination,
    ChangeInvisibleDuration,
    RecallMessage,
    SyncLiteSubscription,
}

impl Rpc {
    const COUNT: usize = Rpc::SyncLiteSubscription as usize + 1;

    /// The method's name in the protocol, and the metrics' label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Rpc::QueryRoute => "QueryRoute",
            Rpc::Heartbeat => "Heartbeat",
            Rpc::SendMessage => "SendMessage",
            Rpc::QueryAssignment => "QueryAssignment",
            Rpc::ReceiveMessage => "ReceiveMessage",
            Rpc::AckMessage => "AckMessage",
            Rpc::ForwardMessageToDeadLetterQueue => "ForwardMessageToDeadLetterQueue",
            Rpc::PullMessage => "PullMessage",
            Rpc::UpdateOffset => "UpdateOffset",
            Rpc::GetOffset => "GetOffset",
            Rpc::QueryOffset => "QueryOffset",
            Rpc::EndTransaction => "EndTransaction",
            Rpc::Telemetry => "Telemetry",
            Rpc::NotifyClientTermination => "NotifyClientTermination",
            Rpc::ChangeInvisibleDuration => "ChangeInvisibleDuration",
            Rpc::RecallMessage => "RecallMessage",
            Rpc::SyncLiteSubscription => "SyncLiteSubscription",
        }
    }

    fn latency(self, code: i32) -> Histogram {
        let result = if code < Code::BadRequest as i32 { "success" } else { "process_request_failed" };
        let is_long_polling = if self == Rpc::ReceiveMessage { "true" } else { "false" };
        metrics::histogram!(
            "rocketmq_rpc_latency",
            "protocol_type" => "grpc",
            "request_code" => self.as_str(),
            "response_code" => code.to_string(),
            "is_long_polling" => is_long_polling,
            "result" => result,
        )
    }
}

impl Metrics {
    /// Install the process's recorder first: handles come from it.
    pub(crate) fn new() -> Metrics {
        describe();
        Metrics {
            success_latency: Default::default(),
            other_latency: RwLock::default(),
            sends: RwLock::default(),
            deliveries: RwLock::default(),
            topics: Labels::default(),
            groups: Labels::default(),
            versions: Labels::default(),
            connections: metrics::gauge!("gantry_proxy_connections"),
            connections_refused: metrics::counter!("gantry_proxy_connections_refused_total"),
            connections_late: metrics::counter!("gantry_proxy_connections_late_total"),
            connections_idle: metrics::counter!("gantry_proxy_connections_idle_total"),
            answers_unread: metrics::counter!("gantry_proxy_answers_unread_total"),
            handbacks_lost: metrics::counter!("gantry_proxy_handbacks_lost_total"),
        }
    }

    /// Whether the proxy serves.
    pub(crate) fn set_up(&self, up: bool) {
        metrics::gauge!("rocketmq_proxy_up", "node_type" => "proxy").set(f64::from(u8::from(up)));
    }

    pub(crate) fn answered(&self, rpc: Rpc, code: i32, took: Duration) {
        let millis = took.as_secs_f64() * 1000.0;
        if code == Code::Ok as i32 {
            self.success_latency[rpc as usize].get_or_init(|| rpc.latency(code)).record(millis);
            return;
        }
        let known = self.other_latency.read().get(&(rpc, code)).cloned();
        let histogram = known.unwrap_or_else(|| {
            self.other_latency.write().entry((rpc, code)).or_insert_with(|| rpc.latency(code)).clone()
        });
        histogram.record(millis);
    }

    /// A call was answered with an error of gRPC.
    pub(crate) fn rejected(&self, rpc: Rpc, code: tonic::Code) {
        let code = format!("{code:?}");
        metrics::counter!("gantry_proxy_calls_rejected_total", "request_code" => rpc.as_str(), "code" => code)
            .increment(1);
    }

    /// Meters for a topic that is sent to.
    pub(crate) fn send_meters(&self, topic_id: TopicId, topic: &str) -> Arc<SendMeters> {
        if let Some(known) = self.sends.read().get(&topic_id) {
            return known.clone();
        }
        let new = || {
            let topic = self.topics.bounded(topic);
            let labels = [("topic", topic), ("message_type", "normal".to_owned()), ("is_system", "false".to_owned())];
            Arc::new(SendMeters {
                messages: metrics::counter!("rocketmq_messages_in_total", &labels),
                bytes: metrics::counter!("rocketmq_throughput_in_total", &labels),
                sizes: metrics::histogram!("rocketmq_message_size", &labels[..2]),
            })
        };
        self.sends.write().entry(topic_id).or_insert_with(new).clone()
    }

    /// Meters for a group's deliveries of a topic.
    pub(crate) fn delivery_meters(
        &self,
        (topic_id, topic): (TopicId, &str),
        (group_id, group): (GroupId, &str),
    ) -> Arc<DeliveryMeters> {
        if let Some(known) = self.deliveries.read().get(&(topic_id, group_id)) {
            return known.clone();
        }
        let mut all = self.deliveries.write();
        let (topic, group) = if all.len() < SERIES_MAX { (topic, group) } else { (OTHER, OTHER) };
        let new = || {
            let labels = [
                ("topic", topic.to_owned()),
                ("consumer_group", group.to_owned()),
                ("is_retry", "false".to_owned()),
                ("is_system", "false".to_owned()),
            ];
            Arc::new(DeliveryMeters {
                messages: metrics::counter!("rocketmq_messages_out_total", &labels),
                bytes: metrics::counter!("rocketmq_throughput_out_total", &labels),
            })
        };
        all.entry((topic_id, group_id)).or_insert_with(new).clone()
    }

    /// Forgets the meters of topics and consumer groups that do not exist any more.
    pub(crate) fn forget_what_is_gone(&self, view: &MetadataView) {
        let exists = |topic: TopicId| view.topic_by_id(topic).is_some();
        self.topics.retain(|topic| view.topic(topic).is_some());
        self.groups.retain(|group| view.group(group).is_some());
        self.sends.write().retain(|topic, _| exists(*topic));
        self.deliveries.write().retain(|(topic, group), _| exists(*topic) && view.group_by_id(*group).is_some());
    }

    /// Producers of one kind, connected now.
    pub(crate) fn producer_connections(&self, language: &'static str, version: &str) -> Gauge {
        metrics::gauge!(
            "rocketmq_producer_connections",
            "language" => language,
            "version" => self.versions.bounded(version),
            "protocol_type" => "grpc",
        )
    }

    /// Consumers of one kind, connected now.
    pub(crate) fn consumer_connections(
        &self,
        group: &str,
        mode: &'static str,
        language: &'static str,
        version: &str,
    ) -> Gauge {
        metrics::gauge!(
            "rocketmq_consumer_connections",
            "consumer_group" => self.groups.bounded(group),
            "language" => language,
            "version" => self.versions.bounded(version),
            "consume_mode" => mode,
            "protocol_type" => "grpc",
            "is_system" => "false",
        )
    }
}

impl SendMeters {
    /// Messages are stored.
    pub(crate) fn sent(&self, sizes: impl IntoIterator<Item = usize>) {
        for size in sizes {
            self.messages.increment(1);
            self.bytes.increment(size as u64);
            self.sizes.record(size as f64);
        }
    }
}

impl DeliveryMeters {
    /// A message is handed to the transport.
    pub(crate) fn delivered(&self, bytes: usize) {
        self.messages.increment(1);
        self.bytes.increment(bytes as u64);
    }
}

impl Labels {
    /// Only those keep their place: what is gone, or never was, makes room.
    fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.known.write().retain(|label| keep(label));
    }

    /// The value itself, while there are few enough of them.
    fn bounded(&self, label: &str) -> String {
        if self.known.read().contains(label) {
            return label.to_owned();
        }
        let mut known = self.known.write();
        if known.len() >= SERIES_MAX {
            return OTHER.to_owned();
        }
        known.insert(label.into());
        label.to_owned()
    }
}

fn describe() {
    metrics::describe_counter!("rocketmq_messages_in_total", "Messages that producers sent and the store took");
    metrics::describe_counter!("rocketmq_throughput_in_total", Unit::Bytes, "Their bodies' bytes");
    metrics::describe_histogram!("rocketmq_message_size", Unit::Bytes, "Their bodies' sizes");
    metrics::describe_counter!("rocketmq_messages_out_total", "Messages handed to consumers");
    metrics::describe_counter!("rocketmq_throughput_out_total", Unit::Bytes, "Their bodies' bytes");
    metrics::describe_histogram!("rocketmq_rpc_latency", Unit::Milliseconds, "From a call's arrival to its answer");
    metrics::describe_gauge!("rocketmq_producer_connections", "Producers with a session");
    metrics::describe_gauge!("rocketmq_consumer_connections", "Consumers with a session");
    metrics::describe_gauge!("rocketmq_proxy_up", "1 while the proxy serves");
    metrics::describe_gauge!("gantry_proxy_connections", "Client connections");
    metrics::describe_counter!(
        "gantry_proxy_connections_refused_total",
        "Connections over a limit (listen.connections_max, listen.connections_per_peer_max, limits.memory), closed at once"
    );
    metrics::describe_counter!(
        "gantry_proxy_connections_late_total",
        "Connections closed because they did not get to HTTP/2 within listen.handshake_timeout"
    );
    metrics::describe_counter!(
        "gantry_proxy_connections_idle_total",
        "Connections closed because no call was open on them for listen.idle_timeout"
    );
    metrics::describe_counter!(
        "gantry_proxy_answers_unread_total",
        "Answers dropped because their client did not read on for limits.read_timeout"
    );
    metrics::describe_counter!(
        "gantry_proxy_calls_rejected_total",
        "Calls answered with an error of gRPC: too large, too slow, or not what the protocol says"
    );
    metrics::describe_gauge!("gantry_proxy_memory_bytes", Unit::Bytes, "Memory that clients make the process hold");
    metrics::describe_counter!(
        "gantry_proxy_memory_refused_total",
        "Times that clients asked for more memory than limits.memory leaves"
    );
    metrics::describe_counter!(
        "gantry_proxy_handbacks_lost_total",
        "Deliveries to vanished clients that come back only after their invisible duration"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_past_the_bound_share_one() {
        let labels = Labels::default();
        for n in 0..SERIES_MAX {
            assert_eq!(labels.bounded(&n.to_string()), n.to_string());
        }
        assert_eq!(labels.bounded("one more"), OTHER);
        assert_eq!(labels.bounded("7"), "7", "those that have series keep them");
    }
}
