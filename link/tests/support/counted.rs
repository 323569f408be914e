//! The loopback interface, with what those who dialed were sent counted.

use gantry_proto::env::fake::Loopback;
use gantry_proto::env::{Connection, Listener, Network};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that those who dialed have read.
#[derive(Clone, Default)]
pub struct Counted(pub Arc<AtomicU64>);

#[async_trait::async_trait]
impl Network for Counted {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Loopback.listen(address).await
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(CountedStream(Loopback.connect(address).await?, self.0.clone())))
    }
}

struct CountedStream(Box<dyn Connection>, Arc<AtomicU64>);

impl Connection for CountedStream {}

impl AsyncRead for CountedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let CountedStream(stream, read) = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(stream).poll_read(cx, buf);
        read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
