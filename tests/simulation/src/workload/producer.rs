//! Sends messages with unique ids. A send whose outcome is not known is repeated under the same id, through any proxy.

use super::session::{PATIENCE, Reply, Role, Session, resource};
use crate::env::Machine;
use crate::history::{Outcome, Send, digest};
use crate::note;
use crate::site::{Site, Stage};
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
        let pause = session.draw.span(Duration::from_millis(5)..Duration::from_millis(250));
        tokio::time::sleep(pause).await;
    }
}

async fn send(session: &mut Session, number: u64) {
    let (site, client) = (session.site.clone(), session.name());
    let topics = site.topics();
    let topic = session.draw.pick(&topics).clone();
    let id: Arc<str> = format!("{client}.{number}").into();
    let body = body(session, &id);
    let digest = digest(&body);
    let began = site.recorder.moment();
    let index = site.recorder.history(|history| {
        let (client, topic, id) = (client.clone(), topic.clone(), id.clone());
        let outcome = Outcome::Unknown;
        history.sends.push(Send { client, topic, id, digest, began, ended: None, outcome, offset: None });
        history.sends.len() - 1
    });
    note!(site.recorder.trace, &client, "sends {id} of {} bytes to {topic}", body.len());
    let (outcome, offset) = attempts(session, &topic, &id, body).await;
    let ended = site.recorder.moment();
    note!(site.recorder.trace, &client, "sent {id}: {outcome:?} {offset:?}");
    site.recorder.history(|history| {
        let send = &mut history.sends[index];
        (send.ended, send.outcome, send.offset) = (Some(ended), outcome, offset);
    });
}

/// Mostly small, now and then large; always different.
fn body(session: &Session, id: &str) -> Bytes {
    let filler = match session.draw.below(100) {
        0..70 => session.draw.below(200),
        70..97 => session.draw.below(4000),
        _ => session.draw.below(60_000),
    };
    let mut body = format!("{id}:").into_bytes();
    let start = body.len();
    body.resize(start + filler as usize, 0);
    gantry_proto::env::Random::fill(&session.draw, &mut body[start..]);
    body.into()
}

async fn attempts(session: &mut Session, topic: &str, id: &str, body: Bytes) -> (Outcome, Option<u64>) {
    let mut outcome = Outcome::Refused;
    for _ in 0..ATTEMPTS_MAX {
        let message = v2::Message {
            topic: Some(resource(topic)),
            user_properties: Default::default(),
            system_properties: Some(v2::SystemProperties {
                message_id: id.to_owned(),
                message_type: v2::MessageType::Normal.into(),
                body_encoding: v2::Encoding::Identity.into(),
                born_host: session.name().to_string(),
                ..Default::default()
            }),
            body: body.clone(),
        };
        let request = v2::SendMessageRequest { messages: vec![message] };
        let reply =
            session.call(PATIENCE, request, |mut stub, request| async move { stub.send_message(request).await });
        match reply.await {
            Reply::NotSent => {}
            Reply::Unknown => outcome = Outcome::Unknown,
            Reply::Answer(answer) => {
                let entry = answer.entries.first();
                let status = entry.and_then(|entry| entry.status.as_ref()).or(answer.status.as_ref());
                let code = status.map_or(0, |status| status.code);
                if code == i32::from(Code::Ok) {
                    return (Outcome::Done, entry.and_then(|entry| u64::try_from(entry.offset).ok()));
                }
                let why = status.map_or("", |status| &status.message);
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
    (outcome, None)
}
