use crate::committer::{Committer, Proposal, QUEUE_LEN};
use crate::config::ControllerConfig;
use crate::feed::Feed;
use crate::journal::{Journal, Recovery};
use crate::open_error::OpenError;
use gantry_proto::contract::{MetadataError, MetadataService, MetadataStream};
use gantry_proto::env::Env;
use gantry_proto::model::{MetadataCommand, MetadataOutcome, MetadataVersion};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// The metadata service of one data folder. Owns the thread that writes it.
pub struct Controller {
    feed: Arc<Feed>,
    /// None once nothing more is taken.
    proposals: Mutex<Option<mpsc::Sender<Proposal>>>,
    /// The committer's thread; none when somebody else steps it.
    thread: Mutex<Option<JoinHandle<()>>>,
    recovery: Recovery,
}

impl Controller {
    /// Opens or makes the data folder and starts to serve. Blocks while it reads.
    pub fn open(config: ControllerConfig, env: Env) -> Result<Controller, OpenError> {
        let dir = config.dir.clone();
        let (controller, committer) = Controller::open_stepped(config, env)?;
        let thread = std::thread::Builder::new().name("metadata".to_owned()).spawn(move || committer.run());
        *controller.thread.lock() = Some(thread.map_err(OpenError::io(&dir, "start a thread to write it"))?);
        Ok(controller)
    }

    /// The same without a thread: nothing happens until the caller steps the committer. For simulations.
    pub fn open_stepped(config: ControllerConfig, env: Env) -> Result<(Controller, Committer), OpenError> {
        let (journal, state, recovery) = Journal::open(&config, &env)?;
        let version = state.version().0;
        tracing::info!(dir = %config.dir.display(), version, replayed = recovery.replayed, "metadata opened");
        let feed = Arc::new(Feed::new(state.clone()));
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        let committer = Committer::new(receiver, env.clock, state, journal, feed.clone());
        let controller = Controller { feed, proposals: Mutex::new(Some(sender)), thread: Mutex::new(None), recovery };
        Ok((controller, committer))
    }

    /// How opening went.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Takes no more proposals, waits until those taken are answered, ends the watches and frees the data folder. A
    /// stepped committer must be dropped by its owner.
    pub async fn shutdown(&self) {
        drop(self.proposals.lock().take());
        self.feed.closed().await;
        self.join();
    }

    fn join(&self) {
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the metadata writer panicked");
        }
    }
}

#[async_trait::async_trait]
impl MetadataService for Controller {
    /// Not cancel-safe: once it has been polled, the command may be carried out although nobody waits any more.
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError> {
        let stopped = || MetadataError::Unavailable("the controller is stopping".to_owned());
        let proposals = self.proposals.lock().clone().ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        proposals.send(Proposal { command, answer }).await.map_err(|_| stopped())?;
        // A sender kept while waiting would keep the committer from ending.
        drop(proposals);
        answered
            .await
            .unwrap_or_else(|_| Err(MetadataError::Unknown("the controller stopped before it answered".into())))
    }

    async fn watch(&self, after: MetadataVersion) -> Result<MetadataStream, MetadataError> {
        if self.feed.is_closed() {
            return Err(MetadataError::Unavailable("the controller has stopped".to_owned()));
        }
        Ok(self.feed.follow(after))
    }
}

impl Drop for Controller {
    /// Waits for the batch at work. Call [`Controller::shutdown`] before where that must not block.
    fn drop(&mut self) {
        drop(self.proposals.lock().take());
        self.join();
    }
}

#[cfg(test)]
mod tests;
