//! What is asked of the controller and what it answers, as version 1 says it. The metadata among it is the same on the
//! controller's disks.
#![allow(clippy::needless_update, reason = "every message may get more fields")]

use crate::golden::{Golden, recorded};
use bytes::Bytes;
use gantry_proto::contract::*;
use gantry_proto::convert::Wire;
use gantry_proto::model::*;
use gantry_proto::wire::controller::v1 as wire;
use prost::Message;
use std::fmt::Debug;
use std::time::Duration;

/// Every kind of message to and from the controller.
pub(crate) fn controller() -> Vec<Golden> {
    let mut all = commands();
    all.extend(outcomes());
    all.extend(refusals());
    all.extend(changes());
    all.extend(membership());
    all.extend(plain());
    all
}

const FOLDER: Bytes = Bytes::from_static(&[0xf0; 16]);
const CLUSTER: Bytes = Bytes::from_static(&[0xc1; 16]);
const PROCESS: Bytes = Bytes::from_static(&[0x55; 16]);
const SECRET: Bytes = Bytes::from_static(&[0x53; 32]);

/// A message that stands for a value.
fn value<T>(name: &str, message: T::Message) -> Golden
where
    T: Wire + Debug + 'static,
    T::Message: Message + Default + Clone + Debug,
{
    let read = |message: T::Message| match T::from_wire(message.clone()) {
        Ok(value) => {
            let again = value.to_wire().encode_to_vec();
            assert_eq!(again, message.encode_to_vec(), "{value:?} is said otherwise than it was read");
            format!("{value:#?}\n")
        }
        Err(error) => panic!("{error}: {message:?}"),
    };
    recorded(format!("controller.{name}"), message, read)
}

/// A message that stands for itself.
fn itself<M: Message + Default + Debug + 'static>(name: &str, message: M) -> Golden {
    recorded(format!("controller.{name}"), message, |message: M| format!("{message:#?}\n"))
}

fn topic() -> wire::Topic {
    let spread = wire::placement::Spread { groups: vec![1, 2, 1], lanes: vec![0, 1] };
    wire::Topic {
        id: 300,
        name: "orders".to_owned(),
        r#type: wire::TopicType::Fifo.into(),
        placement: Some(wire::Placement { placement: Some(wire::placement::Placement::Spread(spread)) }),
        created_at_ms: 1_700_000_000_000,
        ..wire::Topic::default()
    }
}

fn dead_letters() -> wire::Topic {
    let every = wire::placement::Placement::EveryGroup(wire::placement::EveryGroup::default());
    wire::Topic {
        id: 301,
        name: "%DLQ%group".to_owned(),
        r#type: wire::TopicType::Mixed.into(),
        placement: Some(wire::Placement { placement: Some(every) }),
        dead_letter_of: Some("group".to_owned()),
        created_at_ms: 1_700_000_000_000,
        ..wire::Topic::default()
    }
}

fn customized() -> wire::BackoffPolicy {
    let customized = wire::backoff_policy::Customized { next_ns: vec![1_000_000_000, 5_000_000_000] };
    wire::BackoffPolicy { policy: Some(wire::backoff_policy::Policy::Customized(customized)) }
}

fn exponential() -> wire::BackoffPolicy {
    let policy =
        wire::backoff_policy::Exponential { initial_ns: 1_000_000_000, max_ns: 60_000_000_000, multiplier: 1.5 };
    wire::BackoffPolicy { policy: Some(wire::backoff_policy::Policy::Exponential(policy)) }
}

fn group() -> wire::Group {
    wire::Group {
        id: 5,
        name: "group".to_owned(),
        fifo: true,
        max_attempts: 17,
        backoff: Some(exponential()),
        dead_letter_topic: 301,
        created_at_ms: 1_700_000_000_000,
        ..wire::Group::default()
    }
}

fn store_group() -> wire::StoreGroup {
    wire::StoreGroup {
        id: 3,
        name: "store-1".to_owned(),
        state: wire::StoreGroupState::Draining.into(),
        replicas: vec![wire::Replica { folder: FOLDER, address: "store-1:9200".to_owned(), ..Default::default() }],
        in_sync: vec![FOLDER],
        leader: Some(FOLDER),
        epoch: 7,
        created_at_ms: 1_700_000_000_000,
        ..wire::StoreGroup::default()
    }
}

fn proxy() -> wire::ProxyMember {
    wire::ProxyMember {
        id: PROCESS,
        address: "proxy-1:8081".to_owned(),
        version: "1.2.3".to_owned(),
        joined_at_ms: 1_700_000_000_000,
        ..wire::ProxyMember::default()
    }
}

fn commands() -> Vec<Golden> {
    use wire::metadata_command::*;
    let name = || "orders".to_owned();
    let command = |kind: &str, command: Command| {
        let command = wire::MetadataCommand { command: Some(command), ..wire::MetadataCommand::default() };
        value::<MetadataCommand>(&format!("command.{kind}"), command)
    };
    let fifo = wire::TopicType::Fifo.into();
    vec![
        command("create_topic", Command::CreateTopic(CreateTopic { name: name(), r#type: fifo, queue_count: 8 })),
        command(
            "alter_topic",
            Command::AlterTopic(AlterTopic { name: name(), r#type: Some(fifo), queue_count: Some(16) }),
        ),
        command("delete_topic", Command::DeleteTopic(name())),
        value::<MetadataCommand>(
            "command.raise_rules",
            wire::MetadataCommand { command: Some(Command::RaiseRules(2)), rules: 2 },
        ),
        value::<MetadataCommand>(
            "command.raise_ids",
            wire::MetadataCommand { command: Some(Command::RaiseIds(known())), rules: 2 },
        ),
        value::<MetadataCommand>(
            "command.note_durable",
            wire::MetadataCommand {
                command: Some(Command::NoteDurable(NoteDurable { group: 3, epoch: 7, to: 1 << 33 })),
                rules: 2,
            },
        ),
        command(
            "create_group",
            Command::CreateGroup(CreateGroup {
                name: "group".to_owned(),
                fifo: true,
                max_attempts: 17,
                backoff: Some(customized()),
            }),
        ),
        command(
            "alter_group",
            Command::AlterGroup(AlterGroup {
                name: "group".to_owned(),
                fifo: Some(false),
                max_attempts: Some(3),
                backoff: Some(exponential()),
            }),
        ),
        command("delete_group", Command::DeleteGroup("group".to_owned())),
        command("found", Command::Found(CLUSTER)),
        command("join_store", Command::JoinStore(join_store_command())),
        command("close_store_group", Command::CloseStoreGroup("store-1".to_owned())),
        command("note_closed", Command::NoteClosed(NoteClosed { group: 3, epoch: 7, since: 41 })),
        command("force_store_group_away", Command::ForceStoreGroupAway("store-1".to_owned())),
        command("note_leading", Command::NoteLeading(NoteLeading { group: 3, epoch: 7 })),
        command("end_lease", Command::EndLease(EndLease { group: 3, epoch: 7 })),
        command("drain_store_group", Command::DrainStoreGroup("store-1".to_owned())),
        command("activate_store_group", Command::ActivateStoreGroup("store-1".to_owned())),
        command("remove_store_group", Command::RemoveStoreGroup("store-1".to_owned())),
        command("spread_topics", Command::SpreadTopics(SpreadTopics { after: Some(name()), limit: 256 })),
        command(
            "join_proxy",
            Command::JoinProxy(JoinProxy { id: PROCESS, address: proxy().address, version: proxy().version }),
        ),
        command("remove_proxy", Command::RemoveProxy(PROCESS)),
    ]
}

fn known() -> wire::KnownIds {
    wire::KnownIds { topic: 301, group: 5, store_group: 3 }
}

fn join_store_command() -> wire::metadata_command::JoinStore {
    wire::metadata_command::JoinStore {
        group: "store-1".to_owned(),
        folder: FOLDER,
        address: "store-1:9200".to_owned(),
        last_epoch: 6,
        process: PROCESS,
        place: Some(CLUSTER),
        secret: SECRET,
    }
}

fn outcome(outcome: wire::metadata_outcome::Outcome) -> wire::MetadataOutcome {
    wire::MetadataOutcome { outcome: Some(outcome) }
}

fn outcomes() -> Vec<Golden> {
    use wire::metadata_outcome::{Outcome, Spread};
    let spread = Spread { changed: 4, next: Some("orders".to_owned()) };
    let kinds = [
        ("topic", Outcome::Topic(topic())),
        ("group", Outcome::Group(group())),
        ("deleted", Outcome::Deleted(wire::Nothing {})),
        ("cluster", Outcome::Cluster(CLUSTER)),
        ("store_group", Outcome::StoreGroup(store_group())),
        ("spread", Outcome::Spread(spread)),
        ("proxy", Outcome::Proxy(proxy())),
        ("rules", Outcome::Rules(2)),
        ("ids", Outcome::Ids(known())),
    ];
    let named = kinds.map(|(kind, kept)| value::<MetadataOutcome>(&format!("outcome.{kind}"), outcome(kept)));
    named.into()
}

fn refusal(reason: wire::metadata_refusal::Reason) -> wire::MetadataRefusal {
    wire::MetadataRefusal { reason: Some(reason) }
}

fn refusals() -> Vec<Golden> {
    use wire::metadata_refusal::*;
    let store = || "store-1".to_owned();
    let backoff = Backoff { reason: Some(backoff::Reason::TooMany(65)) };
    let shrink = QueuesShrink { name: "orders".to_owned(), now: 8, asked: 4 };
    let other = OtherFolder { group: store(), expected: FOLDER, found: PROCESS };
    let kinds = [
        ("topic_exists", Reason::TopicExists(dead_letters())),
        ("group_exists", Reason::GroupExists(group())),
        ("topic_not_found", Reason::TopicNotFound("orders".to_owned())),
        ("group_not_found", Reason::GroupNotFound("group".to_owned())),
        ("queues_shrink", Reason::QueuesShrink(shrink)),
        ("queue_count", Reason::QueueCount(Bound { asked: 5000, max: 1024 })),
        ("max_attempts", Reason::MaxAttempts(Bound { asked: 5000, max: 1000 })),
        ("derived_topic", Reason::DerivedTopic("%DLQ%group".to_owned())),
        ("backoff", Reason::Backoff(backoff)),
        ("no_store_group", Reason::NoStoreGroup(wire::Nothing {})),
        ("store_group_not_found", Reason::StoreGroupNotFound(store())),
        ("folder_of_other_group", Reason::FolderOfOtherGroup(FolderOfOtherGroup { folder: FOLDER, group: store() })),
        ("other_folder", Reason::OtherFolder(other)),
        ("older_folder", Reason::OlderFolder(OlderFolder { group: store(), folder: FOLDER, led: 7, found: 6 })),
        ("store_group_not_closed", Reason::StoreGroupNotClosed(store())),
        ("last_store_group", Reason::LastStoreGroup(store())),
        ("store_group_active", Reason::StoreGroupActive(store())),
        ("rules", Reason::Rules(Rules { now: 1, asked: 2 })),
    ];
    kinds
        .into_iter()
        .map(|(kind, reason)| value::<MetadataRefusal>(&format!("refusal.{kind}"), refusal(reason)))
        .collect()
}

fn changes() -> Vec<Golden> {
    use wire::metadata_change::Change;
    let kinds = [
        ("reset", Change::Reset(wire::Nothing {})),
        ("topic_upsert", Change::TopicUpsert(dead_letters())),
        ("topic_removed", Change::TopicRemoved(300)),
        ("group_upsert", Change::GroupUpsert(group())),
        ("group_removed", Change::GroupRemoved(5)),
        ("founded", Change::Founded(CLUSTER)),
        ("store_group_upsert", Change::StoreGroupUpsert(store_group())),
        ("store_group_removed", Change::StoreGroupRemoved(3)),
        ("proxy_upsert", Change::ProxyUpsert(proxy())),
        ("proxy_removed", Change::ProxyRemoved(PROCESS)),
        ("given", Change::Given(wire::Given { last_topic: 301, last_group: 5, put_back: None })),
        ("given.put_back", Change::Given(put_back())),
    ];
    let change = |change| wire::MetadataChange { change: Some(change), skippable: false };
    kinds.into_iter().map(|(kind, what)| value::<MetadataChange>(&format!("change.{kind}"), change(what))).collect()
}

fn put_back() -> wire::Given {
    let topics = vec![wire::LostIds { first: 302, last: 310 }, wire::LostIds { first: 320, last: 320 }];
    let put_back = wire::PutBack { last_topic: 330, last_group: 5, topics, groups: Vec::new() };
    wire::Given { last_topic: 301, last_group: 5, put_back: Some(put_back) }
}

fn membership() -> Vec<Golden> {
    use wire::membership_failure::{Held, Reason, Superseded};
    use wire::{change_controllers_request as change, lease_term::Term};
    let lease = |term| wire::LeaseTerm { term: Some(term) };
    let positions = Some(wire::StorePositions { retained_from: 1, confirmed_to: 1 << 30, appended_to: 1 << 31 });
    let join = wire::JoinStoreRequest {
        group: "store-1".to_owned(),
        folder: FOLDER,
        cluster: Some(CLUSTER),
        address: "store-1:9200".to_owned(),
        last_epoch: 6,
        version: "1.2.3".to_owned(),
        process: PROCESS,
        place: Some(CLUSTER),
        ..wire::JoinStoreRequest::default()
    };
    let report = wire::StoreReport { known: Some(known()), durable_to: 1 << 30, accept_missing: true };
    let reported = wire::JoinStoreRequest { report: Some(report), ..join.clone() };
    let grant = wire::StoreGrant {
        cluster: CLUSTER,
        group: 3,
        epoch: 7,
        lease: Some(lease(Term::ForNs(3_000_000_000))),
        previous: Some(wire::PreviousLeader { folder: FOLDER, epoch: 6 }),
        secret: SECRET,
    };
    let renew = wire::RenewLeaseRequest { group: 3, epoch: 7, positions, closed: Some(41), report: None };
    let alive = wire::ProxyAliveRequest {
        id: PROCESS,
        address: proxy().address,
        version: proxy().version,
        sessions: 40,
        ..wire::ProxyAliveRequest::default()
    };
    let failure = |reason| wire::MembershipFailure { reason: Some(reason) };
    let held = Held { group: "store-1".to_owned(), epoch: 7, remaining_ns: 1_500_000_000 };
    let controller = wire::ControllerStatus {
        id: 2,
        address: "controller-2:9100".to_owned(),
        leader: true,
        voter: true,
        matched: Some(400),
        ..wire::ControllerStatus::default()
    };
    let store = wire::StoreStatus {
        group: Some(store_group()),
        heard_ns: Some(250_000_000),
        leading_since_ms: Some(1_700_000_000_000),
        positions,
        version: "1.2.3".to_owned(),
        ..wire::StoreStatus::default()
    };
    let status = wire::ClusterStatus {
        cluster: Some(CLUSTER),
        version: 900,
        controllers: vec![controller],
        stores: vec![store],
        proxies: vec![wire::ProxyStatus { proxy: Some(proxy()), heard_ns: None, sessions: 40, ..Default::default() }],
        ..wire::ClusterStatus::default()
    };
    let add = change::Change::Add(change::Add { id: 4, address: "controller-4:9100".to_owned() });
    let changed = |change| wire::ChangeControllersRequest { change: Some(change) };
    vec![
        value::<JoinStoreRequest>("join_store", join),
        value::<JoinStoreRequest>("join_store.report", reported),
        value::<StoreGrant>("grant.for_a_time", grant.clone()),
        value::<StoreGrant>(
            "grant.until_superseded",
            wire::StoreGrant { lease: Some(lease(Term::UntilSuperseded(wire::Nothing {}))), previous: None, ..grant },
        ),
        value::<RenewStoreLeaseRequest>(
            "renew_lease.report",
            wire::RenewLeaseRequest { report: Some(report), ..renew },
        ),
        value::<RenewStoreLeaseRequest>("renew_lease", renew),
        value::<ProxyAliveRequest>("proxy_alive", alive),
        value::<MembershipError>("membership_failure.refused", failure(Reason::Refused("why".to_owned()))),
        value::<MembershipError>("membership_failure.held", failure(Reason::Held(held))),
        value::<MembershipError>(
            "membership_failure.superseded",
            failure(Reason::Superseded(Superseded { group: 3, epoch: 7 })),
        ),
        value::<MembershipError>("membership_failure.unavailable", failure(Reason::Unavailable("why".to_owned()))),
        value::<ClusterStatus>("cluster_status", status),
        value::<ControllerChange>("change_controllers.add", changed(add)),
        value::<ControllerChange>("change_controllers.remove", changed(change::Change::Remove(4))),
    ]
}

/// The messages around them.
fn plain() -> Vec<Golden> {
    use wire::{consensus_reply, metadata_failure, propose_reply};
    let done = propose_reply::Done {
        version: 900,
        outcome: Some(outcome(wire::metadata_outcome::Outcome::Deleted(wire::Nothing {}))),
    };
    let unknown = metadata_failure::Reason::Unknown("why".to_owned());
    let unavailable = metadata_failure::Reason::Unavailable("why".to_owned());
    let refused =
        metadata_failure::Reason::Refused(refusal(wire::metadata_refusal::Reason::NoStoreGroup(wire::Nothing {})));
    let failure = |reason| wire::MetadataFailure { reason: Some(reason) };
    let proposed = |result| wire::ProposeReply { result: Some(result) };
    let consensus = |result| wire::ConsensusReply { result: Some(result) };
    let change =
        wire::MetadataChange { change: Some(wire::metadata_change::Change::TopicRemoved(300)), skippable: false };
    let again = wire::proxy_alive_reply::Result::AgainWithinNs(Duration::from_millis(1500).as_nanos() as u64);
    let request = wire::ConsensusRequest { kind: 3, payload: Bytes::from_static(b"a payload"), ..Default::default() };
    vec![
        itself("watch", wire::WatchRequest { after: 899, ..Default::default() }),
        itself("watch_page", wire::WatchPage { version: 900, changes: vec![change], last: true, ..Default::default() }),
        itself("propose_reply.done", proposed(propose_reply::Result::Done(done))),
        itself("propose_reply.refused", proposed(propose_reply::Result::Failure(failure(refused)))),
        itself("propose_reply.unavailable", proposed(propose_reply::Result::Failure(failure(unavailable)))),
        itself("propose_reply.unknown", proposed(propose_reply::Result::Failure(failure(unknown)))),
        itself("give_up_lease", wire::GiveUpLeaseRequest { group: 3, epoch: 7, ..Default::default() }),
        itself("proxy_alive_reply", wire::ProxyAliveReply { result: Some(again) }),
        itself("consensus", request),
        itself(
            "consensus_reply.payload",
            consensus(consensus_reply::Result::Payload(Bytes::from_static(b"an answer"))),
        ),
        itself("consensus_reply.refused", consensus(consensus_reply::Result::Refused("why".to_owned()))),
        itself("consensus_reply.not_taken", consensus(consensus_reply::Result::NotTaken("why".to_owned()))),
        itself("consensus_reply.unreachable", consensus(consensus_reply::Result::Unreachable("why".to_owned()))),
    ]
}
