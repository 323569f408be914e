//! The operator's API for the cluster: its members, and how it grows and shrinks. Every call may be repeated.

use super::statuses::{failed, refused, unexpected_outcome};
use crate::messaging::Messaging;
use crate::translate::{duration_to_wire, timestamp_to_wire};
use gantry_proto::contract::{
    ClusterStatus, ControllerChange, ControllerStatus, MetadataError, ProxyStatus, Remains, StorePositions, StoreStatus,
};
use gantry_proto::model::{
    self, LogOffset, MetadataCommand, MetadataOutcome, MetadataRefusal, StoreGroupName, StoreGroupState,
};
use gantry_proto::wire::admin::v1 as wire;
use gantry_proto::wire::admin::v1::cluster_service_server::ClusterService;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Topics that are spread by one change of the metadata.
const SPREAD_PAGE: u32 = 256;
/// How long the controller may take to answer for the cluster's status.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a store may take to confirm that it is closed. It does so when it renews its store lease.
const CLOSING_PATIENCE: Duration = Duration::from_secs(10);
/// How often this proxy looks whether it has.
const CLOSING_POLL: Duration = Duration::from_millis(50);
/// How long a change of the controller's members may take: a new member gets all metadata first.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(60);

/// Answers operators about the cluster.
pub(crate) struct Cluster {
    messaging: Arc<Messaging>,
}

impl Cluster {
    pub(crate) fn new(messaging: Arc<Messaging>) -> Cluster {
        Cluster { messaging }
    }

    async fn propose(&self, command: MetadataCommand) -> Result<MetadataOutcome, Status> {
        self.messaging.directory.propose(command).await.map_err(failed)
    }

    fn store_group(&self, name: &StoreGroupName) -> Result<Arc<model::StoreGroup>, Status> {
        let store_groups = self.messaging.directory.view().store_groups();
        let found = store_groups.into_iter().find(|store_group| store_group.name == *name);
        found.ok_or_else(|| refused(&MetadataRefusal::StoreGroupNotFound(name.clone())))
    }

    /// Spreads all topics, page by page, and says how many changed.
    async fn spread(&self) -> Result<u32, Status> {
        let (mut topics_changed, mut after) = (0, None);
        loop {
            match self.propose(MetadataCommand::SpreadTopics { after, limit: SPREAD_PAGE }).await? {
                MetadataOutcome::Spread { changed, next } => {
                    topics_changed += changed;
                    match next {
                        Some(next) => after = Some(next),
                        None => return Ok(topics_changed),
                    }
                }
                _ => return Err(unexpected_outcome()),
            }
        }
    }

    /// The cluster by the metadata that this proxy saw last, without what only the controller knows.
    fn last_seen(&self) -> ClusterStatus {
        let view = self.messaging.directory.view();
        let store = |store_group| StoreStatus {
            store_group,
            heard: None,
            leading_since: None,
            positions: StorePositions::default(),
            version: "".into(),
        };
        let proxy = |proxy| ProxyStatus { proxy, heard: None, sessions: 0 };
        ClusterStatus {
            cluster: view.cluster(),
            version: view.version(),
            controllers: Vec::new(),
            stores: view.store_groups().into_iter().map(store).collect(),
            proxies: view.proxies().into_iter().map(proxy).collect(),
        }
    }

    async fn change_controllers(&self, change: ControllerChange) -> Result<(), Status> {
        let changed = self.messaging.membership.change_controllers(change);
        tokio::time::timeout(CONTROLLER_PATIENCE, changed)
            .await
            .unwrap_or_else(|_| Err(MetadataError::Unknown("no answer in time".to_owned())))
            .map_err(failed)
    }

    /// Closes a draining store group: its store has to confirm that it takes no messages and holds none. If it does not, the
    /// store group goes on draining.
    async fn close(&self, store_group: Arc<model::StoreGroup>) -> Result<(), Status> {
        // Quick, for the usual mistake. What counts is what the store confirms after it was closed.
        self.check_that_nothing_remains(store_group.clone()).await?;
        let name = store_group.name.clone();
        self.propose(MetadataCommand::CloseStoreGroup { name: name.clone() }).await?;
        let deadline = tokio::time::Instant::now() + CLOSING_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            match self.store_group(&name)?.state {
                StoreGroupState::Closed => return Ok(()),
                StoreGroupState::Closing(_) => {}
                StoreGroupState::Active | StoreGroupState::Draining => {
                    return Err(Status::failed_precondition(format!(
                        "store group {name} was opened again while its store was being asked: it was not removed"
                    )));
                }
            }
            tokio::time::sleep(CLOSING_POLL).await;
        }
        self.propose(MetadataCommand::DrainStoreGroup { name: name.clone() }).await?;
        self.check_that_nothing_remains(store_group).await?;
        Err(Status::failed_precondition(format!(
            "the store of store group {name} did not confirm within {} s that it takes no messages and holds none; the group \
             is draining as before: look after its store and try again, or force it to lose what it holds",
            CLOSING_PATIENCE.as_secs()
        )))
    }

    /// Refuses to remove a store group that holds messages for consumers.
    async fn check_that_nothing_remains(&self, store_group: Arc<model::StoreGroup>) -> Result<(), Status> {
        let Some((store_group, answer)) = self.messaging.stores.remains(vec![store_group]).await.pop() else {
            return Err(unexpected_outcome());
        };
        match answer {
            Ok(Remains { unfinished: 0, unclaimed: 0 }) => Ok(()),
            Ok(Remains { unfinished, unclaimed }) => Err(Status::failed_precondition(format!(
                "store group {} still holds {unfinished} unfinished messages and {unclaimed} that no group consumes; \
                 wait until they are consumed, or force it to lose them. Damaged messages count as unfinished (gantry admin \
                 group describe shows them) until an operator gives them up with gantry repair record",
                store_group.name
            ))),
            Err(error) => Err(Status::failed_precondition(format!(
                "store group {} cannot be asked what it still holds ({error}); start it, or force it to lose that",
                store_group.name
            ))),
        }
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_cluster_status(
        &self,
        _: Request<wire::GetClusterStatusRequest>,
    ) -> Result<Response<wire::GetClusterStatusResponse>, Status> {
        let asked = tokio::time::timeout(STATUS_PATIENCE, self.messaging.membership.cluster_status())
            .await
            .unwrap_or_else(|_| Err(MetadataError::Unavailable("no answer in time".to_owned())));
        let (status, controller_away) = match asked {
            Ok(status) => (status, String::new()),
            Err(error) => (self.last_seen(), error.to_string()),
        };
        let draining = status.stores.iter().map(|store| &store.store_group);
        let draining = draining.filter(|store_group| store_group.state != StoreGroupState::Active).cloned().collect();
        let remains = self.messaging.stores.remains(draining).await;
        let remains: BTreeMap<_, _> =
            remains.into_iter().filter_map(|(store_group, answer)| Some((store_group.id, answer.ok()?))).collect();
        let ClusterStatus { cluster, version, controllers, stores, proxies } = status;
        Ok(Response::new(wire::GetClusterStatusResponse {
            cluster: cluster.map(|cluster| cluster.to_string()).unwrap_or_default(),
            metadata_version: version.0,
            controllers: controllers.into_iter().map(controller_to_wire).collect(),
            stores: stores
                .iter()
                .map(|store| wire::StoreGroupStatus {
                    trouble: self.messaging.stores.trouble_with(&store.store_group).unwrap_or_default(),
                    ..store_to_wire(store, remains.get(&store.store_group.id))
                })
                .collect(),
            proxies: proxies.iter().map(proxy_to_wire).collect(),
            controller_away,
        }))
    }

    async fn drain_store_group(
        &self,
        request: Request<wire::DrainStoreGroupRequest>,
    ) -> Result<Response<wire::DrainStoreGroupResponse>, Status> {
        let name = store_group_name(&request.into_inner().name)?;
        let store_group = store_group_outcome(self.propose(MetadataCommand::DrainStoreGroup { name }).await?)?;
        let topics_changed = self.spread().await?;
        let group = Some(store_group_to_wire(&store_group));
        Ok(Response::new(wire::DrainStoreGroupResponse { group, topics_changed }))
    }

    async fn activate_store_group(
        &self,
        request: Request<wire::ActivateStoreGroupRequest>,
    ) -> Result<Response<wire::ActivateStoreGroupResponse>, Status> {
        let name = store_group_name(&request.into_inner().name)?;
        let store_group = store_group_outcome(self.propose(MetadataCommand::ActivateStoreGroup { name }).await?)?;
        Ok(Response::new(wire::ActivateStoreGroupResponse { group: Some(store_group_to_wire(&store_group)) }))
    }

    async fn remove_store_group(
        &self,
        request: Request<wire::RemoveStoreGroupRequest>,
    ) -> Result<Response<wire::RemoveStoreGroupResponse>, Status> {
        let wire::RemoveStoreGroupRequest { name, force } = request.into_inner();
        let name = store_group_name(&name)?;
        let store_group = self.store_group(&name)?;
        if store_group.state == StoreGroupState::Active {
            return Err(refused(&MetadataRefusal::StoreGroupActive(name)));
        }
        if !force {
            self.close(store_group).await?;
        }
        self.propose(MetadataCommand::RemoveStoreGroup { name, force }).await?;
        Ok(Response::new(wire::RemoveStoreGroupResponse {}))
    }

    async fn spread_topics(
        &self,
        _: Request<wire::SpreadTopicsRequest>,
    ) -> Result<Response<wire::SpreadTopicsResponse>, Status> {
        Ok(Response::new(wire::SpreadTopicsResponse { topics_changed: self.spread().await? }))
    }

    async fn add_controller(
        &self,
        request: Request<wire::AddControllerRequest>,
    ) -> Result<Response<wire::AddControllerResponse>, Status> {
        let wire::AddControllerRequest { id, address } = request.into_inner();
        let parts = address.rsplit_once(':');
        if parts.is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(Status::invalid_argument(format!("{address:?} is not host:port")));
        }
        self.change_controllers(ControllerChange::Add { id, address }).await?;
        Ok(Response::new(wire::AddControllerResponse {}))
    }

    async fn remove_controller(
        &self,
        request: Request<wire::RemoveControllerRequest>,
    ) -> Result<Response<wire::RemoveControllerResponse>, Status> {
        self.change_controllers(ControllerChange::Remove { id: request.into_inner().id }).await?;
        Ok(Response::new(wire::RemoveControllerResponse {}))
    }
}

fn store_group_name(name: &str) -> Result<StoreGroupName, Status> {
    StoreGroupName::parse(name).map_err(|error| Status::invalid_argument(format!("store group: {error}")))
}

fn store_group_outcome(outcome: MetadataOutcome) -> Result<Arc<model::StoreGroup>, Status> {
    match outcome {
        MetadataOutcome::StoreGroup(store_group) => Ok(store_group),
        _ => Err(unexpected_outcome()),
    }
}

fn controller_to_wire(controller: ControllerStatus) -> wire::ControllerMember {
    let ControllerStatus { id, address, leader, voter, matched } = controller;
    wire::ControllerMember { id, address, leader, voter, matched }
}

fn store_group_to_wire(store_group: &model::StoreGroup) -> wire::StoreGroup {
    let state = match store_group.state {
        StoreGroupState::Active => wire::StoreGroupState::Active,
        StoreGroupState::Draining => wire::StoreGroupState::Draining,
        StoreGroupState::Closing(_) | StoreGroupState::Closed => wire::StoreGroupState::Closing,
    };
    let replica = |replica: &model::Replica| wire::StoreReplica {
        folder: replica.folder.to_string(),
        address: replica.address.to_string(),
        leader: store_group.leader == Some(replica.folder),
        in_sync: store_group.in_sync.contains(&replica.folder),
    };
    wire::StoreGroup {
        id: store_group.id.0,
        name: store_group.name.to_string(),
        state: state as i32,
        epoch: store_group.epoch.0,
        replicas: store_group.replicas.iter().map(replica).collect(),
        created_at: Some(timestamp_to_wire(store_group.created_at)),
    }
}

fn store_to_wire(store: &StoreStatus, remains: Option<&Remains>) -> wire::StoreGroupStatus {
    let heard = |position: LogOffset| store.heard.map(|_| position.0);
    wire::StoreGroupStatus {
        group: Some(store_group_to_wire(&store.store_group)),
        heard_ago: store.heard.map(duration_to_wire),
        leading_since: store.leading_since.map(timestamp_to_wire),
        retained_from: heard(store.positions.retained_from),
        confirmed_to: heard(store.positions.confirmed_to),
        appended_to: heard(store.positions.appended_to),
        version: store.version.to_string(),
        remains: remains
            .map(|remains| wire::StoreRemains { unfinished: remains.unfinished, unclaimed: remains.unclaimed }),
        trouble: String::new(),
    }
}

fn proxy_to_wire(status: &ProxyStatus) -> wire::ProxyMember {
    wire::ProxyMember {
        id: status.proxy.id.to_string(),
        address: status.proxy.address.to_string(),
        version: status.proxy.version.to_string(),
        joined_at: Some(timestamp_to_wire(status.proxy.joined_at)),
        heard_ago: status.heard.map(duration_to_wire),
        sessions: status.heard.map(|_| status.sessions),
    }
}
