//! The stateful tier: one store group's commit log and everything derived from it.
//!
//! # A message's way
//! [`Store`] `append` → [`commit_log::tail`](crate::commit_log) copies the record to the open batch and the queue's entry
//! to [`queue_index`] → the writer thread writes (and flushes) the batch → the confirming task lets the queues grow and
//! wakes receivers and the waiting callers.
//! `pop` → [`progress`] finds the group's shard → [`delivery`] plans under the shard's lock → the lease is a record in the
//! log, too → once it is confirmed, the messages go out from the segments' maps with sealed [`receipt`] handles.
//!
//! # What must always hold
//! - State is a function of the log: whatever a call changes is in a record first. Recovery applies the same records.
//! - `retained_from ≤ confirmed_to ≤ written_to ≤ appended_to`; consumers see only what is confirmed.
//! - An answer of success is given only after the record behind it was confirmed.
//! - Locks are taken in this order: shard, dedup window, log tail, queue. None is held across an await or during a write.
//!
//! # Tasks
//! The log writer (a thread), the confirming task, the burying task, the maintenance task: see [`maintenance`]. All end
//! with [`Store::shutdown`].
//!
//! This crate never speaks the client protocol and touches files only through the `Files` it was given.

mod checkpoint;
mod commit_log;
mod data_folder;
mod dedup;
mod delivery;
mod disk;
mod durable_file;
mod maintenance;
mod observe;
mod progress;
mod queue_index;
mod receipt;
mod recovery;
mod service;
mod store;

pub use commit_log::Flush;
pub use commit_log::retention::RetentionPolicy;
pub use store::{OpenError, Store, StoreConfig};
