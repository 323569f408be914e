//! Every limit in one place, with the relations among them. Sources: behaviour of the reference server, which the
//! official clients were built against; where we are more generous or stricter the constant says why.

use std::time::Duration;

/// Characters in a topic name.
pub const TOPIC_NAME_LEN_MAX: usize = 127;
/// Characters in a consumer group name.
pub const GROUP_NAME_LEN_MAX: usize = 120;
/// Characters in the name of a topic that the server derives from a group's (`%DLQ%group`).
pub const DERIVED_TOPIC_NAME_LEN_MAX: usize = 255;
/// Queues of one topic.
pub const QUEUE_COUNT_MAX: u32 = 4096;
/// Bytes of a message's body as transmitted.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Number of user properties of a message.
pub const USER_PROPERTIES_MAX: usize = 128;
/// Bytes of all property keys and values, tag and keys of a message.
pub const USER_PROPERTY_BYTES_MAX: usize = 16 << 10;
/// Bytes of a message group: strictly fewer than 64.
pub const MESSAGE_GROUP_BYTES_MAX: usize = 63;
/// Bytes of a message id. The reference has no limit; ids are hashed, indexed and echoed.
pub const MESSAGE_ID_BYTES_MAX: usize = 255;
/// Messages in one receive.
pub const RECEIVE_BATCH_MAX: u32 = 32;
/// Bytes of messages in one receive, more or less: a message that is larger goes all the same.
pub const RECEIVE_BYTES_MAX: u64 = 16 << 20;
/// Deliveries of a message before it goes to the dead-letter topic, when a group does not say otherwise.
pub const MAX_ATTEMPTS_DEFAULT: u32 = 17;
/// The most that a group may ask for.
pub const MAX_ATTEMPTS_MAX: u32 = 10_000;
/// Durations of a retry policy that lists them.
pub const BACKOFF_LEVELS_MAX: usize = 64;
/// Factor from one retry to the next.
pub const BACKOFF_MULTIPLIER_MAX: f64 = 1000.0;
/// Shortest invisible duration of a receive without automatic renewal.
pub const INVISIBLE_DURATION_MIN: Duration = Duration::from_secs(10);
/// Longest invisible duration.
pub const INVISIBLE_DURATION_MAX: Duration = Duration::from_secs(12 * 3600);
/// The lease that automatic renewal extends again and again.
pub const AUTO_RENEW_LEASE: Duration = Duration::from_secs(60);
/// Automatic renewal of one delivery ends after this: a consumer that hangs must not hide a message for ever.
pub const AUTO_RENEW_MAX: Duration = Duration::from_secs(3 * 3600);
/// How soon messages of a client that is gone become visible again.
pub const ABANDONED_VISIBLE_AFTER: Duration = Duration::from_secs(1);
/// Default and longest waiting time of a receive.
pub const LONG_POLLING_MAX: Duration = Duration::from_secs(20);
/// Largest gRPC message accepted: a batch of bodies with their properties.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 32 * BODY_BYTES_MAX + (2 << 20);
/// Messages in one send. Clients send one, or a transaction's few.
pub const SEND_BATCH_MAX: usize = 1024;
/// Keys of a message.
pub const MESSAGE_KEYS_MAX: usize = 128;
/// Bytes of a request that says a few names and numbers.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes of an acknowledgement.
pub const ACK_BYTES_MAX: usize = 1 << 20;
/// Entries of an acknowledgement. Clients acknowledge one message, or what one receive brought.
pub const ACK_ENTRIES_MAX: usize = 1024;
/// Bytes of a client's settings, and of whatever else it says on its telemetry stream.
pub const SETTINGS_BYTES_MAX: usize = 1 << 20;
/// Topics that a client publishes to, or subscriptions that it has, in its settings.
pub const SETTINGS_TOPICS_MAX: usize = 2048;
/// Tags in an expression, and its bytes.
pub const TAGS_MAX: usize = 64;
pub const FILTER_BYTES_MAX: usize = 4 << 10;
/// Bytes of a client's id.
pub const CLIENT_ID_BYTES_MAX: usize = 255;
/// Bytes of the namespace of a resource, which is repeated for each queue of a route.
pub const NAMESPACE_BYTES_MAX: usize = 255;
/// Addresses in a client's endpoints, which are repeated for each queue of a route.
pub const ENDPOINT_ADDRESSES_MAX: usize = 8;
/// Bytes of the host in such an address: the longest name that DNS has.
pub const HOST_BYTES_MAX: usize = 255;
/// Bytes of everything about a stored message except its body.
pub const HEAD_BYTES_MAX: usize = 128 << 10;

const _: () = assert!(USER_PROPERTY_BYTES_MAX < HEAD_BYTES_MAX, "properties must fit into a message's head");
const _: () = assert!(
    RECEIVE_BYTES_MAX / 2 >= (BODY_BYTES_MAX + HEAD_BYTES_MAX) as u64,
    "half of a receive has room for any message"
);
const _: () = assert!(GROUP_NAME_LEN_MAX + "%DLQ%".len() <= DERIVED_TOPIC_NAME_LEN_MAX, "a group's topics need names");
const _: () = assert!(AUTO_RENEW_LEASE.as_secs() >= 3 * 10, "a lease must outlive two lost heartbeats of 10 s");
