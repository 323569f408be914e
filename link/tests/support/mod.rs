//! What the tests of links have in common: a store and a controller in memory.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod controller;
pub mod counted;
pub mod raw;
pub mod store;

use gantry_link::{LocalPeer, PeerCredentials, PeerServer, PeerServices};
use gantry_proto::env::{Env, Network, fake};
use gantry_proto::model::ClusterId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The cluster of everybody, unless a test says something else.
pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// A process that knows its cluster.
pub fn local_of(cluster: ClusterId, credentials: &PeerCredentials) -> LocalPeer {
    let local = LocalPeer::new(credentials.clone());
    local.belongs_to(cluster).expect("it belongs to none yet");
    local
}

/// A process of the tests' cluster that proves nothing.
pub fn local() -> LocalPeer {
    local_of(CLUSTER, &PeerCredentials::None)
}

/// A machine with this network.
pub fn env(network: impl Network) -> Env {
    let (env, _, _) = fake::env(1);
    Env { network: Arc::new(network), ..env }
}

/// A server that stops when it is dropped.
pub struct Served {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    pub async fn start(env: &Env, port: u16, local: &LocalPeer, services: PeerServices) -> Served {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = PeerServer::bind(env, address, local).await.expect("the address is free");
        let (address, stop) = (server.local_addr().expect("it has one"), CancellationToken::new());
        let task = tokio::spawn(server.run(services, stop.clone(), Duration::from_secs(5)));
        Served { address, stop, task }
    }

    /// Lets calls under way end, and waits for that.
    pub async fn drain(mut self) {
        self.stop.cancel();
        (&mut self.task).await.expect("the server does not panic");
    }

    /// Ends it in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until something holds, for a while.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
