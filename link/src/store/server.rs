//! The store's end when a proxy connects: handshake first, then the exchange of calls and replies.

use super::budget::Budget;
use super::exchange::Exchange;
use super::handshake::{self, Target};
use super::unreceived::{self, Unreceived};
use super::{HELD_BYTES_OF_ALL_MAX, HELLO_TIMEOUT, StoreIdentity};
use crate::local_peer::LocalPeer;
use crate::transport::{Connected, Draining};
use futures_util::future::Either;
use futures_util::stream::{self, Once};
use gantry_proto::contract::StoreService;
use gantry_proto::model::Epoch;
use gantry_proto::wire::store::v1::store_exchange_server::StoreExchange;
use gantry_proto::wire::store::v1::{Replies, Requests, Welcome};
use std::future::Ready;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct ExchangeServer {
    service: Arc<dyn StoreService>,
    identity: Arc<dyn StoreIdentity>,
    local: LocalPeer,
    /// Shared by all streams.
    budget: Arc<Budget>,
    unreceived: Unreceived,
}

impl ExchangeServer {
    pub(crate) fn new(
        service: Arc<dyn StoreService>,
        identity: Arc<dyn StoreIdentity>,
        local: LocalPeer,
    ) -> ExchangeServer {
        let budget = Budget::new(HELD_BYTES_OF_ALL_MAX);
        ExchangeServer { service, identity, local, budget, unreceived: Unreceived::default() }
    }

    fn target(&self) -> Result<Target, Status> {
        let cluster = self.local.cluster();
        let cluster = cluster.ok_or_else(|| Status::unavailable("the store does not know its cluster yet"))?;
        Ok(Target { cluster, store_group: self.identity.store_group(), folder: self.identity.folder() })
    }
}

type Refusal = Once<Ready<Result<Replies, Status>>>;

#[tonic::async_trait]
impl StoreExchange for ExchangeServer {
    type ExchangeStream = Either<Exchange, Refusal>;

    async fn exchange(
        &self,
        request: Request<Streaming<Requests>>,
    ) -> Result<Response<Either<Exchange, Refusal>>, Status> {
        let draining = request.extensions().get::<Draining>().map(|draining| draining.0.clone()).unwrap_or_default();
        let peer = request.extensions().get::<Connected>().map(|connected| connected.0);
        if draining.is_cancelled() {
            return Err(Status::unavailable("the store is shutting down"));
        }
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        let Some(hello) = first.and_then(|frame| frame.hello) else {
            return Err(Status::failed_precondition("the first frame is not a hello"));
        };
        let target = self.target()?;
        let version = match handshake::answer(&hello, &target) {
            Ok(version) => version,
            Err(refused) => {
                tracing::warn!(?peer, "a proxy was refused: {}", refused.text);
                let refused = Replies { refused: Some(refused), ..Replies::default() };
                return Ok(Response::new(Either::Right(stream::once(std::future::ready(Ok(refused))))));
            }
        };
        if let Some(lost) = hello.lost {
            let lost = self.unreceived.resume(lost.stream, lost.frames_received);
            unreceived::give_back(self.service.clone(), lost);
        }
        let epoch = self.identity.epoch();
        let stream = self.unreceived.open(epoch, hello.confirms_frames);
        let welcome = Welcome { stream: stream.number, ..handshake::welcome(version, &target, epoch) };
        let (service, identity, budget) = (self.service.clone(), self.identity.clone(), self.budget.clone());
        let exchange = Exchange::new(service, identity, requests, (welcome, stream), budget, draining);
        // Only after the handshake: the epoch of another store group says nothing.
        exchange.heard_epoch(Epoch(hello.epoch));
        Ok(Response::new(Either::Left(exchange)))
    }
}
