//! Change of an invisible duration: a consumer wants more time, or gives a message back.

use super::HandleState;
use crate::delivery::DeliveryRecord;
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{ChangeInvisibleRequest, HandleError, StoreError};
use gantry_proto::model::ReceiptHandle;

impl Store {
    pub async fn change_invisible(&self, request: ChangeInvisibleRequest) -> Result<ReceiptHandle, HandleError> {
        let (shard, receipt) = self.open_handle(request.group, request.topic, &request.handle)?;
        let (visible_at, end) = {
            let mut state = shard.lock();
            let now = self.log.now();
            match self.standing(&state, &receipt, now) {
                HandleState::Held => {}
                // A finished message must not come back to life.
                HandleState::Finished
                | HandleState::GivenUp
                | HandleState::FinishedSomehow(_)
                | HandleState::Expired => {
                    return Err(HandleError::Expired);
                }
            }
            let visible_at = now.after(request.invisible);
            let change = DeliveryRecord::VisibilityChanged {
                visible_at,
                counted: !request.suspend,
                entries: vec![(receipt.queue, receipt.queue_offset)],
            };
            (visible_at, self.record(&shard, &mut state, &change).map_err(StoreError::from)?.1)
        };
        // A waiting receive may have to wake sooner than it thought.
        shard.wake_one();
        self.log.acknowledged(end).await?;
        Ok(self.sealer()?.seal(&Receipt { promised_until: visible_at, ..receipt }))
    }
}
