use super::Machine;
use super::kernel::{Call, Listening};
use gantry_proto::env::{Connection, Listener, Network};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, oneshot};

/// The simulated network, as a process sees it: it asks its machine's kernel.
pub struct SimNetwork {
    machine: Arc<Machine>,
    /// `None`: the machine has no kernel, so no network.
    calls: Option<mpsc::Sender<Call>>,
}

impl SimNetwork {
    pub(super) fn new(machine: Arc<Machine>) -> SimNetwork {
        let calls = machine.calls.lock().clone();
        SimNetwork { machine, calls }
    }

    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Call) -> io::Result<T> {
        let down = || io::Error::from(io::ErrorKind::NetworkDown);
        let (answer, answered) = oneshot::channel();
        let calls = self.calls.as_ref().ok_or_else(down)?;
        calls.send(call(answer)).await.map_err(|_| down())?;
        answered.await.map_err(|_| down())?
    }

    fn connection(machine: &Arc<Machine>, stream: DuplexStream) -> Box<dyn Connection> {
        Box::new(SimConnection { stream, machine: machine.clone() })
    }
}

#[async_trait::async_trait]
impl Network for SimNetwork {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listening = self.ask(|answer| Call::Listen { address, answer }).await?;
        Ok(Box::new(SimListener { listening, machine: self.machine.clone() }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let stream = self.ask(|answer| Call::Connect { address: address.to_owned(), answer }).await?;
        Ok(SimNetwork::connection(&self.machine, stream))
    }
}

struct SimListener {
    listening: Listening,
    machine: Arc<Machine>,
}

#[async_trait::async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        let accepted = self.listening.accepted.recv().await;
        let (stream, peer) = accepted.ok_or_else(|| io::Error::from(io::ErrorKind::NetworkDown))?;
        Ok((SimNetwork::connection(&self.machine, stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.listening.address)
    }
}

/// A connection that carries nothing once the machine's power is off.
struct SimConnection {
    stream: DuplexStream,
    machine: Arc<Machine>,
}

impl Connection for SimConnection {}

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
