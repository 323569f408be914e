//! [`Committer`]: the only writer of metadata.
//!
//! Runs on a thread of its own ([`Committer::run`]), because the journal's calls block, or is stepped by a simulation
//! ([`Committer::step`]). Commands come in through a bounded queue; whatever waits when it looks becomes one batch and shares
//! one sync. Between two batches its state, the published one and the disk are the same.

use crate::feed::Feed;
use crate::journal::{AppendError, Journal, JournalEntry};
use crate::state::{Decision, MetadataState};
use gantry_proto::contract::MetadataError;
use gantry_proto::env::Clock;
use gantry_proto::model::{MetadataCommand, MetadataOutcome, MetadataVersion};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Proposals that may wait; the next one waits for room.
pub(crate) const QUEUE_LEN: usize = 1024;
/// Proposals that share a sync. Bounds a frame to about a megabyte.
const BATCH_LEN_MAX: usize = 1024;

/// What came of a proposal.
pub(crate) type Answer = Result<(MetadataVersion, MetadataOutcome), MetadataError>;

/// A command that somebody waits for.
pub(crate) struct Proposal {
    pub(crate) command: MetadataCommand,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// Takes proposals, makes them durable, publishes and answers them. Dropping it closes the service.
pub struct Committer {
    proposals: mpsc::Receiver<Proposal>,
    clock: Arc<dyn Clock>,
    state: MetadataState,
    journal: Journal,
    /// Dropped last: when watchers see the end, the data folder is free again.
    feed: ClosingFeed,
}

/// Ends the watches when the committer ends, however it ends.
struct ClosingFeed(Arc<Feed>);

impl Committer {
    pub(crate) fn new(
        proposals: mpsc::Receiver<Proposal>,
        clock: Arc<dyn Clock>,
        state: MetadataState,
        journal: Journal,
        feed: Arc<Feed>,
    ) -> Committer {
        Committer { proposals, clock, state, journal, feed: ClosingFeed(feed) }
    }

    /// Works until nobody can propose any more. Blocks: needs a thread of its own.
    pub fn run(mut self) {
        while let Some(first) = self.proposals.blocking_recv() {
            self.commit_waiting(vec![first]);
        }
    }

    /// Does one batch of what waits now, without waiting for more, and says how many proposals that were.
    pub fn step(&mut self) -> usize {
        self.commit_waiting(Vec::new())
    }

    fn commit_waiting(&mut self, mut batch: Vec<Proposal>) -> usize {
        while batch.len() < BATCH_LEN_MAX
            && let Ok(next) = self.proposals.try_recv()
        {
            batch.push(next);
        }
        let count = batch.len();
        // Nobody waits for these any more: cheaper not to do them.
        batch.retain(|proposal| !proposal.answer.is_closed());
        let (commands, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|p| (p.command, p.answer)).unzip();
        for (waiting, answer) in waiting.into_iter().zip(self.commit_batch(commands)) {
            // Whoever asked may have gone meanwhile.
            let _ = waiting.send(answer);
        }
        // After the answers: a snapshot takes longer than anybody should wait.
        self.journal.roll_if_due(&self.state);
        count
    }

    /// Carries a batch out: decides each command on the state that the ones before it left, makes the accepted ones durable
    /// together, publishes them. One answer for each command, in order.
    pub(crate) fn commit_batch(&mut self, commands: Vec<MetadataCommand>) -> Vec<Answer> {
        let at = self.clock.now();
        let (mut answers, mut entries, mut decisions) = (Vec::new(), Vec::new(), Vec::<Decision>::new());
        for command in commands {
            match self.state.decide(&command, at) {
                Ok(decision) => {
                    self.state.absorb(&decision);
                    let version = self.state.version();
                    answers.push(Ok((version, decision.outcome.clone())));
                    entries.push(JournalEntry { version, at, command });
                    decisions.push(decision);
                }
                Err(refusal) => answers.push(Err(refusal.into())),
            }
        }
        if entries.is_empty() {
            return answers;
        }
        match self.journal.append(&entries) {
            Ok(()) => {
                self.feed.0.publish(decisions);
                answers
            }
            Err(error) => {
                self.state = self.feed.0.state();
                answers.into_iter().map(|answer| Err(answer_undone(answer, &error))).collect()
            }
        }
    }

    /// Why metadata cannot be changed any more, if so.
    pub fn failure(&self) -> Option<&str> {
        self.journal.failure()
    }
}

/// The answer for a command of a batch that is not durable. A refusal too: it may rest on what was undone.
fn answer_undone(answer: Answer, error: &AppendError) -> MetadataError {
    match (answer, error) {
        (Ok(_), AppendError::Unknown(reason)) => MetadataError::Unknown(reason.clone()),
        (Err(_), AppendError::Unknown(reason)) | (_, AppendError::NotWritten(reason)) => {
            MetadataError::Unavailable(reason.clone())
        }
    }
}

impl Drop for ClosingFeed {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
