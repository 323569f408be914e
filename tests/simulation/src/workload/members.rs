//! The members of the controller, as the operator changes them: one at a time, a new one on a machine that is free, with a
//! new number and an empty folder, and one is removed and its process stopped, in either order.

use super::operator::insist;
use super::session::{Admin, Session};
use crate::history::MemberChange;
use crate::site::{Order, PEER_PORT, Site};
use gantry_proto::wire::admin::v1 as admin;
use std::collections::BTreeMap;
use std::time::Duration;

/// Fewer are never left.
const MEMBERS_MIN: usize = 2;

/// Who is a member where.
pub(super) struct Members {
    hosts: BTreeMap<u64, String>,
    free: Vec<String>,
    /// The number of the next one.
    next: u64,
}

impl Members {
    pub(super) fn new(site: &Site) -> Members {
        let mut hosts = site.controllers();
        let free = hosts.split_off(site.shape.controllers);
        let next = hosts.len() as u64 + 1;
        Members { hosts: (1..).zip(hosts).collect(), free, next }
    }

    /// Adds a member or removes one. Nothing, if the scenario has no machine to spare.
    pub(super) async fn change(&mut self, session: &mut Session) {
        if session.site.shape.spares == 0 {
            return;
        }
        if self.free.is_empty() || (self.hosts.len() > MEMBERS_MIN && session.draw.chance(40)) {
            self.remove(session).await;
        } else {
            self.add(session).await;
        }
    }

    async fn add(&mut self, session: &mut Session) {
        let Some(host) = self.free.pop() else { return };
        let number = self.next;
        self.next += 1;
        session.site.order(Order::Enlist { host: host.clone(), number });
        let request = admin::AddControllerRequest { id: number, address: format!("{host}:{PEER_PORT}") };
        let call = |mut stub: Admin| {
            let request = request.clone();
            async move { stub.cluster.add_controller(request).await }
        };
        let index = began(session, number, true);
        if insist(session, &format!("add member {number}"), true, call).await.is_some() {
            ended(session, index);
        }
        self.hosts.insert(number, host);
    }

    async fn remove(&mut self, session: &mut Session) {
        let numbers: Vec<u64> = self.hosts.keys().copied().collect();
        let id = *session.draw.pick(&numbers);
        let call = |mut stub: Admin| async move {
            stub.cluster.remove_controller(admin::RemoveControllerRequest { id }).await
        };
        let index = began(session, id, false);
        if insist(session, &format!("remove member {id}"), true, call).await.is_none() {
            return;
        }
        ended(session, index);
        // It goes on for a while without belonging to anybody.
        let pause = session.draw.span(Duration::ZERO..Duration::from_millis(3000));
        tokio::time::sleep(pause).await;
        if let Some(host) = self.hosts.remove(&id) {
            session.site.order(Order::Retire { host: host.clone() });
            self.free.push(host);
        }
    }
}

fn began(session: &Session, number: u64, added: bool) -> usize {
    let recorder = &session.site.recorder;
    let began = recorder.moment();
    recorder.history(|history| {
        history.member_changes.push(MemberChange { number, added, began, ended: None });
        history.member_changes.len() - 1
    })
}

fn ended(session: &Session, index: usize) {
    let recorder = &session.site.recorder;
    let ended = recorder.moment();
    recorder.history(|history| history.member_changes[index].ended = Some(ended));
}
