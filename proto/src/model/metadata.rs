//! The metadata's vocabulary: what can be asked ([`MetadataCommand`]), what then changes ([`MetadataChange`]), and the
//! picture that proxies and stores keep from the changes ([`MetadataView`]).

use super::{
    BackoffPolicy, ClusterId, ConsumerGroup, Epoch, FolderId, GroupId, GroupName, GroupSecret, InvalidBackoff,
    LogOffset, PlaceId, Placement, ProcessId, ProxyId, ProxyMember, QueueId, StoreGroup, StoreGroupId, StoreGroupName,
    StoreGroupState, Topic, TopicId, TopicName, TopicType,
};
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts applied commands. Grows by one with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataVersion(pub u64);

/// Everything that can change metadata. Closed: what is not here cannot happen.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataCommand {
    CreateTopic {
        name: TopicName,
        topic_type: TopicType,
        /// Its queues, 1 to [`super::limits::QUEUE_COUNT_MAX`].
        queue_count: u32,
    },
    AlterTopic {
        name: TopicName,
        /// New type, if any.
        topic_type: Option<TopicType>,
        /// New number of queues, if any. Not smaller than now.
        queue_count: Option<u32>,
    },
    /// Removes a topic. Its messages go with their segments.
    DeleteTopic { name: TopicName },
    /// Creates a consumer group and its dead-letter topic.
    CreateGroup {
        name: GroupName,
        /// Ordered delivery.
        fifo: bool,
        /// At least 1.
        max_attempts: u32,
        backoff: BackoffPolicy,
    },
    AlterGroup {
        name: GroupName,
        /// New order, if any.
        fifo: Option<bool>,
        /// New bound, if any.
        max_attempts: Option<u32>,
        /// New policy, if any.
        backoff: Option<BackoffPolicy>,
    },
    /// Removes a group, its progress and its dead-letter topic.
    DeleteGroup { name: GroupName },
    /// Gives the cluster its identity, unless it has one.
    InitCluster { cluster: ClusterId },
    /// Makes a store the leader of its group, with a new epoch. A group that is not there is created, with it as the only
    /// replica.
    JoinStore {
        store_group: StoreGroupName,
        folder: FolderId,
        /// Where proxies reach it.
        address: Arc<str>,
        /// The last epoch in which the folder was written. The new one is greater.
        last_epoch: Epoch,
        process: ProcessId,
        /// Where it holds the folder's lock, if that is known.
        place: Option<PlaceId>,
        /// The group's secret if it is created. Drawn by whoever proposes.
        secret: GroupSecret,
    },
    /// Notes that a leadership has begun: from now on the group's folder knows its epoch. Changes nothing if it is over.
    NoteLeading { store_group: StoreGroupId, epoch: Epoch },
    /// Ends the lease of a leader. Changes nothing if the epoch is over.
    EndStoreLease {
        store_group: StoreGroupId,
        /// The leadership that ended.
        epoch: Epoch,
    },
    /// Notes up to where the log of a store group's leader is durable. Changes nothing if the epoch is over.
    NoteDurable { store_group: StoreGroupId, epoch: Epoch, to: LogOffset },
    /// Gives none of these identities, and none before them, any more: somebody knows of them although the controller does
    /// not, because it was put back to an earlier state.
    RaiseIds(KnownIds),
    /// Takes a store group out of use: see [`StoreGroupState::Draining`].
    DrainStoreGroup { name: StoreGroupName },
    /// Takes a draining store group into use again.
    ActivateStoreGroup { name: StoreGroupName },
    /// Closes a draining store group: see [`StoreGroupState::Closing`]. Draining or activating it opens it again.
    CloseStoreGroup { name: StoreGroupName },
    /// Notes that the leader of a closing store group takes no messages and holds none. Changes nothing if the leadership
    /// is over, or the group was opened since.
    NoteClosed {
        store_group: StoreGroupId,
        epoch: Epoch,
        /// Since which version it is closing.
        since: MetadataVersion,
    },
    /// Forgets a store group that is closed.
    RemoveStoreGroup {
        name: StoreGroupName,
        /// Even if it is not closed, with all that it still holds. Not while it is active.
        force: bool,
    },
    /// Gives topics new queues on active store groups that have too few of them, and moves message groups off draining ones.
    /// A page of topics at a time, by name.
    SpreadTopics {
        /// Only topics whose name is greater.
        after: Option<TopicName>,
        /// At most this many topics are looked at, at least 1.
        limit: u32,
    },
    /// Adds a proxy, or changes what is known of it.
    JoinProxy {
        id: ProxyId,
        /// Where clients reach it.
        address: Arc<str>,
        version: Arc<str>,
    },
    /// Removes a proxy that is gone.
    RemoveProxy { id: ProxyId },
    /// From now on commands are decided by these rules. The leading controller asks for it once all members know them.
    RaiseRules { to: u32 },
}

impl MetadataCommand {
    /// The rules that whoever carries this out must know.
    pub fn rules(&self) -> u32 {
        match self {
            MetadataCommand::RaiseRules { to } => *to,
            MetadataCommand::NoteDurable { .. } | MetadataCommand::RaiseIds(_) => 2,
            _ => 1,
        }
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataOutcome {
    /// The topic as it is now.
    Topic(Arc<Topic>),
    /// The group as it is now.
    Group(Arc<ConsumerGroup>),
    Deleted,
    Cluster(ClusterId),
    /// The store group as it is now.
    StoreGroup(Arc<StoreGroup>),
    /// A page of topics was spread.
    Spread {
        /// How many of them changed.
        changed: u32,
        /// Where the next page begins. `None`: this was the last one.
        next: Option<TopicName>,
    },
    /// The proxy as it is now.
    Proxy(Arc<ProxyMember>),
    /// The rules that are in force now.
    Rules(u32),
    /// Up to where no identity is given any more.
    Ids(KnownIds),
}

/// Why a command changed nothing. Deterministic: every replica refuses alike.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetadataRefusal {
    #[error("topic {} exists already", .0.name)]
    TopicExists(Arc<Topic>),
    #[error("consumer group {} exists already", .0.name)]
    GroupExists(Arc<ConsumerGroup>),
    /// It does not exist.
    #[error("topic {0} does not exist")]
    TopicNotFound(TopicName),
    /// It does not exist.
    #[error("consumer group {0} does not exist")]
    GroupNotFound(GroupName),
    /// Queues never disappear.
    #[error("topic {name} has {now} queues; their number can grow but not shrink to {asked}")]
    QueuesShrink { name: TopicName, now: u32, asked: u32 },
    #[error("{asked} queues are not possible; choose 1 to {max}")]
    QueueCount { asked: u32, max: u32 },
    #[error("{asked} delivery attempts are not possible; choose 1 to {max}")]
    MaxAttempts { asked: u32, max: u32 },
    /// A name that only the server uses.
    #[error("topic {0} belongs to a consumer group; change or delete the group instead")]
    DerivedTopic(TopicName),
    /// A policy that cannot be told to clients.
    #[error("the backoff policy is not possible: {0}")]
    Backoff(#[from] InvalidBackoff),
    /// Queues must be somewhere.
    #[error("no store group takes new queues: start a store, or activate one that is draining")]
    NoStoreGroup,
    /// It does not exist.
    #[error("store group {0} does not exist")]
    StoreGroupNotFound(StoreGroupName),
    /// The folder belongs elsewhere.
    #[error("the data folder {folder} belongs to store group {store_group}; give each store group a folder of its own")]
    FolderOfOtherGroup {
        folder: FolderId,
        /// Where it belongs.
        store_group: StoreGroupName,
    },
    /// The group's data are in another folder.
    #[error(
        "store group {store_group} has its data in the folder {expected}, not in {found}; start it with that folder. If that is \
         lost, so are its messages: start the new one with another --group, then give up the lost one with `gantry admin \
         cluster drain {store_group}` and `gantry admin cluster remove {store_group} --force`"
    )]
    OtherFolder {
        store_group: StoreGroupName,
        /// Where its data are.
        expected: FolderId,
        found: FolderId,
    },
    /// The folder was put back to an older state.
    #[error(
        "the data folder {folder} is an older copy: store group {store_group} was led from it in epoch {led}, and this one knows \
         of epoch {found} only. What was stored since then is not in it; start the store with the folder as it was last used. If \
         this is the right one after all, and a copy of it led meanwhile, `gantry repair put-back` with --led {led} lets it be \
         used again, without what the copy stored"
    )]
    OlderFolder {
        store_group: StoreGroupName,
        folder: FolderId,
        /// The last epoch in which it is known to have led.
        led: Epoch,
        /// What it knows of.
        found: Epoch,
    },
    /// Somebody has to take the messages.
    #[error("store group {0} is the last active one: add another one before this one is drained")]
    LastStoreGroup(StoreGroupName),
    /// Its store has not confirmed that it holds nothing.
    #[error("the store of store group {0} has not confirmed that it takes no messages and holds none")]
    StoreGroupNotClosed(StoreGroupName),
    /// It is in use.
    #[error("store group {0} is active: drain it before it is removed")]
    StoreGroupActive(StoreGroupName),
    /// They never go back, and nobody chooses them.
    #[error("commands are decided by rules {now}; rules {asked} come when all members of the controller know them")]
    Rules {
        /// What is in force.
        now: u32,
        asked: u32,
    },
}

/// One step of the watched stream.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataChange {
    /// A snapshot of everything follows as changes of this same version. It replaces the picture, and by itself says of
    /// nothing that it was removed: see [`MetadataChange::Given`].
    Reset,
    /// The last identities that were given: part of a snapshot, or because they were raised. What was given and is not in
    /// the picture was removed, unless it is among the lost.
    Given {
        /// Of topics.
        last_topic: TopicId,
        /// Of consumer groups.
        last_group: GroupId,
        /// Those of which the controller does not know what became of them.
        lost: Option<Arc<LostIds>>,
    },
    /// A topic is new or different.
    TopicUpsert(Arc<Topic>),
    /// A topic is gone.
    TopicRemoved(TopicId),
    /// A group is new or different.
    GroupUpsert(Arc<ConsumerGroup>),
    /// A group is gone.
    GroupRemoved(GroupId),
    /// The cluster has an identity.
    ClusterInitialized(ClusterId),
    /// A store group is new or different.
    StoreGroupUpsert(Arc<StoreGroup>),
    /// A store group is gone.
    StoreGroupRemoved(StoreGroupId),
    /// A proxy is new or different.
    ProxyUpsert(Arc<ProxyMember>),
    /// A proxy is gone.
    ProxyRemoved(ProxyId),
    /// A newer controller said what this version cannot read: of this topic or group, or of who knows what. It removes
    /// nothing. Only a watcher makes it of what it gets.
    NotUnderstood(Option<Removed>),
}

/// The largest identities that somebody knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownIds {
    /// Of topics.
    pub topic: TopicId,
    /// Of consumer groups.
    pub group: GroupId,
    /// Of store groups.
    pub store_group: StoreGroupId,
}

impl KnownIds {
    /// The larger of each.
    #[must_use]
    pub fn max(self, other: KnownIds) -> KnownIds {
        KnownIds {
            topic: self.topic.max(other.topic),
            group: self.group.max(other.group),
            store_group: self.store_group.max(other.store_group),
        }
    }
}

/// Identities that were given by a history that the controller does not have: it was put back to an earlier state. Nobody
/// knows what became of them, so they never count as removed. Ascending, and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostIds {
    /// Of topics.
    pub topics: Vec<RangeInclusive<u32>>,
    /// Of consumer groups.
    pub groups: Vec<RangeInclusive<u32>>,
}

impl LostIds {
    /// Whether this is one of them.
    pub fn holds(&self, identity: Removed) -> bool {
        let (ranges, id) = match identity {
            Removed::Topic(id) => (&self.topics, id.0),
            Removed::Group(id) => (&self.groups, id.0),
        };
        ranges.iter().any(|range| range.contains(&id))
    }
}

/// What can be deleted for good: identities are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Removed {
    Topic(TopicId),
    Group(GroupId),
}

/// What those hear who keep something about topics and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// This was just deleted.
    Of(Removed),
    /// A snapshot came, and deletions may lie between it and what was known: ask [`MetadataView::knows_removed`] about
    /// everything that is kept.
    LookAgain,
}

/// What came of applying changes to a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewUpdate {
    /// They are in the picture.
    Forwards,
    /// They are in the picture, which is older than it was: the controller was put back to an earlier state. Nothing counts
    /// as removed because such a picture does not name it.
    Backwards {
        /// The latest version that was seen.
        newest: MetadataVersion,
    },
    /// They speak of another cluster, or of one that was not founded yet: nothing was applied.
    OtherCluster {
        /// Whose metadata these are.
        known: ClusterId,
        found: Option<ClusterId>,
    },
}

/// The metadata as a proxy or a store last saw it. Many read, one (the watch task) applies.
///
/// What must always hold: only an explicit deletion removes. A snapshot that merely names less (of an empty controller, of
/// one restored from a backup, of another cluster) does not.
pub struct MetadataView {
    inner: RwLock<Picture>,
    /// A copy of the picture's, to be looked at without the lock.
    store_groups_revision: AtomicU64,
    version: tokio::sync::watch::Sender<MetadataVersion>,
    removed: tokio::sync::broadcast::Sender<Removal>,
}

/// Removals that a subscriber may be behind before it misses some.
const REMOVED_BACKLOG_MAX: usize = 4096;

impl Default for MetadataView {
    fn default() -> MetadataView {
        MetadataView {
            inner: RwLock::default(),
            store_groups_revision: AtomicU64::default(),
            version: tokio::sync::watch::Sender::default(),
            removed: tokio::sync::broadcast::Sender::new(REMOVED_BACKLOG_MAX),
        }
    }
}

#[derive(Default)]
struct Picture {
    topics: HashMap<TopicName, Arc<Topic>>,
    topics_by_id: HashMap<TopicId, Arc<Topic>>,
    groups: HashMap<GroupName, Arc<ConsumerGroup>>,
    groups_by_id: HashMap<GroupId, Arc<ConsumerGroup>>,
    cluster: Option<ClusterId>,
    store_groups: BTreeMap<StoreGroupId, Arc<StoreGroup>>,
    proxies: BTreeMap<ProxyId, Arc<ProxyMember>>,
    /// Counts changes of store groups.
    store_groups_revision: u64,
    /// The last identities given, once a snapshot has told.
    given: Option<(TopicId, GroupId)>,
    /// Those among them of which the controller knows nothing.
    lost: Option<Arc<LostIds>>,
    /// The largest identities ever seen, also in pictures that were replaced.
    seen: KnownIds,
    /// What exists, but is described by a newer controller in a way that this version cannot read.
    not_understood: HashSet<Removed>,
    /// Since the last snapshot began something could not be read that may have been a topic or a group.
    left_out: bool,
    version: MetadataVersion,
    /// The latest version ever applied.
    newest: MetadataVersion,
}

impl MetadataView {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.inner.read().topics.get(name).cloned()
    }

    /// The topic of that identity.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.inner.read().topics_by_id.get(&id).cloned()
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<Arc<ConsumerGroup>> {
        self.inner.read().groups.get(name).cloned()
    }

    /// The group of that identity.
    pub fn group_by_id(&self, id: GroupId) -> Option<Arc<ConsumerGroup>> {
        self.inner.read().groups_by_id.get(&id).cloned()
    }

    /// All topics whose name starts with `prefix` and is greater than `after`, sorted, at most `limit`.
    pub fn topics_page(&self, prefix: &str, after: &str, limit: usize) -> Vec<Arc<Topic>> {
        let mut page: Vec<Arc<Topic>> = (self.inner.read().topics.values())
            .filter(|t| t.name.as_str().starts_with(prefix) && t.name.as_str() > after)
            .cloned()
            .collect();
        page.sort_by(|a, b| a.name.cmp(&b.name));
        page.truncate(limit);
        page
    }

    /// All groups whose name starts with `prefix` and is greater than `after`, sorted, at most `limit`.
    pub fn groups_page(&self, prefix: &str, after: &str, limit: usize) -> Vec<Arc<ConsumerGroup>> {
        let mut page: Vec<Arc<ConsumerGroup>> = (self.inner.read().groups.values())
            .filter(|g| g.name.as_str().starts_with(prefix) && g.name.as_str() > after)
            .cloned()
            .collect();
        page.sort_by(|a, b| a.name.cmp(&b.name));
        page.truncate(limit);
        page
    }

    /// How many topics and groups there are.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.inner.read();
        (inner.topics.len(), inner.groups.len())
    }

    /// The cluster's identity, once it has one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner.read().cluster
    }

    /// All store groups, in order.
    pub fn store_groups(&self) -> Vec<Arc<StoreGroup>> {
        self.inner.read().store_groups.values().cloned().collect()
    }

    /// The store group of that identity.
    pub fn store_group(&self, id: StoreGroupId) -> Option<Arc<StoreGroup>> {
        self.inner.read().store_groups.get(&id).cloned()
    }

    /// Changes whenever a store group does: what was derived from them is then out of date. Takes no lock; below 2^63.
    pub fn store_groups_revision(&self) -> u64 {
        self.store_groups_revision.load(Ordering::Acquire)
    }

    pub fn proxies(&self) -> Vec<Arc<ProxyMember>> {
        self.inner.read().proxies.values().cloned().collect()
    }

    /// A topic's queues on store groups that exist, in order, each with its group.
    pub fn queues_of(&self, topic: &Topic) -> Vec<(QueueId, Arc<StoreGroup>)> {
        let inner = self.inner.read();
        let newest = inner.store_groups.keys().next_back().copied().unwrap_or_default();
        let queues = (0..topic.placement.queue_count(newest)).map(QueueId);
        let placed = |queue| Some((queue, inner.store_groups.get(&topic.placement.store_group(queue)?)?.clone()));
        queues.filter_map(placed).collect()
    }

    /// The queues that take a topic's messages: those on active store groups, or else all there are.
    pub fn writable_queues_of(&self, topic: &Topic) -> Vec<(QueueId, Arc<StoreGroup>)> {
        let all = self.queues_of(topic);
        let active = |(_, group): &&(QueueId, Arc<StoreGroup>)| group.state == StoreGroupState::Active;
        let writable: Vec<_> = all.iter().filter(active).cloned().collect();
        if writable.is_empty() { all } else { writable }
    }

    /// Whether some queue of the topic is on an active store group. If so, its queues on other groups take no messages.
    pub fn has_active_queue(&self, topic: &Topic) -> bool {
        let inner = self.inner.read();
        let active = |group: &StoreGroup| group.state == StoreGroupState::Active;
        match &topic.placement {
            Placement::Spread { store_groups: groups, .. } => {
                groups.iter().any(|id| inner.store_groups.get(id).is_some_and(|group| active(group)))
            }
            Placement::EveryGroup => inner.store_groups.values().any(|group| active(group)),
        }
    }

    /// Applies the changes of one version and then publishes the version, unless they are of another cluster.
    pub fn apply(&self, version: MetadataVersion, changes: &[MetadataChange]) -> ViewUpdate {
        let mut inner = self.inner.write();
        if let Some(other) = inner.other_cluster(changes) {
            return other;
        }
        for change in changes {
            inner.apply(change);
        }
        let newest = inner.newest;
        inner.version = version;
        inner.newest = newest.max(version);
        // Before the lock is given up: whoever sees the new revision and then looks sees the new groups.
        self.store_groups_revision.store(inner.store_groups_revision, Ordering::Release);
        drop(inner);
        self.version.send_replace(version);
        for removal in changes.iter().filter_map(MetadataChange::removal) {
            // Without subscribers nobody has to forget anything.
            let _ = self.removed.send(removal);
        }
        if version < newest { ViewUpdate::Backwards { newest } } else { ViewUpdate::Forwards }
    }

    /// Whether this exists, but is described by a newer controller in a way that this version cannot read.
    pub fn not_understood(&self, identity: Removed) -> bool {
        self.inner.read().not_understood.contains(&identity)
    }

    /// Whether this was deleted: it was given once and is not there any more, and the picture is the latest one seen, with
    /// nothing left out that could be it.
    pub fn knows_removed(&self, identity: Removed) -> bool {
        let inner = self.inner.read();
        let Some((last_topic, last_group)) = inner.given.filter(|_| inner.version >= inner.newest) else {
            return false;
        };
        if inner.left_out || inner.not_understood.contains(&identity) {
            return false;
        }
        if inner.lost.as_ref().is_some_and(|lost| lost.holds(identity)) {
            return false;
        }
        match identity {
            Removed::Topic(id) => id <= last_topic && !inner.topics_by_id.contains_key(&id),
            Removed::Group(id) => id <= last_group && !inner.groups_by_id.contains_key(&id),
        }
    }

    /// The largest identities that were ever seen here, whatever the controller says now.
    pub fn known_ids(&self) -> KnownIds {
        self.inner.read().seen
    }

    /// What is removed from now on.
    pub fn removals(&self) -> tokio::sync::broadcast::Receiver<Removal> {
        self.removed.subscribe()
    }

    /// The last version applied.
    pub fn version(&self) -> MetadataVersion {
        *self.version.borrow()
    }

    /// Waits until `version` has been applied here. Cancel-safe.
    pub async fn reached(&self, version: MetadataVersion) {
        // The sender lives in `self`, so the wait cannot end for any other reason.
        let _ = self.version.subscribe().wait_for(|seen| *seen >= version).await;
    }
}

impl MetadataChange {
    fn removal(&self) -> Option<Removal> {
        match self {
            MetadataChange::TopicRemoved(id) => Some(Removal::Of(Removed::Topic(*id))),
            MetadataChange::GroupRemoved(id) => Some(Removal::Of(Removed::Group(*id))),
            MetadataChange::Reset => Some(Removal::LookAgain),
            _ => None,
        }
    }
}

impl Picture {
    /// Whether the changes are of another cluster than the picture.
    fn other_cluster(&self, changes: &[MetadataChange]) -> Option<ViewUpdate> {
        let known = self.cluster?;
        let found = changes.iter().rev().find_map(|change| match change {
            MetadataChange::ClusterInitialized(cluster) => Some(*cluster),
            _ => None,
        });
        let same = match found {
            Some(found) => found == known,
            None => !changes.contains(&MetadataChange::Reset),
        };
        (!same).then_some(ViewUpdate::OtherCluster { known, found })
    }

    fn apply(&mut self, change: &MetadataChange) {
        match change {
            MetadataChange::Reset => {
                let store_groups_revision = self.store_groups_revision + 1;
                let (newest, seen) = (self.newest, self.seen);
                *self = Picture { store_groups_revision, newest, seen, ..Picture::default() };
            }
            MetadataChange::Given { last_topic, last_group, lost } => {
                self.given = Some((*last_topic, *last_group));
                self.lost = lost.clone();
                let given = KnownIds { topic: *last_topic, group: *last_group, ..KnownIds::default() };
                self.seen = self.seen.max(given);
            }
            MetadataChange::ClusterInitialized(cluster) => self.cluster = Some(*cluster),
            MetadataChange::StoreGroupUpsert(group) => {
                self.store_groups.insert(group.id, group.clone());
                self.store_groups_revision += 1;
                self.seen.store_group = self.seen.store_group.max(group.id);
            }
            MetadataChange::StoreGroupRemoved(id) => {
                self.store_groups.remove(id);
                self.store_groups_revision += 1;
            }
            MetadataChange::ProxyUpsert(proxy) => {
                self.proxies.insert(proxy.id, proxy.clone());
            }
            MetadataChange::ProxyRemoved(id) => {
                self.proxies.remove(id);
            }
            MetadataChange::TopicUpsert(topic) => {
                self.saw(Removed::Topic(topic.id));
                self.not_understood.remove(&Removed::Topic(topic.id));
                self.topics.insert(topic.name.clone(), topic.clone());
                self.topics_by_id.insert(topic.id, topic.clone());
            }
            MetadataChange::TopicRemoved(id) => self.drop(Removed::Topic(*id)),
            MetadataChange::GroupUpsert(group) => {
                self.saw(Removed::Group(group.id));
                self.not_understood.remove(&Removed::Group(group.id));
                self.groups.insert(group.name.clone(), group.clone());
                self.groups_by_id.insert(group.id, group.clone());
            }
            MetadataChange::GroupRemoved(id) => self.drop(Removed::Group(*id)),
            MetadataChange::NotUnderstood(Some(identity)) => {
                // What was known of it does not hold any more.
                self.drop(*identity);
                self.saw(*identity);
                self.not_understood.insert(*identity);
            }
            MetadataChange::NotUnderstood(None) => self.left_out = true,
        }
    }

    /// This identity was given.
    fn saw(&mut self, identity: Removed) {
        match identity {
            Removed::Topic(id) => self.seen.topic = self.seen.topic.max(id),
            Removed::Group(id) => self.seen.group = self.seen.group.max(id),
        }
        if let Some((last_topic, last_group)) = &mut self.given {
            match identity {
                Removed::Topic(id) => *last_topic = id.max(*last_topic),
                Removed::Group(id) => *last_group = id.max(*last_group),
            }
        }
    }

    /// Takes it out of the picture.
    fn drop(&mut self, identity: Removed) {
        self.not_understood.remove(&identity);
        match identity {
            Removed::Topic(id) => {
                if let Some(topic) = self.topics_by_id.remove(&id)
                    && self.topics.get(&topic.name).is_some_and(|named| named.id == id)
                {
                    self.topics.remove(&topic.name);
                }
            }
            Removed::Group(id) => {
                if let Some(group) = self.groups_by_id.remove(&id)
                    && self.groups.get(&group.name).is_some_and(|named| named.id == id)
                {
                    self.groups.remove(&group.name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn topic(id: u32) -> MetadataChange {
        MetadataChange::TopicUpsert(Arc::new(Topic {
            id: TopicId(id),
            name: TopicName::parse(&format!("topic-{id}")).unwrap(),
            topic_type: TopicType::Normal,
            placement: Placement::spread(1, &[StoreGroupId(1)], 0),
            dead_letter_of: None,
            created_at: Timestamp::ZERO,
        }))
    }

    fn given(last_topic: u32) -> MetadataChange {
        MetadataChange::Given { last_topic: TopicId(last_topic), last_group: GroupId(0), lost: None }
    }

    fn founded(cluster: u8) -> MetadataChange {
        MetadataChange::ClusterInitialized(ClusterId([cluster; 16]))
    }

    /// A view of topics 1 and 2 of cluster 1 at version 10, topic 3 having been deleted.
    fn view() -> MetadataView {
        let view = MetadataView::default();
        let changes = [MetadataChange::Reset, founded(1), given(3), topic(1), topic(2)];
        assert_eq!(view.apply(MetadataVersion(10), &changes), ViewUpdate::Forwards);
        view
    }

    fn removed(view: &MetadataView) -> Vec<u32> {
        (1..=6).filter(|id| view.knows_removed(Removed::Topic(TopicId(*id)))).collect()
    }

    #[test]
    fn what_was_deleted_while_nobody_watched_is_known_from_the_next_snapshot() {
        let view = view();
        assert_eq!(removed(&view), [3]);
        let mut removals = view.removals();
        view.apply(MetadataVersion(20), &[MetadataChange::Reset, founded(1), given(5), topic(2), topic(5)]);
        assert_eq!(removed(&view), [1, 3, 4]);
        assert_eq!(removals.try_recv(), Ok(Removal::LookAgain));
        assert!(removals.try_recv().is_err());
    }

    #[test]
    fn a_deletion_is_told_and_known() {
        let view = view();
        let mut removals = view.removals();
        view.apply(MetadataVersion(11), &[topic(4)]);
        view.apply(MetadataVersion(12), &[MetadataChange::TopicRemoved(TopicId(4))]);
        assert_eq!(removals.try_recv(), Ok(Removal::Of(Removed::Topic(TopicId(4)))));
        assert_eq!(removed(&view), [3, 4]);
    }

    #[test]
    fn an_older_snapshot_removes_nothing_until_it_has_caught_up() {
        let view = view();
        let older = [MetadataChange::Reset, founded(1), given(2), topic(1)];
        assert_eq!(view.apply(MetadataVersion(9), &older), ViewUpdate::Backwards { newest: MetadataVersion(10) });
        assert_eq!(removed(&view), []);
        assert!(view.topic_by_id(TopicId(1)).is_some() && view.topic_by_id(TopicId(2)).is_none());
        view.apply(MetadataVersion(10), &[founded(1)]);
        assert_eq!(removed(&view), [2]);
    }

    #[test]
    fn a_snapshot_that_does_not_say_what_was_given_removes_nothing() {
        let view = view();
        view.apply(MetadataVersion(11), &[MetadataChange::Reset, founded(1)]);
        assert_eq!(removed(&view), []);
    }

    fn not_understood(id: u32) -> MetadataChange {
        MetadataChange::NotUnderstood(Some(Removed::Topic(TopicId(id))))
    }

    #[test]
    fn what_is_not_understood_is_not_removed() {
        let view = view();
        let newer = [MetadataChange::Reset, founded(1), given(5), not_understood(1), topic(2)];
        view.apply(MetadataVersion(20), &newer);
        assert_eq!(removed(&view), [3, 4, 5]);
        assert!(view.not_understood(Removed::Topic(TopicId(1))) && view.topic_by_id(TopicId(1)).is_none());
        // One that is new, and one that was understood before.
        view.apply(MetadataVersion(21), &[not_understood(6), not_understood(2)]);
        assert_eq!(removed(&view), [3, 4, 5]);
        assert!(view.topic_by_id(TopicId(2)).is_none() && view.topic("topic-2").is_none());
        view.apply(MetadataVersion(22), &[topic(1), MetadataChange::TopicRemoved(TopicId(2))]);
        assert_eq!(removed(&view), [2, 3, 4, 5]);
        assert!(!view.not_understood(Removed::Topic(TopicId(1))) && view.topic_by_id(TopicId(1)).is_some());
    }

    #[test]
    fn a_picture_with_something_left_out_removes_nothing_until_the_next_whole_one() {
        let left_out = MetadataChange::NotUnderstood(None);
        let snapshots = [
            [MetadataChange::Reset, left_out.clone(), founded(1), given(5), topic(2)],
            [MetadataChange::Reset, founded(1), given(5), topic(2), left_out],
        ];
        for snapshot in snapshots {
            let view = view();
            view.apply(MetadataVersion(20), &snapshot);
            view.apply(MetadataVersion(21), &[given(6)]);
            assert_eq!(removed(&view), []);
            view.apply(MetadataVersion(22), &[MetadataChange::Reset, founded(1), given(5), topic(2)]);
            assert_eq!(removed(&view), [1, 3, 4, 5]);
        }
    }

    #[test]
    fn another_cluster_is_not_believed() {
        let view = view();
        let known = ClusterId([1; 16]);
        let other = [MetadataChange::Reset, founded(2), given(9)];
        let found = Some(ClusterId([2; 16]));
        assert_eq!(view.apply(MetadataVersion(99), &other), ViewUpdate::OtherCluster { known, found });
        let empty = [MetadataChange::Reset, given(0)];
        assert_eq!(view.apply(MetadataVersion(0), &empty), ViewUpdate::OtherCluster { known, found: None });
        assert_eq!((view.version(), removed(&view)), (MetadataVersion(10), vec![3]));
        assert!(view.topic_by_id(TopicId(1)).is_some());
    }
}
