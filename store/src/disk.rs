//! Whether the disk has room for new messages. Progress (acknowledgements, leases) is recorded as long as the current
//! segment lasts, so that consumers can work off what fills the disk: messages leave its end to them when there is no room
//! for another (see [`Purpose`](crate::commit_log::tail::Purpose)).

use crate::commit_log::retention::used_percent;
use gantry_proto::contract::StoreError;
use std::sync::atomic::{AtomicU8, Ordering};

/// What was last seen of the disk.
#[derive(Default)]
pub(crate) struct DiskGuard {
    /// 0: enough room; otherwise how full it is.
    full_percent: AtomicU8,
}

impl DiskGuard {
    /// Notes how much of the disk is left. Warns when that changes anything.
    pub(crate) fn observe(&self, (total, available): (u64, u64), limit_percent: u8) {
        let used = used_percent(total, available).min(100) as u8;
        let now = if used > limit_percent { used } else { 0 };
        let before = self.full_percent.swap(now, Ordering::Relaxed);
        match (before, now) {
            (0, 1..) => tracing::error!(used, limit_percent, "the disk is too full: new messages are refused"),
            (1.., 0) => tracing::info!(used, limit_percent, "the disk has room again: new messages are taken"),
            _ => {}
        }
    }

    /// Whether a new message may be taken.
    pub(crate) fn admit(&self) -> Result<(), StoreError> {
        match self.full_percent.load(Ordering::Relaxed) {
            0 => Ok(()),
            used => Err(StoreError::DiskFull(format!("{used}% used; consume, free space or enlarge it"))),
        }
    }
}
