//! Tells the controller that this proxy is alive. A task of its own.
//!
//! Nothing in the proxy depends on it: while the controller is away, the proxy serves with the metadata it saw last.

use crate::messaging::Messaging;
use crate::stores::Backoff;
use gantry_proto::contract::{MembershipError, ProxyAliveRequest};
use gantry_proto::env::Random;
use gantry_proto::model::ProxyId;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the controller may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Bounds of the interval that the controller asks for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Pauses while the controller is away.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// This process as a member of the cluster.
pub(crate) struct Presence {
    /// Random, of this process.
    pub(crate) id: ProxyId,
    /// Where clients reach it.
    pub(crate) address: Arc<str>,
    pub(crate) random: Arc<dyn Random>,
}

impl Presence {
    /// Runs until `stop`.
    pub(crate) async fn run(self, messaging: &Messaging, stop: CancellationToken) {
        let reports = async {
            let mut absence: Option<Backoff> = None;
            loop {
                let pause = match self.report(messaging).await {
                    Ok(interval) => {
                        if absence.take().is_some() {
                            tracing::info!("the controller answers again");
                        }
                        interval.clamp(INTERVAL_MIN, INTERVAL_MAX)
                    }
                    Err(error) => {
                        if absence.is_none() {
                            tracing::warn!(%error, "the controller does not know that this proxy is alive");
                        }
                        let backoff = absence.get_or_insert_with(|| Backoff::from_to(PAUSE_FIRST, PAUSE_MAX));
                        self.jittered(backoff.next())
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = reports => {}
        }
    }

    async fn report(&self, messaging: &Messaging) -> Result<Duration, MembershipError> {
        let alive = ProxyAliveRequest {
            id: self.id,
            address: self.address.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            sessions: u32::try_from(messaging.sessions.count()).unwrap_or(u32::MAX),
        };
        tokio::time::timeout(ANSWER_PATIENCE, messaging.membership.proxy_alive(alive))
            .await
            .unwrap_or_else(|_| Err(MembershipError::Unavailable("no answer in time".to_owned())))
    }

    /// Half to all of a pause: proxies that lost the controller at the same time do not call it at the same time.
    fn jittered(&self, pause: Duration) -> Duration {
        let mut byte = [0];
        self.random.fill(&mut byte);
        pause / 2 + pause / 2 * u32::from(byte[0]) / 255
    }
}
