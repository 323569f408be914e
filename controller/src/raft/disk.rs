//! The folder of one member: the log of entries, the vote, and the last snapshot, in one redb file.
//!
//! | name | what |
//! |---|---|
//! | `LOCK` | locked while a controller runs |
//! | `consensus.redb` | everything |
//! | `acknowledged` | which commit of it was the last that was acknowledged: see [`super::acknowledged`] |
//! | `*.tmp` | the file while it is made for the first time, or left by a crash then: removed on open |
//!
//! | table | key | value |
//! |---|---|---|
//! | `log` | index | `LogEntry` |
//! | `facts` | `folder` | `ControllerFolder` |
//! | | `vote` | `Vote` |
//! | | `committed`, `purged` | `LogId` |
//! | | `snapshot` | `StoredSnapshot` |
//! | | `commit` | `CommitNumber` |
//!
//! Each value is a message, sealed by itself (see [`crate::codec`]), so that damage is told from what is newer.
//!
//! What must always hold:
//! - A change is durable when its future completes, with everything before it. What is committed is noted in memory and
//!   written with the next change: it is only a hint, for a start that does not wait for others.
//! - After a write or sync that failed nothing is written any more: what the disk holds is unknown until the folder is
//!   opened again. What is found then is made durable before anything is read from it.
//! - A database that is behind what it acknowledged is refused, and none is made where one was.
//! - A change is answered only while both files have their names: else the next start would not find it.
//! - All calls block, so they run on workers; one at a time changes.

use super::acknowledged::{self, Acknowledged};
use super::backend::{CopyBackend, FileBackend};
use super::codec::{
    need, put_entry, put_log_id, put_snapshot_meta, put_vote, read_entry, read_log_id, read_snapshot_meta, read_vote,
};
use super::type_config::{Entry, LogId, SnapshotMeta, Vote};
use crate::codec::{CodecError, seal, unseal};
use crate::open_error::{OpenError, way_out};
use bytes::Bytes;
use gantry_proto::convert::Wire as _;
use gantry_proto::env::{DirectoryLock, Env, File, Files, OpenMode, make_durable};
use gantry_proto::model::ClusterId;
use gantry_proto::wire::controller::v1 as wire;
use openraft::EntryPayload;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use redb::{Database, ReadableDatabase as _, ReadableTable, Table, TableDefinition, WriteTransaction};
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const FILE: &str = "consensus.redb";
pub(crate) const TEMPORARY: &str = "consensus.redb.tmp";

const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("facts");
const FOLDER: &str = "folder";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
pub(super) const SNAPSHOT: &str = "snapshot";
const COMMIT: &str = "commit";
/// What pre-releases had instead of [`FOLDER`].
const PRE_RELEASE: &str = "format";

/// The database's cache. The log is read where it was just written; snapshots pass once.
const CACHE_BYTES: usize = 8 << 20;
/// Bytes of entries that are read together. Bounds what one message to another member carries.
const READ_BYTES_MAX: usize = 4 << 20;

/// The folder. Clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct Disk {
    env: Env,
    inner: Arc<Inner>,
}

struct Inner {
    files: Arc<dyn Files>,
    /// None once it is closed.
    open: RwLock<Option<Open>>,
    member: u64,
    path: PathBuf,
    /// Why nothing is read or written any more: for an operator.
    broken: Mutex<Option<Broken>>,
    vote: Mutex<Option<Vote>>,
    ends: Mutex<Ends>,
    cluster: Mutex<Option<ClusterId>>,
    /// Held while something is committed.
    acknowledged: Mutex<Acknowledged>,
}

struct Open {
    /// Dropped first: when the lock is free, nothing is written any more.
    database: Database,
    file: Arc<dyn File>,
    _lock: DirectoryLock,
}

/// What became of the file under a running member.
#[derive(Clone, Debug)]
struct Broken {
    reason: String,
    /// The database stopped in the middle of something: it must not be asked for anything any more, not even to close.
    panicked: bool,
    /// The disk failed: it may be well again.
    may_pass: bool,
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// Everything up to here was removed.
    pub(super) purged: Option<LogId>,
    /// The last entry, or `purged`.
    pub(super) last: Option<LogId>,
    /// Known to be on most members.
    pub(super) committed: Option<LogId>,
}

/// What a folder held.
pub(crate) struct Recovered {
    /// The last snapshot, if there is one.
    pub(crate) snapshot: Option<(SnapshotMeta, Bytes)>,
    /// Whether there is nothing: not even a vote.
    pub(crate) empty: bool,
}

impl Disk {
    /// Opens or makes the folder of a member that knows rules up to `rules_max`. `must_exist`: it was there, so none is made.
    pub(crate) async fn open(
        env: &Env,
        dir: &Path,
        member: u64,
        rules_max: u32,
        must_exist: bool,
    ) -> Result<(Disk, Recovered), OpenError> {
        let (dir, files) = (dir.to_owned(), env.files.clone());
        let path = dir.join(FILE);
        let opened = env.run_blocking(move || open(&*files, &dir, member, rules_max, must_exist)).await;
        let damaged = |_| OpenError::damaged(&path, "the database cannot be read without a panic");
        let (open, Facts { vote, ends, cluster, snapshot, .. }, acknowledged) = opened.map_err(damaged)??;
        let empty = vote.is_none() && ends.last.is_none() && snapshot.is_none();
        let recovered = Recovered { snapshot, empty };
        let inner = Inner {
            files: env.files.clone(),
            open: RwLock::new(Some(open)),
            member,
            path,
            broken: Mutex::new(None),
            vote: Mutex::new(vote),
            ends: Mutex::new(ends),
            cluster: Mutex::new(cluster),
            acknowledged: Mutex::new(acknowledged),
        };
        Ok((Disk { env: env.clone(), inner: Arc::new(inner) }, recovered))
    }

    /// Writes what was only noted, closes the file and frees the folder.
    pub(crate) async fn close(&self) {
        let inner = self.inner.clone();
        let closed = self.env.run_blocking(move || {
            let Some(open) = inner.open.write().take() else { return Ok(()) };
            match &*inner.broken.lock() {
                Some(Broken { panicked: true, .. }) => {
                    let Open { database, .. } = open;
                    std::mem::forget(database);
                    return Ok(());
                }
                Some(_) => return Ok(()),
                None => {}
            }
            change(&open, &inner, |_| Ok(())).map_err(Failure::into_io)
        });
        match closed.await {
            Ok(Ok(())) => {}
            // Nothing was promised of it.
            Ok(Err(error)) => tracing::warn!(%error, "the last note of what is committed could not be written"),
            Err(error) => tracing::error!(%error, "closing the consensus log failed"),
        }
    }

    /// Why nothing is read or written any more, and what to do about it.
    pub(super) fn broken(&self) -> Option<String> {
        self.inner.broken.lock().as_ref().map(|broken| broken.reason.clone())
    }

    /// Whether it is broken because the disk failed.
    pub(super) fn may_be_well_again(&self) -> bool {
        self.inner.broken.lock().as_ref().is_some_and(|broken| broken.may_pass)
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        *self.inner.vote.lock()
    }

    /// The cluster that the folder belongs to, once it is known.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        *self.inner.cluster.lock()
    }

    /// The folder belongs to that cluster from now on.
    pub(super) async fn save_cluster(&self, cluster: ClusterId) -> io::Result<()> {
        let fact = wire::ControllerFolder { member: self.inner.member, cluster: Some(cluster.to_wire()) };
        self.change(move |transaction| put(&mut transaction.open_table(FACTS)?, FOLDER, &fact)).await?;
        *self.inner.cluster.lock() = Some(cluster);
        Ok(())
    }

    pub(super) fn ends(&self) -> Ends {
        *self.inner.ends.lock()
    }

    /// Notes what is committed.
    pub(super) fn note_committed(&self, committed: Option<LogId>) {
        self.inner.ends.lock().committed = committed;
    }

    pub(super) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.change(move |transaction| put(&mut transaction.open_table(FACTS)?, VOTE, &put_vote(&vote))).await?;
        *self.inner.vote.lock() = Some(vote);
        Ok(())
    }

    /// Makes entries durable, all of them with one sync.
    pub(super) async fn append(&self, entries: Vec<Entry>) -> io::Result<()> {
        let Some(last) = entries.last().map(|entry| entry.log_id) else { return Ok(()) };
        self.change(move |transaction| {
            let mut log = transaction.open_table(LOG)?;
            for entry in &entries {
                log.insert(entry.log_id.index, &seal(&put_entry(entry))[..])?;
            }
            Ok(())
        })
        .await?;
        self.inner.ends.lock().last = Some(last);
        Ok(())
    }

    /// Removes what comes after an entry: another leader decided otherwise.
    pub(super) async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.change(move |transaction| Ok(transaction.open_table(LOG)?.retain_in(from.., |_, _| false)?)).await?;
        let mut ends = self.inner.ends.lock();
        ends.last = ends.last.min(last).max(ends.purged);
        Ok(())
    }

    /// Removes what a snapshot holds.
    pub(super) async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.change(move |transaction| {
            transaction.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
            put(&mut transaction.open_table(FACTS)?, PURGED, &put_log_id(&upto))
        })
        .await?;
        let mut ends = self.inner.ends.lock();
        ends.purged = Some(upto);
        ends.last = ends.last.max(Some(upto));
        Ok(())
    }

    /// The entries of a range, from its beginning: at least one if there is one, and no more than fit into a message when
    /// `bounded`.
    pub(super) async fn entries(
        &self,
        range: impl RangeBounds<u64> + Send + 'static,
        bounded: bool,
    ) -> io::Result<Vec<Entry>> {
        self.read(move |database| {
            let log = database.begin_read()?.open_table(LOG)?;
            let (mut entries, mut taken) = (Vec::new(), 0);
            for stored in log.range(range)? {
                let (_, value) = stored?;
                entries.push(entry(value.value()).map_err(Failure::Codec)?);
                taken += value.value().len();
                if bounded && taken >= READ_BYTES_MAX {
                    break;
                }
            }
            Ok(entries)
        })
        .await
    }

    pub(super) async fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        self.read(|database| read_snapshot(&database.begin_read()?.open_table(FACTS)?)).await
    }

    /// Replaces the snapshot, unless the one that is there reaches further.
    pub(super) async fn save_snapshot(&self, meta: SnapshotMeta, state: Bytes) -> io::Result<()> {
        self.change(move |transaction| {
            let mut facts = transaction.open_table(FACTS)?;
            if read_snapshot(&facts)?.is_some_and(|(now, _)| now.last_log_id > meta.last_log_id) {
                return Ok(());
            }
            put(&mut facts, SNAPSHOT, &wire::StoredSnapshot { meta: Some(put_snapshot_meta(&meta)), state })
        })
        .await
    }

    /// Looks whether both files still have their names. If not, nothing is read or written any more, for the reason that
    /// [`Disk::broken`] gives then.
    pub(super) async fn check_files(&self) -> io::Result<()> {
        self.run(|open, inner| check_files(open, inner, &inner.acknowledged.lock())).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    ) -> io::Result<T> {
        self.run(move |open, _| read(&open.database)).await
    }

    async fn change(
        &self,
        make: impl FnOnce(&WriteTransaction) -> Result<(), Failure> + Send + 'static,
    ) -> io::Result<()> {
        self.run(move |open, inner| change(open, inner, make)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Open, &Inner) -> Result<T, Failure> + Send + 'static,
    ) -> io::Result<T> {
        if let Some(reason) = self.broken() {
            return Err(io::Error::other(reason));
        }
        let inner = self.inner.clone();
        let done = self.env.run_blocking(move || inner.open.read().as_ref().map(|open| work(open, &inner)));
        let path = &self.inner.path;
        let (error, panicked, may_pass) = match done.await {
            Ok(Some(Ok(done))) => return Ok(done),
            Ok(None) => return Err(io::Error::other("the consensus log is closed")),
            Ok(Some(Err(failure))) => {
                let may_pass = failure.may_pass();
                (failure.running(path), false, may_pass)
            }
            Err(_) => {
                (OpenError::damaged(path, "the database cannot be used without a panic").to_string(), true, false)
            }
        };
        tracing::error!("{error}");
        *self.inner.broken.lock() = Some(Broken { reason: error.clone(), panicked, may_pass });
        Err(io::Error::other(error))
    }
}

/// Makes a change durable, with what was only noted, and notes that it is.
fn change(
    open: &Open,
    inner: &Inner,
    make: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut acknowledged = inner.acknowledged.lock();
    let number = acknowledged.number() + 1;
    let transaction = open.database.begin_write()?;
    make(&transaction)?;
    put(&mut transaction.open_table(FACTS)?, COMMIT, &wire::CommitNumber { number })?;
    let committed = inner.ends.lock().committed;
    if let Some(committed) = committed {
        put(&mut transaction.open_table(FACTS)?, COMMITTED, &put_log_id(&committed))?;
    }
    transaction.commit()?;
    acknowledged.note(number).map_err(redb::Error::Io)?;
    check_files(open, inner, &acknowledged)
}

fn check_files(open: &Open, inner: &Inner, acknowledged: &Acknowledged) -> Result<(), Failure> {
    let files = &*inner.files;
    if let Some(what) = acknowledged::moved(files, &inner.path, &*open.file).map_err(redb::Error::Io)? {
        return Err(Failure::Moved(format!(
            "{what}: put back the one that was there, and start it again; if it is lost: {}",
            way_out(&inner.path)
        )));
    }
    if let Some(what) = acknowledged.moved(files).map_err(redb::Error::Io)? {
        return Err(Failure::Moved(format!(
            "{what}: put back the one that was there, and start it again. If it is lost, the next start makes it again, and \
             cannot tell whether {FILE} is all there"
        )));
    }
    Ok(())
}

/// What the file held.
struct Facts {
    vote: Option<Vote>,
    ends: Ends,
    cluster: Option<ClusterId>,
    snapshot: Option<(SnapshotMeta, Bytes)>,
    /// The number of the last commit.
    commit: u64,
}

fn open(
    files: &dyn Files,
    dir: &Path,
    member: u64,
    rules_max: u32,
    must_exist: bool,
) -> Result<(Open, Facts, Acknowledged), OpenError> {
    check_not_lost(files, dir, must_exist)?;
    files.create_dir_all(dir).map_err(OpenError::io(dir, "make the data folder"))?;
    let lock_path = dir.join(LOCK);
    let lock = files.try_lock(&lock_path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: lock_path.clone() },
        _ => OpenError::io(&lock_path, "lock the data folder")(error),
    })?;
    let names: Vec<String> = (files.list(dir).map_err(OpenError::io(dir, "list the data folder"))?.into_iter())
        .map(|entry| entry.name)
        .collect();
    let path = dir.join(FILE);
    if names.iter().any(|name| name == TEMPORARY) {
        files.remove(&dir.join(TEMPORARY)).map_err(OpenError::io(dir, "remove what a crash left"))?;
    }
    let (database, file) = if names.iter().any(|name| name == FILE) {
        let file = files.open(&path, OpenMode::ReadWrite).map_err(OpenError::io(&path, "open it"))?;
        let len = file.len().map_err(OpenError::io(&path, "open it"))?;
        if len == 0 {
            return Err(OpenError::damaged(&path, "it is empty"));
        }
        // What is read is going to be promised to the other members: it must be on disk, name and bytes.
        let durable = make_durable(&*file, 0..len).and_then(|()| files.sync_dir(dir));
        durable.map_err(OpenError::io(&path, "make durable what it holds"))?;
        (database(FileBackend::new(file.clone())).map_err(|error| error.opening(&path))?, file)
    } else {
        make(files, dir, member)?
    };
    let facts = recover(&database, &path, member, rules_max)?;
    let acknowledged = Acknowledged::open(files, dir, facts.commit)?;
    Ok((Open { database, file, _lock: lock }, facts, acknowledged))
}

/// Before anything is made: a member whose database is gone must not begin anew. `acknowledged` is made after the database,
/// and a repair moves it away first, so no crash leaves it alone.
fn check_not_lost(files: &dyn Files, dir: &Path, must_exist: bool) -> Result<(), OpenError> {
    let holds = |name: &str| match files.identity_at(&dir.join(name)) {
        // Whoever makes the folder says what is wrong with its place.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        found => found.map(|found| found.is_some()).map_err(OpenError::io(dir, "look for the log in the data folder")),
    };
    let lost = |why| Err(OpenError::Lost { path: dir.to_owned(), why });
    if holds(FILE)? {
        Ok(())
    } else if must_exist {
        lost("this process had it open a moment ago")
    } else if holds(acknowledged::NAME)? {
        lost("the file acknowledged beside it says that it was there")
    } else {
        Ok(())
    }
}

/// Makes the file aside and then gives it its name: it is there whole or not at all.
fn make(files: &dyn Files, dir: &Path, member: u64) -> Result<(Database, Arc<dyn File>), OpenError> {
    make_with(files, dir, |facts| put(facts, FOLDER, &wire::ControllerFolder { member, cluster: None }))
}

fn make_with(
    files: &dyn Files,
    dir: &Path,
    fill: impl FnOnce(&mut Table<'_, &'static str, &'static [u8]>) -> Result<(), Failure>,
) -> Result<(Database, Arc<dyn File>), OpenError> {
    let aside = dir.join(TEMPORARY);
    let file = files.open(&aside, OpenMode::CreateNew).map_err(OpenError::io(&aside, "make it"))?;
    let made = database(FileBackend::new(file.clone())).and_then(|database| {
        let transaction = database.begin_write()?;
        transaction.open_table(LOG)?;
        let mut facts = transaction.open_table(FACTS)?;
        fill(&mut facts)?;
        drop(facts);
        transaction.commit()?;
        Ok(database)
    });
    let database = made.map_err(|error| error.opening(&aside))?;
    let named = files.rename(&aside, &dir.join(FILE)).and_then(|()| files.sync_dir(dir));
    named.map_err(OpenError::io(dir, "give the new log its name"))?;
    Ok((database, file))
}

/// Makes the file of an only member whose log was purged up to a snapshot of that state. There must be none.
pub(crate) fn make_with_snapshot(
    files: &dyn Files,
    dir: &Path,
    (member, address): (u64, &str),
    cluster: ClusterId,
    state: Vec<u8>,
) -> Result<(), OpenError> {
    let last = wire::LogId { term: 1, member, index: 1 };
    let membership = wire::ControllerMembership {
        configs: vec![wire::controller_membership::Voters { ids: vec![member] }],
        members: vec![wire::controller_membership::Member { id: member, address: address.to_owned() }],
    };
    let meta = wire::SnapshotMeta { last: Some(last), membership_at: Some(last), membership: Some(membership) };
    make_with(files, dir, |facts| {
        put(facts, FOLDER, &wire::ControllerFolder { member, cluster: Some(cluster.to_wire()) })?;
        put(facts, VOTE, &wire::Vote { term: 1, member, committed: true })?;
        put(facts, SNAPSHOT, &wire::StoredSnapshot { meta: Some(meta), state: state.into() })?;
        put(facts, PURGED, &last)?;
        put(facts, COMMITTED, &last)
    })
    .map(drop)
}

/// Whether `dir` holds the file.
pub(crate) fn is_there(files: &dyn Files, dir: &Path) -> io::Result<bool> {
    Ok(files.identity_at(&dir.join(FILE))?.is_some())
}

fn database(backend: FileBackend) -> Result<Database, Failure> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
}

/// Reads everything once: a member that does not know what it promised must not take part.
fn recover(database: &Database, path: &Path, member: u64, rules_max: u32) -> Result<Facts, OpenError> {
    let read = || -> Result<_, Failure> {
        let transaction = database.begin_read()?;
        let facts = transaction.open_table(FACTS)?;
        let Some(wire::ControllerFolder { member: owner, cluster }) = get(&facts, FOLDER)? else {
            return match facts.get(PRE_RELEASE)? {
                Some(_) => Err(Failure::PreRelease),
                None => Err(CodecError::Damaged("it does not say whose it is").into()),
            };
        };
        let mut ends = Ends {
            purged: get(&facts, PURGED)?.map(read_log_id),
            last: None,
            committed: get(&facts, COMMITTED)?.map(read_log_id),
        };
        ends.last = ends.purged;
        for stored in transaction.open_table(LOG)?.range::<u64>(..)? {
            let (index, value) = stored?;
            let Entry { log_id: id, payload } = entry(value.value())?;
            if let EntryPayload::Normal(batch) = payload
                && let Some(newer) = batch.beyond(rules_max)
            {
                return Err(newer.into());
            }
            if id.index != index.value() || ends.last.is_some_and(|last| last.index + 1 != id.index) {
                return Err(CodecError::Damaged("an entry of the log is missing").into());
            }
            ends.last = Some(id);
        }
        let cluster = cluster.map(ClusterId::from_wire).transpose().map_err(CodecError::from)?;
        let vote = get(&facts, VOTE)?.map(read_vote);
        let commit = get(&facts, COMMIT)?.map_or(0, |commit: wire::CommitNumber| commit.number);
        Ok((owner, Facts { vote, ends, cluster, snapshot: read_snapshot(&facts)?, commit }))
    };
    let (owner, facts) = read().map_err(|error| error.opening(path))?;
    if owner != member {
        return Err(OpenError::OtherMember { path: path.to_owned(), expected: member, found: owner });
    }
    Ok(facts)
}

/// All values of a database by name, in a copy of its file: entries of the log last, by index.
pub(crate) fn read_values(file: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let backend = CopyBackend(Mutex::new(file));
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
    let transaction = database.begin_read()?;
    let mut values = Vec::new();
    for stored in transaction.open_table(FACTS)?.iter()? {
        let (name, value) = stored?;
        values.push((name.value().to_owned(), value.value().to_owned()));
    }
    for stored in transaction.open_table(LOG)?.iter()? {
        let (index, value) = stored?;
        values.push((format!("log {}", index.value()), value.value().to_owned()));
    }
    Ok(values)
}

fn entry(value: &[u8]) -> Result<Entry, CodecError> {
    unseal(value).and_then(read_entry)
}

fn read_snapshot(
    facts: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<(SnapshotMeta, Bytes)>, Failure> {
    let Some(wire::StoredSnapshot { meta, state }) = get(facts, SNAPSHOT)? else { return Ok(None) };
    Ok(Some((read_snapshot_meta(need(meta, "the description of a snapshot")?)?, state)))
}

fn get<M: Message + Default>(
    facts: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<M>, Failure> {
    Ok(facts.get(name)?.map(|value| unseal(value.value())).transpose()?)
}

fn put(
    facts: &mut Table<'_, &'static str, &'static [u8]>,
    name: &'static str,
    fact: &impl Message,
) -> Result<(), Failure> {
    facts.insert(name, &seal(fact)[..])?;
    Ok(())
}

/// What can go wrong in a transaction.
enum Failure {
    Database(redb::Error),
    Codec(CodecError),
    /// Written before the first release.
    PreRelease,
    /// A file has lost its name. What that means is in the text.
    Moved(String),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Database(error.into())
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Failure {
        Failure::Codec(error)
    }
}

impl Failure {
    fn into_io(self) -> io::Error {
        match self {
            Failure::Database(redb::Error::Io(error)) => error,
            Failure::Database(error) => io::Error::other(error),
            Failure::Codec(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            Failure::PreRelease => io::Error::other("written by a pre-release"),
            Failure::Moved(what) => io::Error::other(what),
        }
    }

    /// Whether it is the disk that failed.
    fn may_pass(&self) -> bool {
        matches!(self, Failure::Database(redb::Error::Io(error)) if error.kind() != io::ErrorKind::InvalidData)
    }

    /// What a running member says of it, with the next thing to do.
    fn running(self, path: &Path) -> String {
        let shown = path.display();
        match self {
            Failure::Database(redb::Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
                format!("{shown}: the disk is full: free space on it; nothing that was answered is lost")
            }
            Failure::Database(redb::Error::Io(error)) => {
                format!("{shown}: cannot be read or written: {error}; see what the system says of the disk (dmesg)")
            }
            Failure::Moved(what) => what,
            failure => failure.opening(path).to_string(),
        }
    }

    fn opening(self, path: &Path) -> OpenError {
        let path: PathBuf = path.to_owned();
        match self {
            Failure::PreRelease => OpenError::PreRelease { path },
            Failure::Moved(what) => OpenError::Start(what),
            Failure::Codec(error) => OpenError::undecodable(&path, error),
            Failure::Database(redb::Error::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                OpenError::io(&path, "read it")(error)
            }
            Failure::Database(error) => OpenError::damaged(&path, error),
        }
    }
}
