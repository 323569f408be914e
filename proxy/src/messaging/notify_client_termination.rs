//! NotifyClientTermination: a client says goodbye. Its session ends, and the messages it still holds become visible soon.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use super::heartbeat::unknown_client;
use crate::metrics::Rpc;
use crate::translate::{self, ClientKind, Refusal};
use gantry_proto::wire::v2::{NotifyClientTerminationRequest, NotifyClientTerminationResponse};

pub(super) struct NotifyClientTermination;

impl UnaryRpc for NotifyClientTermination {
    const RPC: Rpc = Rpc::NotifyClientTermination;
    type Request = NotifyClientTerminationRequest;
    type Reply = NotifyClientTerminationResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: NotifyClientTerminationRequest,
    ) -> Result<NotifyClientTerminationResponse, Refusal> {
        // The group is checked before anything changes. Producers send none, or an empty one.
        if let Some(ClientKind::Consumer { .. }) = messaging.sessions.heartbeat(context.client_id) {
            translate::optional_group(request.group.as_ref())?;
        }
        let session = messaging.sessions.terminate(context.client_id).ok_or_else(unknown_client)?;
        if session.renews() {
            // By another task: the client may close its connection at once, which cancels this call.
            messaging.handback.release(session.owner);
        }
        Ok(NotifyClientTerminationResponse { status: Some(translate::ok()) })
    }
}
