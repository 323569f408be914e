//! A connection whose first bytes were read to find out what they are.

use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream with some bytes put back before it.
pub(super) struct Rewound<C> {
    first: Bytes,
    connection: C,
}

impl<C> Rewound<C> {
    /// `first` is read before what `connection` still has.
    pub(super) fn new(first: Bytes, connection: C) -> Rewound<C> {
        Rewound { first, connection }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Rewound<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0 && !self.first.is_empty() {
            let fits = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(fits));
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
    async fn the_first_bytes_come_first_and_the_rest_follows() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"hello").await.unwrap();
        let mut first = [0; 3];
        server.read_exact(&mut first).await.unwrap();
        let mut rewound = Rewound::new(Bytes::copy_from_slice(&first), server);
        assert_eq!(rewound.read(&mut []).await.unwrap(), 0);
        let mut all = [0; 5];
        assert_eq!(rewound.read(&mut all[..2]).await.unwrap(), 2);
        rewound.read_exact(&mut all[2..]).await.unwrap();
        assert_eq!(&all, b"hello");
        rewound.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
    }
}
