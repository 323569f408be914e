//! One connection to a store, made again whenever it breaks. A task of its own.

use super::budget::Budget;
use super::calls::{Calls, Frames};
use super::handshake::{self, Target};
use super::{FRAME_BYTES_LIMIT, HELLO_TIMEOUT};
use crate::transport::{Channel, Dialer, Retry};
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, Replica, StoreGroupId};
use gantry_proto::wire::store::v1 as wire;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use wire::store_exchange_client::StoreExchangeClient;

/// The calls to a store, and the task that connects to it and carries them.
pub(super) struct StoreConnection {
    pub(super) calls: Arc<Calls>,
    _task: AbortOnDropHandle<()>,
}

struct Connector {
    calls: Arc<Calls>,
    dialer: Dialer,
    replica: Replica,
    store_group: StoreGroupId,
    retry: Retry,
}

impl StoreConnection {
    pub(super) fn open(
        env: &Env,
        dialer: Dialer,
        (replica, store_group): (Replica, StoreGroupId),
        epoch: Epoch,
        budget: Arc<Budget>,
    ) -> StoreConnection {
        let calls = Calls::new(epoch, budget);
        let connector = Connector { calls: calls.clone(), dialer, replica, store_group, retry: Retry::new(env) };
        let task: JoinHandle<()> = tokio::spawn(connector.run());
        StoreConnection { calls, _task: AbortOnDropHandle::new(task) }
    }
}

impl Connector {
    async fn run(mut self) {
        // A failure is logged once, until there was a connection.
        let mut logged = false;
        loop {
            let connection = self.calls.connection();
            match self.connect(connection).await {
                Ok((channel, replies)) => {
                    logged = false;
                    let since = Instant::now();
                    let why = self.receive(replies).await;
                    drop(channel);
                    tracing::info!(address = %self.replica.address, store_group = %self.store_group, "the connection to a store is lost: {why}");
                    // Calls wait for the next attempt only if it comes soon.
                    self.calls.broken(&why, Retry::has_lasted(since));
                    self.retry.wait(Some(since)).await;
                }
                Err(why) => {
                    if !logged {
                        tracing::warn!(address = %self.replica.address, store_group = %self.store_group, "a store cannot be reached: {why}");
                        logged = true;
                    }
                    self.calls.broken(&why, false);
                    self.retry.wait(None).await;
                }
            }
        }
    }

    /// Dials and shakes hands.
    async fn connect(&self, connection: u64) -> Result<(Channel, Streaming<wire::Replies>), String> {
        let address = &self.replica.address;
        let cluster = self.dialer.local().cluster();
        // Came with the first metadata, and this store is known from the metadata.
        let cluster = cluster.ok_or("it is not known yet which cluster this process belongs to")?;
        let channel = self.dialer.dial(address).await.map_err(|error| format!("{address}: {error}"))?;
        let epoch = self.calls.epoch();
        let target = Target { cluster, store_group: self.store_group, folder: self.replica.folder };
        let lost = self.calls.last_stream();
        let hello = wire::Hello { confirms_frames: true, lost, ..handshake::hello(&target, epoch) };
        let frames = Frames::new(&self.calls, connection, hello);
        let mut client = StoreExchangeClient::with_origin(channel.clone(), channel.origin())
            .max_decoding_message_size(FRAME_BYTES_LIMIT);
        let handshake = async {
            let mut replies = client.exchange(frames).await?.into_inner();
            let first = replies.message().await?;
            Ok::<_, tonic::Status>((replies, first))
        };
        let shaken = tokio::time::timeout(HELLO_TIMEOUT, handshake).await;
        let (replies, first) = shaken
            .map_err(|_| format!("{address}: no welcome within {HELLO_TIMEOUT:?}"))?
            .map_err(|status| format!("{address}: {}", status.message()))?;
        let first = first.ok_or_else(|| format!("{address} ended the connection instead of a welcome"))?;
        let (version, stream) = handshake::read_welcome(first, &target).map_err(|why| format!("{address}: {why}"))?;
        tracing::debug!(%address, store_group = %self.store_group, version, "connected to a store");
        self.calls.opened(epoch, stream);
        Ok((channel, replies))
    }

    /// Hands out the replies until the connection breaks; returns why it did.
    async fn receive(&self, mut replies: Streaming<wire::Replies>) -> String {
        loop {
            match replies.message().await {
                Ok(Some(frame)) => self.calls.deliver(frame.replies),
                Ok(None) => return format!("{} ended the connection", self.replica.address),
                Err(status) => return format!("{}: {}", self.replica.address, status.message()),
            }
        }
    }
}
