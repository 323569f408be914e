//! Commands and clusters for tests.

use crate::config::ControllerConfig;
use crate::controller::Controller;
use crate::open_error::OpenError;
use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusNetwork, ConsensusPeer as _};
use gantry_proto::env::fake::{self, FakeFiles};
use gantry_proto::env::{Env, Files as _, OpenMode};
use gantry_proto::model::limits::{MAX_ATTEMPTS_DEFAULT, MAX_ATTEMPTS_MAX, QUEUE_COUNT_MAX};
use gantry_proto::model::{
    BackoffPolicy, ClusterId, Epoch, FolderId, GroupName, GroupSecret, MetadataCommand, MetadataVersion, ProcessId,
    ProxyId, StoreGroupId, StoreGroupName, TopicName, TopicType,
};
use parking_lot::Mutex;
use proptest::collection::{SizeRange, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub(crate) fn group_name(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

pub(crate) fn create_topic(name: &str, queue_count: u32) -> MetadataCommand {
    MetadataCommand::CreateTopic { name: topic_name(name), topic_type: TopicType::Normal, queue_count }
}

pub(crate) fn create_group(name: &str) -> MetadataCommand {
    MetadataCommand::CreateGroup {
        name: group_name(name),
        fifo: false,
        max_attempts: MAX_ATTEMPTS_DEFAULT,
        backoff: BackoffPolicy::default(),
    }
}

pub(crate) fn store_group_name(name: &str) -> StoreGroupName {
    StoreGroupName::parse(name).unwrap()
}

/// The folder of that number, for the first time.
pub(crate) fn join_store(group: &str, folder: u8) -> MetadataCommand {
    MetadataCommand::JoinStore {
        store_group: store_group_name(group),
        folder: FolderId([folder; 16]),
        address: format!("{group}:1").into(),
        last_epoch: Epoch(0),
        process: ProcessId([folder; 16]),
        place: None,
        secret: GroupSecret([folder; 32]),
    }
}

/// Commands over few names, so that they meet: most are carried out, some are refused.
pub(crate) fn some_commands(count: impl Into<SizeRange>) -> impl Strategy<Value = Vec<MetadataCommand>> {
    vec(any_command("[a-d]"), count)
}

/// Any command that can be asked, with names of that pattern.
pub(crate) fn any_command(names: &'static str) -> impl Strategy<Value = MetadataCommand> {
    let topic = move || names.prop_map(|name| topic_name(&name));
    let group = move || names.prop_map(|name| group_name(&name));
    let queue_count = || prop_oneof![9 => 1..9u32, 1 => any::<u32>(), 1 => Just(QUEUE_COUNT_MAX)];
    let attempts = || prop_oneof![9 => 1..20u32, 1 => any::<u32>(), 1 => Just(MAX_ATTEMPTS_MAX)];
    prop_oneof![
        4 => (topic(), any_type(), queue_count())
            .prop_map(|(name, topic_type, queue_count)| MetadataCommand::CreateTopic { name, topic_type, queue_count }),
        2 => (topic(), option::of(any_type()), option::of(queue_count()))
            .prop_map(|(name, topic_type, queue_count)| MetadataCommand::AlterTopic { name, topic_type, queue_count }),
        2 => topic().prop_map(|name| MetadataCommand::DeleteTopic { name }),
        4 => (group(), any::<bool>(), attempts(), any_backoff()).prop_map(|(name, fifo, max_attempts, backoff)| {
            MetadataCommand::CreateGroup { name, fifo, max_attempts, backoff }
        }),
        2 => (group(), option::of(any::<bool>()), option::of(attempts()), option::of(any_backoff())).prop_map(
            |(name, fifo, max_attempts, backoff)| MetadataCommand::AlterGroup { name, fifo, max_attempts, backoff }
        ),
        2 => group().prop_map(|name| MetadataCommand::DeleteGroup { name }),
        6 => any_command_of_members(),
        2 => (option::of(topic()), prop_oneof![0..4u32, Just(u32::MAX)])
            .prop_map(|(after, limit)| MetadataCommand::SpreadTopics { after, limit }),
    ]
}

fn any_command_of_members() -> impl Strategy<Value = MetadataCommand> {
    let name = || "[s-v]".prop_map(|name| store_group_name(&name));
    // Mostly each group's own folder.
    let folder = || prop_oneof![9 => Just(None), 1 => (1..5u8).prop_map(Some)];
    let epoch = || prop_oneof![9 => 0..9u32, 1 => any::<u32>()].prop_map(Epoch);
    let proxy = || (0..3u8).prop_map(|id| ProxyId([id; 16]));
    let text = || "[a-z0-9.:]{0,20}".prop_map(Arc::<str>::from);
    prop_oneof![
        1 => any::<[u8; 16]>().prop_map(|id| MetadataCommand::InitCluster { cluster: ClusterId(id) }),
        4 => (name(), folder(), text(), epoch()).prop_map(|(group, folder, address, last_epoch)| {
            let own = group.as_str().as_bytes()[0] - b'r';
            let folder = FolderId([folder.unwrap_or(own); 16]);
            MetadataCommand::JoinStore {
                store_group: group,
                folder,
                address,
                last_epoch,
                process: ProcessId(folder.0),
                place: None,
                secret: GroupSecret(folder.0.repeat(2).try_into().expect("16 bytes twice")),
            }
        }),
        1 => (0..5u32, epoch())
            .prop_map(|(group, epoch)| MetadataCommand::EndStoreLease { store_group: StoreGroupId(group), epoch }),
        1 => (0..5u32, epoch())
            .prop_map(|(group, epoch)| MetadataCommand::NoteLeading { store_group: StoreGroupId(group), epoch }),
        2 => name().prop_map(|name| MetadataCommand::DrainStoreGroup { name }),
        1 => name().prop_map(|name| MetadataCommand::ActivateStoreGroup { name }),
        1 => (name(), any::<bool>()).prop_map(|(name, force)| MetadataCommand::RemoveStoreGroup { name, force }),
        1 => name().prop_map(|name| MetadataCommand::CloseStoreGroup { name }),
        1 => (0..5u32, epoch(), 0..60u64).prop_map(|(group, epoch, since)| MetadataCommand::NoteClosed {
            store_group: StoreGroupId(group),
            epoch,
            since: MetadataVersion(since),
        }),
        1 => (proxy(), text(), text())
            .prop_map(|(id, address, version)| MetadataCommand::JoinProxy { id, address, version }),
        1 => proxy().prop_map(|id| MetadataCommand::RemoveProxy { id }),
    ]
}

fn any_type() -> impl Strategy<Value = TopicType> {
    prop_oneof![
        Just(TopicType::Normal),
        Just(TopicType::Fifo),
        Just(TopicType::Delay),
        Just(TopicType::Transaction),
        Just(TopicType::Mixed),
    ]
}

pub(crate) fn any_backoff() -> impl Strategy<Value = BackoffPolicy> {
    // As many as travel.
    let duration = || any::<u64>().prop_map(Duration::from_nanos);
    prop_oneof![
        Just(BackoffPolicy::default()),
        vec(duration(), 0..5).prop_map(BackoffPolicy::Customized),
        (duration(), duration(), 0.5..1001.0f64)
            .prop_map(|(initial, max, multiplier)| { BackoffPolicy::Exponential { initial, max, multiplier } }),
    ]
}

/// Where members keep their data.
pub(crate) const DIR: &str = "/data/controller";

/// A cluster of controllers in this process, each with a machine of its own.
pub(crate) struct TestCluster {
    network: TestNetwork,
    machines: BTreeMap<u64, (Env, FakeFiles)>,
    running: BTreeMap<u64, Arc<Controller>>,
    first: BTreeMap<u64, String>,
    /// What the next start is configured with.
    pub(crate) configure: fn(&mut ControllerConfig),
}

impl TestCluster {
    /// A cluster of members `1..=first` of which none runs yet.
    pub(crate) fn new(first: u64, configure: fn(&mut ControllerConfig)) -> TestCluster {
        TestCluster {
            network: TestNetwork::default(),
            machines: BTreeMap::new(),
            running: BTreeMap::new(),
            first: (1..=first).map(|id| (id, address(id))).collect(),
            configure,
        }
    }

    /// A cluster of members `1..=first` that run.
    pub(crate) async fn started(first: u64, configure: fn(&mut ControllerConfig)) -> TestCluster {
        let mut cluster = TestCluster::new(first, configure);
        for id in 1..=first {
            cluster.start(id).await.unwrap();
        }
        cluster
    }

    pub(crate) fn env(&mut self, id: u64) -> (Env, FakeFiles) {
        self.machines
            .entry(id)
            .or_insert_with(|| {
                let (env, files, _) = fake::env(id);
                (env, files)
            })
            .clone()
    }

    pub(crate) async fn start(&mut self, id: u64) -> Result<Arc<Controller>, OpenError> {
        let (env, _) = self.env(id);
        let first = if self.first.contains_key(&id) { self.first.clone() } else { BTreeMap::new() };
        let mut config = ControllerConfig::member(DIR, id, first);
        (self.configure)(&mut config);
        let network = Arc::new(TestPeer { own: address(id), network: self.network.clone() });
        let controller = Arc::new(Controller::open(config, env, network).await?);
        self.network.inner.lock().listening.insert(address(id), Arc::downgrade(&controller));
        self.running.insert(id, controller.clone());
        Ok(controller)
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        if let Some(controller) = self.running.remove(&id) {
            controller.shutdown().await;
        }
    }

    /// The files of a member that is stopped.
    pub(crate) fn backup(&mut self, id: u64) -> Vec<(PathBuf, Vec<u8>)> {
        let (_, files) = self.env(id);
        let dir = Path::new(DIR);
        let names = files.list(dir).unwrap().into_iter().map(|entry| entry.name).filter(|name| name != "LOCK");
        let read = |path: PathBuf| {
            let file = files.open(&path, OpenMode::Read).unwrap();
            let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap().to_vec();
            (path, bytes)
        };
        names.map(|name| read(dir.join(name))).collect()
    }

    /// Puts a member that is stopped back to what it was.
    pub(crate) fn restore(&mut self, id: u64, backup: &[(PathBuf, Vec<u8>)]) {
        let (_, files) = self.env(id);
        for entry in files.list(Path::new(DIR)).unwrap().into_iter().filter(|entry| entry.name != "LOCK") {
            files.remove(&Path::new(DIR).join(entry.name)).unwrap();
        }
        for (path, bytes) in backup {
            let file = files.open(path, OpenMode::CreateNew).unwrap();
            file.write_all_at(bytes, 0).unwrap();
            file.sync_data().unwrap();
        }
        files.sync_dir(Path::new(DIR)).unwrap();
    }

    pub(crate) fn get(&self, id: u64) -> &Arc<Controller> {
        &self.running[&id]
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    /// Cuts a member off from all others, or joins it to them again.
    pub(crate) fn isolate(&self, id: u64, cut: bool) {
        let mut inner = self.network.inner.lock();
        if cut {
            inner.isolated.insert(address(id));
        } else {
            inner.isolated.remove(&address(id));
        }
    }

    /// Waits until the members agree on a leader among those that are not cut off.
    pub(crate) async fn leader(&self) -> u64 {
        for _ in 0..2_000 {
            let isolated = self.network.inner.lock().isolated.clone();
            for (id, controller) in self.running.iter().filter(|(id, _)| !isolated.contains(&address(**id))) {
                if controller.core.seems_to_lead() && controller.core.node.lead().await.is_ok() {
                    return *id;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody leads");
    }

    /// Waits until all running members have applied as much as the one that has applied most.
    pub(crate) async fn settled(&self) -> MetadataVersion {
        for _ in 0..2_000 {
            let versions: Vec<_> = self.running.values().map(|controller| controller.core.feed.version()).collect();
            if versions.iter().min() == versions.iter().max() {
                return versions[0];
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the members do not agree");
    }
}

pub(crate) fn address(id: u64) -> String {
    format!("controller-{id}:1")
}

/// Calls between members that can be cut.
#[derive(Clone, Default)]
struct TestNetwork {
    inner: Arc<Mutex<TestLinks>>,
}

#[derive(Default)]
struct TestLinks {
    listening: BTreeMap<String, Weak<Controller>>,
    isolated: BTreeSet<String>,
}

struct TestPeer {
    own: String,
    network: TestNetwork,
}

impl TestPeer {
    fn reach(&self, address: &str) -> Option<Arc<Controller>> {
        let links = self.network.inner.lock();
        let cut = [self.own.as_str(), address].iter().any(|end| links.isolated.contains(*end));
        if cut { None } else { links.listening.get(address)?.upgrade() }
    }
}

#[async_trait::async_trait]
impl ConsensusNetwork for TestPeer {
    async fn call(&self, address: &str, call: ConsensusCall, timeout: Duration) -> Result<Bytes, ConsensusError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let unreachable = || ConsensusError::Unreachable(format!("{address} does not answer"));
        let not_sent = || ConsensusError::NotSent(format!("{address} cannot be reached"));
        let other = self.reach(address).ok_or_else(not_sent)?;
        let answer = tokio::time::timeout(timeout, other.answer(call)).await.map_err(|_| unreachable())?;
        // The way back may be cut meanwhile.
        self.reach(address).ok_or_else(unreachable)?;
        answer
    }
}
