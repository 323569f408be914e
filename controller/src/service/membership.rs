//! Stores, proxies and members: what the leading member grants and knows.

use crate::controller::Controller;
use crate::raft::{Kind, Leadership, NodeError};
use crate::state::{Keeping, Rules};
use gantry_proto::contract::{
    ClusterStatus, ControllerChange, JoinStoreRequest, MembershipError, MembershipService, MetadataError,
    ProxyAliveRequest, ProxyStatus, RenewStoreLeaseRequest, StoreGrant, StoreLease, StoreStatus,
};
use gantry_proto::convert::Wire as _;
use gantry_proto::model::{Epoch, GroupSecret, KnownIds, MetadataCommand, MetadataOutcome, StoreGroup, StoreGroupId};
use gantry_proto::wire::controller::v1 as wire;
use std::sync::Arc;
use std::time::Duration;

/// No cluster gives as many identities. Whoever names a larger one is wrong, and must not use up those that are left.
const ID_MAX: u32 = u32::MAX / 2;

#[async_trait::async_trait]
impl MembershipService for Controller {
    async fn join_store(&self, request: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        match self.passed_on(Kind::JoinStore, &request.to_wire()).await? {
            None => self.join_here(&request).await,
            Some(answer) => answer,
        }
    }

    async fn renew_store_lease(&self, request: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        match self.passed_on(Kind::RenewLease, &request.to_wire()).await? {
            None => self.renew_here(&request).await,
            Some(answer) => answer,
        }
    }

    async fn give_up_store_lease(&self, store_group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError> {
        let request = wire::GiveUpLeaseRequest { group: store_group.0, epoch: epoch.0 };
        match self.passed_on(Kind::GiveUpLease, &request).await? {
            None => self.give_up_here(store_group, epoch).await,
            Some(answer) => answer,
        }
    }

    async fn proxy_alive(&self, request: ProxyAliveRequest) -> Result<Duration, MembershipError> {
        match self.passed_on(Kind::ProxyAlive, &request.to_wire()).await? {
            None => self.proxy_alive_here(&request).await,
            Some(answer) => answer,
        }
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        match self.passed_on(Kind::ClusterStatus, &wire::ClusterStatusRequest {}).await? {
            None => self.status_here().await,
            Some(answer) => answer,
        }
    }

    async fn change_controllers(&self, change: ControllerChange) -> Result<(), MetadataError> {
        match self.passed_on(Kind::ChangeControllers, &change.to_wire()).await? {
            None => self.change_here(&change).await,
            Some(answer) => answer,
        }
    }
}

impl Controller {
    pub(super) async fn change_here(&self, change: &ControllerChange) -> Result<(), MetadataError> {
        Ok(self.core.node.change(change).await?)
    }

    pub(super) async fn join_here(&self, request: &JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        let core = &self.core;
        let _one = core.joining.lock().await;
        let leading = core.node.lead().await?;
        let (cluster, store_group) =
            core.feed.read(|state| (state.cluster(), state.store_group_named(&request.store_group).cloned()));
        let cluster =
            cluster.ok_or_else(|| MembershipError::Unavailable("the cluster is not founded yet".to_owned()))?;
        if let Some(own) = request.cluster.filter(|own| *own != cluster) {
            let reason = format!("the data folder {} belongs to cluster {own}, this is {cluster}", request.folder);
            return Err(MembershipError::Refused(reason));
        }
        if let Some(report) = &request.report {
            self.raise_ids(report.known, leading).await?;
        }
        if let Some(store_group) = &store_group {
            core.heard_ids.lock().told(store_group.id);
        }
        // Only joins change it, and they come one at a time.
        let last = store_group
            .as_ref()
            .and_then(|store_group| core.feed.read(|state| state.keeping(store_group.id).map(|kept| kept.last)));
        match &store_group {
            // It has not to wait for itself.
            Some(_) if last.is_some_and(|last| last.is_asking(request)) => {}
            Some(store_group) => self.admit(store_group, leading)?,
            None if request.cluster.is_some() => {
                let reason = format!(
                    "store group {} is not in the cluster: it was removed; or it was added after the state to which the \
                     controller was put back, and then the folder may hold messages that are nowhere else: keep it. Give a \
                     new store an empty data folder",
                    request.store_group
                );
                return Err(MembershipError::Refused(reason));
            }
            None => {}
        }
        if let Some(store_group) = &store_group {
            self.check_nothing_missing(store_group, request, leading)?;
        }
        if request.last_epoch == Epoch(u32::MAX) {
            return Err(MembershipError::Refused("there is no epoch after the data folder's last one".to_owned()));
        }
        let mut secret = [0; 32];
        core.env.random.fill(&mut secret);
        let command = MetadataCommand::JoinStore {
            store_group: request.store_group.clone(),
            folder: request.folder,
            address: request.address.clone(),
            last_epoch: request.last_epoch,
            process: request.process,
            place: request.place,
            secret: GroupSecret(secret),
        };
        let store_group = match core.decide(command, leading).await? {
            Ok((_, MetadataOutcome::StoreGroup(store_group))) => store_group,
            Ok(_) => return Err(MembershipError::Unavailable("the log gave another answer".to_owned())),
            Err(refusal) => return Err(MembershipError::Refused(refusal.to_string())),
        };
        let kept = core.feed.read(|state| state.keeping(store_group.id).map(|kept| kept.secret.clone()));
        let removed = || MembershipError::Unavailable("the store group was removed meanwhile".to_owned());
        let secret = kept.ok_or_else(removed)?;
        // One that was made just now holds nothing that it did not say.
        core.heard_ids.lock().told(store_group.id);
        let at = core.env.clock.now();
        let lease =
            core.with_table(leading, |table, now| table.grant(&store_group, request.version.clone(), at, now))?;
        tracing::info!(group = %store_group.name, epoch = %store_group.epoch, address = &*request.address, "a store leads its group");
        let previous = last.map(|last| last.as_previous());
        Ok(StoreGrant { cluster, store_group: store_group.id, epoch: store_group.epoch, lease, previous, secret })
    }

    /// None of these identities is given again. A store must not be told that it leads before that is so: from then on its
    /// messages would be under identities that others get.
    async fn raise_ids(&self, known: KnownIds, leading: Leadership) -> Result<(), MembershipError> {
        let (given, rules) = self.core.feed.read(|state| (state.given(), state.rules()));
        if known.max(given) == given {
            return Ok(());
        }
        if known.topic.0.max(known.group.0).max(known.store_group.0) > ID_MAX {
            return Err(MembershipError::Refused(format!(
                "the store names identities that nobody was given: {known:?}"
            )));
        }
        if rules < Rules::PutBack {
            return Err(MembershipError::Unavailable(
                "the store knows of topics or groups that the controller does not, as if it had been put back to an earlier \
                 state; this can be mended once all members of the controller run this version"
                    .to_owned(),
            ));
        }
        tracing::error!(
            ?given,
            ?known,
            "a store knows of topics or groups that the controller does not: the controller was put back to an earlier \
             state. Their numbers are not given again, and nothing is removed because of it"
        );
        self.core.heard_ids.lock().put_back();
        match self.core.decide(MetadataCommand::RaiseIds(known), leading).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(MembershipError::Unavailable(refusal.to_string())),
        }
    }

    /// Refuses a folder that holds less than its store said that it has: it is an older copy.
    fn check_nothing_missing(
        &self,
        store_group: &StoreGroup,
        request: &JoinStoreRequest,
        leading: Leadership,
    ) -> Result<(), MembershipError> {
        let Some(report) = request.report.filter(|report| !report.accept_missing) else { return Ok(()) };
        let noted = self.core.feed.read(|state| state.keeping(store_group.id).and_then(|kept| kept.durable));
        let heard = self.core.with_table(leading, |table, _| table.heard_store(store_group).durable_to)?;
        let known = heard.max(noted.map(|(_, to)| to)).unwrap_or_default();
        if report.durable_to >= known {
            return Ok(());
        }
        let JoinStoreRequest { folder, .. } = request;
        if !store_group.replicas.is_empty() && store_group.replicas.iter().all(|replica| replica.folder != *folder) {
            // Not a copy but another folder: it is refused as that, and to accept what is missing would not help it.
            return Ok(());
        }
        Err(MembershipError::Refused(format!(
            "the data folder {folder} is an older copy, or lost its end: store group {} was known to have its log on disk up \
             to {known}, and this one ends at {}. What was stored since then is not in it. Start the store with the folder \
             as it was last used; or, if that is lost, once with store.accept_missing_log = true",
            store_group.name, report.durable_to
        )))
    }

    /// Has it remembered how far the log of a group's leader reaches, if that is due.
    async fn note_durable(
        &self,
        id: StoreGroupId,
        epoch: Epoch,
        last: bool,
        leading: Leadership,
    ) -> Result<(), MembershipError> {
        let (rules, noted) =
            (self.core.feed).read(|state| (state.rules(), state.keeping(id).and_then(|kept| kept.durable)));
        if rules < Rules::PutBack {
            return Ok(());
        }
        let due = self.core.with_table(leading, |table, now| table.durable_to_note(id, epoch, noted, last, now))?;
        if let Some(to) = due {
            let _ = self.core.decide(MetadataCommand::NoteDurable { store_group: id, epoch, to }, leading).await?;
        }
        Ok(())
    }

    fn admit(&self, store_group: &Arc<StoreGroup>, leading: Leadership) -> Result<(), MembershipError> {
        let admitted = self.core.with_table(leading, |table, now| table.admit(store_group, now))?;
        admitted.map_err(|remaining| MembershipError::Held {
            store_group: store_group.name.clone(),
            epoch: store_group.epoch,
            remaining,
        })
    }

    pub(super) async fn renew_here(&self, request: &RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        let RenewStoreLeaseRequest { store_group: id, epoch, positions, closed, report } = *request;
        let leading = self.core.node.lead().await?;
        if let Some(report) = report.filter(|_| self.core.feed.read(|state| state.rules() >= Rules::PutBack)) {
            self.raise_ids(report.known, leading).await?;
        }
        self.core.heard_ids.lock().told(id);
        let durable_to = report.map(|report| report.durable_to);
        let store_group = self.core.feed.read(|state| state.store_group(id).cloned());
        let renewed = match store_group {
            Some(store_group) => self
                .core
                .with_table(leading, |table, now| table.renew(&store_group, epoch, (positions, durable_to), now))?,
            None => None,
        };
        let lease = renewed.ok_or(MembershipError::Superseded { store_group: id, epoch })?;
        let noted = |kept: &Keeping| kept.last.epoch != epoch || kept.led.get(&kept.last.folder) == Some(&epoch);
        if self.core.feed.read(|state| state.keeping(id).is_some_and(|kept| !noted(kept))) {
            // If it fails, the next renewal does it.
            let _ = self.core.decide(MetadataCommand::NoteLeading { store_group: id, epoch }, leading).await?;
        }
        self.note_durable(id, epoch, false, leading).await?;
        if let Some(since) = closed {
            let _ = self.core.decide(MetadataCommand::NoteClosed { store_group: id, epoch, since }, leading).await?;
        }
        Ok(lease)
    }

    pub(super) async fn give_up_here(&self, store_group: StoreGroupId, epoch: Epoch) -> Result<(), MembershipError> {
        let leading = self.core.node.lead().await?;
        // At once: whatever becomes of the command, its holder writes no more.
        self.core.with_table(leading, |table, _| table.give_up(store_group, epoch))?;
        self.note_durable(store_group, epoch, true, leading).await?;
        let _ = self.core.decide(MetadataCommand::EndStoreLease { store_group, epoch }, leading).await?;
        Ok(())
    }

    pub(super) async fn proxy_alive_here(&self, request: &ProxyAliveRequest) -> Result<Duration, MembershipError> {
        let ProxyAliveRequest { id, address, version, sessions } = request.clone();
        let leading = self.core.node.lead().await?;
        self.core.with_table(leading, |table, now| table.proxy_alive(id, sessions, now))?;
        let known = self
            .core
            .feed
            .read(|state| state.proxy(id).is_some_and(|proxy| proxy.address == address && proxy.version == version));
        if !known {
            let _ = self.core.decide(MetadataCommand::JoinProxy { id, address, version }, leading).await?;
        }
        Ok(self.core.config.leases.heartbeat_interval)
    }

    pub(super) async fn status_here(&self) -> Result<ClusterStatus, MetadataError> {
        let leading = self.core.node.lead().await?;
        let controllers = self.core.node.members();
        let status = self.core.with_table(leading, |table, now| {
            self.core.feed.read(|state| ClusterStatus {
                cluster: state.cluster(),
                version: state.version(),
                controllers,
                stores: state
                    .store_groups()
                    .map(|store_group| {
                        let heard = table.heard_store(store_group);
                        StoreStatus {
                            store_group: store_group.clone(),
                            heard: heard.at.map(|at| now.saturating_duration_since(at)),
                            leading_since: heard.leading_since,
                            positions: heard.positions,
                            version: heard.version.unwrap_or_default(),
                        }
                    })
                    .collect(),
                proxies: state
                    .proxies()
                    .map(|proxy| {
                        let heard = table.heard_proxy(proxy.id);
                        ProxyStatus {
                            proxy: proxy.clone(),
                            heard: heard.and_then(|heard| heard.at).map(|at| now.saturating_duration_since(at)),
                            sessions: heard.map_or(0, |heard| heard.sessions),
                        }
                    })
                    .collect(),
            })
        })?;
        Ok(status)
    }
}

/// A store or proxy that asks again is never harmed by what it does not know.
impl From<NodeError> for MembershipError {
    fn from(error: NodeError) -> MembershipError {
        let (NodeError::Unavailable(reason) | NodeError::Unknown(reason)) = error;
        MembershipError::Unavailable(reason)
    }
}
