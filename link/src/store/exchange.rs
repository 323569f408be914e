//! The store's end of one stream: calls come in, replies go out. One task polls all calls and sends the replies.

use super::budget::{Budget, Reservation};
use super::unreceived::{self, Deliveries, StreamOfReplies};
use super::wire::{self as codec, Malformed, Request, WireFailure};
use super::{CALLS_MAX, CONTROL_BYTES_MAX, FRAME_BYTES, HELD_BYTES_MAX, StoreIdentity};
use futures_util::future::{AbortHandle, AbortRegistration, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use gantry_proto::contract::{StoreError, StoreService};
use gantry_proto::model::{Epoch, GroupId, ReceiptHandle, TopicId};
use gantry_proto::wire::store::v1 as wire;
use prost::Message as _;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use wire::reply::Outcome;

/// Frames that are read before replies are looked for again.
const FRAMES_AT_ONCE: usize = 16;
/// How often calls whose time is over are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The stream of replies. Ends when the proxy's stream does, or when the server drains and every call is answered.
pub(crate) struct Exchange {
    service: Arc<dyn StoreService>,
    identity: Arc<dyn StoreIdentity>,
    requests: Streaming<wire::Requests>,
    /// The first frame, until it was sent.
    welcome: Option<wire::Welcome>,
    /// Calls that end deliveries or keep them: their replies go first.
    control: Running,
    /// All other calls.
    running: Running,
    /// One entry for each call of both kinds.
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Shared by all streams.
    budget: Arc<Budget>,
    /// Replies for the next frame.
    ready: Vec<wire::Reply>,
    ready_bytes: usize,
    /// A reply that is a frame of its own, sent after the next one.
    large: Option<wire::Reply>,
    /// What the replies in `ready` and in `large` deliver.
    ready_deliveries: Vec<Deliveries>,
    large_deliveries: Option<Deliveries>,
    /// What the frames before delivered.
    stream: Arc<StreamOfReplies>,
    /// Whether other tasks were let run since the last frame.
    yielded: bool,
    sweep: Option<Pin<Box<Sleep>>>,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_draining: bool,
}

type Running = FuturesUnordered<BoxFuture<'static, wire::Reply>>;

struct Held {
    abort: AbortHandle,
    bytes: usize,
    _reservation: Reservation,
    deadline: Option<Instant>,
    /// Whose deliveries the reply brings.
    consumer: Option<(GroupId, TopicId)>,
}

impl Exchange {
    pub(super) fn new(
        service: Arc<dyn StoreService>,
        identity: Arc<dyn StoreIdentity>,
        requests: Streaming<wire::Requests>,
        (welcome, stream): (wire::Welcome, Arc<StreamOfReplies>),
        budget: Arc<Budget>,
        draining: CancellationToken,
    ) -> Exchange {
        Exchange {
            service,
            identity,
            requests,
            welcome: Some(welcome),
            control: FuturesUnordered::new(),
            running: FuturesUnordered::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            budget,
            ready: Vec::new(),
            ready_bytes: 0,
            large: None,
            ready_deliveries: Vec::new(),
            large_deliveries: None,
            stream,
            yielded: false,
            sweep: None,
            draining: Box::pin(draining.cancelled_owned()),
            is_draining: false,
        }
    }

    /// The proxy knows of this epoch. If it is newer than the store's own, the store leads no more.
    pub(super) fn heard_epoch(&self, epoch: Epoch) {
        if epoch > self.identity.epoch() {
            self.identity.newer_epoch(epoch);
        }
    }

    fn take(&mut self, frame: wire::Requests) -> Result<(), Malformed> {
        // Before the frame's calls: a store that was superseded must not carry them out.
        self.heard_epoch(Epoch(frame.epoch));
        self.stream.received_to(frame.frames_received);
        for call in frame.calls {
            let (id, bytes, remaining_ms) = (call.id, call.encoded_len(), call.remaining_ms);
            let is_control = codec::is_control(&call);
            if self.held.contains_key(&id) {
                return Err(Malformed("number of a call"));
            }
            // A call that is not understood is refused, and ends nothing else.
            let started =
                codec::understand(call).and_then(|request| self.start(id, bytes, remaining_ms, is_control, request));
            if let Err(error) = started {
                self.ready.push(wire::Reply { id, outcome: Some(Outcome::Failure(WireFailure::from(error).0)) });
            }
        }
        for id in frame.cancelled {
            if let Some(held) = self.held.get(&id) {
                held.abort.abort();
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        id: u64,
        bytes: usize,
        remaining_ms: u32,
        is_control: bool,
        request: Request,
    ) -> Result<(), StoreError> {
        if self.is_draining {
            return Err(StoreError::ShuttingDown);
        }
        let beyond = if is_control { CONTROL_BYTES_MAX } else { 0 };
        let bytes_max = HELD_BYTES_MAX + beyond;
        if self.held.len() >= CALLS_MAX || (self.held_bytes > 0 && self.held_bytes + bytes > bytes_max) {
            return Err(StoreError::Busy(format!("{} calls of this proxy are under way", self.held.len())));
        }
        let Some(_reservation) = self.budget.take(bytes, beyond) else {
            return Err(StoreError::Busy("the calls of all proxies that are under way hold too many bytes".to_owned()));
        };
        let remaining = (remaining_ms > 0).then(|| Duration::from_millis(remaining_ms.into()));
        let deadline = remaining.map(|remaining| Instant::now() + remaining);
        let (abort, registration) = AbortHandle::new_pair();
        let consumer = match &request {
            Request::Pop(pop) => Some((pop.group, pop.topic)),
            _ => None,
        };
        self.held.insert(id, Held { abort, bytes, _reservation, deadline, consumer });
        self.held_bytes += bytes;
        let calls = if is_control { &mut self.control } else { &mut self.running };
        calls.push(answer(self.service.clone(), id, request, registration).boxed());
        Ok(())
    }

    /// Reads the frames that are there. An error is the end of the stream.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Option<Status>> {
        for _ in 0..FRAMES_AT_ONCE {
            match self.requests.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.take(frame).map_err(|malformed| Some(Status::invalid_argument(malformed.to_string())))?;
                }
                Poll::Ready(None | Some(Err(_))) => return Err(None),
                Poll::Pending => return Ok(()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// The next frame, of the replies that are ready. Before it is sent, other tasks run once: calls that the store finishes
    /// together become ready one after the other, and their replies shall go into one frame.
    fn collect(&mut self, cx: &mut Context<'_>) -> Option<wire::Replies> {
        if let Some(large) = self.large.take() {
            self.stream.sent(self.large_deliveries.take());
            return Some(wire::Replies { replies: vec![large], ..wire::Replies::default() });
        }
        while self.large.is_none() && self.ready_bytes < FRAME_BYTES {
            let Some(reply) = self.poll_reply(cx) else { break };
            let mut deliveries = None;
            if let Some(held) = self.held.remove(&reply.id) {
                self.held_bytes -= held.bytes;
                deliveries = held.consumer.and_then(|consumer| deliveries_of(consumer, &reply));
            }
            let bytes = reply.encoded_len();
            if bytes > FRAME_BYTES && !self.ready.is_empty() {
                // In one frame, the replies that are ready would wait until all of it has arrived.
                (self.large, self.large_deliveries) = (Some(reply), deliveries);
            } else {
                self.ready_bytes += bytes;
                self.ready.push(reply);
                self.ready_deliveries.extend(deliveries);
            }
        }
        if self.ready.is_empty() {
            return None;
        }
        let is_full = self.large.is_some() || self.ready_bytes >= FRAME_BYTES;
        if !self.yielded && !is_full && !self.is_idle() {
            self.yielded = true;
            cx.waker().wake_by_ref();
            return None;
        }
        (self.yielded, self.ready_bytes) = (false, 0);
        self.stream.sent(self.ready_deliveries.drain(..));
        Some(wire::Replies { replies: std::mem::take(&mut self.ready), ..wire::Replies::default() })
    }

    /// A reply that is ready; one to a control call, if there is one.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Option<wire::Reply> {
        for calls in [&mut self.control, &mut self.running] {
            if let Poll::Ready(Some(reply)) = calls.poll_next_unpin(cx) {
                return Some(reply);
            }
        }
        None
    }

    fn is_idle(&self) -> bool {
        self.control.is_empty() && self.running.is_empty()
    }

    /// Ends calls whose time is over.
    fn sweep(&mut self, cx: &mut Context<'_>) {
        if self.held.is_empty() {
            self.sweep = None;
            return;
        }
        loop {
            let timer = self.sweep.get_or_insert_with(|| Box::pin(tokio::time::sleep(SWEEP_INTERVAL)));
            if timer.poll_unpin(cx).is_pending() {
                return;
            }
            let now = Instant::now();
            for held in self.held.values() {
                if held.deadline.is_some_and(|deadline| deadline <= now) {
                    held.abort.abort();
                }
            }
            self.sweep = None;
        }
    }
}

impl Stream for Exchange {
    type Item = Result<wire::Replies, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let exchange = &mut *self;
        if let Some(welcome) = exchange.welcome.take() {
            return Poll::Ready(Some(Ok(wire::Replies { welcome: Some(welcome), ..wire::Replies::default() })));
        }
        if exchange.stream.is_replaced() {
            // The proxy has found out before us that this stream is broken.
            return Poll::Ready(None);
        }
        if !exchange.is_draining {
            exchange.is_draining = exchange.draining.poll_unpin(cx).is_ready();
        }
        if let Err(end) = exchange.read(cx) {
            return Poll::Ready(end.map(Err));
        }
        let frame = exchange.collect(cx);
        exchange.sweep(cx);
        if let Some(frame) = frame {
            Poll::Ready(Some(Ok(frame)))
        } else if exchange.is_draining && exchange.is_idle() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stream.ended();
        let mut unsent = std::mem::take(&mut self.ready_deliveries);
        unsent.extend(self.large_deliveries.take());
        unreceived::give_back(self.service.clone(), unsent);
    }
}

/// What a reply delivers, if it does.
fn deliveries_of((group, topic): (GroupId, TopicId), reply: &wire::Reply) -> Option<Deliveries> {
    let Some(Outcome::Pop(popped)) = &reply.outcome else { return None };
    let handles: Vec<_> = popped.messages.iter().map(|message| ReceiptHandle(message.handle.clone())).collect();
    (!handles.is_empty()).then_some(Deliveries { group, topic, handles })
}

/// Carries one call out. When it is cancelled, the answer says so.
async fn answer(
    service: Arc<dyn StoreService>,
    id: u64,
    request: Request,
    cancellation: AbortRegistration,
) -> wire::Reply {
    let done = || Outcome::Done(wire::Done {});
    let carry_out = async {
        Ok::<_, WireFailure>(match request {
            Request::Append(request) => codec::appended(&service.append(request).await?),
            Request::Pop(request) => codec::popped(service.pop(request).await?),
            Request::Ack(request) => codec::acked(service.ack(request).await?),
            Request::ChangeInvisible(request) => Outcome::ChangeInvisible(service.change_invisible(request).await?.0),
            Request::DeadLetter(request) => service.forward_to_dead_letter(request).await.map(|()| done())?,
            Request::Renew(request) => service.renew(request).await.map(|()| done())?,
            Request::Release(request) => service.release(request).await.map(|()| done())?,
            Request::Queues(topic) => codec::queues(&service.queues(topic).await?),
            Request::Progress(group) => codec::progress(&service.progress(group).await?),
            Request::Remains => codec::remains(service.remains().await?),
        })
    };
    let outcome = match Abortable::new(carry_out, cancellation).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failure)) => Outcome::Failure(failure.0),
        Err(_) => Outcome::Failure(WireFailure::from(StoreError::Unreachable("the call was cancelled".to_owned())).0),
    };
    wire::Reply { id, outcome: Some(outcome) }
}
