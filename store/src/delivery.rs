//! Delivery: what one consumer group has received from one topic, and what it may receive next.
//!
//! [`DeliveryState`] is a pure state machine: a function of the [`DeliveryRecord`]s applied to it, without clock, I/O or
//! locks. Its caller, the store's service, locks it, asks for a plan, puts the plan's record into the log, applies the
//! record and unlocks. Recovery applies the same records.
//!
//! What must always hold:
//! - a message that was finished (acknowledged, dropped, buried) is never planned again;
//! - a message is planned only when no lease on it lives, so no two consumers hold it at once;
//! - the attempt grows exactly when a delivery that counts ended without an acknowledgement;
//! - everything below a queue's `next` that is not outstanding is finished: holes cost nothing.
//!
//! A group that is new to a topic begins at the earliest retained message.

mod plan;
mod record;
mod schedule;
mod snapshot;
mod state;

#[cfg(test)]
mod tests;

pub(crate) use plan::{PopParams, QueueReader};
pub(crate) use record::DeliveryRecord;
pub(crate) use state::{DeliveryState, Over};
