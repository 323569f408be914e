//! The calls of one lane: those that wait for the connection and those that wait for their answers. Callers put calls in,
//! the connection's writer takes them in frames, its reader hands the answers out.

use super::budget::{Budget, Share};
use super::wire::{give_back, is_control};
use super::{CALL_BYTES_MAX, CALLS_MAX, CONTROL_BYTES_MAX, FRAME_BYTES, MOMENT, QUEUED_BYTES_MAX};
use gantry_proto::contract::StoreError;
use gantry_proto::model::Epoch;
use gantry_proto::wire::store::v1 as wire;
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wire::call::Call;
use wire::reply::Outcome;

/// Whose deliveries a call's reply brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    pub(super) group: u32,
    pub(super) topic: u32,
}

/// Shared by callers, writer and reader.
pub(super) struct Calls {
    table: Mutex<Table>,
    budget: Arc<Budget>,
}

struct Table {
    line: Line,
    /// Counts connections: a writer or reader of an older one has no say.
    connection: u64,
    last_id: u64,
    /// In the order of their ids.
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    waiting: BTreeMap<u64, Waiter>,
    /// Calls in `waiting` up to this id were put into a frame.
    sent_to: u64,
    cancelled: Vec<u64>,
    epoch: Epoch,
    epoch_told: Epoch,
    writer: Option<Waker>,
}

struct Queued {
    call: wire::Call,
    bytes: usize,
    _share: Option<Share>,
}

enum Line {
    /// No connection since then, and no attempt has failed yet.
    Opening {
        since: Instant,
    },
    Up,
    Down {
        why: String,
    },
}

enum Waiter {
    Caller(oneshot::Sender<Result<Outcome, StoreError>>, Option<Consumer>),
    /// The caller is gone. What the reply brings is given back.
    Gone(Option<Consumer>),
}

impl Calls {
    pub(super) fn new(epoch: Epoch, budget: Arc<Budget>) -> Arc<Calls> {
        Arc::new(Calls {
            budget,
            table: Mutex::new(Table {
                line: Line::Opening { since: Instant::now() },
                connection: 0,
                last_id: 0,
                queue: VecDeque::new(),
                queued_bytes: 0,
                waiting: BTreeMap::new(),
                sent_to: 0,
                cancelled: Vec::new(),
                epoch,
                epoch_told: Epoch::default(),
                writer: None,
            }),
        })
    }

    /// Puts a call in. It waits for a connection only while none has failed.
    pub(super) fn submit(
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
            // Sent, it would end the connection and all other calls with it.
            return Err(StoreError::Busy(format!("{bytes} bytes are more than fit into one call to it")));
        }
        let mut table = self.table.lock();
        if let Line::Down { why } = &table.line {
            return Err(StoreError::NoLeader(why.clone()));
        }
        if table.waiting.len() >= CALLS_MAX {
            return Err(StoreError::Busy(format!("{CALLS_MAX} calls to it are under way")));
        }
        if table.queued_bytes >= QUEUED_BYTES_MAX {
            return Err(StoreError::Busy(format!("{} bytes wait to be sent to it", table.queued_bytes)));
        }
        let beyond = if is_control(&call) { CONTROL_BYTES_MAX } else { 0 };
        let Some(share) = self.budget.take(bytes, beyond) else {
            return Err(StoreError::Busy("too many bytes wait to be sent to stores".to_owned()));
        };
        let (sender, answer) = oneshot::channel();
        let id = table.push(call, bytes, Some(share), Waiter::Caller(sender, consumer));
        let writer = table.writer.take();
        drop(table);
        wake(writer);
        Ok(Pending { calls: self.clone(), id, answer, consumer, answered: false })
    }

    /// The newest epoch known. The store is told even if no call is made.
    pub(super) fn set_epoch(&self, epoch: Epoch) {
        let mut table = self.table.lock();
        if epoch <= table.epoch {
            return;
        }
        table.epoch = epoch;
        let writer = table.writer.take();
        drop(table);
        wake(writer);
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.table.lock().epoch
    }

    pub(super) fn is_up(&self) -> bool {
        match &self.table.lock().line {
            Line::Opening { since } => since.elapsed() < MOMENT,
            Line::Up => true,
            Line::Down { .. } => false,
        }
    }

    /// Why the connection is down, while it is.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.table.lock().line {
            Line::Down { why } => Some(why.clone()),
            Line::Opening { .. } | Line::Up => None,
        }
    }

    /// The number of the connection that is made now.
    pub(super) fn connection(&self) -> u64 {
        self.table.lock().connection
    }

    /// The store has answered on the new connection, which began by telling it `epoch_told`.
    pub(super) fn opened(&self, epoch_told: Epoch) {
        let mut table = self.table.lock();
        (table.line, table.epoch_told) = (Line::Up, epoch_told);
        let writer = table.writer.take();
        drop(table);
        wake(writer);
    }

    /// The connection is over, or could not be made. Every call fails; new ones wait if it is `reopening`.
    pub(super) fn broken(&self, why: &str, reopening: bool) {
        let mut table = self.table.lock();
        table.connection += 1;
        table.line = match reopening {
            true => Line::Opening { since: Instant::now() },
            false => Line::Down { why: why.to_owned() },
        };
        let (waiting, sent_to) = (std::mem::take(&mut table.waiting), table.sent_to);
        table.queue.clear();
        table.cancelled.clear();
        table.queued_bytes = 0;
        // An end that a writer of the old connection must see.
        let writer = table.writer.take();
        drop(table);
        wake(writer);
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

    /// Whether [`Calls::poll_frame`] has something to say.
    pub(super) fn has_frame(&self, connection: u64) -> bool {
        let table = self.table.lock();
        table.connection == connection && table.has_news()
    }

    /// The next frame of a connection. `None`: the connection is over.
    pub(super) fn poll_frame(&self, connection: u64, cx: &mut Context<'_>) -> Poll<Option<wire::Requests>> {
        let mut table = self.table.lock();
        if table.connection != connection {
            return Poll::Ready(None);
        }
        if !table.has_news() {
            match &mut table.writer {
                Some(writer) => writer.clone_from(cx.waker()),
                None => table.writer = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(Some(table.frame()))
    }

    /// Hands the answers of a frame out.
    pub(super) fn deliver(&self, replies: Vec<wire::Reply>) {
        let mut answered = Vec::with_capacity(replies.len());
        let mut table = self.table.lock();
        for reply in replies {
            if let Some(waiter) = table.waiting.remove(&reply.id) {
                answered.push((waiter, answer(reply.outcome)));
            }
        }
        drop(table);
        for (waiter, outcome) in answered {
            let abandoned = match waiter {
                Waiter::Caller(caller, consumer) => caller.send(outcome).err().zip(consumer),
                Waiter::Gone(consumer) => Some(outcome).zip(consumer),
            };
            if let Some((outcome, consumer)) = abandoned {
                self.give_back(consumer, outcome);
            }
        }
    }

    /// Makes what a reply brought visible again, at once and without counting as an attempt.
    fn give_back(&self, consumer: Consumer, outcome: Result<Outcome, StoreError>) {
        let Ok(Outcome::Pop(popped)) = outcome else { return };
        let mut table = self.table.lock();
        for message in popped.messages {
            let call = Some(give_back(consumer.group, consumer.topic, message.handle));
            let call = wire::Call { call, ..wire::Call::default() };
            let bytes = call.encoded_len();
            // Not refused for want of room: it makes room.
            table.push(call, bytes, None, Waiter::Gone(None));
        }
        let writer = table.writer.take();
        drop(table);
        wake(writer);
    }

    /// The caller of `id` does not wait any more.
    fn abandon(&self, id: u64) {
        let mut table = self.table.lock();
        let writer = table.cancel(id);
        drop(table);
        wake(writer);
    }
}

impl Table {
    fn push(&mut self, mut call: wire::Call, bytes: usize, _share: Option<Share>, waiter: Waiter) -> u64 {
        self.last_id += 1;
        call.id = self.last_id;
        self.queued_bytes += bytes;
        self.queue.push_back(Queued { call, bytes, _share });
        self.waiting.insert(self.last_id, waiter);
        self.last_id
    }

    /// Whether there is something to send, and the store listens.
    fn has_news(&self) -> bool {
        let news = !self.queue.is_empty() || !self.cancelled.is_empty() || self.epoch > self.epoch_told;
        matches!(self.line, Line::Up) && news
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
        wire::Requests { hello: None, calls, cancelled, epoch: self.epoch.0 }
    }

    /// Takes a call back if it was not sent, and else tells the store to stop if there is something to stop: a pop.
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
        *waiter = Waiter::Gone(consumer);
        consumer?;
        self.cancelled.push(id);
        self.writer.take()
    }
}

/// What the caller gets of a reply.
fn answer(outcome: Option<Outcome>) -> Result<Outcome, StoreError> {
    outcome.ok_or_else(|| StoreError::Unreachable("its answer is not one that this version understands".to_owned()))
}

fn wake(writer: Option<Waker>) {
    if let Some(writer) = writer {
        writer.wake();
    }
}

/// A call that was put in. Dropping it takes the call back or cancels it.
pub(super) struct Pending {
    calls: Arc<Calls>,
    id: u64,
    answer: oneshot::Receiver<Result<Outcome, StoreError>>,
    consumer: Option<Consumer>,
    answered: bool,
}

impl Pending {
    /// Waits for the answer, for at most `patience`.
    pub(super) async fn answer(mut self, patience: Duration) -> Result<Outcome, StoreError> {
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
                // It came just now.
                (Ok(late), Some(consumer)) => self.calls.give_back(consumer, late),
                (Ok(_), None) => {}
                (Err(_), _) => self.calls.abandon(self.id),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use futures_util::task::noop_waker;

    const PATIENCE: Duration = Duration::from_secs(10);
    const CONSUMER: Consumer = Consumer { group: 1, topic: 2 };

    fn pop() -> Call {
        Call::Pop(wire::PopCall { group: CONSUMER.group, topic: CONSUMER.topic, ..wire::PopCall::default() })
    }

    fn append(body: usize) -> Call {
        let message = wire::StoredMessage { head: vec![0; 10].into(), body: vec![0; body].into() };
        Call::Append(wire::AppendCall { topic: 1, queue: 1, messages: vec![message] })
    }

    fn frame(calls: &Calls) -> Option<wire::Requests> {
        match calls.poll_frame(calls.connection(), &mut Context::from_waker(&noop_waker())) {
            Poll::Ready(frame) => frame,
            Poll::Pending => None,
        }
    }

    fn up() -> Arc<Calls> {
        up_within(&Budget::new(1 << 30))
    }

    fn up_within(budget: &Arc<Budget>) -> Arc<Calls> {
        let calls = Calls::new(Epoch(1), budget.clone());
        calls.opened(Epoch(1));
        calls
    }

    #[tokio::test]
    async fn what_waits_goes_into_one_frame_up_to_a_size() {
        let calls = up();
        let pending: Vec<_> = (0..10).map(|_| calls.submit(append(100_000), PATIENCE, None).unwrap()).collect();
        let frames: Vec<_> = std::iter::from_fn(|| frame(&calls)).map(|frame| frame.calls.len()).collect();
        assert_eq!(frames, [2, 2, 2, 2, 2]);
        let _large = calls.submit(append(10 * FRAME_BYTES), PATIENCE, None).unwrap();
        assert_eq!(frame(&calls).unwrap().calls.len(), 1, "one that is larger than a frame goes alone");
        assert_eq!(pending.len(), 10);
    }

    #[tokio::test]
    async fn there_are_bounds_to_what_waits() {
        let calls = up();
        let mut pending = Vec::new();
        let busy = loop {
            match calls.submit(append(1 << 20), PATIENCE, None) {
                Ok(call) => pending.push(call),
                Err(error) => break error,
            }
        };
        assert!(matches!(busy, StoreError::Busy(_)) && pending.len() == 64, "{busy}, {}", pending.len());
        drop(pending);
        assert!(frame(&calls).is_none(), "calls that were not sent are taken back");

        let huge = calls.submit(append(CALL_BYTES_MAX), PATIENCE, None);
        assert!(matches!(huge, Err(StoreError::Busy(_))), "it would end the connection");

        let pending: Vec<_> = (0..CALLS_MAX).map(|_| calls.submit(pop(), PATIENCE, Some(CONSUMER)).unwrap()).collect();
        assert!(matches!(calls.submit(pop(), PATIENCE, None), Err(StoreError::Busy(_))));
        drop(pending);
        assert!(calls.submit(pop(), PATIENCE, None).is_ok());
    }

    #[tokio::test]
    async fn links_share_what_may_wait_and_control_goes_beyond() {
        let budget = Budget::new(1 << 20);
        let (one, other) = (up_within(&budget), up_within(&budget));
        let waiting = one.submit(append(900_000), PATIENCE, None).unwrap();
        assert!(matches!(other.submit(append(900_000), PATIENCE, None), Err(StoreError::Busy(_))));
        let owners = vec![1; 50_000];
        let renewal = || Call::Renew(wire::RenewCall { owners: owners.clone(), invisible_ns: 1 });
        assert!(other.submit(renewal(), PATIENCE, None).is_ok(), "leases must not run out");
        drop(waiting);
        let sent = other.submit(append(900_000), PATIENCE, None).unwrap();
        frame(&other).unwrap();
        assert!(one.submit(append(900_000), PATIENCE, None).is_ok(), "what was sent does not wait any more");
        drop(sent);
        let broken = one.submit(append(900_000), PATIENCE, None).unwrap();
        one.broken("gone", true);
        assert!(other.submit(append(900_000), PATIENCE, None).is_ok(), "nor what was given up");
        drop(broken);
    }

    #[tokio::test]
    async fn a_break_tells_calls_that_were_sent_from_calls_that_were_not() {
        let calls = up();
        let sent = calls.submit(append(1), PATIENCE, None).unwrap();
        frame(&calls).unwrap();
        let unsent = calls.submit(append(1), PATIENCE, None).unwrap();
        let connection = calls.connection();
        calls.broken("gone", true);
        assert!(matches!(sent.answer(PATIENCE).await, Err(StoreError::Unreachable(_))));
        assert!(matches!(unsent.answer(PATIENCE).await, Err(StoreError::NoLeader(_))));
        let old = calls.poll_frame(connection, &mut Context::from_waker(&noop_waker()));
        assert!(matches!(old, Poll::Ready(None)), "the old connection's writer ends");
        let waiting = calls.submit(append(1), PATIENCE, None).unwrap();
        assert!(frame(&calls).is_none(), "nothing is sent before the store has answered");
        calls.opened(Epoch(1));
        assert_eq!(frame(&calls).unwrap().calls.len(), 1);
        drop(waiting);
        calls.broken("gone", false);
        assert!(matches!(calls.submit(append(1), PATIENCE, None), Err(StoreError::NoLeader(_))));
    }

    #[tokio::test]
    async fn only_pops_are_cancelled_once_they_were_sent() {
        let calls = up();
        let (popping, appending) =
            (calls.submit(pop(), PATIENCE, Some(CONSUMER)).unwrap(), calls.submit(append(1), PATIENCE, None).unwrap());
        frame(&calls).unwrap();
        drop((popping, appending));
        let cancelling = frame(&calls).unwrap();
        assert_eq!((cancelling.cancelled, cancelling.calls.len()), (vec![1], 0));
    }

    fn reply(id: u64) -> Vec<wire::Reply> {
        let handle = |handle: &str| wire::PoppedMessage { handle: handle.to_owned(), ..wire::PoppedMessage::default() };
        let messages = vec![handle("a"), handle("b")];
        vec![wire::Reply { id, outcome: Some(Outcome::Pop(wire::PopDone { messages })) }]
    }

    fn given_back(calls: &Calls) -> Vec<String> {
        let frames = std::iter::from_fn(|| frame(calls)).flat_map(|frame| frame.calls);
        let handles = frames.filter_map(|call| match call.call {
            Some(Call::ChangeInvisible(change)) => {
                assert_eq!((change.group, change.topic, change.invisible_ns, change.suspend), (1, 2, 0, true));
                Some(change.handle)
            }
            _ => None,
        });
        handles.collect()
    }

    #[tokio::test]
    async fn a_reply_that_nobody_takes_is_given_back_whenever_its_caller_left() {
        let calls = up();
        let early = calls.submit(pop(), PATIENCE, Some(CONSUMER)).unwrap();
        let late = calls.submit(pop(), PATIENCE, Some(CONSUMER)).unwrap();
        let taken = calls.submit(pop(), PATIENCE, Some(CONSUMER)).unwrap();
        frame(&calls).unwrap();
        drop(early);
        calls.deliver(reply(1));
        assert_eq!(given_back(&calls), ["a", "b"], "its caller left before the reply");
        calls.deliver(reply(2));
        assert_eq!(given_back(&calls), [""; 0]);
        drop(late);
        assert_eq!(given_back(&calls), ["a", "b"], "its caller left with the reply in its hands");
        calls.deliver(reply(3));
        assert!(matches!(taken.answer(PATIENCE).now_or_never(), Some(Ok(Outcome::Pop(_)))));
        assert_eq!(given_back(&calls), [""; 0]);
    }

    #[tokio::test]
    async fn a_newer_epoch_is_told_without_a_call() {
        let calls = up();
        assert!(frame(&calls).is_none());
        calls.set_epoch(Epoch(3));
        calls.set_epoch(Epoch(2));
        assert_eq!(frame(&calls).unwrap().epoch, 3);
        assert!(frame(&calls).is_none());
    }
}
