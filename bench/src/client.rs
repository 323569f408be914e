//! One client of the protocol, as a real one behaves: its own connection, route, settings handshake, heartbeats, and a
//! goodbye at the end.
//!
//! A [`Client`] is owned by its runner, which must close it; its [`Caller`] is shared and makes the calls. Calls are never
//! repeated: a benchmark shows what the server answers.

mod caller;
mod message_id;
mod prepare;
mod session;

pub(crate) use caller::{Caller, Received};
pub(crate) use message_id::MessageIds;
pub(crate) use prepare::prepare;

use super::joined;
use super::run::Run;
use gantry_proto::wire::v2::settings::PubSub;
use gantry_proto::wire::v2::{self, ClientType};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A connected client.
pub(crate) struct Client {
    pub(crate) caller: Arc<Caller>,
    /// The topic's queues.
    pub(crate) route: Vec<v2::MessageQueue>,
    /// The largest body that the server takes, if it said so.
    pub(crate) body_bytes_max: Option<u64>,
    stop: CancellationToken,
    session: JoinHandle<()>,
}

impl Client {
    /// Connects the `index`th client of a run: route, settings handshake, first heartbeat.
    async fn connect(run: &Arc<Run>, client_type: ClientType, index: usize) -> anyhow::Result<Client> {
        let caller = Arc::new(Caller::connect(run, client_type, index).await?);
        let route = caller.query_route().await.map_err(|failure| caller.explain(failure))?;
        let telemetry = caller.introduce().await.map_err(|failure| caller.explain(failure))?;
        let body_bytes_max = match &telemetry.settings.pub_sub {
            Some(PubSub::Publishing(publishing)) => publishing.max_body_size.try_into().ok().filter(|bytes| *bytes > 0),
            _ => None,
        };
        let stop = CancellationToken::new();
        let session = tokio::spawn(session::keep(caller.clone(), telemetry, stop.clone()));
        Ok(Client { caller, route, body_bytes_max, stop, session })
    }

    /// Connects `count` clients.
    pub(crate) async fn connect_all(
        run: &Arc<Run>,
        client_type: ClientType,
        count: u32,
    ) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::new();
        for index in 0..count as usize {
            match Client::connect(run, client_type, index).await {
                Ok(client) => clients.push(client),
                Err(error) => {
                    Client::close_all(clients).await;
                    return Err(error);
                }
            }
        }
        Ok(clients)
    }

    /// Says goodbye and closes the connections, side by side. Each session bounds every step of its end by a timeout.
    pub(crate) async fn close_all(clients: Vec<Client>) {
        clients.iter().for_each(|client| client.stop.cancel());
        for client in clients {
            joined(client.session.await);
        }
    }
}
