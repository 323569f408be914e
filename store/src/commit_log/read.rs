//! Reading confirmed records to deliver them: many at a time, those that lie together with one call. On a task of the runtime
//! nothing waits for the disk: what is not in memory is read by a worker.
//!
//! What comes next is announced here ([`announced`]), and the system reads nothing ahead by itself: it takes as much as the
//! device is set to (8 MiB were seen), and whoever waits for a flush on the same disk waits behind that.

use super::record::{HEADER_LEN, RecordError, claimed_len, parse_record};
use super::segment::{ReadError, Record, Segment, SegmentSet};
use bytes::Bytes;
use gantry_proto::model::LogOffset;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Where a record lies, as its index entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub at: LogOffset,
    pub len: u32,
}

/// Some of it is not in memory. The system has been told that all of it is going to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cold;

/// Records with less than this between them are read with one call.
const GAP_MAX: u64 = 1024;
/// One read is not longer, unless one record is.
const READ_MAX: u64 = 1 << 20;
/// Records with less than this between them are announced together: a page for each costs the disk more.
const ANNOUNCED_GAP_MAX: u64 = 32 << 10;
/// How far beyond what is wanted is announced, when so many records lie together that a backlog is being read.
const READ_AHEAD: u64 = 256 << 10;
const BACKLOG_RECORDS: usize = 8;

impl SegmentSet {
    /// Reads and checks records without waiting for the disk: fit for a task of the runtime. In the order asked for. One
    /// that is damaged or gone does not touch the others.
    pub(crate) fn read_warm(&self, places: &[Place]) -> Result<Vec<Result<Record, ReadError>>, Cold> {
        let reads = self.plan(places);
        let mut records = Vec::with_capacity(places.len());
        for (number, read) in reads.iter().enumerate() {
            let Some(segment) = &read.segment else {
                records.extend(read.gone(places));
                continue;
            };
            let (position, len) = read.extent(segment);
            match segment.file.try_read_at(position, len) {
                Ok(Some(bytes)) => records.extend(read.split(segment, &Ok(bytes), places)),
                Ok(None) => {
                    // The worker that reads it, and the rest, finds it under way.
                    announce(&reads[number..]);
                    return Err(Cold);
                }
                // The worker reads the records one by one.
                Err(_) => return Err(Cold),
            }
        }
        Ok(records)
    }

    /// Reads and checks the record at `at`, which tells its length itself, without waiting for the disk.
    pub(crate) fn read_record_warm(&self, at: LogOffset) -> Result<Result<Record, ReadError>, Cold> {
        let Some(segment) = self.holding(at) else { return Ok(Err(ReadError::Gone(at))) };
        let header = segment.file.try_read_at(segment.position(at), HEADER_LEN);
        // The worker says what is wrong with it.
        let Ok(Some(header)) = header else { return Err(Cold) };
        let len = claimed_len(&header).map_err(|_| Cold)?;
        if at.plus(u64::from(len)).0 > segment.base.0 + segment.capacity {
            return Err(Cold);
        }
        let mut read = self.read_warm(&[Place { at, len }])?;
        read.pop().ok_or(Cold)
    }

    /// The same, waiting for the disk: fit for a worker.
    pub(crate) fn read_cold(&self, places: &[Place]) -> Vec<Result<Record, ReadError>> {
        let mut records = Vec::with_capacity(places.len());
        for read in self.plan(places) {
            let Some(segment) = &read.segment else {
                records.extend(read.gone(places));
                continue;
            };
            let (position, len) = read.extent(segment);
            match segment.file.read_at(position, len) {
                Err(_) if read.places.len() > 1 => {
                    // One bad sector is not the end of its neighbours.
                    records.extend(places[read.places.clone()].iter().map(|place| segment.read(place.at, place.len)));
                }
                bytes => records.extend(read.split(segment, &bytes, places)),
            }
        }
        records
    }

    /// Which reads are made for `places`, in their order.
    fn plan(&self, places: &[Place]) -> Vec<Read> {
        let mut reads: Vec<Read> = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let end = place.at.plus(u64::from(place.len));
            if let Some(last) = reads.last_mut()
                && let Some(segment) = &last.segment
                && place.at >= last.end
                && place.at.0 - last.end.0 <= GAP_MAX
                && end.0 - last.from.0 <= READ_MAX
                && end.0 <= segment.base.0 + segment.capacity
                && self.is_holding(segment, place.at)
            {
                last.end = end;
                last.places.end = number + 1;
                continue;
            }
            reads.push(Read { segment: self.holding(place.at), from: place.at, end, places: number..number + 1 });
        }
        reads
    }

    fn is_holding(&self, segment: &Arc<Segment>, at: LogOffset) -> bool {
        self.holding(at).is_some_and(|holding| Arc::ptr_eq(&holding, segment))
    }
}

fn announce(reads: &[Read]) {
    for Announced { segment, range, .. } in announced(reads) {
        let end = range.end.0.min(segment.base.0 + segment.capacity);
        segment.file.will_read(segment.position(range.start), end.saturating_sub(range.start.0));
    }
}

/// A part of a segment that the system is told to read.
struct Announced<'a> {
    segment: &'a Arc<Segment>,
    range: Range<LogOffset>,
    records: usize,
}

/// What of the log the system is told to read: what is wanted, and what follows if a backlog is being read.
fn announced(reads: &[Read]) -> Vec<Announced<'_>> {
    let mut parts: Vec<Announced<'_>> = Vec::new();
    for read in reads {
        let Some(segment) = &read.segment else { continue };
        let records = read.places.len();
        match parts.last_mut() {
            Some(last)
                if Arc::ptr_eq(last.segment, segment)
                    && read.from >= last.range.end
                    && read.from.0 - last.range.end.0 <= ANNOUNCED_GAP_MAX =>
            {
                last.range.end = read.end;
                last.records += records;
            }
            _ => parts.push(Announced { segment, range: read.from..read.end, records }),
        }
    }
    for part in parts.iter_mut().filter(|part| part.records >= BACKLOG_RECORDS) {
        part.range.end = part.range.end.plus(READ_AHEAD);
    }
    parts
}

/// One call, for records that lie together.
struct Read {
    /// `None`: not retained any more.
    segment: Option<Arc<Segment>>,
    from: LogOffset,
    end: LogOffset,
    /// Which of the places.
    places: Range<usize>,
}

impl Read {
    fn extent(&self, segment: &Segment) -> (u64, usize) {
        (segment.position(self.from), (self.end.0 - self.from.0) as usize)
    }

    fn gone(&self, places: &[Place]) -> impl Iterator<Item = Result<Record, ReadError>> {
        places[self.places.clone()].iter().map(|place| Err(ReadError::Gone(place.at)))
    }

    /// The records in what was read. They share its memory.
    fn split<'a>(
        &'a self,
        segment: &'a Segment,
        bytes: &'a io::Result<Bytes>,
        places: &'a [Place],
    ) -> impl Iterator<Item = Result<Record, ReadError>> + 'a {
        places[self.places.clone()].iter().map(move |place| {
            let (path, at) = (segment.path.clone(), segment.position(place.at));
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => {
                    // Whether it is about the bytes the number tells.
                    let copy = || io::Error::new(error.kind(), error.to_string());
                    let source = error.raw_os_error().map_or_else(copy, io::Error::from_raw_os_error);
                    return Err(ReadError::Io { path, at, source });
                }
            };
            let begin = ((place.at.0 - self.from.0) as usize).min(bytes.len());
            let record = bytes.slice(begin..bytes.len().min(begin + place.len as usize));
            checked(record, *place).map_err(|source| ReadError::Damaged { path, at, source })
        })
    }
}

/// The record, if these bytes are the one that `place` stands for.
pub(super) fn checked(bytes: Bytes, place: Place) -> Result<Record, RecordError> {
    let (header, _) = parse_record(&bytes, place.at)?;
    if header.len != place.len {
        return Err(RecordError::Malformed("it is not as long as its index entry says"));
    }
    Ok(Record { header, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_log::LogHome;
    use crate::commit_log::record::{RecordHeader, RecordKind, write_record};
    use crate::commit_log::segment_header::SEGMENT_HEADER_LEN;
    use gantry_proto::env::OpenMode;
    use gantry_proto::env::fake::{self, FakeFiles, FakeOp};
    use gantry_proto::model::{Epoch, Timestamp};
    use std::path::Path;

    const CAPACITY: u64 = 16 << 10;

    /// Two segments, each full of records of growing length.
    fn log() -> (SegmentSet, FakeFiles, Vec<Place>) {
        let (env, files, _) = fake::env(1);
        env.files.create_dir_all(Path::new("/log")).unwrap();
        let (set, mut places) = (SegmentSet::default(), Vec::new());
        let mut at = LogOffset(0);
        for number in 0..2 {
            let path = Path::new("/log").join(number.to_string());
            let file = env.files.open(&path, OpenMode::CreateNew).unwrap();
            let base = at;
            let mut bytes = Vec::new();
            for len in (0..100).map(|number| 10 + number * 2) {
                let header = RecordHeader {
                    len: 0,
                    kind: RecordKind::Delivery,
                    extensions_len: 0,
                    epoch: Epoch(1),
                    log_offset: at,
                    store_time: Timestamp::ZERO,
                    topic: Default::default(),
                    queue: Default::default(),
                    queue_offset: Default::default(),
                };
                let len = write_record(&mut bytes, &header, |out| out.extend_from_slice(&vec![number as u8; len]));
                places.push(Place { at, len });
                at = at.plus(u64::from(len));
            }
            file.write_all_at(&bytes, SEGMENT_HEADER_LEN).unwrap();
            let (capacity, epochs, home) = (CAPACITY, Vec::new(), LogHome::default());
            set.insert(Arc::new(Segment { base, capacity, epochs, home, file, path }));
        }
        (set, files, places)
    }

    fn offsets(records: &[Result<Record, ReadError>]) -> Vec<Option<Place>> {
        let place = |record: &Record| Place { at: record.header.log_offset, len: record.bytes.len() as u32 };
        records.iter().map(|record| record.as_ref().ok().map(place)).collect()
    }

    #[test]
    fn records_come_in_the_order_asked_for_and_those_that_lie_together_with_one_read() {
        let (set, _, places) = log();
        let every = |step: usize| places.iter().step_by(step).copied().collect::<Vec<_>>();
        let backwards = places.iter().rev().copied().collect::<Vec<_>>();
        for (asked, reads) in [(places.clone(), 2), (every(2), 2), (every(60), 4), (backwards, 200), (Vec::new(), 0)] {
            assert_eq!(set.plan(&asked).len(), reads);
            let expected: Vec<_> = asked.iter().copied().map(Some).collect();
            assert_eq!(offsets(&set.read_warm(&asked).unwrap()), expected);
            assert_eq!(offsets(&set.read_cold(&asked)), expected);
        }
        for place in &places {
            let read = set.read_record_warm(place.at).unwrap();
            assert_eq!(offsets(&[read]), [Some(*place)]);
        }
    }

    #[test]
    fn what_is_cold_is_said_to_be_and_read_by_whoever_may_wait() {
        let (set, files, places) = log();
        files.set_cold(true);
        assert_eq!(set.read_warm(&places).map(|_| ()), Err(Cold));
        assert_eq!(set.read_record_warm(places[5].at).map(|_| ()), Err(Cold));
        assert!(set.read_cold(&places).iter().all(Result::is_ok));
    }

    #[test]
    fn of_a_backlog_what_follows_is_announced_and_of_single_records_nothing_else() {
        let (set, _, places) = log();
        let ranges = |places: &[Place]| {
            let from_to = |part: &Announced<'_>| (part.range.start.0, part.range.end.0);
            announced(&set.plan(places)).iter().map(from_to).collect::<Vec<_>>()
        };
        let end = |place: Place| place.at.0 + u64::from(place.len);
        assert_eq!(ranges(&places[3..4]), [(places[3].at.0, end(places[3]))]);
        assert_eq!(ranges(&places[3..10]), [(places[3].at.0, end(places[9]))]);
        assert_eq!(ranges(&places[3..11]), [(places[3].at.0, end(places[10]) + READ_AHEAD)]);
        // One queue of several: its records have others between them.
        let every: Vec<_> = places[..100].iter().step_by(12).copied().collect();
        assert_eq!(ranges(&every), [(every[0].at.0, end(every[8]) + READ_AHEAD)]);
        let far =
            [Place { at: LogOffset(0), len: 100 }, Place { at: LogOffset(100 + ANNOUNCED_GAP_MAX + 1), len: 100 }];
        let far_end = far[1].at.0 + 100;
        assert_eq!(ranges(&far), [(0, 100), (far[1].at.0, far_end)]);
    }

    #[test]
    fn a_record_that_is_damaged_gone_or_unreadable_does_not_touch_its_neighbours() {
        let (set, files, places) = log();
        files.flip_bits(Path::new("/log/0"), SEGMENT_HEADER_LEN + places[7].at.0 + 20, 1).unwrap();
        let expected: Vec<_> = places.iter().enumerate().map(|(n, place)| (n != 7).then_some(*place)).collect();
        assert_eq!(offsets(&set.read_warm(&places).unwrap()), expected);
        let read = set.read_cold(&places);
        assert_eq!(offsets(&read), expected);
        assert!(matches!(read[7], Err(ReadError::Damaged { source: RecordError::Checksum, .. })), "{:?}", read[7]);
        // An entry that names another length does not get a neighbour's bytes.
        let longer = Place { len: places[3].len + 32, ..places[3] };
        assert!(matches!(set.read_cold(&[longer])[0], Err(ReadError::Damaged { .. })));

        // The long read fails, and so does the one of the first record alone.
        files.fail_next(FakeOp::Read, 0, io::ErrorKind::Other);
        files.fail_next(FakeOp::Read, 1, io::ErrorKind::Other);
        let read = set.read_cold(&places[8..12]);
        assert!(matches!(read[0], Err(ReadError::Io { .. })));
        assert_eq!(offsets(&read)[1..], places[9..12].iter().copied().map(Some).collect::<Vec<_>>());

        set.remove(LogOffset(0));
        let read = set.read_warm(&places[95..105]).unwrap();
        assert!(read[..5].iter().all(|record| matches!(record, Err(ReadError::Gone(_)))));
        assert!(read[5..].iter().all(Result::is_ok));
    }
}
