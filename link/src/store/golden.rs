//! The exchange between proxies and stores, as version 1 says it.

use super::handshake::{self, Target};
use super::wire::{self as codec, AsFailure, Request, understand};
use crate::golden::{Golden, golden};
use bytes::Bytes;
use gantry_proto::contract::*;
use gantry_proto::model::*;
use gantry_proto::wire::store::v1 as wire;
use std::fmt::Debug;
use std::time::Duration;
use wire::call::Call;
use wire::reply::Outcome;

const STORE: Target =
    Target { cluster: ClusterId([0xc1; 16]), store_group: StoreGroupId(3), folder: FolderId([0xf0; 16]) };

/// Every kind of message of the exchange.
pub(crate) fn exchange() -> Vec<Golden> {
    let mut all = handshakes();
    all.extend(calls());
    all.extend(replies());
    all.extend(failures());
    all
}

fn text(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn handshakes() -> Vec<Golden> {
    let hello = wire::Requests { hello: Some(handshake::hello(&STORE, Epoch(7))), ..wire::Requests::default() };
    let answered = |frame: wire::Requests| {
        let hello = frame.hello.unwrap_or_default();
        format!("{:?} of epoch {}", handshake::answer(&hello, &STORE), hello.epoch)
    };
    let welcome = wire::Replies { welcome: Some(handshake::welcome(1, &STORE, Epoch(8))), ..wire::Replies::default() };
    let refused = wire::Refused { kind: wire::refused::Kind::Group.into(), text: "another group".to_owned() };
    let refused = wire::Replies { refused: Some(refused), ..wire::Replies::default() };
    let calls = wire::Requests { cancelled: vec![4, 500], epoch: 9, ..wire::Requests::default() };
    vec![
        golden("store.hello", hello, "Ok(1) of epoch 7".to_owned(), answered),
        golden("store.welcome", welcome, "Ok(1)".to_owned(), |first| {
            text(&handshake::read_welcome(first, &STORE).map(|(version, _)| version))
        }),
        golden("store.refused", refused, "Err(\"another group\")".to_owned(), |first| {
            text(&handshake::read_welcome(first, &STORE).map(|(version, _)| version))
        }),
        golden("store.cancelled", calls, "[4, 500] 9".to_owned(), |frame| {
            format!("{:?} {}", frame.cancelled, frame.epoch)
        }),
    ]
}

fn calls() -> Vec<Golden> {
    let (group, topic) = (GroupId(5), TopicId(300));
    let handle = || ReceiptHandle("a handle".to_owned());
    let message = |n: u8| StoredMessage { head: vec![n; 3].into(), body: vec![n; 5].into() };
    let invisible = Duration::from_millis(30_500);
    let append = || AppendRequest { topic, queue: QueueId(2), messages: vec![message(1), message(2)] };
    let pop = || PopRequest {
        group,
        topic,
        filter: FilterExpression::parse_tag("a || b").expect("it is one"),
        batch_max: 32,
        bytes_max: 16 << 20,
        invisible,
        owner: Some(ClientHash(u64::MAX - 1)),
        once_arrived: false,
        wait: Duration::from_secs(20),
    };
    let ack = || AckRequest { group, topic, handles: vec![handle(), ReceiptHandle("another".to_owned())] };
    let change = || ChangeInvisibleRequest { group, topic, handle: handle(), invisible, suspend: true };
    let letter = || DeadLetterRequest { group, topic, handle: handle() };
    let renew = RenewRequest { owners: vec![ClientHash(1), ClientHash(u64::MAX)], invisible, arrived: Vec::new() };
    let release = ReleaseRequest { owner: ClientHash(2), invisible };
    let call = |name: &str, call: Call, means: Request| {
        let call = wire::Call { id: 300, remaining_ms: 10_000, call: Some(call), must_understand: Vec::new() };
        let frame = wire::Requests { calls: vec![call], epoch: 9, ..wire::Requests::default() };
        let means = format!("300 10000 {means:?}");
        golden(format!("store.call.{name}"), frame, means, |frame: wire::Requests| {
            let call = frame.calls.into_iter().next().unwrap_or_default();
            let (id, remaining_ms) = (call.id, call.remaining_ms);
            match understand(call) {
                Ok(request) => format!("{id} {remaining_ms} {request:?}"),
                Err(error) => error.to_string(),
            }
        })
    };
    vec![
        call("append", codec::append(append()), Request::Append(append())),
        call("pop", codec::pop(pop()), Request::Pop(pop())),
        call("ack", codec::ack(ack()), Request::Ack(ack())),
        call("change_invisible", codec::change_invisible(change()), Request::ChangeInvisible(change())),
        call("dead_letter", codec::dead_letter(letter()), Request::DeadLetter(letter())),
        call("renew", codec::renew(&renew), Request::Renew(renew)),
        call("release", codec::release(&release), Request::Release(release)),
        call("queues", Call::Queues(wire::QueuesCall { topic: topic.0 }), Request::Queues(topic)),
        call("progress", Call::Progress(wire::ProgressCall { group: group.0 }), Request::Progress(group)),
        call("remains", Call::Remains(wire::RemainsCall {}), Request::Remains),
    ]
}

fn reply(name: &str, outcome: Outcome, means: String, read: impl Fn(Outcome) -> String + 'static) -> Golden {
    let replies = vec![wire::Reply { id: 300, outcome: Some(outcome) }];
    let frame = wire::Replies { replies, ..wire::Replies::default() };
    golden(name, frame, means, move |frame: wire::Replies| {
        let reply = frame.replies.into_iter().next().unwrap_or_default();
        assert_eq!(reply.id, 300);
        reply.outcome.map_or_else(|| "nothing".to_owned(), &read)
    })
}

fn replies() -> Vec<Golden> {
    let appended = AppendReply {
        appended: (1..3)
            .map(|n| Appended {
                queue_offset: QueueOffset(n),
                log_offset: LogOffset(n << 40),
                store_time: Timestamp::from_millis(1_700_000_000_000 + n),
            })
            .collect(),
    };
    let popped = || PopReply {
        messages: vec![PoppedMessage {
            message: StoredMessage { head: Bytes::from_static(b"head"), body: Bytes::from_static(b"body") },
            queue: QueueId(2),
            queue_offset: QueueOffset(7),
            store_time: Timestamp::from_millis(1_700_000_000_000),
            attempt: 3,
            handle: ReceiptHandle("a handle".to_owned()),
        }],
    };
    let acked = || vec![Ok(()), Err(HandleError::Expired), Err(HandleError::Store(StoreError::ShuttingDown))];
    let queues = [QueueStatus { queue: QueueId(2), min_offset: QueueOffset(3), max_offset: QueueOffset(900) }];
    let progress = [TopicProgress { topic: TopicId(300), ready: 5, inflight: 6, damaged: 1 }];
    let remains = Remains { unfinished: 1, unclaimed: 1 << 40 };
    vec![
        reply("store.reply.append", codec::appended(&appended), text(&Ok::<_, ()>(&appended)), |outcome| {
            text(&codec::read_appended(outcome))
        }),
        reply("store.reply.pop", codec::popped(popped()), text(&Ok::<_, ()>(popped())), |outcome| {
            text(&codec::read_popped(outcome))
        }),
        reply("store.reply.ack", codec::acked(acked()), text(&Ok::<_, ()>(acked())), |outcome| {
            text(&codec::read_acked(outcome, 3))
        }),
        reply(
            "store.reply.change_invisible",
            Outcome::ChangeInvisible("the next handle".to_owned()),
            "ChangeInvisible(\"the next handle\")".to_owned(),
            |outcome| text(&outcome),
        ),
        reply("store.reply.done", Outcome::Done(wire::Done {}), "Done(Done)".to_owned(), |outcome| text(&outcome)),
        reply("store.reply.queues", codec::queues(&queues), text(&Ok::<_, ()>(queues)), |outcome| {
            text(&codec::read_queues(outcome))
        }),
        reply("store.reply.progress", codec::progress(&progress), text(&Ok::<_, ()>(progress)), |outcome| {
            text(&codec::read_progress(outcome))
        }),
        reply("store.reply.remains", codec::remains(remains), text(&Ok::<_, ()>(remains)), |outcome| {
            text(&codec::read_remains(outcome))
        }),
        failure("store.reply.failure", StoreError::Busy("why".to_owned())),
    ]
}

fn failure<E: AsFailure + Debug + 'static>(name: &str, error: E) -> Golden {
    let means = text(&error);
    reply(name, Outcome::Failure(error.into().0), means, |outcome| match outcome {
        Outcome::Failure(failure) => text(&E::from_failure(failure)),
        outcome => text(&outcome),
    })
}

fn failures() -> Vec<Golden> {
    let why = || "why".to_owned();
    vec![
        failure("store.failure.busy", StoreError::Busy(why())),
        failure("store.failure.disk_full", StoreError::DiskFull(why())),
        failure("store.failure.writes_stopped", StoreError::WritesStopped(why())),
        failure("store.failure.unreadable", StoreError::Unreadable(why())),
        failure("store.failure.shutting_down", StoreError::ShuttingDown),
        failure("store.failure.not_leader", StoreError::NotLeader(why())),
        failure("store.failure.unreachable", StoreError::Unreachable(why())),
        failure("store.failure.no_leader", StoreError::NoLeader(why())),
        failure("store.failure.interrupted", StoreError::Interrupted(why())),
        failure("store.failure.unsupported", StoreError::Unsupported(why())),
        failure("store.failure.unknown_queue", AppendError::UnknownQueue(TopicId(300))),
        failure("store.failure.draining", AppendError::Draining),
        failure("store.failure.too_large", AppendError::TooLarge { bytes: 70_000, max: 60_000 }),
        failure("store.failure.id_reused", AppendError::IdReused { message_id: "an id".to_owned() }),
        failure("store.failure.unknown_topic", PopError::UnknownTopic(TopicId(300))),
        failure("store.failure.unknown_group", PopError::UnknownGroup(GroupId(5))),
        failure("store.failure.inflight_full", PopError::InflightFull { inflight: 20_000 }),
        failure("store.failure.polling_full", PopError::PollingFull { waiting: 500 }),
        failure("store.failure.malformed_handle", HandleError::Malformed),
        failure("store.failure.expired_handle", HandleError::Expired),
    ]
}
