//! HTTP/2 and protobuf by hand: what no library lets a client do.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a connection begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest frame that every server takes.
const FRAME_BYTES: usize = 16 << 10;
/// An attacker that cannot write for so long gives up for now.
const WRITE_PATIENCE: Duration = Duration::from_millis(200);

/// And one that is not greeted.
const GREETING_PATIENCE: Duration = Duration::from_secs(2);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection that keeps to the protocol only as far as it wants to.
pub(super) struct Http2 {
    pub(super) stream: TcpStream,
    next: u32,
}

impl Http2 {
    /// `from`: where a load balancer says that we are. `settings`: what our SETTINGS frame says.
    pub(super) fn open(address: SocketAddr, from: &str, settings: &[u8]) -> io::Result<Http2> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        stream.set_read_timeout(Some(GREETING_PATIENCE))?;
        stream.write_all(&[&told_from(from)[..], PREFACE, &frame(SETTINGS, 0, 0, settings)].concat())?;
        // What the server's settings allow holds from our acknowledgement on; its room for all streams comes after them.
        let mut head = [0; 9];
        while head[3] != WINDOW_UPDATE {
            stream.read_exact(&mut head)?;
            let mut told = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            stream.read_exact(&mut told)?;
            if head[3..5] == [SETTINGS, 0] {
                stream.write_all(&frame(SETTINGS, 1, 0, &[]))?;
            }
        }
        Ok(Http2 { stream, next: 1 })
    }

    /// Reads what is there and forgets it.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let mut buffer = [0; 64 << 10];
        let ended = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.stream.set_nonblocking(false)?;
        ended
    }

    /// Opens a stream for a call. Returns its number.
    pub(super) fn begin(&mut self, method: &str, client_id: &str) -> io::Result<u32> {
        let stream = self.next;
        self.next += 2;
        self.stream.write_all(&frame(HEADERS, END_HEADERS, stream, &headers(method, client_id)))?;
        Ok(stream)
    }

    /// Part of a call's body, or the last of it.
    pub(super) fn data(&mut self, stream: u32, bytes: &[u8], last: bool) -> io::Result<()> {
        let parts = bytes.len().div_ceil(FRAME_BYTES).max(1);
        for (n, part) in (1..).zip(bytes.chunks(FRAME_BYTES)) {
            let flags = if last && n == parts { END_STREAM } else { 0 };
            self.stream.write_all(&frame(DATA, flags, stream, part))?;
        }
        Ok(())
    }

    /// A whole call. Its body must fit into the server's first windows.
    pub(super) fn call(&mut self, method: &str, client_id: &str, message: &[u8]) -> io::Result<u32> {
        let stream = self.begin(method, client_id)?;
        self.data(stream, &framed(message), true)?;
        Ok(stream)
    }

    /// The data of the answer of a stream. Everything else that comes meanwhile is skipped.
    pub(super) fn answer(&mut self, stream: u32, patience: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let (mut answer, mut head) = (Vec::new(), [0; 9]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload)?;
            let (kind, flags) = (head[3], head[4]);
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            match kind {
                SETTINGS if flags == 0 => self.stream.write_all(&frame(SETTINGS, 1, 0, &[]))?,
                6 if flags == 0 => self.stream.write_all(&frame(6, 1, 0, &payload))?,
                GO_AWAY => {
                    let why = payload.get(4..8).map_or(0, |code| code[3]);
                    return Err(io::Error::other(format!("the server ends the connection: HTTP/2 error {why}")));
                }
                3 if of == stream => return Err(ErrorKind::ConnectionReset.into()),
                DATA if of == stream => {
                    answer.extend_from_slice(&payload);
                    if length > 0 {
                        self.stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &(length as u32).to_be_bytes()))?;
                    }
                }
                _ => {}
            }
            if of == stream && kind <= HEADERS && flags & END_STREAM != 0 {
                return Ok(answer);
            }
        }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a load balancer writes before the first byte of a client.
pub(super) fn told_from(ip: &str) -> Vec<u8> {
    format!("PROXY TCP4 {ip} 127.0.0.1 4000 8081\r\n").into_bytes()
}

/// A call's headers, none of them compressed.
pub(super) fn headers(method: &str, client_id: &str) -> Vec<u8> {
    let path = format!("/apache.rocketmq.v2.MessagingService/{method}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-mq-client-id", client_id),
    ];
    fields.iter().flat_map(|(name, value)| header(name, value)).collect()
}

/// One of fewer than 127 bytes each.
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// A message with what precedes it in gRPC.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// A field of bytes, text, or a message.
pub(super) fn field(number: u32, content: &[u8]) -> Vec<u8> {
    [varint(u64::from(number << 3 | 2)), varint(content.len() as u64), content.to_vec()].concat()
}

/// A field with a number.
pub(super) fn number(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field << 3)), varint(value)].concat()
}

/// A topic or a consumer group.
pub(super) fn resource(field_number: u32, name: &str) -> Vec<u8> {
    field(field_number, &field(2, name.as_bytes()))
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
