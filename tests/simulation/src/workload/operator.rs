//! The operator: creates topics and groups, looks at the cluster's state, drains store groups and spreads topics, and puts
//! new members of the controller in the place of others.

use super::members::Members;
use super::session::{Admin, PATIENCE, Role, Session};
use crate::env::Machine;
use crate::history::{Group, History, StatusSeen};
use crate::note;
use crate::site::{CAREFUL, CHOOSY, CHOSEN, GRAVES, PATIENT, PUSHED, Site, Stage};
use gantry_client::to_wire;
use gantry_proto::wire::admin::v1 as admin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Status};

/// Deliveries of a message in the careful group.
const CAREFUL_ATTEMPTS: u32 = 3;
/// Deliveries of a message in the other groups: more than there can be in a run.
const PATIENT_ATTEMPTS: u32 = 1000;
/// Topics that there are from the beginning.
const TOPICS: usize = 2;
/// Topics that there can be.
const TOPICS_MAX: usize = 6;

/// Works until the run is done. `reshape`: whether store groups are drained and put into use again.
pub async fn operate(site: Arc<Site>, machine: Arc<Machine>, reshape: bool) {
    let mut session = Session::new(site.clone(), machine, Role::Producer);
    let patient = [PATIENT, PUSHED, CHOOSY, GRAVES].map(|group| (group, PATIENT_ATTEMPTS));
    for (group, max_attempts) in [(CAREFUL, CAREFUL_ATTEMPTS)].into_iter().chain(patient) {
        create_group(&mut session, group, max_attempts).await;
        let tag = (group == CHOOSY).then(|| CHOSEN.into());
        let created = Group { topics: Vec::new(), tag, max_attempts };
        site.recorder.history(|history| history.groups.insert(group.into(), created));
    }
    let graves: Arc<str> = History::dead_letters_of(CAREFUL).into();
    site.recorder.history(|history| {
        if let Some(group) = history.groups.get_mut(GRAVES) {
            group.topics.push(graves);
        }
    });
    for number in 1..=TOPICS {
        create_topic(&mut session, &format!("topic-{number}")).await;
    }
    site.enter(Stage::Run);
    let (mut number, mut drained, mut given_up) = (TOPICS, None, 0);
    let mut brief = Brief::default();
    let mut members = Members::new(&site);
    while site.stage() != Stage::Done {
        let pause = session.draw.span(Duration::from_millis(500)..Duration::from_millis(3000));
        tokio::time::sleep(pause).await;
        look(&mut session, PATIENCE).await;
        // Whoever reads why the store ended knows that its disk is lost.
        let lost = site.recorder.history(|history| {
            let named = history.lost_disks.iter().filter(|lost| history.is_named(lost));
            named.map(|lost| lost.machine.clone()).collect::<Vec<_>>()
        });
        for group in lost.into_iter().skip(given_up) {
            given_up += 1;
            remove_lost_group(&mut session, &group).await;
        }
        if site.stage() != Stage::Run {
            continue;
        }
        if number < TOPICS_MAX && session.draw.chance(12) {
            number += 1;
            create_topic(&mut session, &format!("topic-{number}")).await;
        }
        if session.draw.chance(site.habits.alterations) {
            brief.change(&mut session).await;
        }
        if reshape && session.draw.chance(15) {
            drained = reshape_stores(&mut session, drained).await;
        }
        if session.draw.chance(40) {
            members.change(&mut session).await;
        }
    }
}

/// Repeats a call until it is answered with success, or the run is done. `possible`: whether what stands in its way now will
/// pass.
pub(super) async fn insist<T, F, C>(session: &mut Session, what: &str, possible: bool, call: C) -> Option<T>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
    C: Fn(Admin) -> F,
{
    while session.site.stage() != Stage::Done {
        if let Some(stub) = session.admin().await {
            match timeout(PATIENCE, call(stub)).await {
                Ok(Ok(answer)) => {
                    note!(session.site.recorder.trace, "operator", "{what}: done");
                    return Some(answer.into_inner());
                }
                Ok(Err(status)) => {
                    note!(session.site.recorder.trace, "operator", "{what}: {:?} {}", status.code(), status.message());
                    let hopeless =
                        matches!(status.code(), Code::FailedPrecondition | Code::NotFound | Code::InvalidArgument);
                    if hopeless && !possible {
                        return None;
                    }
                    if status.code() != Code::Unavailable {
                        session.leave();
                    }
                }
                Err(_) => {
                    note!(session.site.recorder.trace, "operator", "{what}: no answer");
                    session.leave();
                }
            }
        }
        let pause = session.draw.span(Duration::from_millis(100)..Duration::from_millis(1000));
        tokio::time::sleep(pause).await;
    }
    None
}

async fn create_group(session: &mut Session, name: &'static str, max_attempts: u32) {
    let backoff = admin::BackoffPolicy {
        strategy: Some(admin::backoff_policy::Strategy::Customized(admin::CustomizedBackoff {
            next: vec![to_wire(Duration::from_millis(500)), to_wire(Duration::from_millis(1500))],
        })),
    };
    let request = admin::CreateGroupRequest {
        name: name.to_owned(),
        fifo: false,
        max_attempts,
        backoff: Some(backoff),
        if_not_exists: true,
    };
    let call = |mut stub: Admin| {
        let request = request.clone();
        async move { stub.topics.create_group(request).await }
    };
    insist(session, &format!("create group {name}"), true, call).await;
}

/// Changes of topics at work: one gets more queues; one is there for a short while only, with all that is done to it.
#[derive(Default)]
struct Brief {
    /// How many there were.
    number: u64,
    /// The one that there is now.
    name: Option<String>,
}

impl Brief {
    async fn change(&mut self, session: &mut Session) {
        if session.draw.chance(30) {
            return more_queues(session).await;
        }
        match self.name.take() {
            Some(name) => delete_topic(session, &name).await,
            None => {
                self.number += 1;
                let name = format!("brief-{}", self.number);
                create_topic(session, &name).await;
                self.name = Some(name);
            }
        }
    }
}

async fn more_queues(session: &mut Session) {
    let topics = session.site.topics();
    let name = session.draw.pick(&topics).to_string();
    let queue_count = Some(6 + session.draw.below(3) as u32);
    let request = admin::AlterTopicRequest { name: name.clone(), r#type: None, queue_count };
    let call = |mut stub: Admin| {
        let request = request.clone();
        async move { stub.topics.alter_topic(request).await }
    };
    // It may have more already.
    insist(session, &format!("alter {name}"), false, call).await;
}

async fn delete_topic(session: &mut Session, name: &str) {
    session.site.remove_topic(name);
    let request = admin::DeleteTopicRequest { name: name.to_owned() };
    let call = |mut stub: Admin| {
        let request = request.clone();
        async move { stub.topics.delete_topic(request).await }
    };
    insist(session, &format!("delete {name}"), false, call).await;
}

async fn create_topic(session: &mut Session, name: &str) {
    let request = admin::CreateTopicRequest {
        name: name.to_owned(),
        r#type: admin::TopicType::Normal.into(),
        queue_count: 2 + session.draw.below(4) as u32,
        if_not_exists: true,
    };
    let call = |mut stub: Admin| {
        let request = request.clone();
        async move { stub.topics.create_topic(request).await }
    };
    if insist(session, &format!("create {name}"), true, call).await.is_some() {
        session.site.add_topic(name);
    }
}

/// Asks once how the cluster is.
pub(super) async fn look(session: &mut Session, patience: Duration) {
    let (recorder, name) = (session.site.recorder.clone(), session.name());
    let Some(mut stub) = session.admin().await else { return };
    let began = recorder.moment();
    match timeout(patience, stub.cluster.get_cluster_status(admin::GetClusterStatusRequest {})).await {
        // What the proxy saw last holds the answer to nothing.
        Ok(Ok(answer)) if !answer.get_ref().controller_away.is_empty() => {
            let version = answer.get_ref().metadata_version;
            note!(recorder.trace, &name, "sees version {version}, the controller is away");
        }
        Ok(Ok(answer)) => {
            let (answer, ended) = (answer.into_inner(), recorder.moment());
            let groups = answer.stores.iter().filter_map(|store| store.group.as_ref());
            let epochs = groups.map(|group| (group.id, group.epoch)).collect();
            let leader = answer.controllers.iter().find(|member| member.leader).map(|member| member.id);
            let members = answer.controllers.iter().map(|member| (member.id, member.voter)).collect();
            let version = answer.metadata_version;
            note!(recorder.trace, &name, "sees version {version}, epochs {epochs:?}, leader {leader:?} of {members:?}");
            let seen = StatusSeen { began, ended, version, epochs, leader, members };
            recorder.history(|history| history.statuses.push(seen));
        }
        Ok(Err(status)) => note!(recorder.trace, &name, "sees nothing: {:?}", status.code()),
        Err(_) => {
            note!(recorder.trace, &name, "sees nothing: no answer");
            session.leave();
        }
    }
}

/// The data of a store group are lost: it is given up, and its store may begin a new one.
async fn remove_lost_group(session: &mut Session, name: &str) {
    let request = admin::DrainStoreGroupRequest { name: name.to_owned() };
    let call = |mut stub: Admin| {
        let request = request.clone();
        async move { stub.cluster.drain_store_group(request).await }
    };
    insist(session, &format!("drain {name}, which is lost"), true, call).await;
    let request = admin::RemoveStoreGroupRequest { name: name.to_owned(), force: true };
    let call = |mut stub: Admin| {
        let request = request.clone();
        async move { stub.cluster.remove_store_group(request).await }
    };
    insist(session, &format!("remove {name}, which is lost"), false, call).await;
}

/// Drains a store group, or puts the one that is draining into use again; then spreads all topics.
async fn reshape_stores(session: &mut Session, drained: Option<String>) -> Option<String> {
    if let Some(name) = drained {
        let request = admin::ActivateStoreGroupRequest { name: name.clone() };
        let call = |mut stub: Admin| {
            let request = request.clone();
            async move { stub.cluster.activate_store_group(request).await }
        };
        insist(session, &format!("activate {name}"), true, call).await;
        let call =
            |mut stub: Admin| async move { stub.cluster.spread_topics(admin::SpreadTopicsRequest::default()).await };
        insist(session, "spread topics", true, call).await;
        return None;
    }
    let stores = session.site.stores();
    let name = session.draw.pick(&stores).clone();
    let request = admin::DrainStoreGroupRequest { name: name.clone() };
    let call = |mut stub: Admin| {
        let request = request.clone();
        async move { stub.cluster.drain_store_group(request).await }
    };
    insist(session, &format!("drain {name}"), false, call).await.map(|_| name)
}
