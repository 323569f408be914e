use super::exchange::Exchange;
use super::{HELLO_TIMEOUT, PROTOCOL_VERSION, StoreIdentity};
use crate::transport::{Connected, Draining};
use gantry_proto::contract::StoreService;
use gantry_proto::model::Epoch;
use gantry_proto::wire::store::v1::store_exchange_server::StoreExchange;
use gantry_proto::wire::store::v1::{Hello, Requests};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Serves a store.
pub(crate) struct ExchangeServer {
    service: Arc<dyn StoreService>,
    identity: Arc<dyn StoreIdentity>,
}

impl ExchangeServer {
    pub(crate) fn new(service: Arc<dyn StoreService>, identity: Arc<dyn StoreIdentity>) -> ExchangeServer {
        ExchangeServer { service, identity }
    }

    fn check(&self, hello: &Hello) -> Result<(), Status> {
        if hello.protocol != PROTOCOL_VERSION {
            let spoken = hello.protocol;
            return Err(Status::failed_precondition(format!(
                "the store speaks version {PROTOCOL_VERSION} of the protocol, not {spoken}: update the older side"
            )));
        }
        let served = self.identity.group();
        if hello.group != served.0 {
            let asked = hello.group;
            return Err(Status::failed_precondition(format!("store group {served} is served here, not {asked}")));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl StoreExchange for ExchangeServer {
    type ExchangeStream = Exchange;

    async fn exchange(&self, request: Request<Streaming<Requests>>) -> Result<Response<Exchange>, Status> {
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
        if let Err(refusal) = self.check(&hello) {
            tracing::warn!(?peer, "a proxy was refused: {}", refusal.message());
            return Err(refusal);
        }
        let exchange = Exchange::new(self.service.clone(), self.identity.clone(), requests, draining);
        exchange.heard_epoch(Epoch(hello.epoch));
        Ok(Response::new(exchange))
    }
}
