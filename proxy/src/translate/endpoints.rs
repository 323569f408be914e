//! The endpoints in routes: where clients shall connect to.

use gantry_proto::wire::v2::{Address, AddressScheme, Endpoints};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The address under which clients reach this deployment, where it differs from the one they used.
#[derive(Clone, Debug, PartialEq)]
pub struct AdvertisedEndpoints(Endpoints);

/// Why advertised endpoints were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoints {
    /// No address at all.
    #[error("no address is given; write host:port, several separated by ;")]
    Empty,
    /// Not `host:port`.
    #[error("{0:?} is not host:port")]
    Address(String),
    /// Addresses of different kinds: the protocol has one kind for all of them.
    #[error("all advertised addresses must be of one kind: IPv4, IPv6 or host name")]
    Mixed,
    /// The Java client refuses more than one.
    #[error("only one host name can be advertised")]
    ManyNames,
}

impl AdvertisedEndpoints {
    /// Parses `host:port`, or several separated by `;`. IPv6 addresses are written in brackets.
    pub fn parse(text: &str) -> Result<AdvertisedEndpoints, InvalidEndpoints> {
        let addresses = (text.split(';').map(str::trim).filter(|part| !part.is_empty()))
            .map(parse_address)
            .collect::<Result<Vec<Address>, _>>()?;
        let first = addresses.first().ok_or(InvalidEndpoints::Empty)?;
        let scheme = scheme_of(&first.host);
        if addresses.iter().any(|address| scheme_of(&address.host) != scheme) {
            return Err(InvalidEndpoints::Mixed);
        }
        if scheme == AddressScheme::DomainName && addresses.len() > 1 {
            return Err(InvalidEndpoints::ManyNames);
        }
        Ok(AdvertisedEndpoints(Endpoints { scheme: scheme as i32, addresses }))
    }

    pub(crate) fn to_wire(&self) -> Endpoints {
        self.0.clone()
    }
}

impl fmt::Display for AdvertisedEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.addresses.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            if address.host.contains(':') {
                write!(f, "{separator}[{}]:{}", address.host, address.port)?;
            } else {
                write!(f, "{separator}{}:{}", address.host, address.port)?;
            }
        }
        Ok(())
    }
}

/// Endpoints of one socket address.
pub(crate) fn endpoints_of_address(address: SocketAddr) -> Endpoints {
    let host = address.ip().to_string();
    let scheme = scheme_of(&host) as i32;
    Endpoints { scheme, addresses: vec![Address { host, port: i32::from(address.port()) }] }
}

/// What kind of host it is.
pub(crate) fn scheme_of(host: &str) -> AddressScheme {
    match host.parse() {
        Ok(IpAddr::V4(_)) => AddressScheme::IPv4,
        Ok(IpAddr::V6(_)) => AddressScheme::IPv6,
        Err(_) => AddressScheme::DomainName,
    }
}

fn parse_address(text: &str) -> Result<Address, InvalidEndpoints> {
    let invalid = || InvalidEndpoints::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let port: u16 = port.parse().map_err(|_| invalid())?;
    match bare {
        Some(ip) if scheme_of(ip) == AddressScheme::IPv6 => Ok(Address { host: ip.to_owned(), port: i32::from(port) }),
        None if !host.is_empty() && !host.contains([':', '/', ' ']) => {
            Ok(Address { host: host.to_owned(), port: i32::from(port) })
        }
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_kind_are_taken() {
        for (text, scheme) in [
            ("mq.example.org:8081", AddressScheme::DomainName),
            ("10.0.0.1:80;10.0.0.2:80", AddressScheme::IPv4),
            ("[::1]:8081", AddressScheme::IPv6),
        ] {
            let endpoints = AdvertisedEndpoints::parse(text).unwrap();
            assert_eq!(endpoints.0.scheme, scheme as i32, "{text}");
            assert_eq!(endpoints.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, error) in [
            (" ; ", InvalidEndpoints::Empty),
            ("host", InvalidEndpoints::Address("host".to_owned())),
            ("host:99999", InvalidEndpoints::Address("host:99999".to_owned())),
            ("::1:80", InvalidEndpoints::Address("::1:80".to_owned())),
            ("http://h:1", InvalidEndpoints::Address("http://h:1".to_owned())),
            ("a:1;10.0.0.1:1", InvalidEndpoints::Mixed),
            ("a:1;b:1", InvalidEndpoints::ManyNames),
        ] {
            assert_eq!(AdvertisedEndpoints::parse(text), Err(error), "{text}");
        }
    }
}
