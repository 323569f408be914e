use gantry_proto::env::{Addressed, Connection, Listener, Network};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the kernel holds while we are busy.
const BACKLOG: u32 = 4096;

/// TCP of the operating system.
pub struct SystemNetwork;

#[async_trait::async_trait]
impl Network for SystemNetwork {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted server need not wait for connections of its predecessor to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Box::new(SystemListener(socket.listen(BACKLOG)?)))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok();
        Ok(Box::new(Addressed::new(stream, local)))
    }
}

struct SystemListener(TcpListener);

#[async_trait::async_trait]
impl Listener for SystemListener {
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
