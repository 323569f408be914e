//! One budget of memory for everything that clients make this process hold: connections, open calls, requests that arrive,
//! what they become when they are decoded, deliveries on their way out.
//!
//! Taken as soon as a size is known: a request's bytes are taken when its length is read, before the first of them is kept.
//! Must always hold: what is taken is given back exactly once, whatever becomes of the call ([`Held`] gives it back when it
//! is dropped); one peer never has more than its share, so that it cannot use up what the others need.
//!
//! Small things ([`SMALL_BYTES`]) may go an eighth beyond the bounds: large requests that hang must not keep ordinary ones out.

use crate::translate::Refusal;
use gantry_proto::wire::v2::Code;
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// What an open call takes besides its message: its task, its headers, its stream in HTTP/2.
pub(crate) const CALL_BYTES: usize = 8 << 10;
/// What an open connection takes.
pub(crate) const CONNECTION_BYTES: usize = 24 << 10;
/// What counts as small.
const SMALL_BYTES: usize = 64 << 10;

/// The budget. One per proxy.
pub(crate) struct MemoryBudget {
    used: AtomicUsize,
    bytes_max: usize,
    peer_bytes_max: usize,
    refused: Counter,
    gauge: Gauge,
}

/// What one peer has: a machine, as far as its address tells.
#[derive(Default)]
pub(crate) struct Peer {
    bytes: AtomicUsize,
    pub(crate) connections: AtomicUsize,
}

/// The peers that have connections.
#[derive(Default)]
pub(crate) struct Peers {
    by_ip: Mutex<HashMap<IpAddr, Weak<Peer>>>,
}

/// Bytes of the budget, taken until this is dropped.
pub(crate) struct Held {
    budget: Arc<MemoryBudget>,
    peer: Arc<Peer>,
    bytes: usize,
}

/// That many bytes are not left.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("clients hold {used} bytes of the server's memory, at most {max} may be held{whose}; try again later")]
pub(crate) struct Exhausted {
    used: usize,
    max: usize,
    whose: &'static str,
}

impl MemoryBudget {
    /// `peer_percent`: the share of the budget that one peer may have.
    pub(crate) fn new(bytes_max: usize, peer_percent: u8) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            used: AtomicUsize::new(0),
            bytes_max,
            peer_bytes_max: (bytes_max as u128 * u128::from(peer_percent.clamp(1, 100)) / 100) as usize,
            refused: metrics::counter!("gantry_proxy_memory_refused_total"),
            gauge: metrics::gauge!("gantry_proxy_memory_bytes"),
        })
    }

    /// Takes bytes for a peer. What is larger than a peer's share is never had: one that hangs would keep all others out.
    pub(crate) fn take(self: &Arc<MemoryBudget>, peer: &Arc<Peer>, bytes: usize) -> Result<Held, Exhausted> {
        let mut held = Held { budget: self.clone(), peer: peer.clone(), bytes: 0 };
        held.grow(bytes)?;
        Ok(held)
    }

    /// Tells the metric how much is held.
    pub(crate) fn report(&self) {
        self.gauge.set(self.used.load(Ordering::Relaxed) as f64);
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Takes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let budget = &self.budget;
        let own = Exhausted { used: 0, max: budget.peer_bytes_max, whose: " by one address" };
        let of_all = Exhausted { used: 0, max: budget.bytes_max, whose: "" };
        take(&self.peer.bytes, bytes, own).inspect_err(|_| budget.refused.increment(1))?;
        if let Err(error) = take(&budget.used, bytes, of_all) {
            self.peer.bytes.fetch_sub(bytes, Ordering::Relaxed);
            budget.refused.increment(1);
            return Err(error);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Nothing yet, for the same peer.
    pub(crate) fn beside(&self) -> Held {
        Held { budget: self.budget.clone(), peer: self.peer.clone(), bytes: 0 }
    }

    /// So many bytes, for the same peer.
    pub(crate) fn beside_with(&self, bytes: usize) -> Result<Held, Exhausted> {
        let mut held = self.beside();
        held.grow(bytes)?;
        Ok(held)
    }

    /// Gives back all but so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        self.bytes -= over;
        self.peer.bytes.fetch_sub(over, Ordering::Relaxed);
        self.budget.used.fetch_sub(over, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

fn take(counter: &AtomicUsize, bytes: usize, bound: Exhausted) -> Result<(), Exhausted> {
    let max = if bytes <= SMALL_BYTES { bound.max.saturating_add(bound.max / 8) } else { bound.max };
    let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= max);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
        .map(drop)
        .map_err(|used| Exhausted { used, ..bound })
}

impl Peers {
    /// The peer with that address; the same one as long as somebody has it.
    pub(crate) fn of(&self, address: IpAddr) -> Arc<Peer> {
        let mut peers = self.by_ip.lock();
        let key = machine(address);
        if let Some(known) = peers.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        // Before the table grows, those that left make room.
        if peers.len() == peers.capacity() {
            peers.retain(|_, peer| peer.strong_count() > 0);
        }
        let peer = Arc::new(Peer::default());
        peers.insert(key, Arc::downgrade(&peer));
        peer
    }
}

/// An IPv6 machine has a whole network of 2^64 addresses to itself.
fn machine(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

impl From<Exhausted> for Refusal {
    fn from(error: Exhausted) -> Refusal {
        Refusal::new(Code::TooManyRequests, error.to_string())
    }
}

impl From<Exhausted> for tonic::Status {
    fn from(error: Exhausted) -> tonic::Status {
        tonic::Status::resource_exhausted(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let (budget, peer) = (MemoryBudget::new(8 * MIB, 100), Arc::new(Peer::default()));
        let first = budget.take(&peer, 6 * MIB).unwrap();
        let error = budget.take(&peer, 3 * MIB).map(drop).unwrap_err();
        assert_eq!((error.used, error.max), (6 * MIB, 8 * MIB));
        let mut second = budget.take(&peer, MIB).unwrap();
        second.grow(MIB).unwrap();
        assert!(second.grow(2 * MIB).is_err(), "what was refused is not held");
        drop(first);
        assert_eq!(budget.used(), 2 * MIB);
        second.shrink_to(1);
        assert_eq!((budget.used(), peer.bytes.load(Ordering::Relaxed)), (1, 1));
        drop(second);
        assert_eq!((budget.used(), peer.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn one_peer_leaves_room_for_the_others() {
        let (budget, peers) = (MemoryBudget::new(8 * MIB, 50), Peers::default());
        let greedy = peers.of("10.0.0.1".parse().unwrap());
        let _taken = budget.take(&greedy, 4 * MIB).unwrap();
        let refused = budget.take(&greedy, MIB).map(drop).unwrap_err();
        assert!(refused.to_string().contains("by one address"), "{refused}");
        assert_eq!(budget.used(), 4 * MIB, "what was refused is not held");
        let other = peers.of("10.0.0.2".parse().unwrap());
        assert!(budget.take(&other, 4 * MIB).is_ok());
    }

    #[test]
    fn small_things_pass_when_large_ones_hang() {
        let (budget, peer) = (MemoryBudget::new(8 * MIB, 100), Arc::new(Peer::default()));
        let _hanging = budget.take(&peer, 8 * MIB).unwrap();
        let small: Vec<_> = std::iter::from_fn(|| budget.take(&peer, SMALL_BYTES).ok()).collect();
        assert_eq!(small.len() * SMALL_BYTES, MIB, "an eighth more, and no more");
        assert!(budget.take(&peer, SMALL_BYTES + 1).is_err());
    }

    #[test]
    fn what_is_larger_than_a_share_is_never_had() {
        let (budget, peer) = (MemoryBudget::new(8 * MIB, 50), Arc::new(Peer::default()));
        assert!(budget.take(&peer, 100 * MIB).is_err());
        assert!(budget.take(&peer, 4 * MIB + 1).is_err());
        assert!(budget.take(&peer, 4 * MIB).is_ok());
    }

    #[test]
    fn a_peer_is_a_machine_and_is_forgotten() {
        let peers = Peers::default();
        let one = peers.of("2001:db8::1".parse().unwrap());
        assert!(Arc::ptr_eq(&one, &peers.of("2001:db8::ffff".parse().unwrap())));
        assert!(!Arc::ptr_eq(&one, &peers.of("2001:db8:0:1::1".parse().unwrap())));
        let mapped = peers.of("::ffff:10.0.0.1".parse().unwrap());
        assert!(Arc::ptr_eq(&mapped, &peers.of("10.0.0.1".parse().unwrap())));
        for n in 0..10_000_u32 {
            peers.of(IpAddr::V4(n.into()));
        }
        assert!(peers.by_ip.lock().len() < 100, "those without connections make room");
    }
}
