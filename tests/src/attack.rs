//! Attacks on the real binary: hostile and clumsy programs, what an honest client measures meanwhile, how much memory the
//! server takes, and how long it needs to get rid of what is left.

mod honest;
mod kinds;
mod raw;
mod victim;

pub use honest::Measured;
pub use kinds::{ATTACKS, Attack};
pub use victim::State;

use crate::Server;
use honest::{Honest, message, send};
use kinds::{Left, Target};
use raw::Http2;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use victim::Victim;

/// The topic of the honest client, and the one that has large messages.
const TOPIC: &str = "honest";
const LARGE_TOPIC: &str = "large";
const LARGE_MESSAGES: usize = 20;
const LARGE_BYTES: usize = 800 << 10;
/// Within this of what was held before, a server is idle again.
const IDLE_SLACK: u64 = 1 << 20;

/// A server that will be attacked.
pub struct Field {
    server: Server,
    address: SocketAddr,
    victim: Victim,
    runs: usize,
}

/// What came of an attack.
#[derive(Debug)]
pub struct Outcome {
    pub before: State,
    /// Most bytes resident meanwhile. `None`: the system does not tell.
    pub peak: Option<u64>,
    pub honest: Measured,
    /// How long the server needed to be as before, while the attackers' connections stayed open at their end.
    pub recovered: Option<Duration>,
}

impl Field {
    /// Starts a server with these flags. Attackers and the honest client have different addresses, as a load balancer says.
    pub fn start(flags: &[&str]) -> Field {
        let server = Server::start(&[flags, &["--listen-proxy-protocol", "require"]].concat());
        let address = server.endpoint().parse().expect("an address");
        let victim = Victim { pid: server.pid(), ops: server.ops().parse().expect("an address") };
        server.admin(&["topic", "create", TOPIC]);
        server.admin(&["topic", "create", LARGE_TOPIC]);
        let mut connection: Option<Http2> = None;
        for n in 0..LARGE_MESSAGES {
            // A connection of its own each: nobody looks at windows here.
            connection = None;
            let sent = send(&mut connection, address, &message(LARGE_TOPIC, &format!("large-{n}"), LARGE_BYTES));
            assert!(sent.is_ok(), "{sent:?}");
        }
        drop(connection);
        Field { server, address, victim, runs: 0 }
    }

    /// What the honest client measures when nobody attacks.
    pub fn peace(&mut self, duration: Duration) -> Measured {
        let honest = self.honest();
        std::thread::sleep(duration);
        honest.stop()
    }

    /// Runs attacks, all at once.
    pub fn attack(&mut self, attacks: &[&Attack], duration: Duration, recovery_max: Duration) -> Outcome {
        let before = self.victim.state().expect("it answers");
        let counted = self.victim.forget_peak();
        let honest = self.honest();
        let until = Instant::now() + duration;
        let left: Vec<Left> = std::thread::scope(|scope| {
            let attack = |attack: &&Attack| {
                let (run, target) =
                    (attack.run, Target { address: self.address, until, topic: LARGE_TOPIC.to_owned() });
                scope.spawn(move || run(&target))
            };
            let running: Vec<_> = attacks.iter().map(attack).collect();
            running.into_iter().map(|attack| attack.join().expect("an attack has no bug")).collect()
        });
        let honest = honest.stop();
        let peak = self.victim.peak().filter(|_| counted);
        let recovered = self.recovered(before, recovery_max);
        drop(left);
        Outcome { before, peak, honest, recovered }
    }

    /// What the server holds now.
    pub fn state(&self) -> State {
        self.victim.state().expect("it answers")
    }

    /// Fails if the server logged an error.
    pub fn assert_no_errors(&self) {
        self.server.assert_no_errors();
    }

    fn honest(&mut self) -> Honest {
        self.runs += 1;
        Honest::start(self.address, TOPIC, &format!("honest-{}", self.runs))
    }

    fn recovered(&self, before: State, max: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < max {
            let state = self.victim.state();
            let is_idle =
                |state: State| state.connections <= before.connections && state.held <= before.held + IDLE_SLACK;
            if state.is_some_and(is_idle) {
                return Some(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }
}
