//! What the operating system would answer: the time and randomness of the simulated machine room.
//!
//! The program `gantry-sim` defines the libc symbols that ask for them and answers from here, so that nothing in the
//! process (hash seeds of std, ids of crates that draw their own randomness, `Instant` and `SystemTime` of std) sees the
//! real machine. Global because those symbols are: one process runs one simulation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What the wall clocks show when a simulation begins: an ordinary day in 2026.
pub const EPOCH_MILLIS: u64 = 1_780_000_000_000;
/// What the monotonic clock shows when a simulation begins. Code that subtracts spans from it must not reach zero.
const UPTIME: Duration = Duration::from_secs(1_000_000);

static CLOSED: AtomicBool = AtomicBool::new(false);
static ELAPSED_NANOS: AtomicU64 = AtomicU64::new(0);
static ENTROPY: AtomicU64 = AtomicU64::new(0);
static TIME_READS: AtomicU64 = AtomicU64::new(0);
static ENTROPY_READS: AtomicU64 = AtomicU64::new(0);

/// From now on the process lives in the simulation of this seed.
pub fn close(seed: u64) {
    ENTROPY.store(seed ^ 0x6f75_7473_6964_6521, Ordering::SeqCst);
    CLOSED.store(true, Ordering::SeqCst);
}

/// Whether the process lives in a simulation.
pub fn is_closed() -> bool {
    CLOSED.load(Ordering::SeqCst)
}

/// Moves the time that the operating system shows.
pub fn advance_to(elapsed: Duration) {
    ELAPSED_NANOS.store(nanos(elapsed), Ordering::SeqCst);
}

/// The wall clock that the operating system shows, since the Unix epoch.
pub fn wall_clock() -> Duration {
    TIME_READS.fetch_add(1, Ordering::SeqCst);
    Duration::from_millis(EPOCH_MILLIS) + Duration::from_nanos(ELAPSED_NANOS.load(Ordering::SeqCst))
}

/// The monotonic clock that the operating system shows.
pub fn uptime() -> Duration {
    TIME_READS.fetch_add(1, Ordering::SeqCst);
    UPTIME + Duration::from_nanos(ELAPSED_NANOS.load(Ordering::SeqCst))
}

/// Randomness that the operating system gives.
pub fn fill(buffer: &mut [u8]) {
    ENTROPY_READS.fetch_add(1, Ordering::SeqCst);
    for chunk in buffer.chunks_mut(8) {
        let state = ENTROPY.fetch_add(crate::draw::GOLDEN, Ordering::SeqCst).wrapping_add(crate::draw::GOLDEN);
        chunk.copy_from_slice(&crate::draw::mix(state).to_le_bytes()[..chunk.len()]);
    }
}

/// How often the system's clocks and the system's randomness were asked.
pub fn reads() -> (u64, u64) {
    (TIME_READS.load(Ordering::SeqCst), ENTROPY_READS.load(Ordering::SeqCst))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
