//! One client of the protocol, as a real one behaves: its own connection, route, settings handshake, heartbeats, and a
//! goodbye at the end.
//!
//! Its [`Caller`] is shared and makes the calls. Calls are never repeated: a benchmark shows what the server answers.

mod caller;
mod message_id;
mod prepare;
mod session;

pub(crate) use caller::{Caller, Results};
pub(crate) use message_id::MessageIds;
pub(crate) use prepare::prepare;

use super::run::Run;
use gantry_proto::wire::v2::settings::PubSub;
use gantry_proto::wire::v2::{self, ClientType};
use std::sync::Arc;
use tokio::task::JoinSet;

/// A connected client.
pub(crate) struct Client {
    pub(crate) caller: Arc<Caller>,
    /// The topic's queues.
    pub(crate) route: Vec<v2::MessageQueue>,
    /// The largest body that the server takes, if it said so.
    pub(crate) body_bytes_max: Option<u64>,
}

impl Client {
    /// Connects `count` clients: route, settings handshake, first heartbeat. They stay connected until the run closes
    /// them, by tasks that go into `sessions`; each bounds every step of its end by a timeout.
    pub(crate) async fn connect_all(
        run: &Arc<Run>,
        sessions: &mut JoinSet<()>,
        client_type: ClientType,
        count: u32,
    ) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::new();
        for index in 0..count as usize {
            let caller = Arc::new(Caller::connect(run, client_type, index).await?);
            let route = caller.query_route().await.map_err(|failure| caller.explain(failure))?;
            let telemetry = caller.introduce().await.map_err(|failure| caller.explain(failure))?;
            let body_bytes_max = match &telemetry.settings.pub_sub {
                Some(PubSub::Publishing(publishing)) => publishing.max_body_size.try_into().ok().filter(|max| *max > 0),
                _ => None,
            };
            sessions.spawn(session::keep(caller.clone(), telemetry));
            clients.push(Client { caller, route, body_bytes_max });
        }
        Ok(clients)
    }
}
