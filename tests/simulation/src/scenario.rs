//! What can go wrong in a run, and how often.

use crate::faults::Fault;
use crate::site::Shape;
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
}

/// A small cluster, so that much happens in little time.
const SMALL: Shape = Shape { controllers: 3, spares: 0, stores: 2, proxies: 2, producers: 3, consumers: 2 };

/// What there is to choose from.
pub fn all() -> Vec<Scenario> {
    let processes = vec![
        (Fault::Kill, 6),
        (Fault::LosePower, 6),
        (Fault::CutPower, 8),
        (Fault::LosePowerTogether, 2),
        (Fault::LosePowerEverywhere, 1),
    ];
    let network = vec![
        (Fault::Partition, 4),
        (Fault::Isolate, 4),
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
    let base = Scenario { name: "", about: "", shape: SMALL, faults: vec![], pause, reshape: false, twin: false };
    vec![
        Scenario { name: "steady", about: "no faults", ..base.clone() },
        Scenario { name: "reshape", about: "store groups are drained and used again", reshape: true, ..base.clone() },
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
        Scenario { name: "clocks", about: "wall clocks are wrong and jump", faults: clocks, ..base.clone() },
        Scenario {
            name: "everything",
            about: "all of it, while store groups are drained and used again",
            faults: everything,
            reshape: true,
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
            name: "twin",
            about: "regression: a copy of a store's disk serves on another machine",
            faults: vec![(Fault::IsolateStore, 3), (Fault::Pause, 2), (Fault::Kill, 1)],
            pause: Duration::from_secs(3),
            twin: true,
            ..base
        },
    ]
}

/// The scenario of that name.
pub fn named(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}
