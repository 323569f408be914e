use super::Machine;
use crate::note;
use gantry_proto::env::{Connection, Listener, Network};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network, as one machine is connected to it.
pub struct SimNetwork {
    machine: Arc<Machine>,
}

impl SimNetwork {
    pub(super) fn new(machine: Arc<Machine>) -> SimNetwork {
        SimNetwork { machine }
    }
}

#[async_trait::async_trait]
impl Network for SimNetwork {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = TcpListener::bind(address).await?;
        note!(self.machine.trace, &self.machine.name, "listens on port {}", socket.local_addr()?.port());
        Ok(Box::new(SimListener { socket, machine: self.machine.clone() }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let machine = &self.machine;
        match TcpStream::connect(address).await {
            Ok(stream) => {
                note!(machine.trace, &machine.name, "connected to {address} from port {}", stream.local_addr()?.port());
                Ok(Box::new(SimConnection { stream, machine: machine.clone() }))
            }
            Err(error) => {
                note!(machine.trace, &machine.name, "cannot connect to {address}: {}", error.kind());
                Err(error)
            }
        }
    }
}

struct SimListener {
    socket: TcpListener,
    machine: Arc<Machine>,
}

#[async_trait::async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        Ok((Box::new(SimConnection { stream, machine: self.machine.clone() }), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A connection that carries nothing once the machine's power is off.
struct SimConnection {
    stream: TcpStream,
    machine: Arc<Machine>,
}

impl AsyncRead for SimConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.machine.is_off() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.machine.is_off() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.machine.is_off() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
