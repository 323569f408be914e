use super::{AsFailure as _, Malformed, WireFailure};
use gantry_proto::contract::{
    AppendReply, Appended, HandleError, PopReply, PoppedMessage, QueueStatus, Remains, TopicProgress,
};
use gantry_proto::model::{LogOffset, QueueId, QueueOffset, ReceiptHandle, StoredMessage, Timestamp, TopicId};
use gantry_proto::wire::store::v1 as wire;
use wire::reply::Outcome;

pub(crate) fn appended(reply: &AppendReply) -> Outcome {
    let appended = reply.appended.iter().map(|one| wire::Appended {
        queue_offset: one.queue_offset.0,
        log_offset: one.log_offset.0,
        store_time_ms: one.store_time.as_millis(),
    });
    Outcome::Append(wire::AppendDone { appended: appended.collect() })
}

pub(crate) fn read_appended(outcome: Outcome) -> Result<AppendReply, Malformed> {
    let Outcome::Append(done) = outcome else { return Err(Malformed("answer to an append")) };
    let appended = done.appended.into_iter().map(|one| Appended {
        queue_offset: QueueOffset(one.queue_offset),
        log_offset: LogOffset(one.log_offset),
        store_time: Timestamp::from_millis(one.store_time_ms),
    });
    Ok(AppendReply { appended: appended.collect() })
}

pub(crate) fn popped(reply: PopReply) -> Outcome {
    let messages = reply.messages.into_iter().map(|popped| wire::PoppedMessage {
        head: popped.message.head,
        body: popped.message.body,
        queue: popped.queue.0,
        queue_offset: popped.queue_offset.0,
        store_time_ms: popped.store_time.as_millis(),
        attempt: popped.attempt,
        handle: popped.handle.0,
    });
    Outcome::Pop(wire::PopDone { messages: messages.collect() })
}

pub(crate) fn read_popped(outcome: Outcome) -> Result<PopReply, Malformed> {
    let Outcome::Pop(done) = outcome else { return Err(Malformed("answer to a pop")) };
    let messages = done.messages.into_iter().map(|popped| PoppedMessage {
        message: StoredMessage { head: popped.head, body: popped.body },
        queue: QueueId(popped.queue),
        queue_offset: QueueOffset(popped.queue_offset),
        store_time: Timestamp::from_millis(popped.store_time_ms),
        attempt: popped.attempt,
        handle: ReceiptHandle(popped.handle),
    });
    Ok(PopReply { messages: messages.collect() })
}

pub(crate) fn acked(results: Vec<Result<(), HandleError>>) -> Outcome {
    let count = results.len() as u32;
    let failures = (0..).zip(results).filter_map(|(position, result)| {
        let failure = WireFailure::from(result.err()?).0;
        Some(wire::AckFailure { position, failure: Some(failure) })
    });
    Outcome::Ack(wire::AckDone { failures: failures.collect(), count })
}

/// `asked`: how many handles were to be acknowledged.
pub(crate) fn read_acked(outcome: Outcome, asked: usize) -> Result<Vec<Result<(), HandleError>>, Malformed> {
    let malformed = Malformed("answer to an acknowledgement");
    let Outcome::Ack(done) = outcome else { return Err(malformed) };
    if done.count as usize != asked {
        return Err(malformed);
    }
    let mut results: Vec<_> = std::iter::repeat_with(|| Ok(())).take(asked).collect();
    for failed in done.failures {
        let place = results.get_mut(failed.position as usize).ok_or(malformed)?;
        *place = Err(HandleError::from_failure(failed.failure.unwrap_or_default()));
    }
    Ok(results)
}

pub(crate) fn queues(queues: &[QueueStatus]) -> Outcome {
    let queues = queues.iter().map(|status| wire::QueueStatus {
        queue: status.queue.0,
        min_offset: status.min_offset.0,
        max_offset: status.max_offset.0,
    });
    Outcome::Queues(wire::QueuesDone { queues: queues.collect() })
}

pub(crate) fn read_queues(outcome: Outcome) -> Result<Vec<QueueStatus>, Malformed> {
    let Outcome::Queues(done) = outcome else { return Err(Malformed("answer about queues")) };
    let queues = done.queues.into_iter().map(|status| QueueStatus {
        queue: QueueId(status.queue),
        min_offset: QueueOffset(status.min_offset),
        max_offset: QueueOffset(status.max_offset),
    });
    Ok(queues.collect())
}

pub(crate) fn progress(topics: &[TopicProgress]) -> Outcome {
    let topics = topics.iter().map(|progress| wire::TopicProgress {
        topic: progress.topic.0,
        ready: progress.ready,
        inflight: progress.inflight,
        damaged: progress.damaged,
    });
    Outcome::Progress(wire::ProgressDone { topics: topics.collect() })
}

pub(crate) fn read_progress(outcome: Outcome) -> Result<Vec<TopicProgress>, Malformed> {
    let Outcome::Progress(done) = outcome else { return Err(Malformed("answer about progress")) };
    let topics = done.topics.into_iter().map(|progress| TopicProgress {
        topic: TopicId(progress.topic),
        ready: progress.ready,
        inflight: progress.inflight,
        damaged: progress.damaged,
    });
    Ok(topics.collect())
}

pub(crate) fn remains(remains: Remains) -> Outcome {
    Outcome::Remains(wire::RemainsDone { unfinished: remains.unfinished, unclaimed: remains.unclaimed })
}

pub(crate) fn read_remains(outcome: Outcome) -> Result<Remains, Malformed> {
    let Outcome::Remains(done) = outcome else { return Err(Malformed("answer about remains")) };
    Ok(Remains { unfinished: done.unfinished, unclaimed: done.unclaimed })
}
