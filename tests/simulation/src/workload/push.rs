//! Push consumers: their leases are renewed for them while they live, whichever proxy they talk to. They work on some
//! messages for much longer than a lease and ask for no others meanwhile if they hold enough, move from one proxy to another, say goodbye, or die without a word. Then another
//! one takes their place, under another id.

use super::consumer::{Held, next_topic, receive, try_acknowledge};
use super::session::{PATIENCE, Reply, Role, Session, resource};
use crate::env::Machine;
use crate::history::Outcome;
use crate::note;
use crate::site::{PUSHED, Site, Stage};
use gantry_proto::model::ClientHash;
use gantry_proto::wire::v2;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// As official clients do, for as long as they live: whoever stopped asking would hold the message for ever.
const ACKNOWLEDGED_AGAIN: Duration = Duration::from_secs(1);

/// A client that holds as many messages as it may looks so soon whether it is done with one of them.
const FULL: Duration = Duration::from_millis(100);

/// One client after the other, until the run is done.
pub async fn push(site: Arc<Site>, machine: Arc<Machine>) {
    let group: Arc<str> = PUSHED.into();
    let name = machine.name.clone();
    let mut session = Session::new(site.clone(), machine, Role::Push { group: group.clone() });
    let mut held: Vec<Held> = Vec::new();
    let mut lives = 1;
    let mut turn = session.draw.below(16) as usize;
    while site.stage() != Stage::Done {
        let Some(topic) = next_topic(&mut session, &mut turn, Site::topics).await else { continue };
        if held.len() < site.habits.cache {
            for mut delivery in receive(&mut session, &group, topic, true).await {
                delivery.due = Instant::now() + work(&session);
                held.push(delivery);
            }
        } else {
            tokio::time::sleep(FULL).await;
        }
        let (now, hurries) = (Instant::now(), site.stage() > Stage::Run);
        let (due, later): (Vec<Held>, Vec<Held>) = held.drain(..).partition(|held| hurries || held.due <= now);
        held = later;
        for mut delivery in due {
            if try_acknowledge(&mut session, &group, &delivery).await == Outcome::Unknown {
                delivery.due = Instant::now() + ACKNOWLEDGED_AGAIN;
                held.push(delivery);
            }
        }
        if site.stage() == Stage::Run && session.draw.chance(4) {
            held.clear();
            if session.draw.chance(50) {
                say_goodbye(&mut session, &group).await;
            }
            lives += 1;
            session.be_replaced_by(format!("{name}.{lives}").into());
            note!(site.recorder.trace, &name, "is gone; {name}.{lives} comes");
        } else if site.stage() == Stage::Run && session.draw.chance(6) {
            note!(site.recorder.trace, &name, "moves to another proxy");
            session.leave();
        }
    }
}

/// How long it works on a message: mostly not long, now and then for several leases.
fn work(session: &Session) -> Duration {
    let most = match session.draw.below(100) {
        0..60 => 300,
        60..85 => 4000,
        _ => 20_000,
    };
    Duration::from_millis(session.draw.below(most))
}

async fn say_goodbye(session: &mut Session, group: &Arc<str>) {
    let (recorder, owner) = (session.site.recorder.clone(), ClientHash::of(&session.id()));
    let began = recorder.moment();
    recorder.history(|history| history.goodbyes.push((owner, began)));
    let request = v2::NotifyClientTerminationRequest { group: Some(resource(group)) };
    let call =
        |mut stub: super::session::Messaging, request| async move { stub.notify_client_termination(request).await };
    let heard = matches!(session.call(PATIENCE, request, call).await, Reply::Answer(_));
    note!(recorder.trace, &session.machine.name, "said goodbye, answered: {heard}");
}
