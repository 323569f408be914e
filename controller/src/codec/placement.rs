//! Where a topic's queues are. Part of topics, versioned by what holds them.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind: 1 spread, 2 every group |
//! | | spread: |
//! | 4 | number of queues |
//! | 4 each | store group of the queue |
//! | 4 | number of lanes |
//! | 4 each | queue of the lane |

use super::CodecError;
use super::fields::{Reader, put_list};
use gantry_proto::model::{Placement, QueueId, StoreGroupId};

const SPREAD: u8 = 1;
const EVERY_GROUP: u8 = 2;

pub(super) fn put_placement(out: &mut Vec<u8>, placement: &Placement) {
    match placement {
        Placement::Spread { groups, lanes } => {
            out.push(SPREAD);
            put_list(out, groups.iter(), |out, group| out.extend(group.0.to_le_bytes()));
            put_list(out, lanes.iter(), |out, lane| out.extend(lane.0.to_le_bytes()));
        }
        Placement::EveryGroup => out.push(EVERY_GROUP),
    }
}

pub(super) fn read_placement(reader: &mut Reader<'_>) -> Result<Placement, CodecError> {
    match reader.u8()? {
        SPREAD => Ok(Placement::Spread {
            groups: reader.list(|reader| reader.u32().map(StoreGroupId))?.into(),
            lanes: reader.list(|reader| reader.u32().map(QueueId))?.into(),
        }),
        EVERY_GROUP => Ok(Placement::EveryGroup),
        _ => Err(CodecError::Damaged("a placement is of no known kind")),
    }
}
