use super::{Malformed, nanos};
use gantry_proto::contract::{
    AckRequest, AppendRequest, ArrivedDeliveries, ChangeInvisibleRequest, DeadLetterRequest, PopRequest,
    ReleaseRequest, RenewRequest, StoreError,
};
use gantry_proto::model::limits::RECEIVE_BYTES_MAX;
use gantry_proto::model::{
    ClientHash, FilterExpression, GroupId, QueueId, ReceiptHandle, StoredMessage, TagFilter, TopicId,
};
use gantry_proto::wire::store::v1 as wire;
use std::time::Duration;
use wire::call::Call;

/// A call as a store understands it.
#[derive(Debug)]
pub(crate) enum Request {
    Append(AppendRequest),
    Pop(PopRequest),
    Ack(AckRequest),
    ChangeInvisible(ChangeInvisibleRequest),
    DeadLetter(DeadLetterRequest),
    Renew(RenewRequest),
    Release(ReleaseRequest),
    Queues(TopicId),
    Progress(GroupId),
    Remains,
}

pub(crate) fn append(request: AppendRequest) -> Call {
    let messages = request.messages.into_iter();
    Call::Append(wire::AppendCall {
        topic: request.topic.0,
        queue: request.queue.0,
        messages: messages.map(|message| wire::StoredMessage { head: message.head, body: message.body }).collect(),
    })
}

pub(crate) fn pop(request: PopRequest) -> Call {
    Call::Pop(wire::PopCall {
        group: request.group.0,
        topic: request.topic.0,
        filter: expression(&request.filter),
        batch_max: request.batch_max,
        invisible_ns: nanos(request.invisible),
        owner: request.owner.map(|owner| owner.0),
        wait_ns: nanos(request.wait),
        bytes_max: Some(request.bytes_max),
        renewed_once_arrived: request.once_arrived,
    })
}

pub(crate) fn ack(request: AckRequest) -> Call {
    let handles = request.handles.into_iter().map(|handle| handle.0).collect();
    Call::Ack(wire::AckCall { group: request.group.0, topic: request.topic.0, handles })
}

pub(crate) fn change_invisible(request: ChangeInvisibleRequest) -> Call {
    Call::ChangeInvisible(wire::ChangeInvisibleCall {
        group: request.group.0,
        topic: request.topic.0,
        handle: request.handle.0,
        invisible_ns: nanos(request.invisible),
        suspend: request.suspend,
    })
}

/// Makes the message of a delivery that nobody got visible again; the delivery does not count as an attempt.
pub(crate) fn give_back(group: u32, topic: u32, handle: String) -> Call {
    Call::ChangeInvisible(wire::ChangeInvisibleCall { group, topic, handle, invisible_ns: 0, suspend: true })
}

pub(crate) fn dead_letter(request: DeadLetterRequest) -> Call {
    let (group, topic) = (request.group.0, request.topic.0);
    Call::DeadLetter(wire::DeadLetterCall { group, topic, handle: request.handle.0 })
}

pub(crate) fn renew(request: &RenewRequest) -> Call {
    let owners = request.owners.iter().map(|owner| owner.0).collect();
    let arrived = request.arrived.iter().map(|arrived| wire::ArrivedDeliveries {
        owner: arrived.owner.0,
        group: arrived.group.0,
        topic: arrived.topic.0,
        handles: arrived.handles.iter().map(|handle| handle.0.clone()).collect(),
    });
    Call::Renew(wire::RenewCall { owners, invisible_ns: nanos(request.invisible), arrived: arrived.collect() })
}

pub(crate) fn release(request: &ReleaseRequest) -> Call {
    Call::Release(wire::ReleaseCall { owner: request.owner.0, invisible_ns: nanos(request.invisible) })
}

/// Whether a call ends deliveries or keeps them.
pub(crate) fn is_control(call: &wire::Call) -> bool {
    let control = |call: &Call| match call {
        Call::Ack(_) | Call::ChangeInvisible(_) | Call::DeadLetter(_) | Call::Renew(_) | Call::Release(_) => true,
        Call::Append(_) | Call::Pop(_) | Call::Queues(_) | Call::Progress(_) | Call::Remains(_) => false,
    };
    call.call.as_ref().is_some_and(control)
}

/// Numbers in `Call.must_understand` that this version knows.
const UNDERSTOOD: &[u32] = &[];

/// What a call asks, unless this version cannot know that.
pub(crate) fn understand(call: wire::Call) -> Result<Request, StoreError> {
    if let Some(number) = call.must_understand.iter().find(|number| !UNDERSTOOD.contains(number)) {
        let why = format!("a call must not be carried out without understanding {number}, which the store does not");
        return Err(StoreError::Unsupported(why));
    }
    let call =
        call.call.ok_or_else(|| StoreError::Unsupported("the store does not know this kind of call".to_owned()))?;
    read(call).map_err(|malformed| StoreError::Unsupported(malformed.to_string()))
}

fn read(call: Call) -> Result<Request, Malformed> {
    Ok(match call {
        Call::Append(call) => {
            let messages = call.messages.into_iter();
            let messages: Vec<_> = messages.map(|m| StoredMessage { head: m.head, body: m.body }).collect();
            if messages.is_empty() {
                return Err(Malformed("append without a message"));
            }
            Request::Append(AppendRequest { topic: TopicId(call.topic), queue: QueueId(call.queue), messages })
        }
        Call::Pop(call) => Request::Pop(PopRequest {
            group: GroupId(call.group),
            topic: TopicId(call.topic),
            filter: FilterExpression::parse_tag(&call.filter).map_err(|_| Malformed("filter of a pop"))?,
            batch_max: call.batch_max.max(1),
            bytes_max: call.bytes_max.unwrap_or(RECEIVE_BYTES_MAX),
            invisible: Duration::from_nanos(call.invisible_ns),
            owner: call.owner.map(ClientHash),
            once_arrived: call.renewed_once_arrived,
            wait: Duration::from_nanos(call.wait_ns),
        }),
        Call::Ack(call) => Request::Ack(AckRequest {
            group: GroupId(call.group),
            topic: TopicId(call.topic),
            handles: call.handles.into_iter().map(ReceiptHandle).collect(),
        }),
        Call::ChangeInvisible(call) => Request::ChangeInvisible(ChangeInvisibleRequest {
            group: GroupId(call.group),
            topic: TopicId(call.topic),
            handle: ReceiptHandle(call.handle),
            invisible: Duration::from_nanos(call.invisible_ns),
            suspend: call.suspend,
        }),
        Call::DeadLetter(call) => Request::DeadLetter(DeadLetterRequest {
            group: GroupId(call.group),
            topic: TopicId(call.topic),
            handle: ReceiptHandle(call.handle),
        }),
        Call::Renew(call) => Request::Renew(RenewRequest {
            owners: call.owners.into_iter().map(ClientHash).collect(),
            invisible: Duration::from_nanos(call.invisible_ns),
            arrived: call.arrived.into_iter().map(read_arrived).collect(),
        }),
        Call::Release(call) => Request::Release(ReleaseRequest {
            owner: ClientHash(call.owner),
            invisible: Duration::from_nanos(call.invisible_ns),
        }),
        Call::Queues(call) => Request::Queues(TopicId(call.topic)),
        Call::Progress(call) => Request::Progress(GroupId(call.group)),
        Call::Remains(wire::RemainsCall {}) => Request::Remains,
    })
}

fn read_arrived(arrived: wire::ArrivedDeliveries) -> ArrivedDeliveries {
    ArrivedDeliveries {
        owner: ClientHash(arrived.owner),
        group: GroupId(arrived.group),
        topic: TopicId(arrived.topic),
        handles: arrived.handles.into_iter().map(ReceiptHandle).collect(),
    }
}

/// The expression that parses to this filter.
fn expression(filter: &FilterExpression) -> String {
    match filter {
        FilterExpression::Tag(TagFilter::All) => "*".to_owned(),
        FilterExpression::Tag(TagFilter::AnyOf(tags)) => {
            tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>().join(" || ")
        }
    }
}
