//! Clients that are alive: who they are, which settings they sent, and how commands reach them.
//!
//! A session outlives its telemetry stream: several clients never open a second stream, and one whose stream broke may
//! open the next at another proxy. It ends when the client says goodbye, or sends nothing for a while. Nothing here is
//! durable: a client that goes to another proxy says there who it is, with its settings or with its first heartbeat.

use crate::arrivals::{Arrivals, Arrived, ConnectionId, Place};
use crate::memory::Held;
use crate::messaging::RequestContext;
use crate::metrics::Metrics;
use crate::translate::{ClientKind, Refusal, long_polling_wish};
use gantry_proto::model::{ClientHash, ConsumerGroup, GroupName, ReceiptHandle};
use gantry_proto::wire::v2::{Code, Settings, TelemetryCommand};
use metrics::Gauge;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All sessions by client id.
pub(crate) struct Sessions {
    by_id: RwLock<HashMap<Arc<str>, Arc<Session>>>,
    /// More clients are refused: whoever makes up ids would have a session for each.
    max: usize,
}

pub(crate) struct Session {
    client_id: Arc<str>,
    /// Owner of its automatically renewed leases.
    pub(crate) owner: ClientHash,
    /// Cancelled when the session ends: it ends the client's waiting receives.
    pub(crate) ended: CancellationToken,
    auto_renew: AtomicBool,
    /// What it was sent here, with automatic renewal.
    arrivals: Mutex<Arrivals>,
    state: Mutex<State>,
}

struct State {
    last_seen: Instant,
    registration: Option<Registration>,
    commands: Option<mpsc::Sender<Box<TelemetryCommand>>>,
    /// A consumer's group as it was told to it last. `None`: the defaults were.
    told: Option<Arc<ConsumerGroup>>,
    /// The gauge that counts this client.
    counted: Option<Gauge>,
}

/// What a client said of itself.
struct Registration {
    kind: ClientKind,
    /// `None`: it sent none here. Several clients send them once, and then go to another proxy.
    settings: Option<Arc<Settings>>,
    _held: Option<Held>,
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Sessions {
        Sessions { by_id: RwLock::default(), max }
    }

    /// Notes a client's settings, and the way to send it commands. `held`: what the settings take.
    pub(crate) fn register(
        &self,
        context: &RequestContext<'_>,
        kind: ClientKind,
        (settings, held): (Arc<Settings>, Held),
        commands: mpsc::Sender<Box<TelemetryCommand>>,
        metrics: &Metrics,
    ) -> Result<Arc<Session>, Refusal> {
        let session = self.get_or_insert(context)?;
        let mut state = session.state.lock();
        let registration = Registration { kind, settings: Some(settings), _held: Some(held) };
        session.note(&mut state, registration, context, metrics);
        state.commands = Some(commands);
        drop(state);
        Ok(session)
    }

    /// Notes that a client is alive. One that sent no settings here has a session from now on, as what the heartbeat says
    /// it is: it may hold leases from another proxy.
    pub(crate) fn heartbeat(
        &self,
        context: &RequestContext<'_>,
        kind: ClientKind,
        metrics: &Metrics,
    ) -> Result<(), Refusal> {
        let session = self.get_or_insert(context)?;
        let mut state = session.state.lock();
        if state.registration.is_none() {
            session.note(&mut state, Registration { kind, settings: None, _held: None }, context, metrics);
        }
        Ok(())
    }

    /// Notes that a client is alive and receives with automatic renewal. It need not have sent settings.
    pub(crate) fn receiving(&self, context: &RequestContext<'_>) -> Result<Arc<Session>, Refusal> {
        let session = self.get_or_insert(context)?;
        session.auto_renew.store(true, Ordering::Relaxed);
        Ok(session)
    }

    /// A client's session, if it has one. Notes that the client is alive, and calls on this connection.
    pub(crate) fn touch(&self, context: &RequestContext<'_>) -> Option<Arc<Session>> {
        let session = self.by_id.read().get(context.client_id).cloned()?;
        session.state.lock().last_seen = Instant::now();
        if session.renews() {
            session.arrivals.lock().calls(context.connection.id, context.arrived());
        }
        Some(session)
    }

    /// Ends a session, if there is one.
    pub(crate) fn terminate(&self, client_id: &str) -> Option<Arc<Session>> {
        let session = self.by_id.write().remove(client_id)?;
        session.end();
        Some(session)
    }

    /// Ends the sessions of clients that were silent for longer than `timeout` and returns them, in order.
    pub(crate) fn expire(&self, timeout: Duration) -> Vec<Arc<Session>> {
        let now = Instant::now();
        let silent = |session: &Session| now.duration_since(session.state.lock().last_seen) > timeout;
        let mut expired: Vec<Arc<Session>> =
            self.by_id.write().extract_if(|_, session| silent(session)).map(|(_, session)| session).collect();
        expired.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        for session in &expired {
            session.end();
        }
        expired
    }

    /// The clients whose leases are to be renewed, in order: those that were silent for at most `silence_max`.
    pub(crate) fn renewing(&self, silence_max: Duration) -> Vec<Arc<Session>> {
        let now = Instant::now();
        let alive = |session: &Session| now.duration_since(session.state.lock().last_seen) <= silence_max;
        let sessions = self.by_id.read();
        let renewed = sessions.values().filter(|session| session.renews() && alive(session));
        let mut renewed: Vec<Arc<Session>> = renewed.cloned().collect();
        renewed.sort_by_key(|session| session.owner);
        renewed
    }

    pub(crate) fn count(&self) -> usize {
        self.by_id.read().len()
    }

    /// The consumers whose group is not as they were told, each with its group as it is now, in order. Without those that
    /// cannot be told anything.
    pub(crate) fn with_altered_group(
        &self,
        current: impl Fn(&str) -> Option<Arc<ConsumerGroup>>,
    ) -> Vec<(Arc<Session>, Arc<ConsumerGroup>)> {
        let sessions = self.by_id.read();
        let altered = |session: &Arc<Session>| {
            let state = session.state.lock();
            state.commands.as_ref()?;
            let ClientKind::Consumer { group, .. } = &state.registration.as_ref()?.kind else { return None };
            let now = current(group.as_str())?;
            let as_told = state.told.as_deref().is_some_and(|told| alike(told, &now));
            (!as_told).then(|| (session.clone(), now))
        };
        let mut altered: Vec<_> = sessions.values().filter_map(altered).collect();
        altered.sort_by(|(a, _), (b, _)| a.client_id.cmp(&b.client_id));
        altered
    }

    fn get_or_insert(&self, context: &RequestContext<'_>) -> Result<Arc<Session>, Refusal> {
        if let Some(session) = self.touch(context) {
            return Ok(session);
        }
        let client_id = context.client_id;
        let id: Arc<str> = client_id.into();
        let new = || {
            Arc::new(Session {
                client_id: id.clone(),
                owner: ClientHash::of(client_id),
                ended: CancellationToken::new(),
                auto_renew: AtomicBool::new(false),
                arrivals: Mutex::default(),
                state: Mutex::new(State {
                    last_seen: Instant::now(),
                    registration: None,
                    commands: None,
                    told: None,
                    counted: None,
                }),
            })
        };
        let mut all = self.by_id.write();
        if all.len() >= self.max && !all.contains_key(client_id) {
            let full = format!("{} clients are known here, which is the most; try again later", self.max);
            return Err(Refusal::new(Code::TooManyRequests, full));
        }
        Ok(all.entry(id.clone()).or_insert_with(new).clone())
    }
}

impl Session {
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether the client's leases are renewed for it.
    pub(crate) fn renews(&self) -> bool {
        self.auto_renew.load(Ordering::Relaxed)
    }

    /// The client asks for messages whose leases are to be renewed for it.
    pub(crate) fn receives(self: &Arc<Session>, context: &RequestContext<'_>, place: Place) -> RenewedReceive {
        let (connection, arrived) = (context.connection.id, context.arrived());
        self.arrivals.lock().receives(connection, place, arrived);
        let gives_up = context.timeout().and_then(|timeout| arrived.checked_add(timeout));
        RenewedReceive { session: self.clone(), connection, place, gives_up }
    }

    /// Deliveries are over, or were changed: they are not renewed any more.
    pub(crate) fn are_over<'a>(&self, handles: impl IntoIterator<Item = &'a ReceiptHandle>) {
        let mut arrivals = self.arrivals.lock();
        handles.into_iter().for_each(|handle| arrivals.is_over(handle));
    }

    /// Deliveries that are known to have reached the client, and are in their first lease, which lasts for `lease`.
    pub(crate) fn arrived(&self, lease: Duration) -> Vec<Arrived> {
        self.arrivals.lock().arrived(lease, Instant::now())
    }

    /// The settings that the client sent last.
    pub(crate) fn settings(&self) -> Option<Arc<Settings>> {
        self.state.lock().registration.as_ref()?.settings.clone()
    }

    pub(crate) fn group(&self) -> Option<GroupName> {
        match &self.state.lock().registration.as_ref()?.kind {
            ClientKind::Consumer { group, .. } => Some(group.clone()),
            ClientKind::Producer => None,
        }
    }

    /// How long a receive shall wait according to the client's settings.
    pub(crate) fn long_polling_wish(&self) -> Option<prost_types::Duration> {
        long_polling_wish(self.state.lock().registration.as_ref()?.settings.as_deref()?).copied()
    }

    /// Notes how its group was told to a consumer.
    pub(crate) fn told(&self, group: Option<Arc<ConsumerGroup>>) {
        self.state.lock().told = group;
    }

    /// Sends a command on the client's telemetry stream. False: it has none now, or does not read it.
    pub(crate) fn send(&self, command: TelemetryCommand) -> bool {
        self.state.lock().commands.as_ref().is_some_and(|commands| commands.try_send(Box::new(command)).is_ok())
    }

    /// A telemetry stream has ended. Its successor, if there is one already, stays.
    pub(crate) fn detach(&self, commands: &mpsc::Sender<Box<TelemetryCommand>>) {
        self.state.lock().commands.take_if(|current| current.same_channel(commands));
    }

    fn note(&self, state: &mut State, registration: Registration, context: &RequestContext<'_>, metrics: &Metrics) {
        let gauge = match &registration.kind {
            ClientKind::Producer => metrics.producer_connections(context.language(), context.version()),
            ClientKind::Consumer { group, mode } => {
                metrics.consumer_connections(group.as_str(), mode.as_str(), context.language(), context.version())
            }
        };
        gauge.increment(1.0);
        if let Some(before) = state.counted.replace(gauge) {
            before.decrement(1.0);
        }
        // It may hold leases from another proxy: they are renewed even before it receives anything here.
        if registration.kind.holds_renewed_leases() {
            self.auto_renew.store(true, Ordering::Relaxed);
        }
        state.registration = Some(registration);
    }

    fn end(&self) {
        self.ended.cancel();
        if let Some(gauge) = self.state.lock().counted.take() {
            gauge.decrement(1.0);
        }
    }
}

/// A receive of a client whose leases are renewed. It waits until this is dropped.
pub(crate) struct RenewedReceive {
    session: Arc<Session>,
    connection: ConnectionId,
    place: Place,
    gives_up: Option<Instant>,
}

/// Its answer, on its way to the client.
pub(crate) struct RenewedAnswer {
    session: Arc<Session>,
    number: u64,
}

impl RenewedReceive {
    /// It is answered with messages.
    pub(crate) fn answer(&self) -> RenewedAnswer {
        let RenewedReceive { session, connection, place, gives_up } = self;
        let number = session.arrivals.lock().begin(*connection, *place, *gives_up, Instant::now());
        RenewedAnswer { session: session.clone(), number }
    }
}

impl Drop for RenewedReceive {
    fn drop(&mut self) {
        self.session.arrivals.lock().answered(self.place);
    }
}

impl RenewedAnswer {
    /// The transport took one of its messages.
    pub(crate) fn handed_over(&self, handle: ReceiptHandle) {
        self.session.arrivals.lock().handed_over(self.number, handle, Instant::now());
    }

    /// The transport took all of it.
    pub(crate) fn complete(&self) {
        self.session.arrivals.lock().complete(self.number, Instant::now());
    }
}

/// Whether consumers of both groups are told the same settings.
fn alike(told: &ConsumerGroup, now: &ConsumerGroup) -> bool {
    (told.fifo, told.max_attempts, &told.backoff) == (now.fifo, now.max_attempts, &now.backoff)
}
