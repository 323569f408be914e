//! Which deliveries of a push consumer are known to have reached it. Only those are renewed.
//!
//! # The way of a delivery
//! ```text
//! store: leased for one lease, not to be renewed             PopRequest::once_arrived
//!   | the pop's answer
//! proxy: handed to the transport, whole, on a connection     Arrivals::begin, handed_over, complete
//!   | a sign of life (below)                                 Arrivals::receives, calls, is_over
//! proxy: it has arrived                                      Arrivals::arrived
//!   | the next renewal, unless it was finished meanwhile
//! store: its lease follows the client's life from now on     RenewRequest::arrived
//! ```
//! Everything else ends with the first lease: what was lost with the connection, with this proxy, or with its link to the
//! store, and what came when the client had given the call up. It was an attempt, because the client may have it. What the
//! transport never took is no attempt and is handed back at once (`handback`).
//!
//! # Signs of life
//! - The client finishes or changes a message of the answer: it has all of it, for clients take an answer as a whole.
//! - It asks again on the same connection, where it had this one receive for the topic under way: so it has the answer.
//! - It makes another call there, so much later that the call cannot have crossed the answer.
//!
//! The last two count only before the client gave the receive up: whoever gave up asks again, too.
//!
//! # What must always hold
//! - A delivery of which nobody knows whether it arrived is never named to the store.
//! - Nothing is kept for longer than the first lease; so nobody has to be told that a connection has ended.

use gantry_proto::model::{GroupId, ReceiptHandle, TopicId};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A call that comes in so soon after an answer may have been made before the answer came: it proves nothing.
const CROSSING: Duration = Duration::from_secs(1);
/// A call that comes in so shortly before its client gives the receive up may have been made when it had.
const GIVING_UP: Duration = Duration::from_millis(200);

/// A connection of this proxy. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Which messages a receive is for.
pub(crate) type Place = (GroupId, TopicId);

/// What one client was sent here and has not finished.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// Receives that are not answered.
    waiting: HashMap<Place, usize>,
    /// Answers of which it is not known whether they arrived.
    open: Vec<OpenAnswer>,
    /// Deliveries that arrived, and when they were handed over.
    arrived: HashMap<ReceiptHandle, (Place, Instant)>,
    last_answer: u64,
}

struct OpenAnswer {
    number: u64,
    connection: ConnectionId,
    place: Place,
    /// When the transport took the last part of it.
    handed_over: Instant,
    /// When the client does not want it any more.
    gives_up: Option<Instant>,
    /// The client has no other receive for this place under way.
    alone: bool,
    complete: bool,
    handles: Vec<ReceiptHandle>,
}

/// A delivery that the client has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) place: Place,
    pub(crate) handle: ReceiptHandle,
}

impl Arrivals {
    /// The client asks for messages. To be followed by [`Arrivals::answered`].
    pub(crate) fn receives(&mut self, connection: ConnectionId, place: Place, at: Instant) {
        let has_it = |answer: &OpenAnswer| answer.alone && answer.place == place && answer.handed_over < at;
        self.sign_of_life(connection, at, has_it);
        *self.waiting.entry(place).or_default() += 1;
    }

    /// One of its receives waits no more.
    pub(crate) fn answered(&mut self, place: Place) {
        if let Some(waiting) = self.waiting.get_mut(&place) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&place);
            }
        }
    }

    /// The client makes some call.
    pub(crate) fn calls(&mut self, connection: ConnectionId, at: Instant) {
        self.sign_of_life(connection, at, |answer| answer.handed_over + CROSSING <= at);
    }

    /// A receive is about to be answered with messages. Returns the answer's number.
    pub(crate) fn begin(
        &mut self,
        connection: ConnectionId,
        place: Place,
        gives_up: Option<Instant>,
        now: Instant,
    ) -> u64 {
        let mut alone = self.waiting.get(&place).is_none_or(|waiting| *waiting <= 1);
        for other in self.open.iter_mut().filter(|other| other.place == place) {
            (alone, other.alone) = (false, false);
        }
        self.last_answer += 1;
        let (number, handles) = (self.last_answer, Vec::new());
        let answer =
            OpenAnswer { number, connection, place, handed_over: now, gives_up, alone, complete: false, handles };
        self.open.push(answer);
        number
    }

    /// The transport took a delivery of an answer.
    pub(crate) fn handed_over(&mut self, number: u64, handle: ReceiptHandle, at: Instant) {
        if let Some(answer) = self.open.iter_mut().find(|answer| answer.number == number) {
            answer.handed_over = at;
            answer.handles.push(handle);
        }
    }

    /// The transport took all of an answer.
    pub(crate) fn complete(&mut self, number: u64, at: Instant) {
        if let Some(answer) = self.open.iter_mut().find(|answer| answer.number == number) {
            (answer.handed_over, answer.complete) = (at, true);
        }
    }

    /// The client finished a delivery, or changed its lease: nobody renews it any more.
    pub(crate) fn is_over(&mut self, handle: &ReceiptHandle) {
        if self.arrived.remove(handle).is_some() {
            return;
        }
        if let Some(index) = self.open.iter().position(|answer| answer.handles.contains(handle)) {
            self.note(index);
            self.arrived.remove(handle);
        }
    }

    /// What has arrived, in order. Forgets what is as old as a lease: it was lost, or the store knows better.
    pub(crate) fn arrived(&mut self, lease: Duration, now: Instant) -> Vec<Arrived> {
        self.open.retain(|answer| answer.handed_over + lease > now);
        self.arrived.retain(|_, (_, at)| *at + lease > now);
        let of = |(handle, (place, _)): (&ReceiptHandle, &(Place, Instant))| Arrived {
            place: *place,
            handle: handle.clone(),
        };
        let mut arrived: Vec<Arrived> = self.arrived.iter().map(of).collect();
        arrived.sort_by(|a, b| a.handle.0.cmp(&b.handle.0));
        arrived
    }

    fn sign_of_life(&mut self, connection: ConnectionId, at: Instant, proves: impl Fn(&OpenAnswer) -> bool) {
        let mut index = 0;
        while let Some(answer) = self.open.get(index) {
            let in_time = answer.gives_up.is_none_or(|gives_up| at + GIVING_UP < gives_up);
            if answer.complete && answer.connection == connection && in_time && proves(answer) {
                self.note(index);
            } else {
                index += 1;
            }
        }
    }

    /// An open answer arrived.
    fn note(&mut self, index: usize) {
        let OpenAnswer { place, handed_over, handles, .. } = self.open.swap_remove(index);
        self.arrived.extend(handles.into_iter().map(|handle| (handle, (place, handed_over))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);
    const OLD: ConnectionId = ConnectionId(1);
    const NEW: ConnectionId = ConnectionId(2);
    const ORDERS: Place = (GroupId(1), TopicId(2));
    const OTHERS: Place = (GroupId(1), TopicId(3));

    struct Client {
        arrivals: Arrivals,
        start: Instant,
    }

    impl Client {
        fn new() -> Client {
            Client { arrivals: Arrivals::default(), start: Instant::now() }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        /// A receive is answered with a message.
        fn answer(&mut self, place: Place, handle: &str, millis: u64, gives_up: Option<u64>) {
            let (at, gives_up) = (self.at(millis), gives_up.map(|millis| self.at(millis)));
            let number = self.arrivals.begin(OLD, place, gives_up, at);
            self.arrivals.answered(place);
            self.arrivals.handed_over(number, ReceiptHandle(handle.to_owned()), at);
            self.arrivals.complete(number, at);
        }

        fn receives(&mut self, connection: ConnectionId, place: Place, millis: u64) {
            self.arrivals.receives(connection, place, self.at(millis));
        }

        fn calls(&mut self, connection: ConnectionId, millis: u64) {
            self.arrivals.calls(connection, self.at(millis));
        }

        fn arrived(&mut self, millis: u64) -> Vec<String> {
            let arrived = self.arrivals.arrived(LEASE, self.at(millis));
            arrived.into_iter().map(|arrived| arrived.handle.0).collect()
        }
    }

    #[test]
    fn whoever_asks_again_has_the_answer_if_it_had_only_this_receive_under_way() {
        let mut client = Client::new();
        client.receives(OLD, ORDERS, 0);
        client.answer(ORDERS, "a", 100, Some(8000));
        client.receives(OLD, OTHERS, 110);
        client.receives(NEW, ORDERS, 120);
        assert_eq!(client.arrived(200), Vec::<String>::new(), "another topic, another connection");
        client.arrivals.answered(ORDERS);
        client.receives(OLD, ORDERS, 130);
        assert_eq!(client.arrived(200), ["a"]);
        // With two under way, nobody knows which of them was answered.
        let mut client = Client::new();
        client.receives(OLD, ORDERS, 0);
        client.receives(OLD, ORDERS, 10);
        client.answer(ORDERS, "a", 100, Some(8000));
        client.answer(ORDERS, "b", 200, Some(8000));
        client.receives(OLD, ORDERS, 210);
        assert_eq!(client.arrived(300), Vec::<String>::new());
        client.calls(OLD, 1150);
        assert_eq!(client.arrived(1200), ["a"]);
    }

    #[test]
    fn a_call_on_the_same_connection_counts_if_it_did_not_cross_the_answer() {
        let mut client = Client::new();
        client.receives(OLD, ORDERS, 0);
        client.answer(ORDERS, "a", 100, None);
        client.calls(OLD, 1099);
        client.calls(NEW, 5000);
        assert_eq!(client.arrived(6000), Vec::<String>::new());
        client.calls(OLD, 1100);
        assert_eq!(client.arrived(6000), ["a"]);
    }

    #[test]
    fn whoever_has_given_up_proves_nothing() {
        let mut client = Client::new();
        client.receives(OLD, ORDERS, 0);
        client.answer(ORDERS, "a", 2000, Some(5000));
        client.receives(OLD, ORDERS, 4800);
        client.calls(OLD, 9000);
        assert_eq!(client.arrived(9000), Vec::<String>::new());
    }

    #[test]
    fn an_answer_that_the_transport_did_not_take_whole_is_not_there() {
        let mut client = Client::new();
        let at = client.at(0);
        let number = client.arrivals.begin(OLD, ORDERS, None, at);
        client.arrivals.handed_over(number, ReceiptHandle("a".to_owned()), at);
        client.calls(OLD, 3000);
        assert_eq!(client.arrived(3000), Vec::<String>::new());
        let at = client.at(3000);
        client.arrivals.complete(number, at);
        client.calls(OLD, 4000);
        assert_eq!(client.arrived(4000), ["a"]);
    }

    #[test]
    fn whoever_finishes_one_message_has_the_whole_answer_and_what_is_finished_is_not_renewed() {
        let mut client = Client::new();
        let at = client.at(0);
        let number = client.arrivals.begin(OLD, ORDERS, Some(at), at);
        for handle in ["a", "b", "c"] {
            client.arrivals.handed_over(number, ReceiptHandle(handle.to_owned()), at);
        }
        client.arrivals.is_over(&ReceiptHandle("b".to_owned()));
        assert_eq!(client.arrived(1), ["a", "c"]);
        client.arrivals.is_over(&ReceiptHandle("a".to_owned()));
        client.arrivals.is_over(&ReceiptHandle("unknown".to_owned()));
        assert_eq!(client.arrived(1), ["c"]);
    }

    #[test]
    fn nothing_is_kept_for_longer_than_the_first_lease() {
        let mut client = Client::new();
        client.receives(OLD, ORDERS, 0);
        client.answer(ORDERS, "lost", 0, None);
        client.receives(NEW, OTHERS, 0);
        client.answer(OTHERS, "here", 0, None);
        client.receives(OLD, OTHERS, 1);
        assert_eq!(client.arrived(59_999), ["here"]);
        assert_eq!(client.arrived(60_000), Vec::<String>::new());
        assert!(client.arrivals.open.is_empty() && client.arrivals.arrived.is_empty());
        client.arrivals.answered(OTHERS);
        assert!(client.arrivals.waiting.is_empty());
    }
}
