//! Renewal and release of the leases that a client's life extends.

use super::no_room;
use crate::delivery::DeliveryRecord;
use crate::progress::Shard;
use crate::store::Store;
use gantry_proto::contract::{ReleaseRequest, RenewRequest, StoreError};
use gantry_proto::model::LogOffset;

impl Store {
    pub(crate) async fn renew_leases(&self, request: RenewRequest) -> Result<(), StoreError> {
        let until = self.log.now().after(request.invisible);
        let end = self.record_everywhere(|shard| shard.state.lock().plan_renewal(&request.owners, until))?;
        self.log.confirmed(end).await
    }

    pub(crate) async fn release_leases(&self, request: ReleaseRequest) -> Result<(), StoreError> {
        let visible_at = self.log.now().after(request.invisible);
        let end = self.record_everywhere(|shard| shard.state.lock().plan_release(request.owner, visible_at))?;
        self.log.confirmed(end).await
    }

    /// Records what `plan` wants of each shard. Returns what to wait for.
    fn record_everywhere(&self, plan: impl Fn(&Shard) -> Option<DeliveryRecord>) -> Result<LogOffset, StoreError> {
        let mut last = LogOffset(0);
        for shard in self.progress.list() {
            // Planned and applied under two locks: what changes in between is either finished (and stays so) or belongs
            // to a newer lease of the same client, for which the change is right as well.
            if let Some(change) = plan(&shard) {
                let (_, end) = self.record(&shard, &mut shard.state.lock(), &change).map_err(no_room)?;
                last = last.max(end);
                shard.wake_one();
            }
        }
        Ok(last)
    }
}
