//! Reads a segment's records from front to back, whatever state it is in: for recovery, for making an index, for looking.
//!
//! What the disk does not give is a state of the record that it belongs to ([`RecordError::Unreadable`]), never an error of
//! the reader: it reads around it, page by page. A page is asked for [`TRIES`] times before it counts as unreadable.

use super::record::{HEADER_LEN, RecordError, RecordHeader, claimed_header, claimed_len, parse_record};
use super::segment::{ScannedRecord, Segment};
use super::segment_header::SEGMENT_HEADER_LEN;
use gantry_proto::env::is_unreadable;
use gantry_proto::model::LogOffset;
use std::collections::BTreeSet;
use std::io;

/// Reads a chunk at a time into the same buffer: nothing of it stays in memory.
pub(crate) struct SegmentReader<'a> {
    segment: &'a Segment,
    buffer: Vec<u8>,
    /// How much of the buffer holds the file's bytes, and from which position on.
    held: usize,
    held_at: u64,
    /// Where the pages of the file begin that the disk did not give.
    unreadable: BTreeSet<u64>,
}

/// Why bytes are not there.
enum NotRead {
    Io(io::Error),
    /// The disk does not give what lies before this position.
    Unreadable {
        behind: u64,
    },
}

const CHUNK_LEN: usize = 1 << 20;
/// What the system reads from a disk at least, and a bad sector takes with it.
const PAGE_LEN: u64 = 4096;
const TRIES: u32 = 3;
/// Where in a record its own log offset is.
const PLACE_AT: usize = 16;

impl<'a> SegmentReader<'a> {
    pub(crate) fn new(segment: &'a Segment) -> SegmentReader<'a> {
        SegmentReader { segment, buffer: vec![0; CHUNK_LEN], held: 0, held_at: 0, unreadable: BTreeSet::new() }
    }

    /// Reads and checks the record at `at`, which must not reach further than `limit` bytes.
    pub(crate) fn read(&mut self, at: LogOffset, limit: u64) -> io::Result<Result<ScannedRecord<'_>, RecordError>> {
        let position = self.segment.position(at);
        let len = match self.bytes(position, HEADER_LEN) {
            Ok(header) => claimed_len(header),
            Err(not_read) => not_read.into_record_error()?,
        };
        let len = match len {
            Ok(len) if u64::from(len) > limit => return Ok(Err(RecordError::CutOff)),
            Ok(len) => len,
            Err(cause) => return Ok(Err(cause)),
        };
        Ok(match self.bytes(position, len as usize) {
            Ok(bytes) => parse_record(bytes, at).map(|(header, _)| ScannedRecord { header, bytes }),
            Err(not_read) => not_read.into_record_error()?,
        })
    }

    /// What the header at `at` says, if it looks like one. Nothing checks it.
    pub(crate) fn claimed(&mut self, at: LogOffset) -> io::Result<Option<RecordHeader>> {
        let position = self.segment.position(at);
        match self.bytes(position, HEADER_LEN) {
            Ok(header) => Ok(claimed_header(header, at)),
            Err(NotRead::Unreadable { .. }) => Ok(None),
            Err(NotRead::Io(error)) => Err(error),
        }
    }

    /// Where the next whole record begins behind the damaged one at `at`, or `limit`, where one begins or the log ends.
    pub(crate) fn next_whole(
        &mut self,
        at: LogOffset,
        claimed: Option<&RecordHeader>,
        limit: LogOffset,
    ) -> io::Result<LogOffset> {
        // A producer can put what looks like a record into a message, and cannot know where it will lie; but what the
        // damaged record says of its own length is tried first.
        if let Some(end) = claimed.map(RecordHeader::end)
            && (end == limit || end < limit && self.is_whole(end, limit)?)
        {
            return Ok(end);
        }
        let mut from = at.plus(1);
        while from < limit {
            let position = self.segment.position(from);
            let window = match self.window(position) {
                Ok(window) => window,
                Err(NotRead::Unreadable { behind }) => {
                    from = from.plus(behind - position);
                    continue;
                }
                Err(NotRead::Io(error)) => return Err(error),
            };
            let own_place = |place: &usize| {
                let at = from.plus(*place as u64);
                window[place + PLACE_AT..].first_chunk() == Some(&at.0.to_le_bytes())
            };
            let len = window.len();
            let Some(count) = len.checked_sub(HEADER_LEN) else {
                // The file ends, or a page that the disk does not give begins.
                let Some(behind) = self.unreadable_in(position, len as u64 + 1) else { break };
                from = from.plus(behind - position);
                continue;
            };
            let candidates: Vec<usize> = (0..=count).filter(own_place).collect();
            for place in candidates {
                let candidate = from.plus(place as u64);
                if candidate < limit && self.is_whole(candidate, limit)? {
                    return Ok(candidate);
                }
            }
            from = from.plus(count as u64 + 1);
        }
        Ok(limit)
    }

    fn is_whole(&mut self, at: LogOffset, limit: LogOffset) -> io::Result<bool> {
        Ok(match self.read(at, limit.0 - at.0)? {
            Ok(_) => true,
            Err(cause) => cause.is_whole(),
        })
    }

    /// The bytes at `position`, fewer at the end of the file.
    fn bytes(&mut self, position: u64, len: usize) -> Result<&[u8], NotRead> {
        let held = self.held_at..self.held_at + self.held as u64;
        if position < held.start || position + len as u64 > held.end {
            self.fill(position, len)?;
        }
        let from = (position - self.held_at) as usize;
        let to = self.held.min(from + len);
        if to < from + len
            && let Some(behind) = self.unreadable_in(position, len as u64)
        {
            return Err(NotRead::Unreadable { behind });
        }
        Ok(&self.buffer[from..to])
    }

    /// What can be read from `position` on with one call.
    fn window(&mut self, position: u64) -> Result<&[u8], NotRead> {
        self.fill(position, CHUNK_LEN)?;
        Ok(&self.buffer[..self.held])
    }

    /// Reads at `position` up to the first page that the disk does not give.
    fn fill(&mut self, position: u64, len: usize) -> Result<(), NotRead> {
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        self.held = 0;
        let mut tries = 0;
        loop {
            if let Some(behind) = self.unreadable_in(position, 1) {
                return Err(NotRead::Unreadable { behind });
            }
            let wanted = self.readable_from(position, self.buffer.len());
            match self.segment.file.read_into(position, &mut self.buffer[..wanted]) {
                Ok(held) => {
                    (self.held, self.held_at) = (held, position);
                    return Ok(());
                }
                Err(error) if is_unreadable(&error) && tries < TRIES => {
                    // Found, or the disk thought better of it meanwhile.
                    tries += u32::from(!self.find_unreadable(position, wanted));
                }
                Err(error) => return Err(NotRead::Io(error)),
            }
        }
    }

    /// Looks for the page in `[position, position + len)` that the disk does not give. True: there is one.
    fn find_unreadable(&mut self, position: u64, len: usize) -> bool {
        let (mut from, end) = (position, position + len as u64);
        let mut page = [0; PAGE_LEN as usize];
        while from < end {
            let next = page_of(from) + PAGE_LEN;
            let part = &mut page[..(next.min(end) - from) as usize];
            let mut read = || self.segment.file.read_into(from, part);
            if (0..TRIES).all(|_| read().is_err_and(|error| is_unreadable(&error))) {
                let (path, at) = (self.segment.path.display(), page_of(from));
                tracing::warn!(segment = %path, at, "the disk does not give a page of the log: what is around it is read");
                return self.unreadable.insert(at);
            }
            from = next;
        }
        false
    }

    /// How many of `len` bytes from `position` on lie before the next page that the disk does not give.
    fn readable_from(&self, position: u64, len: usize) -> usize {
        let stop = self.unreadable.range(position..).next();
        stop.map_or(len, |stop| len.min((stop - position) as usize))
    }

    /// Where the first page ends that the disk does not give and that has a part in `[position, position + len)`.
    fn unreadable_in(&self, position: u64, len: u64) -> Option<u64> {
        let page = self.unreadable.range(page_of(position)..position + len).next()?;
        Some(page + PAGE_LEN)
    }
}

fn page_of(position: u64) -> u64 {
    position / PAGE_LEN * PAGE_LEN
}

impl NotRead {
    fn into_record_error<T>(self) -> io::Result<Result<T, RecordError>> {
        match self {
            NotRead::Unreadable { .. } => Ok(Err(RecordError::Unreadable)),
            NotRead::Io(error) => Err(error),
        }
    }
}

// Records begin on a page of the file.
const _: () = assert!(SEGMENT_HEADER_LEN.is_multiple_of(PAGE_LEN), "pages of the file are pages of the log");
