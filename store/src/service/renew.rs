//! Renewal and release of the leases that a client's life extends. Costs what these clients hold, not what there is.

use crate::delivery::{DeliveryRecord, DeliveryState};
use crate::store::Store;
use gantry_proto::contract::{ReleaseRequest, RenewRequest, StoreError};
use gantry_proto::model::{ClientHash, LogOffset};

/// Shards that are changed before others get a turn on the thread.
const SHARDS_IN_ONE_GO: usize = 64;

impl Store {
    pub async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        let until = self.log.now().after(request.invisible);
        self.record_held(&request.owners, |state, owners| state.plan_renewal(owners, until)).await
    }

    pub async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        let visible_at = self.log.now().after(request.invisible);
        let owner = request.owner;
        self.record_held(&[owner], |state, _| state.plan_release(owner, visible_at)).await
    }

    /// Records what `plan` wants of each shard in which some of `owners` hold something, and waits until that is written.
    /// `plan` is told which of them hold something there. A refusal after the first record is a [`StoreError::Interrupted`]: a
    /// part of it was put into the log.
    async fn record_held(
        &self,
        owners: &[ClientHash],
        plan: impl Fn(&DeliveryState, &[ClientHash]) -> Option<DeliveryRecord>,
    ) -> Result<(), StoreError> {
        self.log.tenure.check()?;
        let mut last: Option<LogOffset> = None;
        for (number, ((group, topic), owners)) in self.progress.upkeep().held_by(owners).into_iter().enumerate() {
            if number % SHARDS_IN_ONE_GO == SHARDS_IN_ONE_GO - 1 {
                tokio::task::yield_now().await;
            }
            let Some(shard) = self.progress.get(group, topic) else { continue };
            let mut state = shard.lock();
            if shard.is_closed() {
                continue;
            }
            if let Some(change) = plan(&state, &owners) {
                let (_, end) =
                    self.record(&shard, &mut state, &change).map_err(StoreError::from).map_err(|refused| {
                        if last.is_none() { refused } else { StoreError::Interrupted(refused.to_string()) }
                    })?;
                drop(state);
                last = last.max(Some(end));
                shard.wake_one();
            }
        }
        match last {
            Some(end) => self.log.promised(end).await,
            None => self.log.still_leads(),
        }
    }
}
