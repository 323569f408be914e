//! One connection to a store, made again whenever it breaks.

use super::budget::Budget;
use super::calls::Calls;
use super::handshake::{self, Target};
use super::{FRAME_BYTES_LIMIT, HELLO_TIMEOUT};
use crate::transport::{Channel, Dialer, Retry};
use futures_util::Stream;
use gantry_proto::env::Env;
use gantry_proto::model::{Epoch, Replica, StoreGroupId};
use gantry_proto::wire::store::v1 as wire;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use wire::store_exchange_client::StoreExchangeClient;

/// A lane's calls and the task that carries them.
pub(super) struct Lane {
    pub(super) calls: Arc<Calls>,
    _task: AbortOnDropHandle<()>,
}

struct Carrier {
    calls: Arc<Calls>,
    dialer: Dialer,
    replica: Replica,
    group: StoreGroupId,
    retry: Retry,
}

impl Lane {
    pub(super) fn open(
        env: &Env,
        dialer: Dialer,
        (replica, group): (Replica, StoreGroupId),
        epoch: Epoch,
        budget: Arc<Budget>,
    ) -> Lane {
        let calls = Calls::new(epoch, budget);
        let carrier = Carrier { calls: calls.clone(), dialer, replica, group, retry: Retry::new(env) };
        let task: JoinHandle<()> = tokio::spawn(carrier.run());
        Lane { calls, _task: AbortOnDropHandle::new(task) }
    }
}

impl Carrier {
    async fn run(mut self) {
        // What is logged once is not logged again until something changes.
        let mut logged = false;
        loop {
            let connection = self.calls.connection();
            match self.connect(connection).await {
                Ok((channel, replies)) => {
                    logged = false;
                    let since = Instant::now();
                    let why = self.carry(replies).await;
                    drop(channel);
                    tracing::info!(address = %self.replica.address, group = %self.group, "the connection to a store is lost: {why}");
                    // Calls wait for the next attempt only if that one comes soon.
                    self.calls.broken(&why, Retry::has_lasted(since));
                    self.retry.wait(Some(since)).await;
                }
                Err(why) => {
                    if !logged {
                        tracing::warn!(address = %self.replica.address, group = %self.group, "a store cannot be reached: {why}");
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
        // Known since the first metadata came, from which it is known that there is this store.
        let cluster = cluster.ok_or("it is not known yet which cluster this process belongs to")?;
        let channel = self.dialer.dial(address).await.map_err(|error| format!("{address}: {error}"))?;
        let epoch = self.calls.epoch();
        let target = Target { cluster, group: self.group, folder: self.replica.folder };
        let hello = handshake::hello(&target, epoch);
        let frames = Frames { calls: self.calls.clone(), connection, hello: Some(hello), yielded: false };
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
        let version = handshake::read_welcome(first, &target).map_err(|why| format!("{address}: {why}"))?;
        tracing::debug!(%address, group = %self.group, version, "connected to a store");
        self.calls.opened(epoch);
        Ok((channel, replies))
    }

    /// Hands replies out until the connection breaks, and says why it did.
    async fn carry(&self, mut replies: Streaming<wire::Replies>) -> String {
        loop {
            match replies.message().await {
                Ok(Some(frame)) => self.calls.deliver(frame.replies),
                Ok(None) => return format!("{} ended the connection", self.replica.address),
                Err(status) => return format!("{}: {}", self.replica.address, status.message()),
            }
        }
    }
}

/// What is sent on one connection.
struct Frames {
    calls: Arc<Calls>,
    connection: u64,
    hello: Option<wire::Hello>,
    /// Whether others were let go first, since the last frame.
    yielded: bool,
}

impl Stream for Frames {
    type Item = wire::Requests;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<wire::Requests>> {
        match self.hello.take() {
            Some(hello) => Poll::Ready(Some(wire::Requests { hello: Some(hello), ..wire::Requests::default() })),
            // Callers that an answered frame woke are about to call again: what they say fits into this frame, too.
            None if !self.yielded && self.calls.has_frame(self.connection) => {
                self.yielded = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                let frame = self.calls.poll_frame(self.connection, cx);
                self.yielded &= frame.is_pending();
                frame
            }
        }
    }
}
