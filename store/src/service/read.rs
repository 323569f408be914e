//! Reading messages back, for deliveries, dead letters and repeated sends: under no lock, and on a worker when they may have
//! to come from the disk.
//!
//! What was found is told for each message: one that cannot be read stops nothing but itself.

use crate::commit_log::read::Place;
use crate::commit_log::record::MessageSpan;
use crate::commit_log::segment::{ReadError, Record};
use crate::queue_index::IndexEntry;
use crate::store::Store;
use gantry_proto::contract::StoreError;
use gantry_proto::model::{QueueId, TopicId};

/// What an index entry led to.
#[derive(Debug)]
pub(crate) enum ReadMessage {
    Message(Record, MessageSpan),
    /// Retention was faster.
    Gone,
    /// What lies there is not what was written.
    Damaged(String),
    /// It could not be read now. It may be whole.
    Failed(String),
}

impl Store {
    /// The messages of one topic that index entries lead to, in their order.
    pub(crate) async fn read_messages(
        &self,
        topic: TopicId,
        entries: Vec<(QueueId, IndexEntry)>,
    ) -> Result<Vec<ReadMessage>, StoreError> {
        let whole = entries.iter().filter(|(_, entry)| !entry.is_damaged());
        let places = whole.map(|(_, entry)| Place { at: entry.log_offset, len: entry.len }).collect();
        let mut records = self.log.read_records(places).await?.into_iter();
        let found = |(queue, entry): (QueueId, IndexEntry)| {
            let record = if entry.is_damaged() { None } else { records.next() };
            match record {
                Some(record) => found(record, topic, queue, &entry),
                None => ReadMessage::Damaged(format!("its record was lost, near log offset {}", entry.log_offset)),
            }
        };
        Ok(entries.into_iter().map(found).collect())
    }
}

/// What reading at an entry of a queue has come to.
fn found(read: Result<Record, ReadError>, topic: TopicId, queue: QueueId, entry: &IndexEntry) -> ReadMessage {
    let record = match read {
        Ok(record) => record,
        Err(ReadError::Gone(_)) => return ReadMessage::Gone,
        // Whole, and of a newer Gantry or not to be understood: that is not damage.
        Err(ReadError::Damaged { source, .. }) if source.is_whole() => return ReadMessage::Failed(source.to_string()),
        Err(error @ (ReadError::Damaged { .. } | ReadError::Known { .. })) => {
            return ReadMessage::Damaged(error.to_string());
        }
        Err(error @ ReadError::Io { .. }) => return ReadMessage::Failed(error.to_string()),
    };
    let header = &record.header;
    let found = (header.topic, header.queue, header.queue_offset, header.len);
    if found != (topic, queue, entry.queue_offset, entry.len) {
        let why = format!("log offset {} holds another record: {found:?}", entry.log_offset);
        return ReadMessage::Damaged(why);
    }
    match record.message_span() {
        Ok(span) => ReadMessage::Message(record, span),
        Err(error) => ReadMessage::Damaged(format!("log offset {}: {error}", entry.log_offset)),
    }
}
