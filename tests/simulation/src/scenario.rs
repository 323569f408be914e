//! What can go wrong in a run, and how often.

use crate::draw::Draw;
use crate::faults::Fault;
use crate::site::{Habits, LEASE, Retention, Shape};
use gantry_proto::contract::StoreLease;
use std::time::Duration;

/// What leases the only replica of a store group gets in the runs of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases {
    /// Of either kind, as the seed says.
    Either,
    /// Timed ones.
    Timed,
    /// Until superseded.
    Endless,
}

/// A kind of run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, as it is given by flag.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Who takes part.
    pub shape: Shape,
    /// Faults with their weights.
    pub faults: Vec<(Fault, u64)>,
    /// Whether all of them happen in each run, as often as that says.
    pub every_kind: bool,
    /// How much time there is between two faults, on average.
    pub pause: Duration,
    /// What leases stores get.
    pub leases: Leases,
    /// What clients do differently from what is drawn for the seed.
    pub habits: fn(&mut Habits),
    /// Whether everything is of the version before when the run begins.
    pub older: bool,
    /// Operators in a hurry: they change the metadata and look at the cluster all the time.
    pub hurried: usize,
    /// Whether the operator drains store groups and puts them into use again.
    pub reshape: bool,
    /// Whether there is a copy of the first store's disk on another machine, and a store on it.
    pub twin: bool,
    /// In how many of a hundred runs stores remove what is old.
    pub retention: u64,
    /// How wrong the rates of processes' own clocks may be, in millionths.
    pub drift_ppm: u64,
}

impl Scenario {
    /// The scenario as a seed has it: of many kinds of faults only some happen, some of them much more often than others,
    /// and there is more or less time between them. So runs differ in kind, and what only happens while nothing else does is
    /// seen, too.
    pub fn drawn(&self, seed: u64) -> Scenario {
        let mut drawn = self.clone();
        if self.every_kind || self.faults.is_empty() {
            return drawn;
        }
        let draw = Draw::new(seed, "swarm");
        drawn.faults.retain_mut(|(_, weight)| {
            *weight *= 1 << draw.below(3);
            draw.chance(60)
        });
        if drawn.faults.is_empty() {
            drawn.faults.push(*draw.pick(&self.faults));
        }
        drawn.pause = self.pause * (50 + draw.below(100) as u32) / 100;
        drawn.drift_ppm = *draw.pick(&[0, self.drift_ppm / 50, self.drift_ppm]);
        drawn
    }

    /// What clients do in the run of a seed.
    pub fn habits(&self, seed: u64) -> Habits {
        let mut habits = Habits::drawn(seed);
        (self.habits)(&mut habits);
        habits
    }

    /// The kind of lease that a store gets in the run of a seed.
    pub fn lease(&self, seed: u64) -> StoreLease {
        let timed = match self.leases {
            Leases::Either => Draw::new(seed, "lease").chance(50),
            Leases::Timed => true,
            Leases::Endless => false,
        };
        if timed { StoreLease::For(LEASE) } else { StoreLease::UntilSuperseded }
    }

    /// What stores may remove in the run of a seed.
    pub fn retention(&self, seed: u64) -> Option<Retention> {
        let draw = Draw::new(seed, "retention");
        let some = [
            Retention::Bytes(512 << 10),
            Retention::Bytes(1 << 20),
            Retention::Age(Duration::from_secs(8)),
            Retention::Age(Duration::from_secs(15)),
        ];
        draw.chance(self.retention).then(|| *draw.pick(&some))
    }

    /// The scenario without some kinds of faults.
    pub fn without(mut self, kinds: &[Fault]) -> Scenario {
        self.faults.retain(|(fault, _)| !kinds.contains(fault));
        self
    }
}

/// Two clocks run apart by at most a tenth: less than the margins of the leases allow for (a sixth of a lease on either
/// side), and so much that leases without margins overlap.
const DRIFT_PPM: u64 = 50_000;
/// As much as the margins are for, nearly.
const DRIFT_PPM_MAX: u64 = 100_000;

/// A small cluster, so that much happens in little time.
const SMALL: Shape = Shape { controllers: 3, spares: 0, stores: 2, proxies: 2, producers: 3, consumers: 2 };

/// What there is to choose from.
pub fn all() -> Vec<Scenario> {
    let processes = vec![
        (Fault::Kill, 6),
        (Fault::Terminate, 5),
        (Fault::LosePower, 6),
        (Fault::CutPower, 8),
        (Fault::LosePowerTogether, 2),
        (Fault::LosePowerEverywhere, 1),
    ];
    let network = vec![
        (Fault::Partition, 4),
        (Fault::Isolate, 4),
        (Fault::IsolateProxy, 2),
        (Fault::CutOneWay, 5),
        (Fault::Hold, 6),
        (Fault::Delay, 4),
        (Fault::Lose, 4),
        (Fault::Vanish, 4),
    ];
    let disk = vec![
        (Fault::FailSync, 5),
        (Fault::FailWrite, 4),
        (Fault::FailRead, 3),
        (Fault::SlowDisk, 4),
        (Fault::FullDisk, 4),
        (Fault::CutPower, 3),
    ];
    let clocks = vec![(Fault::JumpClock, 6), (Fault::SkewClock, 4), (Fault::Kill, 2)];
    let pauses = vec![(Fault::Pause, 8), (Fault::Kill, 1)];
    let everything = [&processes[..], &pauses[..], &network[..], &disk[..], &clocks[..]].concat();
    let pause = Duration::from_millis(1500);
    let base = Scenario {
        name: "",
        about: "",
        shape: SMALL,
        faults: vec![],
        every_kind: false,
        pause,
        leases: Leases::Either,
        habits: |_| {},
        older: false,
        hurried: 0,
        reshape: false,
        twin: false,
        retention: 0,
        drift_ppm: 0,
    };
    vec![
        Scenario { name: "steady", about: "no faults", ..base.clone() },
        Scenario {
            name: "reshape",
            about: "store groups are drained and used again, and proxies hear of it late",
            every_kind: true,
            faults: vec![(Fault::IsolateProxy, 1)],
            reshape: true,
            ..base.clone()
        },
        Scenario {
            name: "crashes",
            about: "processes die, machines lose power",
            faults: processes.clone(),
            ..base.clone()
        },
        Scenario {
            name: "pauses",
            about: "processes and machines stall and go on",
            every_kind: true,
            faults: pauses.clone(),
            ..base.clone()
        },
        Scenario { name: "network", about: "links break in every way", faults: network.clone(), ..base.clone() },
        Scenario {
            name: "members",
            about: "members of the controller are removed and added, while machines and links fail",
            shape: Shape { spares: 1, ..SMALL },
            faults: [&processes[..], &pauses[..], &network[..]].concat(),
            ..base.clone()
        },
        Scenario { name: "disk", about: "disks fail, fill up, and are slow", faults: disk, ..base.clone() },
        Scenario {
            name: "clocks",
            about: "wall clocks are wrong and jump, and processes' own clocks run at rates of their own",
            every_kind: true,
            faults: clocks,
            drift_ppm: DRIFT_PPM,
            ..base.clone()
        },
        Scenario {
            name: "retention",
            about: "logs are bounded, and what is removed was perhaps not consumed; clocks jump, processes die and stall",
            faults: vec![
                (Fault::Kill, 3),
                (Fault::Terminate, 2),
                (Fault::LosePower, 2),
                (Fault::CutPower, 4),
                (Fault::Pause, 3),
                (Fault::JumpClock, 4),
            ],
            retention: 100,
            ..base.clone()
        },
        Scenario {
            name: "damage",
            about: "bits change on disks, in messages and in what is derived from the log, and processes die",
            faults: vec![
                (Fault::FlipMessage, 8),
                (Fault::FlipIndex, 3),
                (Fault::FlipCheckpoint, 1),
                (Fault::Kill, 3),
                (Fault::Terminate, 1),
                (Fault::LosePower, 2),
            ],
            pause: Duration::from_millis(900),
            ..base.clone()
        },
        Scenario {
            name: "lost-disk",
            about: "a store's folder is lost: its group is removed, and it begins anew with an empty one",
            every_kind: true,
            faults: vec![(Fault::LoseDisk, 2), (Fault::Kill, 3), (Fault::Partition, 1)],
            ..base.clone()
        },
        Scenario {
            name: "upgrade",
            about: "processes are asked to end, one after the other, and start again",
            every_kind: true,
            faults: vec![(Fault::Terminate, 1)],
            drift_ppm: DRIFT_PPM,
            ..base.clone()
        },
        Scenario {
            name: "everything",
            about: "all of it, while store groups are drained and used again",
            faults: everything,
            reshape: true,
            retention: 20,
            drift_ppm: DRIFT_PPM,
            ..base.clone()
        },
        Scenario {
            name: "leaders-die",
            about: "regression: the leading controller and a store die together, and clients write at once",
            every_kind: true,
            faults: vec![(Fault::KillLeaders, 1)],
            pause: Duration::from_secs(4),
            ..base.clone()
        },
        Scenario {
            name: "failed-sync",
            about: "regression: a sync fails, the process starts again on what it reads back, and then the power fails",
            every_kind: true,
            faults: vec![(Fault::FailSync, 4), (Fault::LosePower, 2), (Fault::CutPower, 2)],
            pause: Duration::from_millis(1000),
            ..base.clone()
        },
        Scenario {
            name: "stale-answers",
            about: "regression: a store's lease ends and it leads again while it still writes what it took before",
            every_kind: true,
            faults: vec![(Fault::SlowDisk, 1), (Fault::IsolateStore, 1), (Fault::StallCutOff, 6)],
            pause: Duration::from_millis(2000),
            leases: Leases::Timed,
            habits: |habits| {
                habits.pause = Duration::from_millis(80);
                habits.patience = Duration::from_secs(10);
            },
            ..base.clone()
        },
        Scenario {
            name: "twin",
            about: "regression: a copy of a store's disk serves on another machine, with leases that last until superseded",
            every_kind: true,
            faults: vec![(Fault::IsolateStore, 3), (Fault::Pause, 2), (Fault::Kill, 1)],
            pause: Duration::from_secs(3),
            leases: Leases::Endless,
            twin: true,
            drift_ppm: DRIFT_PPM,
            ..base.clone()
        },
        Scenario {
            name: "timed-leases",
            about: "the same with leases that end, and clocks that run as unequally as their margins allow for",
            every_kind: true,
            faults: vec![(Fault::IsolateStore, 4), (Fault::Pause, 1), (Fault::Kill, 1)],
            pause: Duration::from_secs(3),
            leases: Leases::Timed,
            habits: |habits| habits.pause = Duration::from_millis(200),
            twin: true,
            drift_ppm: DRIFT_PPM_MAX,
            ..base.clone()
        },
        Scenario {
            name: "power",
            about: "machines lose power and processes die while disks are slow and checkpoints are frequent",
            faults: vec![
                (Fault::SlowDisk, 6),
                (Fault::Kill, 3),
                (Fault::LosePower, 4),
                (Fault::CutPower, 4),
                (Fault::LosePowerTogether, 2),
                (Fault::LosePowerEverywhere, 2),
            ],
            every_kind: true,
            // Most of it happens to stores.
            shape: Shape { controllers: 1, stores: 3, proxies: 1, ..SMALL },
            pause: Duration::from_millis(500),
            habits: |habits| {
                habits.pause = Duration::from_millis(120);
                habits.checkpoints = Duration::from_millis(300);
            },
            hurried: 1,
            ..base.clone()
        },
        Scenario {
            name: "attempts",
            about: "messages are delivered again and again until they are dead letters, and receives are lost on slow disks",
            every_kind: true,
            faults: vec![(Fault::SlowStore, 6), (Fault::KillProxy, 4)],
            pause: Duration::from_millis(700),
            habits: |habits| {
                (habits.prompt, habits.suspensions) = (50, 50);
                habits.poison = 4;
                habits.cache = 4;
            },
            ..base.clone()
        },
        Scenario {
            name: "slow-leader",
            about: "the leading controller is cut off and its own clock runs slow, and everybody asks how the cluster is",
            every_kind: true,
            faults: vec![(Fault::SlowLeader, 1)],
            pause: Duration::from_secs(4),
            // The margins of timed leases are for clocks that run less unequally.
            leases: Leases::Endless,
            hurried: 6,
            ..base.clone()
        },
        Scenario {
            name: "old-leader",
            about: "the leading controller comes back to members that have elected another one and have just started again",
            every_kind: true,
            faults: vec![(Fault::OldLeader, 1)],
            pause: Duration::from_secs(4),
            hurried: 3,
            ..base.clone()
        },
        Scenario {
            name: "mixed-versions",
            about: "one machine after the other gets the next version, while processes die and links break",
            every_kind: true,
            faults: vec![(Fault::Upgrade, 6), (Fault::Kill, 2), (Fault::IsolateStore, 1), (Fault::Partition, 1)],
            older: true,
            hurried: 1,
            pause: Duration::from_millis(700),
            ..base
        },
    ]
}

/// The scenario of that name.
pub fn named(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn seeds_differ_in_the_kinds_of_their_faults_and_each_has_some() {
        let everything = named("everything").unwrap();
        let kinds =
            |seed: u64| -> BTreeSet<Fault> { everything.drawn(seed).faults.iter().map(|(fault, _)| *fault).collect() };
        let seen: BTreeSet<BTreeSet<Fault>> = (0..50).map(kinds).collect();
        assert!(seen.len() > 40 && seen.iter().all(|kinds| !kinds.is_empty()), "{seen:?}");
        assert_eq!(kinds(7), kinds(7));
        let all: BTreeSet<Fault> = seen.into_iter().flatten().collect();
        assert_eq!(all, everything.faults.iter().map(|(fault, _)| *fault).collect());
    }

    #[test]
    fn kinds_can_be_left_out() {
        let left = named("pauses").unwrap().without(&[Fault::Kill]);
        assert_eq!(left.faults.len(), 1);
        assert_eq!(Fault::named("Pause"), Some(Fault::Pause));
        assert_eq!(Fault::named("pause"), None);
    }
}
