//! Requests between members, field by field in the order of the contract's types.

use crate::codec::{CodecError, Reader, put_option, put_text, read_store_group_name};
use gantry_proto::contract::{
    ControllerChange, JoinStoreRequest, ProxyAliveRequest, RenewLeaseRequest, StorePositions,
};
use gantry_proto::model::{ClusterId, Epoch, FolderId, LogOffset, ProxyId, StoreGroupId};

pub(super) fn put_join(request: &JoinStoreRequest) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, request.group.as_str());
    out.extend(request.folder.0);
    put_option(&mut out, request.cluster, |out, cluster| out.extend(cluster.0));
    put_text(&mut out, &request.address);
    out.extend(request.last_epoch.0.to_le_bytes());
    put_text(&mut out, &request.version);
    out
}

pub(super) fn read_join(reader: &mut Reader<'_>) -> Result<JoinStoreRequest, CodecError> {
    Ok(JoinStoreRequest {
        group: read_store_group_name(reader)?,
        folder: FolderId(reader.array()?),
        cluster: reader.option(|reader| reader.array().map(ClusterId))?,
        address: reader.text()?.into(),
        last_epoch: Epoch(reader.u32()?),
        version: reader.text()?.into(),
    })
}

pub(super) fn put_renew(request: &RenewLeaseRequest) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(request.group.0.to_le_bytes());
    out.extend(request.epoch.0.to_le_bytes());
    put_positions(&mut out, &request.positions);
    out
}

pub(super) fn read_renew(reader: &mut Reader<'_>) -> Result<RenewLeaseRequest, CodecError> {
    Ok(RenewLeaseRequest {
        group: StoreGroupId(reader.u32()?),
        epoch: Epoch(reader.u32()?),
        positions: read_positions(reader)?,
    })
}

pub(super) fn put_give_up(group: StoreGroupId, epoch: Epoch) -> Vec<u8> {
    [group.0.to_le_bytes(), epoch.0.to_le_bytes()].concat()
}

pub(super) fn read_give_up(reader: &mut Reader<'_>) -> Result<(StoreGroupId, Epoch), CodecError> {
    Ok((StoreGroupId(reader.u32()?), Epoch(reader.u32()?)))
}

pub(super) fn put_proxy_alive(request: &ProxyAliveRequest) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(request.id.0);
    put_text(&mut out, &request.address);
    put_text(&mut out, &request.version);
    out.extend(request.sessions.to_le_bytes());
    out
}

pub(super) fn read_proxy_alive(reader: &mut Reader<'_>) -> Result<ProxyAliveRequest, CodecError> {
    Ok(ProxyAliveRequest {
        id: ProxyId(reader.array()?),
        address: reader.text()?.into(),
        version: reader.text()?.into(),
        sessions: reader.u32()?,
    })
}

pub(super) fn put_change(change: &ControllerChange) -> Vec<u8> {
    let mut out = Vec::new();
    match change {
        ControllerChange::Add { id, address } => {
            out.push(1);
            out.extend(id.to_le_bytes());
            put_text(&mut out, address);
        }
        ControllerChange::Remove { id } => {
            out.push(2);
            out.extend(id.to_le_bytes());
        }
    }
    out
}

pub(super) fn read_change(reader: &mut Reader<'_>) -> Result<ControllerChange, CodecError> {
    match reader.u8()? {
        1 => Ok(ControllerChange::Add { id: reader.u64()?, address: reader.text()?.to_owned() }),
        2 => Ok(ControllerChange::Remove { id: reader.u64()? }),
        _ => Err(CodecError::Damaged("a change of members is of no known kind")),
    }
}

pub(super) fn put_positions(out: &mut Vec<u8>, positions: &StorePositions) {
    for position in [positions.retained_from, positions.confirmed_to, positions.appended_to] {
        out.extend(position.0.to_le_bytes());
    }
}

pub(super) fn read_positions(reader: &mut Reader<'_>) -> Result<StorePositions, CodecError> {
    Ok(StorePositions {
        retained_from: LogOffset(reader.u64()?),
        confirmed_to: LogOffset(reader.u64()?),
        appended_to: LogOffset(reader.u64()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::whole;
    use crate::testing::store_group_name;

    #[test]
    fn requests_read_back_as_they_were_written() {
        for cluster in [None, Some(ClusterId([7; 16]))] {
            let join = JoinStoreRequest {
                group: store_group_name("s"),
                folder: FolderId([1; 16]),
                cluster,
                address: "a:1".into(),
                last_epoch: Epoch(9),
                version: "0.1".into(),
            };
            assert_eq!(whole(&put_join(&join), read_join), Ok(join));
        }
        let positions = StorePositions {
            retained_from: LogOffset(1),
            confirmed_to: LogOffset(2),
            appended_to: LogOffset(u64::MAX),
        };
        let renew = RenewLeaseRequest { group: StoreGroupId(3), epoch: Epoch(4), positions };
        assert_eq!(whole(&put_renew(&renew), read_renew), Ok(renew));
        let given_up = (StoreGroupId(3), Epoch(4));
        assert_eq!(whole(&put_give_up(given_up.0, given_up.1), read_give_up), Ok(given_up));
        let alive =
            ProxyAliveRequest { id: ProxyId([2; 16]), address: "p:1".into(), version: "0.1".into(), sessions: 5 };
        assert_eq!(whole(&put_proxy_alive(&alive), read_proxy_alive), Ok(alive));
        let changes = [ControllerChange::Add { id: 4, address: "c:1".to_owned() }, ControllerChange::Remove { id: 4 }];
        for change in changes {
            assert_eq!(whole(&put_change(&change), read_change), Ok(change));
        }
    }
}
