//! All tiers in one process: a controller with one voter, a store, a proxy.

use super::controller::ControllerPart;
use super::proxy::{Creation, ProxyBackends, ProxyPart};
use super::store::StorePart;
use super::view;
use crate::beside;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::lost_controller;
use crate::port;
use crate::process::{Process, Role};
use crate::tasks::Tasks;
use std::net::SocketAddr;
use std::sync::Arc;

/// `gantry standalone`.
pub struct Standalone {
    controller: ControllerPart,
    store: Arc<StorePart>,
    proxy: ProxyPart,
}

impl Role for Standalone {
    const NAME: &'static str = "standalone";

    async fn start(config: &Config, process: &mut Process) -> anyhow::Result<Standalone> {
        // A taken port is found now, not after a long recovery.
        port::probe(config.listen.address, "--listen")?;
        port::probe(config.admin.listen, "--admin-listen")?;
        lost_controller::check_standalone(&*process.env.files, &config.data.dir)?;
        beside::check_standalone(&*process.env.files, &config.data.dir, &config.store.group)?;
        let dir = DataDir::new(&config.data.dir);
        let (controller_dir, store_dir, tls_dir) =
            (dir.prepare_controller()?, dir.prepare_store()?, dir.prepare_tls()?);

        let controller = ControllerPart::start_alone(controller_dir, process).await?;
        let view = view::watch(controller.host.clone(), &mut process.tasks).await?;
        let membership = controller.host.clone();
        // Nobody connects to it: the proxy is in the same process.
        let address = "in-process:1".to_owned();
        let store = StorePart::start(config, store_dir, address, membership.clone(), view.clone(), process).await?;
        let store = Arc::new(store);
        let backends = ProxyBackends { metadata: membership.clone(), membership, view, stores: store.clone() };
        let proxy = ProxyPart::start(config, Creation::of_standalone(config), &tls_dir, backends, process).await?;
        Ok(Standalone { controller, store, proxy })
    }

    fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        self.proxy.admin_address
    }

    async fn stop(self, config: &Config, tasks: &mut Tasks) -> anyhow::Result<()> {
        let proxy = self.proxy.stop(&config.listen, tasks).await;
        let store = self.store.shut_down().await;
        let left = self.store.leave(tasks).await;
        let controller = self.controller.shut_down().await;
        proxy.and(store).and(left).and(controller)
    }
}
