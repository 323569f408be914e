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
    calls.opened(Epoch(1), 1);
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
    let renewal = || Call::Renew(wire::RenewCall { owners: owners.clone(), invisible_ns: 1, ..Default::default() });
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
    calls.opened(Epoch(1), 1);
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
