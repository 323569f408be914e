//! Heartbeat: a client is alive. If this proxy does not know the client, the reply makes it send its settings again.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use crate::metrics::Rpc;
use crate::translate::{self, ClientKind, Refusal};
use gantry_proto::wire::v2::{Code, HeartbeatRequest, HeartbeatResponse};

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
        match messaging.sessions.heartbeat(context.client_id) {
            None => return Err(unknown_client()),
            Some(ClientKind::Producer) => {}
            Some(ClientKind::Consumer { .. }) => drop(translate::optional_group(request.group.as_ref())?),
        }
        Ok(HeartbeatResponse { status: Some(translate::ok()) })
    }
}

pub(super) fn unknown_client() -> Refusal {
    Refusal::new(Code::UnrecognizedClientType, "this server has no settings of the client; send them again")
}
