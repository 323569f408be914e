//! Makes sure before a run that there is something to load: a server, the topic, the group.

use super::caller::{Caller, DEADLINE_MARGIN, grpc_failure, no_answer};
use super::connection::{Link, Transport};
use super::{Role, Target, dial, origin};
use anyhow::Context as _;
use gantry_proto::wire::admin::v1 as admin;
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Response, Status};

/// How long a topic that was created may take until clients can see it.
const TOPIC_APPEARS_WITHIN: Duration = Duration::from_secs(5);
const TOPIC_LOOKUP_PAUSE: Duration = Duration::from_millis(50);

/// Looks for the topic. With `create` a missing one is created, and so is the group, through `gantry.admin.v1`.
pub(crate) async fn prepare(
    target: &Arc<Target>,
    create: bool,
    queues: u32,
    group: Option<&str>,
) -> anyhow::Result<()> {
    let endpoint = target.endpoints[0].clone();
    let link = dial(&endpoint, target.timeout).await?;
    let caller = Caller::new(target, Role::Producer, 0, endpoint, &Transport::over(&link))?;
    let preparation = Preparation { caller: &caller, link: &link };
    let prepared = preparation.run(create, queues, group).await;
    link.close().await;
    prepared
}

struct Preparation<'a> {
    caller: &'a Caller,
    link: &'a Link,
}

impl Preparation<'_> {
    async fn run(&self, create: bool, queues: u32, group: Option<&str>) -> anyhow::Result<()> {
        let exists = match self.caller.query_route().await {
            Ok(_) => true,
            Err(failure) if failure.code == "TOPIC_NOT_FOUND" && create => false,
            Err(failure) => return Err(self.caller.explain(failure)),
        };
        if !exists {
            let topic = &self.caller.target.topic;
            let created = self.create_topic(topic, queues).await;
            let endpoint = &self.caller.endpoint;
            created.with_context(|| format!("cannot create the topic {topic:?} at {endpoint}"))?;
            self.wait_for_topic().await?;
        }
        if let Some(group) = group.filter(|_| create) {
            let created = self.create_group(group).await;
            created.with_context(|| format!("cannot create the group {group:?} at {}", self.caller.endpoint))?;
        }
        Ok(())
    }

    async fn create_topic(&self, name: &str, queue_count: u32) -> anyhow::Result<()> {
        let request = admin::CreateTopicRequest {
            name: name.to_owned(),
            r#type: admin::TopicType::Normal.into(),
            queue_count,
            if_not_exists: true,
        };
        let mut stub = self.stub()?;
        match self.answer(stub.create_topic(request)).await? {
            Some(_) => Ok(()),
            None => anyhow::bail!("the server has no gantry.admin.v1 service; create the topic with its own tools"),
        }
    }

    async fn create_group(&self, name: &str) -> anyhow::Result<()> {
        let request = admin::CreateGroupRequest { name: name.to_owned(), if_not_exists: true, ..Default::default() };
        let mut stub = self.stub()?;
        // Other servers create groups when a client first names them.
        self.answer(stub.create_group(request)).await.map(drop)
    }

    async fn wait_for_topic(&self) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..TOPIC_APPEARS_WITHIN.as_millis() / TOPIC_LOOKUP_PAUSE.as_millis() {
            match self.caller.query_route().await {
                Ok(_) => return Ok(()),
                Err(failure) => last = Some(failure),
            }
            tokio::time::sleep(TOPIC_LOOKUP_PAUSE).await;
        }
        let reason = last.map(|failure| failure.to_string()).unwrap_or_default();
        anyhow::bail!("the topic {:?} was created but cannot be used: {reason}", self.caller.target.topic)
    }

    fn stub(&self) -> anyhow::Result<AdminServiceClient<Transport>> {
        Ok(AdminServiceClient::with_origin(Transport::over(self.link), origin(&self.caller.endpoint)?))
    }

    /// The answer; `None` when the server does not know the service.
    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> anyhow::Result<Option<T>> {
        let timeout = self.caller.target.timeout;
        match tokio::time::timeout(timeout + DEADLINE_MARGIN, call).await {
            Ok(Ok(reply)) => Ok(Some(reply.into_inner())),
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(None),
            Ok(Err(status)) => Err(grpc_failure(status).into()),
            Err(_) => Err(no_answer(timeout).into()),
        }
    }
}
