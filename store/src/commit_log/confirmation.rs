//! Confirmation: from a written batch to everybody who waits for it.
//!
//! The write task confirms batches in the order of the log ([`CommitLog::confirm`]). Callers wait for the end of their records
//! and then ask the fence a second time: a success is answered only in the tenure in which the record was put into the log.
//!
//! There are two promises. Of a message or an acknowledgement: it is as durable as configured ([`CommitLog::acknowledged`]). Of
//! a delivery or its renewal: it is written, so that it survives this process ([`CommitLog::promised`]). A lease is a promise
//! about time: after a power failure the message is delivered again, and that costs less than a flush for each delivery.
//! What nobody waits for to be durable is flushed with what somebody waits for, or a moment later ([`super::writer`]).

use super::tail::Written;
use super::watermark::Watermark;
use super::{CommitLog, Flush};
use gantry_proto::contract::StoreError;
use gantry_proto::model::LogOffset;
use std::sync::atomic::{Ordering, fence};

impl CommitLog {
    /// Tells everybody what was written: queues grow, receivers and waiting callers wake. In the order of the log, by one
    /// task only.
    pub(crate) fn confirm(&self, batches: Vec<Written>) {
        let Some(end) = batches.last().map(|batch| batch.end) else { return };
        let durable_to = self.durable_to();
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
    }

    /// How far the log is as durable as configured.
    pub(super) fn durable_to(&self) -> LogOffset {
        match self.config.flush {
            Flush::Sync => self.flushed_to(),
            Flush::Async => self.written_to(),
        }
    }

    /// Waits until the records that end at `to` are confirmed, and makes sure that success may be answered: the tenure in
    /// which they were written still lasts.
    /// Every error is a [`StoreError::Interrupted`].
    pub(crate) async fn acknowledged(&self, to: LogOffset) -> Result<(), StoreError> {
        self.confirmed(to).await?;
        self.of_this_tenure(to)
    }

    /// The same for a promise about time: waits until the records are written.
    pub(crate) async fn promised(&self, to: LogOffset) -> Result<(), StoreError> {
        self.passed(&self.written, to).await?;
        self.of_this_tenure(to)
    }

    fn of_this_tenure(&self, to: LogOffset) -> Result<(), StoreError> {
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
        self.want_flush(to);
        self.passed(&self.confirmed, to).await
    }

    /// Somebody waits for everything before `to` to be durable.
    fn want_flush(&self, to: LogOffset) {
        // Said before looking; the writer writes before it looks: one of the two sees the other.
        self.flush_wanted.fetch_max(to.0, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.durable_to() < to && self.written_to() >= to {
            self.gathering.notify_one();
        }
    }

    /// Whether somebody waits for what is written and not flushed.
    pub(super) fn flush_is_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        let wanted = LogOffset(self.flush_wanted.load(Ordering::Acquire));
        self.config.flush == Flush::Sync && wanted > self.flushed_to()
    }

    /// Whether the write task has something to do at once.
    pub(super) fn has_to_write(&self) -> bool {
        !self.tail.lock().batches.is_empty() || self.flush_is_wanted()
    }

    async fn passed(&self, watermark: &Watermark, to: LogOffset) -> Result<(), StoreError> {
        let interrupted = |_| self.refusal().unwrap_or(StoreError::ShuttingDown).to_string();
        watermark.wait(to).await.map_err(interrupted).map_err(StoreError::Interrupted)
    }

    /// Everything that recovery found is confirmed: right for a leader that has no copies to wait for.
    pub(crate) fn confirm_found(&self) {
        self.confirmed.advance(self.flushed_to());
    }
}
