use super::{PeerCredentials, SharedToken};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use metrics::Counter;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// A refusal is logged at most this often: a peer that goes on trying must not fill the log.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Lets calls of the cluster's own peers in. With certificates it lets every call in: the connection is the proof.
pub(crate) struct Gate {
    token: Option<SharedToken>,
    refused: Counter,
    log: Mutex<RefusalLog>,
}

#[derive(Default)]
struct RefusalLog {
    last: Option<Instant>,
    /// Refusals since then.
    unlogged: u64,
}

impl Gate {
    pub(crate) fn new(credentials: &PeerCredentials) -> Gate {
        let token = match credentials {
            PeerCredentials::Token(token) => Some(token.clone()),
            PeerCredentials::None | PeerCredentials::MutualTls(_) => None,
        };
        metrics::describe_counter!(
            "gantry_peers_refused_total",
            "Peers that did not prove that they belong to the cluster"
        );
        Gate { token, refused: metrics::counter!("gantry_peers_refused_total"), log: Mutex::default() }
    }

    /// Whether a call with these headers is let in.
    pub(crate) fn admits(&self, headers: &HeaderMap, peer: SocketAddr) -> bool {
        let Some(token) = &self.token else { return true };
        match headers.get(AUTHORIZATION) {
            Some(told) if token.is_told_by(told) => true,
            Some(_) => self.refuse(peer, "a wrong token"),
            None => self.refuse(peer, "no token"),
        }
    }

    /// Counts a refusal, and logs it if none was logged for a while. Returns false.
    pub(crate) fn refuse(&self, peer: SocketAddr, why: &str) -> bool {
        self.refused.increment(1);
        let now = Instant::now();
        let mut log = self.log.lock();
        if log.last.is_some_and(|last| now - last < LOG_INTERVAL) {
            log.unlogged += 1;
        } else {
            let more = std::mem::take(&mut log.unlogged);
            log.last = Some(now);
            drop(log);
            tracing::warn!(%peer, more, "a peer was refused: {why}");
        }
        false
    }
}
