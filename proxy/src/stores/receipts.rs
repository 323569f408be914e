//! Calls about a delivery go to the store group that made the delivery: its receipt handle names it.
//!
//! All of them are safe to repeat, so a call that failed with a transient error is tried again while the client waits. A
//! call that was carried out already is answered with "the delivery is over".

use super::{Backoff, Deadline, StoreGroups, is_transient};
use futures_util::future::join_all;
use gantry_proto::contract::{
    AckRequest, ChangeInvisibleRequest, DeadLetterRequest, HandleError, StoreError, StoreService,
};
use gantry_proto::model::{GroupId, ReceiptHandle, StoreGroupId, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Entries of an acknowledgement that one store group issued: their places in it, and their handles for the first attempt.
#[derive(Default)]
struct IssuedHandles {
    indices: Vec<usize>,
    handles: Vec<ReceiptHandle>,
}

impl StoreGroups {
    /// Finishes deliveries, whichever store groups made them. One result per handle, in order.
    pub(crate) async fn ack(
        &self,
        group: GroupId,
        topic: TopicId,
        handles: &[&str],
        deadline: Deadline,
    ) -> Vec<Result<(), HandleError>> {
        let mut by_issuer = BTreeMap::<StoreGroupId, IssuedHandles>::new();
        let mut results: Vec<_> = Vec::with_capacity(handles.len());
        for (index, handle) in handles.iter().enumerate() {
            let handle = ReceiptHandle((*handle).to_owned());
            // Replaced by the answer of the store group that issued it.
            results.push(Err(HandleError::Malformed));
            if let Some((issuer, _)) = handle.parse() {
                let issued = by_issuer.entry(issuer).or_default();
                issued.indices.push(index);
                issued.handles.push(handle);
            }
        }
        let mut asked = Vec::with_capacity(by_issuer.len());
        for (issuer, issued) in by_issuer {
            asked.push(async move {
                let mut first = Some(issued.handles);
                let again = || issued.indices.iter().map(|index| ReceiptHandle(handles[*index].to_owned())).collect();
                let answers = self.ask(issuer, deadline, |store| {
                    let handles = first.take().unwrap_or_else(again);
                    async move { Ok(store.ack(AckRequest { group, topic, handles }).await?) }
                });
                let answers = answers.await;
                (issued.indices, answers)
            });
        }
        for (indices, answers) in join_all(asked).await {
            let answers = answers.unwrap_or_else(|error| indices.iter().map(|_| Err(error.clone())).collect());
            for (index, answer) in indices.into_iter().zip(answers) {
                results[index] = answer;
            }
        }
        results
    }

    /// Sets when a delivery becomes visible again. Returns the handle to use from then on.
    pub(crate) async fn change_invisible(
        &self,
        group: GroupId,
        topic: TopicId,
        handle: &ReceiptHandle,
        (invisible, suspend): (Duration, bool),
        deadline: Deadline,
    ) -> Result<ReceiptHandle, HandleError> {
        let (issuer, _) = handle.parse().ok_or(HandleError::Malformed)?;
        self.ask(issuer, deadline, |store| {
            let request = ChangeInvisibleRequest { group, topic, handle: handle.clone(), invisible, suspend };
            async move { store.change_invisible(request).await }
        })
        .await
    }

    /// Moves a delivery to the dead-letter topic.
    pub(crate) async fn forward_to_dead_letter(
        &self,
        group: GroupId,
        topic: TopicId,
        handle: &ReceiptHandle,
        deadline: Deadline,
    ) -> Result<(), HandleError> {
        let (issuer, _) = handle.parse().ok_or(HandleError::Malformed)?;
        self.ask(issuer, deadline, |store| {
            let request = DeadLetterRequest { group, topic, handle: handle.clone() };
            async move { store.forward_to_dead_letter(request).await }
        })
        .await
    }

    /// Asks the leader of the store group that issued a handle, again and again while there is time and the error is
    /// transient.
    async fn ask<T, F>(
        &self,
        issuer: StoreGroupId,
        deadline: Deadline,
        mut call: impl FnMut(Arc<dyn StoreService>) -> F,
    ) -> Result<T, HandleError>
    where
        F: Future<Output = Result<T, HandleError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let Some(store_group) = self.view.store_group(issuer) else {
                // A store group that is newer than all in the metadata may be about to appear in them; any other is gone.
                if self.is_gone(issuer) || !backoff.wait(deadline).await {
                    return Err(HandleError::Expired);
                }
                continue;
            };
            let answer = match self.leader(&store_group) {
                Ok(store) => tokio::time::timeout_at(deadline.instant(), call(store)).await.unwrap_or_else(|_| {
                    let silent = format!("store group {}: no answer in time", store_group.name);
                    Err(StoreError::Unreachable(silent).into())
                }),
                Err(error) => Err(error.into()),
            };
            match answer {
                Err(HandleError::Store(error)) if is_transient(&error) => {
                    tracing::debug!(store_group = %store_group.name, %error, "a delivery's store does not serve now");
                    if !backoff.wait(deadline).await {
                        return Err(error.into());
                    }
                }
                done => return done,
            }
        }
    }

    fn is_gone(&self, id: StoreGroupId) -> bool {
        self.view.store_groups().last().is_some_and(|newest| id <= newest.id)
    }
}
