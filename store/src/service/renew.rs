//! Renewal and release of the leases that a client's life extends. Costs what these clients hold, not what there is.
//!
//! A delivery is extended only if it is known to have reached its client, where the receive said so
//! ([`PopRequest::once_arrived`]): until somebody says that it has, its lease cannot go beyond the first one. So a message that
//! was lost on its way comes back when that ends, however long its client lives.
//!
//! [`PopRequest::once_arrived`]: gantry_proto::contract::PopRequest::once_arrived

use crate::delivery::{DeliveryRecord, DeliveryState};
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{ArrivedDeliveries, ReleaseRequest, RenewRequest, StoreError};
use gantry_proto::model::limits::AUTO_RENEW_MAX;
use gantry_proto::model::{ClientHash, LogOffset};

/// Shards that are changed before others get a turn on the thread.
const SHARDS_IN_ONE_GO: usize = 64;
/// Deliveries of which one record says that they arrived.
const ARRIVED_MAX: usize = 256;

impl Store {
    pub async fn renew(&self, request: RenewRequest) -> Result<(), StoreError> {
        let until = self.log.now().after(request.invisible);
        let last = self.record_arrived(&request.arrived).await?;
        self.record_held(&request.owners, last, |state, owners| state.plan_renewal(owners, until)).await
    }

    pub async fn release(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        let visible_at = self.log.now().after(request.invisible);
        let owner = request.owner;
        self.record_held(&[owner], None, |state, _| state.plan_release(owner, visible_at)).await
    }

    /// Records of deliveries in their first lease that they reached their owners. Returns what to wait for.
    async fn record_arrived(&self, arrived: &[ArrivedDeliveries]) -> Result<Option<LogOffset>, StoreError> {
        let mut last: Option<LogOffset> = None;
        if arrived.is_empty() {
            return Ok(None);
        }
        self.log.tenure.check()?;
        let sealer = self.sealer()?;
        for ArrivedDeliveries { owner, group, topic, handles } in arrived {
            let Some(shard) = self.progress.get(*group, *topic) else { continue };
            for handles in handles.chunks(ARRIVED_MAX) {
                // What cannot be opened stands for no delivery of this log.
                let opened = |handle| self.open_receipt(&sealer, (*group, *topic), handle).ok();
                let receipts: Vec<Receipt> = handles.iter().filter_map(opened).collect();
                let of =
                    |receipt: Receipt| (receipt.queue, receipt.queue_offset, receipt.lease, receipt.promised_until);
                let mut state = shard.lock();
                if shard.is_closed() {
                    break;
                }
                let now = self.log.now();
                let entries = state.in_first_lease(*owner, receipts.into_iter().map(of), now);
                if entries.is_empty() {
                    continue;
                }
                let change = DeliveryRecord::Arrived { owner: *owner, latest: now.after(AUTO_RENEW_MAX), entries };
                let recorded = self.record(&shard, &mut state, &change).map_err(StoreError::from);
                drop(state);
                last = last.max(Some(recorded.map_err(|refused| interrupted(refused, last))?.1));
            }
            tokio::task::yield_now().await;
        }
        Ok(last)
    }

    /// Records what `plan` wants of each shard in which some of `owners` hold something, and waits until that is written, and what
    /// was recorded up to `last`. `plan` is told which of them hold something there. A refusal after the first record is a
    /// [`StoreError::Interrupted`]: a part of it was put into the log.
    async fn record_held(
        &self,
        owners: &[ClientHash],
        mut last: Option<LogOffset>,
        plan: impl Fn(&DeliveryState, &[ClientHash]) -> Option<DeliveryRecord>,
    ) -> Result<(), StoreError> {
        self.log.tenure.check()?;
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
                let recorded = self.record(&shard, &mut state, &change).map_err(StoreError::from);
                let (_, end) = recorded.map_err(|refused| interrupted(refused, last))?;
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

/// What a refusal means after something was recorded.
fn interrupted(refused: StoreError, last: Option<LogOffset>) -> StoreError {
    if last.is_none() { refused } else { StoreError::Interrupted(refused.to_string()) }
}
