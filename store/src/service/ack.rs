//! Ack: finishes deliveries, all of one call with one record.

use super::{FinishedSomehow, HandleState};
use crate::commit_log::tail::{NoRoom, Purpose};
use crate::delivery::DeliveryRecord;
use crate::progress::Shard;
use crate::receipt::Receipt;
use crate::store::Store;
use gantry_proto::contract::{AckRequest, HandleError, StoreError};
use gantry_proto::model::LogOffset;

impl Store {
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
        // Told by what the disk holds: found out under no lock.
        let mut unsure = Vec::new();
        let after = loop {
            unsure.clear();
            match self.try_ack(&shard, &receipts, &mut results, &mut unsure) {
                Err(NoRoom::SegmentNotReady) => self
                    .log
                    .room_for(Purpose::Progress, record_bytes(receipts.len()))
                    .await
                    .map_err(StoreError::from)?,
                tried => break tried.map_err(StoreError::from)?,
            }
        };
        let messages = unsure.iter().map(|(_, message)| *message).collect();
        for (given_up, (place, _)) in self.may_be_given_up(request.group, messages).await.into_iter().zip(unsure) {
            if given_up {
                results[place] = Err(HandleError::Expired);
            }
        }
        match after {
            After::Recorded(end) => self.log.acknowledged(end).await?,
            After::Settled => self.log.settled().await?,
        }
        Ok(results)
    }

    /// Finishes what the receipts stand for. Each has its place among the results. `unsure`: those that are finished, unless
    /// they are dead letters.
    fn try_ack(
        &self,
        shard: &Shard,
        receipts: &[(usize, Receipt)],
        results: &mut [Result<(), HandleError>],
        unsure: &mut Vec<(usize, FinishedSomehow)>,
    ) -> Result<After, NoRoom> {
        let mut state = shard.lock();
        let now = self.log.now();
        let mut entries = Vec::with_capacity(receipts.len());
        let mut dropped = Vec::new();
        for (place, receipt) in receipts {
            results[*place] = match self.standing(&state, receipt, now) {
                HandleState::Held => {
                    entries.push((receipt.queue, receipt.queue_offset));
                    Ok(())
                }
                HandleState::Finished => Ok(()),
                HandleState::FinishedSomehow(message) => {
                    unsure.push((*place, message));
                    Ok(())
                }
                // Nobody is to believe that it was consumed.
                HandleState::GivenUp | HandleState::Expired => {
                    if state.may_come_back(receipt.queue, receipt.queue_offset, receipt.lease) {
                        dropped.push((receipt.queue, receipt.queue_offset));
                    }
                    Err(HandleError::Expired)
                }
            };
        }
        // Its consumer hears that it has it no more: from now on that stays so, although it lives and is renewed.
        let given_back = match dropped.is_empty() {
            true => None,
            false => {
                let change = DeliveryRecord::VisibilityChanged { visible_at: now, counted: true, entries: dropped };
                Some(self.record(shard, &mut state, &change)?.1)
            }
        };
        if entries.is_empty() {
            return Ok(given_back.map_or(After::Settled, After::Recorded));
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

/// Room for a record that finishes `count` deliveries, however scattered, and one that ends others for good.
fn record_bytes(count: usize) -> usize {
    2 * (64 + count * 32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;
    use crate::support::*;
    use gantry_proto::contract::DeadLetterRequest;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn what_became_of_a_message_is_looked_up_by_a_worker_and_under_no_lock() {
        let (mut machine, workers) = (Machine::new(1), Arc::new(HeldWorkers::default()));
        machine.env.workers = workers.clone();
        let store = machine.must_open();
        send(&store, 0, "m").await.unwrap();
        let handle = pop(&store, 1).await.unwrap().remove(0).handle;
        let request = DeadLetterRequest { group: GROUP, topic: TOPIC, handle: handle.clone() };
        store.forward_to_dead_letter(request).await.unwrap();
        store.shutdown().await.unwrap();
        drop(store);
        // From its checkpoint nobody remembers what became of it.
        let store = machine.must_open();
        workers.hold(true);
        let mut late = Box::pin(ack(&store, &handle));
        assert!(poll_once(late.as_mut()).is_none(), "it was looked up on a task of the runtime");
        drop(store.progress.get(GROUP, TOPIC).unwrap().lock());
        while workers.work() > 0 {}
        workers.hold(false);
        let answer = late.await;
        assert!(matches!(answer, Err(HandleError::Expired)), "{answer:?}");
        let _ = store.shutdown().await;
    }
}
