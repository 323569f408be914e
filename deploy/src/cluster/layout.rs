//! Who listens where and keeps its data where.

use super::LocalArgs;
use crate::port;
use anyhow::{Context as _, ensure};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A cluster on one machine.
pub(super) struct Layout {
    root: PathBuf,
    processes: Vec<Process>,
}

/// One process of it.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// Its name in what is printed.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where it serves its purpose.
    pub listen: SocketAddr,
    /// Its operators' port.
    pub ops: SocketAddr,
    /// Where it takes operators' calls, if it is a proxy.
    pub admin: Option<SocketAddr>,
}

/// Ports behind the first proxy's, by kind of process. Each process has two, and each proxy one for operators' calls.
const ADMIN_AT: u16 = 20;
const CONTROLLERS_AT: u16 = 40;
const STORES_AT: u16 = 60;
const PORTS_MAX: u16 = 100;
const TOKEN_FILE: &str = "cluster-token";

impl Layout {
    pub(super) fn plan(args: &LocalArgs) -> anyhow::Result<Layout> {
        let first = args.listen.port();
        ensure!(first.checked_add(PORTS_MAX).is_some(), "choose a port below {} for --listen", u16::MAX - PORTS_MAX);
        let at = |offset: u16| SocketAddr::new(args.listen.ip(), first + offset);
        let members: Vec<(u16, SocketAddr)> =
            (0..args.controllers).map(|n| (n + 1, at(CONTROLLERS_AT + 2 * n))).collect();
        let list: Vec<String> = members.iter().map(|(id, address)| format!("{id}={address}")).collect();
        let plan = Plan { root: &args.data, controllers: list.join(",") };

        let mut processes = Vec::new();
        for (id, listen) in members {
            let own = [("--controller-id", id.to_string()), ("--controller-listen", listen.to_string())];
            processes.push(plan.process("controller", id, listen, &own));
        }
        for n in 0..args.stores {
            let listen = at(STORES_AT + 2 * n);
            let own = [
                ("--group", format!("store-{}", n + 1)),
                ("--store-listen", listen.to_string()),
                ("--flush", args.flush.clone()),
            ];
            processes.push(plan.process("store", n + 1, listen, &own));
        }
        for n in 0..args.proxies {
            let listen = at(2 * n);
            // Whoever reaches it may do everything: this machine only.
            let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, first + ADMIN_AT + n));
            let own = [
                ("--listen", listen.to_string()),
                ("--admin-listen", admin.to_string()),
                // For trying it out.
                ("--topics-auto-create", "true".to_owned()),
                ("--groups-auto-create", "true".to_owned()),
            ];
            processes.push(Process { admin: Some(admin), ..plan.process("proxy", n + 1, listen, &own) });
        }
        Ok(Layout { root: args.data.clone(), processes })
    }

    /// All processes, those first that others need.
    pub(super) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Makes sure that the ports are free, and makes the folder with the secret in it.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        for process in &self.processes {
            port::probe(process.listen, "--listen")?;
            port::probe(process.ops, "--listen")?;
            if let Some(admin) = process.admin {
                port::probe(admin, "--listen")?;
            }
        }
        let root = self.root.display();
        std::fs::create_dir_all(&self.root).with_context(|| format!("cannot make the folder {root}"))?;
        let path = self.root.join(TOKEN_FILE);
        if !path.exists() {
            write_token(&path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// What a user needs to go on.
    pub(super) fn describe(&self) -> String {
        let mut out = String::from("\nThe cluster is ready.\n\n");
        for process in &self.processes {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "  {:<13} {:<22} operators' port {}", process.name, process.listen, process.ops);
        }
        let proxies: Vec<String> = self.of_kind("proxy").map(|process| process.listen.to_string()).collect();
        let admin = self.processes.iter().find_map(|process| process.admin).map(|address| address.to_string());
        let endpoint = admin.unwrap_or_default();
        let _ = write!(
            out,
            "\n  clients connect to   {}\n  who is alive         gantry admin cluster status --endpoint {endpoint}\n  \
             data and secret in   {}\n\nA process that ends is started again. Ctrl-C stops the cluster.\n",
            proxies.join(" or "),
            self.root.display()
        );
        out
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Process> {
        self.processes.iter().filter(move |process| process.name.starts_with(kind))
    }
}

/// What all processes have in common.
struct Plan<'a> {
    root: &'a Path,
    controllers: String,
}

impl Plan<'_> {
    fn process(&self, role: &str, number: u16, listen: SocketAddr, own: &[(&str, String)]) -> Process {
        let name = format!("{role}-{number}");
        let ops = SocketAddr::new(listen.ip(), listen.port() + 1);
        let path = |name: &str| self.root.join(name).display().to_string();
        let common = [
            ("--data", path(&name)),
            ("--controllers", self.controllers.clone()),
            ("--token-file", path(TOKEN_FILE)),
            ("--ops-listen", ops.to_string()),
        ];
        let mut args = vec![role.to_owned()];
        for (flag, value) in common.iter().chain(own) {
            args.extend([(*flag).to_owned(), value.clone()]);
        }
        Process { name, args, listen, ops, admin: None }
    }
}

fn write_token(path: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterCommand, LocalArgs};
    use super::*;
    use clap::Parser;
    use std::collections::HashSet;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: ClusterCommand,
    }

    fn args(flags: &[&str]) -> Result<LocalArgs, clap::Error> {
        let ClusterCommand::Local(args) = Line::try_parse_from([&["gantry", "local"], flags].concat())?.command;
        Ok(args)
    }

    #[test]
    fn the_largest_cluster_has_room_for_its_ports() {
        let largest = args(&["--proxies", "9", "--stores", "9", "--controllers", "5"]).unwrap();
        let layout = Layout::plan(&largest).unwrap();
        let of = |p: &Process| [Some(p.listen), Some(p.ops), p.admin].into_iter().flatten().map(|a| a.port());
        let ports: HashSet<u16> = layout.processes().iter().flat_map(of).collect();
        assert_eq!((layout.processes().len(), ports.len()), (23, 46 + 9), "no port is used twice");
        assert!(ports.iter().all(|port| (8081..8081 + PORTS_MAX).contains(port)));
    }

    #[test]
    fn an_even_number_of_controllers_is_refused() {
        assert!(args(&["--controllers", "2"]).unwrap_err().to_string().contains("choose 1, 3 or 5"));
        assert!(Layout::plan(&args(&["--listen", "127.0.0.1:65500"]).unwrap()).is_err());
    }

    #[test]
    fn the_secret_is_made_once_and_only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(TOKEN_FILE);
        write_token(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap().len(), 64);
        assert!(write_token(&path).is_err());
    }
}
