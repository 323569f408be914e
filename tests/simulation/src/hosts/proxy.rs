use super::{Process, listen};
use crate::site::{ADMIN_PORT, AUTO_RENEW_LEASE, PROXY_PORT};
use gantry_link::LinkedStores;
use gantry_proxy::{AdvertisedEndpoints, Proxy, ProxyConfig, ProxyDeps};
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn run(process: Process) -> anyhow::Result<()> {
    let controller = process.controller();
    let (view, changes) = process.watch(&*controller).await?;
    let stores = Arc::new(LinkedStores::new(&process.env, &process.local, view.clone()));
    let deps = ProxyDeps {
        env: process.env.clone(),
        metadata: controller.clone(),
        view: view.clone(),
        membership: controller,
        stores,
        tls: None,
    };
    let config = ProxyConfig {
        listen: listen(PROXY_PORT),
        admin_listen: Some(listen(ADMIN_PORT)),
        advertised_endpoints: Some(AdvertisedEndpoints::parse(&format!("{}:{PROXY_PORT}", process.machine.name))?),
        auto_create_topics: false,
        auto_create_groups: false,
        invisible_duration_min: Duration::from_millis(500),
        // Short, so that clients die, their leases end and others get what they held, in every run.
        auto_renew_lease: AUTO_RENEW_LEASE,
        renew_interval: Duration::from_millis(1250),
        session_timeout: Duration::from_secs(7),
        ..ProxyConfig::default()
    };
    let proxy = Proxy::build(config, deps).await?;
    tokio::select! {
        biased;
        () = process.follow(changes, &view) => anyhow::bail!("the watch of the metadata ended"),
        ended = proxy.serve(process.stop.clone().cancelled_owned()) => Ok(ended?),
    }
}
