use super::{Process, data, listen};
use crate::history::{GaveUp, MemberSeen};
use crate::note;
use crate::site::{LEASE, PEER_PORT};
use anyhow::Context as _;
use gantry_controller::{ControllerConfig, ControllerHost, LeaseSettings};
use gantry_link::{ConsensusLink, PeerServer, PeerServices};
use gantry_proto::contract::StoreLease;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often somebody asks the member whether it serves, as `/readyz` does.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// As in `gantry controller`: how long it may take to end, and its port to answer the last calls.
const DEADLINE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);
/// What the version before this one follows.
const RULES_BEFORE: u32 = 1;

pub(super) async fn run(process: Process, number: u64) -> anyhow::Result<()> {
    let Process { site, env, local, .. } = &process;
    let server = PeerServer::bind(env, listen(PEER_PORT), local).await?;
    let network = Arc::new(ConsensusLink::new(env, local));
    // Whoever is added to a controller at work must not found another one.
    let founders = site.first_members();
    let members = if founders.contains_key(&number) { founders } else { BTreeMap::new() };
    let sole_replica_lease = match site.lease {
        StoreLease::For(duration) => Some(duration),
        StoreLease::UntilSuperseded => None,
    };
    let (snapshot_commands, log_kept) = site.habits.snapshots;
    let member = ControllerConfig::member(data().join(number.to_string()), number, members);
    let config = ControllerConfig {
        rules_max: if process.older { RULES_BEFORE } else { member.rules_max },
        snapshot_commands,
        log_kept,
        leases: LeaseSettings { duration: LEASE, sole_replica_lease, ..LeaseSettings::default() },
        // A folder belongs to one number for ever.
        ..member
    };
    let host = Arc::new(ControllerHost::open(config, env.clone(), network).await?);
    let services = PeerServices::default().controller(host.clone(), host.clone(), host.clone());
    let closing = CancellationToken::new();
    let serving = server.run(services, closing.clone(), GRACE);
    let keeping = host.keep();
    let looking = look(&process, &host);
    tokio::pin!(serving, keeping, looking);
    tokio::select! {
        biased;
        () = &mut serving => anyhow::bail!("the port is closed"),
        kept = &mut keeping => return kept.map_err(|failed| gave_up(&process, failed.into())),
        () = &mut looking => anyhow::bail!("nobody looks at the member"),
        () = process.stop.cancelled() => {}
    }
    // As `gantry controller` ends: watches end with the controller, and only then has the port nothing left to say.
    closing.cancel();
    let (ended, (), kept) = tokio::join!(timeout(DEADLINE, host.shutdown()), serving, timeout(DEADLINE, &mut keeping));
    ended.context("the controller took too long to end")?;
    kept.context("the controller took too long to end")?.map_err(|failed| gave_up(&process, failed.into()))
}

/// The member says that opening it again cannot help.
fn gave_up(process: &Process, error: anyhow::Error) -> anyhow::Error {
    let recorder = &process.site.recorder;
    let (why, at) = (format!("{error:#}"), recorder.moment());
    let gave_up = GaveUp { process: process.name.clone(), why, at };
    recorder.history(|history| history.gave_up.push(gave_up));
    error
}

/// Notes whether the member serves, for as long as the process runs.
async fn look(process: &Process, host: &ControllerHost) {
    let recorder = &process.site.recorder;
    let mut served = true;
    loop {
        let why = host.serves().err();
        if served != why.is_none() {
            served = why.is_none();
            match &why {
                Some(why) => note!(recorder.trace, &process.name, "does not serve: {why}"),
                None => {
                    note!(recorder.trace, &process.name, "serves again");
                    recorder.history(|history| history.members_reopened += 1);
                }
            }
        }
        let seen = MemberSeen { why, at: recorder.moment() };
        recorder.history(|history| history.members.insert(process.machine.name.clone(), seen));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
