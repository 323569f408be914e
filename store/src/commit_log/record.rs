//! The frame of a record, and the body of a message record.
//!
//! Layout, little endian, format 1:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | length of the whole record, this header included |
//! | 4 | 4 | CRC-32C of everything from byte 8 to the record's end |
//! | 8 | 1 | kind, see [`RecordKind`] |
//! | 9 | 3 | zero |
//! | 12 | 4 | epoch of the leader that wrote it |
//! | 16 | 8 | log offset of the record itself: bytes that were moved or left over from before can never pass for it |
//! | 24 | 8 | store time, milliseconds since the Unix epoch |
//! | 32 | 4 | topic id, or 0 |
//! | 36 | 4 | queue id, or 0 |
//! | 40 | 8 | queue offset, or 0 |
//! | 48 | | body |
//!
//! Body of [`RecordKind::Message`]: 4 bytes length of the head, head, message body.
//! Body of [`RecordKind::DeadLetter`]: 4 bytes group id, 4 topic id, 4 queue id, 8 queue offset of the message that could
//! not be consumed, then as a message. One record both adds the dead letter and finishes the original: no crash can
//! separate the two.
//! Body of [`RecordKind::Delivery`]: see `delivery::record`.
//! Body of [`RecordKind::Mark`]: 8 bytes `flushed_to` at the time of writing, see [`super::recovery`].

use bytes::{Buf, Bytes};
use gantry_proto::model::{Epoch, GroupId, LogOffset, QueueId, QueueOffset, StoredMessage, Timestamp, TopicId};

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 48;

/// What a record is. The numbers are on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// A message in a queue.
    Message = 1,
    /// A change of a group's progress.
    Delivery = 2,
    /// A message that was given up by a group: in its dead-letter topic from here on.
    DeadLetter = 3,
    /// How far the log was known to be on disk.
    Mark = 4,
}

/// Everything but the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub len: u32,
    pub kind: RecordKind,
    pub epoch: Epoch,
    pub log_offset: LogOffset,
    pub store_time: Timestamp,
    pub topic: TopicId,
    pub queue: QueueId,
    pub queue_offset: QueueOffset,
}

/// The message that a dead letter was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub group: GroupId,
    pub topic: TopicId,
    pub queue: QueueId,
    pub queue_offset: QueueOffset,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// All zero: nothing was written here.
    #[error("nothing was written here")]
    Blank,
    /// The bytes end before the record does.
    #[error("the record is cut off")]
    CutOff,
    /// The checksum differs.
    #[error("the checksum does not match")]
    Checksum,
    /// A field says something impossible.
    #[error("the header is damaged")]
    Header,
    /// Another message than expected.
    #[error("another record was found")]
    Other,
}

impl RecordHeader {
    /// Reads a header. `at` is where the bytes begin in the log.
    pub(crate) fn parse(bytes: &[u8], at: LogOffset) -> Result<RecordHeader, RecordError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(if bytes.iter().all(|b| *b == 0) { RecordError::Blank } else { RecordError::CutOff });
        };
        let mut fields = &header[..];
        let len = fields.get_u32_le();
        if len == 0 && header.iter().all(|b| *b == 0) {
            return Err(RecordError::Blank);
        }
        fields.advance(4);
        let kind = match fields.get_u8() {
            1 => RecordKind::Message,
            2 => RecordKind::Delivery,
            3 => RecordKind::DeadLetter,
            4 => RecordKind::Mark,
            _ => return Err(RecordError::Header),
        };
        fields.advance(3);
        let epoch = Epoch(fields.get_u32_le());
        let log_offset = LogOffset(fields.get_u64_le());
        if (len as usize) < HEADER_LEN || log_offset != at {
            return Err(RecordError::Header);
        }
        Ok(RecordHeader {
            len,
            kind,
            epoch,
            log_offset,
            store_time: Timestamp::from_millis(fields.get_u64_le()),
            topic: TopicId(fields.get_u32_le()),
            queue: QueueId(fields.get_u32_le()),
            queue_offset: QueueOffset(fields.get_u64_le()),
        })
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> LogOffset {
        self.log_offset.plus(u64::from(self.len))
    }
}

/// Reads the record at the front of `bytes` and checks its checksum.
pub(crate) fn parse_record(bytes: &[u8], at: LogOffset) -> Result<(RecordHeader, &[u8]), RecordError> {
    let header = RecordHeader::parse(bytes, at)?;
    let record = bytes.get(..header.len as usize).ok_or(RecordError::CutOff)?;
    let stored = u32::from_le_bytes([record[4], record[5], record[6], record[7]]);
    if crc32c::crc32c(&record[8..]) != stored {
        return Err(RecordError::Checksum);
    }
    Ok((header, &record[HEADER_LEN..]))
}

/// Appends a record to `out`. `body` writes the body; the header's `len` is set here and returned.
pub(crate) fn write_record(out: &mut Vec<u8>, header: &RecordHeader, body: impl FnOnce(&mut Vec<u8>)) -> u32 {
    let start = out.len();
    let mut fixed = [0u8; HEADER_LEN];
    fixed[8] = header.kind as u8;
    fixed[12..16].copy_from_slice(&header.epoch.0.to_le_bytes());
    fixed[16..24].copy_from_slice(&header.log_offset.0.to_le_bytes());
    fixed[24..32].copy_from_slice(&header.store_time.as_millis().to_le_bytes());
    fixed[32..36].copy_from_slice(&header.topic.0.to_le_bytes());
    fixed[36..40].copy_from_slice(&header.queue.0.to_le_bytes());
    fixed[40..48].copy_from_slice(&header.queue_offset.0.to_le_bytes());
    out.extend_from_slice(&fixed);
    body(out);
    let len = (out.len() - start) as u32;
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    len
}

/// Bytes of a message's record, so that room can be checked before anything is written.
pub(crate) fn message_record_len(message: &StoredMessage) -> usize {
    HEADER_LEN + 4 + message.len()
}

/// Bytes of a dead letter's record.
pub(crate) fn dead_letter_record_len(message: &StoredMessage) -> usize {
    message_record_len(message) + ORIGIN_LEN
}

/// Bytes of a record with that body.
pub(crate) fn record_len(body: &[u8]) -> usize {
    HEADER_LEN + body.len()
}

/// Writes a message as a record's body.
pub(crate) fn write_message(out: &mut Vec<u8>, message: &StoredMessage) {
    out.extend_from_slice(&(message.head.len() as u32).to_le_bytes());
    out.extend_from_slice(&message.head);
    out.extend_from_slice(&message.body);
}

const ORIGIN_LEN: usize = 20;

impl Origin {
    /// Writes the origin in front of a dead letter's message.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.0.to_le_bytes());
        out.extend_from_slice(&self.topic.0.to_le_bytes());
        out.extend_from_slice(&self.queue.0.to_le_bytes());
        out.extend_from_slice(&self.queue_offset.0.to_le_bytes());
    }

    /// Reads the origin from a dead letter's body.
    pub(crate) fn parse(body: &[u8]) -> Result<Origin, RecordError> {
        let mut fields = body.get(..ORIGIN_LEN).ok_or(RecordError::Header)?;
        Ok(Origin {
            group: GroupId(fields.get_u32_le()),
            topic: TopicId(fields.get_u32_le()),
            queue: QueueId(fields.get_u32_le()),
            queue_offset: QueueOffset(fields.get_u64_le()),
        })
    }
}

/// Where head and body of a message lie in its record, header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageSpan {
    head_at: usize,
    body_at: usize,
}

impl MessageSpan {
    /// Finds the message in a whole record of kind message or dead letter.
    pub(crate) fn find(kind: RecordKind, record: &[u8]) -> Result<MessageSpan, RecordError> {
        let len_at = match kind {
            RecordKind::Message => HEADER_LEN,
            RecordKind::DeadLetter => HEADER_LEN + ORIGIN_LEN,
            RecordKind::Delivery | RecordKind::Mark => return Err(RecordError::Other),
        };
        let mut len = record.get(len_at..len_at + 4).ok_or(RecordError::Header)?;
        let head_at = len_at + 4;
        let body_at = head_at + len.get_u32_le() as usize;
        if body_at > record.len() {
            return Err(RecordError::Header);
        }
        Ok(MessageSpan { head_at, body_at })
    }

    /// The head's bytes.
    pub(crate) fn head<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[self.head_at..self.body_at]
    }

    /// Head and body, sharing memory with the record.
    pub(crate) fn message(&self, record: &Bytes) -> StoredMessage {
        StoredMessage { head: record.slice(self.head_at..self.body_at), body: record.slice(self.body_at..) }
    }
}

/// The hash under which a message id or a key is found. FNV-1a over the topic id and the text; it is on disk.
pub(crate) fn key_hash(topic: TopicId, text: &str) -> u64 {
    let bytes = topic.0.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: RecordKind, log_offset: u64) -> RecordHeader {
        RecordHeader {
            len: 0,
            kind,
            epoch: Epoch(3),
            log_offset: LogOffset(log_offset),
            store_time: Timestamp::from_millis(1_700_000_000_000),
            topic: TopicId(7),
            queue: QueueId(2),
            queue_offset: QueueOffset(99),
        }
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(
            head in proptest::collection::vec(any::<u8>(), 0..200),
            body in proptest::collection::vec(any::<u8>(), 0..2000),
            at in 0u64..1 << 50,
        ) {
            let message = StoredMessage { head: head.into(), body: body.into() };
            let origin =
                Origin { group: GroupId(1), topic: TopicId(2), queue: QueueId(3), queue_offset: QueueOffset(4) };
            let mut out = Vec::new();
            let len = write_record(&mut out, &header(RecordKind::DeadLetter, at), |out| {
                origin.write(out);
                write_message(out, &message);
            });
            prop_assert_eq!(len as usize, dead_letter_record_len(&message));
            let (parsed, body) = parse_record(&out, LogOffset(at)).unwrap();
            prop_assert_eq!(parsed, RecordHeader { len, ..header(RecordKind::DeadLetter, at) });
            prop_assert_eq!(Origin::parse(body), Ok(origin));
            let record = Bytes::from(out);
            let span = MessageSpan::find(parsed.kind, &record).unwrap();
            prop_assert_eq!(span.message(&record), message);
        }

        #[test]
        fn one_changed_bit_is_noticed(bit in 0usize..8 * 120) {
            let mut out = Vec::new();
            write_record(&mut out, &header(RecordKind::Delivery, 5), |out| out.extend_from_slice(&[1; 72]));
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(parse_record(&out, LogOffset(5)).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_record(&bytes, LogOffset(0));
            let _ = MessageSpan::find(RecordKind::DeadLetter, &bytes);
        }
    }

    #[test]
    fn a_record_at_another_place_is_not_accepted() {
        let mut out = Vec::new();
        write_record(&mut out, &header(RecordKind::Mark, 64), |out| out.extend_from_slice(&[0; 8]));
        assert!(parse_record(&out, LogOffset(64)).is_ok());
        assert_eq!(parse_record(&out, LogOffset(65)).map(|_| ()), Err(RecordError::Header));
    }
}
