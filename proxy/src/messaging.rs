//! The client protocol: one file per RPC, and here what they share and how a call reaches them.
//!
//! A call is decoded, gets its `RequestContext`, and is refused or carried out. A refusal is an ordinary answer with a
//! status in it: clients take a gRPC error for a broken connection. Written on tonic's codec directly and not through a
//! generated server, which would box each call twice more and could not write deliveries from stored bytes.

mod ack_message;
mod change_invisible_duration;
mod forward_to_dead_letter;
mod heartbeat;
mod notify_client_termination;
mod query_assignment;
mod query_route;
mod receive_message;
mod send_message;
mod telemetry;
mod unary;
mod unimplemented;

pub(crate) use telemetry::push_group_settings;

use crate::config::ProxyConfig;
use crate::context::ConnectionInfo;
use crate::flow_control::BytesInflight;
use crate::handback::Handback;
use crate::metrics::Metrics;
use crate::route::Directory;
use crate::session::Sessions;
use crate::stores::StoreGroups;
use futures_util::future::BoxFuture;
use gantry_proto::contract::MembershipService;
use gantry_proto::env::Clock;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// Paths of the protocol's methods begin with this.
pub(crate) const SERVICE_PATH: &str = "/apache.rocketmq.v2.MessagingService/";

/// What a call comes to. Never an error: those travel as answers.
pub(crate) type Answer = Result<http::Response<Body>, Infallible>;

/// What the RPCs work with. One per proxy.
pub(crate) struct Messaging {
    pub(crate) config: ProxyConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stores: Arc<StoreGroups>,
    pub(crate) membership: Arc<dyn MembershipService>,
    pub(crate) directory: Directory,
    pub(crate) sessions: Sessions,
    pub(crate) inflight: BytesInflight,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handback: Handback,
    /// Parked receives and telemetry streams end when it is cancelled.
    pub(crate) drain: CancellationToken,
}

/// One client connection's view of it.
pub(crate) struct Caller {
    pub(crate) messaging: Arc<Messaging>,
    pub(crate) connection: ConnectionInfo,
}

/// Answers calls of one method.
pub(crate) type Method = fn(Arc<Caller>, http::Request<Incoming>) -> BoxFuture<'static, Answer>;

/// The method of that name.
pub(crate) fn method(name: &str) -> Option<Method> {
    Some(match name {
        "SendMessage" => unary::<send_message::SendMessage>,
        "ReceiveMessage" => |caller, request| Box::pin(receive_message::call(caller, request)),
        "AckMessage" => unary::<ack_message::AckMessage>,
        "ChangeInvisibleDuration" => unary::<change_invisible_duration::ChangeInvisibleDuration>,
        "ForwardMessageToDeadLetterQueue" => unary::<forward_to_dead_letter::ForwardMessageToDeadLetterQueue>,
        "QueryRoute" => unary::<query_route::QueryRoute>,
        "QueryAssignment" => unary::<query_assignment::QueryAssignment>,
        "Heartbeat" => unary::<heartbeat::Heartbeat>,
        "NotifyClientTermination" => unary::<notify_client_termination::NotifyClientTermination>,
        "Telemetry" => |caller, request| Box::pin(telemetry::call(caller, request)),
        "EndTransaction" => unary::<unimplemented::EndTransaction>,
        "RecallMessage" => unary::<unimplemented::RecallMessage>,
        "PullMessage" => unary::<unimplemented::PullMessage>,
        "UpdateOffset" => unary::<unimplemented::UpdateOffset>,
        "GetOffset" => unary::<unimplemented::GetOffset>,
        "QueryOffset" => unary::<unimplemented::QueryOffset>,
        "SyncLiteSubscription" => unary::<unimplemented::SyncLiteSubscription>,
        _ => return None,
    })
}

fn unary<R: unary::Unary>(caller: Arc<Caller>, request: http::Request<Incoming>) -> BoxFuture<'static, Answer> {
    Box::pin(unary::call::<R>(caller, request))
}
