//! The right to lead: a lease from the controller, and the fence that closes when it ends.
//!
//! Owned by the store, asked by everything that puts a record into the log (under the tail's lock) and again before every
//! answer of success. [`Leadership`] is the pure core and takes the time; [`Tenure`] shares it, so that asking costs one atomic
//! load, and a look at the clock if the lease is timed.
//!
//! # What must always hold
//! - A tenure that has ended never comes back: a late renewal is refused, and only a greater epoch begins another
//!   (`a_timed_lease_ends_a_margin_early_and_a_late_renewal_does_not_bring_it_back`,
//!   `an_epoch_that_is_not_greater_is_refused_and_changes_nothing`).
//! - The store's end comes before the controller's. For a lease of `D` and a margin `m` on either side:
//!   `store's end = called_at + D − m < answered_at + D + m = controller's end`, because the call was made before it was
//!   answered. The difference of at least `2 m` is for clocks that do not run equally fast: it is enough while they drift
//!   apart by less than `2 m` during `D` (`the_store_never_leads_when_the_controller_may_have_named_another`). Only monotonic
//!   clocks are asked, so jumps of the wall clock do not matter (`jumps_of_the_wall_clock_neither_end_nor_lengthen_a_lease`).
//! - The newest call decides: an answer to an older one changes nothing (`an_answer_to_an_older_call_changes_nothing`).

use gantry_proto::contract::{StoreError, StoreLease};
use gantry_proto::model::Epoch;
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One leadership: what was granted, and whether it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leadership {
    epoch: Epoch,
    /// When the call was made that brought the lease in force.
    called_at: Instant,
    /// `None`: until something newer is heard of.
    until: Option<Instant>,
    over: Option<TenureEnd>,
    /// The latest epoch that anybody spoke of.
    heard: Epoch,
}

/// Why a tenure is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TenureEnd {
    /// Its time was up before it was renewed.
    Expired,
    /// It was ended before its time.
    Ended(String),
}

impl fmt::Display for TenureEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TenureEnd::Expired => f.write_str("its lease has ended"),
            TenureEnd::Ended(reason) => f.write_str(reason),
        }
    }
}

/// When a lease that was asked for at `called_at` ends for the store. `None`: not by time.
fn end_of(lease: StoreLease, called_at: Instant, margin: Duration) -> Option<Instant> {
    match lease {
        StoreLease::For(duration) => Some(called_at + duration.saturating_sub(margin)),
        StoreLease::UntilSuperseded => None,
    }
}

impl Leadership {
    /// Of a store that has not led yet: `epoch` is the last one of its folder.
    pub(crate) fn none(epoch: Epoch, now: Instant) -> Leadership {
        let over = Some(TenureEnd::Ended("it has not led its store group since it was opened".to_owned()));
        Leadership { epoch, called_at: now, until: None, over, heard: epoch }
    }

    /// The next leadership. It is over at once if a later one was heard of.
    pub(crate) fn next(&self, epoch: Epoch, lease: StoreLease, called_at: Instant, margin: Duration) -> Leadership {
        let until = end_of(lease, called_at, margin);
        let mut next = Leadership { epoch, called_at, until, over: None, heard: epoch };
        next.hear(self.heard);
        next
    }

    /// A peer knows of `epoch`. If it is later than this one, this one is over.
    pub(crate) fn hear(&mut self, epoch: Epoch) {
        self.heard = self.heard.max(epoch);
        if self.heard > self.epoch {
            self.end(TenureEnd::Ended(format!("epoch {} has begun", self.heard)));
        }
    }

    /// Whether the store leads at `now`.
    pub(crate) fn check(&self, now: Instant) -> Result<(), TenureEnd> {
        match (&self.over, self.until) {
            (Some(over), _) => Err(over.clone()),
            (None, Some(until)) if now >= until => Err(TenureEnd::Expired),
            _ => Ok(()),
        }
    }

    /// The answer to a renewal that was asked for at `called_at` came at `now`. Too late if the tenure is over: the store
    /// may have told somebody so.
    pub(crate) fn renew(
        &mut self,
        lease: StoreLease,
        called_at: Instant,
        margin: Duration,
        now: Instant,
    ) -> Result<(), TenureEnd> {
        self.settle(now)?;
        if called_at >= self.called_at {
            self.called_at = called_at;
            self.until = end_of(lease, called_at, margin);
        }
        self.settle(now)
    }

    /// Ends it, for the reason given first.
    pub(crate) fn end(&mut self, why: TenureEnd) {
        self.over.get_or_insert(why);
    }

    /// Notes the end if it has come.
    fn settle(&mut self, now: Instant) -> Result<(), TenureEnd> {
        self.check(now).inspect_err(|over| self.end(over.clone()))
    }
}

/// The store's tenure, shared by all its calls.
pub(crate) struct Tenure {
    leadership: Mutex<Leadership>,
    /// Nanoseconds after `origin` until which the store leads: a copy of `leadership` that is read without a lock.
    /// [`FOREVER`]: not bounded by time. 0: not at all.
    open_for: AtomicU64,
    origin: Instant,
    margin: Duration,
    /// Wakes those who wait for a beginning or an end.
    changed: Notify,
}

const FOREVER: u64 = u64::MAX;

impl Tenure {
    /// Of a store that has not led yet, whose folder was last written in `last_epoch`. `margin`: how much earlier than
    /// granted a timed lease ends here.
    pub(crate) fn new(last_epoch: Epoch, margin: Duration) -> Tenure {
        let origin = Instant::now();
        Tenure {
            leadership: Mutex::new(Leadership::none(last_epoch, origin)),
            open_for: AtomicU64::new(0),
            origin,
            margin,
            changed: Notify::new(),
        }
    }

    /// Whether the store leads now. The hot path of every call.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.is_open(Instant::now) { Ok(()) } else { Err(self.refusal()) }
    }

    /// The latest epoch that began, be it over or not.
    pub(crate) fn epoch(&self) -> Epoch {
        self.leadership.lock().epoch
    }

    /// Extends `epoch`, see [`Leadership::renew`].
    pub(crate) fn renew(&self, epoch: Epoch, lease: StoreLease, called_at: Instant) -> Result<(), StoreError> {
        let mut leadership = self.leadership.lock();
        if leadership.epoch != epoch {
            return Err(StoreError::NotLeader(format!("epoch {epoch} is over")));
        }
        let renewed = leadership.renew(lease, called_at, self.margin, Instant::now());
        self.publish(&leadership);
        drop(leadership);
        self.changed.notify_waiters();
        renewed.map_err(|_| self.refusal())
    }

    /// Ends `epoch` if it is the one that goes on. True: it did.
    pub(crate) fn end(&self, epoch: Epoch, reason: &str) -> bool {
        let mut leadership = self.leadership.lock();
        let goes_on = leadership.epoch == epoch && leadership.settle(Instant::now()).is_ok();
        if goes_on {
            leadership.end(TenureEnd::Ended(reason.to_owned()));
        }
        self.publish(&leadership);
        drop(leadership);
        self.changed.notify_waiters();
        goes_on
    }

    /// Ends the tenure if `epoch` is later, see [`Leadership::hear`].
    pub(crate) fn hear(&self, epoch: Epoch) {
        let mut leadership = self.leadership.lock();
        leadership.hear(epoch);
        self.publish(&leadership);
        drop(leadership);
        self.changed.notify_waiters();
    }

    /// Begins a new epoch, greater than the last one, which is over.
    pub(crate) fn begin(&self, epoch: Epoch, lease: StoreLease, called_at: Instant) {
        let mut leadership = self.leadership.lock();
        assert!(epoch > leadership.epoch, "epochs only grow");
        *leadership = leadership.next(epoch, lease, called_at, self.margin);
        self.publish(&leadership);
        drop(leadership);
        self.changed.notify_waiters();
    }

    /// Waits until the tenure is over, and says which epoch that was. Cancel-safe.
    pub(crate) async fn over(&self) -> (Epoch, TenureEnd) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let until = {
                let mut leadership = self.leadership.lock();
                if let Err(over) = leadership.settle(Instant::now()) {
                    self.publish(&leadership);
                    return (leadership.epoch, over);
                }
                leadership.until
            };
            match until {
                None => changed.await,
                // Either way the next look decides.
                Some(until) => drop(tokio::time::timeout_at(until, changed).await),
            }
        }
    }

    /// Waits until an epoch later than `epoch` begins. Cancel-safe.
    pub(crate) async fn begun_after(&self, epoch: Epoch) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.epoch() > epoch {
                return;
            }
            changed.await;
        }
    }

    fn is_open(&self, now: impl FnOnce() -> Instant) -> bool {
        match self.open_for.load(Ordering::Acquire) {
            FOREVER => true,
            0 => false,
            open_for => self.nanos(now()) < open_for,
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos).unwrap_or(FOREVER).min(FOREVER - 1)
    }

    fn publish(&self, leadership: &Leadership) {
        let open_for = match (&leadership.over, leadership.until) {
            (Some(_), _) => 0,
            (None, None) => FOREVER,
            (None, Some(until)) => self.nanos(until),
        };
        self.open_for.store(open_for, Ordering::Release);
    }

    fn refusal(&self) -> StoreError {
        let leadership = self.leadership.lock();
        let why = leadership.over.as_ref().unwrap_or(&TenureEnd::Expired);
        StoreError::NotLeader(format!("epoch {}: {why}", leadership.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARGIN: Duration = Duration::from_millis(100);
    const D: Duration = Duration::from_millis(1000);

    /// What may happen, each after some milliseconds.
    #[derive(Clone, Debug)]
    enum Event {
        /// A renewal was asked for this long ago and is answered now.
        Renewed {
            called: u64,
            lease: StoreLease,
        },
        Ended,
        /// An epoch this much later was heard of.
        Heard(u32),
        /// An epoch begins, asked for this long ago.
        Began {
            called: u64,
            lease: StoreLease,
        },
        Nothing,
    }

    fn leases() -> impl Strategy<Value = StoreLease> {
        prop_oneof![
            4 => (0u64..2000).prop_map(|millis| StoreLease::For(Duration::from_millis(millis))),
            1 => Just(StoreLease::UntilSuperseded),
        ]
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0u64..1500, leases()).prop_map(|(called, lease)| Event::Renewed { called, lease }),
            1 => Just(Event::Ended),
            1 => (0u32..3).prop_map(Event::Heard),
            2 => (0u64..1500, leases()).prop_map(|(called, lease)| Event::Began { called, lease }),
            3 => Just(Event::Nothing),
        ]
    }

    /// In the first epoch, granted now.
    fn leading(lease: StoreLease) -> Tenure {
        let tenure = Tenure::new(Epoch(0), MARGIN);
        tenure.begin(Epoch(1), lease, Instant::now());
        tenure
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_only_opened_does_not_lead_and_cannot_be_made_to_by_a_renewal() {
        let tenure = Tenure::new(Epoch(4), MARGIN);
        assert!(matches!(tenure.check(), Err(StoreError::NotLeader(_))));
        assert!(tenure.renew(Epoch(4), StoreLease::UntilSuperseded, Instant::now()).is_err());
        assert!(tenure.check().is_err());
        tenure.hear(Epoch(6));
        tenure.begin(Epoch(5), StoreLease::UntilSuperseded, Instant::now());
        assert!(tenure.check().is_err(), "a later one was heard of before");
        tenure.begin(Epoch(6), StoreLease::UntilSuperseded, Instant::now());
        assert!(tenure.check().is_ok());
    }

    proptest! {
        #[test]
        fn the_store_never_leads_when_the_controller_may_have_named_another(
            first in leases(),
            steps in proptest::collection::vec((0u64..600, events()), 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let origin = Instant::now();
                let tenure = leading(first);
                // The model: all that was granted in this epoch, and whether the store was ever seen not to lead in it.
                let mut granted = vec![(origin, first)];
                let (mut closed, mut heard) = (false, Epoch(1));
                for (millis, event) in steps {
                    tokio::time::advance(Duration::from_millis(millis)).await;
                    let now = Instant::now();
                    let before = tenure.check().is_ok();
                    prop_assert!(!(closed && before), "a tenure that was over came back");
                    closed |= !before;
                    match event {
                        Event::Renewed { called, lease } => {
                            let called_at = (now - Duration::from_millis(called)).max(origin);
                            let epoch = tenure.epoch();
                            prop_assert!(!(tenure.renew(epoch, lease, called_at).is_ok() && closed), "a renewal came too late");
                            granted.push((called_at, lease));
                            prop_assert!(tenure.renew(Epoch(epoch.0 + 1), StoreLease::UntilSuperseded, now).is_err());
                        }
                        Event::Ended => {
                            let epoch = tenure.epoch();
                            prop_assert_eq!(tenure.end(epoch, "a test"), before);
                            closed = true;
                        }
                        Event::Heard(ahead) => {
                            heard = heard.max(Epoch(tenure.epoch().0 + ahead));
                            tenure.hear(heard);
                            closed |= heard > tenure.epoch();
                        }
                        Event::Began { called, lease } => {
                            let called_at = (now - Duration::from_millis(called)).max(origin);
                            tenure.begin(Epoch(tenure.epoch().0 + 1), lease, called_at);
                            (granted, closed) = (vec![(called_at, lease)], heard > tenure.epoch());
                        }
                        Event::Nothing => {}
                    }
                    let leadership = tenure.leadership.lock().clone();
                    for ahead in [0, 1, 99, 100, 101, 500, 899, 900, 901, 5000] {
                        let then = now + Duration::from_millis(ahead);
                        let leads = tenure.is_open(|| then);
                        prop_assert_eq!(leads, leadership.check(then).is_ok(), "the copy differs from the core");
                        // Some grant must cover every instant at which the store leads, a margin before its end.
                        let covers = |(called_at, lease): &(Instant, StoreLease)| match lease {
                            StoreLease::For(duration) => then + MARGIN < *called_at + *duration,
                            StoreLease::UntilSuperseded => true,
                        };
                        prop_assert!(!leads || (granted.iter().any(covers) && !closed), "it leads without a lease");
                    }
                }
                Ok(())
            })?;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timed_lease_ends_a_margin_early_and_a_late_renewal_does_not_bring_it_back() {
        let tenure = leading(StoreLease::For(D));
        tokio::time::advance(D - MARGIN - Duration::from_millis(1)).await;
        assert!(tenure.check().is_ok());
        // Asked for before the end, answered after it.
        let called_at = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(tenure.check(), Err(StoreError::NotLeader(_))));
        assert!(tenure.renew(Epoch(1), StoreLease::For(D), called_at).is_err());
        assert!(tenure.check().is_err());
        tenure.begin(Epoch(2), StoreLease::For(D), Instant::now());
        assert!(tenure.check().is_ok());
        assert!(!tenure.end(Epoch(1), "an older epoch"));
        assert!(tenure.check().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_an_older_call_changes_nothing() {
        let start = Instant::now();
        let tenure = leading(StoreLease::For(D));
        tokio::time::advance(D / 2).await;
        tenure.renew(Epoch(1), StoreLease::For(D), Instant::now()).unwrap();
        tenure.renew(Epoch(1), StoreLease::For(D), start).unwrap();
        tokio::time::advance(D / 2).await;
        assert!(tenure.check().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_the_end_hears_of_it_when_it_comes() {
        let tenure = leading(StoreLease::For(D));
        let start = Instant::now();
        let renewing = async {
            tokio::time::sleep(D / 2).await;
            tenure.renew(Epoch(1), StoreLease::For(D), Instant::now()).unwrap();
        };
        let (over, ()) = tokio::join!(tenure.over(), renewing);
        assert_eq!(over, (Epoch(1), TenureEnd::Expired));
        let late = start.elapsed() - (D / 2 + D - MARGIN);
        assert!(late < Duration::from_millis(5), "{late:?} late");
    }
}
