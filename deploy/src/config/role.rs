//! What a process is to be, and what it must be told for that. One file can serve all processes of a cluster: what a role
//! does not use it does not look at.

use super::declaration::Config;
use super::resolver::Resolver;

/// The part that a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All tiers in one process.
    Standalone,
    /// What clients talk to.
    Proxy,
    /// Where messages are.
    Store,
    /// Where metadata are.
    Controller,
}

impl Role {
    /// Reports what is missing for this role, and what does not go together in it.
    pub(super) fn check(self, config: &Config, resolver: &mut Resolver) {
        let (cluster, controller) = (&config.cluster, &config.controller);
        if self == Role::Standalone {
            return;
        }
        let Some(members) = &cluster.controllers else {
            let message = "cluster.controllers is missing: every process of a cluster must know the controller's members, \
                           as in --controllers 1=gantry-1:8083,2=gantry-2:8083,3=gantry-3:8083";
            return resolver.contradiction(&["cluster.controllers"], message);
        };
        let tls = [&cluster.tls_ca, &cluster.tls_certificate, &cluster.tls_key].map(Option::is_some);
        if tls.contains(&true) && tls.contains(&false) {
            resolver.contradiction(
                &["cluster.tls_ca", "cluster.tls_certificate", "cluster.tls_key"],
                "cluster.tls_ca, cluster.tls_certificate and cluster.tls_key go together",
            );
        }
        if cluster.token_file.is_none() && !tls.contains(&true) {
            resolver.contradiction(
                &["cluster.token_file", "cluster.tls_ca"],
                "the processes of a cluster must know each other: set cluster.token_file, or cluster.tls_ca with its \
                 certificate and key",
            );
        }
        if self == Role::Store {
            let listen = config.store.listen;
            if config.store.advertised.is_none() && (listen.ip().is_unspecified() || listen.port() == 0) {
                resolver.contradiction(
                    &["store.advertised", "store.listen"],
                    format!("nobody can connect to {listen}: set store.advertised to the host and port of this store"),
                );
            }
        }
        if self == Role::Controller {
            if !controller.join && members.address_of(controller.id).is_none() {
                resolver.contradiction(
                    &["cluster.controllers", "controller.id"],
                    format!("controller.id is {}, and cluster.controllers has no member of that number", controller.id),
                );
            }
            if controller.election_timeout < 3 * controller.heartbeat_interval {
                resolver.contradiction(
                    &["controller.heartbeat_interval", "controller.election_timeout"],
                    "controller.election_timeout must be at least three times controller.heartbeat_interval: one lost sign \
                     of life is no reason for an election",
                );
            }
        }
    }
}
