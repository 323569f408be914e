//! What an operator may decide about a store's folder that the server does not open: never by default, never while a server
//! has it, and never without a copy of what is changed.
//!
//! A [`Repair`] is thought through first and says what it would do and what would be lost; [`Repair::carry_out`] does it.
//! Four things need a decision: an identity that is lost, a checkpoint that is, a damaged part of the log ([`record`]), and
//! which of two folders goes on after a copy of one has led ([`Repair::put_back`]). What is derived (sealed indexes) the server makes again by itself. No byte of the log is ever changed here.

mod checkpoint_lost;
mod concerned;
mod known;
mod record;

use crate::checkpoint::{self, Changes, Position};
use crate::commit_log::damage::DamagedRange;
use crate::commit_log::positions::{Positions, PositionsError};
use crate::identity::{COPY, Home, Identity, IdentityError, NAME};
use crate::inspect::{InspectError, Seen, SegmentFile, segment_paths};
use crate::rebuild::LOG_DIR;
pub use concerned::{Concerned, LostMessages, LostOf, ToldBy};
use gantry_proto::env::{DirectoryLock, Env, File, Files, OpenMode, is_unreadable};
use gantry_proto::model::{ClusterId, Epoch, FolderId, StoreGroupId, StoreGroupName};
pub use known::{Known, KnownGroup, KnownTopic};
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A repair that was thought through and not made yet. The folder stays locked until it is dropped.
pub struct Repair {
    _lock: DirectoryLock,
    env: Env,
    dir: PathBuf,
    /// What will be done, a sentence each.
    pub steps: Vec<String>,
    /// What is lost or cannot be known, a sentence each.
    pub lost: Vec<String>,
    /// Files that are replaced or removed: copied first.
    touched: Vec<String>,
    change: Change,
    /// The damaged part of the log that is given up, and whom that concerns.
    pub concerned: Option<(DamagedRange, Concerned)>,
}

enum Change {
    Identity(Identity),
    Damage(Vec<DamagedRange>),
    Checkpoint(Changes, Position),
    RemoveTouched,
}

/// Who says how a store group is called.
pub struct NamedGroup<'a> {
    /// What an operator says.
    pub said: Option<StoreGroupName>,
    /// An operator is sure of it.
    pub unchecked: bool,
    /// What the metadata say that are at hand, of a folder or of a store group.
    pub known: &'a dyn Fn(FolderId, Option<(ClusterId, StoreGroupId)>) -> Option<KnownHome>,
}

/// Where a folder belongs, as somebody else knows it.
pub type KnownHome = (ClusterId, StoreGroupId, StoreGroupName);

impl NamedGroup<'_> {
    /// Where the folder belongs, and whether somebody else than the operator knows the name. `home`: what its log says.
    fn home(
        &self,
        dir: &Path,
        folder: FolderId,
        home: Option<(ClusterId, StoreGroupId)>,
    ) -> Result<Option<(Home, bool)>, RepairError> {
        if let Some((cluster, group, name)) = (self.known)(folder, home) {
            return match &self.said {
                Some(said) if *said != name => refused(format!(
                    "{} belongs to store group number {group} of cluster {cluster}, which the controller's folder beside it \
                     calls {name}, not {said}",
                    dir.display()
                )),
                _ => Ok(Some((Home { cluster, group, name }, true))),
            };
        }
        let Some((cluster, group)) = home else { return Ok(None) };
        let log =
            format!("the log in {} was written for store group number {group} of cluster {cluster}", dir.display());
        match &self.said {
            Some(name) if self.unchecked => Ok(Some((Home { cluster, group, name: name.clone() }, false))),
            Some(said) => refused(format!(
                "{log}. No controller's folder beside it tells whether that is {said}: compare with `gantry admin cluster \
                 status`, or with the configuration of this store, and say with --unchecked-name that it is right"
            )),
            None => refused(format!("{log}: name the group with --store-group")),
        }
    }
}

/// Why there is nothing to repair, or no way to.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A server runs.
    #[error("{0} is used by another gantry process. Stop it first; nothing was changed")]
    InUse(PathBuf),
    /// It is well, or another kind of help is needed.
    #[error("{what}. Nothing was changed")]
    Refused {
        /// Why.
        what: String,
    },
    /// It could not be looked at.
    #[error("{0}. Nothing was changed")]
    Inspect(#[from] InspectError),
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

fn refused<T>(what: impl Into<String>) -> Result<T, RepairError> {
    Err(RepairError::Refused { what: what.into() })
}

fn io_error(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> RepairError {
    let path = path.into();
    move |source| RepairError::Io { action, path, source }
}

impl Repair {
    /// Gives a folder its identity back whose files are lost: from what the log and the positions say of it. The name of its
    /// store group is not among that.
    pub fn identity(env: &Env, dir: &Path, named: &NamedGroup<'_>) -> Result<Repair, RepairError> {
        let lock = lock(env, dir)?;
        let files = &*env.files;
        match Identity::load(files, dir) {
            Ok(Some((identity, _))) => {
                return refused(format!("{} has its identity: it is the folder {}", dir.display(), identity.folder));
            }
            Ok(None) | Err(IdentityError::Damaged | IdentityError::Two(..)) => {}
            Err(error) => return refused(format!("{}: {error}", dir.display())),
        }
        let traces = Traces::find(files, dir)?;
        let folder = traces.folder(dir)?;
        let mut identity = Identity::new(folder);
        identity.last_epoch = traces.epoch;
        let mut lost = Vec::new();
        let belongs = match named.home(dir, folder, traces.home(dir)?)? {
            Some((home, checked)) => {
                let Home { cluster, group, name } = &home;
                if !checked {
                    lost.push(format!(
                        "Nothing here tells whether {name} is right. If it is not, the folder is refused from now on; then move \
                         {NAME} and {COPY} away and repair again"
                    ));
                }
                let belongs = format!("to store group {name} (number {group}) of cluster {cluster}");
                identity.home = Some(home);
                belongs
            }
            None => {
                lost.push(
                    "Which cluster and group it belonged to is not in its log: it will belong to those that it is started \
                     in next. Be sure that they are the right ones"
                        .to_owned(),
                );
                "to no cluster yet".to_owned()
            }
        };
        let epoch = identity.last_epoch;
        let step = format!("Write {NAME} and {COPY}: folder {folder}, last epoch {epoch}, belonging {belongs}");
        let touched = present(files, dir, |name| name == NAME || name == COPY)?;
        let change = Change::Identity(identity);
        let (env, dir) = (env.clone(), dir.to_owned());
        Ok(Repair { _lock: lock, env, dir, steps: vec![step], lost, touched, change, concerned: None })
    }

    /// Lets a folder be used again after a copy of it has led up to the epoch `led`: it knows that epoch from now on. What the
    /// copy stored is not in it.
    pub fn put_back(env: &Env, dir: &Path, led: Epoch) -> Result<Repair, RepairError> {
        let lock = lock(env, dir)?;
        let files = &*env.files;
        let mut identity = match Identity::load(files, dir) {
            Ok(Some((identity, _))) => identity,
            Ok(None) => {
                return refused(format!("{0} has no identity: do `gantry repair identity {0}` first", dir.display()));
            }
            Err(error) => return refused(format!("{}: {error}", dir.display())),
        };
        let last = identity.last_epoch;
        if led <= last {
            return refused(format!("{} knows of epoch {last} already, so it is not refused for {led}", dir.display()));
        }
        if led == Epoch(u32::MAX) {
            return refused("there is no epoch after that one");
        }
        identity.last_epoch = led;
        let step = format!(
            "Write {NAME} and {COPY}: folder {}, last epoch {led} instead of {last}. The controller then takes this folder again",
            identity.folder
        );
        let lost = vec![
            format!(
                "What the copy stored in the epochs from {} to {led} is not in this folder: stop the copy and keep it, for its \
                 messages are nowhere else (`gantry inspect segment` shows them)",
                last.0 + 1
            ),
            "Queue offsets that the copy gave are given again, to other messages; and a message that it took is stored again when \
             its producer repeats it"
                .to_owned(),
        ];
        let touched = present(files, dir, |name| name == NAME || name == COPY)?;
        let change = Change::Identity(identity);
        let (env, dir) = (env.clone(), dir.to_owned());
        Ok(Repair { _lock: lock, env, dir, steps: vec![step], lost, touched, change, concerned: None })
    }

    /// Does it. What it changes is copied first, to the folder whose path it returns; `None`: there was nothing to copy.
    pub fn carry_out(self) -> Result<Option<PathBuf>, RepairError> {
        let (files, dir) = (&*self.env.files, &*self.dir);
        let copies = self.copy()?;
        match &self.change {
            Change::Identity(identity) => {
                let mut identity = identity.clone();
                identity.save(files, dir).map_err(io_error("writing the identity in", dir))?;
            }
            Change::Damage(ranges) => self.give_up(ranges)?,
            Change::Checkpoint(changes, position) => {
                checkpoint::replace_all(files, dir, changes, *position)
                    .map_err(io_error("writing a checkpoint in", dir))?;
            }
            Change::RemoveTouched => {
                for name in &self.touched {
                    files.remove(&dir.join(name)).map_err(io_error("removing", dir.join(name)))?;
                }
                files.sync_dir(dir).map_err(io_error("making durable the names in", dir))?;
            }
        }
        Ok(copies)
    }

    fn copy(&self) -> Result<Option<PathBuf>, RepairError> {
        if self.touched.is_empty() {
            return Ok(None);
        }
        let files = &*self.env.files;
        let copies = self.dir.join(format!("repair-{}", self.env.clock.now().as_millis()));
        files.create_dir_all(&copies).map_err(io_error("creating", &copies))?;
        for name in &self.touched {
            let (from, to) = (self.dir.join(name), copies.join(name));
            let copied = || -> io::Result<()> {
                let source = files.open(&from, OpenMode::Read)?;
                let target = files.open(&to, OpenMode::CreateNew)?;
                copy_readable(&*source, &*target)?;
                target.sync_data()
            };
            copied().map_err(io_error("copying", from))?;
        }
        files.sync_dir(&copies).map_err(io_error("making durable the names in", &copies))?;
        Ok(Some(copies))
    }
}

/// Copies what the disk gives. In the place of what it does not the copy has zeros.
fn copy_readable(source: &dyn File, target: &dyn File) -> io::Result<()> {
    const SECTOR: usize = 512;
    let (mut buffer, mut at, len) = (vec![0; 1 << 20], 0, source.len()?);
    while at < len {
        let wanted = (buffer.len() as u64).min(len - at) as usize;
        match source.read_into(at, &mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(held) => {
                target.write_all_at(&buffer[..held], at)?;
                at += held as u64;
            }
            Err(error) if is_unreadable(&error) && buffer.len() > SECTOR => buffer.truncate(SECTOR),
            Err(error) if is_unreadable(&error) => at += SECTOR as u64,
            Err(error) => return Err(error),
        }
    }
    target.set_len(len)
}

fn lock(env: &Env, dir: &Path) -> Result<DirectoryLock, RepairError> {
    // Nothing is made where no store ever was.
    let names = env.files.list(dir).map_err(io_error("listing", dir))?;
    if !names.iter().any(|entry| entry.name == LOG_DIR) {
        return refused(format!("{} is not a store's folder: {LOG_DIR} is not in it", dir.display()));
    }
    env.files.try_lock(&dir.join("lock")).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => RepairError::InUse(dir.to_owned()),
        _ => RepairError::Io { action: "locking", path: dir.to_owned(), source },
    })
}

/// The files in `dir` that are wanted, by name.
fn present(files: &dyn Files, dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, RepairError> {
    let names = files.list(dir).map_err(io_error("listing", dir))?;
    let mut names: Vec<String> =
        names.into_iter().filter(|entry| !entry.is_dir && wanted(&entry.name)).map(|entry| entry.name).collect();
    names.sort_unstable();
    Ok(names)
}

/// What a folder's other files say about who it is.
struct Traces {
    folders: BTreeSet<[u8; 16]>,
    homes: BTreeSet<([u8; 16], u32)>,
    epoch: Epoch,
}

impl Traces {
    fn find(files: &dyn Files, dir: &Path) -> Result<Traces, RepairError> {
        let mut traces = Traces { folders: BTreeSet::new(), homes: BTreeSet::new(), epoch: Epoch(0) };
        match Positions::read(files, dir) {
            Ok(Some(positions)) => {
                traces.folders.insert(positions.folder.0);
                traces.epoch = positions.epoch;
            }
            Ok(None) | Err(PositionsError::Damaged(_)) => {}
            Err(error) => return refused(error.to_string()),
        }
        for path in segment_paths(files, dir)? {
            let file = SegmentFile::open(files, &path)?;
            let facts = file.facts();
            if facts.header_damage.is_none() {
                traces.folders.insert(facts.folder.0);
                if let (Some(cluster), Some(group)) = (facts.cluster, facts.group) {
                    traces.homes.insert((cluster.0, group.0));
                }
                let before = facts.epochs.iter().map(|(epoch, _)| *epoch).max();
                traces.epoch = traces.epoch.max(before.unwrap_or_default());
            }
            if facts.next.is_none() {
                file.walk(|seen| {
                    if let Seen::Record(record) = seen {
                        traces.epoch = traces.epoch.max(record.epoch);
                    }
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(traces)
    }

    fn folder(&self, dir: &Path) -> Result<FolderId, RepairError> {
        let folders: Vec<FolderId> = self.folders.iter().map(|id| FolderId(*id)).collect();
        match folders[..] {
            [folder] => Ok(folder),
            [] => refused(format!(
                "nothing in {} tells which folder it is: restore {NAME} or positions from a backup",
                dir.display()
            )),
            _ => refused(format!(
                "the files in {} are of several folders: {folders:?}. Put back those of one of them",
                dir.display()
            )),
        }
    }

    fn home(&self, dir: &Path) -> Result<Option<(ClusterId, StoreGroupId)>, RepairError> {
        let homes: Vec<(ClusterId, StoreGroupId)> =
            self.homes.iter().map(|(cluster, group)| (ClusterId(*cluster), StoreGroupId(*group))).collect();
        match homes[..] {
            [] => Ok(None),
            [home] => Ok(Some(home)),
            _ => refused(format!(
                "the segments in {} are of several store groups: {homes:?}. Put back those of one of them",
                dir.display()
            )),
        }
    }
}
