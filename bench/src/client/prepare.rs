//! Makes sure before a run that there is something to load: a server, the topic, the group.

use super::Caller;
use crate::run::Run;
use anyhow::Context as _;
use gantry_client::Failure;
use gantry_proto::wire::admin::v1 as admin;
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use gantry_proto::wire::v2::ClientType;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Response, Status};

/// How long a topic that was created may take until clients can see it.
const TOPIC_APPEARS_WITHIN: Duration = Duration::from_secs(5);
const TOPIC_LOOKUP_PAUSE: Duration = Duration::from_millis(50);

/// Looks for the topic. With `--create-topic` a missing one is created, and so is the group, through `gantry.admin.v1`.
pub(crate) async fn prepare(run: &Arc<Run>) -> anyhow::Result<()> {
    let target = &run.plan.target;
    let caller = Caller::connect(run, ClientType::Producer, 0).await?;
    let connection = caller.connection()?;
    let mut admin = AdminServiceClient::with_origin(connection.clone(), connection.origin());
    match caller.query_route().await {
        Ok(_) => {}
        Err(failure) if failure.code == "TOPIC_NOT_FOUND" && target.create_topic => {
            let request = admin::CreateTopicRequest {
                name: target.topic().to_owned(),
                r#type: admin::TopicType::Normal.into(),
                queue_count: target.queues,
                if_not_exists: true,
            };
            let known = created(&caller, "topic", target.topic(), admin.create_topic(request)).await?;
            anyhow::ensure!(
                known,
                "cannot create the topic {:?} at {}: the server has no gantry.admin.v1 service; create the topic with its \
                 own tools",
                target.topic(),
                caller.endpoint
            );
            wait_for_topic(&caller).await?;
        }
        Err(failure) => return Err(caller.explain(failure)),
    }
    if let Some(group) = run.plan.consume.as_ref().filter(|_| target.create_topic) {
        let name = group.group.clone();
        let request = admin::CreateGroupRequest { name, if_not_exists: true, ..Default::default() };
        // Other servers create groups when a client first names them.
        created(&caller, "group", &group.group, admin.create_group(request)).await?;
    }
    Ok(())
}

async fn wait_for_topic(caller: &Caller) -> anyhow::Result<()> {
    let appearing = async {
        let mut last = None;
        for _ in 0..TOPIC_APPEARS_WITHIN.as_millis() / TOPIC_LOOKUP_PAUSE.as_millis() {
            match caller.query_route().await {
                Ok(_) => return Ok(()),
                Err(failure) => last = Some(failure),
            }
            tokio::time::sleep(TOPIC_LOOKUP_PAUSE).await;
        }
        Err(last.map(|failure| failure.to_string()).unwrap_or_default())
    };
    let topic = caller.run.plan.target.topic();
    appearing.await.map_err(|reason| anyhow::anyhow!("the topic {topic:?} was created but cannot be used: {reason}"))
}

/// False when the server does not know the service.
async fn created<T>(
    caller: &Caller,
    what: &str,
    name: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> anyhow::Result<bool> {
    let timeout = caller.run.plan.target.timeout;
    let created = match tokio::time::timeout(timeout, call).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(false),
        Ok(Err(status)) => Err(Failure::from(status)),
        Err(_) => Err(Failure::no_answer(timeout)),
    };
    created.with_context(|| format!("cannot create the {what} {name:?} at {}", caller.endpoint))
}
