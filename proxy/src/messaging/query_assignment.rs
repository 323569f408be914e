//! QueryAssignment: which queues a push consumer polls.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use super::query_route::{queue_count, told_endpoints};
use super::request::{self, RequestLimits};
use crate::metrics::Rpc;
use crate::translate::{self, Refusal};
use gantry_proto::wire::v2::{QueryAssignmentRequest, QueryAssignmentResponse};

pub(super) struct QueryAssignment;

impl UnaryRpc for QueryAssignment {
    const RPC: Rpc = Rpc::QueryAssignment;
    const LIMITS: RequestLimits = request::QUERY_ASSIGNMENT;
    type Request = QueryAssignmentRequest;
    type Reply = QueryAssignmentResponse;

    async fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: QueryAssignmentRequest,
    ) -> Result<QueryAssignmentResponse, Refusal> {
        let name = translate::topic_name(request.topic.as_ref())?;
        let group = translate::group_name(request.group.as_ref())?;
        let topic = messaging.directory.topic_or_create(&name, context.deadline()).await?;
        // If the group cannot be created, the consumer is told when it receives.
        let fifo = messaging.directory.group_or_create(&group, context.deadline()).await.is_ok_and(|group| group.fifo);
        let endpoints = told_endpoints(messaging, context, request.endpoints)?;
        let count = queue_count(messaging, &topic)?;
        let assignments = translate::assignments(count, fifo, &request.topic.unwrap_or_default(), &endpoints);
        Ok(QueryAssignmentResponse { status: Some(translate::ok()), assignments })
    }
}
