//! The client protocol's types as the model's, and back: pure functions. Nothing here waits, asks a clock or keeps state.
//! Errors become client codes in one place, `translate::status`.

mod backoff;
mod delivery;
mod endpoints;
mod message;
mod old_clients;
mod resource;
mod route;
mod settings;
mod status;
mod time;

pub use endpoints::{AdvertisedEndpoints, InvalidEndpoints};

pub(crate) use backoff::{backoff_to_wire, duration_to_wire};
pub(crate) use delivery::{DeliveryFrame, DeliveryShape};
pub(crate) use endpoints::{endpoints_of_address, scheme_of};
pub(crate) use message::{ProducedMessage, check_messages, check_type};
pub(crate) use old_clients::code_for;
pub(crate) use resource::{group_name, is_blank, resource_name, topic_name};
pub(crate) use route::{assignments, message_queues};
pub(crate) use settings::{
    ClientKind, client_kind, kind_by_heartbeat, long_polling_wish, optional_group, settings_reply,
};
pub(crate) use status::{Refusal, ok, status};
pub(crate) use time::{duration, duration_or_zero, timestamp_millis, timestamp_to_wire};
