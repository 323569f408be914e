//! A segment of the log by itself: its header, its records from front to back, and where it stops being whole.

use super::{InspectError, io_error};
use crate::commit_log::positions::Positions;
use crate::commit_log::record::{
    BatchFrame, Origin, RecordError, RecordHeader, RecordKind, claimed_len, parse_removed,
};
use crate::commit_log::recovery::shows_itself;
use crate::commit_log::segment::{ScannedRecord, Segment, parse_name};
use crate::commit_log::segment_header::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderError};
use crate::commit_log::segment_reader::SegmentReader;
use crate::delivery::DeliveryRecord;
use crate::rebuild::LOG_DIR;
use gantry_proto::env::{File, Files, OpenMode, is_unreadable};
use gantry_proto::model::{
    ClusterId, Epoch, FolderId, GroupId, LogOffset, MessageHead, QueueId, QueueOffset, Removed, StoreGroupId,
    Timestamp, TopicId,
};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A segment file that is open for reading.
pub struct SegmentFile {
    segment: Segment,
    facts: SegmentFacts,
    /// Where the log is known to have been on disk; `None`: nothing beside the file says so.
    flushed_to: Option<LogOffset>,
}

/// What is known of a segment without its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// First log offset.
    pub base: LogOffset,
    /// Bytes of records that it was made for.
    pub capacity: u64,
    /// Bytes of the file.
    pub file_len: u64,
    /// Where the next segment begins, if there is one beside it: then this one is not written any more.
    pub next: Option<LogOffset>,
    /// The folder that wrote it.
    pub folder: FolderId,
    /// The cluster, if it was known then.
    pub cluster: Option<ClusterId>,
    /// The store group, if it was known then.
    pub group: Option<StoreGroupId>,
    /// Where the epochs began whose records lie before it.
    pub epochs: Vec<(Epoch, LogOffset)>,
    /// What is wrong with the page at its front. Its records can be read all the same.
    pub header_damage: Option<String>,
}

/// What a walk along a segment comes by.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all that is seen are records, one at a time on the stack")]
pub enum Seen<'a> {
    Record(RecordInfo<'a>),
    /// A whole record that this version does not understand.
    NotUnderstood {
        at: LogOffset,
        /// Where the next one begins.
        to: LogOffset,
        cause: String,
        /// A later version wrote it. Else it contradicts itself.
        newer: bool,
    },
    /// No record, though one was there.
    Damaged {
        at: LogOffset,
        /// Where the next whole record begins, or the segment ends.
        to: LogOffset,
        cause: String,
    },
}

/// Why a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every record up to the segment's end was seen.
    Complete { at: LogOffset },
    /// Nothing was written behind it: the log ends here.
    LogEnds { at: LogOffset },
    /// A write was under way when the server went down, or is under way now. The next start cuts it off; nothing proves
    /// that any of it was ever on disk.
    Unfinished {
        at: LogOffset,
        /// What is wrong with it.
        cause: String,
        /// Bytes that were written behind it.
        bytes: u64,
    },
    /// Records are missing up to there.
    Missing { at: LogOffset, to: LogOffset, cause: String },
    /// The visitor had seen enough.
    Stopped,
}

#[derive(Debug)]
pub struct RecordInfo<'a> {
    /// Where it lies in the log.
    pub at: LogOffset,
    /// Where it lies in the file.
    pub position: u64,
    /// Its bytes, header included.
    pub len: u32,
    /// Epoch of the leader that wrote it.
    pub epoch: Epoch,
    /// When it was written.
    pub store_time: Timestamp,
    /// The topic, if it adds a message; else 0.
    pub topic: TopicId,
    /// The queue, if it adds a message; else 0.
    pub queue: QueueId,
    /// Its place in the queue, if it adds a message; else 0.
    pub queue_offset: QueueOffset,
    pub content: RecordContent<'a>,
    /// What it says was deleted.
    pub(crate) removed: Option<Removed>,
    pub(crate) body: &'a [u8],
}

/// What a record says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are messages, one at a time on the stack")]
pub enum RecordContent<'a> {
    /// A message in a queue.
    Message(MessageInfo<'a>),
    /// A message that a group gave up, in its dead-letter topic from here on.
    DeadLetter {
        /// What it was before.
        origin: LetterOrigin,
        message: MessageInfo<'a>,
    },
    /// A change of a group's progress.
    Delivery(Delivery),
    /// The records that follow are all there or none of them is.
    Batch(BatchInfo),
    /// Of another kind, by its name.
    Other(String),
}

/// The head of a message.
#[derive(Debug)]
pub struct MessageInfo<'a> {
    pub head: MessageHead<'a>,
    /// Bytes of the head.
    pub head_len: usize,
    /// The body as the producer sent it.
    pub body: &'a [u8],
}

/// The message that a dead letter was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterOrigin {
    /// Who could not consume it.
    pub group: GroupId,
    pub topic: TopicId,
    pub queue: QueueId,
    /// Its place there.
    pub queue_offset: QueueOffset,
}

/// A change of a group's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whose progress.
    pub group: GroupId,
    /// On which topic.
    pub topic: TopicId,
    /// What kind of change, in short.
    pub change: &'static str,
    /// Which messages it is about, if it names any.
    pub messages: Vec<(QueueId, QueueOffset)>,
    /// All that it says.
    pub details: String,
}

/// What a batch announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Records that follow.
    pub count: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// The segments that `path` stands for, in order: a segment file, the folder of a log, or a store's folder.
pub fn segment_paths(files: &dyn Files, path: &Path) -> Result<Vec<PathBuf>, InspectError> {
    let Ok(names) = files.list(path) else { return Ok(vec![path.to_owned()]) };
    let below = names.iter().any(|entry| entry.is_dir && entry.name == LOG_DIR);
    let dir = if below { path.join(LOG_DIR) } else { path.to_owned() };
    let bases = bases_in(files, &dir)?;
    if bases.is_empty() {
        return Err(InspectError::Other {
            path: path.to_owned(),
            expected: "the folder of a store or of its log",
            cause: "no segment is in it (…0000.log)".into(),
        });
    }
    Ok(bases.into_iter().map(|base| dir.join(crate::commit_log::segment::segment_name(base))).collect())
}

/// Where the segments in a log's folder begin, sorted.
pub(super) fn bases_in(files: &dyn Files, dir: &Path) -> Result<Vec<LogOffset>, InspectError> {
    let names = files.list(dir).map_err(io_error("listing", dir))?;
    let mut bases: Vec<LogOffset> = names.iter().filter_map(|entry| parse_name(&entry.name, "log")).collect();
    bases.sort_unstable();
    Ok(bases)
}

impl SegmentFile {
    /// Opens a segment. What lies beside it tells whether it is the last one, and how far the log is known to have been on
    /// disk.
    pub fn open(files: &dyn Files, path: &Path) -> Result<SegmentFile, InspectError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        // Before the records are read: of a running server, more is on disk by then.
        let positions = dir.parent().and_then(|store| Positions::read(files, store).ok().flatten());
        let named = path.file_name().and_then(|name| parse_name(name.to_str()?, "log"));
        let bases = if named.is_some() { bases_in(files, dir).unwrap_or_default() } else { Vec::new() };
        let mut file = SegmentFile::open_alone(files, path)?;
        file.facts.next = bases.into_iter().find(|base| *base > file.segment.base);
        file.flushed_to = positions.map(|positions| positions.flushed_to);
        Ok(file)
    }

    /// Opens a segment of which the caller knows the surroundings.
    pub(super) fn open_between(
        files: &dyn Files,
        path: &Path,
        next: Option<LogOffset>,
        flushed_to: Option<LogOffset>,
    ) -> Result<SegmentFile, InspectError> {
        let mut file = SegmentFile::open_alone(files, path)?;
        (file.facts.next, file.flushed_to) = (next, flushed_to);
        Ok(file)
    }

    fn open_alone(files: &dyn Files, path: &Path) -> Result<SegmentFile, InspectError> {
        let file = files.open(path, OpenMode::Read).map_err(io_error("opening", path))?;
        let file_len = file.len().map_err(io_error("measuring", path))?;
        let page = match file.read_at(0, SEGMENT_HEADER_LEN as usize) {
            Err(error) if is_unreadable(&error) => Err(SegmentHeaderError::Unreadable),
            page => Ok(page.map_err(io_error("reading", path))?),
        };
        let named = path.file_name().and_then(|name| parse_name(name.to_str()?, "log"));
        let (header, header_damage) = match (page.and_then(|page| SegmentHeader::parse(&page)), named) {
            (Ok(header), Some(base)) if header.base != base => {
                let wrong = format!("it is the segment that begins at log offset {}, under another name", header.base);
                (header, Some(wrong))
            }
            (Ok(header), _) => (header, None),
            (Err(cause @ SegmentHeaderError::Newer(_)), _) => {
                return Err(InspectError::Newer { path: path.to_owned(), cause: cause.to_string() });
            }
            (Err(cause), Some(base)) => {
                let capacity = file_len.saturating_sub(SEGMENT_HEADER_LEN);
                let header = SegmentHeader { base, capacity, home: Default::default(), epochs: Vec::new() };
                (header, Some(cause.to_string()))
            }
            (Err(cause), None) => {
                let (path, cause) = (path.to_owned(), cause.to_string());
                return Err(InspectError::Other { path, expected: "a log segment", cause });
            }
        };
        let SegmentHeader { base, capacity, home, epochs } = header;
        let facts = SegmentFacts {
            base,
            capacity,
            file_len,
            next: None,
            folder: home.folder,
            cluster: home.cluster,
            group: home.store_group,
            epochs: epochs.clone(),
            header_damage,
        };
        let segment = Segment { base, capacity, epochs, home, file, path: path.to_owned() };
        Ok(SegmentFile { segment, facts, flushed_to: None })
    }

    /// What is known without its records.
    pub fn facts(&self) -> &SegmentFacts {
        &self.facts
    }

    /// Whether a start would take the file for no part of the log, of which `needed_to` was on this disk, if its first page is
    /// damaged.
    pub(super) fn shows_nothing(&self, needed_to: LogOffset) -> bool {
        self.facts.file_len < SEGMENT_HEADER_LEN || shows_itself(&self.segment, needed_to).is_ok_and(|shows| !shows)
    }

    /// Where in the file what lies at `at` in the log is.
    pub fn position(&self, at: LogOffset) -> u64 {
        self.segment.position(at.max(self.segment.base))
    }

    /// What the header at `at` says, if it looks like one. Nothing checks it.
    pub(crate) fn claimed(&self, at: LogOffset) -> Result<Option<RecordHeader>, InspectError> {
        let held_to = self.segment.held_to().map_err(io_error("measuring", &self.segment.path))?;
        if at < self.segment.base || at >= held_to {
            return Ok(None);
        }
        SegmentReader::new(&self.segment).claimed(at).map_err(io_error("reading", &self.segment.path))
    }

    /// Shows `visit` what lies in it from front to back. A damaged part is passed over up to the next whole record.
    pub fn walk(&self, mut visit: impl FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<Ending, InspectError> {
        let segment = &self.segment;
        let read = |source| InspectError::Io { action: "reading", path: segment.path.clone(), source };
        let held_to = segment.held_to().map_err(read)?;
        let limit = self.facts.next.map_or(held_to, |next| next.min(held_to));
        let mut reader = SegmentReader::new(segment);
        let (mut at, mut epoch, mut batch) = (segment.base, Epoch(0), None);
        while at < limit {
            let (cause, understood) = match reader.read(at, limit.0 - at.0).map_err(read)? {
                Ok(record) if record.header.epoch < epoch => (RecordError::LeftOver, None),
                Ok(record) => {
                    let next = record.header.end();
                    epoch = record.header.epoch;
                    match self.understand(&record) {
                        Ok(info) => {
                            if let RecordContent::Batch(frame) = info.content {
                                batch = Some((at, next.plus(frame.bytes)));
                            }
                            if visit(Seen::Record(info)).is_break() {
                                return Ok(Ending::Stopped);
                            }
                            at = next;
                            continue;
                        }
                        Err(cause) => (cause, Some(next)),
                    }
                }
                Err(cause) => (cause, None),
            };
            let seen = if cause.is_whole() {
                let to = understood.map_or_else(|| self.behind(at), Ok).map_err(read)?.min(limit);
                let newer = matches!(cause, RecordError::Newer { .. });
                Seen::NotUnderstood { at, to, newer, cause: cause.to_string() }
            } else {
                let position = segment.position(at);
                let written = last_written(&*segment.file, position).map_err(read)? - position;
                // Behind the proof recovery ends at the first record that is not whole, whatever follows it.
                let proven = match (self.facts.next, self.flushed_to) {
                    (Some(_), _) => Some(limit),
                    (None, Some(flushed_to)) if at >= flushed_to => return Ok(ending(at, batch, written, cause)),
                    (None, flushed_to) => flushed_to.map(|flushed_to| flushed_to.min(limit)),
                };
                let claimed = reader.claimed(at).map_err(read)?;
                let whole =
                    if written == 0 { limit } else { reader.next_whole(at, claimed.as_ref(), limit).map_err(read)? };
                let to = match proven {
                    _ if whole < limit => whole,
                    None => return Ok(ending(at, batch, written, cause)),
                    Some(_) if written == 0 => {
                        let to = self.facts.next.or(self.flushed_to).unwrap_or(limit);
                        return Ok(Ending::Missing { at, to, cause: "nothing is written there any more".into() });
                    }
                    Some(proven) => proven,
                };
                let wanted = self.facts.next.or(self.flushed_to).unwrap_or(limit);
                if to == limit && limit < wanted {
                    // What is left of its last record is of no use.
                    return Ok(Ending::Missing { at, to: wanted, cause: "the file ends here".into() });
                }
                Seen::Damaged { at, to, cause: cause.to_string() }
            };
            at = seen.end();
            if visit(seen).is_break() {
                return Ok(Ending::Stopped);
            }
        }
        let wanted = self.facts.next.or(self.flushed_to).unwrap_or(at);
        if at < wanted {
            return Ok(Ending::Missing { at, to: wanted, cause: "the file ends here".into() });
        }
        match batch {
            Some((_, end)) if end > at => Ok(ending(at, batch, 0, RecordError::PartOfBatch)),
            _ => Ok(Ending::Complete { at }),
        }
    }

    /// Where the next record begins, by what the one at `at` says. Its checksum is right.
    fn behind(&self, at: LogOffset) -> io::Result<LogOffset> {
        let header = self.segment.file.read_at(self.segment.position(at), crate::commit_log::record::HEADER_LEN)?;
        Ok(at.plus(claimed_len(&header).map_or(1, u64::from)))
    }

    fn understand<'a>(&self, record: &ScannedRecord<'a>) -> Result<RecordInfo<'a>, RecordError> {
        let header = record.header;
        let body = header.body(record.bytes);
        let mut removed = None;
        let content = match header.kind {
            RecordKind::Message => RecordContent::Message(message(record)?),
            RecordKind::DeadLetter => {
                let Origin { group, topic, queue, queue_offset } = Origin::parse(body)?;
                let origin = LetterOrigin { group, topic, queue, queue_offset };
                RecordContent::DeadLetter { origin, message: message(record)? }
            }
            RecordKind::Delivery | RecordKind::Arrival => {
                let (group, topic, change) = DeliveryRecord::decode(body)?;
                let (kind, messages) = summary(&change);
                RecordContent::Delivery(Delivery {
                    group,
                    topic,
                    change: kind,
                    messages,
                    details: format!("{change:?}"),
                })
            }
            RecordKind::Batch => {
                let BatchFrame { count, bytes } = BatchFrame::parse(body)?;
                RecordContent::Batch(BatchInfo { count, bytes })
            }
            RecordKind::TopicRemoved | RecordKind::GroupRemoved => {
                RecordContent::Other(match *removed.insert(parse_removed(header.kind, body)?) {
                    Removed::Topic(topic) => format!("topic {topic} removed"),
                    Removed::Group(group) => format!("group {group} removed"),
                })
            }
            RecordKind::Unknown(_) => RecordContent::Other(format!("{:?}", header.kind)),
        };
        Ok(RecordInfo {
            at: header.log_offset,
            position: self.segment.position(header.log_offset),
            len: header.len,
            epoch: header.epoch,
            store_time: header.store_time,
            topic: header.topic,
            queue: header.queue,
            queue_offset: header.queue_offset,
            content,
            removed,
            body,
        })
    }
}

impl Seen<'_> {
    /// Where what follows it begins.
    pub fn end(&self) -> LogOffset {
        match self {
            Seen::Record(record) => record.at.plus(u64::from(record.len)),
            Seen::NotUnderstood { to, .. } | Seen::Damaged { to, .. } => *to,
        }
    }
}

impl<'a> RecordInfo<'a> {
    /// The message that it adds, if it does.
    pub fn message(&self) -> Option<&MessageInfo<'a>> {
        match &self.content {
            RecordContent::Message(message) | RecordContent::DeadLetter { message, .. } => Some(message),
            _ => None,
        }
    }
}

impl Ending {
    /// Whether nothing that must be there is missing.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Ending::Missing { .. })
    }
}

/// The end of the last segment, whose records stop at `at`, with so many bytes written behind them.
fn ending(at: LogOffset, batch: Option<(LogOffset, LogOffset)>, written: u64, cause: RecordError) -> Ending {
    match batch {
        Some((from, end)) if end > at => {
            let cause = RecordError::PartOfBatch.to_string();
            Ending::Unfinished { at: from, cause, bytes: at.0 + written - from.0 }
        }
        _ if written > 0 => Ending::Unfinished { at, cause: cause.to_string(), bytes: written },
        _ => Ending::LogEnds { at },
    }
}

fn message<'a>(record: &ScannedRecord<'a>) -> Result<MessageInfo<'a>, RecordError> {
    let span = record.message_span()?;
    let head = span.head(record.bytes);
    let body = span.body(record.bytes);
    Ok(MessageInfo { head: MessageHead::parse(head)?, head_len: head.len(), body })
}

fn summary(change: &DeliveryRecord) -> (&'static str, Vec<(QueueId, QueueOffset)>) {
    match change {
        DeliveryRecord::Delivered { deliveries, .. } => {
            ("delivered", deliveries.iter().map(|(queue, offset, _)| (*queue, *offset)).collect())
        }
        DeliveryRecord::Acked { entries } => ("acked", entries.clone()),
        DeliveryRecord::SetAside { entries } => ("set aside as damaged", entries.clone()),
        DeliveryRecord::Dropped { entries } => ("dropped", entries.clone()),
        DeliveryRecord::VisibilityChanged { entries, .. } => ("visibility changed", entries.clone()),
        DeliveryRecord::OwnersRenewed { .. } => ("owners renewed", Vec::new()),
        DeliveryRecord::OwnerReleased { .. } => ("owner released", Vec::new()),
        DeliveryRecord::Trimmed { floors } => ("trimmed", floors.clone()),
        DeliveryRecord::Arrived { entries, .. } => ("arrived", entries.clone()),
    }
}

/// Where in the file the last byte ends that is not zero, looked for from `from` on; `from` if there is none.
fn last_written(file: &dyn File, from: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let (mut position, mut last) = (from, from);
    while let Some(data) = file.next_data_at(position)? {
        let held = match file.read_into(data, &mut buffer) {
            // Whatever lies there was written once.
            Err(error) if is_unreadable(&error) => {
                position = data + buffer.len() as u64;
                last = position;
                continue;
            }
            held => held?,
        };
        if held == 0 {
            break;
        }
        if let Some(place) = buffer[..held].iter().rposition(|byte| *byte != 0) {
            last = data + place as u64 + 1;
        }
        position = data + held as u64;
    }
    Ok(last)
}
