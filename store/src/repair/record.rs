//! Giving up a damaged part of the log, by its name: the offset that `gantry inspect` shows.
//!
//! The log's bytes stay as they are. What is written is the operator's decision, in the list of damaged parts, which is
//! replaced as a whole: at every moment it says what it said before, or this.

use super::concerned::{self, Concerned, LostOf, ToldBy};
use super::{Change, Repair, RepairError, io_error, lock, present, refused};
use crate::commit_log::damage::{self, DamageCause, DamagedRange, Standing};
use crate::commit_log::record::RecordError;
use crate::identity::Identity;
use gantry_proto::env::Env;
use gantry_proto::model::LogOffset;
use std::path::Path;

impl Repair {
    /// Gives up the damaged part of the log that begins at `at`: groups pass what lay there, as if it had expired.
    pub fn record(env: &Env, dir: &Path, at: LogOffset) -> Result<Repair, RepairError> {
        let lock = lock(env, dir)?;
        let files = &*env.files;
        match Identity::load(files, dir) {
            Ok(Some(_)) => {}
            Ok(None) => {
                return refused(format!("{0} has no identity: do `gantry repair identity {0}` first", dir.display()));
            }
            Err(error) => return refused(format!("{}: {error}", dir.display())),
        }
        let known = match damage::read(files, dir) {
            Ok(known) => known,
            Err(error) => return refused(error.to_string()),
        };
        let is_open = |range: &&DamagedRange| range.standing == Standing::Open;
        let noted = known.iter().filter(is_open).find(|range| range.from == at).copied();
        // Whether it is damaged the log itself says, but for what no file holds.
        let asked = noted.map_or(at..at.plus(1), |noted| noted.from..noted.to);
        let mut found = concerned::find(files, dir, &asked, known.clone())?;
        let seen = found.damaged.iter().find(|(range, _)| range.start == at).cloned();
        let range = match (noted, seen) {
            (Some(noted), _) if noted.cause == DamageCause::Missing => noted,
            (_, Some((range, cause))) => {
                let cause = if cause == RecordError::Unreadable.to_string() {
                    DamageCause::Unreadable
                } else {
                    DamageCause::Changed
                };
                let range = DamagedRange::found(range.start, range.end, cause, env.clock.now());
                DamagedRange { found_at: noted.map_or(range.found_at, |noted| noted.found_at), ..range }
            }
            (_, None) => return refused(why_not(at, &known, &found.damaged, noted.is_some())),
        };
        if known.iter().any(|known| known.is_given_up() && known.from <= range.from && range.to <= known.to) {
            return refused(format!("what is damaged at {at} is given up already"));
        }
        if asked != (range.from..range.to) {
            found = concerned::find(files, dir, &(range.from..range.to), known.clone())?;
        }
        let DamagedRange { from, to, cause, .. } = range;
        let bytes = to.0 - from.0;
        let steps = vec![
            format!("Give up {bytes} bytes of the log, from {from} to {to}: {cause}"),
            "Groups pass what lay there, as if it had expired; nothing is removed from the log's files".to_owned(),
        ];
        let lost = sentences(&found.concerned);
        let touched = present(files, dir, |name| name == damage::NAME)?;
        let given_up = DamagedRange { standing: Standing::GivenUp(env.clock.now()), ..range };
        let mut ranges: Vec<_> = known;
        ranges.retain(|known| known.from < from || known.to > to);
        let place = ranges.partition_point(|known| known.from < from);
        ranges.insert(place, given_up);
        let (env, dir) = (env.clone(), dir.to_owned());
        let (change, concerned) = (Change::Damage(ranges), Some((given_up, found.concerned)));
        Ok(Repair { _lock: lock, env, dir, steps, lost, touched, change, concerned })
    }

    /// Writes the decision.
    pub(super) fn give_up(&self, ranges: &[DamagedRange]) -> Result<(), RepairError> {
        damage::replace(&*self.env.files, &self.dir, ranges)
            .map_err(io_error("writing the list of damaged parts in", &self.dir))
    }
}

fn why_not(
    at: LogOffset,
    known: &[DamagedRange],
    damaged: &[(std::ops::Range<LogOffset>, String)],
    noted: bool,
) -> String {
    if noted {
        return format!("the log is whole at {at} again: the next start sees that by itself");
    }
    if let Some(given_up) = known.iter().find(|range| range.is_given_up() && range.from <= at && at < range.to) {
        return format!("the part from {} to {} is given up already", given_up.from, given_up.to);
    }
    let places = damaged.iter().map(|(range, _)| range.clone());
    let places = places.chain(known.iter().map(|range| range.from..range.to));
    let mut within = places.filter(|range| range.contains(&at));
    match within.next() {
        Some(range) => format!(
            "no damaged part begins at {at}, but one from {} to {} holds it: name it by --offset {}",
            range.start, range.end, range.start
        ),
        None => format!("nothing is damaged at {at}. gantry inspect verify shows what is, and where"),
    }
}

fn sentences(concerned: &Concerned) -> Vec<String> {
    let mut said = Vec::new();
    for lost in &concerned.messages {
        let how = match lost.told_by {
            ToldBy::Index => "as the index of the segment says",
            ToldBy::Neighbours => "as their neighbours in the queue show",
            ToldBy::NeighboursOfSeveral => "or they lay in another damaged part between the same neighbours",
            ToldBy::Checkpoint => "as the checkpoint says",
        };
        let (topic, queue, first) = (lost.topic, lost.queue, lost.first);
        said.push(match lost.end.0 - lost.first.0 {
            1 => format!("Topic {topic}, queue {queue}: the message at queue offset {first}, {how}"),
            count => format!("Topic {topic}, queue {queue}: {count} messages from queue offset {first} on, {how}"),
        });
    }
    for of in &concerned.groups {
        let LostOf { group, topic, queue, finished, outstanding, set_aside, to_come } = of;
        said.push(format!(
            "Group {group} on topic {topic}, queue {queue}: of these {finished} were finished, {outstanding} received and not \
             finished, {set_aside} set aside, {to_come} to come"
        ));
    }
    if concerned.messages.is_empty() {
        said.push("No message is known to have lain there: no queue lacks one".to_owned());
    }
    if let Some(claims) = &concerned.claims {
        said.push(format!("The damaged record says of itself, and nothing checks it: {claims}"));
    }
    said.push("If a group's progress lay there, what it had acknowledged may come once more".to_owned());
    said
}
