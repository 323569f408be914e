//! A network in memory that can be cut.

use crate::env::{Connection, Listener, Network};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

/// Connections through memory, by port.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<Switchboard>>);

type Accepted = (Box<dyn Connection>, SocketAddr);

#[derive(Default)]
struct Switchboard {
    listeners: BTreeMap<u16, mpsc::Sender<Accepted>>,
    lines: Vec<Arc<Mutex<Line>>>,
    dialed: usize,
    swallows: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// What is written waits in the line for whoever dialed.
    Held,
    /// What is written is lost, and nobody is told.
    Swallows,
    Broken,
}

struct Line {
    state: State,
    waiting: Vec<Waker>,
}

impl Wires {
    /// Connections that were asked for so far.
    pub fn dialed(&self) -> usize {
        self.0.lock().dialed
    }

    /// Ends all connections, and both sides notice.
    pub fn break_all(&self) {
        self.set(State::Broken);
    }

    /// All connections, those to come too, lose everything without a word, until [`Wires::heal`] lets new ones work.
    pub fn swallow_all(&self) {
        self.0.lock().swallows = true;
        self.set(State::Swallows);
    }

    pub fn heal(&self) {
        self.0.lock().swallows = false;
    }

    /// Those who dialed read nothing until [`Wires::release`].
    pub fn hold(&self) {
        self.set(State::Held);
    }

    pub fn release(&self) {
        self.set(State::Works);
    }

    fn set(&self, state: State) {
        for line in &self.0.lock().lines {
            let mut line = line.lock();
            if line.state != State::Broken && line.state != State::Swallows {
                line.state = state;
            }
            line.waiting.drain(..).for_each(Waker::wake);
        }
    }
}

#[async_trait::async_trait]
impl Network for Wires {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let (sender, receiver) = mpsc::channel(1024);
        self.0.lock().listeners.insert(address.port(), sender);
        Ok(Box::new(WiresListener { address, receiver }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.ok_or(io::ErrorKind::InvalidInput)?;
        let (dialed, listener, swallows) = {
            let mut board = self.0.lock();
            board.dialed += 1;
            (board.dialed, board.listeners.get(&port).cloned(), board.swallows)
        };
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = listener.ok_or_else(refused)?;
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let state = if swallows { State::Swallows } else { State::Works };
        let line = Arc::new(Mutex::new(Line { state, waiting: Vec::new() }));
        self.0.lock().lines.push(line.clone());
        let peer = SocketAddr::from(([127, 0, 0, 1], 10_000 + dialed as u16));
        let theirs = Wire { inner: theirs, line: line.clone(), dialed: false };
        listener.try_send((Box::new(theirs), peer)).map_err(|_| refused())?;
        Ok(Box::new(Wire { inner: ours, line, dialed: true }))
    }
}

struct WiresListener {
    address: SocketAddr,
    receiver: mpsc::Receiver<Accepted>,
}

#[async_trait::async_trait]
impl Listener for WiresListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)> {
        self.receiver.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

struct Wire {
    inner: DuplexStream,
    line: Arc<Mutex<Line>>,
    dialed: bool,
}

impl Connection for Wire {}

impl Wire {
    /// Whether the line works; notes who is waiting for it to change.
    fn state(&self, cx: &mut Context<'_>) -> State {
        let mut line = self.line.lock();
        line.waiting.retain(|waker| !waker.will_wake(cx.waker()));
        line.waiting.push(cx.waker().clone());
        line.state
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.state(cx) {
            State::Broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            State::Swallows => Poll::Pending,
            State::Held if self.dialed => Poll::Pending,
            State::Held | State::Works => Pin::new(&mut self.inner).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.state(cx) {
            State::Broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            State::Swallows => Poll::Ready(Ok(buf.len())),
            State::Held | State::Works => Pin::new(&mut self.inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
