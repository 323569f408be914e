//! A copy of what the store is told of topics and groups: the file `names`.
//!
//! The log knows topics and groups by their numbers. Who makes a lost controller's folder again from the store takes names,
//! types and policies from here ([`crate::repair::Known`]). The store itself never reads it to serve.
//!
//! Little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `GNTRYNAM` |
//! | 4 | format: 1 |
//! | 4 | CRC-32C of all the other bytes |
//! | the rest | `MetadataState` of `controller/v1/raft.proto`: version, cluster, topics, groups. Other fields are not written, and passed over |
//!
//! It is written shortly after the metadata have changed, and when the store stops. What must always hold: an object leaves it
//! only when it is known to have been deleted, not when a controller that was put back does not name it; and a file of a later
//! format is left alone.

use crate::durable_file;
use crate::store::Store;
use gantry_proto::convert::Wire as _;
use gantry_proto::env::Files;
use gantry_proto::model::{ClusterId, ConsumerGroup, GroupId, MetadataVersion, MetadataView, Removed, Topic, TopicId};
use gantry_proto::wire::controller::v1 as wire;
use prost::Message as _;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NAME: &str = "names";

const MAGIC: &[u8; 8] = b"GNTRYNAM";
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 16;
/// Changes that come one after another are written together: the more there is to write, the more of them.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_PER_OBJECT: Duration = Duration::from_micros(50);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Names {
    /// The metadata of that version.
    pub(crate) version: MetadataVersion,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) topics: BTreeMap<TopicId, Arc<Topic>>,
    pub(crate) groups: BTreeMap<GroupId, Arc<ConsumerGroup>>,
}

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamesError {
    #[error("reading {NAME}: {0}")]
    Io(#[from] io::Error),
    #[error("{NAME} was written by a newer gantry ({0})")]
    Newer(String),
    #[error("{NAME} is damaged: its checksum does not match")]
    Damaged,
}

impl Names {
    /// What the file in `dir` says. `None`: there is none.
    pub(crate) fn read(files: &dyn Files, dir: &Path) -> Result<Option<Names>, NamesError> {
        durable_file::read(files, dir, NAME)?.map(|bytes| Names::decode(&bytes)).transpose()
    }

    /// Brings it up to what `view` says. Whether anything changed.
    fn follow(&mut self, view: &MetadataView) -> bool {
        let before = (self.topics.clone(), self.groups.clone());
        let cluster = view.cluster();
        if cluster.is_none() {
            return false;
        }
        (self.version, self.cluster) = (view.version(), cluster);
        let all = usize::MAX;
        self.topics.retain(|id, _| !view.knows_removed(Removed::Topic(*id)));
        self.groups.retain(|id, _| !view.knows_removed(Removed::Group(*id)));
        self.topics.extend(view.topics_page("", "", all).into_iter().map(|topic| (topic.id, topic)));
        self.groups.extend(view.groups_page("", "", all).into_iter().map(|group| (group.id, group)));
        before != (self.topics.clone(), self.groups.clone())
    }

    fn encode(&self) -> Vec<u8> {
        let message = wire::MetadataState {
            version: self.version.0,
            cluster: self.cluster.as_ref().map(|cluster| cluster.to_wire()),
            topics: self.topics.values().map(|topic| topic.to_wire()).collect(),
            groups: self.groups.values().map(|group| group.to_wire()).collect(),
            ..wire::MetadataState::default()
        };
        let mut out = Vec::with_capacity(HEADER_LEN + message.encoded_len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&message.encode_to_vec());
        let crc = checksum(&out);
        out[12..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Names, NamesError> {
        let Some((header, message)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Err(NamesError::Damaged) };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..8] != MAGIC || checksum(bytes) != word(12) {
            return Err(NamesError::Damaged);
        }
        if word(8) != FORMAT {
            return Err(NamesError::Newer(format!("format {}, this one knows {FORMAT}", word(8))));
        }
        let newer = |what: &dyn std::fmt::Display| NamesError::Newer(what.to_string());
        let message = wire::MetadataState::decode(message).map_err(|error| newer(&error))?;
        let mut names = Names { version: MetadataVersion(message.version), ..Names::default() };
        names.cluster = message.cluster.map(ClusterId::from_wire).transpose().map_err(|error| newer(&error))?;
        for topic in message.topics {
            let topic = Arc::<Topic>::from_wire(topic).map_err(|error| newer(&error))?;
            names.topics.insert(topic.id, topic);
        }
        for group in message.groups {
            let group = Arc::<ConsumerGroup>::from_wire(group).map_err(|error| newer(&error))?;
            names.groups.insert(group.id, group);
        }
        Ok(names)
    }
}

/// Of all but the place where it stands.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[HEADER_LEN..])
}

/// Keeps the file until the store stops. What cannot be written is tried again at the next change.
pub(crate) async fn keep(store: Arc<Store>) {
    let reading = store.clone();
    let read = store.env.run_blocking(move || Names::read(&*reading.env.files, &reading.dir)).await;
    let mut names = match read {
        Ok(Ok(names)) => names.unwrap_or_default(),
        Ok(Err(NamesError::Damaged)) => Names::default(),
        // It is a copy: nothing waits for it.
        Ok(Err(error)) => {
            tracing::warn!(%error, "names of topics and groups are not kept in the store's folder");
            return;
        }
        Err(_) => return,
    };
    let mut seen = MetadataVersion::default();
    let mut stopping = false;
    while !stopping {
        // A picture may also go back, to that of a controller that was put back.
        let changed = store.view.reached(MetadataVersion(seen.0 + 1));
        stopping = store.stopping.run_until_cancelled(changed).await.is_none();
        let (topics, groups) = store.view.counts();
        let pause = PAUSE + PAUSE_PER_OBJECT * u32::try_from(topics + groups).unwrap_or(u32::MAX);
        stopping |= store.stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none();
        seen = store.view.version();
        let keeping = store.clone();
        let kept = store.env.run_blocking(move || {
            let saved = if names.follow(&keeping.view) { save(&keeping, &names) } else { Ok(()) };
            (names, saved)
        });
        let Ok((kept, saved)) = kept.await else { return };
        names = kept;
        if let Err(error) = saved {
            tracing::warn!(%error, "the copy of names of topics and groups cannot be written now");
            names = Names::default();
        }
    }
}

fn save(store: &Store, names: &Names) -> io::Result<()> {
    // Nobody else may have the folder by now.
    let folder = store.folder.lock();
    if !folder.is_locked() || folder.cluster().is_some_and(|own| Some(own) != names.cluster) {
        return Ok(());
    }
    durable_file::replace(&*store.env.files, &store.dir, NAME, &names.encode())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
mod tests {
    use super::*;
    use crate::support::*;
    use gantry_proto::model::{MetadataChange, TopicName};

    fn view(cluster: u8) -> MetadataView {
        let view = MetadataView::default();
        let mut changes = vec![MetadataChange::ClusterInitialized(ClusterId([cluster; 16]))];
        changes.extend([(1, "orders"), (2, "bills")].map(|(id, name)| topic(id, name)));
        view.apply(MetadataVersion(3), &changes);
        view
    }

    fn topic(id: u32, name: &str) -> MetadataChange {
        MetadataChange::TopicUpsert(Arc::new(Topic {
            id: TopicId(id),
            name: TopicName::parse(name).unwrap(),
            topic_type: gantry_proto::model::TopicType::Fifo,
            placement: gantry_proto::model::Placement::spread(4, &[gantry_proto::model::StoreGroupId(1)], 0),
            dead_letter_of: None,
            created_at: gantry_proto::model::Timestamp::from_millis(5),
        }))
    }

    fn named(names: &Names) -> Vec<&str> {
        names.topics.values().map(|topic| topic.name.as_str()).collect()
    }

    #[test]
    fn what_is_written_is_read_and_every_changed_byte_is_noticed() {
        let mut names = Names::default();
        assert!(!names.follow(&MetadataView::default()), "of no cluster yet");
        assert!(names.follow(&view(1)));
        assert!(!names.follow(&view(1)), "nothing is new");
        let encoded = names.encode();
        assert_eq!(Names::decode(&encoded).unwrap(), names);
        for at in 0..encoded.len() {
            let mut changed = encoded.clone();
            changed[at] ^= 4;
            assert!(matches!(Names::decode(&changed), Err(NamesError::Damaged)), "byte {at}");
            assert!(matches!(Names::decode(&encoded[..at]), Err(NamesError::Damaged)), "cut to {at}");
        }
        let mut later = encoded;
        later[8] = 2;
        let crc = checksum(&later);
        later[12..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Names::decode(&later), Err(NamesError::Newer(_))));
    }

    #[test]
    fn only_what_is_known_to_be_deleted_leaves_it() {
        let mut names = Names::default();
        let view = view(1);
        names.follow(&view);
        let given = |last: u32| MetadataChange::Given { last_topic: TopicId(last), last_group: GroupId(0), lost: None };
        // A controller that was put back names neither.
        let founded = || MetadataChange::ClusterInitialized(ClusterId([1; 16]));
        view.apply(MetadataVersion(1), &[MetadataChange::Reset, founded(), given(0)]);
        assert!(!names.follow(&view));
        assert_eq!(named(&names), ["orders", "bills"]);
        view.apply(MetadataVersion(9), &[MetadataChange::Reset, founded(), given(2), topic(2, "bills")]);
        assert!(names.follow(&view));
        assert_eq!(named(&names), ["bills"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_keeps_it_and_leaves_a_later_one_alone() {
        let machine = Machine::new(1);
        let store = machine.must_open();
        let read = || Names::read(&*machine.env.files, &machine.dir);
        let version = MetadataVersion(machine.view.version().0 + 1);
        let cluster = store.folder.lock().cluster().unwrap();
        machine.view.apply(version, &[MetadataChange::ClusterInitialized(cluster), topic(70, "kept")]);
        while !read().is_ok_and(|names| names.is_some_and(|names| names.topics.contains_key(&TopicId(70)))) {
            tokio::time::sleep(PAUSE).await;
        }
        // What comes last is there as well.
        machine.view.apply(MetadataVersion(version.0 + 1), &[topic(71, "last")]);
        store.shutdown().await.unwrap();
        drop(store);
        assert_eq!(read().unwrap().unwrap().topics.get(&TopicId(71)).unwrap().name.as_str(), "last");

        let mut later = Names::default().encode();
        later[8] = 2;
        let crc = checksum(&later);
        later[12..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        durable_file::replace(&*machine.env.files, &machine.dir, NAME, &later).unwrap();
        let store = machine.must_open();
        machine.view.apply(MetadataVersion(version.0 + 2), &[topic(72, "more")]);
        tokio::time::sleep(PAUSE * 10).await;
        store.shutdown().await.unwrap();
        assert_eq!(durable_file::read(&*machine.env.files, &machine.dir, NAME).unwrap().unwrap(), later);
    }
}
