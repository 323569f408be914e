//! Ports that cannot be had: found before anything slow begins, and explained.

use crate::env::too_many_files;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

/// Why nobody can connect to an address, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct PortError {
    address: SocketAddr,
    reason: String,
}

/// Makes sure that `address`, given by `flag`, can be listened on a moment later.
pub fn probe(address: SocketAddr, flag: &str) -> Result<(), PortError> {
    TcpListener::bind(address).map(drop).map_err(|error| explain(address, flag, &error))
}

/// Says what a failed bind means to whoever chose the address.
pub fn explain(address: SocketAddr, flag: &str, error: &io::Error) -> PortError {
    let reason = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("the address is in use; stop the other server or choose another with {flag}")
        }
        ErrorKind::PermissionDenied => {
            format!("permission denied; ports below 1024 need a privilege, choose a higher one with {flag}")
        }
        ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; choose one of its own with {flag}, or 0.0.0.0 for all of them")
        }
        _ => match too_many_files(error) {
            Some(advice) => format!("{error}; {advice}"),
            None => format!("{error}; choose another with {flag}"),
        },
    };
    PortError { address, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_still_free_after_the_probe() {
        let address = "127.0.0.1:0".parse().unwrap();
        assert!(probe(address, "--listen").is_ok());
    }

    #[test]
    fn a_taken_port_and_a_foreign_address_are_explained() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let advice = "the address is in use; stop the other server or choose another with --listen";
        let error = probe(address, "--listen").unwrap_err().to_string();
        assert_eq!(error, format!("cannot listen on {address}: {advice}"));

        let foreign = probe("203.0.113.1:9".parse().unwrap(), "--listen").unwrap_err();
        assert!(foreign.to_string().contains("this machine has no such address"), "{foreign}");
    }
}
