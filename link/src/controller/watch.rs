//! A watch that outlives its connections: it goes on after the last version it yielded, at any member that answers.

use super::REPLY_BYTES_MAX;
use super::link::Members;
use crate::transport::{Channel, Retry};
use futures_util::stream::{self, StreamExt as _};
use gantry_proto::contract::{MetadataEvent, MetadataStream};
use gantry_proto::convert::{Malformed, watched};
use gantry_proto::model::{MetadataChange, MetadataVersion};
use gantry_proto::wire::controller::v1 as wire;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use wire::metadata_client::MetadataClient;

/// How long a member may take to begin the watch before another one is asked.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes that one version may have: far more than the largest cluster's.
const CHANGES_MAX: usize = 20_000_000;

struct Watch {
    members: Arc<Members>,
    retry: Retry,
    /// The last version that was yielded.
    after: MetadataVersion,
    open: Option<Open>,
    /// Whether the present failure was logged.
    logged: bool,
    /// Whether it was logged that the controller knows more than this program.
    newer_logged: bool,
}

/// A connection that brings pages.
struct Open {
    pages: Streaming<wire::WatchPage>,
    member: usize,
    since: Instant,
    _channel: Channel,
}

/// All versions after `after`, until `closed`.
pub(super) fn watch(
    members: Arc<Members>,
    retry: Retry,
    after: MetadataVersion,
    closed: CancellationToken,
) -> MetadataStream {
    let watch = Watch { members, retry, after, open: None, logged: false, newer_logged: false };
    let events = stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) });
    events.take_until(closed.cancelled_owned()).boxed()
}

impl Watch {
    /// The next version. Waits for as long as no member answers.
    async fn next(&mut self) -> MetadataEvent {
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.open().await {
                    Ok(open) => open,
                    Err(why) => {
                        self.log(&why);
                        self.retry.wait(None).await;
                        continue;
                    }
                },
            };
            match next_version(&mut open.pages).await.and_then(|(event, newer)| Ok((self.check_cluster(event)?, newer)))
            {
                Ok((event, newer)) => {
                    self.after = event.version;
                    if let Some(newer) = newer {
                        self.log_newer(newer);
                    }
                    (self.open, self.logged) = (Some(open), false);
                    return event;
                }
                Err(why) => {
                    self.log(&why);
                    self.members.leave(open.member);
                    let since = open.since;
                    drop(open);
                    self.retry.wait(Some(since)).await;
                }
            }
        }
    }

    /// Refuses events of another cluster. From the event that gives the cluster its identity, this process learns it.
    fn check_cluster(&self, event: MetadataEvent) -> Result<MetadataEvent, String> {
        for change in &event.changes {
            if let MetadataChange::ClusterInitialized(cluster) = change {
                let told = self.members.local.belongs_to(*cluster);
                told.map_err(|other| format!("its metadata are not taken: {other}"))?;
            }
        }
        Ok(event)
    }

    fn log(&mut self, why: &str) {
        if !self.logged {
            tracing::warn!(version = self.after.0, "changes of the metadata are not seen for now: {why}");
            self.logged = true;
        }
    }

    fn log_newer(&mut self, newer: Malformed) {
        if !self.newer_logged {
            tracing::warn!(
                version = self.after.0,
                "the controller runs a newer gantry: {newer}, and cannot be used here; everything else goes on. Upgrade this \
                 process"
            );
            self.newer_logged = true;
        }
    }

    async fn open(&self) -> Result<Open, String> {
        let (member, peer) = self.members.current();
        let opened = tokio::time::timeout(OPEN_TIMEOUT, async {
            let channel = peer.channel().await?;
            let mut client = MetadataClient::with_origin(channel.clone(), channel.origin())
                .max_decoding_message_size(REPLY_BYTES_MAX);
            let opened = client.watch(wire::WatchRequest { after: self.after.0 }).await;
            let pages = opened.map_err(|status| status.message().to_owned())?.into_inner();
            Ok(Open { pages, member, since: Instant::now(), _channel: channel })
        });
        let opened = opened.await.unwrap_or_else(|_| Err(format!("no controller answers within {OPEN_TIMEOUT:?}")));
        if opened.is_err() {
            self.members.leave(member);
        }
        opened
    }
}

/// The next version: all changes that are understood, and one that matters and is not, if there is one. After an error the
/// connection is of no use.
async fn next_version(pages: &mut Streaming<wire::WatchPage>) -> Result<(MetadataEvent, Option<Malformed>), String> {
    let (mut changes, mut newer) = (Vec::new(), None);
    loop {
        let page = match pages.message().await {
            Ok(Some(page)) => page,
            Ok(None) => return Err("the controller ended the watch".to_owned()),
            Err(status) => return Err(status.message().to_owned()),
        };
        newer = newer.or(understood(page.changes, &mut changes));
        if page.last {
            return Ok((MetadataEvent { version: MetadataVersion(page.version), changes }, newer));
        }
        if changes.len() > CHANGES_MAX {
            return Err("the controller sends changes without end".to_owned());
        }
    }
}

/// Adds the changes that are understood. Those that only a newer version knows must not stop the watch, and must not go
/// unnoticed either.
fn understood(page: Vec<wire::MetadataChange>, changes: &mut Vec<MetadataChange>) -> Option<Malformed> {
    let mut newer = None;
    for change in page {
        let (change, unknown) = watched(change);
        changes.extend(change);
        newer = newer.or(unknown);
    }
    newer
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::convert::Wire as _;
    use gantry_proto::model::{GroupId, Removed, TopicId};
    use prost::Message as _;

    /// A change of a kind that only a later version has, as its bytes arrive here.
    fn unknown(skippable: bool) -> wire::MetadataChange {
        let mut bytes = vec![0xfa, 0x07, 3, b'n', b'e', b'w'];
        bytes.extend(wire::MetadataChange { change: None, skippable }.encode_to_vec());
        wire::MetadataChange::decode(&bytes[..]).unwrap()
    }

    #[test]
    fn changes_that_are_not_known_do_not_hold_up_the_others() {
        let known = MetadataChange::TopicRemoved(TopicId(7));
        for (skippable, said) in [(true, false), (false, true)] {
            let mut changes = Vec::new();
            let newer = understood(vec![unknown(skippable), known.to_wire(), unknown(skippable)], &mut changes);
            let left_out = said.then_some(MetadataChange::NotUnderstood(None));
            let expected: Vec<_> = left_out.iter().chain([&known]).chain(&left_out).cloned().collect();
            assert_eq!(changes, expected);
            assert_eq!(newer.is_some(), said);
        }
    }

    /// A page with one change, as its bytes arrive here.
    fn taken(page: &[u8]) -> (Vec<MetadataChange>, bool) {
        let mut changes = Vec::new();
        let page = wire::WatchPage::decode(page).unwrap();
        let newer = understood(page.changes, &mut changes);
        (changes, newer.is_some())
    }

    fn page(change: wire::metadata_change::Change) -> Vec<u8> {
        let changes = vec![wire::MetadataChange { change: Some(change), skippable: false }];
        wire::WatchPage { version: 3, changes, last: true }.encode_to_vec()
    }

    #[test]
    fn a_topic_or_group_that_cannot_be_read_is_there_all_the_same() {
        use wire::metadata_change::Change;
        let spread = Some(wire::placement::Placement::EveryGroup(wire::placement::EveryGroup {}));
        let topic = wire::Topic {
            id: 9,
            name: "a".to_owned(),
            r#type: 1,
            placement: Some(wire::Placement { placement: spread }),
            ..wire::Topic::default()
        };
        assert!(matches!(taken(&page(Change::TopicUpsert(topic.clone()))).0[..], [MetadataChange::TopicUpsert(_)]));
        let of_later_type = wire::Topic { r#type: 99, ..topic.clone() };
        let placed_otherwise = wire::Topic { placement: Some(wire::Placement { placement: None }), ..topic.clone() };
        let named_otherwise = wire::Topic { name: "a b".to_owned(), ..topic };
        let group = wire::Group {
            id: 5,
            name: "g".to_owned(),
            backoff: Some(wire::BackoffPolicy { policy: None }),
            ..wire::Group::default()
        };
        let topic = Some(Removed::Topic(TopicId(9)));
        for (change, identity) in [
            (Change::TopicUpsert(of_later_type.clone()), topic),
            (Change::TopicUpsert(placed_otherwise), topic),
            (Change::TopicUpsert(named_otherwise), topic),
            (Change::GroupUpsert(group), Some(Removed::Group(GroupId(5)))),
            (Change::TopicUpsert(wire::Topic { id: 0, ..of_later_type }), None),
        ] {
            assert_eq!(taken(&page(change)), (vec![MetadataChange::NotUnderstood(identity)], true));
        }
    }

    #[test]
    fn a_store_group_or_proxy_that_cannot_be_read_says_nothing_of_topics() {
        use wire::metadata_change::Change;
        let group = wire::StoreGroup { id: 1, name: "a".to_owned(), state: 99, ..wire::StoreGroup::default() };
        assert_eq!(taken(&page(Change::StoreGroupUpsert(group))), (vec![], true));
        assert_eq!(taken(&page(Change::ProxyRemoved(bytes::Bytes::from_static(b"short")))), (vec![], true));
    }
}
