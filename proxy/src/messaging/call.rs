//! A call of the client protocol: found by its method's name, decoded, and answered or refused.
//!
//! A refusal is an ordinary answer with a status in it: clients take a gRPC error for a broken connection. gRPC errors are left
//! for what breaks the protocol, and for a request that is too large. Not through a generated server, which would
//! decode whatever comes, and could not write deliveries from stored bytes.
//!
//! Who asks ([`RequestContext`]) is read from the connection and the call's headers before anything else looks at the call.
//! Nothing that a client sends can set the addresses, and no header that the reference server adds itself is read.

use super::replies::Reply;
use super::request::{self, Rejected, RequestLimits};
use super::{
    Messaging, ack_message, change_invisible_duration, forward_to_dead_letter, heartbeat, notify_client_termination,
    query_assignment, query_route, receive_message, send_message, telemetry, unimplemented,
};
use crate::connection::{Activity, AnswerBody, ConnectionInfo, OpenCall};
use crate::memory::{CALL_BYTES, Peer};
use crate::metrics::Rpc;
use crate::stores::Deadline;
use crate::translate::{self, Refusal};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use gantry_proto::model::limits::CLIENT_ID_BYTES_MAX;
use gantry_proto::wire::v2::Code;
use http::Response;
use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use prost::Message as _;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{EncodeBody, Encoder, SingleMessageCompressionOverride};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};

/// Paths of the protocol's methods begin with this.
pub(crate) const SERVICE_PATH: &str = "/apache.rocketmq.v2.MessagingService/";

/// What a call is answered with. Never an error: errors are answers, too.
pub(crate) type Answer = Result<Response<AnswerBody>, Infallible>;

/// What a call comes with: the proxy, and the connection that carried it.
pub(crate) struct Caller {
    pub(crate) messaging: Arc<Messaging>,
    pub(crate) connection: ConnectionInfo,
    /// The machine at the other end.
    pub(crate) peer: Arc<Peer>,
    pub(crate) activity: Arc<Activity>,
}

pub(crate) type Method = fn(OpenCall, http::Request<Incoming>) -> BoxFuture<'static, Answer>;

/// What answers the method of that name.
pub(crate) fn method(name: &str) -> Option<Method> {
    Some(match name {
        "SendMessage" => unary::<send_message::SendMessage>,
        "ReceiveMessage" => |call, request| Box::pin(receive_message::call(call, request)),
        "AckMessage" => unary::<ack_message::AckMessage>,
        "ChangeInvisibleDuration" => unary::<change_invisible_duration::ChangeInvisibleDuration>,
        "ForwardMessageToDeadLetterQueue" => unary::<forward_to_dead_letter::ForwardMessageToDeadLetterQueue>,
        "QueryRoute" => unary::<query_route::QueryRoute>,
        "QueryAssignment" => unary::<query_assignment::QueryAssignment>,
        "Heartbeat" => unary::<heartbeat::Heartbeat>,
        "NotifyClientTermination" => unary::<notify_client_termination::NotifyClientTermination>,
        "Telemetry" => |call, request| Box::pin(telemetry::call(call, request)),
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

/// An RPC with one request and one reply.
pub(super) trait UnaryRpc: 'static {
    const RPC: Rpc;
    const LIMITS: RequestLimits = RequestLimits::SMALL;
    type Request: prost::Message + Default + 'static;
    type Reply: Reply;

    /// Answers a request. A refusal becomes a reply with nothing but a status.
    fn answer(
        messaging: &Messaging,
        context: &RequestContext<'_>,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, Refusal>> + Send;
}

/// Who asks, and until when. Borrows from the call's headers: nothing is copied.
#[derive(Clone, Copy)]
pub(crate) struct RequestContext<'a> {
    /// Never blank.
    pub(crate) client_id: &'a str,
    /// The connection that carried the call.
    pub(crate) connection: &'a ConnectionInfo,
    metadata: &'a MetadataMap,
    arrived: Instant,
}

/// Reads the request, answers it, encodes the reply.
fn unary<R: UnaryRpc>(mut call: OpenCall, request: http::Request<Incoming>) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let metadata = MetadataMap::from_headers(head.headers);
        let caller = call.caller.clone();
        let messaging = &caller.messaging;
        let answer = match RequestContext::new(&metadata, &caller.connection, started) {
            Err(refusal) => Err(refusal),
            Ok(context) => {
                let answer = match request::read(messaging, body, R::LIMITS, &mut call.held).await {
                    Ok(request) => R::answer(messaging, &context, request).await,
                    Err(Rejected::Refused(refusal)) => Err(refusal),
                    Err(Rejected::Status(status)) => return Ok(rejected(R::RPC, messaging, &status)),
                };
                answer.map_err(|refusal| context.as_client_knows_it(refusal))
            }
        };
        let mut reply = answer.unwrap_or_else(|refusal| {
            tracing::debug!(rpc = R::RPC.as_str(), code = ?refusal.code, reason = %refusal.message, "refused");
            R::Reply::of_status(refusal.into_status())
        });
        let bytes = reply.encoded_len();
        if let Err(exhausted) = call.held.grow(bytes) {
            reply = R::Reply::of_status(Refusal::from(exhausted).into_status());
        }
        messaging.metrics.answered(R::RPC, reply.code(), started.elapsed());
        // The request is gone: what is left of it is the answer.
        call.held.shrink_to(CALL_BYTES + bytes);
        Ok(with_message(framed(&reply), call))
    })
}

/// A message with what precedes it in gRPC.
fn framed(message: &impl prost::Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + bytes);
    framed.put_u8(0);
    // Nothing that we answer comes near 4 GiB: the budget of memory is asked before.
    framed.put_u32(bytes as u32);
    // The buffer has room, and would grow.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

fn with_message(framed: Bytes, call: OpenCall) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::message(framed, call));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// A stream of messages.
pub(super) fn with_stream<E, S>(encoder: E, messages: S, call: OpenCall) -> Response<AnswerBody>
where
    E: Encoder<Error = Status> + Send + 'static,
    E::Item: Send + 'static,
    S: Stream<Item = Result<E::Item, Status>> + Send + 'static,
{
    let body = EncodeBody::new_server(encoder, messages, None, SingleMessageCompressionOverride::default(), None);
    let mut response = Response::new(AnswerBody::streamed(Body::new(body), call));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// A call that breaks the protocol, or one that is too large.
pub(super) fn rejected(rpc: Rpc, messaging: &Messaging, status: &Status) -> Response<AnswerBody> {
    tracing::debug!(rpc = rpc.as_str(), code = ?status.code(), reason = status.message(), "rejected");
    messaging.metrics.rejected(rpc, status.code());
    status.clone().into_http::<()>().map(|()| AnswerBody::empty())
}

impl<'a> RequestContext<'a> {
    /// Of a call that came in at `arrived`. Refuses calls without a client id.
    pub(crate) fn new(
        metadata: &'a MetadataMap,
        connection: &'a ConnectionInfo,
        arrived: Instant,
    ) -> Result<Self, Refusal> {
        let client_id = text(metadata, "x-mq-client-id").trim();
        if client_id.is_empty() {
            return Err(Refusal::new(Code::ClientIdRequired, "the header x-mq-client-id is missing or blank"));
        }
        if client_id.len() > CLIENT_ID_BYTES_MAX {
            let long =
                format!("the client id has {} bytes, at most {CLIENT_ID_BYTES_MAX} are allowed", client_id.len());
            return Err(Refusal::new(Code::RequestHeaderFieldsTooLarge, long));
        }
        Ok(RequestContext { client_id, connection, metadata, arrived })
    }

    /// The client's language, for metrics. `OTHER`: one that is not known.
    pub(crate) fn language(&self) -> &'static str {
        const KNOWN: [&str; 14] = [
            "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST",
            "NODE_JS",
        ];
        let told = text(self.metadata, "x-mq-language");
        KNOWN.into_iter().find(|known| *known == told).unwrap_or("OTHER")
    }

    /// The client's version, cut to the length of a metrics label.
    pub(crate) fn version(&self) -> &'a str {
        let version = text(self.metadata, "x-mq-client-version");
        version.get(..version.len().min(32)).unwrap_or_default()
    }

    /// The refusal with a code that the client's version can read.
    pub(crate) fn as_client_knows_it(&self, refusal: Refusal) -> Refusal {
        Refusal { code: translate::code_for(self.language(), self.version(), refusal.code), ..refusal }
    }

    /// When the call came in.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// How long the client wants to wait for the answer, counted from the arrival of the call. `None`: for ever.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        parse_grpc_timeout(text(self.metadata, "grpc-timeout"))
    }

    /// When the client must be answered.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::of_call(self.arrived, self.timeout())
    }
}

fn text<'a>(metadata: &'a MetadataMap, header: &'static str) -> &'a str {
    metadata.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// At most 8 digits and a unit. 60 years in minutes is an ordinary value.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::ConnectionId;

    fn connection() -> ConnectionInfo {
        ConnectionInfo::new(ConnectionId(7), "[::ffff:10.1.2.3]:4000".parse().unwrap(), "[::1]:8081".parse().unwrap())
    }

    fn metadata(headers: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, value) in headers {
            map.insert(*key, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn timeouts_of_every_unit_are_understood_and_none_overflows() {
        let day = 24 * 3600;
        for (text, expected) in [
            ("31535999M", Some(Duration::from_secs(31_535_999 * 60))),
            ("31536000S", Some(Duration::from_secs(365 * day))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("8760H", Some(Duration::from_secs(365 * day))),
            ("3000m", Some(Duration::from_secs(3))),
            ("250u", Some(Duration::from_micros(250))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("12", None),
            ("1é", None),
        ] {
            assert_eq!(parse_grpc_timeout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_blank_client_id_is_refused() {
        for headers in [&[][..], &[("x-mq-client-id", "  ")]] {
            let metadata = metadata(headers);
            let refusal = RequestContext::new(&metadata, &connection(), Instant::now()).map(|_| ()).unwrap_err();
            assert_eq!(refusal.code, Code::ClientIdRequired);
        }
    }

    #[test]
    fn an_endless_client_id_is_refused() {
        for (bytes, fits) in [(CLIENT_ID_BYTES_MAX, true), (CLIENT_ID_BYTES_MAX + 1, false)] {
            let metadata = metadata(&[("x-mq-client-id", &"c".repeat(bytes))]);
            assert_eq!(RequestContext::new(&metadata, &connection(), Instant::now()).is_ok(), fits);
        }
    }

    #[test]
    fn unknown_languages_are_other() {
        let connection = connection();
        for (told, expected) in [("JAVA", "JAVA"), ("HTTP", "HTTP"), ("ZIG", "OTHER"), ("", "OTHER")] {
            let metadata = metadata(&[("x-mq-client-id", "c"), ("x-mq-language", told)]);
            assert_eq!(RequestContext::new(&metadata, &connection, Instant::now()).unwrap().language(), expected);
        }
    }

    #[test]
    fn addresses_come_from_the_socket_and_never_from_headers() {
        let metadata = metadata(&[("x-mq-client-id", "c"), ("rpc-remote-address", "1.1.1.1:1")]);
        let connection = connection();
        let context = RequestContext::new(&metadata, &connection, Instant::now()).unwrap();
        assert_eq!(context.connection.remote, "10.1.2.3:4000");
        assert_eq!(context.connection.local_text, "[::1]:8081");
    }
}
