//! The simulation: controller members, stores and proxies, the code that ships, in one deterministic process, with simulated
//! machines under them and simulated clients above them.
//!
//! | part | where |
//! |---|---|
//! | what the operating system would say: closed off | [`outside`], and the libc symbols in the program |
//! | machines: network, disk, clocks, randomness, workers | [`env`] |
//! | what runs on them | [`hosts`] |
//! | what goes wrong | [`faults`], [`scenario`] |
//! | clients | [`workload`] |
//! | what was asked, answered and observed | [`history`], [`recorder`], [`trace`] |
//! | what must hold | [`invariants`] |
//! | one run; many runs, each in a process of its own | [`run`], [`runner`] |
//!
//! What must always hold: a seed determines every byte of the trace. There is one thread, nothing reads the real time or real
//! randomness, every draw comes from a stream of its own, and everything that can be iterated over has an order.

pub mod draw;
pub mod env;
pub mod faults;
pub mod history;
pub mod hosts;
pub mod invariants;
pub mod mutants;
pub mod outside;
pub mod recorder;
pub mod run;
pub mod runner;
pub mod scenario;
pub mod site;
pub mod trace;
pub mod workload;
