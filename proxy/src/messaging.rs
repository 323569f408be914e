//! The client protocol: one file per RPC. `call` finds the RPC and says who asks; [`Messaging`] is what all of them work
//! with.

mod ack_message;
mod call;
mod change_invisible_duration;
mod forward_to_dead_letter;
mod heartbeat;
mod notify_client_termination;
mod query_assignment;
mod query_route;
mod receive_message;
mod replies;
mod request;
mod send_message;
mod telemetry;
mod unimplemented;

pub(crate) use call::{Answer, Caller, RequestContext, SERVICE_PATH, method};
pub(crate) use telemetry::settings_command;

use crate::config::ProxyConfig;
use crate::directory::Directory;
use crate::handback::Handback;
use crate::memory::{MemoryBudget, Peers};
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::stores::StoreGroups;
use gantry_proto::contract::MembershipService;
use gantry_proto::env::Clock;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What the RPCs work with. One per proxy.
pub(crate) struct Messaging {
    pub(crate) config: ProxyConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stores: Arc<StoreGroups>,
    pub(crate) membership: Arc<dyn MembershipService>,
    pub(crate) directory: Directory,
    pub(crate) sessions: Sessions,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) peers: Peers,
    /// Places for telemetry streams.
    pub(crate) telemetry_streams: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handback: Handback,
    /// Parked receives and telemetry streams end when it is cancelled.
    pub(crate) drain: CancellationToken,
}
