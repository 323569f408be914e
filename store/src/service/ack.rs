//! Ack: finishes deliveries, all of one call with one record.

use super::{Standing, no_room, standing};
use crate::commit_log::tail::NoRoom;
use crate::delivery::DeliveryRecord;
use crate::progress::Shard;
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{AckRequest, HandleError, StoreError};
use gantry_proto::model::LogOffset;

impl Store {
    pub(crate) async fn ack_deliveries(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        let own = |receipt: &Receipt| receipt.group == request.group && receipt.topic == request.topic;
        let sealer = self.sealer()?;
        let opened: Vec<Option<Receipt>> =
            request.handles.iter().map(|handle| sealer.open(handle).filter(own)).collect();
        let Some(shard) = self.progress.get(request.group, request.topic) else {
            return Ok(opened.iter().map(|_| Err(HandleError::Malformed)).collect());
        };
        let (results, after) = loop {
            match self.try_ack(&shard, &opened) {
                Err(NoRoom::SegmentNotReady) => self.log.room_for(record_bytes(opened.len())).await.map_err(no_room)?,
                tried => break tried.map_err(no_room)?,
            }
        };
        match after {
            After::Recorded(end) => self.log.acknowledged(end).await?,
            After::Settled => self.log.settled().await?,
        }
        Ok(results)
    }

    fn try_ack(&self, shard: &Shard, opened: &[Option<Receipt>]) -> Result<Acked, NoRoom> {
        let mut state = shard.lock();
        let now = self.log.now();
        let mut entries = Vec::with_capacity(opened.len());
        let mut results = Vec::with_capacity(opened.len());
        for receipt in opened {
            results.push(match receipt {
                None => Err(HandleError::Malformed),
                Some(receipt) => match standing(&state, receipt, now) {
                    Standing::Held => {
                        entries.push((receipt.queue, receipt.queue_offset));
                        Ok(())
                    }
                    Standing::Finished => Ok(()),
                    Standing::Expired => Err(HandleError::Expired),
                },
            });
        }
        if entries.is_empty() {
            return Ok((results, After::Settled));
        }
        let (_, end) = self.record(shard, &mut state, &DeliveryRecord::Acked { entries })?;
        Ok((results, After::Recorded(end)))
    }
}

/// One result per handle, and what to wait for.
type Acked = (Vec<Result<(), HandleError>>, After);

/// What must have happened before the results are told.
enum After {
    /// The record that ends there is confirmed.
    Recorded(LogOffset),
    /// Nothing changed; but what finished these deliveries earlier may not be confirmed yet.
    Settled,
}

/// Room for a record that finishes `count` deliveries, however scattered.
fn record_bytes(count: usize) -> usize {
    64 + count * 32
}
