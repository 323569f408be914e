//! Receipt handles: which delivery a consumer holds, sealed with the secret of the store group, so that any replica opens them.
//!
//! A handle stays the same while its lease is renewed or changed, and any proxy can pass it on. It names the lease (the
//! log offset of the record that delivered), so that it can never finish a newer delivery of the same message.
//!
//! Text: the store group as [`ReceiptHandle::new`] writes it, and a token: URL-safe base64 without padding of, little
//! endian: version 1, group id 4, topic id 4, queue id 4, queue offset 8, lease 8, epoch of the lease 4, end of the lease as
//! promised at delivery 8 (milliseconds since the Unix epoch), and the first 16 bytes of HMAC-SHA-256 over all before. Each
//! store group has a secret of its own, so a handle that is sent to another group does not open there.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Buf;
use gantry_proto::model::{
    Epoch, GroupId, GroupSecret, LogOffset, QueueId, QueueOffset, ReceiptHandle, StoreGroupId, Timestamp, TopicId,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The delivery that a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub group: GroupId,
    pub topic: TopicId,
    pub queue: QueueId,
    pub queue_offset: QueueOffset,
    /// Log offset of the record that delivered.
    pub lease: LogOffset,
    /// The leadership in which it was delivered: a log offset means a delivery only together with it, for what was never
    /// confirmed may be cut off, and written over by another epoch.
    pub epoch: Epoch,
    /// When the lease would end if nothing changed it.
    pub promised_until: Timestamp,
}

/// Seals and opens handles.
#[derive(Clone)]
pub(crate) struct ReceiptSealer {
    store_group: StoreGroupId,
    mac: Hmac<Sha256>,
}

const VERSION: u8 = 1;
const PLAIN_LEN: usize = 41;
const TAG_LEN: usize = 16;
/// Characters of a token: four for every three bytes, without padding.
const TEXT_LEN: usize = ((PLAIN_LEN + TAG_LEN) * 4).div_ceil(3);

impl ReceiptSealer {
    pub(crate) fn new(store_group: StoreGroupId, secret: &GroupSecret) -> ReceiptSealer {
        ReceiptSealer { store_group, mac: Hmac::new_from_slice(&secret.0).expect("HMAC takes keys of any length") }
    }

    pub(crate) fn seal(&self, receipt: &Receipt) -> ReceiptHandle {
        let mut token = [0u8; PLAIN_LEN + TAG_LEN];
        token[0] = VERSION;
        token[1..5].copy_from_slice(&receipt.group.0.to_le_bytes());
        token[5..9].copy_from_slice(&receipt.topic.0.to_le_bytes());
        token[9..13].copy_from_slice(&receipt.queue.0.to_le_bytes());
        token[13..21].copy_from_slice(&receipt.queue_offset.0.to_le_bytes());
        token[21..29].copy_from_slice(&receipt.lease.0.to_le_bytes());
        token[29..33].copy_from_slice(&receipt.epoch.0.to_le_bytes());
        token[33..41].copy_from_slice(&receipt.promised_until.as_millis().to_le_bytes());
        let tag = self.tag(&token[..PLAIN_LEN]).finalize().into_bytes();
        token[PLAIN_LEN..].copy_from_slice(&tag[..TAG_LEN]);
        let mut text = [0; TEXT_LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(token, &mut text).expect("the text is as long as it must be");
        let text = std::str::from_utf8(&text[..written]).expect("base64 is ASCII");
        ReceiptHandle::new(self.store_group, text)
    }

    /// What a handle says, or `None` if it is not one of ours.
    pub(crate) fn open(&self, handle: &ReceiptHandle) -> Option<Receipt> {
        let (_, text) = handle.parse().filter(|(group, _)| *group == self.store_group)?;
        let token = URL_SAFE_NO_PAD.decode(text).ok()?;
        if token.len() != PLAIN_LEN + TAG_LEN || token[0] != VERSION {
            return None;
        }
        let (plain, tag) = token.split_at(PLAIN_LEN);
        self.tag(plain).verify_truncated_left(tag).ok()?;
        let mut fields = &plain[1..];
        Some(Receipt {
            group: GroupId(fields.get_u32_le()),
            topic: TopicId(fields.get_u32_le()),
            queue: QueueId(fields.get_u32_le()),
            queue_offset: QueueOffset(fields.get_u64_le()),
            lease: LogOffset(fields.get_u64_le()),
            epoch: Epoch(fields.get_u32_le()),
            promised_until: Timestamp::from_millis(fields.get_u64_le()),
        })
    }

    fn tag(&self, plain: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(plain);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_handle_opens_to_what_was_sealed_and_only_unchanged(
            group: u32, topic: u32, queue: u32, queue_offset: u64, lease: u64, epoch: u32, promised_until: u64, byte in 0usize..70,
        ) {
            let receipt = Receipt {
                group: GroupId(group),
                topic: TopicId(topic),
                queue: QueueId(queue),
                queue_offset: QueueOffset(queue_offset),
                lease: LogOffset(lease),
                epoch: Epoch(epoch),
                promised_until: Timestamp::from_millis(promised_until),
            };
            let sealer = ReceiptSealer::new(StoreGroupId(3), &GroupSecret([7; 32]));
            let handle = sealer.seal(&receipt);
            prop_assert_eq!(sealer.open(&handle), Some(receipt));
            prop_assert_eq!(ReceiptSealer::new(StoreGroupId(3), &GroupSecret([8; 32])).open(&handle), None);
            prop_assert_eq!(ReceiptSealer::new(StoreGroupId(4), &GroupSecret([7; 32])).open(&handle), None);

            prop_assert_eq!(handle.parse().map(|(group, _)| group), Some(StoreGroupId(3)));
            let mut changed = handle.0.into_bytes();
            changed[byte] = if changed[byte] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(sealer.open(&ReceiptHandle(changed)), None);
        }

        #[test]
        fn arbitrary_text_is_not_a_handle(text in ".{0,100}") {
            prop_assert_eq!(ReceiptSealer::new(StoreGroupId(3), &GroupSecret([7; 32])).open(&ReceiptHandle(text)), None);
        }
    }
}
