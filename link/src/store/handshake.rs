//! The first frame of each side: which protocol version both speak, and whether this is the store that the proxy means.

use super::wire::Malformed;
use crate::versions::{SPOKEN, VersionRange};
use bytes::Bytes;
use gantry_proto::model::{ClusterId, Epoch, FolderId, StoreGroupId};
use gantry_proto::wire::store::v1 as wire;
use wire::refused::Kind;

/// Which store it is: as the proxy knows it from the metadata, or as the store knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) cluster: ClusterId,
    pub(super) store_group: StoreGroupId,
    /// The folder that leads the store group.
    pub(super) folder: FolderId,
}

pub(super) fn hello(target: &Target, epoch: Epoch) -> wire::Hello {
    wire::Hello {
        versions: Some(wire::VersionRange { min: SPOKEN.min(), max: SPOKEN.max() }),
        cluster: Bytes::copy_from_slice(&target.cluster.0),
        group: target.store_group.0,
        folder: Bytes::copy_from_slice(&target.folder.0),
        epoch: epoch.0,
        ..wire::Hello::default()
    }
}

/// What `store` answers to a hello: the version to speak, or why it refuses the proxy.
pub(super) fn answer(hello: &wire::Hello, store: &Target) -> Result<u32, wire::Refused> {
    let refused = |kind: Kind, text: String| wire::Refused { kind: kind.into(), text };
    let versions = hello.versions.and_then(|range| VersionRange::new(range.min, range.max));
    let Some(versions) = versions else {
        return Err(refused(Kind::Version, "the hello does not say which versions are spoken".to_owned()));
    };
    let version = SPOKEN.common(versions);
    let version = version.map_err(|none| refused(Kind::Version, none.between("the store", "the proxy")))?;
    if hello.cluster != store.cluster.0[..] {
        let theirs = identity(&hello.cluster);
        let text =
            format!("the store belongs to cluster {}, the proxy asks for one of cluster {theirs}", store.cluster);
        return Err(refused(Kind::Cluster, text));
    }
    if hello.group != store.store_group.0 {
        let text = format!("store group {} is served here, not {}", store.store_group, hello.group);
        return Err(refused(Kind::Group, text));
    }
    if hello.folder != store.folder.0[..] {
        let text = format!(
            "the data folder {} is served here, not {}, which leads store group {} as far as the proxy knows",
            store.folder,
            identity(&hello.folder),
            store.store_group
        );
        return Err(refused(Kind::Folder, text));
    }
    Ok(version)
}

pub(super) fn welcome(version: u32, store: &Target, epoch: Epoch) -> wire::Welcome {
    wire::Welcome {
        version,
        cluster: Bytes::copy_from_slice(&store.cluster.0),
        group: store.store_group.0,
        folder: Bytes::copy_from_slice(&store.folder.0),
        epoch: epoch.0,
        ..wire::Welcome::default()
    }
}

/// The version to speak with the store that sent this first frame and the number of the stream, or why no call is made to it.
pub(super) fn read_welcome(first: wire::Replies, meant: &Target) -> Result<(u32, u64), String> {
    if let Some(refused) = first.refused {
        return Err(match refused.text.is_empty() {
            true => "it refuses to talk to this proxy, without a reason".to_owned(),
            false => refused.text,
        });
    }
    let welcome = first.welcome.ok_or_else(|| Malformed("welcome").to_string())?;
    if !SPOKEN.contains(welcome.version) {
        return Err(format!("it chose version {} of the protocol, this proxy speaks {SPOKEN}", welcome.version));
    }
    let is_meant = welcome.cluster == meant.cluster.0[..]
        && welcome.group == meant.store_group.0
        && welcome.folder == meant.folder.0[..];
    if !is_meant {
        let Target { cluster, store_group, folder } = meant;
        return Err(format!(
            "it is store group {} in the folder {} of cluster {}, not {store_group} in {folder} of {cluster}",
            welcome.group,
            identity(&welcome.folder),
            identity(&welcome.cluster)
        ));
    }
    Ok((welcome.version, welcome.stream))
}

fn identity(bytes: &[u8]) -> String {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => ClusterId(bytes).to_string(),
        Err(_) if bytes.is_empty() => "(none)".to_owned(),
        Err(_) => format!("({} bytes)", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: Target =
        Target { cluster: ClusterId([1; 16]), store_group: StoreGroupId(3), folder: FolderId([2; 16]) };

    fn refused(hello: &wire::Hello) -> (Kind, String) {
        let refused = answer(hello, &STORE).unwrap_err();
        (refused.kind(), refused.text)
    }

    fn versions(min: u32, max: u32) -> wire::Hello {
        wire::Hello { versions: Some(wire::VersionRange { min, max }), ..hello(&STORE, Epoch(1)) }
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(answer(&hello(&STORE, Epoch(1)), &STORE), Ok(1));
        assert_eq!(answer(&versions(1, 7), &STORE), Ok(1), "with a newer proxy");
        let (kind, text) = refused(&versions(2, 3));
        assert_eq!(kind, Kind::Version);
        assert_eq!(text, "the store speaks version 1 of the protocol, the proxy versions 2 to 3: upgrade the store");
        for nonsense in [versions(0, 1), versions(2, 1), wire::Hello { versions: None, ..versions(1, 1) }] {
            assert_eq!(refused(&nonsense).0, Kind::Version);
        }
    }

    #[test]
    fn whoever_means_another_store_is_refused_by_name() {
        let others = [
            (Kind::Cluster, Target { cluster: ClusterId([9; 16]), ..STORE }, ClusterId([9; 16]).to_string()),
            (Kind::Group, Target { store_group: StoreGroupId(4), ..STORE }, "3 is served here, not 4".to_owned()),
            (Kind::Folder, Target { folder: FolderId([9; 16]), ..STORE }, FolderId([9; 16]).to_string()),
        ];
        for (kind, other, named) in others {
            let (refused, text) = refused(&hello(&other, Epoch(9)));
            assert!(refused == kind && text.contains(&named), "{text}");
            // A store that does not look is found out by the proxy.
            let first = wire::Replies { welcome: Some(welcome(1, &STORE, Epoch(1))), ..wire::Replies::default() };
            assert!(read_welcome(first, &other).is_err());
        }
        for bytes in [&[][..], &[1; 15]] {
            let nameless = wire::Hello { cluster: Bytes::copy_from_slice(bytes), ..versions(1, 1) };
            assert_eq!(refused(&nameless).0, Kind::Cluster);
            let nameless = wire::Hello { folder: Bytes::copy_from_slice(bytes), ..versions(1, 1) };
            assert_eq!(refused(&nameless).0, Kind::Folder);
        }
    }

    #[test]
    fn a_proxy_speaks_only_what_it_can() {
        let welcomed = |version| {
            let welcome = Some(welcome(version, &STORE, Epoch(1)));
            read_welcome(wire::Replies { welcome, ..wire::Replies::default() }, &STORE).map(|(version, _)| version)
        };
        assert_eq!(welcomed(1), Ok(1));
        assert!(welcomed(2).unwrap_err().contains("chose version 2"));
        assert!(read_welcome(wire::Replies::default(), &STORE).is_err());
        let refusal = wire::Refused { kind: 77, text: "of a kind that is not known here".to_owned() };
        let first = wire::Replies { refused: Some(refusal), ..wire::Replies::default() };
        assert_eq!(read_welcome(first, &STORE).unwrap_err(), "of a kind that is not known here");
    }
}
