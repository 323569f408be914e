//! Receiving: the consumers of a run, one [`poller`] per connection, assigned queue and `--pollers`.

mod poller;

use super::client::Client;
use super::flags::GroupArgs;
use super::joined;
use super::report::{Amount, ConsumeResult, Integrity};
use super::run::Run;
use super::stats::{Interval, Recorder, Sample};
use gantry_proto::wire::v2::{ClientType, MessageQueue};
use poller::{Poller, Records};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Connected consumers.
pub(crate) struct Consumers {
    clients: Vec<Client>,
    /// By client: the queues it receives from.
    assignments: Vec<Vec<MessageQueue>>,
    group: Arc<GroupArgs>,
}

/// Consumers at work.
pub(crate) struct Receiving {
    pollers: Vec<JoinHandle<()>>,
    /// By connection.
    records: Vec<Arc<Records>>,
    close: CancellationToken,
}

/// What was received.
pub(crate) struct Taken {
    arrivals: Sample,
    receives: Sample,
    acks: Sample,
    acknowledged: u64,
    empty_receives: u64,
}

impl Consumers {
    /// Connects all of them, then asks for their queues.
    pub(crate) async fn connect(run: &Arc<Run>, group: &GroupArgs) -> anyhow::Result<Consumers> {
        let client_type = if group.push { ClientType::PushConsumer } else { ClientType::SimpleConsumer };
        let clients = Client::connect_all(run, client_type, group.consumers).await?;
        let mut consumers = Consumers { clients, assignments: Vec::new(), group: Arc::new(group.clone()) };
        match consumers.assign(run.plan.target.topic()).await {
            Ok(()) => Ok(consumers),
            Err(error) => {
                consumers.close().await;
                Err(error)
            }
        }
    }

    pub(crate) fn start(&self, run: &Arc<Run>, interval: Interval) -> Receiving {
        let (mut pollers, mut records, close) = (Vec::new(), Vec::new(), CancellationToken::new());
        for (client, queues) in self.clients.iter().zip(&self.assignments) {
            let of_connection = Arc::new(Records::new(interval));
            records.push(of_connection.clone());
            for (queue, index) in queues.iter().flat_map(|queue| (0..self.group.pollers).map(move |n| (queue, n))) {
                let poller = Poller {
                    run: run.clone(),
                    caller: client.caller.clone(),
                    group: self.group.clone(),
                    queue: queue.clone(),
                    index,
                    batches: 0,
                    records: of_connection.clone(),
                };
                pollers.push(tokio::spawn(poller.run(close.clone())));
            }
        }
        Receiving { pollers, records, close }
    }

    pub(crate) async fn close(self) {
        Client::close_all(self.clients).await;
    }

    async fn assign(&mut self, topic: &str) -> anyhow::Result<()> {
        for Client { caller, .. } in &self.clients {
            let queues = caller.query_assignment().await.map_err(|failure| caller.explain(failure))?;
            let group = &self.group.group;
            anyhow::ensure!(!queues.is_empty(), "the server assigned no queue of {topic:?} to the group {group:?}");
            self.assignments.push(queues);
        }
        Ok(())
    }
}

impl Receiving {
    /// What messages are recorded into.
    pub(crate) fn recorders(&self) -> Vec<Arc<Recorder>> {
        self.records.iter().map(|records| records.arrivals.clone()).collect()
    }

    /// Stops receiving and waits for the acknowledgements in flight. Each is bounded by its deadline.
    pub(crate) async fn finish(self) -> Taken {
        self.close.cancel();
        for poller in self.pollers {
            joined(poller.await);
        }
        let records = &self.records;
        Taken {
            arrivals: Recorder::merged(records.iter().map(|records| &records.arrivals)),
            receives: Recorder::merged(records.iter().map(|records| &records.receives)),
            acks: Recorder::merged(records.iter().map(|records| &records.acks)),
            acknowledged: records.iter().map(|records| records.acknowledged.load(Ordering::Relaxed)).sum(),
            empty_receives: records.iter().map(|records| records.empty_receives.load(Ordering::Relaxed)).sum(),
        }
    }
}

impl Taken {
    pub(crate) fn result(&self, measured: Duration, integrity: Integrity) -> ConsumeResult {
        ConsumeResult {
            amount: Amount::new(&self.arrivals, measured),
            acknowledged: self.acknowledged,
            empty_receives: self.empty_receives,
            end_to_end_us: self.arrivals.quantiles(),
            receive_latency_us: self.receives.quantiles(),
            ack_latency_us: self.acks.quantiles(),
            integrity,
        }
    }
}
