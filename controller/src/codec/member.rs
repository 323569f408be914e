//! Store groups, replicas, proxies and their identities. Part of states and answers, versioned by them.
//!
//! | bytes | what |
//! |---|---|
//! | | a store group: |
//! | 4 | id |
//! | 2 + n | name |
//! | 1 | state: 1 active, 2 draining |
//! | 4 | number of replicas |
//! | 16 + 2 + n each | folder and address |
//! | 4 | number of replicas in sync |
//! | 16 each | folder |
//! | 1 (+ 16) | folder of the leader, if any |
//! | 4 | epoch |
//! | 8 | creation time, milliseconds since the epoch |
//! | | a proxy: |
//! | 16 | id |
//! | 2 + n | address |
//! | 2 + n | software |
//! | 8 | when it joined, milliseconds since the epoch |

use super::CodecError;
use super::fields::{Reader, put_list, put_option, put_text};
use gantry_proto::model::{
    Epoch, FolderId, ProxyId, ProxyMember, Replica, StoreGroup, StoreGroupId, StoreGroupName, StoreGroupState,
    Timestamp,
};

const ACTIVE: u8 = 1;
const DRAINING: u8 = 2;

pub(crate) fn put_store_group(out: &mut Vec<u8>, group: &StoreGroup) {
    out.extend(group.id.0.to_le_bytes());
    put_text(out, group.name.as_str());
    out.push(match group.state {
        StoreGroupState::Active => ACTIVE,
        StoreGroupState::Draining => DRAINING,
    });
    put_list(out, group.replicas.iter(), |out, replica| {
        out.extend(replica.folder.0);
        put_text(out, &replica.address);
    });
    put_list(out, group.in_sync.iter(), |out, folder| out.extend(folder.0));
    put_option(out, group.leader, |out, folder| out.extend(folder.0));
    out.extend(group.epoch.0.to_le_bytes());
    out.extend(group.created_at.as_millis().to_le_bytes());
}

pub(crate) fn read_store_group(reader: &mut Reader<'_>) -> Result<StoreGroup, CodecError> {
    Ok(StoreGroup {
        id: StoreGroupId(reader.u32()?),
        name: read_store_group_name(reader)?,
        state: match reader.u8()? {
            ACTIVE => StoreGroupState::Active,
            DRAINING => StoreGroupState::Draining,
            _ => return Err(CodecError::Damaged("a store group is in no known state")),
        },
        replicas: reader
            .list(|reader| Ok(Replica { folder: FolderId(reader.array()?), address: reader.text()?.into() }))?,
        in_sync: reader.list(|reader| reader.array().map(FolderId))?,
        leader: reader.option(|reader| reader.array().map(FolderId))?,
        epoch: Epoch(reader.u32()?),
        created_at: Timestamp::from_millis(reader.u64()?),
    })
}

pub(crate) fn put_proxy(out: &mut Vec<u8>, proxy: &ProxyMember) {
    out.extend(proxy.id.0);
    put_text(out, &proxy.address);
    put_text(out, &proxy.version);
    out.extend(proxy.joined_at.as_millis().to_le_bytes());
}

pub(crate) fn read_proxy(reader: &mut Reader<'_>) -> Result<ProxyMember, CodecError> {
    Ok(ProxyMember {
        id: ProxyId(reader.array()?),
        address: reader.text()?.into(),
        version: reader.text()?.into(),
        joined_at: Timestamp::from_millis(reader.u64()?),
    })
}

pub(crate) fn read_store_group_name(reader: &mut Reader<'_>) -> Result<StoreGroupName, CodecError> {
    StoreGroupName::parse(reader.text()?).map_err(|_| CodecError::Damaged("a store group's name is not a name"))
}
