//! Confirmation: from a written batch to everybody who waits for it.
//!
//! The write task confirms batches in the order of the log ([`CommitLog::confirm`]). Callers wait for the end of their records
//! and then ask the fence a second time ([`CommitLog::acknowledged`]): a success is answered only in the tenure in which the
//! record was put into the log.

use super::tail::Batch;
use super::{CommitLog, Flush};
use gantry_proto::contract::StoreError;
use gantry_proto::model::LogOffset;
use std::sync::atomic::Ordering;

/// Larger write buffers are given back to the allocator.
const SPARE_BYTES_MAX: usize = 4 << 20;

impl CommitLog {
    /// Tells everybody what was written: queues grow, receivers and waiting callers wake. In the order of the log, by one
    /// task only.
    pub(crate) fn confirm(&self, batches: Vec<Batch>) {
        let Some(end) = batches.last().map(Batch::end) else { return };
        let durable_to = match self.config.flush {
            Flush::Sync => self.flushed_to(),
            Flush::Async => self.written_to(),
        };
        assert!(end <= durable_to, "confirmed up to {end}, but as durable as configured only up to {durable_to}");
        for batch in &batches {
            for (queue, end) in &batch.arrivals {
                queue.confirm(*end);
            }
        }
        self.confirmed.advance(end);
        for batch in &batches {
            for (queue, _) in &batch.arrivals {
                queue.wake_receivers();
            }
        }
        let mut tail = self.tail.lock();
        for mut batch in batches {
            if tail.spare.len() < 2 && batch.bytes.capacity() <= SPARE_BYTES_MAX {
                batch.bytes.clear();
                tail.spare.push(batch.bytes);
            }
        }
    }

    /// Waits until the records that end at `to` are confirmed, and makes sure that success may be answered: the tenure in
    /// which they were written still lasts.
    /// Every error is a [`StoreError::Interrupted`].
    pub(crate) async fn acknowledged(&self, to: LogOffset) -> Result<(), StoreError> {
        self.confirmed(to).await?;
        // In this order: whoever finds a later tenure in force also finds where its records begin.
        self.still_leads()?;
        if to.0 <= self.epoch_from.load(Ordering::Acquire) {
            return Err(StoreError::Interrupted("its lease ended".into()));
        }
        Ok(())
    }

    /// Whether success may be answered for what was confirmed long ago. The error is a [`StoreError::Interrupted`].
    pub(crate) fn still_leads(&self) -> Result<(), StoreError> {
        self.tenure.check().map_err(|over| StoreError::Interrupted(over.to_string()))
    }

    /// Waits until all that has been put into the log so far is confirmed, by whatever tenure, and makes sure that the
    /// store leads: then what the state says now may be answered.
    pub(crate) async fn settled(&self) -> Result<(), StoreError> {
        self.confirmed(self.appended_to()).await?;
        self.tenure.check()
    }

    /// Waits until everything before `to` is as durable as configured. Says nothing about the tenure. If that never comes,
    /// [`StoreError::Interrupted`]: what was put into the log may be there after the next start.
    pub(crate) async fn confirmed(&self, to: LogOffset) -> Result<(), StoreError> {
        let interrupted = |_| self.refusal().unwrap_or(StoreError::ShuttingDown).to_string();
        self.confirmed.wait(to).await.map_err(interrupted).map_err(StoreError::Interrupted)
    }

    /// Everything that recovery found is confirmed: right for a leader that has no copies to wait for.
    pub(crate) fn confirm_found(&self) {
        self.confirmed.advance(self.flushed_to());
    }
}
