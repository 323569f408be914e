//! What runs on the machines: the tiers that ship, composed as `gantry controller`, `gantry store` and `gantry proxy` compose
//! them, with observers between a store and those who call it or whom it calls.
//!
//! A process ends by itself when its tier says that it cannot go on; whoever supervises it starts it again.

mod controller;
mod observed;
mod proxy;
mod running;
mod store;

use crate::env::Machine;
use crate::history::{Ended, ViewSeen, digest};
use crate::note;
use crate::site::Site;
use futures_util::StreamExt as _;
use gantry_link::{ControllerLink, LocalPeer, PeerCredentials, SharedToken};
use gantry_proto::contract::{MetadataService, MetadataStream};
use gantry_proto::env::Env;
use gantry_proto::model::{MetadataVersion, MetadataView};
pub use running::Running;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use store::SEGMENT_BYTES_BOUNDED;
use tokio_util::sync::CancellationToken;

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A member of the controller, by number.
    Controller(u64),
    /// A store, of the group named like its machine unless it was copied from another one.
    Store,
    /// A proxy.
    Proxy,
}

/// One start of a process.
pub(crate) struct Process {
    pub(crate) site: Arc<Site>,
    pub(crate) machine: Arc<Machine>,
    /// Machine and start: no two processes have the same.
    pub(crate) name: Arc<str>,
    pub(crate) env: Env,
    pub(crate) local: LocalPeer,
    /// Whether it is of the version before: a member of the controller follows the first rules of the metadata only, and a
    /// store does not report what a controller that was put back has to know.
    pub(crate) older: bool,
    /// Which start this is on its machine.
    pub(crate) start: u64,
    /// Set when it dies.
    pub(crate) dead: Arc<AtomicBool>,
    /// Cancelled when it is asked to end.
    pub(crate) stop: CancellationToken,
}

/// How a process is spoken to from outside.
#[derive(Clone, Default)]
pub struct Signals {
    /// Set when it dies; whatever it still does then reaches nobody.
    dead: Arc<AtomicBool>,
    /// Asks it to end, as SIGTERM does.
    stop: CancellationToken,
}

impl Signals {
    /// SIGTERM.
    pub fn terminate(&self) {
        self.stop.cancel();
    }

    /// It is about to die.
    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
}

/// Where a store's data are on its machine.
pub(crate) fn store_data() -> &'static Path {
    data()
}

/// Where data are on every machine.
fn data() -> &'static Path {
    Path::new("/data")
}

/// What is started.
pub struct Start {
    /// Where.
    pub machine: Arc<Machine>,
    pub tier: Tier,
    /// Counts the starts on this machine.
    pub number: u64,
    /// What a store serves.
    pub group: Arc<str>,
    /// Whether it is of the version before.
    pub older: bool,
    /// How it is spoken to.
    pub signals: Signals,
}

/// Runs a process until it ends by itself.
pub async fn run(site: Arc<Site>, start: Start) {
    let Start { machine, tier, number: start, group, older, signals: Signals { dead, stop } } = start;
    let name: Arc<str> = format!("{}#{start}", machine.name).into();
    let recorder = site.recorder.clone();
    let trace = recorder.trace.clone();
    note!(trace, &name, "starts{}", if older { ", of the version before" } else { "" });
    let credentials = match SharedToken::new(b"a token for simulations") {
        Ok(token) => PeerCredentials::Token(token),
        Err(_) => PeerCredentials::None,
    };
    let env = machine.env();
    let local = LocalPeer::new(credentials);
    let process = Process { site, machine, name: name.clone(), env, local, older, start, dead, stop };
    let ended = match tier {
        Tier::Controller(number) => controller::run(process, number).await,
        Tier::Store => store::run(process, &group).await,
        Tier::Proxy => proxy::run(process).await,
    };
    match ended {
        Ok(()) => note!(trace, &name, "ended"),
        Err(error) => {
            note!(trace, &name, "ended: {error:#}");
            let at = recorder.moment();
            let ended = Ended { process: name, error: format!("{error:#}"), at };
            recorder.history(|history| history.ended.push(ended));
        }
    }
}

impl Process {
    /// Each process was told the members in another order: it uses one until that fails.
    fn controller(&self) -> Arc<ControllerLink> {
        let mut addresses = self.site.controller_addresses();
        let first = (digest(self.machine.name.as_bytes()) + self.start) % addresses.len() as u64;
        addresses.rotate_left(first as usize);
        Arc::new(ControllerLink::new(&self.env, &self.local, &addresses))
    }

    /// Waits for all metadata once. The stream brings what changes.
    async fn watch(&self, metadata: &dyn MetadataService) -> anyhow::Result<(Arc<MetadataView>, MetadataStream)> {
        let view = Arc::new(MetadataView::default());
        let mut changes = metadata.watch(MetadataVersion::default()).await?;
        let everything = changes.next().await.ok_or_else(|| anyhow::anyhow!("the watch ended"))?;
        view.apply(everything.version, &everything.changes);
        self.saw(everything.version, &view);
        Ok((view, changes))
    }

    async fn follow(&self, mut changes: MetadataStream, view: &MetadataView) {
        while let Some(event) = changes.next().await {
            view.apply(event.version, &event.changes);
            self.saw(event.version, view);
        }
    }

    fn saw(&self, version: MetadataVersion, view: &MetadataView) {
        let (recorder, process) = (&self.site.recorder, self.name.clone());
        note!(recorder.trace, &self.name, "sees version {} of the metadata", version.0);
        let at = recorder.moment();
        let digest = digest_of(view);
        recorder.history(|history| history.views.push(ViewSeen { process, version: version.0, digest, at }));
    }
}

/// A digest of all metadata: two processes that saw the same version saw the same.
fn digest_of(view: &MetadataView) -> u64 {
    let (topics, groups) = (view.topics_page("", "", usize::MAX), view.groups_page("", "", usize::MAX));
    let text = format!("{:?} {topics:?} {groups:?} {:?} {:?}", view.cluster(), view.store_groups(), view.proxies());
    digest(text.as_bytes())
}

fn listen(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}
