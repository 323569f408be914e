//! A client that does nothing wrong: it sends one small message after the other and notes how long each took.

use super::raw::{Http2, field, number, resource};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Its address.
const HONEST: &str = "10.0.0.1";
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between messages.
const PAUSE: Duration = Duration::from_millis(2);
/// `Code.OK` in the status of an answer: field 1, 20000.
const OK: &[u8] = &[0x08, 0xa0, 0x9c, 0x01];

/// What it measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// How long the answered sends took.
    pub took: Vec<Duration>,
    /// Sends that were refused or not answered.
    pub failed: usize,
}

/// An honest client at work.
pub(super) struct Honest {
    stop: Arc<AtomicBool>,
    working: JoinHandle<Measured>,
}

impl Measured {
    pub fn quantile(&self, quantile: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let place = ((took.len() as f64 * quantile) as usize).min(took.len().saturating_sub(1));
        took.get(place).copied().unwrap_or(Duration::MAX)
    }
}

impl Honest {
    pub(super) fn start(address: SocketAddr, topic: &str, name: &str) -> Honest {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic, name) = (stop.clone(), topic.to_owned(), name.to_owned());
        let working = std::thread::spawn(move || {
            let mut measured = Measured::default();
            let (mut connection, mut sent) = (None, 0_u64);
            while !stopped.load(Ordering::Relaxed) {
                sent += 1;
                let begun = Instant::now();
                let answer = send(&mut connection, address, &message(&topic, &format!("{name}-{sent}"), 256));
                match answer {
                    Ok(answer) if answer.windows(OK.len()).any(|bytes| bytes == OK) => {
                        measured.took.push(begun.elapsed())
                    }
                    Ok(_) => measured.failed += 1,
                    Err(_) => {
                        measured.failed += 1;
                        connection = None;
                    }
                }
                std::thread::sleep(PAUSE);
            }
            measured
        });
        Honest { stop, working }
    }

    pub(super) fn stop(self) -> Measured {
        self.stop.store(true, Ordering::Relaxed);
        self.working.join().expect("the honest client has no bug")
    }
}

/// A send of one message.
pub(super) fn message(topic: &str, id: &str, bytes: usize) -> Vec<u8> {
    let system = [field(3, id.as_bytes()), number(6, 1), field(8, b"honest")].concat();
    field(1, &[resource(1, topic), field(3, &system), field(4, &vec![b'h'; bytes])].concat())
}

/// One call, on the connection that is there or a new one.
pub(super) fn send(connection: &mut Option<Http2>, address: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Http2::open(address, HONEST, &[])?),
    };
    let stream = open.call("SendMessage", "honest", message)?;
    open.answer(stream, PATIENCE)
}
