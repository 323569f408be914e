//! Where a topic's queues are. Also where unknown topics come into being, if that is allowed: clients ask this first.

use super::Messaging;
use super::unary::Unary;
use crate::context::RequestContext;
use crate::metrics::Rpc;
use crate::translate::{self, Refusal};
use gantry_proto::wire::v2::{AddressScheme, Endpoints, QueryRouteRequest, QueryRouteResponse};

pub(super) struct QueryRoute;

impl Unary for QueryRoute {
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
        let endpoints = told_endpoints(messaging, context, request.endpoints);
        let message_queues = translate::message_queues(&topic, &request.topic.unwrap_or_default(), &endpoints);
        Ok(QueryRouteResponse { status: Some(translate::ok()), message_queues })
    }
}

/// Where the client shall connect to: as configured, else exactly what the client says it used, else where it reached us.
pub(super) fn told_endpoints(
    messaging: &Messaging,
    context: &RequestContext<'_>,
    asked: Option<Endpoints>,
) -> Endpoints {
    if let Some(advertised) = &messaging.config.advertised_endpoints {
        return advertised.to_wire();
    }
    match asked {
        Some(mut endpoints) if !endpoints.addresses.is_empty() => {
            // Python refuses routes without a scheme.
            if endpoints.scheme() == AddressScheme::Unspecified {
                endpoints.scheme = translate::scheme_of(&endpoints.addresses[0].host) as i32;
            }
            endpoints
        }
        _ => translate::endpoints_of_address(context.connection.local),
    }
}
