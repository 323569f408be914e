//! The primitives that every record is made of.

use super::CodecError;
use std::time::Duration;

/// Reads fields from the front of bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CodecError::Damaged("a record ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A version byte: at most `known`, and never 0, so that zeroed bytes are not taken for a record.
    pub(crate) fn version(&mut self, known: u8) -> Result<u8, CodecError> {
        match self.u8()? {
            0 => Err(CodecError::Damaged("a record has version 0")),
            found if found > known => Err(CodecError::Newer { found, known }),
            found => Ok(found),
        }
    }

    pub(crate) fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Damaged("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, CodecError> {
        let len = self.u16()?;
        std::str::from_utf8(self.take(len.into())?).map_err(|_| CodecError::Damaged("a text is not UTF-8"))
    }

    pub(crate) fn duration(&mut self) -> Result<Duration, CodecError> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        if nanos >= 1_000_000_000 {
            return Err(CodecError::Damaged("a duration's fraction is a second or more"));
        }
        Ok(Duration::new(seconds, nanos))
    }

    /// A number of items, each of at least one byte: what is not there cannot be counted.
    pub(super) fn count(&mut self) -> Result<usize, CodecError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() {
            return Err(CodecError::Damaged("a list is longer than its record"));
        }
        Ok(count)
    }

    /// Bytes with their length before them.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// A list with its length before it.
    pub(crate) fn list<T>(
        &mut self,
        read: impl Fn(&mut Reader<'a>) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.count()?;
        (0..count).map(|_| read(self)).collect()
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Damaged("a record is followed by unexpected bytes")) }
    }
}

/// 1 byte: 0 or 1.
pub(crate) fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(value.into());
}

/// 2 bytes of length, then UTF-8. Names and addresses are far below 64 KiB; of a longer text (somebody else's message) the
/// beginning is kept.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let kept = &text[..text.floor_char_boundary(u16::MAX.into())];
    out.extend((kept.len() as u16).to_le_bytes());
    out.extend(kept.as_bytes());
}

/// 4 bytes of length, then the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend(bytes);
}

/// 4 bytes of length, then the items.
pub(crate) fn put_list<T>(
    out: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    put_count(out, items.len());
    items.for_each(|item| put(out, item));
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).expect("lists and records are far below 2^32").to_le_bytes());
}

/// 8 bytes of seconds, 4 of nanoseconds.
pub(crate) fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    out.extend(duration.as_secs().to_le_bytes());
    out.extend(duration.subsec_nanos().to_le_bytes());
}

/// 1 byte for presence, then the value if there is one.
pub(crate) fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    put_bool(out, value.is_some());
    if let Some(value) = value {
        put(out, value);
    }
}
