//! Sockets.

use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Byte streams between machines.
#[async_trait::async_trait]
pub trait Network: Send + Sync + 'static {
    /// Takes an address. Errors are the operating system's: [`io::ErrorKind::AddrInUse`] and so on.
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to `host:port`. Not bounded in time.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>>;
}

/// An address that was taken.
#[async_trait::async_trait]
pub trait Listener: Send + Sync + 'static {
    /// The next connection and who made it. Cancel-safe.
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)>;

    /// The address, with the port that was given for 0.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A byte stream in both directions.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Our end: the address that the peer reached, where its listener may have stood for all addresses of the machine.
    /// `None`: it is not known.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }
}

/// A stream whose own end has an address.
pub struct Addressed<S> {
    stream: S,
    local: Option<SocketAddr>,
}

impl<S> Addressed<S> {
    pub fn new(stream: S, local: Option<SocketAddr>) -> Addressed<S> {
        Addressed { stream, local }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for Addressed<S> {
    fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Addressed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Addressed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connection for DuplexStream {}
