//! A running Gantry: in one process, or as a cluster of processes. Tests of what clients see run against both.

use crate::process::{Process, admin, free_port};
use serde_json::Value;
use tempfile::TempDir;

/// How the tiers are spread over processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `gantry standalone`.
    Standalone,
    /// Three controllers, two stores, two proxies.
    Apart,
}

/// A running server. Killed when dropped.
pub struct Server {
    // Dropped before the folder that they write to.
    processes: Vec<Process>,
    shape: Shape,
    /// Which of the processes clients connect to.
    entrances: Vec<usize>,
    /// Which of the processes have messages.
    stores: Vec<usize>,
    _folder: TempDir,
}

impl Server {
    /// Starts a standalone server on a free port and waits until it is ready.
    pub fn start(flags: &[&str]) -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        let listen = format!("127.0.0.1:{}", free_port());
        let flags = ["--listen", &listen].into_iter().chain(flags.iter().copied()).map(str::to_owned).collect();
        let process = Process::start("standalone", folder.path(), flags);
        Server {
            processes: vec![process],
            shape: Shape::Standalone,
            entrances: vec![0],
            stores: vec![0],
            _folder: folder,
        }
    }

    /// Starts a server of that shape with its defaults.
    pub fn start_as(shape: Shape) -> Server {
        match shape {
            Shape::Standalone => Server::start(&[]),
            Shape::Apart => Server::start_apart(3, 2, 2),
        }
    }

    /// Starts a cluster.
    pub fn start_apart(controllers: usize, stores: usize, proxies: usize) -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        let token = folder.path().join("token");
        std::fs::write(&token, "a-secret-that-these-processes-share").expect("a file can be written");
        let ports: Vec<u16> = (0..controllers).map(|_| free_port()).collect();
        let members: Vec<String> = ports.iter().zip(1..).map(|(port, id)| format!("{id}=127.0.0.1:{port}")).collect();
        let members = members.join(",");
        let start = |role: &'static str, number: usize, own: &[(&str, String)]| {
            let common = [("--controllers", members.clone()), ("--token-file", token.display().to_string())];
            let flags = common.iter().chain(own).flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
            Process::launch(role, &folder.path().join(format!("{role}-{number}")), flags.collect())
        };
        let at = |port: u16| format!("127.0.0.1:{port}");

        let mut processes = Vec::new();
        for (port, id) in ports.iter().zip(1..) {
            let own = [("--controller-id", id.to_string()), ("--controller-listen", at(*port))];
            processes.push(start("controller", id, &own));
        }
        for number in 1..=stores {
            let own = [("--group", format!("store-{number}")), ("--store-listen", at(free_port()))];
            processes.push(start("store", number, &own));
        }
        for number in 1..=proxies {
            processes.push(start("proxy", number, &[("--listen", at(free_port()))]));
        }
        processes.iter_mut().for_each(Process::await_ready);
        let (first_store, first_proxy) = (controllers, controllers + stores);
        Server {
            processes,
            shape: Shape::Apart,
            entrances: (first_proxy..first_proxy + proxies).collect(),
            stores: (first_store..first_proxy).collect(),
            _folder: folder,
        }
    }

    /// Where clients connect: the first entrance.
    pub fn endpoint(&self) -> &str {
        self.entrance(0)
    }

    /// Where clients connect, of several entrances.
    pub fn entrance(&self, number: usize) -> &str {
        self.processes[self.entrances[number]].listen()
    }

    /// Kills something that clients need (the server, or the stores) without warning, and starts it again on the same ports
    /// and folders.
    pub fn kill_and_restart(&mut self) {
        for store in &self.stores {
            self.processes[*store].kill();
        }
        for store in &self.stores {
            self.processes[*store].start_again();
        }
    }

    /// Kills an entrance and leaves it dead.
    pub fn kill_entrance(&mut self, number: usize) {
        self.processes[self.entrances[number]].kill();
    }

    /// Starts an entrance again, where it was.
    pub fn start_entrance_again(&mut self, number: usize) {
        self.processes[self.entrances[number]].start_again();
    }

    /// Runs `gantry admin …` against this server; it must succeed.
    pub fn admin(&self, arguments: &[&str]) -> Value {
        admin(self.endpoint(), arguments)
    }

    /// Fails if a process logged an error: somebody would have to look at it.
    pub fn assert_no_errors(&self) {
        let errors: Vec<String> = self.processes.iter().flat_map(Process::errors).collect();
        assert!(errors.is_empty(), "{:?} logged errors:\n{}", self.shape, errors.join("\n"));
    }
}
