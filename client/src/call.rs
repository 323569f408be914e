//! One call: headers, deadline, and an end even if the server never answers.

use super::{Connection, Failure, Identity, Messaging};
use gantry_proto::wire::v2;
use gantry_proto::wire::v2::receive_message_response::Content;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How long after the server's own deadline a call is given up.
const DEADLINE_MARGIN: Duration = Duration::from_millis(500);

/// Makes a call of the client protocol: `call(stub, request)`.
pub async fn call<T, R, F>(
    identity: &Identity,
    connection: &Connection,
    timeout: Duration,
    message: T,
    call: impl FnOnce(Messaging, Request<T>) -> F,
) -> Result<R, Failure>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let mut request = identity.request(message);
    request.set_timeout(timeout);
    Ok(answer_within(timeout, call(connection.messaging(), request)).await??.into_inner())
}

/// Receives: hands every message over when it comes, and returns the status that the server told, if it told one.
pub async fn receive(
    identity: &Identity,
    connection: &Connection,
    timeout: Duration,
    request: v2::ReceiveMessageRequest,
    mut take: impl FnMut(v2::Message),
) -> Result<Option<v2::Status>, Failure> {
    let mut request = identity.request(request);
    request.set_timeout(timeout);
    let receiving = async {
        let mut told = None;
        let mut stream = connection.messaging().receive_message(request).await?.into_inner();
        while let Some(part) = stream.message().await? {
            match part.content {
                Some(Content::Message(message)) => take(message),
                Some(Content::Status(status)) => told = Some(status),
                Some(Content::DeliveryTimestamp(_)) | None => {}
            }
        }
        Ok::<_, Status>(told)
    };
    Ok(answer_within(timeout, receiving).await??)
}

async fn answer_within<T>(timeout: Duration, answer: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(timeout + DEADLINE_MARGIN, answer).await.map_err(|_| Failure::no_answer(timeout))
}
