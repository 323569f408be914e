//! Renewal and release of the leases that a client's life extends.

use super::no_room;
use crate::delivery::{DeliveryRecord, DeliveryState};
use crate::store::Store;
use gantry_proto::contract::{ReleaseRequest, RenewRequest, StoreError};
use gantry_proto::model::LogOffset;

impl Store {
    pub(crate) async fn renew_leases(&self, request: RenewRequest) -> Result<(), StoreError> {
        let until = self.log.now().after(request.invisible);
        let end = self.record_everywhere(|state| state.plan_renewal(&request.owners, until))?;
        self.log.acknowledged(end).await
    }

    pub(crate) async fn release_leases(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        let visible_at = self.log.now().after(request.invisible);
        let end = self.record_everywhere(|state| state.plan_release(request.owner, visible_at))?;
        self.log.acknowledged(end).await
    }

    /// Records what `plan` wants of each shard. Returns what to wait for; 0 if nothing changes. A refusal after the first
    /// record is a [`StoreError::Interrupted`]: a part of it was put into the log.
    fn record_everywhere(
        &self,
        plan: impl Fn(&DeliveryState) -> Option<DeliveryRecord>,
    ) -> Result<LogOffset, StoreError> {
        self.log.tenure.check()?;
        let mut last = LogOffset(0);
        for shard in self.progress.list() {
            let mut state = shard.state.lock();
            if let Some(change) = plan(&state) {
                let (_, end) = self.record(&shard, &mut state, &change).map_err(no_room).map_err(|refused| {
                    if last == LogOffset(0) { refused } else { StoreError::Interrupted(refused.to_string()) }
                })?;
                drop(state);
                last = last.max(end);
                shard.wake_one();
            }
        }
        Ok(last)
    }
}
