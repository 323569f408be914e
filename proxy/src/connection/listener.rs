//! A listening socket: who may come in.

use super::{ConnectionInfo, ConnectionServer};
use crate::arrivals::ConnectionId;
use crate::memory::{CONNECTION_BYTES, Held, Peer};
use crate::{BuildError, ServeError};
use gantry_proto::env::{self, Connection, Network};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How long to wait when the system has no room for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A bound listening socket.
pub(crate) struct Listener {
    socket: Box<dyn env::Listener>,
    local_addr: SocketAddr,
}

/// How many connections there may be.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) in_all: usize,
    pub(crate) of_one_peer: usize,
}

/// Room for one connection, until this is dropped.
pub(super) struct Room {
    open: Arc<AtomicUsize>,
    pub(super) peer: Arc<Peer>,
    of_one_peer: usize,
    _held: Held,
}

impl Listener {
    pub(crate) async fn bind(network: &dyn Network, address: SocketAddr) -> Result<Listener, BuildError> {
        let bound = async {
            let socket = network.listen(address).await?;
            let local_addr = socket.local_addr()?;
            Ok(Listener { socket, local_addr })
        };
        bound.await.map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BuildError::AddressInUse { address },
            io::ErrorKind::PermissionDenied => BuildError::AddressForbidden { address },
            io::ErrorKind::AddrNotAvailable => BuildError::AddressNotOurs { address },
            _ => BuildError::Bind { address, source },
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Accepts connections until the returned future is dropped; ends by itself only when the socket is broken.
    pub(crate) async fn run(
        mut self,
        server: Arc<ConnectionServer>,
        limits: ConnectionLimits,
        tasks: TaskTracker,
    ) -> Result<(), ServeError> {
        let open = Arc::new(AtomicUsize::new(0));
        let mut ids = 0;
        loop {
            let (connection, peer) = self.accept().await?;
            let metrics = server.messaging.metrics.clone();
            let mut room = match Room::take(&server, &open, limits, peer) {
                Ok(room) => room,
                Err(why) => {
                    metrics.connections_refused.increment(1);
                    tracing::debug!(%peer, why, "one more connection is closed");
                    continue;
                }
            };
            let local = connection.local_addr().unwrap_or(self.local_addr);
            let (server, info) = (server.clone(), ConnectionInfo::new(ConnectionId(ids), peer, local));
            ids += 1;
            tasks.spawn(async move {
                metrics.connections.increment(1.0);
                if let Err(error) = server.serve(connection, info, &mut room).await {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                metrics.connections.decrement(1.0);
            });
        }
    }

    async fn accept(&mut self) -> Result<(Box<dyn Connection>, SocketAddr), ServeError> {
        loop {
            let error = match self.socket.accept().await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => error,
            };
            match error.kind() {
                // The client was gone before we looked.
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted => {}
                io::ErrorKind::InvalidInput => return Err(ServeError::Listener(error)),
                // Out of file descriptors or memory, or the network is unwell: others may leave.
                _ => {
                    tracing::warn!(%error, "no connection can be taken at present");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
}

impl Room {
    fn take(
        server: &ConnectionServer,
        open: &Arc<AtomicUsize>,
        limits: ConnectionLimits,
        peer: SocketAddr,
    ) -> Result<Room, &'static str> {
        let peer = server.messaging.peers.of(peer.ip());
        let held = server.messaging.memory.take(&peer, CONNECTION_BYTES).map_err(|_| "clients hold all memory")?;
        // From here on, dropping it gives back what was taken. Only this task adds.
        let room = Room { open: open.clone(), peer, of_one_peer: limits.of_one_peer, _held: held };
        let in_all = room.open.fetch_add(1, Ordering::Relaxed);
        let of_this_peer = room.peer.connections.fetch_add(1, Ordering::Relaxed);
        if in_all >= limits.in_all {
            return Err("too many connections");
        }
        if of_this_peer >= limits.of_one_peer {
            return Err("too many connections of one address");
        }
        Ok(room)
    }

    /// The connection comes from another machine than the one at its other end: that one's limits are meant.
    pub(super) fn is_of(&mut self, peer: Arc<Peer>) -> io::Result<()> {
        self.peer.connections.fetch_sub(1, Ordering::Relaxed);
        self.peer = peer;
        if self.peer.connections.fetch_add(1, Ordering::Relaxed) >= self.of_one_peer {
            return Err(io::Error::other("too many connections of one address"));
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.peer.connections.fetch_sub(1, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
