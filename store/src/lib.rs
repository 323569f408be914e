//! The stateful tier: one store group's commit log and everything derived from it.
//!
//! # A message's way
//! [`service`] has the contract's calls → `append` puts the queue's entry into [`queue_index`] and the record into the open
//! batch of [`commit_log::tail`] → [`commit_log::writer`] writes (and flushes) the batch →
//! [`commit_log::confirmation`](crate::commit_log) lets the queues grow and wakes receivers and the waiting callers.
//!
//! `pop` → [`progress`] finds the group's shard → [`delivery`] plans under the shard's lock → the lease is a record in the
//! log, too → once it is confirmed, the messages are read under no lock and go out with sealed [`receipt`] handles.
//!
//! # A member of a cluster
//! [`StoreFolder::open`] locks the folder and reads who it is → [`Store::open`] recovers the log → [`Member::join`] asks the
//! controller for the leadership of its store group, and [`Store::lead`] begins it → [`Member::keep`] renews the lease, and joins anew
//! when it has ended. Before, and in between, the store is fenced: see [`tenure`]. [`StoreHost`] does all this, and opens the
//! store again when its log has failed.
//!
//! # What must always hold
//! Each line names the tests that show it; so do the headers of the modules.
//! - State is a function of the log: whatever a call changes is in a record first. The leader and recovery apply records with
//!   the same functions, see [`apply`] (`without_a_checkpoint_everything_comes_from_a_log_that_is_whole`).
//! - Only a record makes the store forget a topic or a consumer group, and only the leader writes it, because of an explicit
//!   deletion: see [`removal`] (`who_does_not_lead_forgets_nothing`, `a_deleted_group_is_forgotten_by_a_record`). Queue offsets
//!   never start again (`a_deleted_topic_does_not_come_back_at_sealing_or_at_restart_and_its_offsets_go_on`).
//! - An answer of success is given only after the record behind it was confirmed
//!   (`answered_messages_survive_a_power_failure_at_any_step`), and while the tenure lasts in which the record was put into the
//!   log (`what_waits_when_the_tenure_ends_is_never_called_a_success_even_if_another_epoch_begins_here`).
//! - An epoch that began is durable in the folder before its first record, so none begins twice
//!   (`a_crash_at_any_moment_of_a_beginning_lets_no_epoch_begin_twice`).
//! - The same seed gives the same log: what is made for many topics or groups is made in the order of their ids
//!   (`the_same_seed_leaves_the_same_bytes`).
//!
//! # Locks
//! A rule for who writes code here; no test shows it.
//! - Locks are taken in this order: shard, dedup window, log tail, and then one of the others. None is held across an await
//!   or during a write, but for two that come before all: whoever saves a checkpoint holds the one around the checkpoints
//!   from the first look at what changed until it is written, and then the one around a removal, so that no checkpoint is
//!   taken between its record and its effect. Files of sealed segments come to their names and go under a lock of their own
//!   ([`queue_index`]), which only workers take.
//!
//! # Tasks
//! See [`maintenance`]. All end with [`Store::shutdown`]. [`StoreHost::keep`] is run by whoever runs the process, and ends after
//! it.
//!
//! This crate never speaks the client protocol and touches files only through the `Files` it was given.

mod apply;
mod backoff;
mod checkpoint;
mod commit_log;
mod config;
mod data_folder;
mod dedup;
mod delivery;
mod disk;
mod draining;
mod durable_file;
mod expiry;
mod given_up;
mod host;
mod identity;
mod indexing;
pub mod inspect;
mod lookup;
mod maintenance;
mod membership;
mod names;
mod observe;
mod open_error;
mod passed_damage;
mod periodic;
mod progress;
mod queue_index;
mod rebuild;
mod receipt;
mod removal;
pub mod repair;
mod restored;
mod saving;
mod service;
mod store;
mod tenure;
mod upkeep;

pub use commit_log::Flush;
pub use commit_log::damage::{DamageCause, DamagedRange, Standing};
pub use commit_log::retention::RetentionPolicy;
pub use config::StoreConfig;
pub use data_folder::StoreFolder;
pub use host::{HostError, REOPENINGS_MAX, StoreHost};
pub use lookup::MessagePlace;
pub use membership::{Kept, Member, MemberConfig, MemberError};
pub use open_error::OpenError;
pub use store::{Granted, Store};

/// Tests in here use the same machine as those in `tests/`.
#[cfg(test)]
extern crate self as gantry_store;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
