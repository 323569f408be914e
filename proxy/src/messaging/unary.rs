//! Calls with one question and one answer.

use super::{Answer, Caller};
use crate::context::RequestContext;
use crate::messaging::Messaging;
use crate::metrics::Rpc;
use crate::translate::Refusal;
use gantry_proto::model::limits::GRPC_MESSAGE_BYTES_MAX;
use gantry_proto::wire::v2;
use hyper::body::Incoming;
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::codec::{BufferSettings, Codec};
use tonic::server::Grpc;
use tonic_prost::{ProstDecoder, ProstEncoder};

/// One RPC.
pub(super) trait Unary: 'static {
    /// Its name.
    const RPC: Rpc;
    /// Its question.
    type Request: prost::Message + Default + 'static;
    /// Its answer.
    type Reply: Reply;

    /// Answers. A refusal becomes an answer with nothing but a status.
    fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, Refusal>> + Send;
}

/// An answer of the protocol: all have a status at the top.
pub(super) trait Reply: prost::Message + 'static {
    /// The answer that consists of a status.
    fn of_status(status: v2::Status) -> Self;

    /// Its status code.
    fn code(&self) -> i32;
}

/// Decodes, answers, encodes.
pub(super) async fn call<R: Unary>(caller: Arc<Caller>, request: http::Request<Incoming>) -> Answer {
    let service = tower::service_fn(async |request: tonic::Request<R::Request>| {
        let started = Instant::now();
        let (metadata, _, request) = request.into_parts();
        let answer = match RequestContext::new(&metadata, &caller.connection, started) {
            Ok(context) => R::answer(&caller.messaging, &context, request).await,
            Err(refusal) => Err(refusal),
        };
        let reply = answer.unwrap_or_else(|refusal| {
            tracing::debug!(rpc = R::RPC.as_str(), code = ?refusal.code, reason = %refusal.message, "refused");
            R::Reply::of_status(refusal.into_status())
        });
        caller.messaging.metrics.answered(R::RPC, reply.code(), started.elapsed());
        Ok::<_, tonic::Status>(tonic::Response::new(reply))
    });
    let codec = UnaryCodec::<R::Reply, R::Request>::new();
    Ok(Grpc::new(codec).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX).unary(service, request).await)
}

/// tonic's protobuf codec with buffers of the size that questions and answers have.
pub(super) struct UnaryCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> UnaryCodec<E, D> {
    pub(super) fn new() -> Self {
        UnaryCodec(PhantomData)
    }
}

/// Where a request's bytes gather: most sends fit, larger ones grow it.
pub(super) fn request_buffer() -> BufferSettings {
    BufferSettings::new(1 << 10, 32 << 10)
}

fn reply_buffer() -> BufferSettings {
    BufferSettings::new(256, 32 << 10)
}

impl<E: prost::Message + 'static, D: prost::Message + Default + 'static> Codec for UnaryCodec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = ProstDecoder<D>;

    fn encoder(&mut self) -> ProstEncoder<E> {
        ProstEncoder::new(reply_buffer())
    }

    fn decoder(&mut self) -> ProstDecoder<D> {
        ProstDecoder::new(request_buffer())
    }
}

macro_rules! replies {
    ($($reply:ident),* $(,)?) => {$(
        impl Reply for v2::$reply {
            fn of_status(status: v2::Status) -> Self {
                v2::$reply { status: Some(status), ..Default::default() }
            }

            fn code(&self) -> i32 {
                self.status.as_ref().map(|status| status.code).unwrap_or_default()
            }
        }
    )*};
}

// `Default` fills what other answers have besides their status.
#[allow(clippy::needless_update)]
mod replies {
    use super::{Reply, v2};

    replies! {
        QueryRouteResponse,
        HeartbeatResponse,
        SendMessageResponse,
        QueryAssignmentResponse,
        AckMessageResponse,
        ForwardMessageToDeadLetterQueueResponse,
        UpdateOffsetResponse,
        GetOffsetResponse,
        QueryOffsetResponse,
        EndTransactionResponse,
        NotifyClientTerminationResponse,
        ChangeInvisibleDurationResponse,
        RecallMessageResponse,
        SyncLiteSubscriptionResponse,
    }
}

/// A stream of one element is answered like a single question.
impl Reply for v2::PullMessageResponse {
    fn of_status(status: v2::Status) -> Self {
        v2::PullMessageResponse { content: Some(v2::pull_message_response::Content::Status(status)) }
    }

    fn code(&self) -> i32 {
        match &self.content {
            Some(v2::pull_message_response::Content::Status(status)) => status.code,
            _ => v2::Code::Ok as i32,
        }
    }
}
