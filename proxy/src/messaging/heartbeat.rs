//! Heartbeat: a client is alive. It need not have sent its settings here: several clients send them once, and then go to
//! another proxy, where their leases are to be renewed all the same.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use crate::metrics::Rpc;
use crate::translate::{self, Refusal};
use gantry_proto::wire::v2::{HeartbeatRequest, HeartbeatResponse};

pub(super) struct Heartbeat;

impl UnaryRpc for Heartbeat {
    const RPC: Rpc = Rpc::Heartbeat;
    type Request = HeartbeatRequest;
    type Reply = HeartbeatResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Refusal> {
        let kind = translate::kind_by_heartbeat(&request)?;
        messaging.sessions.heartbeat(context, kind, &messaging.metrics)?;
        Ok(HeartbeatResponse { status: Some(translate::ok()) })
    }
}
