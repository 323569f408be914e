//! NotifyClientTermination: a client says goodbye. Its session ends, and the messages it still holds become visible soon.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use crate::metrics::Rpc;
use crate::translate::{self, Refusal};
use gantry_proto::model::ClientHash;
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
        let group = translate::optional_group(request.group.as_ref())?;
        let session = messaging.sessions.terminate(context.client_id);
        // One that is not known here received through another proxy.
        if session.map_or(group.is_some(), |session| session.renews()) {
            // By another task: the client may close its connection at once, which cancels this call.
            messaging.handback.release(ClientHash::of(context.client_id));
        }
        Ok(NotifyClientTerminationResponse { status: Some(translate::ok()) })
    }
}
