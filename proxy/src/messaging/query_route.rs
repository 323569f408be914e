//! QueryRoute: a topic's queues. Creates unknown topics, if that is allowed: clients ask for the route first.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use crate::metrics::Rpc;
use crate::translate::{self, Refusal};
use gantry_proto::model::{QueueId, Topic};
use gantry_proto::wire::v2::{AddressScheme, Code, Endpoints, QueryRouteRequest, QueryRouteResponse};
use std::sync::Arc;

pub(super) struct QueryRoute;

impl UnaryRpc for QueryRoute {
    const RPC: Rpc = Rpc::QueryRoute;
    type Request = QueryRouteRequest;
    type Reply = QueryRouteResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: QueryRouteRequest,
    ) -> Result<QueryRouteResponse, Refusal> {
        let name = translate::topic_name(request.topic.as_ref())?;
        let topic = messaging.directory.topic_or_create(&name).await?;
        let endpoints = told_endpoints(messaging, context, request.endpoints)?;
        let queues = queues_of(messaging, &topic)?;
        let message_queues = translate::message_queues(&topic, &queues, &request.topic.unwrap_or_default(), &endpoints);
        Ok(QueryRouteResponse { status: Some(translate::ok()), message_queues })
    }
}

/// A topic's queues, and for each whether it takes messages.
pub(super) fn queues_of(messaging: &Messaging, topic: &Arc<Topic>) -> Result<Vec<(QueueId, bool)>, Refusal> {
    let queues = messaging.stores.queues_of(topic);
    if queues.is_empty() {
        let nowhere = format!("topic {} has no queue: there is no store group that could have one", topic.name);
        return Err(Refusal::new(Code::TopicNotFound, nowhere));
    }
    Ok(queues.into_iter().map(|routed| (routed.queue, routed.writable)).collect())
}

/// Where the client shall connect to: the advertised address if one is configured, else the address that the client says it
/// used, else the one we listen on.
pub(super) fn told_endpoints(
    messaging: &Messaging,
    context: &RequestContext<'_>,
    asked: Option<Endpoints>,
) -> Result<Endpoints, Refusal> {
    if let Some(advertised) = &messaging.config.advertised_endpoints {
        return Ok(advertised.to_wire());
    }
    Ok(match asked {
        Some(mut endpoints) if !endpoints.addresses.is_empty() => {
            // Python refuses routes without a scheme.
            if endpoints.scheme() == AddressScheme::Unspecified {
                endpoints.scheme = translate::scheme_of(&endpoints.addresses[0].host) as i32;
            }
            endpoints
        }
        // No client can connect to "all addresses of this machine".
        _ if context.connection.local.ip().is_unspecified() => {
            let why = "the request has no endpoints, and the server has none to advertise";
            return Err(Refusal::new(Code::IllegalAccessPoint, why));
        }
        _ => translate::endpoints_of_address(context.connection.local),
    })
}
