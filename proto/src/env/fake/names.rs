//! The directory tree: names now, names that survive a crash, and the changes in between.

use super::random::SplitMix;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Dir,
    File(u64),
}

/// All names with their durability. Directories are durable when they are made; names of files when their directory is
/// synced.
#[derive(Default)]
pub(super) struct Names {
    live: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// What happened to `live` since the last sync of the directory concerned, in order.
    pending: Vec<Change>,
}

enum Change {
    Link { path: PathBuf, file: u64 },
    Unlink { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, file: u64 },
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Entry> {
        if is_root(path) { Some(Entry::Dir) } else { self.live.get(path).copied() }
    }

    pub(super) fn make_dir(&mut self, path: &Path) {
        for ancestor in path.ancestors().filter(|ancestor| !is_root(ancestor)) {
            self.live.entry(ancestor.to_owned()).or_insert(Entry::Dir);
            self.durable.entry(ancestor.to_owned()).or_insert(Entry::Dir);
        }
    }

    pub(super) fn link(&mut self, path: &Path, file: u64) {
        self.change(Change::Link { path: path.to_owned(), file });
    }

    pub(super) fn unlink(&mut self, path: &Path) {
        self.change(Change::Unlink { path: path.to_owned() });
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, file: u64) {
        self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), file });
    }

    pub(super) fn children(&self, dir: &Path) -> impl Iterator<Item = (&Path, Entry)> {
        let dir = dir.to_owned();
        // Paths are ordered by component, so what lies below a directory is one range.
        (self.live.range(dir.clone()..))
            .take_while({
                let dir = dir.clone();
                move |(path, _)| path.starts_with(&dir)
            })
            .filter(move |(path, _)| path.parent() == Some(dir.as_path()))
            .map(|(path, entry)| (path.as_path(), *entry))
    }

    /// Files with a name now.
    pub(super) fn live_files(&self) -> impl Iterator<Item = u64> {
        self.live.values().filter_map(|entry| entry.file())
    }

    /// Files that have a name or may get one back by a crash.
    pub(super) fn reachable_files(&self) -> BTreeSet<u64> {
        let pending = self.pending.iter().filter_map(|change| match change {
            Change::Link { file, .. } | Change::Rename { file, .. } => Some(*file),
            Change::Unlink { .. } => None,
        });
        self.live_files().chain(self.durable.values().filter_map(|entry| entry.file())).chain(pending).collect()
    }

    /// Makes the changes in `dir` durable, with the earlier ones that they build on.
    pub(super) fn sync(&mut self, dir: &Path) {
        let mut dirs = BTreeSet::from([dir.to_owned()]);
        let mut synced: Vec<bool> = Vec::with_capacity(self.pending.len());
        for change in self.pending.iter().rev() {
            let touched = change.dirs().any(|of| dirs.contains(of));
            if touched {
                dirs.extend(change.dirs().map(Path::to_owned));
            }
            synced.push(touched);
        }
        synced.reverse();
        let mut synced = synced.into_iter();
        self.pending.retain(|change| {
            let sync = synced.next().unwrap_or(false);
            if sync {
                change.apply(&mut self.durable);
            }
            !sync
        });
    }

    /// Power loss. Without randomness every unsynced change is undone; with it, the draw decides which ones survive.
    pub(super) fn crash(&mut self, random: Option<&mut SplitMix>) {
        if let Some(random) = random {
            let count = self.pending.len() as u64;
            let (in_order, any) = match random.below(4) {
                0 => (0, false),
                1 => (count, false),
                2 => (random.below(count + 1), false),
                _ => (0, true),
            };
            for (index, change) in self.pending.iter().enumerate() {
                if (index as u64) < in_order || (any && random.coin()) {
                    change.apply(&mut self.durable);
                }
            }
        }
        self.pending.clear();
        self.live = self.durable.clone();
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            Change::Link { path, file } => {
                names.insert(path.clone(), Entry::File(*file));
            }
            Change::Unlink { path } => {
                names.remove(path);
            }
            // One step, as journaling file systems have it: never both names, never none.
            Change::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), Entry::File(*file));
            }
        }
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        let (first, second) = match self {
            Change::Link { path, .. } | Change::Unlink { path } => (path, None),
            Change::Rename { from, to, .. } => (from, Some(to)),
        };
        [Some(first), second].into_iter().flatten().filter_map(|path| path.parent())
    }
}

impl Entry {
    fn file(self) -> Option<u64> {
        match self {
            Entry::File(file) => Some(file),
            Entry::Dir => None,
        }
    }
}

/// `/` and the empty path (where relative names live) always exist.
fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.parent().is_none()
}
