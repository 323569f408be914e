//! A connection whose first byte was read to find out whether the client speaks TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream with one byte put back before it.
pub(super) struct Rewound<C> {
    first: Option<u8>,
    connection: C,
}

impl<C> Rewound<C> {
    /// `first` is read before what `connection` still has.
    pub(super) fn new(first: u8, connection: C) -> Rewound<C> {
        Rewound { first: Some(first), connection }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Rewound<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.connection).poll_read(cx, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Rewound<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn the_first_byte_comes_first_and_the_rest_follows() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"hello").await.unwrap();
        let first = server.read_u8().await.unwrap();
        let mut rewound = Rewound::new(first, server);
        assert_eq!(rewound.read(&mut []).await.unwrap(), 0);
        let mut all = [0; 5];
        rewound.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"hello");
        rewound.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
    }
}
