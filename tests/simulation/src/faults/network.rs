//! Links: which are broken, and how.

use super::{Fault, Nemesis, Repair, ms};
use crate::hosts::Tier;
use crate::note;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use turmoil::Sim;

/// How much slower and faster than true time clocks run at most, in millionths: a virtual machine that gets too little time,
/// and others that make up for it.
const RATE_PPM: i64 = 400_000;

/// Two hosts, in the order of their names.
type Pair = (String, String);

/// A set of links that are broken in one way.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    how: How,
    /// From, to.
    links: Vec<Pair>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Cut,
    CutOneWay,
    Held,
    /// Back to this latency.
    Slow(Duration),
    Lossy,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::Cut => "cut:",
            How::CutOneWay => "cut one way:",
            How::Held => "held:",
            How::Slow(_) => "slow:",
            How::Lossy => "lossy:",
        };
        f.write_str(how)?;
        self.links.iter().try_for_each(|(from, to)| write!(f, " {from}>{to}"))
    }
}

/// All links. One link is broken in at most one way at a time.
pub(super) struct Links {
    hosts: Vec<String>,
    broken: BTreeSet<Pair>,
}

fn pair(a: &str, b: &str) -> Pair {
    if a < b { (a.to_owned(), b.to_owned()) } else { (b.to_owned(), a.to_owned()) }
}

impl Links {
    pub(super) fn new(hosts: Vec<String>) -> Links {
        Links { hosts, broken: BTreeSet::new() }
    }

    /// All links.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        let pairs = self.hosts.iter().flat_map(|a| self.hosts.iter().map(move |b| (a, b)));
        pairs.filter(|(a, b)| a < b).map(|(a, b)| pair(a, b)).collect()
    }

    /// The links from one host to all others that are whole.
    pub(super) fn of(&self, host: &str) -> Vec<Pair> {
        let others = self.hosts.iter().filter(|other| *other != host);
        let links = others.map(|other| (host.to_owned(), other.clone()));
        links.filter(|(a, b)| !self.broken.contains(&pair(a, b))).collect()
    }

    fn breaks(&mut self, sim: &Sim<'_>, how: How, links: Vec<Pair>, strength: Duration) -> Option<Broken> {
        let whole = |(a, b): &Pair| !self.broken.contains(&pair(a, b));
        let links: Vec<Pair> = links.into_iter().filter(whole).collect();
        for (from, to) in &links {
            let (from, to) = (from.as_str(), to.as_str());
            match how {
                How::Cut => sim.partition(from, to),
                How::CutOneWay => sim.partition_oneway(from, to),
                How::Held => sim.hold(from, to),
                How::Slow(_) => sim.set_link_max_message_latency(from, to, strength),
                // Handled by the caller: it needs the simulation to itself.
                How::Lossy => {}
            }
            self.broken.insert(pair(from, to));
        }
        (!links.is_empty()).then_some(Broken { how, links })
    }

    pub(super) fn repair(&mut self, sim: &mut Sim<'_>, broken: &Broken) {
        for (from, to) in &broken.links {
            self.broken.remove(&pair(from, to));
            let (from, to) = (from.as_str(), to.as_str());
            match broken.how {
                How::Cut => sim.repair(from, to),
                How::CutOneWay => sim.repair_oneway(from, to),
                How::Held => sim.release(from, to),
                How::Slow(usual) => sim.set_link_max_message_latency(from, to, usual),
                How::Lossy => sim.set_link_fail_rate(from, to, 0.0),
            }
        }
    }
}

impl Nemesis {
    pub(super) fn break_links(&mut self, sim: &mut Sim<'_>, now: Duration, fault: Fault) -> bool {
        let servers: Vec<String> = self.hosts.keys().cloned().collect();
        let mut strength = Duration::ZERO;
        let mut until = now + self.draw.span(ms(300)..ms(9000));
        let (how, links) = match fault {
            Fault::Partition => {
                let (left, right): (Vec<&String>, Vec<&String>) = servers.iter().partition(|_| self.draw.chance(50));
                let across = left.iter().flat_map(|a| right.iter().map(|b| ((*a).clone(), (*b).clone())));
                (How::Cut, across.collect())
            }
            Fault::Isolate => (How::Cut, self.links.of(self.draw.pick::<String>(&servers))),
            Fault::IsolateStore => {
                // Longer than a lease, and shorter.
                until = now + self.draw.span(ms(1000)..ms(8000));
                let contenders = self.contenders();
                let leading = self.leading(&contenders).filter(|_| self.draw.chance(75));
                let store = leading.unwrap_or_else(|| self.draw.pick(&contenders).clone());
                let proxy = self.draw.pick(&self.hosts_of(|tier| tier == Tier::Proxy)).clone();
                let cut_off = if self.draw.chance(60) { vec![store, proxy] } else { vec![store] };
                (How::Cut, cut_off.iter().flat_map(|host| self.links_to_controllers(host)).collect())
            }
            Fault::IsolateProxy => {
                until = now + self.draw.span(ms(1000)..ms(6000));
                let proxy = self.draw.pick(&self.hosts_of(|tier| tier == Tier::Proxy)).clone();
                (How::Cut, self.links_to_controllers(&proxy))
            }
            Fault::StallCutOff => {
                until = now + self.draw.span(ms(2200)..ms(3500));
                let store = self.draw.pick(&self.hosts_of(|tier| tier == Tier::Store)).clone();
                // What it begins to write now takes until after that; what it begins later does not.
                let fast = now + self.draw.span(ms(200)..ms(1000));
                self.stall_disk(now, fast, &store);
                (How::Cut, self.links_to_controllers(&store))
            }
            Fault::CutOneWay => (How::CutOneWay, vec![self.some_link(&servers)]),
            Fault::Hold => {
                until = now + self.draw.span(ms(100)..ms(4000));
                (How::Held, vec![self.some_link(&servers)])
            }
            Fault::Delay => {
                strength = self.draw.span(ms(50)..ms(1500));
                (How::Slow(ms(10)), vec![self.some_link(&servers)])
            }
            _ => (How::Lossy, vec![self.some_link(&servers)]),
        };
        let Some(broken) = self.links.breaks(sim, how, links, strength) else { return false };
        if how == How::Lossy {
            let rate = [0.02, 0.1, 0.4][self.draw.below(3) as usize];
            for (from, to) in &broken.links {
                sim.set_link_fail_rate(from.as_str(), to.as_str(), rate);
            }
        }
        let is_controller =
            |host: &String| self.hosts.get(host).is_some_and(|host| matches!(host.tier, Tier::Controller(_)));
        for (from, _) in broken.links.iter().filter(|(from, to)| is_controller(from) && is_controller(to)) {
            self.concerns(from);
        }
        note!(self.site.recorder.trace, "-", "FAULT links {broken}, for {:?}", until - now);
        self.later(until, Repair::Links(broken));
        true
    }

    /// Cuts the leading member of the controller off from the others. Everybody else reaches all of them.
    pub(super) fn cut_off_the_leader(&mut self, sim: &mut Sim<'_>, now: Duration, fault: Fault) -> bool {
        let Some(leader) = self.leader().filter(|_| !self.leader_is_cut_off()) else { return false };
        let mut others = self.controllers();
        others.retain(|other| *other != leader);
        let links = others.iter().map(|other| (leader.clone(), other.clone())).collect();
        let Some(broken) = self.links.breaks(sim, How::Cut, links, Duration::ZERO) else { return false };
        let until = now + self.draw.span(ms(2500)..ms(5000));
        self.concerns(&leader);
        note!(self.site.recorder.trace, &leader, "FAULT {fault:?}: links {broken}, for {:?}", until - now);
        if fault == Fault::OldLeader {
            self.later(until, Repair::Restart(others));
        } else {
            let mut rates = vec![(leader.clone(), self.rate(&leader))];
            rates.extend(others.iter().map(|other| (other.clone(), self.rate(other))));
            self.set_rate(&leader, -RATE_PPM);
            others.iter().for_each(|other| self.set_rate(other, RATE_PPM));
            self.later(until, Repair::Rates(rates));
        }
        self.later(until, Repair::Links(broken));
        true
    }

    /// Cuts a host off without its noticing, for the instant in which it dies.
    pub(super) fn mute(&mut self, sim: &mut Sim<'_>, host: &str, during: impl FnOnce(&mut Nemesis, &mut Sim<'_>)) {
        let links = self.links.of(host);
        let muted = self.links.breaks(sim, How::Cut, links, Duration::ZERO);
        during(self, sim);
        if let Some(muted) = muted {
            self.links.repair(sim, &muted);
        }
    }

    /// Holds back what a machine says and what is said to it.
    pub(super) fn hold_links(&mut self, sim: &Sim<'_>, until: Duration, host: &str) {
        let links = self.links.of(host);
        if let Some(held) = self.links.breaks(sim, How::Held, links, Duration::ZERO) {
            self.later(until, Repair::Links(held));
        }
    }

    /// The links between a machine and all members of the controller.
    fn links_to_controllers(&self, host: &str) -> Vec<Pair> {
        let controllers = self.hosts_of(|tier| matches!(tier, Tier::Controller(_)));
        controllers.into_iter().map(|to| (host.to_owned(), to)).collect()
    }

    /// A link between two servers, or between a client and a proxy.
    fn some_link(&self, servers: &[String]) -> Pair {
        if self.draw.chance(30) {
            let clients = self.site.clients();
            let proxies = self.site.proxies();
            let link = (self.draw.pick(&clients).clone(), self.draw.pick(&proxies).clone());
            return if self.draw.chance(50) { link } else { (link.1, link.0) };
        }
        let from = self.draw.pick(servers).clone();
        let others: Vec<&String> = servers.iter().filter(|other| **other != from).collect();
        let to = (*self.draw.pick(&others)).clone();
        (from, to)
    }
}
