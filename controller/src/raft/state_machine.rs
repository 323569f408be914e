//! Where committed entries go: the metadata state, published by the feed.
//!
//! The state is in memory; its snapshots are on disk, and a start goes on from the last one with the entries after it.

use super::digests::Digests;
use super::disk::Disk;
use super::type_config::{LogId, SnapshotMeta, SnapshotOf, StoredMembership, TypeConfig};
use crate::codec::CodecError;
use crate::feed::Feed;
use crate::state::MetadataState;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use gantry_proto::env::Env;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use std::io;
use std::sync::Arc;
use tokio::sync::Notify;

/// Applies entries to the state.
pub(super) struct StateMachine {
    env: Env,
    disk: Disk,
    feed: Arc<Feed>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: SnapshotPace,
    digests: Arc<Digests>,
    rules_max: u32,
}

/// Objects that are copied and written by snapshots for each command, at most.
const OBJECTS_PER_COMMAND: usize = 4;

/// When the next snapshot is due.
pub(super) struct SnapshotPace {
    /// Commands between two snapshots, at least.
    commands_min: usize,
    since_last: usize,
    due: Arc<Notify>,
}

impl SnapshotPace {
    /// Wakes `due` after that many commands; after more when the state is large, so that writing it stays a part of the work.
    pub(super) fn new(commands_min: usize, due: Arc<Notify>) -> SnapshotPace {
        SnapshotPace { commands_min, since_last: 0, due }
    }

    fn applied(&mut self, commands: usize, objects: usize) {
        self.since_last += commands;
        if self.since_last >= self.commands_min.max(objects / OBJECTS_PER_COMMAND) {
            self.since_last = 0;
            self.due.notify_one();
        }
    }
}

impl StateMachine {
    /// Goes on from the snapshot that the folder held: the feed shows its state already.
    pub(super) fn new(
        env: Env,
        disk: Disk,
        feed: Arc<Feed>,
        meta: Option<SnapshotMeta>,
        snapshots: SnapshotPace,
        digests: Arc<Digests>,
        rules_max: u32,
    ) -> StateMachine {
        let SnapshotMeta { last_log_id, last_membership } = meta.unwrap_or_default();
        let (last_applied, membership) = (last_log_id, last_membership);
        StateMachine { env, disk, feed, last_applied, membership, snapshots, digests, rules_max }
    }

    /// The folder belongs to the cluster that the log founds.
    async fn learn_cluster(&self) -> io::Result<()> {
        match (self.disk.cluster(), self.feed.read(MetadataState::cluster)) {
            (None, Some(founded)) => self.disk.save_cluster(founded).await,
            (Some(own), Some(founded)) if own != founded => {
                let reason = format!("the folder belongs to cluster {own}, the log to cluster {founded}");
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
            _ => Ok(()),
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let applied = match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(batch) => {
                    if let Some(newer) = batch.beyond(self.rules_max) {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, written_by_newer(&newer)));
                    }
                    let applied = self.feed.apply(&batch.commands, batch.at);
                    let objects = self.feed.read(MetadataState::object_count);
                    self.snapshots.applied(batch.commands.len(), objects);
                    self.learn_cluster().await?;
                    applied
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Vec::new()
                }
            };
            self.last_applied = Some(entry.log_id);
            self.digests.record(entry.log_id.index, self.feed.read(MetadataState::digest));
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            env: self.env.clone(),
            disk: self.disk.clone(),
            meta: self.meta(),
            state: Arc::new(self.feed.state()),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let bytes = snapshot.clone();
        let decoded = self.env.run_blocking(move || MetadataState::unsealed(&bytes)).await.map_err(io::Error::other)?;
        let known = self.rules_max;
        let state = decoded.and_then(|state| beyond(&state, known).map_or(Ok(state), Err)).map_err(|error| {
            let reason = match &error {
                CodecError::Newer(_) => written_by_newer(&error),
                CodecError::Damaged(_) => format!("the snapshot of another member is damaged: {error}"),
            };
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        let digest = state.digest();
        self.disk.save_snapshot(meta.clone(), snapshot).await?;
        self.feed.replace(state);
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        if let Some(last) = meta.last_log_id {
            self.digests.restart(last.index, digest);
        }
        self.learn_cluster().await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        Ok(self.disk.snapshot().await?.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Why a member that knows rules up to `known` must not go on from this state, if so.
pub(super) fn beyond(state: &MetadataState, known: u32) -> Option<CodecError> {
    let rules = state.rules().number();
    (rules > known).then(|| CodecError::Newer(format!("metadata under rules {rules}, this one knows {known}")))
}

/// What a member says when it stops before something that it does not know.
pub(super) fn written_by_newer(what: &CodecError) -> String {
    format!("written by a newer gantry: {what}; start the newer version on this member, too")
}

/// Writes a snapshot of the state as it was when this was made.
pub(super) struct SnapshotBuilder {
    env: Env,
    disk: Disk,
    meta: SnapshotMeta,
    state: Arc<MetadataState>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let state = self.state.clone();
        let encoded = self.env.run_blocking(move || Bytes::from(state.sealed())).await;
        let snapshot = encoded.map_err(io::Error::other)?;
        self.disk.save_snapshot(self.meta.clone(), snapshot.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}
