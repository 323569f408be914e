//! Ports that a server of a test keeps, also while it is killed and started again.
//!
//! A port that the system gives out (bind to 0, look, close) is anybody's again at once: another server of the test, or a connection
//! that leaves this machine's loopback, may be given it before ours takes it. So these come from below what the system gives out,
//! and a locked file per port keeps other tests, in this process or another, away for as long as the test runs.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;

/// A port of the loopback network that is this test's until it is dropped.
pub(crate) struct Port {
    number: u16,
    _locked: File,
}

impl Port {
    /// Reserves one that nobody listens on.
    pub(crate) fn reserve() -> Port {
        // Processes begin at different places, so that they seldom meet.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let count = first_given_out() - FIRST;
        let start = (std::process::id() as u16).wrapping_mul(61);
        let folder = std::env::temp_dir().join("gantry-test-ports");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        for _ in 0..count {
            let number = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
            let file = File::options().create(true).append(true).open(folder.join(number.to_string()));
            let locked = file.expect("a file can be made");
            if locked.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _locked: locked };
            }
        }
        panic!("no port from {FIRST} to {} is free", FIRST + count);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// The first port that the system gives out by itself.
fn first_given_out() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    assert!(first > FIRST + 1000, "the system gives out ports from {first} on: none are left for servers that restart");
    first
}
