//! What the log must hold and no file does: opening fails and says what, unless an operator chose to go on without it.

use super::error::LogOpenError;
use super::io;
use crate::commit_log::LogConfig;
use crate::commit_log::damage::{DamageCause, DamageRegister, DamagedRange};
use crate::commit_log::positions::Positions;
use crate::commit_log::segment::Segment;
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

/// What files do not hold of what the log must have.
pub(super) fn gaps(list: &[Arc<Segment>], positions: Positions) -> Result<Vec<Gap>, LogOpenError> {
    let mut gaps = Vec::new();
    let first = &list[0];
    if first.base > positions.retained_from {
        let what = format!("the first segment is {}", first.path.display());
        gaps.push(Gap { what, from: positions.retained_from, to: first.base });
    }
    for (place, segment) in list.iter().enumerate() {
        let next = list.get(place + 1);
        let held_to = segment.held_to().map_err(io("measuring", &segment.path))?;
        let needed_to = next.map_or(positions.flushed_to, |next| next.base);
        if held_to < needed_to {
            let path = segment.path.display();
            let made_for = segment.base.plus(segment.capacity);
            let what = match next {
                _ if held_to < needed_to.min(made_for) => format!("{path} was cut"),
                Some(next) => format!("{} does not follow {path}", next.path.display()),
                None => format!("{path} is not the last segment"),
            };
            gaps.push(Gap { what, from: held_to, to: needed_to });
        }
    }
    Ok(gaps)
}
