//! Answers between members. Each begins with a byte: 0 for success, else the kind of the error.

use super::requests::{put_positions, read_positions};
use crate::codec::{
    CodecError, Reader, put_bool, put_duration, put_list, put_option, put_outcome, put_proxy, put_refusal,
    put_store_group, put_text, read_outcome, read_proxy, read_refusal, read_store_group, read_store_group_name,
};
use gantry_proto::contract::{
    ClusterStatus, ControllerStatus, LeaseTerm, MembershipError, MetadataError, ProxyStatus, StoreGrant, StoreStatus,
};
use gantry_proto::model::{ClusterId, Epoch, MetadataOutcome, MetadataVersion, StoreGroupId, Timestamp};
use std::sync::Arc;
use std::time::Duration;

type Applied = Result<(MetadataVersion, MetadataOutcome), MetadataError>;

pub(super) fn put_applied(applied: &Applied) -> Vec<u8> {
    put_or_metadata_error(applied, |out, (version, outcome)| {
        out.extend(version.0.to_le_bytes());
        put_outcome(out, outcome);
    })
}

pub(super) fn read_applied(reader: &mut Reader<'_>) -> Result<Applied, CodecError> {
    read_or_metadata_error(reader, |reader| Ok((MetadataVersion(reader.u64()?), read_outcome(reader)?)))
}

pub(super) fn put_granted(granted: &Result<StoreGrant, MembershipError>) -> Vec<u8> {
    put_or_membership_error(granted, |out, grant| {
        out.extend(grant.cluster.0);
        out.extend(grant.group.0.to_le_bytes());
        out.extend(grant.epoch.0.to_le_bytes());
        put_term(out, &grant.lease);
    })
}

pub(super) fn read_granted(reader: &mut Reader<'_>) -> Result<Result<StoreGrant, MembershipError>, CodecError> {
    read_or_membership_error(reader, |reader| {
        Ok(StoreGrant {
            cluster: ClusterId(reader.array()?),
            group: StoreGroupId(reader.u32()?),
            epoch: Epoch(reader.u32()?),
            lease: read_term(reader)?,
        })
    })
}

pub(super) fn put_renewed(renewed: &Result<LeaseTerm, MembershipError>) -> Vec<u8> {
    put_or_membership_error(renewed, put_term)
}

pub(super) fn read_renewed(reader: &mut Reader<'_>) -> Result<Result<LeaseTerm, MembershipError>, CodecError> {
    read_or_membership_error(reader, read_term)
}

pub(super) fn put_done(done: &Result<(), MembershipError>) -> Vec<u8> {
    put_or_membership_error(done, |_, ()| {})
}

pub(super) fn read_done(reader: &mut Reader<'_>) -> Result<Result<(), MembershipError>, CodecError> {
    read_or_membership_error(reader, |_| Ok(()))
}

pub(super) fn put_heard_again(within: &Result<Duration, MembershipError>) -> Vec<u8> {
    put_or_membership_error(within, |out, within| put_duration(out, *within))
}

pub(super) fn read_heard_again(reader: &mut Reader<'_>) -> Result<Result<Duration, MembershipError>, CodecError> {
    read_or_membership_error(reader, Reader::duration)
}

pub(super) fn put_changed(changed: &Result<(), MetadataError>) -> Vec<u8> {
    put_or_metadata_error(changed, |_, ()| {})
}

pub(super) fn read_changed(reader: &mut Reader<'_>) -> Result<Result<(), MetadataError>, CodecError> {
    read_or_metadata_error(reader, |_| Ok(()))
}

pub(super) fn put_seen(status: &Result<ClusterStatus, MetadataError>) -> Vec<u8> {
    put_or_metadata_error(status, |out, status| {
        put_option(out, status.cluster, |out, cluster| out.extend(cluster.0));
        out.extend(status.version.0.to_le_bytes());
        put_list(out, status.controllers.iter(), |out, member| {
            out.extend(member.id.to_le_bytes());
            put_text(out, &member.address);
            put_bool(out, member.leader);
            put_bool(out, member.voter);
            put_option(out, member.matched, |out, matched| out.extend(matched.to_le_bytes()));
        });
        put_list(out, status.stores.iter(), |out, store| {
            put_store_group(out, &store.group);
            put_option(out, store.heard, put_duration);
            put_option(out, store.leading_since, |out, since| out.extend(since.as_millis().to_le_bytes()));
            put_positions(out, &store.positions);
            put_text(out, &store.version);
        });
        put_list(out, status.proxies.iter(), |out, proxy| {
            put_proxy(out, &proxy.proxy);
            put_option(out, proxy.heard, put_duration);
            out.extend(proxy.sessions.to_le_bytes());
        });
    })
}

pub(super) fn read_seen(reader: &mut Reader<'_>) -> Result<Result<ClusterStatus, MetadataError>, CodecError> {
    read_or_metadata_error(reader, |reader| {
        Ok(ClusterStatus {
            cluster: reader.option(|reader| reader.array().map(ClusterId))?,
            version: MetadataVersion(reader.u64()?),
            controllers: reader.list(|reader| {
                Ok(ControllerStatus {
                    id: reader.u64()?,
                    address: reader.text()?.to_owned(),
                    leader: reader.bool()?,
                    voter: reader.bool()?,
                    matched: reader.option(Reader::u64)?,
                })
            })?,
            stores: reader.list(|reader| {
                Ok(StoreStatus {
                    group: Arc::new(read_store_group(reader)?),
                    heard: reader.option(Reader::duration)?,
                    leading_since: reader.option(|reader| reader.u64().map(Timestamp::from_millis))?,
                    positions: read_positions(reader)?,
                    version: reader.text()?.into(),
                })
            })?,
            proxies: reader.list(|reader| {
                Ok(ProxyStatus {
                    proxy: Arc::new(read_proxy(reader)?),
                    heard: reader.option(Reader::duration)?,
                    sessions: reader.u32()?,
                })
            })?,
        })
    })
}

fn put_term(out: &mut Vec<u8>, term: &LeaseTerm) {
    let duration = match term {
        LeaseTerm::For(duration) => Some(*duration),
        LeaseTerm::UntilSuperseded => None,
    };
    put_option(out, duration, put_duration);
}

fn read_term(reader: &mut Reader<'_>) -> Result<LeaseTerm, CodecError> {
    Ok(reader.option(Reader::duration)?.map_or(LeaseTerm::UntilSuperseded, LeaseTerm::For))
}

fn put_or_metadata_error<T>(result: &Result<T, MetadataError>, put: impl FnOnce(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = Vec::new();
    match result {
        Ok(value) => {
            out.push(0);
            put(&mut out, value);
        }
        Err(MetadataError::Refused(refusal)) => {
            out.push(1);
            put_refusal(&mut out, refusal);
        }
        Err(MetadataError::Unavailable(reason)) => {
            out.push(2);
            put_text(&mut out, reason);
        }
        Err(MetadataError::Unknown(reason)) => {
            out.push(3);
            put_text(&mut out, reason);
        }
    }
    out
}

fn read_or_metadata_error<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>,
) -> Result<Result<T, MetadataError>, CodecError> {
    Ok(Err(match reader.u8()? {
        0 => return read(reader).map(Ok),
        1 => MetadataError::Refused(read_refusal(reader)?),
        2 => MetadataError::Unavailable(reader.text()?.to_owned()),
        3 => MetadataError::Unknown(reader.text()?.to_owned()),
        _ => return Err(CodecError::Damaged("an answer is of no known kind")),
    }))
}

fn put_or_membership_error<T>(result: &Result<T, MembershipError>, put: impl FnOnce(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = Vec::new();
    match result {
        Ok(value) => {
            out.push(0);
            put(&mut out, value);
        }
        Err(MembershipError::Refused(reason)) => {
            out.push(1);
            put_text(&mut out, reason);
        }
        Err(MembershipError::Held { group, epoch, remaining }) => {
            out.push(2);
            put_text(&mut out, group.as_str());
            out.extend(epoch.0.to_le_bytes());
            put_duration(&mut out, *remaining);
        }
        Err(MembershipError::Superseded { group, epoch }) => {
            out.push(3);
            out.extend(group.0.to_le_bytes());
            out.extend(epoch.0.to_le_bytes());
        }
        Err(MembershipError::Unavailable(reason)) => {
            out.push(4);
            put_text(&mut out, reason);
        }
    }
    out
}

fn read_or_membership_error<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>,
) -> Result<Result<T, MembershipError>, CodecError> {
    Ok(Err(match reader.u8()? {
        0 => return read(reader).map(Ok),
        1 => MembershipError::Refused(reader.text()?.to_owned()),
        2 => MembershipError::Held {
            group: read_store_group_name(reader)?,
            epoch: Epoch(reader.u32()?),
            remaining: reader.duration()?,
        },
        3 => MembershipError::Superseded { group: StoreGroupId(reader.u32()?), epoch: Epoch(reader.u32()?) },
        4 => MembershipError::Unavailable(reader.text()?.to_owned()),
        _ => return Err(CodecError::Damaged("an answer is of no known kind")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::whole;
    use crate::state::MetadataState;
    use crate::testing::{join_store, store_group_name};
    use gantry_proto::contract::StorePositions;
    use gantry_proto::model::{MetadataCommand, MetadataRefusal, ProxyId};

    /// Errors have no equality; their text and kind do.
    #[track_caller]
    fn check<T: std::fmt::Debug, E: std::fmt::Debug>(
        result: Result<T, E>,
        put: impl FnOnce(&Result<T, E>) -> Vec<u8>,
        read: impl FnOnce(&mut Reader<'_>) -> Result<Result<T, E>, CodecError>,
    ) {
        let again = whole(&put(&result), read).unwrap();
        assert_eq!(format!("{again:?}"), format!("{result:?}"));
    }

    #[test]
    fn errors_read_back_as_they_were_written() {
        let group = store_group_name("s");
        let remaining = Duration::from_millis(1234);
        let errors = [
            MembershipError::Refused("no".to_owned()),
            MembershipError::Held { group, epoch: Epoch(3), remaining },
            MembershipError::Superseded { group: StoreGroupId(1), epoch: Epoch(3) },
            MembershipError::Unavailable("away".to_owned()),
        ];
        for error in errors {
            check(Err(error.clone()), put_granted, read_granted);
            check(Err(error.clone()), put_renewed, read_renewed);
            check(Err(error.clone()), put_done, read_done);
            check(Err(error), put_heard_again, read_heard_again);
        }
        let errors = [
            MetadataError::Refused(MetadataRefusal::NoStoreGroup),
            MetadataError::Unavailable("away".to_owned()),
            MetadataError::Unknown("lost".to_owned()),
        ];
        for error in errors {
            check(Err(error), put_applied, read_applied);
        }
        check(Err(MetadataError::Unavailable("away".to_owned())), put_changed, read_changed);
        check(Err(MetadataError::Unavailable("away".to_owned())), put_seen, read_seen);
    }

    #[test]
    fn successes_read_back_as_they_were_written() {
        for lease in [LeaseTerm::UntilSuperseded, LeaseTerm::For(Duration::from_millis(2500))] {
            let grant = StoreGrant { cluster: ClusterId([4; 16]), group: StoreGroupId(1), epoch: Epoch(2), lease };
            check(Ok(grant), put_granted, read_granted);
            check(Ok(lease), put_renewed, read_renewed);
        }
        check(Ok(()), put_done, read_done);
        check(Ok(()), put_changed, read_changed);
        check(Ok(Duration::from_secs(1)), put_heard_again, read_heard_again);
        check(Ok((MetadataVersion(7), MetadataOutcome::Deleted)), put_applied, read_applied);
    }

    #[test]
    fn a_status_reads_back_as_it_was_written() {
        let mut state = MetadataState::default();
        let id = ProxyId([1; 16]);
        for command in
            [join_store("s", 1), MetadataCommand::JoinProxy { id, address: "p:1".into(), version: "0.1".into() }]
        {
            state.apply(&command, Timestamp::from_millis(5)).unwrap();
        }
        let member = |id: u64| ControllerStatus {
            id,
            address: format!("c-{id}:1"),
            leader: id == 1,
            voter: id < 3,
            matched: (id < 2).then_some(9),
        };
        let status = ClusterStatus {
            cluster: Some(ClusterId([4; 16])),
            version: state.version(),
            controllers: vec![member(1), member(2), member(3)],
            stores: vec![StoreStatus {
                group: state.store_groups().next().unwrap().clone(),
                heard: Some(Duration::from_millis(3)),
                leading_since: Some(Timestamp::from_millis(8)),
                positions: StorePositions::default(),
                version: "0.1".into(),
            }],
            proxies: vec![ProxyStatus { proxy: state.proxy(id).unwrap().clone(), heard: None, sessions: 3 }],
        };
        check(Ok(status), put_seen, read_seen);
    }
}
