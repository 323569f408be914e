//! A controller as far as membership goes: it writes down who was there.

use gantry_proto::contract::{
    ClusterStatus, ControllerChange, ControllerStatus, JoinStoreRequest, MembershipError, MembershipService,
    MetadataError, ProxyAliveRequest, ProxyStatus, RenewStoreLeaseRequest, StoreGrant, StoreLease, StorePositions,
    StoreStatus,
};
use gantry_proto::model::{Epoch, LogOffset, MetadataView, ProxyMember, StoreGroupId, Timestamp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) struct FakeMembership {
    pub(crate) view: Arc<MetadataView>,
    /// Nobody answers.
    pub(crate) unavailable: AtomicBool,
    pub(crate) alive: Mutex<Vec<ProxyAliveRequest>>,
    pub(crate) changes: Mutex<Vec<ControllerChange>>,
}

impl FakeMembership {
    pub(crate) fn new(view: Arc<MetadataView>) -> FakeMembership {
        FakeMembership { view, unavailable: AtomicBool::new(false), alive: Mutex::default(), changes: Mutex::default() }
    }
}

#[async_trait::async_trait]
impl MembershipService for FakeMembership {
    async fn join_store(&self, _: JoinStoreRequest) -> Result<StoreGrant, MembershipError> {
        Err(MembershipError::Refused("a proxy is no store".to_owned()))
    }

    async fn renew_store_lease(&self, _: RenewStoreLeaseRequest) -> Result<StoreLease, MembershipError> {
        Err(MembershipError::Refused("a proxy is no store".to_owned()))
    }

    async fn give_up_store_lease(&self, _: StoreGroupId, _: Epoch) -> Result<(), MembershipError> {
        Err(MembershipError::Refused("a proxy is no store".to_owned()))
    }

    async fn proxy_alive(&self, request: ProxyAliveRequest) -> Result<Duration, MembershipError> {
        if self.unavailable.load(Ordering::Relaxed) {
            return Err(MembershipError::Unavailable("no controller".to_owned()));
        }
        self.alive.lock().unwrap().push(request);
        Ok(Duration::from_millis(100))
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        if self.unavailable.load(Ordering::Relaxed) {
            return Err(MetadataError::Unavailable("no controller".to_owned()));
        }
        let store = |group| StoreStatus {
            store_group: group,
            heard: Some(Duration::from_millis(300)),
            leading_since: Some(Timestamp::from_millis(1_000)),
            positions: StorePositions {
                retained_from: LogOffset(1),
                confirmed_to: LogOffset(2),
                appended_to: LogOffset(3),
            },
            version: "1.2.3".into(),
        };
        let proxy = |alive: &ProxyAliveRequest| ProxyStatus {
            proxy: Arc::new(ProxyMember {
                id: alive.id,
                address: alive.address.clone(),
                version: alive.version.clone(),
                joined_at: Timestamp::ZERO,
            }),
            heard: None,
            sessions: alive.sessions,
        };
        let controller =
            ControllerStatus { id: 1, address: "controller:1".to_owned(), leader: true, voter: true, matched: Some(9) };
        Ok(ClusterStatus {
            cluster: self.view.cluster(),
            version: self.view.version(),
            controllers: vec![controller],
            stores: self.view.store_groups().into_iter().map(store).collect(),
            proxies: self.alive.lock().unwrap().last().map(proxy).into_iter().collect(),
        })
    }

    async fn change_controllers(&self, change: ControllerChange) -> Result<(), MetadataError> {
        self.changes.lock().unwrap().push(change);
        Ok(())
    }
}
