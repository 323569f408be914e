//! Operators in a hurry: they change the metadata and ask how the cluster is all the time, through any proxy, and wait for no
//! answer for long. So a member of the controller that answers by what is no longer so is found out.

use super::operator::look;
use super::session::{Admin, Role, Session};
use crate::env::Machine;
use crate::note;
use crate::site::{Site, Stage};
use gantry_proto::wire::admin::v1 as admin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Status;

/// How long they wait for an answer.
const HASTE: Duration = Duration::from_millis(700);

/// Works while there are faults.
pub async fn hurry(site: Arc<Site>, machine: Arc<Machine>) {
    let mut session = Session::new(site.clone(), machine, Role::Producer);
    let mut number = 0;
    while site.stage() != Stage::Done {
        let pause = session.draw.span(Duration::from_millis(10)..Duration::from_millis(120));
        tokio::time::sleep(pause).await;
        if site.stage() != Stage::Run {
            continue;
        }
        if session.draw.chance(25) {
            number += 1;
            change(&mut session, number).await;
        } else {
            look(&mut session, HASTE).await;
        }
        if session.draw.chance(3) {
            session.leave();
        }
    }
}

/// Creates a consumer group that nobody uses, and next time deletes it.
async fn change(session: &mut Session, number: u64) {
    let group = format!("{}-{}", session.machine.name, number.div_ceil(2));
    let Some(Admin { mut topics, .. }) = session.admin().await else { return };
    let changed = async {
        if number.is_multiple_of(2) {
            topics.delete_group(admin::DeleteGroupRequest { name: group.clone() }).await.map(drop)
        } else {
            let name = group.clone();
            let request =
                admin::CreateGroupRequest { name, max_attempts: 3, if_not_exists: true, ..Default::default() };
            topics.create_group(request).await.map(drop)
        }
    };
    let changed: Result<Result<(), Status>, _> = timeout(HASTE, changed).await;
    let said = match &changed {
        Ok(Ok(())) => "done".to_owned(),
        Ok(Err(status)) => format!("{:?} {}", status.code(), status.message()),
        Err(_) => "no answer".to_owned(),
    };
    note!(session.site.recorder.trace, &session.machine.name, "changes {group}: {said}");
    if changed.is_err() {
        session.leave();
    }
}
