//! Who a client is: what the headers of every call and its settings say of it, as the official clients do.

use super::{resource, to_wire};
use gantry_proto::env::Clock;
use gantry_proto::wire::v2::settings::PubSub;
use gantry_proto::wire::v2::{self, ClientType};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tonic::Request;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataValue};

/// The program that a client is part of.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    pub language: v2::Language,
    /// The generation of the client protocol. Servers compare it, so it is nobody's own version.
    pub version: &'static str,
    pub name: &'static str,
}

pub struct Identity {
    id: String,
    client_type: ClientType,
    namespace: String,
    group: Option<v2::Resource>,
    agent: Agent,
    clock: Arc<dyn Clock>,
    id_header: MetadataValue<Ascii>,
    namespace_header: MetadataValue<Ascii>,
    request_prefix: u64,
    requests: AtomicU64,
}

impl Identity {
    /// `id` and `namespace` must be printable ASCII. The clock dates the calls.
    pub fn new(
        agent: Agent,
        client_type: ClientType,
        id: &str,
        namespace: &str,
        group: Option<&str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Identity, InvalidMetadataValue> {
        Ok(Identity {
            id: id.to_owned(),
            client_type,
            namespace: namespace.to_owned(),
            group: group.map(|group| resource(namespace, group)),
            agent,
            clock,
            id_header: id.parse()?,
            namespace_header: namespace.parse()?,
            request_prefix: gantry_proto::model::fnv1a(id.bytes()),
            requests: AtomicU64::new(0),
        })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn client_type(&self) -> ClientType {
        self.client_type
    }

    /// The consumer group.
    pub fn group(&self) -> Option<v2::Resource> {
        self.group.clone()
    }

    /// A name in the client's namespace.
    pub fn resource(&self, name: &str) -> v2::Resource {
        resource(&self.namespace, name)
    }

    /// A request with the headers that official clients send.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("x-mq-language", MetadataValue::from_static(self.agent.language.as_str_name()));
        metadata.insert("x-mq-protocol", MetadataValue::from_static("v2"));
        metadata.insert("x-mq-client-version", MetadataValue::from_static(self.agent.version));
        metadata.insert("x-mq-client-id", self.id_header.clone());
        metadata.insert("x-mq-namespace", self.namespace_header.clone());
        // Both texts are ASCII, so these are always there.
        if let Ok(date) = date_time(Duration::from_millis(self.clock.now().as_millis())).parse() {
            metadata.insert("x-mq-date-time", date);
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if let Ok(id) = request_id(self.request_prefix, number).parse() {
            metadata.insert("x-mq-request-id", id);
        }
        request
    }

    /// What the client tells of itself: a producer of these topics, or a consumer with these filters.
    pub fn settings<'a>(
        &self,
        topics: impl IntoIterator<Item = (&'a str, v2::FilterExpression)>,
        access_point: Option<v2::Endpoints>,
        timeout: Duration,
    ) -> v2::Settings {
        let topics = topics.into_iter().map(|(topic, filter)| (self.resource(topic), filter));
        let pub_sub = match self.client_type {
            ClientType::Producer => PubSub::Publishing(v2::Publishing {
                topics: topics.map(|(topic, _)| topic).collect(),
                max_body_size: 0,
                validate_message_type: true,
            }),
            _ => PubSub::Subscription(v2::Subscription {
                group: self.group(),
                subscriptions: topics
                    .map(|(topic, filter)| v2::SubscriptionEntry { topic: Some(topic), expression: Some(filter) })
                    .collect(),
                ..Default::default()
            }),
        };
        v2::Settings {
            client_type: Some(self.client_type.into()),
            access_point,
            request_timeout: Some(to_wire(timeout)),
            pub_sub: Some(pub_sub),
            user_agent: Some(v2::Ua {
                language: self.agent.language.into(),
                version: self.agent.version.to_owned(),
                platform: std::env::consts::OS.to_owned(),
                hostname: self.agent.name.to_owned(),
            }),
            ..Default::default()
        }
    }
}

/// `yyyyMMddTHHmmssZ`.
fn date_time(since_epoch: Duration) -> String {
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch).to_string();
    text.chars().filter(|character| !matches!(character, '-' | ':')).collect()
}

/// The form of a version 4 UUID, unique by counting.
fn request_id(prefix: u64, request: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        prefix >> 32,
        (prefix >> 16) & 0xffff,
        (prefix >> 4) & 0xfff,
        (request >> 48) & 0xfff,
        request & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::env::fake;

    #[test]
    fn date_and_request_id_have_the_form_that_clients_send() {
        assert_eq!(date_time(Duration::from_millis(1_755_777_296_999)), "20250821T115456Z");
        assert_eq!(request_id(0x0123_4567_89ab_cdef, 0x1f), "01234567-89ab-4cde-8000-00000000001f");
    }

    #[test]
    fn every_call_names_its_client_and_itself() {
        let agent = Agent { language: v2::Language::Rust, version: "5.2.0", name: "test" };
        let (env, _, _) = fake::env(1);
        let identity = Identity::new(agent, ClientType::Producer, "host@1@0@x", "", None, env.clock).unwrap();
        let (first, second) = (identity.request(()), identity.request(()));
        assert_eq!(first.metadata().get("x-mq-client-id").unwrap(), "host@1@0@x");
        assert_eq!(first.metadata().get("x-mq-language").unwrap(), "RUST");
        assert!(first.metadata().get("x-mq-date-time").is_some());
        assert_ne!(first.metadata().get("x-mq-request-id"), second.metadata().get("x-mq-request-id"));
        assert_eq!(first.metadata().len(), 7);
    }
}
