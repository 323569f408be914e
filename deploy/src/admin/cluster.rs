//! `gantry admin cluster …`

use super::client::Client;
use super::render::{OutputFormat, Render, show, table};
use clap::Subcommand;
use gantry_proto::model::HostPort;
use gantry_proto::wire::admin::json::rfc_3339;
use gantry_proto::wire::admin::v1;
use serde::Serialize;
use std::time::Duration;

/// What can be done with the cluster.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show who belongs to the cluster, who leads, and who was heard of when.
    Status,
    /// Take a store group out of use: new messages go to the others, and consumers empty it.
    Drain {
        /// Which store group.
        name: String,
    },
    /// Take a draining store group into use again.
    Activate {
        /// Which store group.
        name: String,
    },
    /// Remove a drained store group. Waits until its store has confirmed that it takes no messages and holds none for a
    /// consumer; refused, and draining as before, if it does not.
    Remove {
        /// Which store group.
        name: String,
        /// Remove it with all that it still holds, or although it does not answer.
        #[arg(long)]
        force: bool,
    },
    /// Give topics queues on store groups that were added after them.
    Spread,
    /// Add a member to the controller. It has to run already, with `controller.join`.
    AddController {
        /// Its number, not used before.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Where the other members reach it.
        #[arg(value_name = "HOST:PORT")]
        address: HostPort,
    },
    /// Remove a member from the controller.
    RemoveController {
        /// Its number.
        id: u64,
    },
}

/// Carries a command out and prints its result.
pub(super) async fn run(command: ClusterCommand, mut client: Client, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Status => {
            let answer = client.cluster.get_cluster_status(v1::GetClusterStatusRequest {}).await;
            show(&Status::from_wire(client.answer(answer)?), output)
        }
        ClusterCommand::Drain { name } => {
            let answer = client.cluster.drain_store_group(v1::DrainStoreGroupRequest { name: name.clone() }).await;
            let topics_changed = client.answer(answer)?.topics_changed;
            show(&Drained { draining: name, topics_changed }, output)
        }
        ClusterCommand::Activate { name } => {
            let answer =
                client.cluster.activate_store_group(v1::ActivateStoreGroupRequest { name: name.clone() }).await;
            client.answer(answer)?;
            show(&Activated { activated: name }, output)
        }
        ClusterCommand::Remove { name, force } => {
            let request = v1::RemoveStoreGroupRequest { name: name.clone(), force };
            let answer = client.cluster.remove_store_group(request).await;
            client.answer(answer)?;
            show(&Removed { removed: name }, output)
        }
        ClusterCommand::Spread => {
            let answer = client.cluster.spread_topics(v1::SpreadTopicsRequest {}).await;
            show(&Spread { topics_changed: client.answer(answer)?.topics_changed }, output)
        }
        ClusterCommand::AddController { id, address } => {
            let request = v1::AddControllerRequest { id, address: address.to_string() };
            let answer = client.cluster.add_controller(request).await;
            client.answer(answer)?;
            show(&ControllerAdded { added: id, address: address.to_string() }, output)
        }
        ClusterCommand::RemoveController { id } => {
            let answer = client.cluster.remove_controller(v1::RemoveControllerRequest { id }).await;
            client.answer(answer)?;
            show(&ControllerRemoved { removed: id }, output)
        }
    }
}

#[derive(Serialize)]
struct Status {
    /// Why the controller could not be asked: the rest is then what the proxy saw last.
    controller_away: Option<String>,
    cluster: Option<String>,
    metadata_version: u64,
    controllers: Vec<Controller>,
    store_groups: Vec<StoreGroup>,
    proxies: Vec<Proxy>,
}

#[derive(Serialize)]
struct Controller {
    id: u64,
    address: String,
    role: &'static str,
    matched: Option<u64>,
}

#[derive(Serialize)]
struct StoreGroup {
    name: String,
    state: &'static str,
    epoch: u32,
    leader: Option<String>,
    leading_since: Option<String>,
    heard_ms_ago: Option<u64>,
    retained_from: Option<u64>,
    confirmed_to: Option<u64>,
    appended_to: Option<u64>,
    unfinished: Option<u64>,
    unclaimed: Option<u64>,
    version: Option<String>,
    /// Why the proxy cannot talk to its leader.
    trouble: Option<String>,
}

#[derive(Serialize)]
struct Proxy {
    id: String,
    address: String,
    sessions: Option<u32>,
    joined_at: Option<String>,
    heard_ms_ago: Option<u64>,
    version: String,
}

#[derive(Serialize)]
struct Drained {
    draining: String,
    topics_changed: u32,
}

#[derive(Serialize)]
struct Activated {
    activated: String,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

#[derive(Serialize)]
struct Spread {
    topics_changed: u32,
}

#[derive(Serialize)]
struct ControllerAdded {
    added: u64,
    address: String,
}

#[derive(Serialize)]
struct ControllerRemoved {
    removed: u64,
}

impl Render for Status {
    fn to_table(&self) -> String {
        let controllers = self.controllers.iter().map(|member| {
            let matched = member.matched.map_or_else(unknown, |index| index.to_string());
            [member.id.to_string(), member.address.clone(), member.role.to_owned(), matched]
        });
        let stores = self.store_groups.iter().map(|group| {
            [
                group.name.clone(),
                group.state.to_owned(),
                group.epoch.to_string(),
                group.leader.clone().unwrap_or_else(|| "nobody".to_owned()),
                ago(group.heard_ms_ago),
                group.leading_since.clone().unwrap_or_else(unknown),
                group.confirmed_to.map_or_else(unknown, |position| position.to_string()),
                group.unfinished.map_or_else(|| "-".to_owned(), |messages| messages.to_string()),
            ]
        });
        let proxies = self.proxies.iter().map(|proxy| {
            let joined_at = proxy.joined_at.clone().unwrap_or_else(unknown);
            [
                proxy.address.clone(),
                proxy.sessions.map_or_else(unknown, |sessions| sessions.to_string()),
                ago(proxy.heard_ms_ago),
                joined_at,
                proxy.version.clone(),
            ]
        });
        let troubles = self.store_groups.iter().filter_map(|group| Some((&group.name, group.trouble.as_ref()?)));
        let troubles: String = troubles
            .map(|(name, why)| format!("store group {name} cannot be talked to by this proxy: {why}\n"))
            .collect();
        // Who controls is known to the controller only.
        let controllers = match &self.controller_away {
            None => table(["CONTROLLER", "ADDRESS", "ROLE", "LOG"], controllers),
            Some(why) => format!(
                "{why}\nThis is what the proxy saw last. Messages go on; topics, groups and members cannot change.\n"
            ),
        };
        format!(
            "cluster {}, metadata version {}\n\n{controllers}\n{}{troubles}\n{}",
            self.cluster.as_deref().unwrap_or("not founded yet"),
            self.metadata_version,
            table(
                ["STORE GROUP", "STATE", "EPOCH", "LEADER", "HEARD", "LEADS SINCE", "CONFIRMED TO", "UNFINISHED"],
                stores
            ),
            table(["PROXY", "CLIENTS", "HEARD", "JOINED", "VERSION"], proxies),
        )
    }
}

impl Render for Drained {
    fn to_table(&self) -> String {
        let topics = topics(self.topics_changed);
        format!("store group {} is being drained; {topics} got queues elsewhere\n", self.draining)
    }
}

impl Render for Activated {
    fn to_table(&self) -> String {
        format!("store group {} takes messages again\n", self.activated)
    }
}

impl Render for Removed {
    fn to_table(&self) -> String {
        format!("store group {} removed\n", self.removed)
    }
}

impl Render for Spread {
    fn to_table(&self) -> String {
        format!("{} got new queues\n", topics(self.topics_changed))
    }
}

impl Render for ControllerAdded {
    fn to_table(&self) -> String {
        format!("controller {} at {} added\n", self.added, self.address)
    }
}

impl Render for ControllerRemoved {
    fn to_table(&self) -> String {
        format!("controller {} removed\n", self.removed)
    }
}

impl Status {
    fn from_wire(status: v1::GetClusterStatusResponse) -> Status {
        Status {
            controller_away: Some(status.controller_away).filter(|why| !why.is_empty()),
            cluster: Some(status.cluster).filter(|cluster| !cluster.is_empty()),
            metadata_version: status.metadata_version,
            controllers: status.controllers.into_iter().map(Controller::from_wire).collect(),
            store_groups: status.stores.into_iter().map(StoreGroup::from_wire).collect(),
            proxies: status.proxies.into_iter().map(Proxy::from_wire).collect(),
        }
    }
}

impl Controller {
    fn from_wire(member: v1::ControllerMember) -> Controller {
        let role = match (member.leader, member.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        Controller { id: member.id, address: member.address, role, matched: member.matched }
    }
}

impl StoreGroup {
    fn from_wire(status: v1::StoreGroupStatus) -> StoreGroup {
        let group = status.group.unwrap_or_default();
        let leader = group.replicas.iter().find(|replica| replica.leader).map(|replica| replica.address.clone());
        StoreGroup {
            state: match group.state() {
                v1::StoreGroupState::Unspecified => "unknown",
                v1::StoreGroupState::Active => "active",
                v1::StoreGroupState::Draining => "draining",
                v1::StoreGroupState::Closing => "closing",
            },
            name: group.name,
            epoch: group.epoch,
            leader,
            leading_since: rfc_3339(status.leading_since),
            heard_ms_ago: millis(status.heard_ago),
            retained_from: status.retained_from,
            confirmed_to: status.confirmed_to,
            appended_to: status.appended_to,
            unfinished: status.remains.map(|remains| remains.unfinished),
            unclaimed: status.remains.map(|remains| remains.unclaimed),
            version: Some(status.version).filter(|version| !version.is_empty()),
            trouble: Some(status.trouble).filter(|why| !why.is_empty()),
        }
    }
}

impl Proxy {
    fn from_wire(proxy: v1::ProxyMember) -> Proxy {
        Proxy {
            id: proxy.id,
            address: proxy.address,
            sessions: proxy.sessions,
            joined_at: rfc_3339(proxy.joined_at),
            heard_ms_ago: millis(proxy.heard_ago),
            version: proxy.version,
        }
    }
}

fn topics(count: u32) -> String {
    if count == 1 { "1 topic".to_owned() } else { format!("{count} topics") }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn ago(millis: Option<u64>) -> String {
    millis.map_or_else(unknown, |millis| format!("{} ago", humantime::format_duration(Duration::from_millis(millis))))
}

fn millis(duration: Option<prost_types::Duration>) -> Option<u64> {
    let duration = Duration::try_from(duration?).ok()?;
    u64::try_from(duration.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_the_controller_says_so_and_invents_nothing() {
        let group = v1::StoreGroup { name: "store-1".to_owned(), epoch: 3, ..v1::StoreGroup::default() };
        let status = |controller_away: &str| {
            Status::from_wire(v1::GetClusterStatusResponse {
                controllers: Vec::new(),
                stores: vec![v1::StoreGroupStatus { group: Some(group.clone()), ..v1::StoreGroupStatus::default() }],
                controller_away: controller_away.to_owned(),
                ..v1::GetClusterStatusResponse::default()
            })
        };
        let away = status("the controller is away").to_table();
        assert!(away.contains("the controller is away\nThis is what the proxy saw last."), "{away}");
        assert!(!away.contains("CONTROLLER"), "{away}");
        let row: Vec<&str> =
            away.lines().find(|line| line.starts_with("store-1")).unwrap().split_whitespace().collect();
        assert_eq!(row, ["store-1", "unknown", "3", "nobody", "unknown", "unknown", "unknown", "-"]);
        assert!(status("").to_table().contains("CONTROLLER"));
    }

    #[test]
    fn a_store_that_the_proxy_cannot_talk_to_is_named_with_the_reason() {
        let group = v1::StoreGroup { name: "store-1".to_owned(), ..v1::StoreGroup::default() };
        let status = |trouble: &str| {
            let store = v1::StoreGroupStatus {
                group: Some(group.clone()),
                trouble: trouble.to_owned(),
                ..v1::StoreGroupStatus::default()
            };
            let status = v1::GetClusterStatusResponse { stores: vec![store], ..Default::default() };
            Status::from_wire(status).to_table()
        };
        let troubled = status("store:9200: upgrade the store");
        let line = "store group store-1 cannot be talked to by this proxy: store:9200: upgrade the store\n";
        assert!(troubled.contains(line), "{troubled}");
        assert!(!status("").contains("cannot be talked to"));
    }
}
