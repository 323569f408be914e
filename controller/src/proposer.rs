//! Takes proposals and writes them to the log: those that wait together share an entry, and with it a sync.
//!
//! One task, one entry at a time: while it is on its way, the next ones gather.

use crate::feed::Applied;
use crate::raft::{Batch, Node, NodeError};
use gantry_proto::env::Clock;
use gantry_proto::model::MetadataCommand;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Proposals that may wait; the next one waits for room.
pub(crate) const QUEUE_LEN: usize = 1024;

/// A command that somebody waits for.
pub(crate) struct Proposal {
    pub(crate) command: MetadataCommand,
    pub(crate) answer: oneshot::Sender<Result<Applied, NodeError>>,
}

/// Works until nobody can propose any more.
pub(crate) async fn run(
    mut proposals: mpsc::Receiver<Proposal>,
    node: Arc<Node>,
    clock: Arc<dyn Clock>,
    batch_len_max: usize,
) {
    let mut batch = Vec::new();
    while proposals.recv_many(&mut batch, batch_len_max.max(1)).await > 0 {
        // Nobody waits for these any more: cheaper not to do them.
        batch.retain(|proposal| !proposal.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (commands, waiting): (Vec<_>, Vec<_>) = batch.drain(..).map(|p| (p.command, p.answer)).unzip();
        let written = node.write(Batch::new(clock.now(), commands), None).await;
        // Whoever asked may have gone meanwhile.
        match written {
            Ok(applied) => waiting.into_iter().zip(applied).for_each(|(waiting, applied)| {
                let _ = waiting.send(Ok(applied));
            }),
            Err(error) => waiting.into_iter().for_each(|waiting| {
                let _ = waiting.send(Err(error.clone()));
            }),
        }
    }
}
