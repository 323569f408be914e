//! One member: openraft with its storage, its peers, and the questions that the rest of the crate asks of it.

use super::codec::{put_log_id, read_log_id};
use super::digests::Digests;
use super::disk::{Disk, Recovered};
use super::incoming::Incoming;
use super::log_store::LogStore;
use super::messages::Kind;
use super::network::{self, Peers, Unanswered};
use super::state_machine::{SnapshotPace, StateMachine, beyond, written_by_newer};
use super::type_config::{Batch, LeaderId, LogId, Runtime, TypeConfig};
use crate::codec::{CodecError, decode};
use crate::config::ControllerConfig;
use crate::feed::{Applied, Feed};
use crate::open_error::OpenError;
use crate::state::MetadataState;
use bytes::Bytes;
use gantry_proto::contract::{ConsensusCall, ConsensusError, ConsensusNetwork, ControllerChange, ControllerStatus};
use gantry_proto::env::Env;
use gantry_proto::wire::controller::v1 as wire;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::{BasicNode, ChangeMembers, Config, Raft, ReadPolicy, SnapshotPolicy};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};

/// Entries that a new member may be behind when it begins to vote.
const CAUGHT_UP: u64 = 100;
/// Entries that call for a snapshot however few commands they hold.
const SNAPSHOT_ENTRIES: u64 = 5_000;
/// Entries in one message to another member; their bytes are bounded besides.
const MESSAGE_ENTRIES_MAX: u64 = 256;
/// A snapshot of the largest metadata takes seconds on a slow line.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// A new member's way from nothing to voting.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Each change looks, too.
const FILES_WATCHED_EVERY: Duration = Duration::from_secs(1);
/// What waits for nobody.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(2);
/// A member that is asked about its state may be about to apply what the leader has.
const APPLIED_WITHIN: Duration = Duration::from_millis(500);

/// One member of the controller.
pub(crate) struct Node {
    id: u64,
    raft: Raft<TypeConfig, StateMachine>,
    disk: Disk,
    network: Arc<dyn ConsensusNetwork>,
    request_timeout: Duration,
    snapshot_due: Arc<Notify>,
    /// Changes of members, one at a time.
    changing: Mutex<()>,
    feed: Arc<Feed>,
    digests: Arc<Digests>,
    incoming: Incoming,
    rules_max: u32,
    /// Why this member stopped by its own decision.
    stopped_for: parking_lot::Mutex<Option<String>>,
}

/// Another member, as this one knows it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) voter: bool,
}

/// Who leads, as this member knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    Here,
    Other {
        id: u64,
        /// Where it is reached.
        address: String,
    },
    /// Nobody that is known.
    Unknown,
}

/// A leadership of this member. Greater than every earlier one, of any member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leadership(LeaderId);

/// Why a member could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeError {
    /// Nothing happened.
    #[error("{0}")]
    Unavailable(String),
    /// It may or may not have happened, or will.
    #[error("{0}")]
    Unknown(String),
}

impl Node {
    /// Opens the folder and takes part. The feed shows the last snapshot first and what follows it as soon as that is known
    /// to be committed.
    pub(crate) async fn open(
        config: &ControllerConfig,
        env: &Env,
        network: Arc<dyn ConsensusNetwork>,
    ) -> Result<(Node, Arc<Feed>), OpenError> {
        let (disk, recovered) = Disk::open(env, &config.dir, config.id, config.rules_max, config.must_exist).await?;
        match Node::start(config, env, network, disk.clone(), recovered).await {
            Ok(started) => Ok(started),
            Err(error) => {
                disk.close().await;
                Err(error)
            }
        }
    }

    async fn start(
        config: &ControllerConfig,
        env: &Env,
        network: Arc<dyn ConsensusNetwork>,
        disk: Disk,
        recovered: Recovered,
    ) -> Result<(Node, Arc<Feed>), OpenError> {
        let (meta, state) = match recovered.snapshot {
            Some((meta, bytes)) => {
                let decoded = env.run_blocking(move || MetadataState::unsealed(&bytes)).await;
                let decoded = decoded.map_err(|error| OpenError::damaged(&config.dir, error))?;
                let state = decoded.map_err(|error| OpenError::undecodable(&config.dir, error))?;
                if let Some(newer) = beyond(&state, config.rules_max) {
                    return Err(OpenError::undecodable(&config.dir, newer));
                }
                (Some(meta), state)
            }
            None => (None, MetadataState::default()),
        };
        let digests = Arc::new(Digests::default());
        if let Some(last) = meta.as_ref().and_then(|meta| meta.last_log_id) {
            digests.restart(last.index, state.digest());
        }
        let feed = Arc::new(Feed::new(state));
        let snapshot_due = Arc::new(Notify::new());
        let pace = SnapshotPace::new(config.snapshot_commands, snapshot_due.clone());
        let (rules_max, feed_of_machine) = (config.rules_max, feed.clone());
        let machine =
            StateMachine::new(env.clone(), disk.clone(), feed_of_machine, meta, pace, digests.clone(), rules_max);
        let mut seed = [0; 8];
        env.random.fill(&mut seed);
        let peers = Peers { network: network.clone(), disk: disk.clone() };
        let raft_config = Arc::new(raft_config(config)?);
        let starting = Raft::new(config.id, raft_config, peers, LogStore::new(disk.clone()), machine);
        let raft = Runtime::scope(u64::from_le_bytes(seed), starting).await.map_err(start_error)?;
        let node = Node {
            id: config.id,
            raft,
            disk,
            network,
            request_timeout: config.request_timeout,
            snapshot_due,
            changing: Mutex::new(()),
            feed: feed.clone(),
            digests,
            incoming: Incoming::default(),
            rules_max,
            stopped_for: parking_lot::Mutex::new(None),
        };
        if let Err(error) = node.begin(config, recovered.empty).await {
            node.shutdown().await;
            return Err(error);
        }
        Ok((node, feed))
    }

    /// Makes the first configuration, or wins the election that nobody else takes part in, at once.
    async fn begin(&self, config: &ControllerConfig, empty: bool) -> Result<(), OpenError> {
        if empty && !config.members.is_empty() {
            if !config.members.contains_key(&config.id) {
                let reason = format!("member {} is not among the first members {:?}", config.id, config.members);
                return Err(OpenError::Start(reason));
            }
            let members: BTreeMap<u64, BasicNode> =
                config.members.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
            self.raft.initialize(members).await.map_err(start_error)?;
        } else if self.is_sole_voter().await {
            self.raft.trigger().elect(false).await.map_err(start_error)?;
        }
        Ok(())
    }

    /// Whether this member decides alone.
    pub(crate) async fn is_sole_voter(&self) -> bool {
        let id = self.id;
        // The metrics may not show yet what was recovered.
        let voters = self.raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([id]));
        voters.await.unwrap_or(false)
    }

    /// Ends everything and frees the folder.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the consensus did not end well");
        }
        self.disk.close().await;
    }

    /// Ends this member's part, for good: it must not vote, decide or be asked any more. What it has on disk stays.
    pub(crate) async fn stop_for(&self, reason: String) {
        let first = self.stopped_for.lock().replace(reason.clone()).is_none();
        if first {
            tracing::error!(member = self.id, "this member of the controller stops: {reason}");
            self.feed.close();
            if let Err(error) = self.raft.shutdown().await {
                tracing::error!(%error, "the consensus did not end well");
            }
        }
    }

    /// Why the consensus cannot go on, if so: a write or a sync failed, or it was stopped.
    pub(crate) fn failure(&self) -> Option<String> {
        if let Some(reason) = &*self.stopped_for.lock() {
            return Some(reason.clone());
        }
        if let Some(reason) = self.disk.broken() {
            return Some(reason);
        }
        self.raft.metrics().borrow_watched().running_state.as_ref().err().map(ToString::to_string)
    }

    /// Looks now and then whether the files still have their names, until this member cannot go on.
    pub(crate) async fn watch_files(&self) {
        while self.disk.check_files().await.is_ok() {
            sleep(FILES_WATCHED_EVERY).await;
        }
    }

    /// Whether a write, a read or a sync failed, and nothing else is known to be wrong: the disk may be well again.
    pub(crate) fn disk_failed(&self) -> bool {
        self.stopped_for.lock().is_none() && self.disk.may_be_well_again()
    }

    /// Who leads, as far as this member knows.
    pub(crate) fn leader(&self) -> Leader {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        match metrics.current_leader {
            Some(id) if id == self.id => Leader::Here,
            Some(id) => match metrics.membership_config.get_node(&id) {
                Some(node) => Leader::Other { id, address: node.addr.clone() },
                None => Leader::Unknown,
            },
            None => Leader::Unknown,
        }
    }

    /// Waits for a leader, not longer than an answer is waited for.
    pub(crate) async fn find_leader(&self) -> Result<Leader, NodeError> {
        let mut metrics = self.raft.server_metrics();
        let waiting = async {
            loop {
                // Marks it as seen before it is looked at, so that no change is slept through.
                drop(metrics.borrow_and_update());
                let leader = self.leader();
                if leader != Leader::Unknown {
                    return Ok(leader);
                }
                if metrics.changed().await.is_err() {
                    return Err(NodeError::Unavailable("the controller is stopping".to_owned()));
                }
            }
        };
        match timeout(self.request_timeout, waiting).await {
            Ok(found) => found,
            Err(_) => Err(NodeError::Unavailable("no member of the controller leads".to_owned())),
        }
    }

    /// Waits until who leads may have changed. False: this member has stopped.
    pub(crate) async fn leadership_changed(&self, known: &Leader) -> bool {
        let mut metrics = self.raft.server_metrics();
        loop {
            drop(metrics.borrow_and_update());
            if self.leader() != *known {
                return true;
            }
            if metrics.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Confirms with most members that this one leads, after having applied everything that was committed when it was
    /// asked. What is then read here is what everybody must agree on.
    pub(crate) async fn lead(&self) -> Result<Leadership, NodeError> {
        self.read_index().await.map(|index| Leadership(*index.committed_leader_id()))
    }

    async fn read_index(&self) -> Result<LogId, NodeError> {
        match timeout(self.request_timeout, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(read)) => Ok(*read.log_id()),
            Ok(Err(error)) => Err(NodeError::Unavailable(error.to_string())),
            Err(_) => Err(NodeError::Unavailable("most members of the controller do not answer".to_owned())),
        }
    }

    /// Waits until this member has applied everything that was committed when it was asked.
    pub(crate) async fn catch_up(&self) -> Result<(), NodeError> {
        let index = match self.find_leader().await? {
            Leader::Here => return self.read_index().await.map(|_| ()),
            Leader::Other { id, address } => {
                let asked = self.call(id, &address, Kind::ReadIndex, &wire::ReadIndex {}).await.map_err(unavailable)?;
                let answer: wire::ReadIndexReply = decode(&asked).map_err(unavailable)?;
                answer.index.map(read_log_id)
            }
            Leader::Unknown => None,
        };
        let index = index.ok_or_else(|| unavailable("no member of the controller leads"))?;
        let waiting = self.raft.wait(Some(self.request_timeout));
        waiting.applied_index_at_least(Some(index.index), "catch up").await.map(|_| ()).map_err(unavailable)
    }

    /// Writes commands to the log and waits until they were carried out: one answer for each. With a leadership, only if
    /// that one still holds.
    pub(crate) async fn write(&self, batch: Batch, only_as: Option<Leadership>) -> Result<Vec<Applied>, NodeError> {
        if let Some(reason) = self.failure() {
            return Err(NodeError::Unavailable(reason));
        }
        let (responder, written) = ProgressResponder::complete_only();
        let mut request = self.raft.write(batch).responder(responder);
        if let Some(Leadership(leader)) = only_as {
            request = request.with_leader(leader);
        }
        let writing = async {
            request.await.map_err(unknown)?;
            written.await.map_err(|_| unknown("the controller stopped before it answered"))
        };
        match timeout(self.request_timeout, writing).await.map_err(|_| unknown("most members do not confirm it"))?? {
            Ok(response) => Ok(response.data),
            // Refused before it was written.
            Err(error @ ClientWriteError::ForwardToLeader(_)) => Err(unavailable(error)),
            Err(error) => Err(unknown(error)),
        }
    }

    /// Asks another member.
    pub(crate) async fn call(
        &self,
        id: u64,
        address: &str,
        kind: Kind,
        message: &impl Message,
    ) -> Result<Bytes, ConsensusError> {
        let (payload, cluster) = (message.encode_to_vec().into(), self.disk.cluster());
        // Longer than the other one waits for others, so that its answer is heard.
        let timeout = match kind {
            Kind::ChangeControllers => CHANGE_TIMEOUT + self.request_timeout * 2,
            Kind::CompareStates => COMPARE_TIMEOUT,
            _ => self.request_timeout * 2,
        };
        self.network.call(address, ConsensusCall { kind: kind as u32, target: id, cluster, payload }, timeout).await
    }

    /// What a call is about, if it is meant for this member and of this cluster. A member that has not heard of a cluster
    /// yet belongs to the first one whose members call it.
    pub(crate) async fn accept(&self, call: &ConsensusCall) -> Result<Kind, ConsensusError> {
        let refused = |reason| Err(ConsensusError::Refused(reason));
        if let Some(reason) = self.failure() {
            return Err(ConsensusError::NotSent(reason));
        }
        let id = self.id;
        if call.target != id {
            let target = call.target;
            return refused(format!("this is member {id} of the controller, not {target}; check the addresses"));
        }
        match (self.disk.cluster(), call.cluster) {
            (Some(own), Some(other)) if own != other => {
                return refused(format!("this is member {id} of cluster {own}, not of {other}; check the addresses"));
            }
            (Some(own), None) => {
                return refused(format!("this is member {id} of cluster {own}; a member that has none is not heard"));
            }
            (None, Some(first)) => {
                tracing::info!(cluster = %first, "this member belongs to a cluster now");
                self.disk.save_cluster(first).await.map_err(|error| ConsensusError::Unreachable(error.to_string()))?;
            }
            _ => {}
        }
        Kind::of(call.kind)
            .ok_or_else(|| ConsensusError::Refused(format!("calls of kind {} are not known here", call.kind)))
    }

    /// Answers a call of another member's consensus.
    pub(crate) async fn answer(&self, kind: Kind, message: &[u8]) -> Result<Vec<u8>, ConsensusError> {
        let refused = |error: CodecError| ConsensusError::Refused(error.to_string());
        match kind {
            Kind::ReadIndex => {
                let index = self.read_index().await.ok().as_ref().map(put_log_id);
                Ok(wire::ReadIndexReply { index }.encode_to_vec())
            }
            Kind::CompareStates => Ok(self.answer_compare(&decode(message).map_err(refused)?).await.encode_to_vec()),
            _ => match network::answer(&self.raft, &self.incoming, kind, message, self.rules_max).await {
                Ok(answer) => Ok(answer),
                Err(Unanswered::NotUnderstood(error)) => Err(refused(error)),
                Err(Unanswered::Declined(reason)) => Err(ConsensusError::Refused(reason.to_owned())),
                Err(Unanswered::Stopped(reason)) => Err(ConsensusError::Unreachable(reason)),
                // The leader would send it for ever, and this member vote without ever having it.
                Err(Unanswered::Newer(newer)) => {
                    self.stop_for(written_by_newer(&newer)).await;
                    Err(refused(newer))
                }
            },
        }
    }

    /// Asks another member what its state was like.
    pub(crate) async fn compare(
        &self,
        peer: &Peer,
        question: &wire::CompareStates,
    ) -> Result<wire::StateCompared, ConsensusError> {
        let answer = self.call(peer.id, &peer.address, Kind::CompareStates, question).await?;
        decode(&answer).map_err(|newer| ConsensusError::Refused(newer.to_string()))
    }

    async fn answer_compare(&self, question: &wire::CompareStates) -> wire::StateCompared {
        if let Some(wire::compare_states::Agreed { index, digest }) = question.agreed {
            self.check_agreed(index, digest).await;
        }
        let index = question.index;
        let _ = self.raft.wait(Some(APPLIED_WITHIN)).applied_index_at_least(Some(index), "compare").await;
        wire::StateCompared { digest: self.digests.at(index), rules_max: self.rules_max }
    }

    /// Stops this member if its state was another one than the members agree upon.
    pub(crate) async fn check_agreed(&self, index: u64, agreed: u64) {
        if let Some(own) = self.digests.at(index).filter(|own| *own != agreed) {
            let reason = format!(
                "its metadata differ from those of the other members: {own:016x} instead of {agreed:016x} after entry \
                 {index} of the log; start it with the same version as the others, and if that does not help, remove it \
                 from the cluster and add it again with an empty folder and a new number"
            );
            self.stop_for(reason).await;
        }
    }

    /// What this member's state was like.
    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let others = metrics.membership_config.nodes().filter(|(id, _)| **id != self.id);
        others.map(|(id, node)| Peer { id: *id, address: node.addr.clone(), voter: voters.contains(id) }).collect()
    }

    /// Makes snapshots when they are due, until it is dropped or the member stops.
    pub(crate) async fn snapshot_when_due(&self) {
        loop {
            self.snapshot_due.notified().await;
            if self.raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
    }

    /// The members, as the one that leads sees them.
    pub(crate) fn members(&self) -> Vec<ControllerStatus> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let matched = |id: &u64| match &metrics.replication {
            Some(replication) if *id != self.id => replication.get(id).copied().flatten().map(|log| log.index),
            _ if *id == self.id => metrics.last_log_index,
            _ => None,
        };
        let nodes = metrics.membership_config.nodes();
        nodes
            .map(|(id, node)| ControllerStatus {
                id: *id,
                address: node.addr.clone(),
                leader: metrics.current_leader == Some(*id),
                voter: voters.contains(id),
                matched: matched(id),
            })
            .collect()
    }

    /// Changes the members while they work. Repeating a change that was made changes nothing.
    pub(crate) async fn change(&self, change: &ControllerChange) -> Result<(), NodeError> {
        let _one = self.changing.try_lock().map_err(|_| unavailable("another change of members is at work"))?;
        self.lead().await?;
        let changing = async {
            match change {
                ControllerChange::Add { id, address } => self.add(*id, address).await,
                ControllerChange::Remove { id } => self.remove(*id).await,
            }
        };
        match timeout(CHANGE_TIMEOUT, changing).await {
            Ok(changed) => changed,
            Err(_) => Err(unknown("the change takes too long; look at the status, and repeat it if it was not made")),
        }
    }

    async fn add(&self, id: u64, address: &str) -> Result<(), NodeError> {
        let now = self.members().into_iter().find(|member| member.id == id);
        match now {
            Some(now) if now.address != address => {
                let reason = format!("member {id} is at {}; choose a new number for {address}", now.address);
                return Err(NodeError::Unavailable(reason));
            }
            Some(now) if now.voter => return Ok(()),
            _ => {}
        }
        self.raft.add_learner(id, BasicNode::new(address), true).await.map_err(change_error)?;
        let voters = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.raft.change_membership(voters, true).await.map_err(change_error)?;
        Ok(())
    }

    async fn remove(&self, id: u64) -> Result<(), NodeError> {
        let members = self.members();
        let Some(now) = members.iter().find(|member| member.id == id) else { return Ok(()) };
        let others = members.iter().filter(|member| member.voter && member.id != id).count();
        let change = match now.voter {
            true if others == 0 => {
                return Err(NodeError::Unavailable(format!("member {id} is the last one and cannot be removed")));
            }
            true => ChangeMembers::RemoveVoters(BTreeSet::from([id])),
            false => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
        };
        self.raft.change_membership(change, false).await.map_err(change_error)?;
        Ok(())
    }
}

fn raft_config(config: &ControllerConfig) -> Result<Config, OpenError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let raft = Config {
        cluster_name: "gantry".to_owned(),
        heartbeat_interval: millis(config.heartbeat_interval),
        election_timeout_min: millis(config.election_timeout),
        election_timeout_max: millis(config.election_timeout * 2),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: config.log_kept,
        replication_lag_threshold: CAUGHT_UP,
        enable_pre_vote: Some(true),
        // A leader that restarts has forgotten its leases: it begins a leadership of its own.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate().map_err(start_error)
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> NodeError {
    match error {
        RaftError::APIError(
            error @ (ClientWriteError::ForwardToLeader(_)
            | ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => unavailable(error),
        error => unknown(error),
    }
}

fn start_error(error: impl ToString) -> OpenError {
    OpenError::Start(error.to_string())
}

fn unavailable(reason: impl ToString) -> NodeError {
    NodeError::Unavailable(reason.to_string())
}

fn unknown(reason: impl ToString) -> NodeError {
    NodeError::Unknown(reason.to_string())
}
