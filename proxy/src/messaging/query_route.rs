//! QueryRoute: a topic's queues. Creates unknown topics, if that is allowed: clients ask for the route first.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use super::request::{self, RequestLimits};
use crate::metrics::Rpc;
use crate::translate::{self, Refusal};
use gantry_proto::model::Topic;
use gantry_proto::wire::v2::{AddressScheme, Code, Endpoints, QueryRouteRequest, QueryRouteResponse};
use std::sync::Arc;

pub(super) struct QueryRoute;

impl UnaryRpc for QueryRoute {
    const RPC: Rpc = Rpc::QueryRoute;
    const LIMITS: RequestLimits = request::QUERY_ROUTE;
    type Request = QueryRouteRequest;
    type Reply = QueryRouteResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: QueryRouteRequest,
    ) -> Result<QueryRouteResponse, Refusal> {
        let name = translate::topic_name(request.topic.as_ref())?;
        let topic = messaging.directory.topic_or_create(&name, context.deadline()).await?;
        let endpoints = told_endpoints(messaging, context, request.endpoints)?;
        let count = queue_count(messaging, &topic)?;
        let message_queues = translate::message_queues(&topic, count, &request.topic.unwrap_or_default(), &endpoints);
        Ok(QueryRouteResponse { status: Some(translate::ok()), message_queues })
    }
}

/// How many queues a topic has.
pub(super) fn queue_count(messaging: &Messaging, topic: &Arc<Topic>) -> Result<u32, Refusal> {
    messaging.stores.queue_count(topic).ok_or_else(|| {
        let nowhere = format!("topic {} has no queue: there is no store group that could have one", topic.name);
        Refusal::new(Code::TopicNotFound, nowhere)
    })
}

/// Where the client shall connect to: the advertised address if one is configured, else the address that the client says it
/// used, else the one that its socket reached.
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
