//! Sockets.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

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

impl Connection for TcpStream {
    fn local_addr(&self) -> Option<SocketAddr> {
        TcpStream::local_addr(self).ok()
    }
}

impl Connection for DuplexStream {}
