//! The connection to the server's admin API, and what its errors mean to an operator.

use anyhow::{Context as _, anyhow};
use gantry_proto::model::HostPort;
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use gantry_proto::wire::admin::v1::cluster_service_client::ClusterServiceClient;
use std::error::Error;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// A connected client.
pub(super) struct Client {
    /// The API's methods for topics and groups.
    pub(super) api: AdminServiceClient<Channel>,
    /// Those for the cluster.
    pub(super) cluster: ClusterServiceClient<Channel>,
    timeout: Duration,
}

impl Client {
    /// Connects. Plain HTTP/2: the server's port for operators takes it beside TLS.
    pub(super) async fn connect(endpoint: &HostPort, timeout: Duration) -> anyhow::Result<Client> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))
            .with_context(|| format!("{endpoint} is not an address"))?
            .connect_timeout(timeout)
            .timeout(timeout)
            .connect()
            .await
            .map_err(|error| cannot_reach(endpoint, &error))?;
        Ok(Client {
            api: AdminServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel),
            timeout,
        })
    }

    /// The answer of a call, or what its failure means and what can be done.
    pub(super) fn answer<T>(&self, result: Result<Response<T>, Status>) -> anyhow::Result<T> {
        result.map(Response::into_inner).map_err(|status| self.explain(&status))
    }

    /// All items of a list that comes in pages. `page` asks for the page of a token, and returns the next one's.
    pub(super) async fn list<T>(
        &mut self,
        page: impl AsyncFn(&mut AdminServiceClient<Channel>, String) -> Result<(Vec<T>, String), Status>,
    ) -> anyhow::Result<Vec<T>> {
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let answer = page(&mut self.api, token).await;
            let (more, next) = answer.map_err(|status| self.explain(&status))?;
            items.extend(more);
            if next.is_empty() {
                return Ok(items);
            }
            token = next;
        }
    }

    fn explain(&self, status: &Status) -> anyhow::Error {
        let message = status.message();
        match status.code() {
            Code::AlreadyExists => anyhow!("{message}; add --if-not-exists to accept that"),
            // Whatever the server refuses, it says why.
            Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => anyhow!("{message}"),
            Code::Unavailable => anyhow!("the server cannot do this now, try again: {message}"),
            Code::Unimplemented => {
                anyhow!(
                    "this server does not know the command: it is another version, not Gantry, or its port for clients \
                     (operators' calls go to admin.listen, 127.0.0.1:8085 by default)"
                )
            }
            Code::DeadlineExceeded | Code::Cancelled => anyhow!(
                "no answer within {}: a change may or may not have been made; look, then try again or raise --timeout",
                humantime::format_duration(self.timeout)
            ),
            Code::Unknown => anyhow!("{message}; look whether the change was made before you try again"),
            code => anyhow!("the server failed ({code:?}): {message}"),
        }
    }
}

/// The innermost cause says it best: "connection refused" rather than "transport error".
fn cannot_reach(endpoint: &HostPort, error: &dyn Error) -> anyhow::Error {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    anyhow!("cannot reach a server at {endpoint} ({cause}); start it, or name another with --endpoint")
}
