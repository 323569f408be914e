//! The first bytes of a connection: a header of the PROXY protocol (version 1 or 2) that a load balancer put there, and then
//! TLS or plaintext.
//!
//! HTTP/2's preface and the header's first version begin alike, so bytes are read until it is clear which of them it is.
//! What was read beyond the header is read again by whoever comes next.

use super::rewound::Rewound;
use bytes::BytesMut;
use gantry_proto::env::Connection;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt as _;

/// The first byte that a TLS client sends: the type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// A header of version 1 begins so, and has at most so many bytes, its end of line included.
const V1_PREFIX: &[u8] = b"PROXY ";
const V1_BYTES_MAX: usize = 107;
/// One of version 2 begins so; the bytes after say which command it is, and how many bytes follow.
const V2_PREFIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;
/// Load balancers add some properties of the connection to the addresses, certificates at most.
const V2_BYTES_MAX: usize = 4096;

/// Whether a connection begins with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Never: one that does is refused.
    Off,
    /// Those that do are understood. Anybody can write such a header, so it counts for nothing but what it tells: limits
    /// per address count the address that the connection comes from.
    Detect,
    /// Always: all come through a load balancer. Limits per address count the address that it tells.
    Require,
}

/// A connection whose first bytes are understood.
pub(super) struct Opened {
    pub(super) connection: Rewound<Box<dyn Connection>>,
    pub(super) is_tls: bool,
    /// Where it comes from, as a load balancer says.
    pub(super) told: Option<SocketAddr>,
}

/// Reads what comes before TLS or HTTP/2.
pub(super) async fn open(mut connection: Box<dyn Connection>, mode: ProxyProtocol) -> io::Result<Opened> {
    let mut read = BytesMut::with_capacity(512);
    let (header_bytes, told) = loop {
        match look(&read, mode)? {
            Look::More => more(&mut connection, &mut read).await?,
            Look::Header(bytes, told) => break (bytes, told),
        }
    };
    let mut rest = read.split_off(header_bytes);
    if rest.is_empty() {
        more(&mut connection, &mut rest).await?;
    }
    let is_tls = rest[0] == TLS_HANDSHAKE;
    Ok(Opened { connection: Rewound::new(rest.freeze(), connection), is_tls, told })
}

async fn more(connection: &mut Box<dyn Connection>, read: &mut BytesMut) -> io::Result<()> {
    match connection.read_buf(read).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq)]
enum Look {
    /// Not enough bytes to tell.
    More,
    /// A header of so many bytes, 0 if there is none.
    Header(usize, Option<SocketAddr>),
}

fn look(read: &[u8], mode: ProxyProtocol) -> io::Result<Look> {
    let may_be = |prefix: &[u8]| !read.is_empty() && read.iter().zip(prefix).all(|(byte, expected)| byte == expected);
    if mode == ProxyProtocol::Off {
        return Ok(Look::Header(0, None));
    }
    if read.is_empty() {
        return Ok(Look::More);
    }
    let header = if may_be(V1_PREFIX) {
        version_1(read)?
    } else if may_be(V2_PREFIX) {
        version_2(read)?
    } else if mode == ProxyProtocol::Require {
        return Err(invalid("the connection does not begin with a header of the PROXY protocol"));
    } else {
        return Ok(Look::Header(0, None));
    };
    Ok(header.map_or(Look::More, |(bytes, told)| Look::Header(bytes, told)))
}

/// `None`: it is not all there.
fn version_1(read: &[u8]) -> io::Result<Option<(usize, Option<SocketAddr>)>> {
    let Some(end) = read.windows(2).take(V1_BYTES_MAX - 1).position(|bytes| bytes == b"\r\n") else {
        return if read.len() < V1_BYTES_MAX { Ok(None) } else { Err(invalid("a PROXY header without an end")) };
    };
    let bytes = end + 2;
    let header = ppp::v1::Header::try_from(&read[..bytes]).map_err(invalid)?;
    let told = match header.addresses {
        ppp::v1::Addresses::Tcp4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        ppp::v1::Addresses::Tcp6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        ppp::v1::Addresses::Unknown => None,
    };
    Ok(Some((bytes, told)))
}

fn version_2(read: &[u8]) -> io::Result<Option<(usize, Option<SocketAddr>)>> {
    let Some(head) = read.first_chunk::<V2_HEAD_BYTES>() else { return Ok(None) };
    let bytes = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if bytes > V2_BYTES_MAX {
        return Err(invalid("a PROXY header that is too long"));
    }
    let Some(whole) = read.get(..bytes) else { return Ok(None) };
    let header = ppp::v2::Header::try_from(whole).map_err(invalid)?;
    let told = match (header.command, header.addresses) {
        // The load balancer's own connection, to see whether we live.
        (ppp::v2::Command::Local, _) => None,
        (_, ppp::v2::Addresses::IPv4(ip)) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        (_, ppp::v2::Addresses::IPv6(ip)) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        _ => None,
    };
    Ok(Some((bytes, told)))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::ProxyProtocol::{Detect, Off, Require};
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        [V2_PREFIX, &[0x20 | command, family], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    /// 10.1.2.3:4000 to 10.0.0.1:8081, and a property of the connection.
    fn v2_tcp4() -> Vec<u8> {
        v2(1, 0x11, &[10, 1, 2, 3, 10, 0, 0, 1, 0x0f, 0xa0, 0x1f, 0x91, 0x04, 0, 1, b'x'])
    }

    /// What `open` makes of bytes that come one by one, and what can be read afterwards.
    async fn opened(bytes: &[u8], mode: ProxyProtocol) -> io::Result<(bool, Option<SocketAddr>, Vec<u8>)> {
        let (mut client, server) = tokio::io::duplex(1);
        let sent = bytes.to_vec();
        let sending = tokio::spawn(async move {
            let _ = client.write_all(&sent).await;
        });
        let mut opened = open(Box::new(server), mode).await?;
        let mut rest = Vec::new();
        opened.connection.read_to_end(&mut rest).await?;
        sending.await.unwrap();
        Ok((opened.is_tls, opened.told, rest))
    }

    #[tokio::test]
    async fn a_connection_without_a_header_loses_no_byte() {
        for mode in [Off, Detect] {
            assert_eq!(opened(PREFACE, mode).await.unwrap(), (false, None, PREFACE.to_vec()));
            let tls = [0x16, 3, 1, 0];
            assert_eq!(opened(&tls, mode).await.unwrap(), (true, None, tls.to_vec()));
        }
        assert!(opened(PREFACE, Require).await.is_err());
    }

    #[tokio::test]
    async fn both_versions_tell_where_a_client_is() {
        let told: SocketAddr = "10.1.2.3:4000".parse().unwrap();
        let v1 = b"PROXY TCP4 10.1.2.3 10.0.0.1 4000 8081\r\n".to_vec();
        for header in [v1, v2_tcp4()] {
            for mode in [Detect, Require] {
                let bytes = [&header[..], PREFACE].concat();
                assert_eq!(opened(&bytes, mode).await.unwrap(), (false, Some(told), PREFACE.to_vec()));
                let secure = [&header[..], &[0x16, 3]].concat();
                assert_eq!(opened(&secure, mode).await.unwrap(), (true, Some(told), vec![0x16, 3]));
            }
        }
        let v6 = [b"PROXY TCP6 ::1 ::2 4000 8081\r\n", PREFACE].concat();
        assert_eq!(opened(&v6, Detect).await.unwrap().1, Some("[::1]:4000".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_load_balancer_that_looks_whether_we_live_tells_nobody() {
        let unknown = [b"PROXY UNKNOWN\r\n", PREFACE].concat();
        let local = [&v2(0, 0, &[])[..], PREFACE].concat();
        for bytes in [unknown, local] {
            assert_eq!(opened(&bytes, Require).await.unwrap(), (false, None, PREFACE.to_vec()));
        }
    }

    #[tokio::test]
    async fn broken_and_endless_headers_are_refused() {
        let endless = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        let mut long = v2_tcp4();
        long[14] = 0xff;
        let broken = b"PROXY TCP4 10.1.2.300 10.0.0.1 4000 8081\r\n".to_vec();
        for bytes in [endless, long, broken, b"PROXY ".to_vec()] {
            assert!(opened(&[&bytes[..], PREFACE].concat(), Detect).await.is_err(), "{bytes:?}");
        }
        // Where it is off, it is no HTTP/2: the next reader refuses it.
        let v1 = b"PROXY UNKNOWN\r\n";
        assert_eq!(opened(v1, Off).await.unwrap().2, v1);
    }
}
