//! Delivery: what one consumer group has received of one topic, and what it may receive next.
//!
//! Owns the pure state of one (group, topic) pair, [`DeliveryState`]: no I/O, no clock, no lock, no randomness. The store's
//! calls hold the lock around it, ask one of its plans or [`DeliveryState::check`] what to do, put the resulting
//! [`DeliveryRecord`] into the log and then [`DeliveryState::apply`] it. Recovery only applies.
//!
//! # The model
//! Per queue there are `next`, the outstanding messages and the damaged ones. Messages from `next` on were never delivered.
//! One before it is outstanding, or damaged, or finished: acknowledged, skipped, moved to the dead letters, or removed
//! by retention. So an acknowledgement above a hole costs nothing, and holes are as cheap as no holes.
//!
//! A message that cannot be read back is *set aside*: it is not delivered any more and holds nothing up, but it does not
//! count as consumed. It stays until retention removes it.
//!
//! Messages are not read while a receive is planned, so that nobody waits for a disk under the lock. What reading them
//! brings to light is a record of its own: [`DeliveryRecord::SetAside`], [`DeliveryRecord::Dropped`].
//!
//! # What must always hold
//! `any_history_keeps_the_promises` shows all of it, against a model that keeps one plain entry for each message.
//! - The state is a function of the records applied. A plan changes nothing but derived data, which is never saved.
//! - Outstanding messages lie before their queue's `next`; nothing finished becomes outstanding again.
//! - A delivery is named by the log offset of its record, its lease. A message has one lease at a time, and a newer one
//!   only after the older one ended.
//! - `attempt` grows exactly when a delivery that counts ended without an acknowledgement.
//! - Nothing depends on the order of a hash map: equal states make equal plans (also `the_same_seed_leaves_the_same_bytes`).
//!
//! # Where to look
//! | file | what |
//! |---|---|
//! | `state` | the truth, and how records change it |
//! | `record`, `runs` | the records in the log |
//! | `pop` | which messages a receive gets |
//! | `lease` | whether a delivery still holds, what renews or ends it, which messages used up their attempts |
//! | `schedule` | derived: what becomes visible when |
//! | `ready` | derived: which queues may have new messages |
//! | `offsets` | the damaged messages of a queue |
//! | `snapshot` | the truth in a checkpoint |
//! | `reader` | what is asked of queues |

mod lease;
mod offsets;
mod pop;
mod reader;
mod ready;
mod record;
mod runs;
mod schedule;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use lease::NotHeld;
pub(crate) use pop::PopParams;
pub(crate) use reader::QueueReader;
pub(crate) use record::{DeliveryRecord, Renewal};
pub(crate) use state::{DeliveryState, MessageStanding};
