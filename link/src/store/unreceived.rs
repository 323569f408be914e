//! Deliveries that a store sent to proxies, in frames of which it does not know whether they were received.
//!
//! # The way of a reply that brings deliveries
//! ```text
//! store: put into a frame, kept here                    StreamOfReplies::sent
//!   | Requests.frames_received, with the proxy's next frame: forgotten    StreamOfReplies::received_to
//!   | the stream ends, and nobody knows which frames the proxy has
//! proxy: connects again, says which stream it lost, and how many of its frames it has    Hello.lost
//! store: gives back at once what was in the others      Unreceived::resume
//! ```
//! No delivery is given back on a guess: a proxy that does not come back may have passed on what it was sent. Then a delivery
//! ends with its lease, and a push client's is not renewed (`RenewRequest::arrived`). What was never put into a frame is given
//! back when the stream ends.
//!
//! Must always hold: a stream is known by a number that no other one ever has, of this process or of one before it. What is
//! kept is bounded, in time and in number.

use gantry_proto::contract::{ChangeInvisibleRequest, StoreService};
use gantry_proto::model::{Epoch, GroupId, ReceiptHandle, TopicId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For how long what a stream may have lost is kept after its end.
const KEPT: Duration = Duration::from_secs(60);
/// Deliveries that are kept of one stream; the oldest are forgotten first.
const DELIVERIES_MAX: usize = 65_536;
/// How long giving deliveries back may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Deliveries of one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deliveries {
    pub(super) group: GroupId,
    pub(super) topic: TopicId,
    pub(super) handles: Vec<ReceiptHandle>,
}

/// All streams of a store: those that go on, and those that ended a short while ago.
#[derive(Default)]
pub(super) struct Unreceived(Mutex<Streams>);

#[derive(Default)]
struct Streams {
    last: u32,
    by_number: BTreeMap<u64, Arc<StreamOfReplies>>,
}

/// What was sent on one stream.
pub(super) struct StreamOfReplies {
    pub(super) number: u64,
    /// Whether the proxy says what it has received.
    confirms: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: u64,
    /// By the number of their frame, counted from 1.
    unreceived: VecDeque<(u64, Deliveries)>,
    count: usize,
    ended: Option<Instant>,
    /// The proxy has another stream instead.
    replaced: bool,
}

impl Unreceived {
    /// A new stream, of a store that leads in `epoch`.
    pub(super) fn open(&self, epoch: Epoch, confirms: bool) -> Arc<StreamOfReplies> {
        let mut streams = self.0.lock();
        let now = Instant::now();
        let is_kept = |stream: &StreamOfReplies| stream.state.lock().ended.is_none_or(|ended| ended + KEPT > now);
        streams.by_number.retain(|_, stream| is_kept(stream));
        // A store that starts again leads in a later epoch.
        streams.last += 1;
        let number = u64::from(epoch.0) << 32 | u64::from(streams.last);
        let stream = Arc::new(StreamOfReplies { number, confirms, state: Mutex::default() });
        streams.by_number.insert(number, stream.clone());
        stream
    }

    /// A proxy has lost the stream of that number after so many frames. What was in later ones reached nobody.
    pub(super) fn resume(&self, number: u64, frames_received: u64) -> Vec<Deliveries> {
        let Some(stream) = self.0.lock().by_number.remove(&number) else { return Vec::new() };
        stream.received_to(frames_received);
        let mut state = stream.state.lock();
        state.replaced = true;
        state.unreceived.drain(..).map(|(_, deliveries)| deliveries).collect()
    }
}

impl StreamOfReplies {
    /// A frame is handed to the transport.
    pub(super) fn sent(&self, deliveries: impl IntoIterator<Item = Deliveries>) {
        let mut state = self.state.lock();
        state.frames += 1;
        if !self.confirms {
            return;
        }
        let frame = state.frames;
        for deliveries in deliveries {
            state.count += deliveries.handles.len();
            state.unreceived.push_back((frame, deliveries));
        }
        while state.count > DELIVERIES_MAX
            && let Some((_, oldest)) = state.unreceived.pop_front()
        {
            state.count -= oldest.handles.len();
        }
    }

    /// The proxy has this many frames.
    pub(super) fn received_to(&self, frames: u64) {
        let mut state = self.state.lock();
        while let Some((_, received)) = state.unreceived.pop_front_if(|(frame, _)| *frame <= frames) {
            state.count -= received.handles.len();
        }
    }

    /// Whether the proxy has another stream instead of this one.
    pub(super) fn is_replaced(&self) -> bool {
        self.state.lock().replaced
    }

    pub(super) fn ended(&self) {
        self.state.lock().ended = Some(Instant::now());
    }
}

/// Makes the messages of deliveries that reached nobody visible again. They do not count as attempts. A task of its own: what
/// calls this cannot wait.
pub(super) fn give_back(service: Arc<dyn StoreService>, lost: Vec<Deliveries>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if lost.is_empty() {
        return;
    }
    runtime.spawn(tokio::time::timeout(PATIENCE, async move {
        for Deliveries { group, topic, handles } in lost {
            for handle in handles {
                let request =
                    ChangeInvisibleRequest { group, topic, handle, invisible: Duration::ZERO, suspend: true };
                if let Err(error) = service.change_invisible(request).await {
                    tracing::debug!(%group, %topic, %error, "a delivery that was lost with its link could not be given back");
                }
            }
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliveries(handle: &str) -> Deliveries {
        Deliveries { group: GroupId(1), topic: TopicId(2), handles: vec![ReceiptHandle(handle.to_owned())] }
    }

    #[test]
    fn only_what_was_in_frames_that_the_proxy_does_not_have_is_given_back_and_once() {
        let unreceived = Unreceived::default();
        let stream = unreceived.open(Epoch(3), true);
        stream.sent([deliveries("a")]);
        stream.sent([]);
        stream.sent([deliveries("b"), deliveries("c")]);
        stream.sent([deliveries("d")]);
        stream.received_to(1);
        stream.ended();
        assert_eq!(unreceived.resume(stream.number + 1, 0), [], "another stream");
        assert_eq!(unreceived.resume(stream.number, 3), [deliveries("d")]);
        assert!(stream.is_replaced());
        assert_eq!(unreceived.resume(stream.number, 0), []);
    }

    #[test]
    fn nothing_is_kept_for_proxies_that_do_not_say_what_they_have() {
        let unreceived = Unreceived::default();
        let stream = unreceived.open(Epoch(3), false);
        stream.sent([deliveries("a")]);
        assert_eq!(unreceived.resume(stream.number, 0), []);
    }

    #[test]
    fn no_two_streams_have_one_number_not_even_of_two_processes() {
        let (before, after) = (Unreceived::default(), Unreceived::default());
        let numbers = [before.open(Epoch(3), true), before.open(Epoch(3), true), after.open(Epoch(4), true)];
        let mut numbers: Vec<u64> = numbers.iter().map(|stream| stream.number).collect();
        numbers.dedup();
        assert!(numbers.len() == 3 && !numbers.contains(&0), "{numbers:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_in_time_and_in_number() {
        let unreceived = Unreceived::default();
        let stream = unreceived.open(Epoch(3), true);
        for _ in 0..DELIVERIES_MAX + 7 {
            stream.sent([deliveries("a")]);
        }
        assert_eq!(stream.state.lock().unreceived.len(), DELIVERIES_MAX);
        stream.ended();
        tokio::time::sleep(KEPT).await;
        let next = unreceived.open(Epoch(3), true);
        assert_eq!(unreceived.resume(stream.number, 0), []);
        assert_eq!(unreceived.0.lock().by_number.keys().collect::<Vec<_>>(), [&next.number]);
    }
}
