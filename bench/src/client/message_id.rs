//! Message ids as the official clients make them.

use crate::clock::Moment;

/// Makes the ids of one producer, which owns it.
pub(crate) struct MessageIds {
    /// In the place of a network address, so that no two producers share ids.
    node: u64,
    process: u16,
    sequence: u32,
}

/// 2021-01-01T00:00:00Z, from which the layout counts seconds.
const EPOCH_UNIX_SECONDS: u64 = 1_609_459_200;
/// Marks an address as not being one of hardware.
const LOCAL_ADDRESS: u64 = 0x02 << 40;

impl MessageIds {
    pub(crate) fn new(random: u64, process: u32) -> MessageIds {
        MessageIds { node: (random.swap_bytes() >> 16) | LOCAL_ADDRESS, process: process as u16, sequence: 0 }
    }

    /// Version 1: 34 hexadecimal characters of 01, node (6 bytes), process (2), seconds since 2021 (4), sequence (4).
    pub(crate) fn next(&mut self, now: Moment) -> String {
        let MessageIds { node, process, sequence } = *self;
        self.sequence = sequence.wrapping_add(1);
        let seconds = now.since_epoch().as_secs().saturating_sub(EPOCH_UNIX_SECONDS) as u32;
        format!("01{node:012X}{process:04X}{seconds:08X}{sequence:08X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_version_1_layout() {
        let mut ids =
            MessageIds::new(u64::from_le_bytes([0x00, 0x42, 0xac, 0x11, 0x00, 0x05, 0x77, 0x77]), 0x0001_2345);
        let now = Moment::from_unix_nanos((EPOCH_UNIX_SECONDS + 0x1a2b) * 1_000_000_000);
        assert_eq!(ids.next(now), "010242AC110005234500001A2B00000000");
        assert_eq!(ids.next(now), "010242AC110005234500001A2B00000001");
    }
}
