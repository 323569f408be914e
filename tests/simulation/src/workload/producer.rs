//! Sends messages with unique ids. A send whose outcome is not known is repeated under the same id, through any proxy.

use super::session::{Reply, Role, Session, resource};
use crate::env::Machine;
use crate::history::{Outcome, Send, digest};
use crate::note;
use crate::site::{CHOSEN, Site, Stage};
use bytes::Bytes;
use gantry_proto::wire::v2::{self, Code};
use std::sync::Arc;
use std::time::Duration;

/// How often one message is tried.
const ATTEMPTS_MAX: u32 = 8;

/// Sends until the run is to be drained.
pub async fn produce(site: Arc<Site>, machine: Arc<Machine>) {
    let mut session = Session::new(site.clone(), machine, Role::Producer);
    let mut number = 0;
    loop {
        match site.stage() {
            Stage::Prepare => {}
            Stage::Run | Stage::Settle => {
                number += 1;
                session.keep_alive().await;
                send(&mut session, number).await;
            }
            Stage::Drain | Stage::Done => return,
        }
        let pause = session.draw.span(Duration::from_millis(5)..site.habits.pause);
        tokio::time::sleep(pause).await;
    }
}

/// Messages of one request.
struct Request {
    topic: Arc<str>,
    messages: Vec<Draft>,
}

struct Draft {
    id: Arc<str>,
    tag: Option<Arc<str>>,
    body: Bytes,
}

async fn send(session: &mut Session, number: u64) {
    let (site, client) = (session.site.clone(), session.name());
    let topics = site.topics();
    let topic = session.draw.pick(&topics).clone();
    let habits = site.habits;
    let count = if session.draw.chance(habits.batches) { 2 + session.draw.below(4) } else { 1 };
    let messages = (1..=count).map(|place| {
        let id: Arc<str> =
            if count == 1 { format!("{client}.{number}") } else { format!("{client}.{number}.{place}") }.into();
        let tagged = session.draw.chance(habits.tags);
        let tag = tagged.then(|| (*session.draw.pick(&[CHOSEN, "red", "green"])).into());
        let body = body(session, &id);
        Draft { id, tag, body }
    });
    let request = Request { topic, messages: messages.collect() };
    let first = request.messages[0].id.clone();
    let bytes: usize = request.messages.iter().map(|message| message.body.len()).sum();
    let began = site.recorder.moment();
    let index = site.recorder.history(|history| {
        for Draft { id, tag, body } in &request.messages {
            history.sends.push(Send {
                client: client.clone(),
                topic: request.topic.clone(),
                id: id.clone(),
                digest: digest(body),
                tag: tag.clone(),
                request: first.clone(),
                began,
                ended: None,
                outcome: Outcome::Unknown,
                offset: None,
            });
        }
        history.sends.len() - request.messages.len()
    });
    note!(site.recorder.trace, &client, "sends {first}, {count} of {bytes} bytes, to {}", request.topic);
    let (outcome, offsets) = attempts(session, &request).await;
    let ended = site.recorder.moment();
    note!(site.recorder.trace, &client, "sent {first}: {outcome:?} {offsets:?}");
    site.recorder.history(|history| {
        for (place, send) in history.sends[index..].iter_mut().take(request.messages.len()).enumerate() {
            (send.ended, send.outcome, send.offset) = (Some(ended), outcome, offsets.get(place).copied());
        }
    });
}

/// Mostly small, now and then large; always different.
fn body(session: &Session, id: &str) -> Bytes {
    let large = session.site.habits.large;
    let filler = match session.draw.below(100) {
        drawn if drawn < large => session.draw.below(60_000),
        drawn if drawn < 30 => session.draw.below(4000),
        _ => session.draw.below(200),
    };
    let mut body = format!("{id}:").into_bytes();
    let start = body.len();
    body.resize(start + filler as usize, 0);
    gantry_proto::env::Random::fill(&session.draw, &mut body[start..]);
    body.into()
}

async fn attempts(session: &mut Session, request: &Request) -> (Outcome, Vec<u64>) {
    let mut outcome = Outcome::Refused;
    let wire = |session: &Session, message: &Draft| v2::Message {
        topic: Some(resource(&request.topic)),
        user_properties: Default::default(),
        system_properties: Some(v2::SystemProperties {
            message_id: message.id.to_string(),
            tag: message.tag.as_ref().map(ToString::to_string),
            message_type: v2::MessageType::Normal.into(),
            body_encoding: v2::Encoding::Identity.into(),
            born_host: session.name().to_string(),
            ..Default::default()
        }),
        body: message.body.clone(),
    };
    for _ in 0..ATTEMPTS_MAX {
        let messages: Vec<v2::Message> = request.messages.iter().map(|message| wire(session, message)).collect();
        let patience = session.site.habits.patience;
        let reply = session.call(patience, v2::SendMessageRequest { messages }, |mut stub, request| async move {
            stub.send_message(request).await
        });
        match reply.await {
            Reply::NotSent => {}
            Reply::Unknown => outcome = Outcome::Unknown,
            Reply::Answer(answer) => {
                let status = answer.entries.first().and_then(|entry| entry.status.as_ref()).or(answer.status.as_ref());
                let code = status.map_or(0, |status| status.code);
                if code == i32::from(Code::Ok) {
                    return (Outcome::Done, answer.entries.iter().map(|entry| entry.offset as u64).collect());
                }
                let why = status.map_or("", |status| &status.message);
                let id = &request.messages[0].id;
                note!(session.site.recorder.trace, &session.machine.name, "send of {id} answered {code}: {why}");
                // 4xxxx says that nothing happened; anything else leaves it open.
                if !(40_000..50_000).contains(&code) {
                    outcome = Outcome::Unknown;
                }
            }
        }
        if session.draw.chance(20) {
            session.leave();
        }
        let pause = session.draw.span(Duration::from_millis(50)..Duration::from_millis(1200));
        tokio::time::sleep(pause).await;
        if session.site.stage() == Stage::Done {
            break;
        }
    }
    (outcome, Vec::new())
}
