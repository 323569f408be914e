//! Who may speak to a peer: whoever knows the cluster's token, or has a certificate of the cluster's authority.
//!
//! The server's side refuses before any handler runs and before it reads a body.

mod gate;
mod tls;
mod token;

pub(crate) use gate::Gate;
pub use tls::{InvalidTls, MutualTls};
pub use token::{InvalidToken, SharedToken};

/// How the peers of a cluster know one another. The same on both ends of a connection.
#[derive(Clone, Debug, Default)]
pub enum PeerCredentials {
    /// They do not: for one machine, or a network that nobody else is on.
    #[default]
    None,
    /// Both know a secret, which the caller tells with every call. It is readable to whoever can read the network.
    Token(SharedToken),
    /// Both prove that the cluster's authority certified them.
    MutualTls(MutualTls),
}
