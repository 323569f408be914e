//! `gantry admin group …`

use super::client::Client;
use super::render::{OutputFormat, Render, properties, show, table};
use clap::{Args, Subcommand};
use gantry_proto::model::limits::MAX_ATTEMPTS_MAX;
use gantry_proto::wire::admin::json::{millis, rfc_3339};
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use gantry_proto::wire::admin::v1::backoff_policy::Strategy;
use gantry_proto::wire::admin::v1::{self, Group};
use serde::Serialize;
use std::time::Duration;
use tonic::transport::Channel;

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
            show(&CreatedGroup { created: answer.created, group: answer.group.unwrap_or_default() }, output)
        }
        GroupCommand::List { prefix } => {
            let page = async |api: &mut AdminServiceClient<Channel>, page_token| {
                let request = v1::ListGroupsRequest { prefix: prefix.clone(), page_size: 0, page_token };
                let page = api.list_groups(request).await?.into_inner();
                Ok((page.groups, page.next_page_token))
            };
            let groups = client.list(page).await?;
            show(&GroupList { groups }, output)
        }
        GroupCommand::Describe { name } => {
            let answer = client.api.describe_group(v1::DescribeGroupRequest { name }).await;
            let answer = client.answer(answer)?;
            let v1::DescribeGroupResponse { group, progress, unavailable_store_groups } = answer;
            show(&DescribedGroup { group: group.unwrap_or_default(), progress, unavailable_store_groups }, output)
        }
        GroupCommand::Alter { name, changes } => {
            let backoff = backoff_to_wire(&changes.backoff);
            let request =
                v1::AlterGroupRequest { name, fifo: changes.fifo, max_attempts: changes.max_attempts, backoff };
            let answer = client.api.alter_group(request).await;
            show(&AlteredGroup { group: client.answer(answer)?.group.unwrap_or_default() }, output)
        }
        GroupCommand::Delete { name } => {
            let answer = client.api.delete_group(v1::DeleteGroupRequest { name: name.clone() }).await;
            client.answer(answer)?;
            show(&DeletedGroup { deleted: name }, output)
        }
    }
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
    progress: Vec<v1::GroupProgress>,
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
        format!("group {} {did}: {}\n", self.group.name, in_words(&self.group))
    }
}

impl Render for GroupList {
    fn to_table(&self) -> String {
        let rows = self.groups.iter().map(|group| {
            let created_at = rfc_3339(group.created_at).unwrap_or_default();
            [group.name.clone(), order(group), group.max_attempts.to_string(), created_at]
        });
        table(["NAME", "ORDER", "ATTEMPTS", "CREATED"], rows)
    }
}

impl Render for DescribedGroup {
    fn to_table(&self) -> String {
        let group = &self.group;
        let head = properties([
            ("NAME", group.name.clone()),
            ("ORDER", order(group)),
            ("ATTEMPTS", group.max_attempts.to_string()),
            ("BACKOFF", group.backoff.as_ref().map(backoff_in_words).unwrap_or_default()),
            ("DEAD LETTERS IN", group.dead_letter_topic.clone()),
            ("CREATED", rfc_3339(group.created_at).unwrap_or_default()),
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
        format!("group {} altered: {}\n", self.group.name, in_words(&self.group))
    }
}

impl Render for DeletedGroup {
    fn to_table(&self) -> String {
        format!("group {} deleted\n", self.deleted)
    }
}

fn order(group: &Group) -> String {
    if group.fifo { "fifo" } else { "none" }.to_owned()
}

fn in_words(group: &Group) -> String {
    let order = if group.fifo { "fifo order" } else { "no order" };
    format!("{order}, {} attempts", group.max_attempts)
}

fn backoff_in_words(policy: &v1::BackoffPolicy) -> String {
    let pause = |span| humantime::format_duration(Duration::from_millis(millis(span))).to_string();
    match &policy.strategy {
        None => String::new(),
        Some(Strategy::Customized(backoff)) => {
            backoff.next.iter().map(|span| pause(Some(*span))).collect::<Vec<_>>().join(", ")
        }
        Some(Strategy::Exponential(backoff)) => {
            format!("{} growing {}-fold up to {}", pause(backoff.initial), backoff.multiplier, pause(backoff.max))
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
