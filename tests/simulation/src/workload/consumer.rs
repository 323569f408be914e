//! Receives messages and does with them whatever consumers do: acknowledges at once or late, lets leases end, asks for them
//! to come again, moves to another proxy in between. Some messages are never acknowledged by one group: dead letters.

use super::session::{PATIENCE, Reply, Role, Session, filter_of, resource};
use crate::env::Machine;
use crate::history::{Ack, Delivery, Hide, Moment, Outcome, Position, digest};
use crate::note;
use crate::site::{AUTO_RENEW_LEASE, CAREFUL, Site, Stage};
use gantry_client::to_wire;
use gantry_proto::model::ClientHash;
use gantry_proto::wire::v2::{self, Code};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often an acknowledgement is tried.
const ATTEMPTS_MAX: u32 = 4;
/// Bounds of what consumers ask for.
const INVISIBLE: std::ops::Range<Duration> = Duration::from_millis(1500)..Duration::from_millis(6000);
const LONG_POLL: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_millis(2500);

/// When the network of a waiting client breaks.
const BREAKS: std::ops::Range<Duration> = Duration::from_millis(1)..Duration::from_millis(1200);

/// A delivery that is held.
#[derive(Clone)]
pub(super) struct Held {
    topic: Arc<str>,
    position: Position,
    id: Arc<str>,
    attempt: u32,
    handle: String,
    received: Moment,
    pub(super) due: Instant,
}

/// Receives until the run is done. `topics`: what it consumes.
pub async fn consume(
    site: Arc<Site>,
    machine: Arc<Machine>,
    group: &'static str,
    topics: impl Fn(&Site) -> Vec<Arc<str>>,
) {
    let group: Arc<str> = group.into();
    let mut session = Session::new(site.clone(), machine, Role::Consumer { group: group.clone() });
    let mut held: Vec<Held> = Vec::new();
    let mut turn = session.draw.below(16) as usize;
    while site.stage() != Stage::Done {
        let Some(topic) = next_topic(&mut session, &mut turn, &topics).await else { continue };
        for delivery in receive(&mut session, &group, topic, false).await {
            handle(&mut session, &group, delivery, &mut held).await;
        }
        let now = Instant::now();
        let (due, later): (Vec<Held>, Vec<Held>) = held.drain(..).partition(|held| held.due <= now);
        held = later;
        for delivery in due {
            acknowledge(&mut session, &group, &delivery).await;
        }
        if site.stage() == Stage::Run && session.draw.chance(3) {
            note!(site.recorder.trace, &session.machine.name, "moves to another proxy");
            session.leave();
        }
    }
}

/// Says that the client lives, and which topic's turn it is. `None`: there is none yet.
pub(super) async fn next_topic(
    session: &mut Session,
    turn: &mut usize,
    topics: impl Fn(&Site) -> Vec<Arc<str>>,
) -> Option<Arc<str>> {
    if session.site.stage() == Stage::Prepare {
        tokio::time::sleep(Duration::from_millis(100)).await;
        return None;
    }
    session.keep_alive().await;
    let topics = topics(&session.site);
    *turn += 1;
    topics.get(*turn % topics.len().max(1)).cloned()
}

/// One receive. `renewed`: with a lease that is extended while the client lives.
pub(super) async fn receive(session: &mut Session, group: &Arc<str>, topic: Arc<str>, renewed: bool) -> Vec<Held> {
    let (site, client) = (session.site.clone(), session.id());
    let invisible = if renewed { AUTO_RENEW_LEASE } else { session.draw.span(INVISIBLE) };
    let owner = renewed.then(|| ClientHash::of(&client));
    let wait = session.draw.span(LONG_POLL);
    let Some(connection) = session.connection().await else { return Vec::new() };
    let request = v2::ReceiveMessageRequest {
        group: Some(resource(group)),
        message_queue: Some(v2::MessageQueue { topic: Some(resource(&topic)), id: -1, ..Default::default() }),
        filter_expression: Some(filter_of(group)),
        batch_size: 1 + session.draw.below(8) as i32,
        invisible_duration: (!renewed).then(|| to_wire(invisible)),
        auto_renew: renewed,
        long_polling_timeout: Some(to_wire(wait)),
        attempt_id: None,
    };
    let began = site.recorder.moment();
    let first = site.recorder.history(|history| history.deliveries.len());
    let mut taken = Vec::new();
    let take = |message| taken.push(record(&site, &client, group, &topic, &message, (began, invisible, owner)));
    // Now and then its network breaks while it waits, or just when the answer comes: it never learns what that was, and goes
    // on under its id.
    let breaks = (renewed && site.stage() == Stage::Run && session.draw.chance(6)).then(|| session.draw.span(BREAKS));
    let receive = gantry_client::receive(&session.identity, &connection, wait + PATIENCE, request, take);
    let Ok(ended) = timeout(breaks.unwrap_or(Duration::MAX), receive).await else {
        note!(site.recorder.trace, &client, "loses what it is answered, and comes back");
        session.leave();
        return Vec::new();
    };
    let answered = ended.ok().flatten();
    if answered.is_some() {
        let client = &client;
        site.recorder.history(|history| {
            let of_this = |delivery: &&mut Delivery| delivery.client == *client && delivery.began == began;
            history.deliveries[first..].iter_mut().filter(of_this).for_each(|delivery| delivery.kept = true);
        });
    } else {
        note!(site.recorder.trace, &client, "receive broke off");
        session.leave();
    }
    match answered.map(|status| (status.code, status.message)) {
        Some((code, why)) if code != i32::from(Code::Ok) && code != i32::from(Code::MessageNotFound) => {
            note!(site.recorder.trace, &client, "receive from {topic} answered {code}: {why}");
            let pause = session.draw.span(Duration::from_millis(50)..Duration::from_millis(500));
            tokio::time::sleep(pause).await;
        }
        _ => {}
    }
    taken
}

fn record(
    site: &Site,
    client: &Arc<str>,
    group: &Arc<str>,
    topic: &Arc<str>,
    message: &v2::Message,
    (began, invisible, owner): (Moment, Duration, Option<ClientHash>),
) -> Held {
    let properties = message.system_properties.clone().unwrap_or_default();
    let named = message.topic.as_ref().map_or(String::new(), |topic| topic.name.clone());
    let offset = properties.queue_offset.unwrap_or(-1);
    let position = Position { topic: named.into(), queue: properties.queue_id, offset };
    let id: Arc<str> = properties.message_id.into();
    let attempt = properties.delivery_attempt.unwrap_or(0).try_into().unwrap_or(0);
    let received = site.recorder.moment();
    let at = (position.queue, position.offset);
    note!(site.recorder.trace, client, "got {id} from {topic} {at:?}, attempt {attempt}, for {invisible:?}");
    site.recorder.history(|history| {
        history.deliveries.push(Delivery {
            client: client.clone(),
            group: group.clone(),
            position: position.clone(),
            id: id.clone(),
            digest: digest(&message.body),
            attempt,
            began,
            received,
            invisible,
            owner,
            kept: false,
        });
    });
    let handle = properties.receipt_handle.unwrap_or_default();
    Held { topic: topic.clone(), position, id, attempt, handle, received, due: Instant::now() }
}

async fn handle(session: &mut Session, group: &Arc<str>, mut delivery: Held, held: &mut Vec<Held>) {
    if **group == *CAREFUL && digest(delivery.id.as_bytes()).is_multiple_of(session.site.habits.poison) {
        return;
    }
    if session.site.stage() != Stage::Run {
        return acknowledge(session, group, &delivery).await;
    }
    let pause = |session: &Session, millis: std::ops::Range<u64>| {
        Instant::now() + session.draw.span(Duration::from_millis(millis.start)..Duration::from_millis(millis.end))
    };
    if session.draw.chance(session.site.habits.prompt) {
        return acknowledge(session, group, &delivery).await;
    }
    match session.draw.below(34) {
        // Perhaps in time, perhaps not.
        0..12 => {
            delivery.due = pause(session, 200..9000);
            held.push(delivery);
        }
        // The lease ends.
        12..20 => {}
        20..27 => {
            let soon = session.draw.span(Duration::from_millis(0)..Duration::from_millis(3000));
            hide(session, group, &mut delivery, soon).await;
        }
        27..31 => {
            if hide(session, group, &mut delivery, Duration::from_secs(8)).await {
                delivery.due = pause(session, 500..7000);
                held.push(delivery);
            }
        }
        _ => {
            session.leave();
            acknowledge(session, group, &delivery).await;
        }
    }
}

async fn acknowledge(session: &mut Session, group: &Arc<str>, delivery: &Held) {
    for _ in 0..ATTEMPTS_MAX {
        if try_acknowledge(session, group, delivery).await != Outcome::Unknown {
            return;
        }
        let pause = session.draw.span(Duration::from_millis(30)..Duration::from_millis(600));
        tokio::time::sleep(pause).await;
    }
}

/// Once. Unknown: it is to be tried again.
pub(super) async fn try_acknowledge(session: &mut Session, group: &Arc<str>, delivery: &Held) -> Outcome {
    let (recorder, client) = (session.site.recorder.clone(), session.name());
    let began = recorder.moment();
    let index = recorder.history(|history| {
        history.acks.push(Ack {
            client: client.clone(),
            group: group.clone(),
            position: delivery.position.clone(),
            id: delivery.id.clone(),
            attempt: delivery.attempt,
            began,
            ended: None,
            outcome: Outcome::Unknown,
        });
        history.acks.len() - 1
    });
    let entry = v2::AckMessageEntry {
        message_id: delivery.id.to_string(),
        receipt_handle: delivery.handle.clone(),
        lite_topic: None,
    };
    let request = v2::AckMessageRequest {
        group: Some(resource(group)),
        topic: Some(resource(&delivery.topic)),
        entries: vec![entry],
    };
    let reply = session.call(PATIENCE, request, |mut stub, request| async move { stub.ack_message(request).await });
    let outcome = match reply.await {
        Reply::NotSent | Reply::Unknown => Outcome::Unknown,
        Reply::Answer(answer) => {
            let entry = answer.entries.first().and_then(|entry| entry.status.as_ref());
            outcome_of(entry.or(answer.status.as_ref()))
        }
    };
    let ended = recorder.moment();
    note!(recorder.trace, &client, "acknowledged {} attempt {}: {outcome:?}", delivery.id, delivery.attempt);
    recorder.history(|history| {
        let ack = &mut history.acks[index];
        (ack.ended, ack.outcome) = (Some(ended), outcome);
    });
    outcome
}

async fn hide(session: &mut Session, group: &Arc<str>, delivery: &mut Held, invisible: Duration) -> bool {
    let (recorder, client) = (session.site.recorder.clone(), session.name());
    let began = recorder.moment();
    let suspends = session.draw.chance(session.site.habits.suspensions);
    let index = recorder.history(|history| {
        history.hides.push(Hide {
            group: group.clone(),
            position: delivery.position.clone(),
            attempt: delivery.attempt,
            invisible,
            suspends,
            received: delivery.received,
            began,
            outcome: Outcome::Unknown,
        });
        history.hides.len() - 1
    });
    let request = v2::ChangeInvisibleDurationRequest {
        group: Some(resource(group)),
        topic: Some(resource(&delivery.topic)),
        receipt_handle: delivery.handle.clone(),
        invisible_duration: Some(to_wire(invisible)),
        message_id: delivery.id.to_string(),
        suspend: suspends.then_some(true),
        ..Default::default()
    };
    let call =
        |mut stub: super::session::Messaging, request| async move { stub.change_invisible_duration(request).await };
    let outcome = match session.call(PATIENCE, request, call).await {
        Reply::NotSent | Reply::Unknown => Outcome::Unknown,
        Reply::Answer(answer) => {
            let outcome = outcome_of(answer.status.as_ref());
            if outcome == Outcome::Done {
                delivery.handle = answer.receipt_handle;
            }
            outcome
        }
    };
    let (id, attempt) = (&delivery.id, delivery.attempt);
    note!(recorder.trace, &client, "hides {id} attempt {attempt} for {invisible:?}, suspends {suspends}: {outcome:?}");
    recorder.history(|history| history.hides[index].outcome = outcome);
    outcome == Outcome::Done
}

/// Success, a handle whose delivery is over, or nobody knows.
fn outcome_of(status: Option<&v2::Status>) -> Outcome {
    match status.map(|status| status.code) {
        Some(code) if code == i32::from(Code::Ok) => Outcome::Done,
        Some(code) if code == i32::from(Code::InvalidReceiptHandle) => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}
