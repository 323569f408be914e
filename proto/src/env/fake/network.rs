use crate::env::{Addressed, Connection, Listener, Network};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

/// A machine without a network.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNetwork;

#[async_trait::async_trait]
impl Network for NoNetwork {
    async fn listen(&self, _address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::NetworkDown.into())
    }

    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
        Err(io::ErrorKind::NetworkDown.into())
    }
}

/// The loopback interface of the real machine, for tests that speak with programs of others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loopback;

#[async_trait::async_trait]
impl Network for Loopback {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(LoopbackListener(TcpListener::bind(address).await?)))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok();
        Ok(Box::new(Addressed::new(stream, local)))
    }
}

struct LoopbackListener(TcpListener);

#[async_trait::async_trait]
impl Listener for LoopbackListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok();
        Ok((Box::new(Addressed::new(stream, local)), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
