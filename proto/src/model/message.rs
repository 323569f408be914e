//! A message as it is kept: what the store must understand (identity, tag, keys, group) in the open, everything else
//! already encoded for delivery. The store never parses the encoded parts; the proxy never rebuilds them.
//!
//! Layout of a head, little endian, version 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 1 | flags: 1 tag, 2 message group, 4 dead-letter origin |
//! | 2 | number of keys |
//! | 4 | length of the encoded system properties |
//! | 4 | length of the encoded user properties |
//! | 4 | length of the extension fields |
//! | 2 + n | message id; then, as the flags say, tag, message group, origin topic, origin message id; then each key |
//! | n | system properties: encoded fields of `SystemProperties`, without those that are in the open or set at delivery |
//! | n | user properties: encoded `user_properties` entries of `Message` |
//! | n | extension fields of later versions, each: number 2, length 2, value. Whoever does not know them passes them on |
//!
//! A version that a reader must understand has a larger version number or a flag that this one does not know: either is
//! [`MalformedMessage::Newer`], and nothing else is.

use super::limits::HEAD_BYTES_MAX;
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// A message as the log keeps it and consumers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Encoded [`MessageHead`].
    pub head: Bytes,
    /// The body exactly as the producer sent it.
    pub body: Bytes,
}

/// A parsed head. Borrows from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageHead<'a> {
    /// The producer's id, verbatim. Not unique.
    pub message_id: &'a str,
    /// Tag, if any. Never empty.
    pub tag: Option<&'a str>,
    /// Keys in the order given.
    pub keys: SmallVec<[&'a str; 4]>,
    /// Ordering key, if any. Never empty.
    pub message_group: Option<&'a str>,
    /// Where a dead letter came from.
    pub dead_letter_origin: Option<DeadLetterOrigin<'a>>,
    /// Encoded system properties that never change, to be joined inside the one `system_properties` field.
    pub system_properties: &'a [u8],
    /// Encoded user properties.
    pub user_properties: &'a [u8],
    /// Fields that a later version added, as they are.
    pub extensions: &'a [u8],
}

/// Where a dead letter came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterOrigin<'a> {
    /// The topic on which it could not be consumed.
    pub topic: &'a str,
    /// Its message id there.
    pub message_id: &'a str,
}

/// Bytes that are not a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedMessage {
    /// Written by something newer than this program.
    #[error("the message's head is of a newer Gantry (version {version}, flags {flags:#04x})")]
    Newer { version: u8, flags: u8 },
    /// A length points past the end, or text is not UTF-8.
    #[error("the message's head is damaged")]
    Damaged,
    /// Too much of everything but the body.
    #[error("the message's properties take {0} bytes, at most {HEAD_BYTES_MAX} are allowed")]
    TooLarge(usize),
}

const VERSION: u8 = 1;
const FLAG_TAG: u8 = 1;
const FLAG_GROUP: u8 = 2;
const FLAG_ORIGIN: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_TAG | FLAG_GROUP | FLAG_ORIGIN;
const FIXED_LEN: usize = 16;

impl StoredMessage {
    /// Encodes a head and joins it with its body.
    pub fn new(head: &MessageHead<'_>, body: Bytes) -> Result<StoredMessage, MalformedMessage> {
        Ok(StoredMessage { head: head.encode()?, body })
    }

    /// What is in the open.
    pub fn parse_head(&self) -> Result<MessageHead<'_>, MalformedMessage> {
        MessageHead::parse(&self.head)
    }

    /// The same message as a dead letter: origin noted, everything else kept.
    pub fn into_dead_letter(self, origin_topic: &str) -> Result<StoredMessage, MalformedMessage> {
        let mut head = MessageHead::parse(&self.head)?;
        head.dead_letter_origin = Some(DeadLetterOrigin { topic: origin_topic, message_id: head.message_id });
        let head = head.encode()?;
        Ok(StoredMessage { head, body: self.body })
    }

    /// Bytes of head and body.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Never true: a head has a fixed part.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> MessageHead<'a> {
    /// Writes the layout of this module's header.
    pub fn encode(&self) -> Result<Bytes, MalformedMessage> {
        let texts = [Some(self.message_id), self.tag, self.message_group]
            .into_iter()
            .chain(self.dead_letter_origin.iter().flat_map(|o| [Some(o.topic), Some(o.message_id)]))
            .flatten()
            .chain(self.keys.iter().copied());
        let len = FIXED_LEN
            + texts.clone().map(|text| 2 + text.len()).sum::<usize>()
            + self.system_properties.len()
            + self.user_properties.len()
            + self.extensions.len();
        if len > HEAD_BYTES_MAX {
            return Err(MalformedMessage::TooLarge(len));
        }
        let mut flags = 0;
        for (flag, set) in [
            (FLAG_TAG, self.tag.is_some()),
            (FLAG_GROUP, self.message_group.is_some()),
            (FLAG_ORIGIN, self.dead_letter_origin.is_some()),
        ] {
            if set {
                flags |= flag;
            }
        }
        let mut out = BytesMut::with_capacity(len);
        out.put_u8(VERSION);
        out.put_u8(flags);
        out.put_u16_le(self.keys.len() as u16);
        out.put_u32_le(self.system_properties.len() as u32);
        out.put_u32_le(self.user_properties.len() as u32);
        out.put_u32_le(self.extensions.len() as u32);
        for text in texts {
            let text_len = u16::try_from(text.len()).map_err(|_| MalformedMessage::TooLarge(len))?;
            out.put_u16_le(text_len);
            out.put_slice(text.as_bytes());
        }
        out.put_slice(self.system_properties);
        out.put_slice(self.user_properties);
        out.put_slice(self.extensions);
        Ok(out.freeze())
    }

    /// Reads the layout of this module's header.
    pub fn parse(bytes: &'a [u8]) -> Result<MessageHead<'a>, MalformedMessage> {
        let mut rest = bytes;
        let fixed = take(&mut rest, FIXED_LEN)?;
        let (version, flags) = (fixed[0], fixed[1]);
        if version > VERSION || (version == VERSION && flags & !FLAGS_KNOWN != 0) {
            return Err(MalformedMessage::Newer { version, flags });
        }
        if version != VERSION {
            return Err(MalformedMessage::Damaged);
        }
        let key_count = u16::from_le_bytes([fixed[2], fixed[3]]);
        let system_len = u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) as usize;
        let user_len = u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]) as usize;
        let extensions_len = u32::from_le_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]) as usize;
        let message_id = take_text(&mut rest)?;
        let tag = if flags & FLAG_TAG != 0 { Some(take_text(&mut rest)?) } else { None };
        let message_group = if flags & FLAG_GROUP != 0 { Some(take_text(&mut rest)?) } else { None };
        let dead_letter_origin = if flags & FLAG_ORIGIN != 0 {
            Some(DeadLetterOrigin { topic: take_text(&mut rest)?, message_id: take_text(&mut rest)? })
        } else {
            None
        };
        let mut keys = SmallVec::new();
        for _ in 0..key_count {
            keys.push(take_text(&mut rest)?);
        }
        let system_properties = take(&mut rest, system_len)?;
        let user_properties = take(&mut rest, user_len)?;
        let extensions = take(&mut rest, extensions_len)?;
        if !rest.is_empty() {
            return Err(MalformedMessage::Damaged);
        }
        Ok(MessageHead {
            message_id,
            tag,
            keys,
            message_group,
            dead_letter_origin,
            system_properties,
            user_properties,
            extensions,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], MalformedMessage> {
    let (taken, left) = rest.split_at_checked(len).ok_or(MalformedMessage::Damaged)?;
    *rest = left;
    Ok(taken)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, MalformedMessage> {
    let len = take(rest, 2)?;
    let text = take(rest, usize::from(u16::from_le_bytes([len[0], len[1]])))?;
    std::str::from_utf8(text).map_err(|_| MalformedMessage::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_reads_back_as_it_was_written(
            message_id in ".{1,40}",
            tag in proptest::option::of("[a-z]{1,9}"),
            keys in proptest::collection::vec(".{0,12}", 0..6),
            message_group in proptest::option::of(".{1,20}"),
            origin in proptest::option::of(("[a-z]{1,9}", ".{1,40}")),
            system_properties in proptest::collection::vec(any::<u8>(), 0..200),
            user_properties in proptest::collection::vec(any::<u8>(), 0..200),
            extensions in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            // Declared first: the parsed head borrows from it and is compared with `head`.
            let bytes;
            let head = MessageHead {
                message_id: &message_id,
                tag: tag.as_deref(),
                keys: keys.iter().map(String::as_str).collect(),
                message_group: message_group.as_deref(),
                dead_letter_origin: origin.as_ref().map(|(topic, id)| DeadLetterOrigin { topic, message_id: id }),
                system_properties: &system_properties,
                user_properties: &user_properties,
                extensions: &extensions,
            };
            bytes = head.encode().unwrap();
            let parsed = MessageHead::parse(&bytes);
            prop_assert_eq!(parsed.as_ref(), Ok(&head));
        }

        #[test]
        fn damaged_heads_are_errors_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = MessageHead::parse(&bytes);
        }
    }

    #[test]
    fn a_dead_letter_keeps_everything_and_names_its_origin() {
        let letter;
        let head = MessageHead {
            message_id: "id-1",
            tag: Some("t"),
            keys: SmallVec::from_slice(&["k"]),
            message_group: None,
            dead_letter_origin: None,
            system_properties: b"sys",
            user_properties: b"user",
            extensions: b"later",
        };
        let message = StoredMessage::new(&head, Bytes::from_static(b"body")).unwrap();
        letter = message.into_dead_letter("orders").unwrap();
        let origin = DeadLetterOrigin { topic: "orders", message_id: "id-1" };
        let parsed = letter.parse_head().unwrap();
        assert_eq!(parsed, MessageHead { dead_letter_origin: Some(origin), ..head });
        assert_eq!(letter.body, "body");
    }

    #[test]
    fn a_newer_head_is_told_from_a_damaged_one() {
        let head = MessageHead {
            message_id: "id",
            tag: None,
            keys: SmallVec::new(),
            message_group: None,
            dead_letter_origin: None,
            system_properties: b"",
            user_properties: b"",
            extensions: b"",
        };
        let with = |place: usize, value: u8| {
            let mut bytes = head.encode().unwrap().to_vec();
            bytes[place] = value;
            MessageHead::parse(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 2), MalformedMessage::Newer { version: 2, flags: 0 });
        assert_eq!(with(1, 0x80), MalformedMessage::Newer { version: 1, flags: 0x80 });
        assert_eq!(with(0, 0), MalformedMessage::Damaged);
        assert_eq!(with(2, 9), MalformedMessage::Damaged, "more keys than there are");
    }
}
