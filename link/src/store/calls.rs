//! The calls on one connection to a store. Callers put calls in ([`Calls::call`]) and wait; the connection sends those that
//! are there in frames ([`Frames`]), and hands out the answers of each frame that comes back ([`Calls::deliver`]).
//!
//! Callers, the stream that is sent and the one that is received share one table. A connection that is over has no effect on
//! it: connections are counted.

#[cfg(test)]
mod tests;

use super::budget::{Budget, Reservation};
use super::wire::{AsFailure, Malformed, give_back, is_control};
use super::{CALL_BYTES_MAX, CALLS_MAX, CONNECT_GRACE, CONTROL_BYTES_MAX, FRAME_BYTES, QUEUED_BYTES_MAX};
use futures_util::Stream;
use gantry_proto::contract::StoreError;
use gantry_proto::model::Epoch;
use gantry_proto::wire::store::v1 as wire;
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wire::call::Call;
use wire::reply::Outcome;

/// For which consumer group and topic a call's reply brings deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    pub(super) group: u32,
    pub(super) topic: u32,
}

/// All calls of one connection, and of those that replace it when it breaks.
pub(super) struct Calls {
    table: Mutex<Table>,
    budget: Arc<Budget>,
}

struct Table {
    state: ConnectionState,
    connection: u64,
    last_id: u64,
    /// Calls to be sent, in the order of their ids.
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// All calls that are not answered, those in `queue` included, by id.
    waiting: BTreeMap<u64, Waiter>,
    /// Calls up to this id were put into a frame.
    sent_to: u64,
    /// Calls whose cancellation is to be sent.
    cancelled: Vec<u64>,
    epoch: Epoch,
    epoch_told: Epoch,
    /// The number of the last stream, 0 if there was none, and how many frames of it were received.
    stream: u64,
    frames_received: u64,
    /// Wakes the stream that sends frames.
    sender: Option<Waker>,
}

struct Queued {
    call: wire::Call,
    bytes: usize,
    _reservation: Option<Reservation>,
}

enum ConnectionState {
    /// No connection since then, and no attempt has failed since then.
    Opening {
        since: Instant,
    },
    Up,
    Down {
        why: String,
    },
}

/// Who gets the answer of a call.
enum Waiter {
    Caller(oneshot::Sender<Result<Outcome, StoreError>>, Option<Consumer>),
    /// Nobody. Deliveries in the answer are given back.
    Nobody(Option<Consumer>),
}

impl Calls {
    pub(super) fn new(epoch: Epoch, budget: Arc<Budget>) -> Arc<Calls> {
        Arc::new(Calls {
            budget,
            table: Mutex::new(Table {
                state: ConnectionState::Opening { since: Instant::now() },
                connection: 0,
                last_id: 0,
                queue: VecDeque::new(),
                queued_bytes: 0,
                waiting: BTreeMap::new(),
                sent_to: 0,
                cancelled: Vec::new(),
                epoch,
                epoch_told: Epoch::default(),
                stream: 0,
                frames_received: 0,
                sender: None,
            }),
        })
    }

    /// Makes a call and waits for its answer, for at most `patience`. Dropping the future takes the call back, or cancels it.
    pub(super) async fn call<T, E: AsFailure + From<StoreError>>(
        self: &Arc<Calls>,
        call: Call,
        patience: Duration,
        consumer: Option<Consumer>,
        read: impl FnOnce(Outcome) -> Result<T, Malformed>,
    ) -> Result<T, E> {
        match self.submit(call, patience, consumer)?.answer(patience).await? {
            Outcome::Failure(failure) => Err(E::from_failure(failure)),
            outcome => read(outcome).map_err(|malformed| StoreError::Unreachable(malformed.to_string()).into()),
        }
    }

    /// Puts a call in. It waits for a connection only as long as no attempt to connect has failed.
    fn submit(
        self: &Arc<Calls>,
        call: Call,
        remaining: Duration,
        consumer: Option<Consumer>,
    ) -> Result<Pending, StoreError> {
        let call = wire::Call {
            id: 0,
            remaining_ms: u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX),
            call: Some(call),
            must_understand: Vec::new(),
        };
        let bytes = call.encoded_len();
        if bytes > CALL_BYTES_MAX {
            // The store would end the connection, and with it all other calls.
            return Err(StoreError::Busy(format!("{bytes} bytes are more than fit into one call to it")));
        }
        let mut table = self.table.lock();
        if let ConnectionState::Down { why } = &table.state {
            return Err(StoreError::NoLeader(why.clone()));
        }
        if table.waiting.len() >= CALLS_MAX {
            return Err(StoreError::Busy(format!("{CALLS_MAX} calls to it are under way")));
        }
        if table.queued_bytes >= QUEUED_BYTES_MAX {
            return Err(StoreError::Busy(format!("{} bytes wait to be sent to it", table.queued_bytes)));
        }
        let beyond = if is_control(&call) { CONTROL_BYTES_MAX } else { 0 };
        let Some(reservation) = self.budget.take(bytes, beyond) else {
            return Err(StoreError::Busy("too many bytes wait to be sent to stores".to_owned()));
        };
        let (answer_sender, answer) = oneshot::channel();
        let id = table.push(call, bytes, Some(reservation), Waiter::Caller(answer_sender, consumer));
        let sender = table.sender.take();
        drop(table);
        wake(sender);
        Ok(Pending { calls: self.clone(), id, answer, consumer, answered: false })
    }

    /// Notes the newest epoch. The store is told even if no call is made.
    pub(super) fn set_epoch(&self, epoch: Epoch) {
        let mut table = self.table.lock();
        if epoch <= table.epoch {
            return;
        }
        table.epoch = epoch;
        let sender = table.sender.take();
        drop(table);
        wake(sender);
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.table.lock().epoch
    }

    pub(super) fn is_up(&self) -> bool {
        match &self.table.lock().state {
            ConnectionState::Opening { since } => since.elapsed() < CONNECT_GRACE,
            ConnectionState::Up => true,
            ConnectionState::Down { .. } => false,
        }
    }

    /// Why there is no connection. `None`: there is one, or no attempt has failed yet.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.table.lock().state {
            ConnectionState::Down { why } => Some(why.clone()),
            ConnectionState::Opening { .. } | ConnectionState::Up => None,
        }
    }

    /// The number of the current connection, or of the next one.
    pub(super) fn connection(&self) -> u64 {
        self.table.lock().connection
    }

    /// The stream of the connection before, and what was received on it.
    pub(super) fn last_stream(&self) -> Option<wire::LostStream> {
        let table = self.table.lock();
        let (stream, frames_received) = (table.stream, table.frames_received);
        (stream != 0).then_some(wire::LostStream { stream, frames_received })
    }

    /// The handshake of the new connection is done. It told the store `epoch_told`, and has a stream of that number.
    pub(super) fn opened(&self, epoch_told: Epoch, stream: u64) {
        let mut table = self.table.lock();
        (table.state, table.epoch_told) = (ConnectionState::Up, epoch_told);
        (table.stream, table.frames_received) = (stream, 0);
        let sender = table.sender.take();
        drop(table);
        wake(sender);
    }

    /// The connection is over, or could not be made. All calls fail. New calls wait for the next connection if it is
    /// `reopening`, else they fail, too.
    pub(super) fn broken(&self, why: &str, reopening: bool) {
        let mut table = self.table.lock();
        table.connection += 1;
        table.state = match reopening {
            true => ConnectionState::Opening { since: Instant::now() },
            false => ConnectionState::Down { why: why.to_owned() },
        };
        let (waiting, sent_to) = (std::mem::take(&mut table.waiting), table.sent_to);
        table.queue.clear();
        table.cancelled.clear();
        table.queued_bytes = 0;
        // The old connection's stream of frames wakes and ends.
        let sender = table.sender.take();
        drop(table);
        wake(sender);
        for (id, waiter) in waiting {
            if let Waiter::Caller(caller, _) = waiter {
                let error = match id <= sent_to {
                    true => StoreError::Unreachable(why.to_owned()),
                    false => StoreError::NoLeader(why.to_owned()),
                };
                let _ = caller.send(Err(error));
            }
        }
    }

    fn has_frame(&self, connection: u64) -> bool {
        let table = self.table.lock();
        table.connection == connection && table.has_news()
    }

    /// The next frame for a connection. `None`: the connection is over.
    fn poll_frame(&self, connection: u64, cx: &mut Context<'_>) -> Poll<Option<wire::Requests>> {
        let mut table = self.table.lock();
        if table.connection != connection {
            return Poll::Ready(None);
        }
        if !table.has_news() {
            match &mut table.sender {
                Some(sender) => sender.clone_from(cx.waker()),
                None => table.sender = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(Some(table.frame()))
    }

    /// Hands out the answers of a frame.
    pub(super) fn deliver(&self, replies: Vec<wire::Reply>) {
        let mut answered = Vec::with_capacity(replies.len());
        let mut table = self.table.lock();
        table.frames_received += 1;
        for reply in replies {
            if let Some(waiter) = table.waiting.remove(&reply.id) {
                answered.push((waiter, answer(reply.outcome)));
            }
        }
        drop(table);
        for (waiter, outcome) in answered {
            let abandoned = match waiter {
                Waiter::Caller(caller, consumer) => caller.send(outcome).err().zip(consumer),
                Waiter::Nobody(consumer) => Some(outcome).zip(consumer),
            };
            if let Some((outcome, consumer)) = abandoned {
                self.give_back(consumer, outcome);
            }
        }
    }

    /// Makes the messages of an answer visible again, at once; the delivery does not count as an attempt.
    fn give_back(&self, consumer: Consumer, outcome: Result<Outcome, StoreError>) {
        let Ok(Outcome::Pop(popped)) = outcome else { return };
        let mut table = self.table.lock();
        for message in popped.messages {
            let call = Some(give_back(consumer.group, consumer.topic, message.handle));
            let call = wire::Call { call, ..wire::Call::default() };
            let bytes = call.encoded_len();
            // Whatever the bounds: it must not be lost.
            table.push(call, bytes, None, Waiter::Nobody(None));
        }
        let sender = table.sender.take();
        drop(table);
        wake(sender);
    }

    fn abandon(&self, id: u64) {
        let mut table = self.table.lock();
        let sender = table.cancel(id);
        drop(table);
        wake(sender);
    }
}

impl Table {
    fn push(&mut self, mut call: wire::Call, bytes: usize, _reservation: Option<Reservation>, waiter: Waiter) -> u64 {
        self.last_id += 1;
        call.id = self.last_id;
        self.queued_bytes += bytes;
        self.queue.push_back(Queued { call, bytes, _reservation });
        self.waiting.insert(self.last_id, waiter);
        self.last_id
    }

    /// Whether there is something to send, and a connection.
    fn has_news(&self) -> bool {
        let news = !self.queue.is_empty() || !self.cancelled.is_empty() || self.epoch > self.epoch_told;
        matches!(self.state, ConnectionState::Up) && news
    }

    fn frame(&mut self) -> wire::Requests {
        let mut bytes = 0;
        let mut calls = Vec::with_capacity(self.queue.len().min(256));
        while let Some(queued) = self.queue.pop_front_if(|next| bytes == 0 || bytes + next.bytes <= FRAME_BYTES) {
            bytes += queued.bytes;
            calls.push(queued.call);
        }
        self.queued_bytes -= bytes;
        self.sent_to = calls.last().map_or(self.sent_to, |call| call.id);
        self.epoch_told = self.epoch;
        let cancelled = std::mem::take(&mut self.cancelled);
        wire::Requests { hello: None, calls, cancelled, epoch: self.epoch.0, frames_received: self.frames_received }
    }

    /// Takes a call back if it was not sent. Else the store is told to cancel it, if it is a pop; other calls are carried out.
    fn cancel(&mut self, id: u64) -> Option<Waker> {
        if id > self.sent_to {
            self.waiting.remove(&id)?;
            let position = self.queue.partition_point(|queued| queued.call.id < id);
            if let Some(taken) = self.queue.remove(position) {
                debug_assert_eq!(taken.call.id, id, "the queue is in the order of ids, without gaps in `waiting`");
                self.queued_bytes -= taken.bytes;
            }
            return None;
        }
        let waiter = self.waiting.get_mut(&id)?;
        let Waiter::Caller(_, consumer) = *waiter else { return None };
        *waiter = Waiter::Nobody(consumer);
        consumer?;
        self.cancelled.push(id);
        self.sender.take()
    }
}

fn answer(outcome: Option<Outcome>) -> Result<Outcome, StoreError> {
    outcome.ok_or_else(|| StoreError::Unreachable("its answer is not one that this version understands".to_owned()))
}

fn wake(sender: Option<Waker>) {
    if let Some(sender) = sender {
        sender.wake();
    }
}

/// The stream of frames that one connection sends: a hello, then calls as they come.
pub(super) struct Frames {
    calls: Arc<Calls>,
    connection: u64,
    hello: Option<wire::Hello>,
    /// Whether other tasks were let run since the last frame.
    yielded: bool,
}

impl Frames {
    pub(super) fn new(calls: &Arc<Calls>, connection: u64, hello: wire::Hello) -> Frames {
        Frames { calls: calls.clone(), connection, hello: Some(hello), yielded: false }
    }
}

impl Stream for Frames {
    type Item = wire::Requests;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<wire::Requests>> {
        match self.hello.take() {
            Some(hello) => Poll::Ready(Some(wire::Requests { hello: Some(hello), ..wire::Requests::default() })),
            // Callers that the last answers woke are about to call again: their calls go into this frame, too.
            None if !self.yielded && self.calls.has_frame(self.connection) => {
                self.yielded = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                let frame = self.calls.poll_frame(self.connection, cx);
                self.yielded &= frame.is_pending();
                frame
            }
        }
    }
}

/// A call that was put in. Dropping it takes the call back, or cancels it.
struct Pending {
    calls: Arc<Calls>,
    id: u64,
    answer: oneshot::Receiver<Result<Outcome, StoreError>>,
    consumer: Option<Consumer>,
    answered: bool,
}

impl Pending {
    /// Waits for the answer, for at most `patience`.
    async fn answer(mut self, patience: Duration) -> Result<Outcome, StoreError> {
        match tokio::time::timeout(patience, &mut self.answer).await {
            Ok(answer) => {
                self.answered = true;
                answer.unwrap_or_else(|_| Err(StoreError::Unreachable("the link to it was closed".to_owned())))
            }
            Err(_) => Err(StoreError::Unreachable(format!("no answer within {patience:?}"))),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            self.answer.close();
            match (self.answer.try_recv(), self.consumer) {
                // The answer came just now.
                (Ok(late), Some(consumer)) => self.calls.give_back(consumer, late),
                (Ok(_), None) => {}
                (Err(_), _) => self.calls.abandon(self.id),
            }
        }
    }
}
