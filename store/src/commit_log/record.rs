//! The frame of a record, and the bodies of the kinds that the log itself understands.
//!
//! Layout, little endian, format 1:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of everything from byte 4 to the record's end |
//! | 4 | 4 | length of the whole record, this header included |
//! | 8 | 1 | kind, see [`RecordKind`] |
//! | 9 | 1 | flags: 1 = whoever does not know the kind may pass over the record |
//! | 10 | 2 | length of the extension fields |
//! | 12 | 4 | epoch of the leader that wrote it |
//! | 16 | 8 | log offset of the record itself: bytes that were moved or left over from before can never pass for it |
//! | 24 | 8 | store time, milliseconds since the Unix epoch |
//! | 32 | 4 | topic id, or 0 |
//! | 36 | 4 | queue id, or 0 |
//! | 40 | 8 | queue offset, or 0 |
//! | 48 | | extension fields, each: number 2, length 2, value. A reader passes over those that it does not know |
//! | | | body |
//!
//! | kind | body |
//! |---|---|
//! | 1 message | 4 bytes length of the head, head, message body |
//! | 2 delivery | see `delivery::record` |
//! | 3 dead letter | 4 bytes group id, 4 topic id, 4 queue id, 8 queue offset of the message that could not be consumed, then as a message. One record both adds the dead letter and finishes the original: no crash can separate the two |
//! | 4 batch | see [`BatchFrame`] |
//! | 5 topic removed | 4 bytes topic id. It was deleted: what came before of it is gone, groups' progress on it, too; its queue offsets go on |
//! | 6 group removed | 4 bytes group id. It was deleted: its progress is gone |
//! | 7 arrival | see `delivery::record`. May be passed over: what it says makes messages come back later, never sooner |
//!
//! **Damaged** is only what the checksum says is: it is looked at before anything else. A record whose checksum is right and
//! that is not understood is [`RecordError::Newer`], or [`RecordError::Malformed`] with a reason; neither is ever taken
//! for a write that was cut off.

use bytes::{Buf, Bytes};
use gantry_proto::model::{
    Epoch, GroupId, LogOffset, MalformedMessage, QueueId, QueueOffset, Removed, StoredMessage, Timestamp, TopicId,
    fnv1a,
};

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 48;

/// What a record is. The numbers are on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// A message in a queue.
    Message,
    /// A change of a group's progress.
    Delivery,
    /// A message that was given up by a group: in its dead-letter topic from here on.
    DeadLetter,
    /// The records that follow are all there or none of them is: see [`BatchFrame`].
    Batch,
    /// A topic was deleted.
    TopicRemoved,
    /// A consumer group was deleted.
    GroupRemoved,
    /// A change of a group's progress without which messages are only delivered again sooner.
    Arrival,
    /// Of a later version, which says that it may be passed over.
    Unknown(u8),
}

/// Whoever does not know the kind may pass over the record.
pub(crate) const FLAG_SKIP: u8 = 1;

/// Everything but the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub len: u32,
    pub kind: RecordKind,
    /// Bytes of extension fields between header and body.
    pub extensions_len: u16,
    pub epoch: Epoch,
    pub log_offset: LogOffset,
    pub store_time: Timestamp,
    pub topic: TopicId,
    pub queue: QueueId,
    pub queue_offset: QueueOffset,
}

/// The message that a dead letter was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub group: GroupId,
    pub topic: TopicId,
    pub queue: QueueId,
    pub queue_offset: QueueOffset,
}

/// Stands in front of the messages of one request that has several: recovery takes all of them or none.
///
/// Body: version 1, three zeros, number of records 4, their bytes 8. They follow it without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchFrame {
    pub count: u32,
    pub bytes: u64,
}

/// Why bytes are not a record, or not one that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// All zero: nothing was written here.
    #[error("nothing was written here")]
    Blank,
    /// The bytes end before the record does.
    #[error("the record is cut off")]
    CutOff,
    #[error("the checksum does not match")]
    Checksum,
    /// It is whole, but belongs elsewhere in the log, or to an epoch that was over: left over from before.
    #[error("a record of another place is left over here")]
    LeftOver,
    /// The disk does not give its bytes.
    #[error("the disk does not give the bytes")]
    Unreadable,
    /// Some of the records that a frame announces are not there.
    #[error("a batch is not all there")]
    PartOfBatch,
    /// It is whole and of a later version of this program.
    #[error("it was written by a newer Gantry: this one does not know {what} {number}")]
    Newer { what: &'static str, number: u8 },
    /// It is whole and does not make sense.
    #[error("it is whole, but {0}")]
    Malformed(&'static str),
}

impl RecordError {
    /// The checksum is right: whatever is wrong, it is not that the disk or a power failure changed it.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, RecordError::Newer { .. } | RecordError::Malformed(_))
    }
}

impl From<MalformedMessage> for RecordError {
    fn from(error: MalformedMessage) -> RecordError {
        match error {
            MalformedMessage::Newer { version, .. } => {
                RecordError::Newer { what: "message heads of version", number: version }
            }
            MalformedMessage::Damaged => RecordError::Malformed("its message's head cannot be read"),
            MalformedMessage::TooLarge(_) => RecordError::Malformed("its message's head is too large"),
        }
    }
}

impl RecordKind {
    fn from_number(number: u8) -> RecordKind {
        match number {
            1 => RecordKind::Message,
            2 => RecordKind::Delivery,
            3 => RecordKind::DeadLetter,
            4 => RecordKind::Batch,
            5 => RecordKind::TopicRemoved,
            6 => RecordKind::GroupRemoved,
            7 => RecordKind::Arrival,
            number => RecordKind::Unknown(number),
        }
    }

    fn number(self) -> u8 {
        match self {
            RecordKind::Message => 1,
            RecordKind::Delivery => 2,
            RecordKind::DeadLetter => 3,
            RecordKind::Batch => 4,
            RecordKind::TopicRemoved => 5,
            RecordKind::GroupRemoved => 6,
            RecordKind::Arrival => 7,
            RecordKind::Unknown(number) => number,
        }
    }

    /// It adds a message to a queue.
    pub(crate) fn is_message(self) -> bool {
        matches!(self, RecordKind::Message | RecordKind::DeadLetter)
    }
}

impl RecordHeader {
    /// Where the next record begins.
    pub(crate) fn end(&self) -> LogOffset {
        self.log_offset.plus(u64::from(self.len))
    }

    /// Where the body begins in the record.
    pub(crate) fn body_at(&self) -> usize {
        HEADER_LEN + usize::from(self.extensions_len)
    }

    /// The body of the whole record `bytes`, whose header this is.
    pub(crate) fn body<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.body_at()..).unwrap_or_default()
    }
}

/// How long the record at the front of `bytes` says that it is. Nothing has checked that yet.
pub(crate) fn claimed_len(bytes: &[u8]) -> Result<u32, RecordError> {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(if bytes.iter().all(|b| *b == 0) { RecordError::Blank } else { RecordError::CutOff });
    };
    let mut len = &header[4..8];
    match len.get_u32_le() {
        0 if header.iter().all(|b| *b == 0) => Err(RecordError::Blank),
        len if (len as usize) < HEADER_LEN => Err(RecordError::Checksum),
        len => Ok(len),
    }
}

/// What the header at the front of `bytes` says, if it looks like that of a record at `at`. Nothing has checked it: only for
/// saying what a damaged record may have been.
pub(crate) fn claimed_header(bytes: &[u8], at: LogOffset) -> Option<RecordHeader> {
    let len = claimed_len(bytes).ok()?;
    let header = parse_header(bytes.get(..HEADER_LEN)?, len);
    let known = !matches!(header.kind, RecordKind::Unknown(_));
    (known && header.log_offset == at).then_some(header)
}

fn parse_header(mut fields: &[u8], len: u32) -> RecordHeader {
    fields.advance(8);
    let (number, _flags, extensions_len) = (fields.get_u8(), fields.get_u8(), fields.get_u16_le());
    RecordHeader {
        len,
        kind: RecordKind::from_number(number),
        extensions_len,
        epoch: Epoch(fields.get_u32_le()),
        log_offset: LogOffset(fields.get_u64_le()),
        store_time: Timestamp::from_millis(fields.get_u64_le()),
        topic: TopicId(fields.get_u32_le()),
        queue: QueueId(fields.get_u32_le()),
        queue_offset: QueueOffset(fields.get_u64_le()),
    }
}

/// Reads the record at the front of `bytes`, which lie at `at` in the log. The checksum is looked at first.
pub(crate) fn parse_record(bytes: &[u8], at: LogOffset) -> Result<(RecordHeader, &[u8]), RecordError> {
    let len = claimed_len(bytes)?;
    let record = bytes.get(..len as usize).ok_or(RecordError::CutOff)?;
    let mut stored = record;
    if stored.get_u32_le() != crc32c::crc32c(&record[4..]) {
        return Err(RecordError::Checksum);
    }
    let (header, flags) = (parse_header(record, len), record[9]);
    if header.log_offset != at {
        return Err(RecordError::LeftOver);
    }
    match header.kind {
        RecordKind::Unknown(number) if flags & FLAG_SKIP == 0 => {
            return Err(RecordError::Newer { what: "records of kind", number });
        }
        RecordKind::Unknown(_) => {}
        _ if flags & !FLAG_SKIP != 0 => return Err(RecordError::Newer { what: "the record flags", number: flags }),
        _ => {}
    }
    if header.body_at() > record.len() {
        return Err(RecordError::Malformed("its extension fields are longer than it is"));
    }
    Ok((header, header.body(record)))
}

/// Appends a record to `out`. `body` writes the extension fields, as long as the header says, and the body; the header's
/// `len` is set here and returned.
pub(crate) fn write_record(out: &mut Vec<u8>, header: &RecordHeader, body: impl FnOnce(&mut Vec<u8>)) -> u32 {
    let start = out.len();
    let mut fixed = [0u8; HEADER_LEN];
    fixed[8] = header.kind.number();
    if matches!(header.kind, RecordKind::Arrival | RecordKind::Unknown(_)) {
        fixed[9] = FLAG_SKIP;
    }
    fixed[10..12].copy_from_slice(&header.extensions_len.to_le_bytes());
    fixed[12..16].copy_from_slice(&header.epoch.0.to_le_bytes());
    fixed[16..24].copy_from_slice(&header.log_offset.0.to_le_bytes());
    fixed[24..32].copy_from_slice(&header.store_time.as_millis().to_le_bytes());
    fixed[32..36].copy_from_slice(&header.topic.0.to_le_bytes());
    fixed[36..40].copy_from_slice(&header.queue.0.to_le_bytes());
    fixed[40..48].copy_from_slice(&header.queue_offset.0.to_le_bytes());
    out.extend_from_slice(&fixed);
    body(out);
    let len = (out.len() - start) as u32;
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    len
}

/// No record of a message is shorter.
pub(crate) const MESSAGE_RECORD_LEN_MIN: usize = HEADER_LEN + 4;

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
        let mut fields = body.get(..ORIGIN_LEN).ok_or(RecordError::Malformed("its origin is cut off"))?;
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

impl BatchFrame {
    /// Bytes of its record.
    pub(crate) const RECORD_LEN: usize = HEADER_LEN + 16;

    /// Writes it as a record's body.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[BATCH_VERSION, 0, 0, 0]);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }

    /// Reads it from a record's body.
    pub(crate) fn parse(body: &[u8]) -> Result<BatchFrame, RecordError> {
        let version = body.first().copied().unwrap_or_default();
        if version > BATCH_VERSION {
            return Err(RecordError::Newer { what: "batches of version", number: version });
        }
        let mut fields = body.get(4..16).ok_or(RecordError::Malformed("its batch frame is cut off"))?;
        Ok(BatchFrame { count: fields.get_u32_le(), bytes: fields.get_u64_le() })
    }
}

const BATCH_VERSION: u8 = 1;

/// The id of the topic or the group as the body of a record that says that it was deleted.
pub(crate) fn removed_body(removed: Removed) -> (RecordKind, [u8; 4]) {
    match removed {
        Removed::Topic(topic) => (RecordKind::TopicRemoved, topic.0.to_le_bytes()),
        Removed::Group(group) => (RecordKind::GroupRemoved, group.0.to_le_bytes()),
    }
}

/// Reads the body of a record of one of these two kinds.
pub(crate) fn parse_removed(kind: RecordKind, body: &[u8]) -> Result<Removed, RecordError> {
    let id = body.first_chunk().ok_or(RecordError::Malformed("the id in it is cut off"))?;
    let id = u32::from_le_bytes(*id);
    match kind {
        RecordKind::TopicRemoved => Ok(Removed::Topic(TopicId(id))),
        RecordKind::GroupRemoved => Ok(Removed::Group(GroupId(id))),
        _ => Err(RecordError::Malformed("it removes nothing")),
    }
}

impl MessageSpan {
    /// Finds the message in a whole record that adds one.
    pub(crate) fn find(header: &RecordHeader, record: &[u8]) -> Result<MessageSpan, RecordError> {
        let len_at = match header.kind {
            RecordKind::Message => header.body_at(),
            RecordKind::DeadLetter => header.body_at() + ORIGIN_LEN,
            _ => return Err(RecordError::Malformed("it holds no message")),
        };
        let cut_off = RecordError::Malformed("its message is cut off");
        let mut len = record.get(len_at..len_at + 4).ok_or(cut_off)?;
        let head_at = len_at + 4;
        let body_at = head_at + len.get_u32_le() as usize;
        if body_at > record.len() {
            return Err(cut_off);
        }
        Ok(MessageSpan { head_at, body_at })
    }

    pub(crate) fn head<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[self.head_at..self.body_at]
    }

    pub(crate) fn body<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[self.body_at..]
    }

    /// Head and body, sharing memory with the record.
    pub(crate) fn message(&self, record: &Bytes) -> StoredMessage {
        StoredMessage { head: record.slice(self.head_at..self.body_at), body: record.slice(self.body_at..) }
    }
}

/// The hash under which a message id or a key is found. FNV-1a over the topic id and the text; it is on disk.
pub(crate) fn key_hash(topic: TopicId, text: &str) -> u64 {
    fnv1a(topic.0.to_le_bytes().into_iter().chain(text.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: RecordKind, log_offset: u64) -> RecordHeader {
        RecordHeader {
            len: 0,
            kind,
            extensions_len: 0,
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
            extensions in proptest::collection::vec(any::<u8>(), 0..50),
            at in 0u64..1 << 50,
        ) {
            let message = StoredMessage { head: head.into(), body: body.into() };
            let origin =
                Origin { group: GroupId(1), topic: TopicId(2), queue: QueueId(3), queue_offset: QueueOffset(4) };
            let mut out = Vec::new();
            let written = RecordHeader { extensions_len: extensions.len() as u16, ..header(RecordKind::DeadLetter, at) };
            let len = write_record(&mut out, &written, |out| {
                out.extend_from_slice(&extensions);
                origin.write(out);
                write_message(out, &message);
            });
            prop_assert_eq!(len as usize, dead_letter_record_len(&message) + extensions.len());
            let (parsed, body) = parse_record(&out, LogOffset(at)).unwrap();
            prop_assert_eq!(parsed, RecordHeader { len, ..written });
            prop_assert_eq!(Origin::parse(body), Ok(origin));
            let record = Bytes::from(out);
            let span = MessageSpan::find(&parsed, &record).unwrap();
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
            let _ = MessageSpan::find(&header(RecordKind::DeadLetter, 0), &bytes);
            let _ = BatchFrame::parse(&bytes);
        }
    }

    #[test]
    fn a_record_at_another_place_is_not_accepted() {
        let mut out = Vec::new();
        write_record(&mut out, &header(RecordKind::Delivery, 64), |out| out.extend_from_slice(&[0; 8]));
        assert!(parse_record(&out, LogOffset(64)).is_ok());
        assert_eq!(parse_record(&out, LogOffset(65)).map(|_| ()), Err(RecordError::LeftOver));
    }

    #[test]
    fn what_was_removed_reads_back_and_its_numbers_never_change() {
        for (removed, number) in [(Removed::Topic(TopicId(258)), 5), (Removed::Group(GroupId(258)), 6)] {
            let (kind, body) = removed_body(removed);
            assert_eq!((kind.number(), body), (number, [2, 1, 0, 0]));
            assert_eq!(RecordKind::from_number(number), kind);
            assert_eq!(parse_removed(kind, &body), Ok(removed));
            assert!(matches!(parse_removed(kind, &body[1..]), Err(RecordError::Malformed(_))));
        }
    }

    /// Changes one byte of a record and makes the checksum right again.
    fn changed(kind: RecordKind, place: usize, value: u8) -> Vec<u8> {
        let mut out = Vec::new();
        write_record(&mut out, &header(kind, 0), |out| out.extend_from_slice(&[0; 8]));
        out[place] = value;
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    #[test]
    fn what_is_whole_and_not_understood_is_newer_unless_it_may_be_passed_over() {
        let parse = |bytes: &[u8]| parse_record(bytes, LogOffset(0)).map(|(header, _)| header.kind);
        let newer = |what, number| Err(RecordError::Newer { what, number });
        assert_eq!(parse(&changed(RecordKind::Delivery, 8, 99)), newer("records of kind", 99));
        assert_eq!(parse(&changed(RecordKind::Delivery, 9, 0x40)), newer("the record flags", 0x40));
        assert_eq!(parse(&changed(RecordKind::Unknown(99), 9, FLAG_SKIP)), Ok(RecordKind::Unknown(99)));
        let too_long = parse(&changed(RecordKind::Delivery, 10, 9));
        assert!(matches!(too_long, Err(RecordError::Malformed(_))), "{too_long:?}");
        // Without the right checksum nobody says that it is newer.
        let mut damaged = changed(RecordKind::Delivery, 8, 99);
        damaged[8] = 98;
        assert_eq!(parse(&damaged), Err(RecordError::Checksum));
        assert_eq!(BatchFrame::parse(&[2; 16]), Err(RecordError::Newer { what: "batches of version", number: 2 }));
    }
}
