use crate::env::{Connection, Listener, Network};
use std::io;
use std::net::SocketAddr;

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
