//! Extends the leases of living push consumers, all in one call per store group, and ends the sessions of clients that fell
//! silent. A task of its own. Before that, it tells the stores which deliveries have reached their clients: no others are
//! extended (see `arrivals`).
//!
//! A lease outlives three lost renewals. If this proxy dies, its clients go to another one, which renews their leases from
//! then on, whether or not they receive anything there. A client that is silent here may have gone to another proxy, too.
//! So its leases are never cut short: they are renewed for some time and then end by themselves, not later than the
//! session. Only a goodbye releases them.

use crate::arrivals::Arrived;
use crate::config::ProxyConfig;
use crate::messaging::Messaging;
use crate::session::Session;
use futures_util::future::join_all;
use gantry_proto::contract::ArrivedDeliveries;
use gantry_proto::model::{ClientHash, GroupId, ReceiptHandle, StoreGroupId, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Runs until `stop`.
pub(crate) async fn run(messaging: &Messaging, stop: CancellationToken) {
    let period = messaging.config.renew_interval;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for session in messaging.sessions.expire(messaging.config.session_timeout) {
            tracing::info!(client_id = session.client_id(), "client was silent for too long, its session ends");
        }
        messaging.stores.forget_what_is_gone();
        messaging.metrics.forget_what_is_gone(messaging.directory.view());
        renew(messaging).await;
    }
}

async fn renew(messaging: &Messaging) {
    let ProxyConfig { session_timeout, auto_renew_lease, renew_interval, .. } = messaging.config;
    let sessions = messaging.sessions.renewing(silence_max(session_timeout, auto_renew_lease));
    if sessions.is_empty() {
        return;
    }
    note_arrived(messaging, &sessions).await;
    let owners: Vec<ClientHash> = sessions.iter().map(|session| session.owner).collect();
    let clients = owners.len();
    // Bounded, so that a store that hangs costs one round and not the task.
    let answers = messaging.stores.renew(&owners, auto_renew_lease, renew_interval).await;
    for (store_group, answer) in answers {
        if let Err(error) = answer {
            tracing::warn!(clients, store_group = %store_group.name, %error, "leases of push consumers could not be renewed");
        }
    }
}

/// What has reached these clients since the last time. What cannot be told now is told the next time, in its first lease.
async fn note_arrived(messaging: &Messaging, sessions: &[Arc<Session>]) {
    let ProxyConfig { auto_renew_lease: lease, renew_interval: patience, .. } = messaging.config;
    type Places = BTreeMap<(GroupId, TopicId), Vec<ReceiptHandle>>;
    let mut by_store_group = BTreeMap::<StoreGroupId, Vec<(&Arc<Session>, ArrivedDeliveries)>>::new();
    for session in sessions {
        let mut arrived = BTreeMap::<StoreGroupId, Places>::new();
        for Arrived { place, handle } in session.arrived(lease) {
            let Some((issuer, _)) = handle.parse() else { continue };
            arrived.entry(issuer).or_default().entry(place).or_default().push(handle);
        }
        for (issuer, places) in arrived {
            let of_it = by_store_group.entry(issuer).or_default();
            of_it.extend(places.into_iter().map(|((group, topic), handles)| {
                (session, ArrivedDeliveries { owner: session.owner, group, topic, handles })
            }));
        }
    }
    let tell = by_store_group.into_iter().map(|(store_group, told)| async move {
        let (sessions, arrived): (Vec<_>, Vec<_>) = told.into_iter().unzip();
        match messaging.stores.note_arrived(store_group, &arrived, lease, patience).await {
            Ok(()) => sessions.iter().zip(&arrived).for_each(|(session, told)| session.are_over(&told.handles)),
            Err(error) => {
                let clients = arrived.len();
                tracing::warn!(clients, %store_group, %error, "what reached push consumers could not be told");
            }
        }
    });
    join_all(tell).await;
}

/// For how long the leases of a silent client are renewed: the last of them ends when its session does. Half of the session
/// timeout if that is shorter than a lease.
fn silence_max(session_timeout: Duration, lease: Duration) -> Duration {
    session_timeout.saturating_sub(lease).max(session_timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_a_silent_client_end_no_later_than_its_session() {
        let seconds = Duration::from_secs;
        let lease = seconds(60);
        assert_eq!(silence_max(seconds(120), lease), seconds(60));
        assert_eq!(silence_max(seconds(300), lease) + lease, seconds(300));
        assert_eq!(silence_max(seconds(2), lease), seconds(1));
    }
}
