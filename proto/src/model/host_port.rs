//! The address of a server as people write it.

use std::fmt;
use std::str::FromStr;

/// A host name or IP address with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        let port: u16 = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
        if port == 0 {
            return Err("clients cannot connect to port 0".to_owned());
        }
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(address)) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
            Some(_) => return Err(format!("{host:?} is not an IPv6 address in brackets")),
            None => host,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = !host.is_empty() && host.chars().all(plain);
        if !is_name && !text.starts_with('[') {
            return Err(format!("{host:?} is not a host"));
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_parses_to_the_same() {
        for text in ["a:1", "[::1]:8081", "10.0.0.1:65535"] {
            assert_eq!(text.parse::<HostPort>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn hosts_without_sense_are_refused() {
        for text in ["", "host", "host:", "host:0", "host:65536", ":8081", "a b:1", "[::1:1", "::1:8081", "http://a:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
