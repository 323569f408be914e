//! Small things as the protocol writes them.

use gantry_proto::wire::v2;
use std::net::IpAddr;
use std::time::Duration;

pub fn resource(namespace: &str, name: &str) -> v2::Resource {
    v2::Resource { resource_namespace: namespace.to_owned(), name: name.to_owned() }
}

/// A filter by tags: `*`, or tags with `||` between them.
pub fn tags(expression: &str) -> v2::FilterExpression {
    v2::FilterExpression { r#type: v2::FilterType::Tag.into(), expression: expression.to_owned() }
}

pub fn to_wire(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    // Less than 10^9, which fits.
    prost_types::Duration { seconds, nanos: span.subsec_nanos() as i32 }
}

/// The address that a client was given, as it tells servers. `host`: without brackets.
pub fn endpoints(host: &str, port: u16) -> v2::Endpoints {
    let scheme = match host.parse() {
        Ok(IpAddr::V4(_)) => v2::AddressScheme::IPv4,
        Ok(IpAddr::V6(_)) => v2::AddressScheme::IPv6,
        Err(_) => v2::AddressScheme::DomainName,
    };
    let address = v2::Address { host: host.to_owned(), port: i32::from(port) };
    v2::Endpoints { scheme: scheme.into(), addresses: vec![address] }
}
