//! Who may call a peer: processes that know the cluster's token, or have a certificate of the cluster's authority.
//!
//! Others are refused before any handler runs and before a body is read.

mod gate;
mod tls;
mod token;

pub(crate) use gate::Gate;
pub use tls::{InvalidTls, MutualTls};
pub use token::{InvalidToken, SharedToken};

/// How the peers of a cluster recognise one another. The same at both ends of a connection.
#[derive(Clone, Debug, Default)]
pub enum PeerCredentials {
    /// Not at all: for one machine, or a network without anybody else.
    #[default]
    None,
    /// By a secret, which the caller sends with every call. Whoever can read the network can read it.
    Token(SharedToken),
    /// By certificates of the cluster's authority, at both ends.
    MutualTls(MutualTls),
}
