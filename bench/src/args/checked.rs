//! What the flags of producers and of consumers mean together.

use crate::report::{ConsumeParameters, ProduceParameters, millis};
use crate::schedule::Pace;
use gantry_proto::model::GroupName;
use gantry_proto::model::limits::GRPC_MESSAGE_BYTES_MAX;
use std::time::Duration;

/// Flags that cannot be meant: every mistake, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct WrongFlags(pub(super) Vec<String>);

/// What producers do, checked.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Bytes of a body.
    pub(crate) size: usize,
    /// Producers.
    pub(crate) connections: u32,
    /// Messages per call.
    pub(crate) batch: u32,
    pub(super) inflight: u32,
    pub(super) rate: Option<f64>,
}

/// What consumers do, checked.
#[derive(Clone, Debug)]
pub(crate) struct Reception {
    /// The consumer group.
    pub(crate) group: String,
    /// Push instead of simple consumers.
    pub(crate) push: bool,
    /// Consumers.
    pub(crate) connections: u32,
    /// Receive calls in flight per connection and queue.
    pub(crate) pollers: u32,
    /// Messages per receive.
    pub(crate) batch: u32,
    /// Messages per acknowledging call; `None`: nothing is acknowledged.
    pub(crate) ack_batch: Option<u32>,
    /// How long a receive waits.
    pub(crate) long_poll: Duration,
    /// How long a received message stays hidden.
    pub(crate) invisible: Duration,
}

/// Bodies in flight at once: more would measure the memory of this machine.
const BYTES_IN_FLIGHT_MAX: u64 = 2 << 30;
/// What a message takes on the wire beside its body, at most.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

impl Load {
    /// Closed or open loop.
    pub(crate) fn pace(&self) -> Pace {
        match self.rate {
            None => Pace::ClosedLoop,
            Some(messages_per_second) => Pace::OpenLoop { messages_per_second },
        }
    }

    /// Calls in flight of the `index`th connection: all shares differ by one at most.
    pub(crate) fn slots_of(&self, index: usize) -> usize {
        let (inflight, connections) = (self.inflight as usize, self.connections as usize);
        inflight / connections + usize::from(index < inflight % connections)
    }

    /// Adds what is wrong with it.
    pub(super) fn check(&self, mistakes: &mut Vec<String>) {
        if self.inflight < self.connections {
            mistakes.push(format!(
                "--inflight {} is less than --connections {}: some connections would be idle",
                self.inflight, self.connections
            ));
        }
        let call_bytes = self.batch as usize * (self.size + MESSAGE_OVERHEAD_BYTES);
        if call_bytes > GRPC_MESSAGE_BYTES_MAX {
            mistakes.push(format!(
                "--batch {} messages of --size {} bytes do not fit into one call of {GRPC_MESSAGE_BYTES_MAX} bytes",
                self.batch, self.size
            ));
        }
        let in_flight = u64::from(self.inflight) * u64::from(self.batch) * self.size as u64;
        if in_flight > BYTES_IN_FLIGHT_MAX {
            mistakes.push(format!(
                "--inflight {} calls of --batch {} messages of --size {} bytes are {} MiB at once, at most {} are possible",
                self.inflight,
                self.batch,
                self.size,
                in_flight >> 20,
                BYTES_IN_FLIGHT_MAX >> 20
            ));
        }
    }

    /// For the report.
    pub(super) fn parameters(&self) -> ProduceParameters {
        ProduceParameters {
            connections: self.connections,
            inflight: self.inflight,
            batch: self.batch,
            size_bytes: self.size,
            rate_per_second: self.rate,
        }
    }
}

impl Reception {
    /// Adds what is wrong with it.
    pub(super) fn check(&self, mistakes: &mut Vec<String>) {
        if let Err(mistake) = GroupName::parse(&self.group) {
            mistakes.push(format!("--group: {mistake}"));
        }
    }

    /// For the report.
    pub(super) fn parameters(&self) -> ConsumeParameters {
        ConsumeParameters {
            group: self.group.clone(),
            client: if self.push { "push" } else { "simple" },
            connections: self.connections,
            pollers: self.pollers,
            batch: self.batch,
            ack_batch: self.ack_batch,
            long_poll_ms: millis(self.long_poll),
            invisible_ms: (!self.push).then(|| millis(self.invisible)),
        }
    }
}
