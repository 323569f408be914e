//! A whole store folder: every file by itself, and the files against one another.

use super::own_files::{IdentityFacts, PositionsFacts, PositionsSlot, read_identity, read_positions};
use super::segment::{Ending, RecordContent, Seen, SegmentFile, bases_in};
use super::{IndexFile, InspectError, io_error};
use crate::checkpoint::{self, Position};
use crate::commit_log::damage::{self, DamageCause, DamagedRange, Standing};
use crate::commit_log::positions::POSITIONS_NAME;
use crate::commit_log::prepared::PREPARED_NAME;
use crate::commit_log::recovery::SET_ASIDE;
use crate::commit_log::segment::{index_name, parse_name, segment_name};
use crate::queue_index::Indexed;
use crate::rebuild::LOG_DIR;
use gantry_proto::env::Files;
use gantry_proto::model::{Epoch, LogOffset, QueueId, QueueOffset, TopicId};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// One thing that a look at a folder showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Which file or folder.
    pub path: PathBuf,
    /// Where in the log, if it is about a place there.
    pub at: Option<LogOffset>,
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is as it should be.
    Whole,
    /// Worth knowing; the server deals with it by itself.
    Note,
    /// Something is damaged, missing, contradictory, or of a newer version.
    Problem,
}

/// What was looked at, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: u64,
    /// Whole records.
    pub records: u64,
    /// Messages among them.
    pub messages: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Findings that are problems.
    pub problems: u64,
    /// Findings that are notes.
    pub notes: u64,
}

/// Reads all of a store's folder and tells what it finds, file by file.
pub fn verify_store(files: &dyn Files, dir: &Path, tell: &mut dyn FnMut(Finding)) -> Result<Verified, InspectError> {
    let log = dir.join(LOG_DIR);
    let mut verifier = Verifier {
        files,
        dir,
        log,
        tell,
        sum: Verified::default(),
        queues: HashMap::new(),
        known: Vec::new(),
        gaps: Vec::new(),
    };
    verifier.run()?;
    Ok(verifier.sum)
}

struct Verifier<'a> {
    files: &'a dyn Files,
    dir: &'a Path,
    log: PathBuf,
    tell: &'a mut dyn FnMut(Finding),
    sum: Verified,
    /// Where each queue goes on, and where its last message lies.
    queues: HashMap<(TopicId, QueueId), (QueueOffset, LogOffset)>,
    /// Damage that the server knows of.
    known: Vec<DamagedRange>,
    /// Where parts of the log end that are damaged or missing, or were: messages in front of them may not be followed by the
    /// next of their queue.
    gaps: Vec<LogOffset>,
}

/// What a segment's walk found out.
struct Walked {
    /// Where its records end.
    end: LogOffset,
    epoch: Epoch,
    entries: Fingerprint,
    /// Where the first part begins that is damaged or missing.
    lost_from: Option<LogOffset>,
}

/// Messages as a set: equal for a segment and its index, in whatever order they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    count: u64,
    sum: u64,
}

impl Fingerprint {
    fn add(&mut self, fields: [u64; 7]) {
        // splitmix64 over the fields: a difference in any of them changes the sum.
        let mixed = fields.into_iter().fold(0u64, |state, field| {
            let mut z = (state ^ field).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        self.count += 1;
        self.sum = self.sum.wrapping_add(mixed);
    }
}

const RESTORE: &str = "restore the file from a backup";
const GO_ON_WITHOUT: &str =
    "restore the file from a backup, or start once with store.accept_missing_log = true to go on without";
const USE_NEWER: &str = "use the version of Gantry that wrote it, or a later one";

impl Verifier<'_> {
    fn run(&mut self) -> Result<(), InspectError> {
        // In this order: of a running server, what is proven here is in the segments when they are read.
        let positions = self.positions()?;
        let identity = self.identity();
        self.register();
        let bases = match bases_in(self.files, &self.log) {
            Err(InspectError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            bases => bases?,
        };
        if let (Some(positions), Some(identity)) = (positions, &identity)
            && positions.folder != identity.folder
        {
            let what =
                format!("it belongs to the data folder {}, and this one is {}", positions.folder, identity.folder);
            self.problem(POSITIONS_NAME, None, what, "find out which files were mixed up; restore those of one folder");
        }
        let retained_from = positions.map_or(LogOffset(0), |positions| positions.retained_from);
        let mut kept = Vec::new();
        for base in bases {
            if base < retained_from {
                let what = "retention has removed it from the log already; the next start removes the file".into();
                self.say(Severity::Note, self.log.join(segment_name(base)), None, what, None);
            } else {
                kept.push(base);
            }
        }
        match (kept.first(), positions) {
            (Some(first), Some(positions))
                if *first > positions.retained_from && !self.is_accepted(positions.retained_from) =>
            {
                let what =
                    format!("the log should begin at {}: what lies before {first} is missing", positions.retained_from);
                self.problem(LOG_DIR, Some(positions.retained_from), what, "put the missing segments back, or start once with store.accept_missing_log = true to go on without");
            }
            (None, Some(positions)) if positions.flushed_to > positions.retained_from => {
                let what = format!("no segment is there, and the log reached to {}", positions.flushed_to);
                self.problem(LOG_DIR, Some(positions.retained_from), what, "put the missing segments back, or start once with store.accept_missing_log = true to go on without");
            }
            (None, _) => self.say(Severity::Note, self.log.clone(), None, "the log is empty".into(), None),
            _ => {}
        }
        let mut epoch = Epoch(0);
        let mut end = retained_from;
        for (place, base) in kept.iter().enumerate() {
            let next = kept.get(place + 1).copied();
            let flushed_to = positions.map(|positions| positions.flushed_to);
            let Some(walked) = self.segment(*base, next, flushed_to, identity.as_ref(), epoch)? else { continue };
            (epoch, end) = (walked.epoch, walked.end);
            if let Some(next) = next {
                self.index(*base, next, &walked)?;
            }
        }
        if let Some(identity) = &identity
            && epoch > identity.last_epoch
        {
            let what =
                format!("it knows epochs up to {}, and the log was written in epoch {epoch}", identity.last_epoch);
            self.say(
                Severity::Note,
                self.dir.join("identity"),
                None,
                what,
                Some("an older copy of the file was put back"),
            );
        }
        self.checkpoint(retained_from, end);
        self.leftovers(&kept)
    }

    /// What the server has noted as damaged.
    fn register(&mut self) {
        match damage::read(self.files, self.dir) {
            Ok(known) => {
                self.gaps.extend(known.iter().map(|range| range.to));
                self.known = known.into_iter().filter(|range| !range.is_whole_again()).collect();
            }
            Err(error) => self.problem(damage::NAME, None, error.to_string(), USE_NEWER),
        }
        for DamagedRange { from, to, cause, standing, .. } in self.known.clone() {
            let what = match standing {
                _ if cause == DamageCause::Missing => {
                    format!("an operator goes on without the log up to {to}: {cause}")
                }
                Standing::GivenUp(at) => format!("given up by an operator at {at}, up to {to}: {cause}"),
                _ => format!("set aside up to {to}: {cause}"),
            };
            self.say(Severity::Note, self.dir.join(damage::NAME), Some(from), what, None);
        }
    }

    /// An operator said that the log goes on without what lay at `at`: gave it up, or let the server start without it.
    fn is_accepted(&self, at: LogOffset) -> bool {
        let accepted = |range: &DamagedRange| range.is_given_up() || range.cause == DamageCause::Missing;
        self.known.iter().any(|range| accepted(range) && range.from <= at && at < range.to)
    }

    /// Says so, if the server knows of damage at `at`.
    fn if_known(&self, at: LogOffset) -> &'static str {
        let known = self.known.iter().any(|range| range.from <= at && at < range.to);
        if known { ". The server knows, and has set it aside" } else { "" }
    }

    fn positions(&mut self) -> Result<Option<PositionsFacts>, InspectError> {
        let Some(slots) = read_positions(self.files, self.dir)? else {
            let what = "it is missing: nothing proves how far the log was on this disk".into();
            self.problem(POSITIONS_NAME, None, what, RESTORE);
            return Ok(None);
        };
        let mut newest: Option<(u64, PositionsFacts)> = None;
        let (mut damaged, mut newer) = (0, None);
        for slot in slots {
            match slot {
                PositionsSlot::Whole { sequence, positions } if newest.is_none_or(|(held, _)| sequence > held) => {
                    newest = Some((sequence, positions));
                }
                PositionsSlot::Whole { .. } => {}
                PositionsSlot::Newer(format) => newer = Some(format),
                PositionsSlot::Damaged => damaged += 1,
            }
        }
        let newest = newest.map(|(_, positions)| positions);
        if let Some(format) = newer {
            let what = format!("it was written by a newer Gantry (format {format})");
            self.problem(POSITIONS_NAME, None, what, USE_NEWER);
        } else if let Some(positions) = newest {
            let what = format!(
                "the log begins at {} and is on disk up to {}, confirmed up to {}, in epoch {}",
                positions.retained_from, positions.flushed_to, positions.confirmed_to, positions.epoch
            );
            let (severity, torn) = match damaged {
                0 => (Severity::Whole, ""),
                _ => (Severity::Note, "; one of its two copies is not whole, which a write that was under way leaves"),
            };
            self.say(severity, self.dir.join(POSITIONS_NAME), None, what + torn, None);
        } else {
            self.problem(POSITIONS_NAME, None, "both copies in it are damaged".into(), GO_ON_WITHOUT);
        }
        Ok(newest)
    }

    fn identity(&mut self) -> Option<IdentityFacts> {
        let mut found: Vec<IdentityFacts> = Vec::new();
        let mut bad = Vec::new();
        for copy in read_identity(self.files, self.dir) {
            match copy.facts {
                Ok(Some(facts)) => found.push(facts),
                Ok(None) => bad.push((copy.name, "it is missing".to_owned(), false)),
                Err(cause) => bad.push((copy.name, cause, copy.newer)),
            }
        }
        if let [first, copy] = &found[..]
            && first.folder != copy.folder
        {
            let what = format!("identity is of the folder {}, but identity.copy of {}", first.folder, copy.folder);
            self.problem("identity", None, what, "remove the one that does not belong here");
            return None;
        }
        let newest = found.into_iter().max_by_key(|facts| facts.written);
        for (name, cause, newer) in bad {
            match (&newest, newer) {
                (_, true) => self.problem(name, None, cause, USE_NEWER),
                (Some(_), false) => {
                    let what = format!("{cause}; the next start makes it again from the other one");
                    self.say(Severity::Note, self.dir.join(name), None, what, None);
                }
                (None, false) => {
                    let dir = self.dir.display();
                    let advice = format!("restore it from a backup, or make it again: `gantry repair identity {dir}`");
                    self.problem(name, None, cause, &advice);
                }
            }
        }
        if let Some(facts) = &newest {
            let home = match &facts.home {
                Some((cluster, _, name)) => format!("store group {name} of cluster {cluster}"),
                None => "no cluster yet".to_owned(),
            };
            let what = format!("folder {}, of {home}, last epoch {}", facts.folder, facts.last_epoch);
            self.say(Severity::Whole, self.dir.join("identity"), None, what, None);
        }
        newest
    }

    fn segment(
        &mut self,
        base: LogOffset,
        next: Option<LogOffset>,
        flushed_to: Option<LogOffset>,
        identity: Option<&IdentityFacts>,
        epoch: Epoch,
    ) -> Result<Option<Walked>, InspectError> {
        let path = self.log.join(segment_name(base));
        let file = match SegmentFile::open_between(self.files, &path, next, flushed_to) {
            Ok(file) => file,
            Err(InspectError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.say(Severity::Note, path, None, "it was removed meanwhile: a server runs here".into(), None);
                return Ok(None);
            }
            Err(InspectError::Newer { cause, .. }) => {
                self.say(Severity::Problem, path, Some(base), cause, Some(USE_NEWER));
                return Ok(None);
            }
            Err(error) => {
                self.say(Severity::Problem, path, Some(base), error.to_string(), Some(RESTORE));
                return Ok(None);
            }
        };
        self.sum.segments += 1;
        let facts = file.facts().clone();
        let problems = self.sum.problems;
        if let Some(cause) = &facts.header_damage {
            let needed_to = next.or(flushed_to).unwrap_or(base).max(base);
            if file.shows_nothing(needed_to) {
                let lost = match needed_to > base {
                    true => format!("the log is missing from here to {needed_to}"),
                    false => "nothing proves that messages were in it".to_owned(),
                };
                self.gaps.push(needed_to);
                self.say(Severity::Problem, path, Some(base), format!("{cause}: {lost}"), Some(GO_ON_WITHOUT));
                return Ok(Some(Walked {
                    end: needed_to,
                    epoch,
                    entries: Fingerprint::default(),
                    lost_from: Some(base),
                }));
            }
            let advice = "no message is in it: the next start writes it anew, if the rest shows that it is this log's";
            self.say(Severity::Problem, path.clone(), Some(base), cause.clone(), Some(advice));
        } else if let Some(identity) = identity {
            let home = identity.home.as_ref();
            let cluster = facts.cluster.zip(home.map(|home| home.0)).is_some_and(|(found, own)| found != own);
            let group = facts.group.zip(home.map(|home| home.1)).is_some_and(|(found, own)| found != own);
            if facts.folder != identity.folder || cluster || group {
                let what = format!("it was written in another data folder, {}", facts.folder);
                self.say(
                    Severity::Problem,
                    path.clone(),
                    Some(base),
                    what,
                    Some("remove it, and put the right one back"),
                );
            }
        }
        let mut walked = Walked { end: base, epoch, entries: Fingerprint::default(), lost_from: None };
        let (mut records, mut messages, mut begun) = (0, 0, false);
        let ending = file.walk(|seen| {
            walked.end = seen.end();
            match seen {
                Seen::Record(record) => {
                    if record.epoch < epoch && !begun {
                        let what =
                            format!("it begins in epoch {}, but the segment before ends in {epoch}", record.epoch);
                        self.say(Severity::Problem, path.clone(), Some(record.at), what, Some(RESTORE));
                    }
                    (walked.epoch, begun, records) = (record.epoch, true, records + 1);
                    self.sum.bytes += u64::from(record.len);
                    if let Some(message) = record.message() {
                        messages += 1;
                        let hashes = Indexed::of(record.topic, &message.head);
                        let (log_offset, queue) = (record.at.0, u64::from(record.queue.0));
                        walked.entries.add([
                            u64::from(record.topic.0) << 32 | queue,
                            record.queue_offset.0,
                            log_offset,
                            u64::from(record.len),
                            u64::from(hashes.tag_hash),
                            u64::from(hashes.message_group_hash),
                            record.store_time.as_millis(),
                        ]);
                        if let Some(what) = self.follow(record.topic, record.queue, record.queue_offset, record.at) {
                            self.say(Severity::Problem, path.clone(), Some(record.at), what, Some(RESTORE));
                        }
                    }
                    if let RecordContent::Other(kind) = &record.content
                        && kind.starts_with("Unknown")
                    {
                        let what = format!("a record of a later version that may be passed over: {kind}");
                        self.say(Severity::Note, path.clone(), Some(record.at), what, None);
                    }
                }
                Seen::NotUnderstood { at, cause, newer, .. } => {
                    walked.lost_from.get_or_insert(at);
                    self.gaps.push(walked.end);
                    let advice = if newer { USE_NEWER } else { "please report it: this should not be possible" };
                    self.say(Severity::Problem, path.clone(), Some(at), cause, Some(advice));
                }
                Seen::Damaged { at, to, cause } => {
                    walked.lost_from.get_or_insert(at);
                    self.gaps.push(to);
                    let (bytes, known) = (to.0 - at.0, self.if_known(at));
                    let what = format!("{bytes} bytes are damaged ({cause}); whole again from {to} on");
                    if self.is_accepted(at) {
                        let what = what + ". An operator chose to go on without them";
                        self.say(Severity::Note, path.clone(), Some(at), what, None);
                    } else {
                        let advice = format!(
                            "restore the file from a backup; or see what lay there, and give it up: `gantry repair record {} \
                             --offset {at}`",
                            self.dir.display()
                        );
                        self.say(Severity::Problem, path.clone(), Some(at), what + known, Some(&advice));
                    }
                }
            }
            ControlFlow::Continue(())
        });
        (self.sum.records, self.sum.messages) = (self.sum.records + records, self.sum.messages + messages);
        let end = match ending {
            Ok(Ending::Complete { at } | Ending::LogEnds { at }) => at,
            Ok(Ending::Unfinished { at, cause, bytes }) => {
                let what = format!(
                    "{bytes} bytes behind the end of the log are of a write that did not end ({cause}); the next start cuts \
                     them off"
                );
                self.say(Severity::Note, path.clone(), Some(at), what, None);
                at
            }
            Ok(Ending::Missing { at, to, cause }) => {
                let what = format!("the log is missing from here to {to}: {cause}{}", self.if_known(at));
                if self.is_accepted(at) {
                    self.say(Severity::Note, path.clone(), Some(at), what, None);
                } else {
                    self.say(Severity::Problem, path.clone(), Some(at), what, Some(GO_ON_WITHOUT));
                }
                walked.lost_from.get_or_insert(at);
                self.gaps.push(to);
                // What else needs it, or follows, says nothing new.
                to
            }
            Ok(Ending::Stopped) => walked.end,
            Err(error) => {
                let advice = "copy the folder to a disk that can be read, and restore this file from a backup";
                self.say(Severity::Problem, path.clone(), Some(walked.end), error.to_string(), Some(advice));
                walked.lost_from.get_or_insert(walked.end);
                self.gaps.push(next.unwrap_or(walked.end));
                walked.end
            }
        };
        walked.end = end;
        if self.sum.problems == problems {
            let what = format!("{records} records, {messages} of them messages, up to {end}");
            self.say(Severity::Whole, path, Some(base), what, None);
        }
        Ok(Some(walked))
    }

    /// Whether a message at `at` takes the place in its queue that it must have. Behind damage some may be missing.
    fn follow(&mut self, topic: TopicId, queue: QueueId, offset: QueueOffset, at: LogOffset) -> Option<String> {
        match self.queues.entry((topic, queue)) {
            Entry::Vacant(entry) => {
                entry.insert((offset.next(), at));
                None
            }
            Entry::Occupied(mut entry) => {
                let (expected, last) = entry.insert((offset.next(), at));
                let between = |gap: &LogOffset| last < *gap && *gap <= at;
                let follows = offset == expected || offset > expected && self.gaps.iter().any(between);
                (!follows).then(|| {
                    format!("topic {topic}, queue {queue}: it has queue offset {offset}, and {expected} comes next")
                })
            }
        }
    }

    fn index(&mut self, base: LogOffset, end: LogOffset, walked: &Walked) -> Result<(), InspectError> {
        const REBUILT: &str = "it is made of its segment: the next start makes it again";
        let path = self.log.join(index_name(base));
        let note = |verifier: &mut Self, what: String| {
            verifier.say(Severity::Note, path.clone(), None, what, Some(REBUILT));
        };
        if !self.exists(&self.log, &index_name(base))? {
            note(self, "it is missing".into());
            return Ok(());
        }
        let problem = |verifier: &mut Self, what: String| {
            verifier.say(Severity::Problem, path.clone(), None, what, Some(REBUILT));
        };
        let read = || -> Result<_, super::IndexFileError> {
            let index = IndexFile::open(self.files, &path)?;
            let contents = index.contents();
            let mut entries = Fingerprint::default();
            if contents.as_ref().is_ok_and(|contents| contents.damaged_blocks.is_empty()) {
                for run in index.runs()? {
                    for entry in index.entries(&run)?.into_iter().filter(|entry| entry.len > 0) {
                        entries.add([
                            u64::from(run.topic.0) << 32 | u64::from(run.queue.0),
                            entry.queue_offset.0,
                            entry.log_offset.0,
                            u64::from(entry.len),
                            u64::from(entry.tag_hash),
                            u64::from(entry.message_group_hash),
                            entry.store_time.as_millis(),
                        ]);
                    }
                }
            }
            Ok((contents, entries))
        };
        match read() {
            Err(error) => problem(self, error.to_string()),
            Ok((Err(error), _)) => problem(self, error.to_string()),
            Ok((Ok(contents), _)) if !contents.damaged_blocks.is_empty() => {
                problem(self, format!("damaged in blocks {:?}", contents.damaged_blocks));
            }
            // What is missing behind its segment is another matter.
            Ok((Ok(contents), _))
                if contents.base != base || contents.end != end && walked.lost_from != Some(contents.end) =>
            {
                problem(self, format!("it is of the segment from {} to {}", contents.base, contents.end));
            }
            Ok((Ok(_), entries)) if entries != walked.entries && walked.lost_from.is_none() => {
                let (held, found) = (entries.count, walked.entries.count);
                problem(
                    self,
                    format!("it does not agree with its segment: it names {held} messages, of {found} there"),
                );
            }
            Ok((Ok(_), entries)) => {
                let what = format!("{} messages, as in its segment", entries.count);
                let what = if walked.lost_from.is_some() { format!("{} messages", entries.count) } else { what };
                self.say(Severity::Whole, path, None, what, None);
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, retained_from: LogOffset, end: LogOffset) {
        let generations = match checkpoint::look(self.files, self.dir) {
            Ok(generations) => generations,
            Err(error) => return self.problem("checkpoint", None, error.to_string(), RESTORE),
        };
        if generations.is_empty() {
            let path = self.dir.join("checkpoint");
            if retained_from > LogOffset(0) {
                let what = "there is none, and the log does not begin at its first record".into();
                return self.say(Severity::Problem, path, None, what, Some(RESTORE));
            }
            let what = "there is none yet: the next start reads the whole log".into();
            return self.say(Severity::Note, path, None, what, None);
        }
        let any_whole = generations.iter().any(|generation| generation.read.is_ok());
        for generation in generations {
            let path = generation.path;
            match generation.read {
                Ok((snapshot, cut_off)) => {
                    let Position { at, log_to, .. } = snapshot.position;
                    if at < retained_from || at > end || log_to > end {
                        let what = format!(
                            "it needs the log from {at} on and knows it up to {log_to}; it reaches from {retained_from} to {end}"
                        );
                        self.say(Severity::Problem, path, Some(at), what, Some(RESTORE));
                        continue;
                    }
                    let (queues, shards) = (snapshot.queues.len(), snapshot.shards.len());
                    let what = format!("progress up to {at}: {queues} queues, {shards} groups on topics");
                    self.say(Severity::Whole, path.clone(), Some(at), what, None);
                    if cut_off {
                        let what = "its end is cut off or damaged".into();
                        let advice =
                            "the next start reads more of the log instead, and the next checkpoint replaces it";
                        self.say(Severity::Problem, path, Some(at), what, Some(advice));
                    }
                }
                Err(why) if any_whole && !generation.newer => {
                    let advice =
                        "another checkpoint is whole, and the next start uses that; the one after the next replaces it";
                    self.say(Severity::Problem, path, None, why, Some(advice));
                }
                Err(why) => self.say(Severity::Problem, path, None, why, Some(RESTORE)),
            }
        }
    }

    /// Files that belong to nothing.
    fn leftovers(&mut self, kept: &[LogOffset]) -> Result<(), InspectError> {
        for dir in [self.dir.to_owned(), self.log.clone()] {
            let mut names = match self.files.list(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                names => names.map_err(io_error("listing", &dir))?,
            };
            names.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in names {
                let index = parse_name(&entry.name, "index");
                if entry.name.contains(SET_ASIDE) {
                    let what = "a start set it aside, because it is not a segment of this log: nothing reads it".into();
                    let advice = "look whether something in it is still needed; then remove it";
                    self.say(Severity::Note, dir.join(&entry.name), None, what, Some(advice));
                    continue;
                }
                let what = if entry.name.ends_with(".tmp") {
                    "it was being written when the server went down; the next start removes it"
                } else if entry.name == PREPARED_NAME {
                    continue;
                } else if index.is_some_and(|base| kept.last() == Some(&base) || kept.binary_search(&base).is_err()) {
                    "it is of no sealed segment that is there; the next start removes it"
                } else {
                    continue;
                };
                self.say(Severity::Note, dir.join(&entry.name), None, what.into(), None);
            }
        }
        Ok(())
    }

    fn exists(&self, dir: &Path, name: &str) -> Result<bool, InspectError> {
        let names = self.files.list(dir).map_err(io_error("listing", dir))?;
        Ok(names.iter().any(|entry| entry.name == name))
    }

    fn problem(&mut self, name: &str, at: Option<LogOffset>, what: String, advice: &str) {
        self.say(Severity::Problem, self.dir.join(name), at, what, Some(advice));
    }

    fn say(&mut self, severity: Severity, path: PathBuf, at: Option<LogOffset>, what: String, advice: Option<&str>) {
        match severity {
            Severity::Whole => {}
            Severity::Note => self.sum.notes += 1,
            Severity::Problem => self.sum.problems += 1,
        }
        (self.tell)(Finding { severity, path, at, what, advice: advice.map(str::to_owned) });
    }
}
