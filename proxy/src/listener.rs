//! Takes connections, up to a number, and hands each to a task of its own: no handshake holds up the next connection.

use crate::connection::ConnectionServer;
use crate::{BuildError, ServeError};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Connections that the kernel holds while we are busy.
const BACKLOG: u32 = 4096;
/// How long to leave the kernel alone when it has no room for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
pub(crate) struct Listener {
    socket: TcpListener,
    local_addr: SocketAddr,
}

impl Listener {
    /// Binds. Needs a tokio runtime around it.
    pub(crate) fn bind(address: SocketAddr) -> Result<Listener, BuildError> {
        let bound = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A restarted server need not wait for connections of its predecessor to be forgotten.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let local_addr = socket.local_addr()?;
            Ok(Listener { socket, local_addr })
        };
        bound().map_err(|source: io::Error| match source.kind() {
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
        self,
        server: Arc<ConnectionServer>,
        connections_max: usize,
        tasks: TaskTracker,
    ) -> Result<(), ServeError> {
        let room = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        loop {
            let (tcp, peer) = self.accept().await?;
            let metrics = server.metrics().clone();
            let Ok(permit) = room.clone().try_acquire_owned() else {
                metrics.connections_refused.increment(1);
                tracing::debug!(%peer, connections_max, "too many connections, one more is closed");
                continue;
            };
            let server = server.clone();
            tasks.spawn(async move {
                metrics.connections.increment(1.0);
                server.serve(tcp, peer).await;
                metrics.connections.decrement(1.0);
                drop(permit);
            });
        }
    }

    async fn accept(&self) -> Result<(TcpStream, SocketAddr), ServeError> {
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
