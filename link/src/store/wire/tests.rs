use super::*;
use bytes::Bytes;
use gantry_proto::contract::*;
use gantry_proto::model::*;
use gantry_proto::wire::store::v1 as wire;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::LazyJust;
use prost::Message as _;
use std::time::Duration;
use wire::call::Call;
use wire::reply::Outcome;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..64).prop_map(Bytes::from)
}

fn message() -> impl Strategy<Value = StoredMessage> {
    (bytes(), bytes()).prop_map(|(head, body)| StoredMessage { head, body })
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn filter() -> impl Strategy<Value = FilterExpression> {
    let tags = vec("[a-zA-Z0-9._ -]{0,8}x", 1..4).prop_map(|tags| tags.join("||"));
    prop_oneof![Just("*".to_owned()), tags].prop_map(|text| FilterExpression::parse_tag(&text).unwrap())
}

fn ids() -> impl Strategy<Value = (GroupId, TopicId)> {
    (any::<u32>(), any::<u32>()).prop_map(|(group, topic)| (GroupId(group), TopicId(topic)))
}

fn handle() -> impl Strategy<Value = ReceiptHandle> {
    ".{0,40}".prop_map(ReceiptHandle)
}

/// Through the bytes of a whole frame.
fn sent(call: Call) -> String {
    let frame = wire::Requests {
        hello: None,
        calls: vec![wire::Call { id: 5, remaining_ms: 6, call: Some(call), must_understand: Vec::new() }],
        cancelled: vec![7],
        epoch: 8,
        frames_received: 9,
    };
    let mut frame = wire::Requests::decode(Bytes::from(frame.encode_to_vec())).unwrap();
    assert_eq!((frame.epoch, &frame.cancelled[..], frame.frames_received), (8, &[7][..], 9));
    let call = frame.calls.pop().unwrap();
    assert_eq!((call.id, call.remaining_ms), (5, 6));
    format!("{:?}", understand(call).unwrap())
}

fn answered(outcome: Outcome) -> Outcome {
    let frame =
        wire::Replies { replies: vec![wire::Reply { id: 5, outcome: Some(outcome) }], ..wire::Replies::default() };
    let mut frame = wire::Replies::decode(Bytes::from(frame.encode_to_vec())).unwrap();
    frame.replies.pop().unwrap().outcome.unwrap()
}

fn store_error() -> impl Strategy<Value = StoreError> {
    prop_oneof![
        ".{0,20}".prop_map(StoreError::Busy),
        ".{0,20}".prop_map(StoreError::DiskFull),
        ".{0,20}".prop_map(StoreError::WritesStopped),
        ".{0,20}".prop_map(StoreError::Unreadable),
        LazyJust::new(|| StoreError::ShuttingDown),
        ".{0,20}".prop_map(StoreError::NotLeader),
        ".{0,20}".prop_map(StoreError::Interrupted),
        ".{0,20}".prop_map(StoreError::Unreachable),
        ".{0,20}".prop_map(StoreError::NoLeader),
        ".{0,20}".prop_map(StoreError::Unsupported),
    ]
}

fn append_error() -> impl Strategy<Value = AppendError> {
    prop_oneof![
        any::<u32>().prop_map(|topic| AppendError::UnknownQueue(TopicId(topic))),
        LazyJust::new(|| AppendError::Draining),
        (any::<usize>(), any::<usize>()).prop_map(|(bytes, max)| AppendError::TooLarge { bytes, max }),
        ".{0,20}".prop_map(|message_id| AppendError::IdReused { message_id }),
        store_error().prop_map(AppendError::Store),
    ]
}

fn pop_error() -> impl Strategy<Value = PopError> {
    prop_oneof![
        any::<u32>().prop_map(|topic| PopError::UnknownTopic(TopicId(topic))),
        any::<u32>().prop_map(|group| PopError::UnknownGroup(GroupId(group))),
        any::<usize>().prop_map(|inflight| PopError::InflightFull { inflight }),
        any::<usize>().prop_map(|waiting| PopError::PollingFull { waiting }),
        store_error().prop_map(PopError::Store),
    ]
}

fn handle_error() -> impl Strategy<Value = HandleError> {
    prop_oneof![
        LazyJust::new(|| HandleError::Malformed),
        LazyJust::new(|| HandleError::Expired),
        store_error().prop_map(HandleError::Store)
    ]
}

/// Through the bytes.
fn failed<E: AsFailure>(error: E) -> E {
    let Outcome::Failure(failure) = answered(Outcome::Failure(error.into().0)) else { panic!("another outcome") };
    E::from_failure(failure)
}

proptest! {
    #[test]
    fn appends_arrive_as_they_were_sent(topic: u32, queue: u32, messages in vec(message(), 1..5)) {
        let request = || AppendRequest { topic: TopicId(topic), queue: QueueId(queue), messages: messages.clone() };
        prop_assert_eq!(sent(append(request())), format!("{:?}", Request::Append(request())));
    }

    #[test]
    fn pops_arrive_as_they_were_sent(
        (group, topic) in ids(),
        filter in filter(),
        batch_max in 1..u32::MAX,
        bytes_max in any::<u64>(),
        invisible in duration(),
        owner in option::of(any::<u64>().prop_map(ClientHash)),
        once_arrived: bool,
        wait in duration(),
    ) {
        let filter = || filter.clone();
        let request =
            || PopRequest { group, topic, filter: filter(), batch_max, bytes_max, invisible, owner, once_arrived, wait };
        prop_assert_eq!(sent(pop(request())), format!("{:?}", Request::Pop(request())));
    }

    #[test]
    fn calls_about_deliveries_arrive_as_they_were_sent(
        (group, topic) in ids(),
        handles in vec(handle(), 0..4),
        handle in handle(),
        invisible in duration(),
        suspend: bool,
    ) {
        let acked = || AckRequest { group, topic, handles: handles.clone() };
        prop_assert_eq!(sent(ack(acked())), format!("{:?}", Request::Ack(acked())));
        let change = || ChangeInvisibleRequest { group, topic, handle: handle.clone(), invisible, suspend };
        prop_assert_eq!(sent(change_invisible(change())), format!("{:?}", Request::ChangeInvisible(change())));
        let given_back = ChangeInvisibleRequest { invisible: Duration::ZERO, suspend: true, ..change() };
        let given = give_back(group.0, topic.0, handle.0.clone());
        prop_assert_eq!(sent(given), format!("{:?}", Request::ChangeInvisible(given_back)));
        let letter = || DeadLetterRequest { group, topic, handle: handle.clone() };
        prop_assert_eq!(sent(dead_letter(letter())), format!("{:?}", Request::DeadLetter(letter())));
    }

    #[test]
    fn calls_about_clients_and_topics_arrive_as_they_were_sent(
        owners in vec(any::<u64>().prop_map(ClientHash), 0..5),
        owner: u64,
        invisible in duration(),
        (group, topic) in ids(),
        handles in vec(vec(handle(), 0..3), 0..3),
    ) {
        let arrived = |handles| ArrivedDeliveries { owner: ClientHash(owner), group, topic, handles };
        let renewal = RenewRequest { owners, invisible, arrived: handles.into_iter().map(arrived).collect() };
        prop_assert_eq!(sent(renew(&renewal)), format!("{:?}", Request::Renew(renewal)));
        let gone = ReleaseRequest { owner: ClientHash(owner), invisible };
        prop_assert_eq!(sent(release(&gone)), format!("{:?}", Request::Release(gone)));
        let queues = Call::Queues(wire::QueuesCall { topic: topic.0 });
        prop_assert_eq!(sent(queues), format!("{:?}", Request::Queues(topic)));
        let progress = Call::Progress(wire::ProgressCall { group: group.0 });
        prop_assert_eq!(sent(progress), format!("{:?}", Request::Progress(group)));
        prop_assert_eq!(sent(Call::Remains(wire::RemainsCall {})), format!("{:?}", Request::Remains));
    }

    #[test]
    fn answers_arrive_as_they_were_given(
        offsets in vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..4),
        messages in vec((message(), any::<u32>(), any::<u32>(), handle()), 0..4),
        results in vec(option::of(handle_error()), 0..6),
        numbers: (u32, u64, u64),
    ) {
        let reply = AppendReply {
            appended: offsets.iter().map(|(queue, log, time)| Appended {
                queue_offset: QueueOffset(*queue),
                log_offset: LogOffset(*log),
                store_time: Timestamp::from_millis(*time),
            }).collect(),
        };
        prop_assert_eq!(read_appended(answered(appended(&reply))), Ok(reply));

        let reply = || PopReply {
            messages: messages.iter().cloned().map(|(message, queue, attempt, handle)| PoppedMessage {
                message,
                queue: QueueId(queue),
                queue_offset: QueueOffset(numbers.1),
                store_time: Timestamp::from_millis(numbers.2),
                attempt,
                handle,
            }).collect(),
        };
        let arrived = read_popped(answered(popped(reply()))).unwrap();
        prop_assert_eq!(format!("{arrived:?}"), format!("{:?}", reply()));

        let results: Vec<_> = results.into_iter().map(|error| error.map_or(Ok(()), Err)).collect();
        let (count, expected) = (results.len(), format!("{results:?}"));
        let outcome = answered(acked(results));
        prop_assert!(read_acked(outcome.clone(), count + 1).is_err());
        prop_assert_eq!(format!("{:?}", read_acked(outcome, count).unwrap()), expected);

        let (id, one, two) = numbers;
        let status = [QueueStatus { queue: QueueId(id), min_offset: QueueOffset(one), max_offset: QueueOffset(two) }];
        prop_assert_eq!(read_queues(answered(queues(&status))).unwrap(), status);
        let topics = [TopicProgress { topic: TopicId(id), ready: one, inflight: two, damaged: one ^ two }];
        prop_assert_eq!(read_progress(answered(progress(&topics))).unwrap(), topics);
        let rest = Remains { unfinished: one, unclaimed: two };
        prop_assert_eq!(read_remains(answered(remains(rest))).unwrap(), rest);
    }

    #[test]
    fn errors_keep_their_types(
        append in append_error(),
        pop in pop_error(),
        handle in handle_error(),
        store in store_error(),
    ) {
        let expected = format!("{append:?} {pop:?} {handle:?} {store:?}");
        let (append, pop, handle, store) = (failed(append), failed(pop), failed(handle), failed(store));
        prop_assert_eq!(format!("{append:?} {pop:?} {handle:?} {store:?}"), expected);
    }

    #[test]
    fn bytes_that_are_no_frame_are_errors_and_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = wire::Requests::decode(&bytes[..]) {
            for call in frame.calls {
                let _ = understand(call);
            }
        }
    }
}

#[test]
fn what_is_not_understood_is_unsupported() {
    let unsupported = |call| matches!(understand(call), Err(StoreError::Unsupported(_)));
    let call = |call| wire::Call { call: Some(call), ..wire::Call::default() };
    assert!(unsupported(call(Call::Append(wire::AppendCall::default()))), "an append without a message");
    let filter = "|| ||".to_owned();
    assert!(
        unsupported(call(Call::Pop(wire::PopCall { filter, ..wire::PopCall::default() }))),
        "a filter without a tag"
    );
    assert!(unsupported(wire::Call::default()), "a kind of call that was not there yet");
    let remains = call(Call::Remains(wire::RemainsCall {}));
    assert!(!unsupported(remains.clone()));
    assert!(unsupported(wire::Call { must_understand: vec![1], ..remains }));
}

#[test]
fn a_failure_of_an_unknown_kind_says_whether_something_may_have_happened() {
    let newer = |nothing_happened| {
        let failure =
            wire::Failure { kind: 1000, text: "quota".to_owned(), nothing_happened, ..wire::Failure::default() };
        (
            AppendError::from_failure(failure.clone()),
            PopError::from_failure(failure.clone()),
            HandleError::from_failure(failure),
        )
    };
    let (append, pop, handle) = newer(true);
    assert!(matches!(append, AppendError::Store(StoreError::Unsupported(why)) if why.contains("quota")));
    assert!(matches!(pop, PopError::Store(StoreError::Unsupported(_))));
    assert!(matches!(handle, HandleError::Store(StoreError::Unsupported(_))));
    let (append, pop, handle) = newer(false);
    assert!(matches!(append, AppendError::Store(StoreError::Unreachable(_))));
    assert!(matches!(pop, PopError::Store(StoreError::Unreachable(_))));
    assert!(matches!(handle, HandleError::Store(StoreError::Unreachable(_))));
    // Of one that is known, too: for those who are older than this version.
    let told = |error: StoreError| WireFailure::from(error).0.nothing_happened;
    assert!(told(StoreError::Busy(String::new())) && told(StoreError::Unsupported(String::new())));
    let doubts = [StoreError::Unreadable, StoreError::Interrupted, StoreError::Unreachable];
    assert!(doubts.into_iter().all(|error| !told(error(String::new()))));
}
