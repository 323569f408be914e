//! ReceiveMessage: a consumer asks for messages and waits for them. The reply is a stream: a status, the messages, and at
//! last the server's time, without which some clients throw the messages away.
//!
//! Messages that the transport did not take before the client went away are handed back to their store.

mod reply;

use super::Messaging;
use super::call::{Answer, RequestContext, rejected, with_stream};
use super::request::{self, Rejected};
use crate::connection::OpenCall;
use crate::metrics::Rpc;
use crate::session::{RenewedReceive, Session};
use crate::stores::PopAttempt;
use crate::translate::{self, Refusal};
use gantry_proto::contract::PoppedMessage;
use gantry_proto::model::limits::{self, RECEIVE_BATCH_MAX};
use gantry_proto::model::{ClientHash, FilterExpression};
use gantry_proto::wire::v2::{self, Code, FilterType, ReceiveMessageRequest};
use hyper::body::Incoming;
use reply::{Deliveries, ReceiveEncoder, ReceiveReply};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// Replies leave this long before the client gives up: messages that come too late would stay invisible to no avail.
const DEADLINE_MARGIN: Duration = Duration::from_millis(200);
/// What clients add to their long-polling timeout to get their deadline.
const CLIENT_MARGIN: Duration = Duration::from_secs(3);

/// Reads the request, receives, and streams the reply.
pub(super) async fn call(mut call: OpenCall, request: http::Request<Incoming>) -> Answer {
    // Before the request's body is read: the client waits since then, at least.
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let metadata = MetadataMap::from_headers(head.headers);
    let caller = call.caller.clone();
    let messaging = &caller.messaging;
    let reply = match RequestContext::new(&metadata, &caller.connection, started) {
        Err(refusal) => ReceiveReply::refused(refusal, None),
        Ok(context) => {
            let received = match request::read(messaging, body, request::RECEIVE_MESSAGE, &mut call.held).await {
                Ok(request) => receive(messaging, &context, request).await,
                Err(Rejected::Refused(refusal)) => Err(refusal),
                Err(Rejected::Status(status)) => return Ok(rejected(Rpc::ReceiveMessage, messaging, &status)),
            };
            // What is refused here goes back to its store.
            let within_budget = received.and_then(|reply| Ok(call.held.grow(reply.bytes()).map(|()| reply)?));
            within_budget.unwrap_or_else(|refusal| {
                ReceiveReply::refused(context.as_client_knows_it(refusal), Some(messaging.clock.now()))
            })
        }
    };
    messaging.metrics.answered(Rpc::ReceiveMessage, reply.code(), started.elapsed());
    Ok(with_stream(ReceiveEncoder, reply, call))
}

async fn receive(
    messaging: &Arc<Messaging>,
    context: &RequestContext<'_>,
    request: ReceiveMessageRequest,
) -> Result<ReceiveReply, Refusal> {
    let session = if request.auto_renew {
        Some(messaging.sessions.receiving(context)?)
    } else {
        messaging.sessions.touch(context)
    };
    let until = context.arrived()
        + waiting_time(&request, session.as_deref(), context.timeout(), messaging.config.long_polling_max);
    let named = request.message_queue.and_then(|queue| queue.topic).unwrap_or_default();
    let topic = messaging.directory.topic(&named.name).map_err(|error| Refusal::illegal_topic(&error))?;
    let group_name = translate::group_name(request.group.as_ref())?;
    let invisible = if request.auto_renew {
        messaging.config.auto_renew_lease
    } else {
        invisible_duration(request.invisible_duration.as_ref(), messaging.config.invisible_duration_min)?
    };
    let filter = filter(request.filter_expression.as_ref())?;
    let topic = topic.ok_or_else(|| Refusal::topic_not_found(&named.name))?;
    let group = messaging.directory.group_or_create(&group_name, context.deadline()).await?;

    let renewed = session.as_ref().filter(|_| request.auto_renew);
    let renewed = renewed.map(|session| session.receives(context, (group.id, topic.id)));
    let attempt = PopAttempt {
        group: group.id,
        topic: topic.clone(),
        filter,
        batch_max: u32::try_from(request.batch_size).unwrap_or(1).clamp(1, RECEIVE_BATCH_MAX),
        invisible,
        owner: request.auto_renew.then(|| ClientHash::of(context.client_id)),
        until,
    };
    let popped = pop_unless_interrupted(messaging, session.as_deref(), attempt).await?;
    let answer = renewed.as_ref().filter(|_| !popped.is_empty()).map(RenewedReceive::answer);
    let deliveries = Deliveries::new(messaging.clone(), &topic, &group, &named, context.connection, answer, popped);
    if session.is_some_and(|session| request.auto_renew && session.ended.is_cancelled()) {
        // The client said goodbye meanwhile: dropping the deliveries hands them back.
        drop(deliveries);
        return Ok(ReceiveReply::nothing(messaging.clock.now()));
    }
    Ok(ReceiveReply::of(deliveries))
}

/// Pops messages; ends early without any when this proxy drains or the client says goodbye. A pop that is dropped takes no
/// message with it.
async fn pop_unless_interrupted(
    messaging: &Messaging,
    session: Option<&Session>,
    attempt: PopAttempt,
) -> Result<Vec<PoppedMessage>, Refusal> {
    let goodbye = async {
        match session {
            Some(session) => session.ended.cancelled().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        popped = messaging.stores.pop(&attempt, &messaging.handback) => popped,
        () = messaging.drain.cancelled() => Ok(Vec::new()),
        () = goodbye => Ok(Vec::new()),
    }
}

/// How long to wait when there is no message: as long as the request asks for, else the client's settings, else as its
/// deadline suggests; but not longer than `max`, and not up to the deadline.
fn waiting_time(
    request: &ReceiveMessageRequest,
    session: Option<&Session>,
    timeout: Option<Duration>,
    max: Duration,
) -> Duration {
    let wished = (request.long_polling_timeout.as_ref().map(translate::duration_or_zero))
        .or_else(|| session?.long_polling_wish().as_ref().map(translate::duration_or_zero))
        .or_else(|| Some(timeout?.saturating_sub(CLIENT_MARGIN)))
        .unwrap_or(max);
    let bound = timeout.map_or(max, |timeout| timeout.saturating_sub(DEADLINE_MARGIN));
    wished.min(max).min(bound)
}

fn invisible_duration(asked: Option<&prost_types::Duration>, min: Duration) -> Result<Duration, Refusal> {
    // None, or one that is not a time from now on.
    let asked = asked.and_then(translate::duration).filter(|asked| *asked >= min);
    let asked = asked.ok_or_else(|| invisible_too_small(min))?;
    if asked > limits::INVISIBLE_DURATION_MAX {
        return Err(invisible_too_large());
    }
    Ok(asked)
}

/// In the words of the reference server, which its own tests look for.
pub(super) fn invisible_too_small(min: Duration) -> Refusal {
    let min = min.as_secs_f32();
    Refusal::new(Code::IllegalInvisibleTime, format!("the invisibleTime is too small: it must be at least {min} s"))
}

/// Likewise.
pub(super) fn invisible_too_large() -> Refusal {
    let max = limits::INVISIBLE_DURATION_MAX.as_secs();
    Refusal::new(Code::IllegalInvisibleTime, format!("the invisibleTime is too large: it must be at most {max} s"))
}

fn filter(expression: Option<&v2::FilterExpression>) -> Result<FilterExpression, Refusal> {
    let Some(expression) = expression else {
        return Ok(FilterExpression::ALL);
    };
    match expression.r#type() {
        FilterType::Tag | FilterType::Unspecified => Ok(FilterExpression::parse_tag(&expression.expression)?),
        FilterType::Sql if expression.expression.trim().is_empty() => {
            Err(Refusal::new(Code::IllegalFilterExpression, "the SQL expression is empty"))
        }
        FilterType::Sql => Err(Refusal::not_implemented("SQL filters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(20);

    fn wish(millis: Option<i64>) -> ReceiveMessageRequest {
        let wire =
            |millis: i64| prost_types::Duration { seconds: millis / 1000, nanos: (millis % 1000) as i32 * 1_000_000 };
        ReceiveMessageRequest { long_polling_timeout: millis.map(wire), ..ReceiveMessageRequest::default() }
    }

    #[test]
    fn a_wait_ends_before_the_deadline_and_never_exceeds_our_bound() {
        let seconds = |s: u64| Some(Duration::from_secs(s));
        for (asked, timeout, expected) in [
            (Some(5_000), seconds(8), Duration::from_secs(5)),
            (Some(40_000), seconds(60), MAX),
            // Rust leaves no margin: deadline = waiting time.
            (Some(5_000), seconds(5), Duration::from_millis(4_800)),
            (Some(300), seconds(3), Duration::from_millis(300)),
            (Some(0), seconds(3), Duration::ZERO),
            (Some(-1), seconds(3), Duration::ZERO),
            (Some(5_000), Some(Duration::from_millis(100)), Duration::ZERO),
            (Some(5_000), None, Duration::from_secs(5)),
            // Go's simple consumer tells its waiting time only by its deadline.
            (None, seconds(8), Duration::from_secs(5)),
            (None, seconds(2), Duration::ZERO),
            (None, seconds(1 << 40), MAX),
            (None, None, MAX),
        ] {
            assert_eq!(waiting_time(&wish(asked), None, timeout, MAX), expected, "{asked:?} {timeout:?}");
        }
    }

    #[test]
    fn invisible_durations_have_bounds() {
        let wire = |seconds| prost_types::Duration { seconds, nanos: 0 };
        let min = Duration::from_secs(10);
        assert_eq!(invisible_duration(Some(&wire(10)), min).unwrap(), min);
        assert!(invisible_duration(Some(&wire(12 * 3600)), min).is_ok());
        let (small, large) = ("the invisibleTime is too small", "the invisibleTime is too large");
        let cases = [(None, small), (Some(9), small), (Some(-1), small), (Some(12 * 3600 + 1), large)];
        for (asked, words) in cases {
            let refusal = invisible_duration(asked.map(wire).as_ref(), min).unwrap_err();
            assert_eq!(refusal.code, Code::IllegalInvisibleTime);
            assert!(refusal.message.starts_with(words), "{asked:?}: {}", refusal.message);
        }
    }

    #[test]
    fn filters_are_tags_for_now() {
        let expression =
            |kind: FilterType, text: &str| v2::FilterExpression { r#type: kind as i32, expression: text.to_owned() };
        assert_eq!(filter(None).unwrap(), FilterExpression::ALL);
        assert_eq!(filter(Some(&expression(FilterType::Unspecified, ""))).unwrap(), FilterExpression::ALL);
        assert!(filter(Some(&expression(FilterType::Tag, "a || b"))).is_ok());
        for (kind, text, code) in [
            (FilterType::Tag, "||", Code::IllegalFilterExpression),
            (FilterType::Sql, "", Code::IllegalFilterExpression),
            (FilterType::Sql, "a > 1", Code::NotImplemented),
        ] {
            assert_eq!(filter(Some(&expression(kind, text))).unwrap_err().code, code);
        }
    }
}
