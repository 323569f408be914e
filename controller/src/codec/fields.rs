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

    pub(super) fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Damaged("a flag is neither 0 nor 1")),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, CodecError> {
        let len = self.u16()?;
        std::str::from_utf8(self.take(len.into())?).map_err(|_| CodecError::Damaged("a text is not UTF-8"))
    }

    pub(super) fn duration(&mut self) -> Result<Duration, CodecError> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        if nanos >= 1_000_000_000 {
            return Err(CodecError::Damaged("a duration's fraction is a second or more"));
        }
        Ok(Duration::new(seconds, nanos))
    }

    pub(super) fn option<T>(
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
pub(super) fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(value.into());
}

/// 2 bytes of length, then UTF-8. Only names are written so; their limits keep them far below 64 KiB.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names are shorter than 64 KiB");
    out.extend(len.to_le_bytes());
    out.extend(text.as_bytes());
}

/// 8 bytes of seconds, 4 of nanoseconds.
pub(super) fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    out.extend(duration.as_secs().to_le_bytes());
    out.extend(duration.subsec_nanos().to_le_bytes());
}

/// 1 byte for presence, then the value if there is one.
pub(super) fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    put_bool(out, value.is_some());
    if let Some(value) = value {
        put(out, value);
    }
}
