//! Delivery: what one consumer group has received from one topic, and what it may receive next.

mod record;
mod state;

pub(crate) use record::DeliveryRecord;
pub(crate) use state::{DeliveryState, Held, Over, PopParams, QueueReader};
