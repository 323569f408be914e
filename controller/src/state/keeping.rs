//! What the controller keeps of a store group and nobody watches: the group's secret, and what it takes to know its leaders
//! again.

use gantry_proto::contract::{JoinStoreRequest, PreviousLeader};
use gantry_proto::convert::{Malformed, Wire};
use gantry_proto::model::{Epoch, FolderId, GroupSecret, LogOffset, PlaceId, ProcessId, StoreGroupId};
use gantry_proto::wire::controller::v1 as wire;
use std::collections::BTreeMap;

/// Kept for one store group, from its creation to its removal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Keeping {
    pub(crate) secret: GroupSecret,
    /// Who was named leader last, in the group's epoch.
    pub(crate) last: NamedLeader,
    /// The last epoch in which each folder is known to have led.
    pub(crate) led: BTreeMap<FolderId, Epoch>,
    /// Up to where the log was known to be durable, in the leadership that said so last.
    pub(crate) durable: Option<(Epoch, LogOffset)>,
}

/// A leadership as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedLeader {
    pub(crate) folder: FolderId,
    pub(crate) epoch: Epoch,
    pub(crate) process: ProcessId,
    pub(crate) place: Option<PlaceId>,
}

/// One group's, as snapshots hold it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeptGroup(pub(crate) StoreGroupId, pub(crate) Keeping);

impl NamedLeader {
    /// Whether whoever asks needs not wait for the lease of this leader: it is the same opening of the same folder, or it holds
    /// the very lock that this leader held, which then is dead. A copy of the folder has its lock elsewhere.
    pub(crate) fn is_asking(&self, request: &JoinStoreRequest) -> bool {
        let same_place = self.place.is_some() && self.place == request.place;
        self.folder == request.folder && (self.process == request.process || same_place)
    }

    pub(crate) fn as_previous(&self) -> PreviousLeader {
        PreviousLeader { folder: self.folder, epoch: self.epoch }
    }
}

impl Wire for KeptGroup {
    type Message = wire::KeptGroup;

    fn to_wire(&self) -> wire::KeptGroup {
        let KeptGroup(store_group, Keeping { secret, last, led, durable }) = self;
        wire::KeptGroup {
            group: store_group.0,
            secret: secret.to_wire(),
            folder: last.folder.to_wire(),
            epoch: last.epoch.0,
            process: last.process.to_wire(),
            place: last.place.as_ref().map(Wire::to_wire),
            led: (led.iter())
                .map(|(folder, epoch)| wire::PreviousLeader { folder: folder.to_wire(), epoch: epoch.0 })
                .collect(),
            durable: durable.map(|(epoch, to)| wire::DurableTo { epoch: epoch.0, to: to.0 }),
        }
    }

    fn from_wire(message: wire::KeptGroup) -> Result<KeptGroup, Malformed> {
        let last = NamedLeader {
            folder: FolderId::from_wire(message.folder)?,
            epoch: Epoch(message.epoch),
            process: ProcessId::from_wire(message.process)?,
            place: message.place.map(PlaceId::from_wire).transpose()?,
        };
        let led = message.led.into_iter().map(|led| Ok((FolderId::from_wire(led.folder)?, Epoch(led.epoch))));
        let (secret, led) = (GroupSecret::from_wire(message.secret)?, led.collect::<Result<_, _>>()?);
        let durable = message.durable.map(|durable| (Epoch(durable.epoch), LogOffset(durable.to)));
        Ok(KeptGroup(StoreGroupId(message.group), Keeping { secret, last, led, durable }))
    }
}
