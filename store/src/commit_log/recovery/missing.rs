//! What the log must hold and no file does: opening fails and says what, unless an operator chose to go on without it.

use super::error::LogOpenError;
use super::io;
use crate::commit_log::LogConfig;
use crate::commit_log::damage::{DamageCause, DamageRegister, DamagedRange};
use crate::commit_log::positions::Positions;
use crate::commit_log::segment::Segment;
use crate::commit_log::segment_reader::SegmentReader;
use gantry_proto::model::{LogOffset, Timestamp};
use std::sync::Arc;

/// A part of the log that no file holds.
pub(super) struct Gap {
    pub what: String,
    pub from: LogOffset,
    pub to: LogOffset,
}

impl Gap {
    /// Goes on without it, if an operator chose to. That is noted.
    pub(super) fn accept(
        self,
        config: &LogConfig,
        damage: &DamageRegister,
        found_at: Timestamp,
    ) -> Result<(), LogOpenError> {
        let Gap { what, from, to } = self;
        if !config.accept_missing {
            return Err(LogOpenError::Missing { what, from, to });
        }
        tracing::warn!(%from, %to, what, "going on without a part of the log that is missing, as store.accept_missing_log says");
        if from < to {
            damage.note(DamagedRange::found(from, to, DamageCause::Missing, found_at));
        }
        Ok(())
    }
}

/// What files do not hold of what the log must have, but for what is known to be lost.
pub(super) fn gaps(
    list: &[Arc<Segment>],
    positions: Positions,
    damage: &DamageRegister,
) -> Result<Vec<Gap>, LogOpenError> {
    let mut gaps = Vec::new();
    let first = &list[0];
    if first.base > positions.retained_from && !damage.covers(positions.retained_from, first.base) {
        let what = format!("the first segment is {}", first.path.display());
        gaps.push(Gap { what, from: positions.retained_from, to: first.base });
    }
    for (place, segment) in list.iter().enumerate() {
        let next = list.get(place + 1);
        let held_to = segment.held_to().map_err(io("measuring", &segment.path))?;
        let needed_to = next.map_or(positions.flushed_to, |next| next.base);
        if held_to < needed_to && !damage.covers(held_to, needed_to) {
            let path = segment.path.display();
            let made_for = segment.base.plus(segment.capacity);
            let what = match next {
                _ if held_to < needed_to.min(made_for) => format!("{path} was cut"),
                Some(next) => format!("{} does not follow {path}", next.path.display()),
                None => format!("{path} is not the last segment"),
            };
            let from = whole_to(segment).map_err(io("reading", &segment.path))?;
            gaps.push(Gap { what, from, to: needed_to });
        }
    }
    Ok(gaps)
}

/// Where the last whole record in a file ends: what is left of the one behind it is as lost as what the file does not hold.
pub(super) fn whole_to(segment: &Segment) -> std::io::Result<LogOffset> {
    let held_to = segment.held_to()?;
    let mut reader = SegmentReader::new(segment);
    let (mut at, mut whole_to) = (segment.base, segment.base);
    while at < held_to {
        let read = reader.read(at, held_to.0 - at.0)?.map(|record| record.header.end());
        at = match read {
            Ok(end) => {
                whole_to = end;
                end
            }
            // It is there; what it says is for others to judge.
            Err(cause) if cause.is_whole() => return Ok(held_to),
            Err(_) => reader.next_whole(at, None, held_to)?,
        };
    }
    Ok(whole_to)
}
