//! Whether the store's folder and the controller's folder of one data folder fit together.
//!
//! Asked by `gantry inspect verify`, before a standalone server opens anything, and by `gantry repair identity`. Reads only.

use gantry_controller::{FolderMetadata, metadata_in};
use gantry_proto::env::Files;
use gantry_proto::model::{ClusterId, FolderId, StoreGroupId, StoreGroupName};
use gantry_store::inspect::{IdentityFacts, read_identity};
use gantry_store::repair::KnownHome;
use std::path::{Path, PathBuf};

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// One of them was put here.
    #[error(
        "the store's folder belongs to cluster {store}, and the controller's folder beside it to cluster {controller}"
    )]
    OtherCluster { store: ClusterId, controller: ClusterId },
    /// The store's messages are gone.
    #[error(
        "the controller's folder beside it knows store group {store_group}, whose messages were in the folder {folder}"
    )]
    LostStore { store_group: StoreGroupName, folder: FolderId },
    /// The controller was put back, or the folder is an old one.
    #[error("the controller's folder beside it does not know the folder {folder} of store group {store_group}")]
    UnknownStore { store_group: StoreGroupName, folder: FolderId },
}

impl Misfit {
    /// What an operator does about it. `data`: the folder that both are in.
    pub fn advice(&self, data: &Path) -> String {
        let data = data.display();
        match self {
            Misfit::OtherCluster { .. } => format!(
                "one of the two belongs elsewhere: put the right one in its place. If the right {data}/controller is lost, move \
                 this one away, and `gantry repair controller {data}` makes it again from what the store knows"
            ),
            Misfit::LostStore { store_group, .. } => format!(
                "restore {data}/store from a copy. If there is none, those messages are lost; to go on without them start the \
                 server with --group and a new name (store.group of the configuration, from now on), then give up the lost one \
                 with `gantry admin cluster drain {store_group}` and `gantry admin cluster remove {store_group} --force`"
            ),
            Misfit::UnknownStore { .. } => format!(
                "one of the two is an older copy: put the one that was used last in its place. If the right {data}/controller \
                 is lost, move this one away, and `gantry repair controller {data}` makes it again from what the store knows"
            ),
        }
    }
}

/// The first thing that does not fit between a store's folder, of which `identity` is known, and that metadata. Where the
/// controller has other members, or may have, a store beside it may be one that it has not heard of yet.
pub fn misfit(identity: Option<&IdentityFacts>, metadata: &FolderMetadata) -> Option<Misfit> {
    let state = &metadata.state;
    let is_alone = matches!(&metadata.members[..], [only] if only == gantry_controller::STANDALONE);
    let home = identity.and_then(|identity| identity.home.as_ref());
    if let (Some((store, ..)), Some(controller)) = (home, state.cluster())
        && *store != controller
    {
        return Some(Misfit::OtherCluster { store: *store, controller });
    }
    let known = identity.is_some_and(|identity| {
        state.store_groups().any(|group| group.replicas.iter().any(|replica| replica.folder == identity.folder))
    });
    if !is_alone || known {
        return None;
    }
    match (identity, home) {
        (Some(identity), Some((_, _, name))) => {
            Some(Misfit::UnknownStore { store_group: name.clone(), folder: identity.folder })
        }
        _ => state.store_groups().find_map(|group| {
            let folder = group.replicas.first()?.folder;
            Some(Misfit::LostStore { store_group: group.name.clone(), folder })
        }),
    }
}

/// What the first whole file with a store's identity says.
pub fn identity_in(files: &dyn Files, store: &Path) -> Option<IdentityFacts> {
    read_identity(files, store).into_iter().find_map(|copy| copy.facts.ok().flatten())
}

/// Whether there are log files in a store's folder.
pub fn holds_segments(files: &dyn Files, store: &Path) -> bool {
    let names = files.list(&store.join("commit-log")).unwrap_or_default();
    names.iter().any(|entry| entry.name.ends_with(".log"))
}

/// A store that is to be served, and of which nothing is there although the controller knows it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store's folder {} is gone, empty or new, but {misfit}. What to do: {}. Nothing was changed",
    .root.join("store").display(), .misfit.advice(.root)
)]
pub struct LostStore {
    root: PathBuf,
    misfit: Misfit,
}

/// Refuses a standalone server that is to serve `group` and whose store is lost.
pub fn check_standalone(files: &dyn Files, root: &Path, group: &StoreGroupName) -> Result<(), LostStore> {
    let store = root.join("store");
    let identity = identity_in(files, &store);
    if identity.as_ref().is_some_and(|identity| identity.home.is_some())
        || holds_segments(files, &store) && identity.is_none()
    {
        return Ok(());
    }
    // One that is not there is new, and one that cannot be read is for the controller to explain.
    let Ok(metadata) = metadata_in(files, &root.join("controller")) else { return Ok(()) };
    match misfit(identity.as_ref(), &metadata) {
        Some(misfit @ Misfit::LostStore { .. }) if metadata.state.store_groups().any(|known| known.name == *group) => {
            Err(LostStore { root: root.to_owned(), misfit })
        }
        _ => Ok(()),
    }
}

/// Where a store's folder belongs, as the controller's folder beside it says. `home`: what its log says.
pub fn home_of(
    files: &dyn Files,
    store: &Path,
    folder: FolderId,
    home: Option<(ClusterId, StoreGroupId)>,
) -> Option<KnownHome> {
    let metadata = metadata_in(files, &store.parent()?.join("controller")).ok()?;
    let cluster = metadata.state.cluster()?;
    let mut groups = metadata.state.store_groups();
    let found = match home {
        Some((known, id)) => groups.find(|group| known == cluster && group.id == id),
        None => groups.find(|group| group.replicas.iter().any(|replica| replica.folder == folder)),
    };
    found.map(|group| (cluster, group.id, group.name.clone()))
}
