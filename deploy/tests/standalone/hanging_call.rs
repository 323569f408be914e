//! A client that begins a call and never finishes it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Opens a connection with one call whose body never comes. It hangs until the stream is dropped or cut off.
pub(crate) fn begin(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &headers(address))).unwrap();
    // The answer to a ping proves that everything before it has arrived.
    stream.write_all(&frame(PING, 0, 0, b"arrived?")).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(8).any(|window| window == b"arrived?") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    stream
}

// Frame types and flags of HTTP/2 (RFC 9113, section 6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HPACK with indexed names (RFC 7541, appendix A): method POST, scheme http, path, authority, content type.
fn headers(address: &str) -> Vec<u8> {
    let literal =
        |name: u8, value: &str| [&[0x40 | name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    [
        vec![0x83, 0x86],
        literal(4, "/apache.rocketmq.v2.MessagingService/SendMessage"),
        literal(1, address),
        literal(31, "application/grpc"),
    ]
    .concat()
}
