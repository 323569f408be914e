//! What can go wrong in a run, and how often.

use crate::draw::Draw;
use crate::faults::Fault;
use crate::site::{Retention, Shape};
use std::time::Duration;

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
    /// How much time there is between two faults, on average.
    pub pause: Duration,
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
        if self.faults.len() < KINDS_MIN {
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

/// With fewer kinds of faults all of them happen, as often as the scenario says.
const KINDS_MIN: usize = 4;

/// Two clocks run apart by at most a tenth: less than the margins of the leases allow for (a sixth of a lease on either
/// side), and so much that leases without margins overlap.
const DRIFT_PPM: u64 = 50_000;

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
        pause,
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
            faults: vec![(Fault::LoseDisk, 2), (Fault::Kill, 3), (Fault::Partition, 1)],
            ..base.clone()
        },
        Scenario {
            name: "upgrade",
            about: "processes are asked to end, one after the other, and start again",
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
            faults: vec![(Fault::KillLeaders, 1)],
            pause: Duration::from_secs(4),
            ..base.clone()
        },
        Scenario {
            name: "failed-sync",
            about: "regression: a sync fails, the process starts again on what it reads back, and then the power fails",
            faults: vec![(Fault::FailSync, 4), (Fault::LosePower, 2), (Fault::CutPower, 2)],
            pause: Duration::from_millis(1000),
            ..base.clone()
        },
        Scenario {
            name: "stale-answers",
            about: "regression: a store's lease ends and it leads again while it still writes what it took before",
            faults: vec![(Fault::SlowDisk, 2), (Fault::IsolateStore, 2), (Fault::StallCutOff, 4)],
            pause: Duration::from_millis(1200),
            ..base.clone()
        },
        Scenario {
            name: "twin",
            about: "regression: a copy of a store's disk serves on another machine",
            faults: vec![(Fault::IsolateStore, 3), (Fault::Pause, 2), (Fault::Kill, 1)],
            pause: Duration::from_secs(3),
            twin: true,
            drift_ppm: DRIFT_PPM,
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
