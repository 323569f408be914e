//! Calls to all store groups at the same time. Where one fails, the answers of the others count nevertheless.

use super::StoreGroups;
use super::route::Route;
use futures_util::future::join_all;
use gantry_proto::contract::{
    QueueStatus, ReleaseRequest, Remains, RenewRequest, StoreError, StoreService, TopicProgress,
};
use gantry_proto::model::{ClientHash, GroupId, StoreGroup, Topic};
use std::sync::Arc;
use std::time::Duration;

/// How long an operator's question to a store may take.
const QUESTION_PATIENCE: Duration = Duration::from_secs(5);
/// How long the release of a client's leases may take.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// What each store group answered.
pub(crate) type Answers<T> = Vec<(Arc<StoreGroup>, Result<T, StoreError>)>;

impl StoreGroups {
    /// Extends the leases of living clients. On all store groups: any of them may have delivered to a client before it came
    /// to this proxy.
    pub(crate) async fn renew(&self, owners: &[ClientHash], invisible: Duration, patience: Duration) -> Answers<()> {
        let ask = |store: Arc<dyn StoreService>| {
            let request = RenewRequest { owners: owners.to_vec(), invisible, arrived: Vec::new() };
            async move { store.renew(request).await }
        };
        self.ask_each(self.view.store_groups(), patience, ask).await
    }

    /// Makes the messages that a client holds visible again soon.
    pub(crate) async fn release(&self, owner: ClientHash, invisible: Duration) -> Answers<()> {
        let ask =
            |store: Arc<dyn StoreService>| async move { store.release(ReleaseRequest { owner, invisible }).await };
        self.ask_each(self.view.store_groups(), RELEASE_PATIENCE, ask).await
    }

    /// The queues of a topic on each store group that has some.
    pub(crate) async fn queues(&self, topic: &Arc<Topic>) -> Answers<Vec<QueueStatus>> {
        let store_groups = Route::new(topic, &self.view).store_groups;
        let topic = topic.id;
        self.ask_each(store_groups, QUESTION_PATIENCE, |store| async move { store.queues(topic).await }).await
    }

    /// A consumer group's position on each store group.
    pub(crate) async fn progress(&self, group: GroupId) -> Answers<Vec<TopicProgress>> {
        let store_groups = self.view.store_groups();
        self.ask_each(store_groups, QUESTION_PATIENCE, |store| async move { store.progress(group).await }).await
    }

    /// What each of these store groups still holds.
    pub(crate) async fn remains(&self, store_groups: Vec<Arc<StoreGroup>>) -> Answers<Remains> {
        self.ask_each(store_groups, QUESTION_PATIENCE, |store| async move { store.remains().await }).await
    }

    async fn ask_each<T, F>(
        &self,
        store_groups: Vec<Arc<StoreGroup>>,
        patience: Duration,
        call: impl Fn(Arc<dyn StoreService>) -> F,
    ) -> Answers<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut asked = Vec::with_capacity(store_groups.len());
        for store_group in store_groups {
            let question = self.leader(&store_group).map(&call);
            asked.push(async move {
                let silent = || Err(StoreError::Unreachable(format!("no answer within {patience:?}")));
                let answer = match question {
                    Ok(answer) => tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| silent()),
                    Err(error) => Err(error),
                };
                (store_group, answer)
            });
        }
        join_all(asked).await
    }
}
