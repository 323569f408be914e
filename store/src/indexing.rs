//! The indexes of full segments are written, and those that are missing or damaged are built, one after the other. Nothing
//! waits for it: until a segment has its index, its entries are in memory, or it is said that they are being built.
//!
//! What must always hold: an index that cannot be made keeps no other from being made
//! (`an_index_that_cannot_be_built_keeps_no_other_from_being_built`); and none is put into its place whose segment retention has
//! removed meanwhile (`no_index_is_left_of_a_segment_that_goes_while_it_is_built`).

use crate::backoff::Backoff;
use crate::queue_index::SealedIndexError;
use crate::store::Store;
use gantry_proto::contract::StoreError;
use gantry_proto::model::LogOffset;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const TICK: Duration = Duration::from_millis(500);

/// What is made next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Of the oldest full segment without one, from what is in memory.
    Seal,
    /// Of the segment that begins there, from the segment.
    Build(LogOffset),
}

/// What failed, until it works.
#[derive(Debug, Default)]
struct Failures {
    sealing: Backoff,
    building: BTreeMap<LogOffset, Backoff>,
}

/// Makes indexes until the store stops.
pub(crate) async fn index(store: Arc<Store>) {
    let mut failures = Failures::default();
    loop {
        let Some(next) = failures.next(&store, Instant::now()) else {
            tokio::select! {
                biased;
                () = store.stopping.cancelled() => return,
                () = store.queues.sealed.missing.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            continue;
        };
        let working = store.clone();
        let made = match next {
            Next::Seal => store.env.run_blocking(move || seal_one(&working)).await,
            Next::Build(base) => store.env.run_blocking(move || build_one(&working, base)).await,
        };
        match made {
            Ok(made) => failures.note(next, made),
            Err(panicked) => return store.log.fail(StoreError::WritesStopped(format!("indexing: {panicked}"))),
        }
        if store.stopping.is_cancelled() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

impl Failures {
    /// Full segments come first: their entries take memory.
    fn next(&mut self, store: &Store, now: Instant) -> Option<Next> {
        if self.sealing.is_due(now) && full(store).is_some() {
            return Some(Next::Seal);
        }
        let missing = store.queues.sealed.missing_bases();
        self.building.retain(|base, _| missing.contains(base));
        let due = |base: &LogOffset| self.building.get(base).is_none_or(|failed| failed.is_due(now));
        missing.into_iter().find(due).map(Next::Build)
    }

    fn note(&mut self, next: Next, made: Result<(), SealedIndexError>) {
        let (backoff, what) = match next {
            Next::Seal => {
                (&mut self.sealing, "the index of a full segment cannot be written for now; its entries stay in memory")
            }
            Next::Build(base) => (
                self.building.entry(base).or_default(),
                "the index of a segment cannot be built for now; what is in the segment is not found",
            ),
        };
        match made {
            Ok(()) => backoff.worked(),
            Err(error) => {
                if backoff.failed(Instant::now(), &error.to_string()) {
                    tracing::error!(%error, "{what}. It is tried again, less and less often");
                }
            }
        }
    }
}

/// The oldest full segment that has no index, and where it ends.
fn full(store: &Store) -> Option<(LogOffset, LogOffset)> {
    let sealed_to = store.queues.sealed.end();
    let segments = store.log.segments.list();
    let (segment, end) = segments.iter().find(|(segment, _)| sealed_to.is_none_or(|to| segment.base >= to))?;
    // Consumers may only be led to what is confirmed; and the batch that ends the segment may be under way.
    let end = end.filter(|end| *end <= store.log.confirmed.get())?;
    Some((segment.base, end))
}

fn seal_one(store: &Store) -> Result<(), SealedIndexError> {
    let Some((base, end)) = full(store) else { return Ok(()) };
    let damaged = store.log.damage.list().into_iter().filter(|range| range.from < end && base < range.to);
    let damaged: Vec<_> = damaged.map(|range| range.from.max(base)..range.to.min(end)).collect();
    store.queues.seal(&*store.env.files, &store.log.config.dir, (base, end), &damaged)
}

fn build_one(store: &Store, base: LogOffset) -> Result<(), SealedIndexError> {
    let segments = store.log.segments.list();
    let Some((segment, _)) = segments.iter().find(|(segment, _)| segment.base == base) else { return Ok(()) };
    let damage = (&store.log.damage, store.log.now());
    store.queues.build_missing(&*store.env.files, &store.log.config.dir, segment, damage)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;
    use crate::commit_log::retention::SealedSegment;
    use crate::expiry::remove_segment;
    use crate::support::*;
    use gantry_proto::env::{DirEntry, DirectoryLock, File, FileIdentity, Files, OpenMode};
    use parking_lot::Mutex;
    use std::io;
    use std::path::Path;

    /// A disk that does something when a certain file is created.
    struct HookedFiles {
        files: Arc<dyn Files>,
        hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl Files for HookedFiles {
        fn create_dir_all(&self, path: &Path) -> io::Result<()> {
            self.files.create_dir_all(path)
        }

        fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
            if path.to_string_lossy().ends_with(".index.tmp")
                && let Some(hook) = self.hook.lock().take()
            {
                hook();
            }
            self.files.open(path, mode)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.files.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.files.remove(path)
        }

        fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
            self.files.list(path)
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.files.sync_dir(path)
        }

        fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
            self.files.space(path)
        }

        fn identity_at(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
            self.files.identity_at(path)
        }

        fn try_lock(&self, path: &Path) -> io::Result<DirectoryLock> {
            self.files.try_lock(path)
        }
    }

    /// A store with some sealed segments.
    async fn sealed_store(machine: &Machine) -> Arc<Store> {
        let store = machine.must_open();
        let mut number = 0;
        while store.queues.sealed.list().len() < 4 {
            send(&store, number % QUEUES, &format!("m{number}-{}", "x".repeat(3000))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            number += 1;
        }
        store
    }

    fn names(machine: &Machine) -> Vec<String> {
        machine.env.files.list(&machine.dir.join("commit-log")).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// The index of a sealed segment is found to be damaged.
    fn damage(store: &Store, place: usize) -> LogOffset {
        let index = store.queues.sealed.list()[place].index.clone().unwrap();
        let _ = store.queues.sealed.unusable(&index, &SealedIndexError::of_damage());
        index.base
    }

    #[tokio::test(start_paused = true)]
    async fn no_index_is_left_of_a_segment_that_goes_while_it_is_built() {
        let mut machine = Machine::new(1);
        let hooked = Arc::new(HookedFiles { files: machine.env.files.clone(), hook: Mutex::default() });
        machine.env.files = hooked.clone();
        let store = sealed_store(&machine).await;
        let oldest = store.queues.sealed.list()[0].clone();
        let newest = oldest.newest().unwrap();
        assert_eq!(damage(&store, 0), oldest.base);
        let removing = store.clone();
        let segment = SealedSegment { base: oldest.base, end: oldest.end, bytes: oldest.end.0 - oldest.base.0, newest };
        *hooked.hook.lock() = Some(Box::new(move || remove_segment(&removing, &segment).unwrap()));
        build_one(&store, oldest.base).unwrap();
        assert!(hooked.hook.lock().is_none(), "the segment went while its index was built");
        let of_it: Vec<_> =
            names(&machine).into_iter().filter(|name| name.starts_with(&format!("{:020}.", 0))).collect();
        assert_eq!(of_it, Vec::<String>::new(), "something is left of a segment that is gone");
        assert!(store.queues.sealed.list().iter().all(|segment| segment.base > oldest.base));
        assert!(store.queues.sealed.missing_bases().is_empty());
        let _ = store.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_index_that_cannot_be_built_keeps_no_other_from_being_built() {
        let machine = Machine::new(2);
        let store = sealed_store(&machine).await;
        // Nothing can be written where the first one would be.
        let in_the_way = machine.dir.join(format!("commit-log/{:020}.index.tmp", 0));
        machine.env.files.create_dir_all(&in_the_way).unwrap();
        let (first, others) = (damage(&store, 0), [damage(&store, 2), damage(&store, 1)]);
        assert_eq!(store.queues.sealed.missing_bases().len(), 3);
        let built = async {
            while store.queues.sealed.missing_bases() != [first] {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), built).await.expect("the others must be built");
        let held = store.queues.sealed.list();
        assert!(others.iter().all(|base| held.iter().any(|segment| segment.base == *base && segment.index.is_some())));
        let _ = store.shutdown().await;
    }
}
