//! The limits of each RPC's request, and what it may consist of.

use super::shape::{Field, Holds, Many, Shape};
use super::{RequestLimits, limits};
use gantry_proto::wire::v2::{self, Code};
use std::mem::size_of;

pub(crate) const SEND_MESSAGE: RequestLimits =
    RequestLimits { bytes_max: limits::GRPC_MESSAGE_BYTES_MAX, shape: Some(&SEND_MESSAGE_REQUEST) };
pub(crate) const ACK_MESSAGE: RequestLimits =
    RequestLimits { bytes_max: limits::ACK_BYTES_MAX, shape: Some(&ACK_MESSAGE_REQUEST) };
/// A client's side of its telemetry stream: each of its messages.
pub(crate) const TELEMETRY: RequestLimits =
    RequestLimits { bytes_max: limits::SETTINGS_BYTES_MAX, shape: Some(&TELEMETRY_COMMAND) };
pub(crate) const QUERY_ROUTE: RequestLimits =
    RequestLimits { bytes_max: limits::REQUEST_BYTES_MAX, shape: Some(&QUERY_ROUTE_REQUEST) };
pub(crate) const QUERY_ASSIGNMENT: RequestLimits =
    RequestLimits { bytes_max: limits::REQUEST_BYTES_MAX, shape: Some(&QUERY_ASSIGNMENT_REQUEST) };
pub(crate) const RECEIVE_MESSAGE: RequestLimits =
    RequestLimits { bytes_max: limits::REQUEST_BYTES_MAX, shape: Some(&RECEIVE_MESSAGE_REQUEST) };

/// A list grows by doubling, and for a moment both its old and its new place exist.
const fn in_a_list<T>() -> usize {
    3 * size_of::<T>()
}
/// A small text of its own in memory.
const TEXT: usize = size_of::<String>() + 16;
/// An entry of a map of texts, which is at most three quarters full and grows by doubling.
const PAIR: usize = 4 * 2 * TEXT;

const fn many(number: u32, place: usize, (name, max, code): (&'static str, usize, Code), weight: usize) -> Field {
    Field { number, holds: Holds::Many(Many { name, max, code, place, weight, each: None }) }
}

const fn many_of(
    number: u32,
    place: usize,
    (name, max, code): (&'static str, usize, Code),
    weight: usize,
    each: &'static Shape,
) -> Field {
    Field { number, holds: Holds::Many(Many { name, max, code, place, weight, each: Some(each) }) }
}

const fn one(number: u32, shape: &'static Shape) -> Field {
    Field { number, holds: Holds::One(shape) }
}

static RESOURCE: Shape = Shape(&[Field {
    number: 1,
    holds: Holds::Text { name: "namespace of a resource", bytes_max: limits::NAMESPACE_BYTES_MAX },
}]);
static ENDPOINTS: Shape = Shape(&[many_of(
    2,
    0,
    ("addresses in the endpoints", limits::ENDPOINT_ADDRESSES_MAX, Code::IllegalAccessPoint),
    in_a_list::<v2::Address>(),
    &ADDRESS,
)]);
static ADDRESS: Shape =
    Shape(&[Field { number: 1, holds: Holds::Text { name: "host of an address", bytes_max: limits::HOST_BYTES_MAX } }]);

static SEND_MESSAGE_REQUEST: Shape = Shape(&[many_of(
    1,
    0,
    ("messages in the request", limits::SEND_BATCH_MAX, Code::PayloadTooLarge),
    in_a_list::<v2::Message>(),
    &MESSAGE,
)]);
static MESSAGE: Shape = Shape(&[
    many(2, 0, ("properties of a message", limits::USER_PROPERTIES_MAX, Code::MessagePropertiesTooLarge), PAIR),
    one(3, &SYSTEM_PROPERTIES),
]);
static SYSTEM_PROPERTIES: Shape =
    Shape(&[many(2, 1, ("keys of a message", limits::MESSAGE_KEYS_MAX, Code::MessagePropertiesTooLarge), 3 * TEXT)]);

static ACK_MESSAGE_REQUEST: Shape = Shape(&[
    // The answer repeats each of them, with a status.
    many(
        3,
        0,
        ("entries in the acknowledgement", limits::ACK_ENTRIES_MAX, Code::PayloadTooLarge),
        in_a_list::<v2::AckMessageEntry>() + in_a_list::<v2::AckMessageResultEntry>(),
    ),
]);

static QUERY_ROUTE_REQUEST: Shape = Shape(&[one(1, &RESOURCE), one(2, &ENDPOINTS)]);
static QUERY_ASSIGNMENT_REQUEST: Shape = Shape(&[one(1, &RESOURCE), one(3, &ENDPOINTS)]);
static RECEIVE_MESSAGE_REQUEST: Shape = Shape(&[one(2, &MESSAGE_QUEUE)]);
static MESSAGE_QUEUE: Shape = Shape(&[one(1, &RESOURCE), one(4, &BROKER)]);
static BROKER: Shape = Shape(&[one(3, &ENDPOINTS)]);

static TELEMETRY_COMMAND: Shape = Shape(&[one(2, &SETTINGS)]);
static SETTINGS: Shape = Shape(&[
    one(2, &ENDPOINTS),
    one(3, &RETRY_POLICY),
    one(5, &PUBLISHING),
    one(6, &SUBSCRIPTION),
    many(9, 1, ("properties of the client", limits::USER_PROPERTIES_MAX, Code::IllegalMessagePropertyKey), PAIR),
]);
static RETRY_POLICY: Shape = Shape(&[one(3, &CUSTOMIZED_BACKOFF)]);
static CUSTOMIZED_BACKOFF: Shape = Shape(&[many(
    1,
    2,
    ("durations of the retry policy", limits::BACKOFF_LEVELS_MAX, Code::BadRequest),
    in_a_list::<prost_types::Duration>(),
)]);
static PUBLISHING: Shape = Shape(&[many(
    1,
    3,
    ("topics in the settings", limits::SETTINGS_TOPICS_MAX, Code::PayloadTooLarge),
    in_a_list::<v2::Resource>(),
)]);
static SUBSCRIPTION: Shape = Shape(&[many(
    2,
    3,
    ("subscriptions in the settings", limits::SETTINGS_TOPICS_MAX, Code::PayloadTooLarge),
    in_a_list::<v2::SubscriptionEntry>(),
)]);

#[cfg(test)]
mod tests {
    use super::super::shape::Unfit;
    use super::*;
    use prost::Message as _;

    fn refusal(limits: RequestLimits, message: &[u8]) -> Option<(Code, String)> {
        match limits.shape.unwrap().weigh(message) {
            Ok(_) => None,
            Err(Unfit::TooMuch(refusal)) => Some((refusal.code, refusal.message.into_owned())),
            Err(Unfit::Malformed(error)) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn holds(limits: RequestLimits, fits: &impl prost::Message, too_much: &impl prost::Message, code: Code) {
        assert_eq!(refusal(limits, &fits.encode_to_vec()), None);
        assert_eq!(refusal(limits, &too_much.encode_to_vec()).map(|(code, _)| code), Some(code));
    }

    fn properties(count: usize) -> std::collections::HashMap<String, String> {
        (0..count).map(|n| (n.to_string(), String::new())).collect()
    }

    fn endpoints(count: usize) -> Option<v2::Endpoints> {
        Some(v2::Endpoints { scheme: 0, addresses: vec![v2::Address::default(); count] })
    }

    #[test]
    fn a_send_has_so_many_messages_properties_and_keys() {
        let send = |messages| v2::SendMessageRequest { messages };
        let empty = |count| send(vec![v2::Message::default(); count]);
        holds(SEND_MESSAGE, &empty(limits::SEND_BATCH_MAX), &empty(limits::SEND_BATCH_MAX + 1), Code::PayloadTooLarge);
        let with = |count| {
            let message = v2::Message { user_properties: properties(count), ..v2::Message::default() };
            send(vec![message; 2])
        };
        let (most, code) = (limits::USER_PROPERTIES_MAX, Code::MessagePropertiesTooLarge);
        holds(SEND_MESSAGE, &with(most), &with(most + 1), code);
        let keyed = |count| {
            let system = v2::SystemProperties { keys: vec![String::new(); count], ..Default::default() };
            send(vec![v2::Message { system_properties: Some(system), ..v2::Message::default() }; 2])
        };
        holds(SEND_MESSAGE, &keyed(limits::MESSAGE_KEYS_MAX), &keyed(limits::MESSAGE_KEYS_MAX + 1), code);
    }

    #[test]
    fn a_field_that_comes_again_is_counted_with_the_first() {
        let keys = v2::SystemProperties { keys: vec![String::new(); limits::MESSAGE_KEYS_MAX], ..Default::default() };
        let message = v2::Message { system_properties: Some(keys), ..v2::Message::default() }.encode_to_vec();
        let request = |message: &[u8]| {
            let mut request = Vec::new();
            prost::encoding::bytes::encode(1, &message.to_vec(), &mut request);
            request
        };
        assert_eq!(refusal(SEND_MESSAGE, &request(&message)), None);
        let twice = [message.clone(), message].concat();
        assert_eq!(refusal(SEND_MESSAGE, &request(&twice)).unwrap().0, Code::MessagePropertiesTooLarge);
    }

    #[test]
    fn an_acknowledgement_has_so_many_entries() {
        let ack = |count| v2::AckMessageRequest { entries: vec![Default::default(); count], ..Default::default() };
        let most = limits::ACK_ENTRIES_MAX;
        holds(ACK_MESSAGE, &ack(most), &ack(most + 1), Code::PayloadTooLarge);
    }

    #[test]
    fn endpoints_have_so_many_addresses_wherever_they_are() {
        let (most, code) = (limits::ENDPOINT_ADDRESSES_MAX, Code::IllegalAccessPoint);
        let route = |count| v2::QueryRouteRequest { endpoints: endpoints(count), ..Default::default() };
        holds(QUERY_ROUTE, &route(most), &route(most + 1), code);
        let assignment = |count| v2::QueryAssignmentRequest { endpoints: endpoints(count), ..Default::default() };
        holds(QUERY_ASSIGNMENT, &assignment(most), &assignment(most + 1), code);
        let receive = |count| {
            let broker = v2::Broker { endpoints: endpoints(count), ..Default::default() };
            let queue = v2::MessageQueue { broker: Some(broker), ..Default::default() };
            v2::ReceiveMessageRequest { message_queue: Some(queue), ..Default::default() }
        };
        holds(RECEIVE_MESSAGE, &receive(most), &receive(most + 1), code);
        let settings = |count| command(v2::Settings { access_point: endpoints(count), ..Default::default() });
        holds(TELEMETRY, &settings(most), &settings(most + 1), code);
    }

    fn command(settings: v2::Settings) -> v2::TelemetryCommand {
        let command = Some(v2::telemetry_command::Command::Settings(settings));
        v2::TelemetryCommand { status: None, command }
    }

    #[test]
    fn settings_have_so_many_topics_properties_and_durations() {
        use v2::{retry_policy::Strategy, settings::PubSub};
        let (most, code) = (limits::SETTINGS_TOPICS_MAX, Code::PayloadTooLarge);
        let publishing = |count| {
            let publishing = v2::Publishing { topics: vec![Default::default(); count], ..Default::default() };
            command(v2::Settings { pub_sub: Some(PubSub::Publishing(publishing)), ..Default::default() })
        };
        holds(TELEMETRY, &publishing(most), &publishing(most + 1), code);
        let subscription = |count| {
            let entries = vec![v2::SubscriptionEntry::default(); count];
            let subscription = v2::Subscription { subscriptions: entries, ..Default::default() };
            command(v2::Settings { pub_sub: Some(PubSub::Subscription(subscription)), ..Default::default() })
        };
        holds(TELEMETRY, &subscription(most), &subscription(most + 1), code);
        let backoff = |count| {
            let strategy = Strategy::CustomizedBackoff(v2::CustomizedBackoff { next: vec![Default::default(); count] });
            let policy = v2::RetryPolicy { max_attempts: 1, strategy: Some(strategy) };
            command(v2::Settings { backoff_policy: Some(policy), ..Default::default() })
        };
        holds(
            TELEMETRY,
            &backoff(limits::BACKOFF_LEVELS_MAX),
            &backoff(limits::BACKOFF_LEVELS_MAX + 1),
            Code::BadRequest,
        );
        let properties = |count| command(v2::Settings { client_properties: properties(count), ..Default::default() });
        let most = limits::USER_PROPERTIES_MAX;
        holds(TELEMETRY, &properties(most), &properties(most + 1), Code::IllegalMessagePropertyKey);
    }

    #[test]
    fn names_that_answers_repeat_have_a_length() {
        let route = |namespace: usize, host: usize| {
            let topic = v2::Resource { resource_namespace: "n".repeat(namespace), name: "t".to_owned() };
            let addresses = vec![v2::Address { host: "h".repeat(host), port: 1 }];
            v2::QueryRouteRequest { topic: Some(topic), endpoints: Some(v2::Endpoints { scheme: 0, addresses }) }
        };
        let (namespace, host) = (limits::NAMESPACE_BYTES_MAX, limits::HOST_BYTES_MAX);
        holds(QUERY_ROUTE, &route(namespace, host), &route(namespace + 1, 1), Code::BadRequest);
        holds(QUERY_ROUTE, &route(0, host), &route(0, host + 1), Code::BadRequest);
    }

    #[test]
    fn what_is_weighed_is_what_decoding_takes() {
        let count = limits::SEND_BATCH_MAX;
        let request = v2::SendMessageRequest { messages: vec![v2::Message::default(); count] }.encode_to_vec();
        let weight = SEND_MESSAGE_REQUEST.weigh(&request).unwrap();
        let decoded = v2::SendMessageRequest::decode(&request[..]).unwrap();
        assert!(weight >= decoded.messages.capacity() * size_of::<v2::Message>(), "{weight}");
    }

    #[test]
    fn unknown_fields_are_skipped_and_broken_bytes_are_left_to_the_decoder() {
        let mut newer = v2::SendMessageRequest { messages: vec![v2::Message::default()] }.encode_to_vec();
        prost::encoding::string::encode(77, &"new".to_owned(), &mut newer);
        prost::encoding::uint64::encode(78, &9, &mut newer);
        assert_eq!(refusal(SEND_MESSAGE, &newer), None);
        for broken in [&[0x0a, 0x05, 0x00][..], &[0x0a, 0xff], &[0x07]] {
            let unfit = SEND_MESSAGE_REQUEST.weigh(broken);
            assert!(!matches!(unfit, Err(Unfit::TooMuch(_))), "{unfit:?}");
            assert!(v2::SendMessageRequest::decode(broken).is_err());
        }
    }
}
