//! What happens on a connection: what was read of it, which calls are open, since when there are none.

use crate::memory::Held;
use crate::messaging::Caller;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

/// What a client sends first: HTTP/2's preface, and the head of its settings.
const GREETING_BYTES: usize = 24 + 9;

/// One per connection.
pub(crate) struct Activity {
    since: Instant,
    /// Bytes read, up to the greeting's.
    read: AtomicUsize,
    open: AtomicUsize,
    /// Milliseconds from `since` until the last call ended.
    ended_ms: AtomicU64,
}

/// A call that was not answered to its end. Its memory is held.
pub(crate) struct OpenCall {
    pub(crate) caller: Arc<Caller>,
    pub(crate) held: Held,
}

/// A byte stream whose beginning is counted.
pub(super) struct Counted<C> {
    connection: C,
    activity: Arc<Activity>,
    greeted: bool,
}

impl Activity {
    pub(super) fn new() -> Arc<Activity> {
        Arc::new(Activity {
            since: Instant::now(),
            read: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            ended_ms: AtomicU64::new(0),
        })
    }

    /// Whether the client speaks HTTP/2, as far as can be seen.
    pub(super) fn is_greeted(&self) -> bool {
        self.read.load(Ordering::Relaxed) >= GREETING_BYTES
    }

    /// Ends when no call was open for so long.
    pub(super) async fn idle_for(&self, duration: Duration) {
        loop {
            let rest = match self.idle() {
                Some(idle) if idle >= duration => return,
                Some(idle) => duration - idle,
                None => duration,
            };
            sleep(rest.max(Duration::from_millis(1))).await;
        }
    }

    /// Since when there is no open call.
    fn idle(&self) -> Option<Duration> {
        let ended = Duration::from_millis(self.ended_ms.load(Ordering::Relaxed));
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.since.elapsed().saturating_sub(ended))
    }
}

impl OpenCall {
    pub(super) fn new(caller: Arc<Caller>, held: Held) -> OpenCall {
        caller.activity.open.fetch_add(1, Ordering::Relaxed);
        OpenCall { caller, held }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let activity = &self.caller.activity;
        activity.ended_ms.store(activity.since.elapsed().as_millis() as u64, Ordering::Relaxed);
        activity.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C> Counted<C> {
    pub(super) fn new(connection: C, activity: Arc<Activity>) -> Counted<C> {
        Counted { connection, activity, greeted: false }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(cx, buffer);
        if !self.greeted {
            self.activity.read.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
            self.greeted = self.activity.is_greeted();
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[std::io::IoSlice<'_>],
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
