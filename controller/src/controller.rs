use crate::comparing;
use crate::config::ControllerConfig;
use crate::duties;
use crate::feed::{Applied, Feed};
use crate::heard_ids::{Giving, HeardIds};
use crate::liveness::LeaseTable;
use crate::open_error::OpenError;
use crate::proposer::{self, Proposal, QUEUE_LEN};
use crate::raft::{Batch, Leader, Leadership, Node, NodeError};
use gantry_proto::contract::ConsensusNetwork;
use gantry_proto::env::Env;
use gantry_proto::model::MetadataCommand;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// How soon after a store was heard that is noticed, at most.
const HEARD_LOOK: Duration = Duration::from_millis(50);

/// One member of the controller: all services, whether it leads or not.
///
/// Must be made inside a tokio runtime, where its tasks live. Call [`Controller::shutdown`] in the end; a controller that
/// is only dropped frees its folder when its tasks have noticed.
pub struct Controller {
    pub(crate) core: Arc<Core>,
    /// None once nothing more is taken.
    proposals: Mutex<Option<mpsc::Sender<Proposal>>>,
    /// The proposer, which ends by itself when no more proposals are taken.
    proposing: tokio::sync::Mutex<JoinSet<()>>,
    /// What else goes on while the controller is open.
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// Why a member of the controller cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the controller cannot go on: {reason}")]
pub struct Failed {
    reason: String,
    may_pass: bool,
}

impl Failed {
    /// Opening it anew cannot help.
    pub(crate) fn for_good(reason: impl ToString) -> Failed {
        Failed { reason: reason.to_string(), may_pass: false }
    }

    /// Whether opening it anew may help: its disk failed.
    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }
}

/// What the services and the tasks share.
pub(crate) struct Core {
    pub(crate) config: ControllerConfig,
    pub(crate) env: Env,
    pub(crate) node: Arc<Node>,
    pub(crate) feed: Arc<Feed>,
    /// What this member knows while it leads, and since which leadership.
    table: Mutex<Option<(Leadership, LeaseTable)>>,
    /// Which stores have said what identities they know.
    pub(crate) heard_ids: Mutex<HeardIds>,
    /// Held while a store joins: between the look at its lease and the new one nobody else may join.
    pub(crate) joining: tokio::sync::Mutex<()>,
}

impl Controller {
    /// Opens or makes the folder and takes part. The only member is ready when this returns: it leads, and has carried out
    /// everything that was ever answered. One of several goes on with what it last knew, and finds the others meanwhile.
    pub async fn open(
        config: ControllerConfig,
        env: Env,
        network: Arc<dyn ConsensusNetwork>,
    ) -> Result<Controller, OpenError> {
        let (node, feed) = Node::open(&config, &env, network).await?;
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        let core = Arc::new(Core {
            node: Arc::new(node),
            feed,
            table: Mutex::new(None),
            heard_ids: Mutex::default(),
            joining: tokio::sync::Mutex::new(()),
            env,
            config,
        });
        let mut proposing = JoinSet::new();
        let (node, clock, batch_len_max) = (core.node.clone(), core.env.clock.clone(), core.config.batch_len_max);
        proposing.spawn(proposer::run(receiver, node, clock, batch_len_max));
        let mut tasks = JoinSet::new();
        let node = core.node.clone();
        tasks.spawn(async move { node.snapshot_when_due().await });
        let node = core.node.clone();
        tasks.spawn(async move { node.watch_files().await });
        tasks.spawn(duties::run(core.clone()));
        tasks.spawn(comparing::run(core.clone()));
        let controller = Controller {
            core,
            proposals: Mutex::new(Some(sender)),
            proposing: tokio::sync::Mutex::new(proposing),
            tasks: tokio::sync::Mutex::new(tasks),
        };
        if controller.core.node.is_sole_voter().await {
            controller.wait_until_founded().await?;
        }
        let (id, version) = (controller.core.config.id, controller.core.feed.version().0);
        tracing::info!(dir = %controller.core.config.dir.display(), id, version, "controller opened");
        Ok(controller)
    }

    async fn wait_until_founded(&self) -> Result<(), OpenError> {
        let ready = async {
            // Leading means that everything in the log is carried out; only then is it sure that nothing was founded.
            let led = self.core.node.find_leader().await.is_ok() && self.core.node.lead().await.is_ok();
            led && self.core.feed.reached(|state| state.cluster().is_some()).await
        };
        match timeout(self.core.config.request_timeout, ready).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => {
                self.shutdown().await;
                Err(OpenError::Start("the only member could not begin to lead; see the log for the reason".to_owned()))
            }
        }
    }

    /// Whether this member can go on. If not, its disk failed, or it was shut down: only opening it anew can help.
    pub fn health(&self) -> Result<(), Failed> {
        let may_pass = self.core.node.disk_failed();
        self.core.node.failure().map_or(Ok(()), |reason| Err(Failed { reason, may_pass }))
    }

    /// Takes no more proposals, waits until those taken are answered, ends the watches and frees the data folder.
    pub async fn shutdown(&self) {
        drop(self.proposals.lock().take());
        while self.proposing.lock().await.join_next().await.is_some() {}
        self.tasks.lock().await.shutdown().await;
        self.core.node.shutdown().await;
        self.core.feed.close();
    }

    /// Carries a command out here: only the member that leads can.
    pub(crate) async fn propose_here(&self, command: MetadataCommand) -> Result<Applied, NodeError> {
        let stopping = || NodeError::Unavailable("the controller is stopping".to_owned());
        let proposals = self.proposals.lock().clone().ok_or_else(stopping)?;
        let (answer, answered) = oneshot::channel();
        proposals.send(Proposal { command, answer }).await.map_err(|_| stopping())?;
        // A sender kept while waiting would keep the proposer from ending.
        drop(proposals);
        let unknown = |_| NodeError::Unknown("the controller stopped before it answered".to_owned());
        answered.await.map_err(unknown)?
    }

    /// Waits until an identity may be given: see [`crate::heard_ids`].
    pub(crate) async fn may_give_ids(&self) -> Result<(), NodeError> {
        let Core { config, feed, heard_ids, .. } = &*self.core;
        let patience = (config.leases.heartbeat_timeout() * 2).min(config.request_timeout / 2);
        loop {
            let now = Instant::now();
            match feed.read(|state| heard_ids.lock().look(state.store_groups(), patience, now)) {
                Giving::NotYet(until) if self.core.seems_to_lead() && !self.is_stopping() => {
                    sleep_until(until.min(now + HEARD_LOOK)).await;
                }
                // Whoever does not lead decides nothing.
                Giving::Yes | Giving::NotYet(_) => return Ok(()),
                Giving::Not(silent) => {
                    let silent: Vec<String> = silent.iter().map(ToString::to_string).collect();
                    let first = silent.first().cloned().unwrap_or_default();
                    return Err(NodeError::Unavailable(format!(
                        "nothing is created for now: the controller was put back to an earlier state, and the store groups {} \
                         have not said yet which topics and groups they know. Start their stores; one that is lost is given up \
                         with `gantry admin cluster drain {first}` and `gantry admin cluster remove {first} --force`",
                        silent.join(", ")
                    )));
                }
            }
        }
    }

    /// Whether nothing is taken any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.proposals.lock().is_none()
    }
}

impl Core {
    /// Carries out what follows from a leadership, if it still holds then.
    pub(crate) async fn decide(&self, command: MetadataCommand, leading: Leadership) -> Result<Applied, NodeError> {
        let batch = Batch::new(self.env.clock.now(), [command]);
        let applied = self.node.write(batch, Some(leading)).await?.pop();
        applied.ok_or_else(|| NodeError::Unknown("the log gave no answer".to_owned()))
    }

    /// Looks at what is known in this leadership, now. Unavailable: it is over.
    pub(crate) fn with_table<T>(
        &self,
        leading: Leadership,
        look: impl FnOnce(&mut LeaseTable, Instant) -> T,
    ) -> Result<T, NodeError> {
        let mut current = self.table.lock();
        match &*current {
            Some((newer, _)) if *newer > leading => {
                return Err(NodeError::Unavailable("another leadership has begun".to_owned()));
            }
            Some((same, _)) if *same == leading => {}
            _ => *current = None,
        }
        let (_, table) = current.get_or_insert_with(|| (leading, LeaseTable::new(self.config.leases)));
        Ok(look(table, Instant::now()))
    }

    /// True if this member leads, as far as it knows.
    pub(crate) fn seems_to_lead(&self) -> bool {
        self.node.leader() == Leader::Here
    }
}

#[cfg(test)]
mod tests;
