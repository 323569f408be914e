//! Who asks: built from a call's headers and its connection, before anything else looks at the call.
//!
//! Nothing that a client sends can set the addresses, and no header that the reference server adds itself is read.

use crate::stores::Deadline;
use crate::translate::Refusal;
use gantry_proto::wire::v2;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    /// The client's end, as text because each message that lacks a born host gets it.
    pub(crate) remote: String,
    /// Our end: the address that is listened on. May stand for all of the machine's addresses.
    pub(crate) local: SocketAddr,
    /// Our end as text, told as the store host of deliveries.
    pub(crate) local_text: String,
}

/// One call's origin. Borrows from its headers: a call costs no copies of them.
#[derive(Clone, Copy)]
pub(crate) struct RequestContext<'a> {
    /// Never blank.
    pub(crate) client_id: &'a str,
    /// The connection that carried the call.
    pub(crate) connection: &'a ConnectionInfo,
    metadata: &'a MetadataMap,
    arrived: Instant,
}

impl ConnectionInfo {
    pub(crate) fn new(remote: SocketAddr, local: SocketAddr) -> ConnectionInfo {
        // A dual-stack socket shows IPv4 peers in IPv6 clothes.
        let unmapped = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let local = unmapped(local);
        ConnectionInfo { remote: unmapped(remote).to_string(), local, local_text: local.to_string() }
    }
}

impl<'a> RequestContext<'a> {
    /// Of a call that came in at `arrived`. Refuses calls without a client id.
    pub(crate) fn new(
        metadata: &'a MetadataMap,
        connection: &'a ConnectionInfo,
        arrived: Instant,
    ) -> Result<Self, Refusal> {
        let client_id = text(metadata, "x-mq-client-id").trim();
        if client_id.is_empty() {
            return Err(Refusal::new(v2::Code::ClientIdRequired, "the header x-mq-client-id is missing or blank"));
        }
        Ok(RequestContext { client_id, connection, metadata, arrived })
    }

    /// The client's language as the metrics' label knows it; `OTHER` for what nobody has heard of.
    pub(crate) fn language(&self) -> &'static str {
        const KNOWN: [&str; 14] = [
            "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST",
            "NODE_JS",
        ];
        let told = text(self.metadata, "x-mq-language");
        KNOWN.into_iter().find(|known| *known == told).unwrap_or("OTHER")
    }

    /// The client's version, cut to a length that a label can bear.
    pub(crate) fn version(&self) -> &'a str {
        let version = text(self.metadata, "x-mq-client-version");
        version.get(..version.len().min(32)).unwrap_or_default()
    }

    /// How long the client wants to wait for the answer, counted from the arrival of the call. `None`: for ever.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        parse_grpc_timeout(text(self.metadata, "grpc-timeout"))
    }

    /// When the client must be answered.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::of_call(self.arrived, self.timeout())
    }
}

fn text<'a>(metadata: &'a MetadataMap, header: &'static str) -> &'a str {
    metadata.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// At most 8 digits and a unit. 60 years in minutes is an ordinary value.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> ConnectionInfo {
        ConnectionInfo::new("[::ffff:10.1.2.3]:4000".parse().unwrap(), "[::1]:8081".parse().unwrap())
    }

    fn metadata(headers: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, value) in headers {
            map.insert(*key, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn timeouts_of_every_unit_are_understood_and_none_overflows() {
        let day = 24 * 3600;
        for (text, expected) in [
            ("31535999M", Some(Duration::from_secs(31_535_999 * 60))),
            ("31536000S", Some(Duration::from_secs(365 * day))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("8760H", Some(Duration::from_secs(365 * day))),
            ("3000m", Some(Duration::from_secs(3))),
            ("250u", Some(Duration::from_micros(250))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("12", None),
            ("1é", None),
        ] {
            assert_eq!(parse_grpc_timeout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_blank_client_id_is_refused() {
        for headers in [&[][..], &[("x-mq-client-id", "  ")]] {
            let metadata = metadata(headers);
            let refusal = RequestContext::new(&metadata, &connection(), Instant::now()).map(|_| ()).unwrap_err();
            assert_eq!(refusal.code, v2::Code::ClientIdRequired);
        }
    }

    #[test]
    fn unknown_languages_are_other() {
        let connection = connection();
        for (told, expected) in [("JAVA", "JAVA"), ("HTTP", "HTTP"), ("ZIG", "OTHER"), ("", "OTHER")] {
            let metadata = metadata(&[("x-mq-client-id", "c"), ("x-mq-language", told)]);
            assert_eq!(RequestContext::new(&metadata, &connection, Instant::now()).unwrap().language(), expected);
        }
    }

    #[test]
    fn addresses_come_from_the_socket_and_never_from_headers() {
        let metadata = metadata(&[("x-mq-client-id", "c"), ("rpc-remote-address", "1.1.1.1:1")]);
        let connection = connection();
        let context = RequestContext::new(&metadata, &connection, Instant::now()).unwrap();
        assert_eq!(context.connection.remote, "10.1.2.3:4000");
        assert_eq!(context.connection.local_text, "[::1]:8081");
    }
}
