//! What everybody may know: the applied state, the latest changes, and who waits for the next one.
//!
//! The consensus log applies, watchers follow. What must always hold:
//! - Only committed commands get here, in the order of the log; versions of one feed never go back.
//! - A watcher costs a cursor, however slow it is: events are taken from the shared history when it asks for the next one, and
//!   one that has fallen behind the history gets a snapshot instead.

use crate::state::MetadataState;
use futures_util::{StreamExt as _, stream};
use gantry_proto::contract::{MetadataEvent, MetadataStream};
use gantry_proto::model::{MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion, Timestamp};
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// How far a watcher may be behind, in changes, and still go on without a snapshot. At a few hundred bytes each this is
/// bounded by megabytes, and it covers minutes of a reconnecting proxy.
const HISTORY_CHANGES_MAX: usize = 10_000;

/// What came of a command.
pub(crate) type Applied = Result<(MetadataVersion, MetadataOutcome), MetadataRefusal>;

/// The published metadata.
pub(crate) struct Feed {
    published: RwLock<Published>,
    tip: watch::Sender<Tip>,
}

#[derive(Default)]
struct Published {
    state: MetadataState,
    /// The events that led to `state`, without gaps, the latest at the back.
    history: VecDeque<MetadataEvent>,
    history_weight: usize,
}

/// What wakes watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tip {
    version: MetadataVersion,
    closed: bool,
}

/// One watcher.
struct Cursor {
    feed: Arc<Feed>,
    tip: watch::Receiver<Tip>,
    /// What it has seen; nothing at first.
    seen: Option<MetadataVersion>,
}

impl Feed {
    pub(crate) fn new(state: MetadataState) -> Feed {
        let tip = Tip { version: state.version(), closed: false };
        let published = Published { state, ..Published::default() };
        Feed { published: RwLock::new(published), tip: watch::Sender::new(tip) }
    }

    /// A copy of the state. Shares what the maps hold.
    pub(crate) fn state(&self) -> MetadataState {
        self.published.read().state.clone()
    }

    /// Looks at the state without copying it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&MetadataState) -> T) -> T {
        look(&self.published.read().state)
    }

    /// Carries committed commands out, in order, and wakes the watchers. One answer for each.
    pub(crate) fn apply(&self, commands: &[MetadataCommand], at: Timestamp) -> Vec<Applied> {
        let mut published = self.published.write();
        let applied = commands.iter().map(|command| published.apply(command, at)).collect();
        let version = published.state.version();
        drop(published);
        self.tip.send_if_modified(|tip| std::mem::replace(&mut tip.version, version) != version);
        applied
    }

    /// Goes on from a state that came as a whole. Watchers get it as a whole, too.
    pub(crate) fn replace(&self, state: MetadataState) {
        let version = state.version();
        *self.published.write() = Published { state, ..Published::default() };
        self.tip.send_modify(|tip| tip.version = version);
    }

    /// The version applied last.
    pub(crate) fn version(&self) -> MetadataVersion {
        self.tip.borrow().version
    }

    /// Waits until the state is as `wanted`, or the feed is closed: false. Cancel-safe.
    pub(crate) async fn reached(&self, wanted: impl Fn(&MetadataState) -> bool) -> bool {
        let mut tip = self.tip.subscribe();
        loop {
            let closed = tip.borrow_and_update().closed;
            if self.read(&wanted) {
                return true;
            }
            if closed || tip.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Ends all watches, once they have seen everything published.
    pub(crate) fn close(&self) {
        self.tip.send_modify(|tip| tip.closed = true);
    }

    /// What happens after `after`; everything for a watcher that has seen nothing (version 0) or too little.
    pub(crate) fn follow(self: &Arc<Feed>, after: MetadataVersion) -> MetadataStream {
        // Version 0 is a watcher's way to say that it has nothing: it gets its first event at once, even if that is empty.
        let seen = (after != MetadataVersion::default()).then_some(after);
        let cursor = Cursor { feed: self.clone(), tip: self.tip.subscribe(), seen };
        stream::unfold(cursor, async |mut cursor| cursor.next().await.map(|event| (event, cursor))).boxed()
    }

    fn next_after(&self, seen: Option<MetadataVersion>) -> Option<MetadataEvent> {
        let published = self.published.read();
        match seen {
            Some(seen) if seen == published.state.version() => None,
            Some(seen) => Some(published.remembered_after(seen).unwrap_or_else(|| published.snapshot())),
            None => Some(published.snapshot()),
        }
    }
}

impl Published {
    fn apply(&mut self, command: &MetadataCommand, at: Timestamp) -> Applied {
        let (outcome, changes) = self.state.apply(command, at)?;
        let version = self.state.version();
        self.remember(MetadataEvent { version, changes });
        Ok((version, outcome))
    }

    fn remember(&mut self, event: MetadataEvent) {
        self.history_weight += weight(&event);
        self.history.push_back(event);
        while self.history_weight > HISTORY_CHANGES_MAX
            && let Some(oldest) = self.history.pop_front()
        {
            self.history_weight -= weight(&oldest);
        }
    }

    /// The event that follows `seen`, while it is remembered. A version from the future, as after a restored backup, is not.
    fn remembered_after(&self, seen: MetadataVersion) -> Option<MetadataEvent> {
        let first = self.history.front()?.version.0;
        let index = (seen.0 + 1).checked_sub(first)?;
        self.history.get(usize::try_from(index).ok()?).cloned()
    }

    fn snapshot(&self) -> MetadataEvent {
        MetadataEvent { version: self.state.version(), changes: self.state.to_changes() }
    }
}

impl Cursor {
    async fn next(&mut self) -> Option<MetadataEvent> {
        loop {
            // Looked at before the feed, so that nothing published in between is slept through.
            let tip = *self.tip.borrow_and_update();
            if let Some(event) = self.feed.next_after(self.seen) {
                self.seen = Some(event.version);
                return Some(event);
            }
            if tip.closed {
                return None;
            }
            self.tip.changed().await.ok()?;
        }
    }
}

/// An event without changes takes room too.
fn weight(event: &MetadataEvent) -> usize {
    event.changes.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{create_group, create_topic, join_store};
    use futures_util::FutureExt as _;
    use gantry_proto::model::MetadataChange;

    /// A feed in which topics can be created, at version 1.
    fn feed() -> Arc<Feed> {
        let feed = Arc::new(Feed::new(MetadataState::default()));
        publish(&feed, &join_store("s", 1));
        feed
    }

    fn publish(feed: &Feed, command: &MetadataCommand) {
        feed.apply(std::slice::from_ref(command), Timestamp::ZERO).remove(0).unwrap();
    }

    /// Topics `0..count`, as one batch.
    fn publish_topics(feed: &Feed, names: std::ops::Range<usize>) {
        let commands: Vec<_> = names.map(|name| create_topic(&name.to_string(), 1)).collect();
        assert!(feed.apply(&commands, Timestamp::ZERO).iter().all(Result::is_ok));
    }

    fn next(stream: &mut MetadataStream) -> Option<Option<MetadataEvent>> {
        stream.next().now_or_never()
    }

    fn is_reset(event: &MetadataEvent) -> bool {
        event.changes.first() == Some(&MetadataChange::Reset)
    }

    #[test]
    fn a_new_watcher_gets_everything_at_once_and_then_each_change() {
        let feed = Arc::new(Feed::new(MetadataState::default()));
        let mut early = feed.follow(MetadataVersion(0));
        let empty = MetadataEvent { version: MetadataVersion(0), changes: MetadataState::default().to_changes() };
        assert_eq!(next(&mut early), Some(Some(empty)));
        assert_eq!(next(&mut early), None);
        publish(&feed, &create_group("g"));
        publish(&feed, &join_store("s", 1));
        let mut late = feed.follow(MetadataVersion(0));
        let everything = next(&mut late).flatten().unwrap();
        assert_eq!((everything.version, everything.changes.len()), (MetadataVersion(2), 5));
        assert_eq!(everything.changes, feed.state().to_changes());
        let versions: Vec<u64> = (0..2).map(|_| next(&mut early).flatten().unwrap().version.0).collect();
        assert_eq!(versions, [1, 2]);
        assert_eq!((next(&mut early), next(&mut late)), (None, None));
    }

    #[test]
    fn a_watcher_resumes_without_a_snapshot() {
        let feed = feed();
        publish_topics(&feed, 0..5);
        let mut stream = feed.follow(MetadataVersion(4));
        for version in [5, 6] {
            let event = next(&mut stream).flatten().unwrap();
            assert_eq!((event.version.0, event.changes.len()), (version, 1));
            assert!(!is_reset(&event));
        }
        assert_eq!(next(&mut stream), None);
    }

    #[test]
    fn a_slow_watcher_is_reset_and_the_history_stays_bounded() {
        let feed = feed();
        publish_topics(&feed, 0..1);
        let mut slow = feed.follow(MetadataVersion(2));
        publish_topics(&feed, 1..HISTORY_CHANGES_MAX + 100);
        assert_eq!(feed.published.read().history.len(), HISTORY_CHANGES_MAX);
        let event = next(&mut slow).flatten().unwrap();
        assert!(is_reset(&event));
        assert_eq!(event.version, feed.state().version());
        assert_eq!(next(&mut slow), None);
        publish(&feed, &create_topic("a", 1));
        assert!(!is_reset(&next(&mut slow).flatten().unwrap()));
    }

    #[test]
    fn a_watcher_from_another_history_is_reset() {
        let feed = feed();
        publish_topics(&feed, 0..5);
        let restarted = Arc::new(Feed::new(feed.state()));
        assert_eq!(next(&mut restarted.follow(MetadataVersion(6))), None, "the version is the current one");
        for seen in [5, 7, u64::MAX - 1] {
            assert!(is_reset(&next(&mut restarted.follow(MetadataVersion(seen))).flatten().unwrap()), "{seen}");
        }
    }

    #[tokio::test]
    async fn a_closed_feed_ends_its_streams_after_the_last_event() {
        let feed = feed();
        let stream = feed.follow(MetadataVersion(0));
        let watching = tokio::spawn(stream.map(|event| event.version.0).collect::<Vec<_>>());
        tokio::task::yield_now().await;
        publish_topics(&feed, 0..3);
        feed.close();
        assert_eq!(watching.await.unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_state_that_comes_as_a_whole_resets_its_watchers() {
        let feed = feed();
        let mut stream = feed.follow(MetadataVersion(1));
        let ahead = self::feed();
        publish_topics(&ahead, 0..3);
        feed.replace(ahead.state());
        let event = next(&mut stream).flatten().unwrap();
        assert!(is_reset(&event));
        assert_eq!((event.version, feed.version()), (MetadataVersion(4), MetadataVersion(4)));
    }

    #[tokio::test]
    async fn a_state_is_waited_for_until_the_feed_is_closed() {
        let feed = feed();
        let has = |name: &'static str| move |state: &MetadataState| state.topic(name).is_some();
        let (reached, ()) = tokio::join!(biased; feed.reached(has("0")), async { publish_topics(&feed, 0..1) });
        assert!(reached);
        let (reached, ()) = tokio::join!(biased; feed.reached(has("x")), async { feed.close() });
        assert!(!reached);
    }
}
