//! `gantry admin group …`

use super::client::Client;
use super::render::{OutputFormat, Render, instant, properties, show, table};
use clap::{Args, Subcommand};
use gantry_proto::model::limits::MAX_ATTEMPTS_MAX;
use gantry_proto::wire::admin::v1;
use gantry_proto::wire::admin::v1::backoff_policy::Strategy;
use serde::Serialize;
use std::time::Duration;

/// What can be done with consumer groups.
#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Create a consumer group and its dead-letter topic.
    Create {
        /// 1 to 120 letters, digits and % | _ -
        name: String,
        /// Deliver in order within each message group.
        #[arg(long)]
        fifo: bool,
        /// Deliveries of a message, the first included, before it goes to the dead-letter topic. Default: the server's.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS_MAX)))]
        max_attempts: Option<u32>,
        /// Pauses after failed deliveries, such as 1s,5s,30s; the last one repeats. Default: the server's.
        #[arg(long, value_name = "DURATION,…", value_delimiter = ',', value_parser = humantime::parse_duration)]
        backoff: Vec<Duration>,
        /// Succeed when the group exists already; it stays as it is.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List consumer groups.
    List {
        /// Only names that begin so.
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Show a consumer group and its progress.
    Describe {
        /// Which.
        name: String,
    },
    /// Change a consumer group.
    Alter {
        /// Which.
        name: String,
        #[command(flatten)]
        changes: GroupChanges,
    },
    /// Delete a consumer group, its progress and its dead-letter topic.
    Delete {
        /// Which.
        name: String,
    },
}

/// At least one change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct GroupChanges {
    /// Deliver in order within each message group, or not.
    #[arg(long, value_name = "true|false")]
    fifo: Option<bool>,
    /// Deliveries of a message, the first included, before it goes to the dead-letter topic.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS_MAX)))]
    max_attempts: Option<u32>,
    /// Pauses after failed deliveries, such as 1s,5s,30s; the last one repeats.
    #[arg(long, value_name = "DURATION,…", value_delimiter = ',', value_parser = humantime::parse_duration)]
    backoff: Vec<Duration>,
}

/// Carries a command out and prints its result.
pub(super) async fn run(command: GroupCommand, mut client: Client, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        GroupCommand::Create { name, fifo, max_attempts, backoff, if_not_exists } => {
            let (max_attempts, backoff) = (max_attempts.unwrap_or(0), backoff_to_wire(&backoff));
            let request = v1::CreateGroupRequest { name, fifo, max_attempts, backoff, if_not_exists };
            let answer = client.api.create_group(request).await;
            let answer = client.answer(answer)?;
            show(&CreatedGroup { created: answer.created, group: Group::from_wire(answer.group) }, output)
        }
        GroupCommand::List { prefix } => show(&list(&mut client, prefix).await?, output),
        GroupCommand::Describe { name } => {
            let answer = client.api.describe_group(v1::DescribeGroupRequest { name }).await;
            let answer = client.answer(answer)?;
            let progress = answer.progress.into_iter().map(Progress::from_wire).collect();
            let (group, unavailable_store_groups) = (Group::from_wire(answer.group), answer.unavailable_store_groups);
            show(&DescribedGroup { group, progress, unavailable_store_groups }, output)
        }
        GroupCommand::Alter { name, changes } => {
            let backoff = backoff_to_wire(&changes.backoff);
            let request =
                v1::AlterGroupRequest { name, fifo: changes.fifo, max_attempts: changes.max_attempts, backoff };
            let answer = client.api.alter_group(request).await;
            show(&AlteredGroup { group: Group::from_wire(client.answer(answer)?.group) }, output)
        }
        GroupCommand::Delete { name } => {
            let answer = client.api.delete_group(v1::DeleteGroupRequest { name: name.clone() }).await;
            client.answer(answer)?;
            show(&DeletedGroup { deleted: name }, output)
        }
    }
}

async fn list(client: &mut Client, prefix: String) -> anyhow::Result<GroupList> {
    let mut groups = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListGroupsRequest { prefix: prefix.clone(), page_size: 0, page_token };
        let answer = client.api.list_groups(request).await;
        let page = client.answer(answer)?;
        groups.extend(page.groups.into_iter().map(|group| Group::from_wire(Some(group))));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(GroupList { groups });
        }
    }
}

#[derive(Serialize)]
struct Group {
    name: String,
    fifo: bool,
    max_attempts: u32,
    backoff: Option<Backoff>,
    dead_letter_topic: String,
    created_at: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Backoff {
    Customized { next_ms: Vec<u64> },
    Exponential { initial_ms: u64, max_ms: u64, multiplier: f64 },
}

#[derive(Serialize)]
struct Progress {
    topic: String,
    ready: u64,
    inflight: u64,
    damaged: u64,
}

#[derive(Serialize)]
struct CreatedGroup {
    created: bool,
    group: Group,
}

#[derive(Serialize)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct DescribedGroup {
    group: Group,
    progress: Vec<Progress>,
    /// Store groups that could not be asked: what they hold is not counted.
    unavailable_store_groups: Vec<String>,
}

#[derive(Serialize)]
struct AlteredGroup {
    group: Group,
}

#[derive(Serialize)]
struct DeletedGroup {
    deleted: String,
}

impl Render for CreatedGroup {
    fn to_table(&self) -> String {
        let did = if self.created { "created" } else { "exists already" };
        format!("group {} {did}: {}\n", self.group.name, self.group.in_words())
    }
}

impl Render for GroupList {
    fn to_table(&self) -> String {
        let rows = self.groups.iter().map(|group| {
            let created_at = group.created_at.clone().unwrap_or_default();
            [group.name.clone(), group.order().to_owned(), group.max_attempts.to_string(), created_at]
        });
        table(["NAME", "ORDER", "ATTEMPTS", "CREATED"], rows)
    }
}

impl Render for DescribedGroup {
    fn to_table(&self) -> String {
        let group = &self.group;
        let head = properties([
            ("NAME", group.name.clone()),
            ("ORDER", group.order().to_owned()),
            ("ATTEMPTS", group.max_attempts.to_string()),
            ("BACKOFF", group.backoff.as_ref().map(Backoff::in_words).unwrap_or_default()),
            ("DEAD LETTERS IN", group.dead_letter_topic.clone()),
            ("CREATED", group.created_at.clone().unwrap_or_default()),
        ]);
        let rows = self
            .progress
            .iter()
            .map(|p| [p.topic.clone(), p.ready.to_string(), p.inflight.to_string(), p.damaged.to_string()]);
        let missing = match self.unavailable_store_groups.as_slice() {
            [] => String::new(),
            groups => format!("\nnot counted, because they could not be asked: {}\n", groups.join(", ")),
        };
        format!("{head}\n{}{missing}", table(["TOPIC", "READY", "IN FLIGHT", "DAMAGED"], rows))
    }
}

impl Render for AlteredGroup {
    fn to_table(&self) -> String {
        format!("group {} altered: {}\n", self.group.name, self.group.in_words())
    }
}

impl Render for DeletedGroup {
    fn to_table(&self) -> String {
        format!("group {} deleted\n", self.deleted)
    }
}

impl Group {
    fn from_wire(group: Option<v1::Group>) -> Group {
        let group = group.unwrap_or_default();
        Group {
            fifo: group.fifo,
            max_attempts: group.max_attempts,
            backoff: group.backoff.and_then(Backoff::from_wire),
            created_at: instant(group.created_at),
            dead_letter_topic: group.dead_letter_topic,
            name: group.name,
        }
    }

    fn order(&self) -> &'static str {
        if self.fifo { "fifo" } else { "none" }
    }

    fn in_words(&self) -> String {
        let order = if self.fifo { "fifo order" } else { "no order" };
        format!("{order}, {} attempts", self.max_attempts)
    }
}

impl Backoff {
    fn from_wire(policy: v1::BackoffPolicy) -> Option<Backoff> {
        Some(match policy.strategy? {
            Strategy::Customized(backoff) => {
                Backoff::Customized { next_ms: backoff.next.into_iter().map(|pause| millis(Some(pause))).collect() }
            }
            Strategy::Exponential(backoff) => Backoff::Exponential {
                initial_ms: millis(backoff.initial),
                max_ms: millis(backoff.max),
                multiplier: backoff.multiplier,
            },
        })
    }

    fn in_words(&self) -> String {
        let pause = |ms: &u64| humantime::format_duration(Duration::from_millis(*ms)).to_string();
        match self {
            Backoff::Customized { next_ms } => next_ms.iter().map(pause).collect::<Vec<_>>().join(", "),
            Backoff::Exponential { initial_ms, max_ms, multiplier } => {
                format!("{} growing {multiplier}-fold up to {}", pause(initial_ms), pause(max_ms))
            }
        }
    }
}

impl Progress {
    fn from_wire(progress: v1::GroupProgress) -> Progress {
        Progress {
            topic: progress.topic,
            ready: progress.ready,
            inflight: progress.inflight,
            damaged: progress.damaged,
        }
    }
}

/// None when no pauses were given.
fn backoff_to_wire(pauses: &[Duration]) -> Option<v1::BackoffPolicy> {
    // Pauses beyond what the protocol can say do not fit; the server bounds them much lower anyway.
    let next: Vec<_> = pauses.iter().map(|pause| prost_types::Duration::try_from(*pause).unwrap_or_default()).collect();
    let strategy = Strategy::Customized(v1::CustomizedBackoff { next });
    (!pauses.is_empty()).then_some(v1::BackoffPolicy { strategy: Some(strategy) })
}

fn millis(duration: Option<prost_types::Duration>) -> u64 {
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default();
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
