//! Ack: finishes deliveries, all of one call with one record.

use super::HandleState;
use crate::commit_log::tail::NoRoom;
use crate::delivery::DeliveryRecord;
use crate::progress::Shard;
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{AckRequest, HandleError, StoreError};
use gantry_proto::model::LogOffset;

impl Store {
    /// See [`StoreService::ack`](gantry_proto::contract::StoreService::ack).
    pub async fn ack(&self, request: AckRequest) -> Result<Vec<Result<(), HandleError>>, StoreError> {
        let sealer = self.sealer()?;
        let names = (request.group, request.topic);
        let mut results = Vec::with_capacity(request.handles.len());
        let mut receipts = Vec::with_capacity(request.handles.len());
        for handle in &request.handles {
            let opened = self.open_receipt(&sealer, names, handle);
            results.push(opened.map(|receipt| receipts.push((results.len(), receipt))));
        }
        let Some(shard) = self.progress.get(request.group, request.topic) else {
            receipts.iter().for_each(|(place, _)| results[*place] = Err(HandleError::Expired));
            return Ok(results);
        };
        let after = loop {
            match self.try_ack(&shard, &receipts, &mut results) {
                Err(NoRoom::SegmentNotReady) => {
                    self.log.room_for(record_bytes(receipts.len())).await.map_err(StoreError::from)?
                }
                tried => break tried.map_err(StoreError::from)?,
            }
        };
        match after {
            After::Recorded(end) => self.log.acknowledged(end).await?,
            After::Settled => self.log.settled().await?,
        }
        Ok(results)
    }

    /// Finishes what the receipts stand for. Each has its place among the results.
    fn try_ack(
        &self,
        shard: &Shard,
        receipts: &[(usize, Receipt)],
        results: &mut [Result<(), HandleError>],
    ) -> Result<After, NoRoom> {
        let mut state = shard.lock();
        let now = self.log.now();
        let mut entries = Vec::with_capacity(receipts.len());
        for (place, receipt) in receipts {
            results[*place] = match self.standing(&state, receipt, now) {
                HandleState::Held => {
                    entries.push((receipt.queue, receipt.queue_offset));
                    Ok(())
                }
                HandleState::Finished => Ok(()),
                // Nobody is to believe that it was consumed.
                HandleState::GivenUp | HandleState::Expired => Err(HandleError::Expired),
            };
        }
        if entries.is_empty() {
            return Ok(After::Settled);
        }
        let (_, end) = self.record(shard, &mut state, &DeliveryRecord::Acked { entries })?;
        Ok(After::Recorded(end))
    }
}

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
