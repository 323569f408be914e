//! Extends the leases of living push consumers, all in one call per store group, and ends the sessions of clients that fell
//! silent. A task of its own.
//!
//! A lease outlives three lost renewals. If this proxy dies, its clients go to another one, which renews their leases from
//! then on, whether or not they receive anything there. A client that is silent here may have gone to another proxy, too.
//! So its leases are never cut short: they are renewed for some time and then end by themselves, not later than the
//! session. Only a goodbye releases them.

use crate::config::ProxyConfig;
use crate::messaging::Messaging;
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
    let owners = messaging.sessions.renewing(silence_max(session_timeout, auto_renew_lease));
    if owners.is_empty() {
        return;
    }
    let clients = owners.len();
    // Bounded, so that a store that hangs costs one round and not the task.
    let answers = messaging.stores.renew(&owners, auto_renew_lease, renew_interval).await;
    for (store_group, answer) in answers {
        if let Err(error) = answer {
            tracing::warn!(clients, store_group = %store_group.name, %error, "leases of push consumers could not be renewed");
        }
    }
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
