//! A running Gantry: in one process, or as a cluster of processes. Tests of what clients see run against both.

use crate::PATIENCE;
use crate::port::Port;
use crate::process::{Process, admin};
use serde_json::Value;
use std::time::{Duration, Instant};
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
    controllers: Vec<usize>,
    /// Which of the processes have messages.
    stores: Vec<usize>,
    /// Which of the processes clients connect to.
    entrances: Vec<usize>,
    /// What every process of a cluster is started with.
    common: Vec<String>,
    folder: TempDir,
    /// Theirs for as long as the test runs: who is killed comes back where it was.
    ports: Vec<Port>,
}

impl Server {
    /// Starts a standalone server on a free port and waits until it is ready.
    pub fn start(flags: &[&str]) -> Server {
        let mut server = Server::empty(Shape::Standalone);
        let listen = server.address();
        let flags = ["--listen", &listen].into_iter().chain(flags.iter().copied()).map(str::to_owned).collect();
        server.processes.push(Process::start("standalone", server.folder.path(), flags));
        (server.stores, server.entrances) = (vec![0], vec![0]);
        server
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
        let mut server = Server::empty(Shape::Apart);
        let token = server.folder.path().join("token");
        std::fs::write(&token, "a-secret-that-these-processes-share").expect("a file can be written");
        let addresses: Vec<String> = (0..controllers).map(|_| server.address()).collect();
        let members: Vec<String> = addresses.iter().zip(1..).map(|(address, id)| format!("{id}={address}")).collect();
        let common = ["--controllers", &members.join(","), "--token-file", &token.display().to_string()];
        server.common = common.map(str::to_owned).to_vec();

        for (address, id) in addresses.iter().zip(1..) {
            let own = ["--controller-id", &id.to_string(), "--controller-listen", address];
            let member = server.launch("controller", id, &own);
            server.controllers.push(member);
        }
        (0..stores).for_each(|_| server.launch_store());
        (0..proxies).for_each(|_| server.launch_proxy());
        server.processes.iter_mut().for_each(Process::await_ready);
        server
    }

    /// Adds a store with a group of its own to a cluster. Returns the group's name.
    pub fn add_store(&mut self) -> String {
        self.launch_store();
        self.processes.last_mut().expect("it was just launched").await_ready();
        format!("store-{}", self.stores.len())
    }

    /// Adds an entrance to a cluster. Returns its number.
    pub fn add_entrance(&mut self) -> usize {
        self.launch_proxy();
        self.processes.last_mut().expect("it was just launched").await_ready();
        self.entrances.len() - 1
    }

    /// Where clients connect: the first entrance.
    pub fn endpoint(&self) -> &str {
        self.entrance(0)
    }

    /// Where clients connect, of several entrances.
    pub fn entrance(&self, number: usize) -> &str {
        self.processes[self.entrances[number]].listen()
    }

    /// The process of the first entrance.
    pub fn pid(&self) -> u32 {
        self.processes[self.entrances[0]].pid()
    }

    /// Where the first entrance answers probes.
    pub fn ops(&self) -> &str {
        self.processes[self.entrances[0]].ops()
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

    /// Kills a store, counted from 0, and leaves it dead.
    pub fn kill_store(&mut self, number: usize) {
        self.processes[self.stores[number]].kill();
    }

    /// Kills all members of the controller and leaves them dead.
    pub fn kill_controllers(&mut self) {
        for member in &self.controllers {
            self.processes[*member].kill();
        }
    }

    /// Starts all members of the controller again, where they were.
    pub fn start_controllers_again(&mut self) {
        for member in &self.controllers {
            self.processes[*member].launch_again();
        }
        for member in &self.controllers {
            self.processes[*member].await_ready();
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
        self.try_admin(arguments).unwrap_or_else(|stderr| panic!("gantry admin {arguments:?}: {stderr}"))
    }

    /// Runs `gantry admin …` against this server. What it printed, or its standard error if it failed.
    pub fn try_admin(&self, arguments: &[&str]) -> Result<Value, String> {
        admin(self.processes[self.entrances[0]].admin(), arguments)
    }

    /// Runs `gantry admin …` against this server until it succeeds with a result that is `wanted`.
    pub fn admin_until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let result = self.try_admin(arguments);
            match result {
                Ok(document) if wanted(&document) => return document,
                other => assert!(Instant::now() < deadline, "gantry admin {arguments:?}: at last {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Fails if a process logged an error: somebody would have to look at it.
    pub fn assert_no_errors(&self) {
        let errors: Vec<String> = self.processes.iter().flat_map(Process::errors).collect();
        assert!(errors.is_empty(), "{:?} logged errors:\n{}", self.shape, errors.join("\n"));
    }

    fn empty(shape: Shape) -> Server {
        Server {
            processes: Vec::new(),
            shape,
            controllers: Vec::new(),
            stores: Vec::new(),
            entrances: Vec::new(),
            common: Vec::new(),
            folder: TempDir::new().expect("a temporary folder"),
            ports: Vec::new(),
        }
    }

    /// An address that nobody else has while this server exists.
    fn address(&mut self) -> String {
        let port = Port::reserve();
        let address = format!("127.0.0.1:{}", port.number());
        self.ports.push(port);
        address
    }

    fn launch_store(&mut self) {
        let number = self.stores.len() + 1;
        let group = format!("store-{number}");
        let address = self.address();
        let store = self.launch("store", number, &["--group", &group, "--store-listen", &address]);
        self.stores.push(store);
    }

    fn launch_proxy(&mut self) {
        let address = self.address();
        let proxy = {
            let creates = ["--topics-auto-create", "true", "--groups-auto-create", "true"];
            let own = [&["--listen", &address][..], &creates].concat();
            self.launch("proxy", self.entrances.len() + 1, &own)
        };
        self.entrances.push(proxy);
    }

    /// Starts a process of a cluster, without waiting. Returns its place.
    fn launch(&mut self, role: &'static str, number: usize, own: &[&str]) -> usize {
        let own = own.iter().map(|flag| (*flag).to_owned());
        let flags = self.common.iter().cloned().chain(own).collect();
        self.processes.push(Process::launch(role, &self.folder.path().join(format!("{role}-{number}")), flags));
        self.processes.len() - 1
    }
}
