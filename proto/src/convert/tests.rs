use super::*;
use crate::contract::*;
use crate::model::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// Through the bytes.
fn arrived<T: Wire>(value: &T) -> T
where
    T::Message: Message + Default,
{
    let bytes = Bytes::from(value.to_wire().encode_to_vec());
    T::from_wire(T::Message::decode(bytes).unwrap()).unwrap()
}

fn arrives<T: Wire + Debug>(value: &T) -> Result<(), TestCaseError>
where
    T::Message: Message + Default,
{
    let (expected, found) = (format!("{value:?}"), format!("{:?}", arrived(value)));
    prop_assert_eq!(found, expected);
    Ok(())
}

/// As everything that arrives from outside.
fn read_anything(bytes: &[u8]) {
    fn read<T: Wire>(bytes: &[u8])
    where
        T::Message: Message + Default,
    {
        let _ = T::Message::decode(bytes).map(T::from_wire);
    }
    read::<MetadataCommand>(bytes);
    read::<MetadataChange>(bytes);
    read::<Result<(MetadataVersion, MetadataOutcome), MetadataError>>(bytes);
    read::<JoinStoreRequest>(bytes);
    read::<RenewStoreLeaseRequest>(bytes);
    read::<Result<ClusterStatus, MetadataError>>(bytes);
    read::<ControllerChange>(bytes);
}

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn shared_text() -> impl Strategy<Value = Arc<str>> {
    text().prop_map(Arc::from)
}

fn topic_name() -> impl Strategy<Value = TopicName> {
    prop_oneof![
        "[a-z]{1,12}".prop_map(|name| TopicName::parse(&name).unwrap()),
        group_name().prop_map(|group| TopicName::dead_letter_of(&group))
    ]
}

fn group_name() -> impl Strategy<Value = GroupName> {
    "[a-z0-9]{1,12}".prop_map(|name| GroupName::parse(&name).unwrap())
}

fn store_group_name() -> impl Strategy<Value = StoreGroupName> {
    "[a-z0-9-]{1,12}".prop_map(|name| StoreGroupName::parse(&name).unwrap())
}

fn folder() -> impl Strategy<Value = FolderId> {
    any::<[u8; 16]>().prop_map(FolderId)
}

fn cluster() -> impl Strategy<Value = ClusterId> {
    any::<[u8; 16]>().prop_map(ClusterId)
}

fn proxy_id() -> impl Strategy<Value = ProxyId> {
    any::<[u8; 16]>().prop_map(ProxyId)
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

fn topic_type() -> impl Strategy<Value = TopicType> {
    use TopicType::{Delay, Fifo, Mixed, Normal, Transaction};
    prop::sample::select(vec![Normal, Fifo, Delay, Transaction, Mixed])
}

fn backoff() -> impl Strategy<Value = BackoffPolicy> {
    prop_oneof![
        vec(duration(), 0..4).prop_map(BackoffPolicy::Customized),
        (duration(), duration(), -1e9..1e9f64).prop_map(|(initial, max, multiplier)| BackoffPolicy::Exponential {
            initial,
            max,
            multiplier
        }),
    ]
}

fn placement() -> impl Strategy<Value = Placement> {
    let spread = (vec(any::<u32>().prop_map(StoreGroupId), 0..9), vec(any::<u32>().prop_map(QueueId), 0..9));
    prop_oneof![
        Just(Placement::EveryGroup),
        spread.prop_map(|(groups, lanes)| Placement::Spread {
            store_groups: groups.into(),
            message_group_queues: lanes.into()
        }),
    ]
}

prop_compose! {
    fn topic()(
        id: u32,
        name in topic_name(),
        topic_type in topic_type(),
        placement in placement(),
        dead_letter_of in option::of(group_name()),
        created_at in time(),
    ) -> Arc<Topic> {
        Arc::new(Topic { id: TopicId(id), name, topic_type, placement, dead_letter_of, created_at })
    }
}

prop_compose! {
    fn group()(
        id: u32,
        name in group_name(),
        fifo: bool,
        max_attempts: u32,
        backoff in backoff(),
        dead: u32,
        created_at in time(),
    ) -> Arc<ConsumerGroup> {
        let dead_letter_topic = TopicId(dead);
        Arc::new(ConsumerGroup { id: GroupId(id), name, fifo, max_attempts, backoff, dead_letter_topic, created_at })
    }
}

prop_compose! {
    fn store_group()(
        id: u32,
        name in store_group_name(),
        draining: bool,
        replicas in vec((folder(), shared_text()), 0..3),
        in_sync in vec(folder(), 0..3),
        leader in option::of(folder()),
        epoch: u32,
        created_at in time(),
    ) -> Arc<StoreGroup> {
        let closing = StoreGroupState::Closing(MetadataVersion(epoch.into()));
        let states = [StoreGroupState::Active, StoreGroupState::Draining, closing, StoreGroupState::Closed];
        let state = states[usize::from(draining) + 2 * (epoch as usize % 2)];
        let replicas = replicas.into_iter().map(|(folder, address)| Replica { folder, address }).collect();
        let (id, epoch) = (StoreGroupId(id), Epoch(epoch));
        Arc::new(StoreGroup { id, name, state, replicas, in_sync, leader, epoch, created_at })
    }
}

prop_compose! {
    fn proxy()(
        id in proxy_id(),
        address in shared_text(),
        version in shared_text(),
        joined_at in time(),
    ) -> Arc<ProxyMember> {
        Arc::new(ProxyMember { id, address, version, joined_at })
    }
}

fn command() -> impl Strategy<Value = MetadataCommand> {
    use MetadataCommand as C;
    let topics = prop_oneof![
        (topic_name(), topic_type(), any::<u32>()).prop_map(|(name, topic_type, queue_count)| C::CreateTopic {
            name,
            topic_type,
            queue_count
        }),
        (topic_name(), option::of(topic_type()), any::<Option<u32>>())
            .prop_map(|(name, topic_type, queue_count)| C::AlterTopic { name, topic_type, queue_count }),
        topic_name().prop_map(|name| C::DeleteTopic { name }),
        (option::of(topic_name()), any::<u32>()).prop_map(|(after, limit)| C::SpreadTopics { after, limit }),
    ];
    let groups = prop_oneof![
        (group_name(), any::<bool>(), any::<u32>(), backoff())
            .prop_map(|(name, fifo, max_attempts, backoff)| C::CreateGroup { name, fifo, max_attempts, backoff }),
        (group_name(), any::<Option<bool>>(), any::<Option<u32>>(), option::of(backoff()))
            .prop_map(|(name, fifo, max_attempts, backoff)| C::AlterGroup { name, fifo, max_attempts, backoff }),
        group_name().prop_map(|name| C::DeleteGroup { name }),
    ];
    let stores = prop_oneof![
        (store_group_name(), folder(), shared_text(), any::<u32>()).prop_map(|(group, folder, address, epoch)| {
            let (process, place, secret) =
                (ProcessId(folder.0), Some(PlaceId([7; 16])), GroupSecret([epoch as u8; 32]));
            C::JoinStore { store_group: group, folder, address, last_epoch: Epoch(epoch), process, place, secret }
        }),
        any::<(u32, u32)>()
            .prop_map(|(group, epoch)| C::EndStoreLease { store_group: StoreGroupId(group), epoch: Epoch(epoch) }),
        any::<(u32, u32, u64)>().prop_map(|(group, epoch, to)| C::NoteDurable {
            store_group: StoreGroupId(group),
            epoch: Epoch(epoch),
            to: LogOffset(to)
        }),
        known().prop_map(C::RaiseIds),
        store_group_name().prop_map(|name| C::DrainStoreGroup { name }),
        store_group_name().prop_map(|name| C::ActivateStoreGroup { name }),
        (store_group_name(), any::<bool>()).prop_map(|(name, force)| C::RemoveStoreGroup { name, force }),
        store_group_name().prop_map(|name| C::CloseStoreGroup { name }),
        any::<(u32, u32, u64)>().prop_map(|(group, epoch, since)| C::NoteClosed {
            store_group: StoreGroupId(group),
            epoch: Epoch(epoch),
            since: MetadataVersion(since)
        }),
    ];
    let others = prop_oneof![
        cluster().prop_map(|cluster| C::InitCluster { cluster }),
        (proxy_id(), shared_text(), shared_text()).prop_map(|(id, address, version)| C::JoinProxy {
            id,
            address,
            version
        }),
        proxy_id().prop_map(|id| C::RemoveProxy { id }),
        any::<u32>().prop_map(|to| C::RaiseRules { to }),
    ];
    prop_oneof![topics, groups, stores, others]
}

fn outcome() -> impl Strategy<Value = MetadataOutcome> {
    prop_oneof![
        topic().prop_map(MetadataOutcome::Topic),
        group().prop_map(MetadataOutcome::Group),
        Just(MetadataOutcome::Deleted),
        cluster().prop_map(MetadataOutcome::Cluster),
        store_group().prop_map(MetadataOutcome::StoreGroup),
        (any::<u32>(), option::of(topic_name())).prop_map(|(changed, next)| MetadataOutcome::Spread { changed, next }),
        proxy().prop_map(MetadataOutcome::Proxy),
        any::<u32>().prop_map(MetadataOutcome::Rules),
    ]
}

fn refusal() -> impl Strategy<Value = MetadataRefusal> {
    use MetadataRefusal as R;
    let invalid = prop_oneof![
        Just(InvalidBackoff::Empty),
        any::<usize>().prop_map(InvalidBackoff::TooMany),
        Just(InvalidBackoff::Multiplier),
        Just(InvalidBackoff::InitialAboveMax),
    ];
    let topics = prop_oneof![
        topic().prop_map(R::TopicExists),
        topic_name().prop_map(R::TopicNotFound),
        (topic_name(), any::<u32>(), any::<u32>()).prop_map(|(name, now, asked)| R::QueuesShrink { name, now, asked }),
        any::<(u32, u32)>().prop_map(|(asked, max)| R::QueueCount { asked, max }),
        topic_name().prop_map(R::DerivedTopic),
    ];
    let groups = prop_oneof![
        group().prop_map(R::GroupExists),
        group_name().prop_map(R::GroupNotFound),
        any::<(u32, u32)>().prop_map(|(asked, max)| R::MaxAttempts { asked, max }),
        invalid.prop_map(R::Backoff),
    ];
    let stores = prop_oneof![
        Just(R::NoStoreGroup),
        store_group_name().prop_map(R::StoreGroupNotFound),
        (folder(), store_group_name()).prop_map(|(folder, group)| R::FolderOfOtherGroup { folder, store_group: group }),
        (store_group_name(), folder(), folder()).prop_map(|(group, expected, found)| R::OtherFolder {
            store_group: group,
            expected,
            found
        }),
        (store_group_name(), folder(), any::<(u32, u32)>()).prop_map(|(group, folder, (led, found))| {
            R::OlderFolder { store_group: group, folder, led: Epoch(led), found: Epoch(found) }
        }),
        store_group_name().prop_map(R::LastStoreGroup),
        store_group_name().prop_map(R::StoreGroupActive),
        any::<(u32, u32)>().prop_map(|(now, asked)| R::Rules { now, asked }),
        store_group_name().prop_map(R::StoreGroupNotClosed),
    ];
    prop_oneof![topics, groups, stores]
}

fn lost() -> impl Strategy<Value = LostIds> {
    let ranges = || vec(any::<(u32, u32)>().prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..3);
    (ranges(), ranges()).prop_map(|(topics, groups)| LostIds { topics, groups })
}

fn known() -> impl Strategy<Value = KnownIds> {
    any::<(u32, u32, u32)>().prop_map(|(topic, group, store_group)| KnownIds {
        topic: TopicId(topic),
        group: GroupId(group),
        store_group: StoreGroupId(store_group),
    })
}

fn change() -> impl Strategy<Value = MetadataChange> {
    prop_oneof![
        Just(MetadataChange::Reset),
        (any::<u32>(), any::<u32>(), option::of(lost())).prop_map(|(topic, group, lost)| MetadataChange::Given {
            last_topic: TopicId(topic),
            last_group: GroupId(group),
            lost: lost.map(Arc::new),
        }),
        topic().prop_map(MetadataChange::TopicUpsert),
        any::<u32>().prop_map(|id| MetadataChange::TopicRemoved(TopicId(id))),
        group().prop_map(MetadataChange::GroupUpsert),
        any::<u32>().prop_map(|id| MetadataChange::GroupRemoved(GroupId(id))),
        cluster().prop_map(MetadataChange::ClusterInitialized),
        store_group().prop_map(MetadataChange::StoreGroupUpsert),
        any::<u32>().prop_map(|id| MetadataChange::StoreGroupRemoved(StoreGroupId(id))),
        proxy().prop_map(MetadataChange::ProxyUpsert),
        proxy_id().prop_map(MetadataChange::ProxyRemoved),
    ]
}

fn metadata_error() -> impl Strategy<Value = MetadataError> {
    prop_oneof![
        refusal().prop_map(MetadataError::Refused),
        text().prop_map(MetadataError::Unavailable),
        text().prop_map(MetadataError::Unknown),
    ]
}

fn membership_error() -> impl Strategy<Value = MembershipError> {
    prop_oneof![
        text().prop_map(MembershipError::Refused),
        (store_group_name(), any::<u32>(), duration()).prop_map(|(group, epoch, remaining)| {
            MembershipError::Held { store_group: group, epoch: Epoch(epoch), remaining }
        }),
        any::<(u32, u32)>().prop_map(|(group, epoch)| {
            MembershipError::Superseded { store_group: StoreGroupId(group), epoch: Epoch(epoch) }
        }),
        text().prop_map(MembershipError::Unavailable),
    ]
}

fn lease() -> impl Strategy<Value = StoreLease> {
    prop_oneof![duration().prop_map(StoreLease::For), Just(StoreLease::UntilSuperseded)]
}

fn positions() -> impl Strategy<Value = StorePositions> {
    any::<(u64, u64, u64)>().prop_map(|(retained, confirmed, appended)| StorePositions {
        retained_from: LogOffset(retained),
        confirmed_to: LogOffset(confirmed),
        appended_to: LogOffset(appended),
    })
}

prop_compose! {
    fn status()(
        cluster in option::of(cluster()),
        version: u64,
        controllers in vec((any::<u64>(), text(), any::<bool>(), any::<bool>(), any::<Option<u64>>()), 0..3),
        stores in vec(
            (store_group(), option::of(duration()), option::of(time()), positions(), shared_text()),
            0..3,
        ),
        proxies in vec((proxy(), option::of(duration()), any::<u32>()), 0..3),
    ) -> ClusterStatus {
        ClusterStatus {
            cluster,
            version: MetadataVersion(version),
            controllers: (controllers.into_iter())
                .map(|(id, address, leader, voter, matched)| ControllerStatus { id, address, leader, voter, matched })
                .collect(),
            stores: (stores.into_iter())
                .map(|(group, heard, leading_since, positions, version)| {
                    StoreStatus { store_group: group, heard, leading_since, positions, version }
                })
                .collect(),
            proxies: (proxies.into_iter())
                .map(|(proxy, heard, sessions)| ProxyStatus { proxy, heard, sessions })
                .collect(),
        }
    }
}

proptest! {
    #[test]
    fn commands_arrive_as_they_were_sent(command in command()) {
        arrives(&command)?;
    }

    #[test]
    fn outcomes_refusals_and_errors_arrive_as_they_were_given(
        outcome in outcome(),
        refusal in refusal(),
        metadata in metadata_error(),
        membership in membership_error(),
    ) {
        arrives(&outcome)?;
        arrives(&refusal)?;
        arrives(&metadata)?;
        arrives(&membership)?;
    }

    #[test]
    fn changes_arrive_as_they_happened(change in change()) {
        arrives(&change)?;
    }

    #[test]
    fn calls_of_members_arrive_as_they_were_sent(
        (group, folder, cluster) in (store_group_name(), folder(), option::of(cluster())),
        (address, version) in (shared_text(), shared_text()),
        (number, epoch) in any::<(u32, u32)>(),
        positions in positions(),
        proxy in proxy_id(),
        controller: u64,
        add: bool,
        (known, durable_to, accept_missing) in (known(), any::<u64>(), any::<bool>()),
    ) {
        let report = StoreReport { known, durable_to: LogOffset(durable_to), accept_missing };
        let (text, epoch) = (address.to_string(), Epoch(epoch));
        let (at, of) = (address.clone(), version.clone());
        for (place, report) in [(None, None), (Some(PlaceId([6; 16])), Some(report))] {
            let (group, address, version, process) = (group.clone(), at.clone(), of.clone(), ProcessId([5; 16]));
            let last_epoch = epoch;
            arrives(&JoinStoreRequest { store_group: group, folder, cluster, address, last_epoch, version, process, place, report })?;
        }
        for (closed, report) in [(None, None), (Some(MetadataVersion(controller)), Some(report))] {
            arrives(&RenewStoreLeaseRequest { store_group: StoreGroupId(number), epoch, positions, closed, report })?;
        }
        arrives(&ProxyAliveRequest { id: proxy, address, version, sessions: number })?;
        let change = match add {
            true => ControllerChange::Add { id: controller, address: text },
            false => ControllerChange::Remove { id: controller },
        };
        arrives(&change)?;
    }

    #[test]
    fn answers_to_members_arrive_as_they_were_given(
        (cluster, group, epoch) in (cluster(), any::<u32>(), any::<u32>()),
        lease in lease(),
        status in status(),
    ) {
        arrives(&lease)?;
        for previous in [None, Some(PreviousLeader { folder: FolderId([4; 16]), epoch: Epoch(group) })] {
            let (group, epoch, secret) = (StoreGroupId(group), Epoch(epoch), GroupSecret([8; 32]));
            let grant = StoreGrant { cluster, store_group: group, epoch, lease, previous, secret };
            arrives(&grant)?;
            arrives(&Ok::<_, MembershipError>(grant))?;
        }
        arrives(&status)?;
        arrives(&Ok::<_, MembershipError>(lease))?;
        arrives(&Ok::<_, MembershipError>(Duration::from_millis(epoch.into())))?;
        arrives(&Ok::<_, MetadataError>(status))?;
    }

    #[test]
    fn answers_of_every_call_arrive_as_they_were_given(
        outcome in outcome(),
        version: u64,
        metadata in metadata_error(),
        membership in membership_error(),
    ) {
        arrives(&Ok::<_, MetadataError>((MetadataVersion(version), outcome)))?;
        arrives(&Ok::<(), MetadataError>(()))?;
        arrives(&Ok::<(), MembershipError>(()))?;
        // Errors cannot be copied; what arrives is shown the same.
        let metadata = || arrived(&metadata);
        arrives(&Err::<(MetadataVersion, MetadataOutcome), _>(metadata()))?;
        arrives(&Err::<ClusterStatus, _>(metadata()))?;
        arrives(&Err::<(), _>(metadata()))?;
        arrives(&Err::<StoreGrant, _>(membership.clone()))?;
        arrives(&Err::<StoreLease, _>(membership.clone()))?;
        arrives(&Err::<Duration, _>(membership.clone()))?;
        arrives(&Err::<(), _>(membership))?;
    }

    /// Neither a panic nor, but by rare chance, a value.
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_anything(&bytes);
    }

    #[test]
    fn bytes_that_were_changed_are_read_without_a_panic(
        command in command(),
        change in change(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        for mut bytes in [command.to_wire().encode_to_vec(), change.to_wire().encode_to_vec()] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            read_anything(&bytes);
            read_anything(&bytes[..at]);
        }
    }
}

#[test]
fn what_is_missing_or_unknown_is_malformed() {
    use crate::wire::controller::v1 as wire;
    assert!(MetadataCommand::from_wire(wire::MetadataCommand::default()).is_err());
    assert!(MetadataChange::from_wire(wire::MetadataChange::default()).is_err());
    assert!(Topic::from_wire(wire::Topic { name: "a".to_owned(), r#type: 1, ..wire::Topic::default() }).is_err());
    assert!(TopicType::from_wire(0).is_err() && TopicType::from_wire(99).is_err());
    assert!(FolderId::from_wire(Bytes::from_static(&[0; 15])).is_err());
    assert!(StoreGroupName::from_wire("a b".to_owned()).is_err());
}
