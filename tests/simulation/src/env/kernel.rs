//! A machine's kernel, as far as the network goes: it makes and accepts connections for the machine's process and carries
//! bytes between them.
//!
//! It runs as the machine's software in turmoil, the process in a runtime of its own (`hosts::running`). So the kernel goes
//! on while the process is paused, as it does when a process is sent SIGSTOP: connections are accepted and bytes are taken
//! until buffers are full. Nobody else touches turmoil's sockets but simulated clients, by [`dial`].

use super::Machine;
use crate::note;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::{mpsc, oneshot};
use turmoil::net::{TcpListener, TcpStream};

/// What fits into the buffers of a connection, in each direction.
const BUFFER_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted by the process; calls that wait for the kernel.
const BACKLOG: usize = 128;

/// What a process asks of the kernel.
pub(super) enum Call {
    Listen { address: SocketAddr, answer: oneshot::Sender<io::Result<Listening>> },
    Connect { address: String, answer: oneshot::Sender<io::Result<DuplexStream>> },
}

/// A port that was taken.
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    pub(super) accepted: mpsc::Receiver<(DuplexStream, SocketAddr)>,
}

impl Machine {
    /// The kernel of the next process, which is to be started after this was called.
    pub fn kernel(self: &Arc<Machine>) -> impl Future<Output = ()> + use<> {
        let (sender, mut calls) = mpsc::channel(BACKLOG);
        *self.calls.lock() = Some(sender);
        let machine = self.clone();
        async move {
            while let Some(call) = calls.recv().await {
                match call {
                    Call::Listen { address, answer } => tokio::spawn(listen(machine.clone(), address, answer)),
                    Call::Connect { address, answer } => tokio::spawn(connect(machine.clone(), address, answer)),
                };
            }
        }
    }
}

/// Connects to `address` from the machine whose software asks.
pub(crate) async fn dial(machine: &Machine, address: &str) -> io::Result<TcpStream> {
    match TcpStream::connect(address).await {
        Ok(stream) => {
            note!(machine.trace, &machine.name, "connected to {address} from port {}", stream.local_addr()?.port());
            Ok(stream)
        }
        Err(error) => {
            note!(machine.trace, &machine.name, "cannot connect to {address}: {}", error.kind());
            Err(error)
        }
    }
}

async fn connect(machine: Arc<Machine>, address: String, mut answer: oneshot::Sender<io::Result<DuplexStream>>) {
    let dialled = tokio::select! {
        biased;
        () = answer.closed() => return,
        dialled = dial(&machine, &address) => dialled,
    };
    match dialled {
        Ok(outside) => {
            let (inside, theirs) = duplex(BUFFER_BYTES);
            if answer.send(Ok(theirs)).is_ok() {
                carry(outside, inside).await;
            }
        }
        Err(error) => drop(answer.send(Err(error))),
    }
}

async fn listen(machine: Arc<Machine>, address: SocketAddr, answer: oneshot::Sender<io::Result<Listening>>) {
    let bound = async {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        io::Result::Ok((socket, address))
    };
    let (socket, address) = match bound.await {
        Ok(bound) => bound,
        Err(error) => return drop(answer.send(Err(error))),
    };
    note!(machine.trace, &machine.name, "listens on port {}", address.port());
    let (waiting, accepted) = mpsc::channel(BACKLOG);
    if answer.send(Ok(Listening { address, accepted })).is_err() {
        return;
    }
    // A full backlog: nobody else is let in until there is room.
    while let Ok(room) = waiting.reserve().await {
        let (outside, peer) = tokio::select! {
            biased;
            () = waiting.closed() => return,
            Ok(accepted) = socket.accept() => accepted,
        };
        let (inside, theirs) = duplex(BUFFER_BYTES);
        room.send((theirs, peer));
        tokio::spawn(carry(outside, inside));
    }
}

/// Until one side is broken, or both have said that nothing more comes.
async fn carry(mut outside: TcpStream, mut inside: DuplexStream) {
    let _ = copy_bidirectional(&mut outside, &mut inside).await;
}
