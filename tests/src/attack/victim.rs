//! What the attacked process looks like from outside.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The attacked process.
pub(super) struct Victim {
    pub(super) pid: u32,
    pub(super) ops: SocketAddr,
}

/// How much it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Bytes resident in memory.
    pub resident: u64,
    /// Bytes that it counts as held by clients.
    pub held: u64,
    pub connections: u64,
    pub files: u64,
}

impl Victim {
    pub(super) fn state(&self) -> Option<State> {
        let metrics = self.metrics()?;
        let metric = |name: &str| {
            let line = metrics.lines().find(|line| line.split([' ', '{']).next() == Some(name))?;
            line.rsplit(' ').next()?.parse::<f64>().ok().map(|value| value as u64)
        };
        Some(State {
            resident: self.status("VmRSS:")?,
            held: metric("gantry_proxy_memory_bytes").unwrap_or_default(),
            connections: metric("gantry_proxy_connections").unwrap_or_default(),
            files: std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?.count() as u64,
        })
    }

    /// From now on, the peak is counted anew. False: the system does not let us.
    pub(super) fn forget_peak(&self) -> bool {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").is_ok()
    }

    /// The most that was resident in memory.
    pub(super) fn peak(&self) -> Option<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    fn metrics(&self) -> Option<String> {
        let mut stream = TcpStream::connect(self.ops).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}
