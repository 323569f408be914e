//! Takes connections, up to a number, and hands each to a task of its own: no handshake holds up the next connection.

use crate::connection::ConnectionServer;
use crate::{BuildError, ServeError};
use gantry_proto::env::{self, Connection, Network};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How long to leave the system alone when it has no room for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// An address that was taken.
pub(crate) struct Listener {
    socket: Box<dyn env::Listener>,
    local_addr: SocketAddr,
}

impl Listener {
    /// Takes the address.
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

    /// Takes connections until the returned future is dropped; ends by itself only when the socket is broken.
    pub(crate) async fn run(
        mut self,
        server: Arc<ConnectionServer>,
        connections_max: usize,
        tasks: TaskTracker,
    ) -> Result<(), ServeError> {
        let room = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        loop {
            let (connection, peer) = self.accept().await?;
            let metrics = server.metrics().clone();
            let Ok(permit) = room.clone().try_acquire_owned() else {
                metrics.connections_refused.increment(1);
                tracing::debug!(%peer, connections_max, "too many connections, one more is closed");
                continue;
            };
            let (server, local) = (server.clone(), self.local_addr);
            tasks.spawn(async move {
                metrics.connections.increment(1.0);
                server.serve(connection, peer, local).await;
                metrics.connections.decrement(1.0);
                drop(permit);
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
