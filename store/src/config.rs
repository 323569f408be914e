//! Settings of a store, and what they are if nobody says otherwise.

use crate::commit_log::Flush;
use crate::commit_log::retention::RetentionPolicy;
use crate::open_error::OpenErrorKind;
use std::time::Duration;

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// When an answer may be given.
    pub flush: Flush,
    /// Size of a log segment, [`StoreConfig::SEGMENT_BYTES_MIN`] to [`StoreConfig::SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Bytes that may wait to be written before the store says that it is busy.
    pub pending_bytes_max: usize,
    /// What is kept.
    pub retention: RetentionPolicy,
    /// New messages are refused while more than this percentage of the disk is used.
    pub disk_full_percent: u8,
    /// How often progress is saved, so that recovery has little to read.
    pub checkpoint_interval: Duration,
    /// Messages that one group may hold unacknowledged on one topic.
    pub inflight_max: usize,
    /// Receives that may wait for one group and topic.
    pub waiting_max: usize,
    /// How long a message id is remembered, so that a producer's retry is not stored twice. Zero: not at all.
    pub dedup_window: Duration,
    /// Memory for remembered ids, 10 to 12.5 bytes each: when it is full the oldest are forgotten before their time.
    pub dedup_bytes_max: usize,
    /// Ids that are read back before the store begins to work; the rest of the window follows while it works.
    pub dedup_recalled_at_once: usize,
    /// Goes on without a part of the log that is missing: files that are gone or were cut. What was in them is lost. For one
    /// start, after an operator read what is missing.
    pub accept_missing_log: bool,
    /// How much earlier than granted a timed lease ends for the store: clocks do not run equally fast.
    pub lease_margin: Duration,
}

impl StoreConfig {
    /// Smallest segment: any one record must fit.
    pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
    /// Largest segment: positions in its index have 32 bits.
    pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;

    /// Whether a store can work with them.
    pub(crate) fn check(&self) -> Result<(), OpenErrorKind> {
        let (min, max) = (StoreConfig::SEGMENT_BYTES_MIN, StoreConfig::SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&self.segment_bytes) {
            let expected = format!("{min} to {max} bytes");
            return Err(OpenErrorKind::Setting { name: "segment_bytes", value: self.segment_bytes, expected });
        }
        Ok(())
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            flush: Flush::Sync,
            segment_bytes: 1 << 30,
            pending_bytes_max: 64 << 20,
            retention: RetentionPolicy {
                age: Duration::from_secs(72 * 3600),
                bytes_max: None,
                disk_used_percent: None,
            },
            disk_full_percent: 90,
            checkpoint_interval: Duration::from_secs(5),
            inflight_max: 100_000,
            waiting_max: 4096,
            dedup_window: Duration::from_secs(600),
            dedup_bytes_max: 512 << 20,
            dedup_recalled_at_once: 1 << 20,
            accept_missing_log: false,
            lease_margin: Duration::from_millis(500),
        }
    }
}
