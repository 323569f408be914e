//! A store: alone in its process, or as a part of a standalone server.

use super::peers::{self, BoundPort, PeerPort};
use super::view;
use crate::config::{Config, FlushMode, Store as StoreOptions};
use crate::data_dir::DataDir;
use crate::port;
use crate::process::{Process, Role, within};
use crate::tasks::Tasks;
use anyhow::Context as _;
use gantry_link::{PeerServices, StoreIdentity};
use gantry_proto::contract::{MembershipService, StoreService, Stores};
use gantry_proto::model::{Epoch, FolderId, MetadataView, StoreGroup, StoreGroupId};
use gantry_store::{Flush, Member, MemberConfig, RetentionPolicy, StoreConfig, StoreHost};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the store may take to write what it took and to save its progress.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to give its lease back.
const LEAVE_DEADLINE: Duration = Duration::from_secs(3);
/// Chooses the port for proxies.
const FLAG: &str = "--store-listen";
const MEMBER_TASK: &str = "the store's membership";

/// `gantry store`: serves one store group to the proxies.
pub struct StoreRole {
    part: StorePart,
    port: PeerPort,
}

impl Role for StoreRole {
    const NAME: &'static str = "store";

    async fn start(config: &Config, process: &mut Process) -> anyhow::Result<StoreRole> {
        let env = process.env.clone();
        let local = peers::local(&config.cluster, &env)?;
        // A taken port is found now, not after a long recovery. But nobody may connect before somebody answers there.
        port::probe(config.store.listen, FLAG)?;
        let address = peers::advertised(config.store.advertised.as_ref(), config.store.listen);
        let dir = DataDir::new(&config.data.dir).prepare_store()?;

        let controller = peers::controller(config, &local, &env)?;
        let view = view::watch(controller.clone(), &mut process.tasks).await?;
        let part = StorePart::start(config, dir, address, controller, view, process).await?;
        let port = BoundPort::bind(config.store.listen, FLAG, &local, &env).await?;
        let identity = Arc::new(Identity(part.host.clone()));
        let port = port.serve(PeerServices::default().store(part.host.clone(), identity), &mut process.tasks);
        Ok(StoreRole { part, port })
    }

    fn address(&self) -> SocketAddr {
        self.port.address
    }

    async fn stop(self, _config: &Config, tasks: &mut Tasks) -> anyhow::Result<()> {
        // Waiting receives end with the store: only then has the port nothing left to answer.
        self.port.close();
        let store = self.part.shut_down().await;
        let port = self.port.finish(tasks).await;
        let left = self.part.leave(tasks).await;
        store.and(port).and(left)
    }
}

/// A store that leads its group, or tries to.
pub(super) struct StorePart {
    host: Arc<StoreHost>,
}

impl StorePart {
    /// Locks the folder, recovers, joins the cluster, and goes on as a member. `address`: where proxies reach it.
    pub(super) async fn start(
        config: &Config,
        dir: PathBuf,
        address: String,
        membership: Arc<dyn MembershipService>,
        view: Arc<MetadataView>,
        process: &mut Process,
    ) -> anyhow::Result<StorePart> {
        let env = process.env.clone();
        let member = MemberConfig {
            store_group: config.store.group.clone(),
            address: address.into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let member = Member::new(membership, env.clone(), member);
        let (host, granted) = StoreHost::start(store_config(&config.store), env, view, dir, member).await?;
        process.health.ready_with({
            let host = host.clone();
            move || host.takes_messages().map_err(|error| error.to_string())
        });
        let kept = host.clone();
        process.tasks.spawn(MEMBER_TASK, async move { Ok(kept.keep(granted).await?) });
        Ok(StorePart { host })
    }

    /// Writes what the store took, and no more.
    pub(super) async fn shut_down(&self) -> anyhow::Result<()> {
        let finish = async { self.host.shutdown().await.context("the store could not finish") };
        within(DEADLINE, "the store", finish).await
    }

    /// Gives the lease back, after the last write.
    pub(super) async fn leave(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        within(LEAVE_DEADLINE, MEMBER_TASK, tasks.end_of(MEMBER_TASK)).await
    }
}

/// The store of a server that has only one.
impl Stores for StorePart {
    fn leader_of(&self, group: &StoreGroup) -> Option<Arc<dyn StoreService>> {
        (group.id == self.host.store_group()).then(|| self.host.clone() as Arc<dyn StoreService>)
    }

    fn trouble_with(&self, _group: &StoreGroup) -> Option<String> {
        None
    }
}

/// What peers ask of a store before they use it.
struct Identity(Arc<StoreHost>);

impl StoreIdentity for Identity {
    fn store_group(&self) -> StoreGroupId {
        self.0.store_group()
    }

    fn folder(&self) -> FolderId {
        self.0.folder()
    }

    fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    fn newer_epoch(&self, epoch: Epoch) {
        self.0.newer_epoch(epoch);
    }
}

fn store_config(options: &StoreOptions) -> StoreConfig {
    StoreConfig {
        flush: match options.flush {
            FlushMode::Sync => Flush::Sync,
            FlushMode::Async => Flush::Async,
        },
        segment_bytes: options.segment_bytes.0,
        retention: RetentionPolicy {
            age: options.retention,
            bytes_max: options.retention_bytes.map(|size| size.0),
            disk_used_percent: options.retention_watermark.map(|percent| percent.0),
        },
        disk_full_percent: options.disk_watermark.0,
        accept_missing_log: options.accept_missing_log,
        checkpoint_interval: options.checkpoint_interval,
        dedup_window: options.dedup_window,
        dedup_bytes_max: usize::try_from(options.dedup_memory.0).unwrap_or(usize::MAX),
        inflight_max: options.inflight_max as usize,
        ..StoreConfig::default()
    }
}
