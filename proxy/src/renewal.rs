//! Extends the leases of living push consumers, all in one call, and lets go of clients that fell silent. One owned task.
//!
//! A lease outlives three lost renewals. This proxy's death costs no delivery: the clients go to another one, which renews
//! from then on.

use crate::messaging::Messaging;
use gantry_proto::contract::RenewRequest;
use gantry_proto::model::limits::AUTO_RENEW_LEASE;
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
            if session.renews() {
                messaging.handback.release(session.owner);
            }
        }
        let view = messaging.directory.view();
        messaging.directory.retain_outlets();
        messaging
            .metrics
            .retain_deliveries(|topic, group| view.topic_by_id(topic).is_some() && view.group_by_id(group).is_some());
        renew(messaging).await;
    }
}

async fn renew(messaging: &Messaging) {
    let owners = messaging.sessions.renewing();
    if owners.is_empty() {
        return;
    }
    let clients = owners.len();
    let request = RenewRequest { owners, invisible: AUTO_RENEW_LEASE };
    // Bounded, so that a store that hangs costs one round and not the task.
    match tokio::time::timeout(messaging.config.renew_interval, messaging.store.renew(request)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(clients, %error, "leases of push consumers could not be renewed"),
        Err(_) => tracing::warn!(clients, "renewing the leases of push consumers took too long"),
    }
}
