//! Reading the log through: every record in order, and what is not whole any more.

use super::error::LogOpenError;
use super::missing::Gap;
use super::torn_tail::is_blank;
use super::{Segments, io};
use crate::commit_log::damage::DamagedRange;
use crate::commit_log::record::{BatchFrame, RecordError, RecordHeader, RecordKind};
use crate::commit_log::segment::{ScannedRecord, Segment};
use crate::commit_log::segment_header::EpochStart;
use crate::commit_log::segment_reader::SegmentReader;
use gantry_proto::model::{Epoch, LogOffset, Timestamp};

/// What a scan passes by.
pub(crate) enum Visit<'a> {
    /// A whole record. `gap`: where the last part of the log before it ends that is damaged, or was.
    Record { record: &'a ScannedRecord<'a>, gap: Option<LogOffset> },
    /// Something that cannot be read. `claimed`: what the header of the record there says; nothing checks that.
    Damaged { range: DamagedRange, claimed: Option<RecordHeader> },
}

/// What a scan found out.
pub(crate) struct Scanned {
    pub(super) end: LogOffset,
    pub(super) epoch: Epoch,
    pub(super) last_store_time: Timestamp,
    pub(super) epochs: Vec<EpochStart>,
    /// Why the active segment's records end at `end`.
    pub(super) stop: Option<RecordError>,
    /// The log is known to have been on this disk up to here: its positions say so, or the checkpoint does.
    pub(super) proven: LogOffset,
}

impl Segments {
    /// Shows `visit` every record of the active segment and of the others that reach beyond `from`. `log_to`: the checkpoint
    /// proves that the log was on this disk up to there.
    pub(crate) fn scan(
        &self,
        from: LogOffset,
        log_to: LogOffset,
        mut visit: impl FnMut(Visit<'_>) -> Result<(), RecordError>,
    ) -> Result<Scanned, LogOpenError> {
        let flushed_to = self.positions.current().flushed_to;
        let active = self.active();
        let mut scanned = Scanned {
            end: LogOffset(0),
            epoch: Epoch(0),
            last_store_time: Timestamp::ZERO,
            epochs: active.epochs.clone(),
            stop: None,
            proven: flushed_to.max(from).max(log_to),
        };
        for (segment, end) in self.sealed().filter(|(_, end)| *end > from) {
            self.scan_segment(segment, end, Some(end), &mut scanned, &mut visit)?;
        }
        let held_to = active.held_to().map_err(io("measuring", &active.path))?;
        let proven = scanned.proven;
        if active.base.plus(active.capacity) < proven {
            let what = format!("the checkpoint needs it, and {} is the last segment", active.path.display());
            return Err(LogOpenError::Missing { what, from: active.base, to: proven });
        }
        self.scan_segment(active, held_to.max(proven), None, &mut scanned, &mut visit)?;
        self.damage.save().map_err(io("writing the list of damaged parts in", &self.config.folder))?;
        Ok(scanned)
    }

    /// Visits records up to `limit`, which is the end of a sealed segment; of the active one, as far as they are whole.
    fn scan_segment(
        &self,
        segment: &Segment,
        limit: LogOffset,
        end: Option<LogOffset>,
        scanned: &mut Scanned,
        visit: &mut impl FnMut(Visit<'_>) -> Result<(), RecordError>,
    ) -> Result<(), LogOpenError> {
        let read_error = io("reading", &segment.path);
        // What lies before this is known to have been on the disk.
        let proven = end.unwrap_or(scanned.proven);
        let refused = |log_offset: LogOffset, cause: RecordError| {
            let (path, at) = (segment.path.clone(), segment.position(log_offset));
            Err(match cause {
                RecordError::Newer { .. } => LogOpenError::Newer { path, at, log_offset, cause },
                _ => LogOpenError::Inapplicable { path, at, log_offset, cause },
            })
        };
        let mut reader = SegmentReader::new(segment);
        let mut at = segment.base;
        scanned.end = at;
        while at < limit {
            let cause = match reader.read(at, limit.0 - at.0).map_err(&read_error)? {
                Ok(record) if record.header.epoch < scanned.epoch => RecordError::LeftOver,
                Ok(record) => {
                    let header = record.header;
                    let gap = self.damage.gap_before(at);
                    let judged = match header.kind {
                        RecordKind::Batch => BatchFrame::parse(record.body()).map(Some),
                        RecordKind::Unknown(_) => Ok(None),
                        _ => visit(Visit::Record { record: &record, gap }).map(|()| None),
                    };
                    match judged {
                        Err(cause) => return refused(at, cause),
                        // Behind the proof it may be torn anywhere: all of its records or none of them.
                        Ok(Some(frame)) if header.end().plus(frame.bytes) > proven => {
                            if !holds_batch(&mut reader, header.end(), frame, limit).map_err(&read_error)? {
                                scanned.stop = Some(RecordError::PartOfBatch);
                                return Ok(());
                            }
                        }
                        Ok(_) => {}
                    }
                    scanned.pass(&header);
                    at = header.end();
                    continue;
                }
                Err(cause) if cause.is_whole() => return refused(at, cause),
                Err(cause) => cause,
            };
            if at >= proven {
                scanned.stop = Some(cause);
                return Ok(());
            }
            let claimed = reader.claimed(at).map_err(&read_error)?;
            let to = reader.next_whole(at, claimed.as_ref(), proven).map_err(&read_error)?;
            let blank = cause == RecordError::Blank || cause == RecordError::CutOff;
            let missing = blank
                && end.is_none()
                && to == proven
                && is_blank(&*segment.file, segment.position(at), segment.position(to)).map_err(&read_error)?;
            let found_at = self.env.clock.now();
            if missing && self.damage.touching(at, 1).is_none() {
                let (path, byte) = (segment.path.display(), segment.position(at));
                let knows = if proven > self.positions.current().flushed_to {
                    ", but the checkpoint knows of more"
                } else {
                    ""
                };
                let what = format!("{path} holds nothing from byte {byte} on{knows}");
                Gap { what, from: at, to }.accept(&self.config, &self.damage, found_at)?;
            }
            if cause == RecordError::Unreadable && to.0 - at.0 > NOTHING_READ && (at, to) == (segment.base, proven) {
                let nothing =
                    io::Error::other("the disk gives nothing of it: no damage, but a disk that is away or ends");
                return Err(read_error(nothing));
            }
            let cause = self.damage.cause_up_to(to, cause);
            let range = DamagedRange::found(at, to, cause, found_at);
            self.damage.note(range);
            visit(Visit::Damaged { range, claimed }).or_else(|cause| refused(at, cause))?;
            (at, scanned.end) = (to, to);
        }
        Ok(())
    }
}

/// A disk that gives nothing of so much, from a segment's beginning on, is not there.
const NOTHING_READ: u64 = 4 << 20;

impl Scanned {
    /// A whole record was passed.
    fn pass(&mut self, header: &RecordHeader) {
        if header.epoch > self.epoch {
            self.epoch = header.epoch;
            if self.epochs.last().is_none_or(|(last, _)| *last < header.epoch) {
                self.epochs.push((header.epoch, header.log_offset));
            }
        }
        self.last_store_time = self.last_store_time.max(header.store_time);
        self.end = header.end();
    }
}

/// Whether every record that `frame` announces is there from `at` on.
fn holds_batch(reader: &mut SegmentReader<'_>, at: LogOffset, frame: BatchFrame, limit: LogOffset) -> io::Result<bool> {
    let end = at.plus(frame.bytes);
    if end > limit {
        return Ok(false);
    }
    let (mut at, mut count) = (at, 0);
    while at < end {
        at = match reader.read(at, end.0 - at.0)? {
            Ok(record) => record.header.end(),
            // It is there; what it says is for the scan to judge.
            Err(cause) if cause.is_whole() => return Ok(true),
            Err(_) => return Ok(false),
        };
        count += 1;
    }
    Ok(count == frame.count)
}
