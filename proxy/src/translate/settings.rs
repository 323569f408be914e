//! Client settings: how they are checked, and which settings the server answers. Clients do not start before that answer,
//! and several break if one of its fields is missing: see the comments.

use super::{Refusal, backoff_to_wire, duration_to_wire, group_name, is_blank, topic_name};
use gantry_proto::model::{BackoffPolicy, ConsumerGroup, FilterExpression, GroupName, limits};
use gantry_proto::wire::v2::settings::PubSub;
use gantry_proto::wire::v2::{self, ClientType, Code, FilterType, HeartbeatRequest, Metric, Settings};
use std::time::Duration;

/// What a client is, by its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Producer,
    Consumer { group: GroupName, mode: ConsumeMode },
}

/// How a consumer receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumeMode {
    /// The client library polls and calls the application; leases are renewed for it.
    Push,
    /// The application polls.
    Simple,
}

impl ClientKind {
    /// True for clients whose leases are renewed for them, while they live.
    pub(crate) fn holds_renewed_leases(&self) -> bool {
        matches!(self, ClientKind::Consumer { mode: ConsumeMode::Push, .. })
    }
}

impl ConsumeMode {
    /// The metrics' label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ConsumeMode::Push => "push",
            ConsumeMode::Simple => "simple",
        }
    }
}

/// Checks settings and says what kind of client has them.
pub(crate) fn client_kind(settings: &Settings) -> Result<ClientKind, Refusal> {
    check_client_properties(settings)?;
    match &settings.pub_sub {
        None => Err(Refusal::new(Code::BadRequest, "the settings have neither publishing nor subscription")),
        Some(PubSub::Publishing(publishing)) => {
            for topic in &publishing.topics {
                topic_name(Some(topic))?;
            }
            Ok(ClientKind::Producer)
        }
        Some(PubSub::Subscription(subscription)) => {
            let mode = match settings.client_type() {
                ClientType::PushConsumer => ConsumeMode::Push,
                ClientType::SimpleConsumer => ConsumeMode::Simple,
                ClientType::PullConsumer => return Err(Refusal::not_implemented("pull consumers")),
                ClientType::LitePushConsumer | ClientType::LiteSimpleConsumer => {
                    return Err(Refusal::not_implemented("lite consumers"));
                }
                ClientType::Producer | ClientType::Unspecified => {
                    return Err(Refusal::new(Code::BadRequest, "a subscription needs a consumer's client type"));
                }
            };
            let group = group_name(subscription.group.as_ref())?;
            for entry in &subscription.subscriptions {
                topic_name(entry.topic.as_ref())?;
                if let Some(expression) = &entry.expression {
                    check_filter(expression)?;
                }
            }
            Ok(ClientKind::Consumer { group, mode })
        }
    }
}

/// What a client is, by its heartbeat. One that does not say it is taken for whatever its group allows: renewing leases that it
/// does not hold costs nothing.
pub(crate) fn kind_by_heartbeat(heartbeat: &HeartbeatRequest) -> Result<ClientKind, Refusal> {
    let mode = match heartbeat.client_type() {
        ClientType::Producer => return Ok(ClientKind::Producer),
        ClientType::SimpleConsumer | ClientType::PullConsumer | ClientType::LiteSimpleConsumer => ConsumeMode::Simple,
        ClientType::PushConsumer | ClientType::LitePushConsumer | ClientType::Unspecified => ConsumeMode::Push,
    };
    let group = optional_group(heartbeat.group.as_ref())?;
    Ok(group.map_or(ClientKind::Producer, |group| ClientKind::Consumer { group, mode }))
}

/// The client's settings with the server's values in place. `group` is the consumer's, if it exists.
pub(crate) fn settings_reply(
    settings: &Settings,
    group: Option<&ConsumerGroup>,
    long_polling_max: Duration,
) -> Settings {
    let mut reply = settings.clone();
    match &mut reply.pub_sub {
        Some(PubSub::Publishing(publishing)) => {
            // Zero would refuse every message in the client.
            publishing.max_body_size = limits::BODY_BYTES_MAX as i32;
            publishing.validate_message_type = true;
            // Java, Node and C# producers break on anything but an exponential backoff with all its parts.
            reply.backoff_policy = Some(backoff_to_wire(
                &BackoffPolicy::Exponential {
                    initial: Duration::from_millis(10),
                    max: Duration::from_secs(1),
                    multiplier: 2.0,
                },
                3,
            ));
        }
        Some(PubSub::Subscription(subscription)) => {
            subscription.fifo = Some(group.is_some_and(|group| group.fifo));
            subscription.receive_batch_size = Some(limits::RECEIVE_BATCH_MAX as i32);
            subscription.long_polling_timeout = Some(duration_to_wire(long_polling_max));
            reply.backoff_policy = Some(match group {
                Some(group) => backoff_to_wire(&group.backoff, group.max_attempts),
                None => backoff_to_wire(&BackoffPolicy::default(), limits::MAX_ATTEMPTS_DEFAULT),
            });
        }
        None => {}
    }
    reply.metric = Some(Metric { on: false, endpoints: None });
    reply
}

/// What a receive would be refused for is refused here: the client fails to start and says why, instead of starting and
/// receiving nothing.
fn check_filter(expression: &v2::FilterExpression) -> Result<(), Refusal> {
    match expression.r#type() {
        FilterType::Sql if expression.expression.trim().is_empty() => {
            Err(Refusal::new(Code::IllegalFilterExpression, "the SQL expression is empty"))
        }
        FilterType::Sql => Err(Refusal::not_implemented("SQL filters")),
        FilterType::Tag | FilterType::Unspecified => {
            FilterExpression::parse_tag(&expression.expression).map(|_| ()).map_err(Refusal::from)
        }
    }
}

fn check_client_properties(settings: &Settings) -> Result<(), Refusal> {
    let properties = &settings.client_properties;
    let well_formed = |key: &str| {
        key.len() <= 64
            && key.starts_with(|c: char| c.is_ascii_alphabetic())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
            && !key.starts_with("rocketmq.")
    };
    let bytes: usize = properties.iter().map(|(key, value)| key.len() + value.len()).sum();
    let fine = properties.len() <= 32
        && bytes <= 4 << 10
        && properties.iter().all(|(key, value)| well_formed(key) && value.len() <= 256);
    if fine {
        Ok(())
    } else {
        Err(Refusal::new(Code::InvalidClientProperties, "the client properties are too many, too long or misnamed"))
    }
}

/// The long-polling timeout in a consumer's settings.
pub(crate) fn long_polling_wish(settings: &Settings) -> Option<&prost_types::Duration> {
    match &settings.pub_sub {
        Some(PubSub::Subscription(subscription)) => subscription.long_polling_timeout.as_ref(),
        Some(PubSub::Publishing(_)) | None => None,
    }
}

/// The consumer group in a heartbeat or a termination, checked. Clients without a group may send an empty one.
pub(crate) fn optional_group(group: Option<&v2::Resource>) -> Result<Option<GroupName>, Refusal> {
    if is_blank(group) { Ok(None) } else { group_name(group).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::wire::v2::{Publishing, Resource, Subscription, SubscriptionEntry, retry_policy::Strategy};

    fn resource(name: &str) -> Resource {
        Resource { resource_namespace: "ns".to_owned(), name: name.to_owned() }
    }

    fn producer(topics: &[&str]) -> Settings {
        let topics = topics.iter().map(|name| resource(name)).collect();
        Settings {
            client_type: Some(ClientType::Producer as i32),
            pub_sub: Some(PubSub::Publishing(Publishing { topics, ..Publishing::default() })),
            ..Settings::default()
        }
    }

    fn consumer(client_type: ClientType, group: &str, expression: v2::FilterExpression) -> Settings {
        let entry = SubscriptionEntry { topic: Some(resource("orders")), expression: Some(expression) };
        let subscription = Subscription {
            group: Some(resource(group)),
            subscriptions: vec![entry],
            long_polling_timeout: Some(duration_to_wire(Duration::from_secs(40))),
            ..Subscription::default()
        };
        Settings {
            client_type: Some(client_type as i32),
            pub_sub: Some(PubSub::Subscription(subscription)),
            ..Settings::default()
        }
    }

    fn tag(expression: &str) -> v2::FilterExpression {
        v2::FilterExpression { r#type: FilterType::Tag as i32, expression: expression.to_owned() }
    }

    #[test]
    fn settings_that_nobody_could_serve_are_refused_with_the_right_code() {
        let sql = |text: &str| v2::FilterExpression { r#type: FilterType::Sql as i32, expression: text.to_owned() };
        let mut odd_properties = producer(&["orders"]);
        odd_properties.client_properties.insert("rocketmq.x".to_owned(), String::new());
        let cases = [
            (Settings::default(), Code::BadRequest),
            (producer(&["bad.name"]), Code::IllegalTopic),
            (odd_properties, Code::InvalidClientProperties),
            (consumer(ClientType::PushConsumer, "", tag("*")), Code::IllegalConsumerGroup),
            (consumer(ClientType::PushConsumer, "g", tag("||")), Code::IllegalFilterExpression),
            (consumer(ClientType::SimpleConsumer, "g", sql(" ")), Code::IllegalFilterExpression),
            (consumer(ClientType::PushConsumer, "g", sql("a > 1")), Code::NotImplemented),
            (consumer(ClientType::PullConsumer, "g", tag("*")), Code::NotImplemented),
            (consumer(ClientType::LitePushConsumer, "g", tag("*")), Code::NotImplemented),
            (consumer(ClientType::Unspecified, "g", tag("*")), Code::BadRequest),
        ];
        for (settings, code) in cases {
            assert_eq!(client_kind(&settings).map_err(|refusal| refusal.code), Err(code), "{settings:?}");
        }
        assert_eq!(client_kind(&producer(&[])).unwrap(), ClientKind::Producer);
        let push = client_kind(&consumer(ClientType::PushConsumer, "g", tag("a || b"))).unwrap();
        assert_eq!(push, ClientKind::Consumer { group: GroupName::parse("g").unwrap(), mode: ConsumeMode::Push });
    }

    #[test]
    fn a_heartbeat_tells_what_a_client_is() {
        let told = |client_type: ClientType, group: Option<&str>| {
            let heartbeat = HeartbeatRequest { client_type: client_type as i32, group: group.map(resource) };
            kind_by_heartbeat(&heartbeat).map_err(|refusal| refusal.code)
        };
        let consumer = |mode| ClientKind::Consumer { group: GroupName::parse("g").unwrap(), mode };
        for (client_type, group, expected) in [
            (ClientType::PushConsumer, Some("g"), Ok(consumer(ConsumeMode::Push))),
            (ClientType::SimpleConsumer, Some("g"), Ok(consumer(ConsumeMode::Simple))),
            (ClientType::Unspecified, Some("g"), Ok(consumer(ConsumeMode::Push))),
            (ClientType::Unspecified, None, Ok(ClientKind::Producer)),
            (ClientType::Producer, Some(""), Ok(ClientKind::Producer)),
            (ClientType::PushConsumer, Some(""), Ok(ClientKind::Producer)),
            (ClientType::PushConsumer, Some("a b"), Err(Code::IllegalConsumerGroup)),
        ] {
            assert_eq!(told(client_type, group), expected, "{client_type:?} {group:?}");
        }
    }

    #[test]
    fn a_producer_gets_an_exponential_backoff_and_a_body_size() {
        let settings = producer(&["orders"]);
        let reply = settings_reply(&settings, None, limits::LONG_POLLING_MAX);
        let Some(PubSub::Publishing(publishing)) = reply.pub_sub else { panic!("{reply:?}") };
        assert_eq!(publishing.topics, [resource("orders")], "echoed with its namespace");
        assert_eq!(publishing.max_body_size, 4 << 20);
        assert!(publishing.validate_message_type);
        let policy = reply.backoff_policy.unwrap();
        assert_eq!(policy.max_attempts, 3);
        let Some(Strategy::ExponentialBackoff(backoff)) = policy.strategy else { panic!("{policy:?}") };
        assert_eq!(backoff.initial, Some(duration_to_wire(Duration::from_millis(10))));
        assert_eq!(backoff.max, Some(duration_to_wire(Duration::from_secs(1))));
        assert_eq!(backoff.multiplier, 2.0);
        assert_eq!(reply.metric, Some(Metric { on: false, endpoints: None }));
    }

    #[test]
    fn a_consumer_without_a_group_gets_the_defaults() {
        let settings = consumer(ClientType::PushConsumer, "g", tag("a"));
        let reply = settings_reply(&settings, None, limits::LONG_POLLING_MAX);
        let Some(PubSub::Subscription(subscription)) = reply.pub_sub else { panic!("{reply:?}") };
        assert_eq!(subscription.fifo, Some(false));
        assert_eq!(subscription.receive_batch_size, Some(32));
        assert_eq!(subscription.long_polling_timeout, Some(duration_to_wire(Duration::from_secs(20))));
        assert_eq!(subscription.subscriptions.len(), 1);
        let policy = reply.backoff_policy.unwrap();
        assert_eq!(policy.max_attempts, 17);
        assert!(matches!(policy.strategy, Some(Strategy::CustomizedBackoff(backoff)) if backoff.next.len() == 18));
    }
}
