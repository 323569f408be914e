//! `gantry admin topic …`

use super::client::Client;
use super::render::{OutputFormat, Render, properties, show, table};
use clap::{Args, Subcommand, ValueEnum};
use gantry_proto::model::limits::QUEUE_COUNT_MAX;
use gantry_proto::wire::admin::json::{rfc_3339, topic_type_name};
use gantry_proto::wire::admin::v1::admin_service_client::AdminServiceClient;
use gantry_proto::wire::admin::v1::{self, Topic};
use serde::Serialize;
use tonic::transport::Channel;

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Create a topic.
    Create {
        /// 1 to 127 letters, digits and % | _ -
        name: String,
        /// What kinds of messages it takes.
        #[arg(long = "type", value_name = "TYPE", default_value = "normal")]
        topic_type: TopicType,
        /// Number of queues. Default: the server's.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(QUEUE_COUNT_MAX)))]
        queues: Option<u32>,
        /// Succeed when the topic exists already; it stays as it is.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List topics.
    List {
        /// Only names that begin so.
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Show a topic and its queues.
    Describe {
        /// Which.
        name: String,
    },
    /// Change a topic.
    Alter {
        /// Which.
        name: String,
        #[command(flatten)]
        changes: TopicChanges,
    },
    /// Delete a topic and its messages.
    Delete {
        /// Which.
        name: String,
    },
}

/// At least one change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct TopicChanges {
    /// What kinds of messages it takes from now on.
    #[arg(long = "type", value_name = "TYPE")]
    topic_type: Option<TopicType>,
    /// Number of queues. It can only grow.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(QUEUE_COUNT_MAX)))]
    queues: Option<u32>,
}

/// What a topic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TopicType {
    /// No order, no delay.
    Normal,
    /// Ordered within a message group.
    Fifo,
    /// Delivered at a time.
    Delay,
    /// Invisible until a transaction commits.
    Transaction,
    /// Messages of every kind.
    Mixed,
}

/// Carries a command out and prints its result.
pub(super) async fn run(command: TopicCommand, mut client: Client, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        TopicCommand::Create { name, topic_type, queues, if_not_exists } => {
            let queue_count = queues.unwrap_or(0);
            let request =
                v1::CreateTopicRequest { name, r#type: topic_type.to_wire().into(), queue_count, if_not_exists };
            let answer = client.api.create_topic(request).await;
            let answer = client.answer(answer)?;
            show(&CreatedTopic { created: answer.created, topic: answer.topic.unwrap_or_default() }, output)
        }
        TopicCommand::List { prefix } => {
            let page = async |api: &mut AdminServiceClient<Channel>, page_token| {
                let request = v1::ListTopicsRequest { prefix: prefix.clone(), page_size: 0, page_token };
                let page = api.list_topics(request).await?.into_inner();
                Ok((page.topics, page.next_page_token))
            };
            let topics = client.list(page).await?;
            show(&TopicList { topics }, output)
        }
        TopicCommand::Describe { name } => {
            let answer = client.api.describe_topic(v1::DescribeTopicRequest { name }).await;
            let answer = client.answer(answer)?;
            let (topic, queues) = (answer.topic.unwrap_or_default(), answer.queues);
            show(&DescribedTopic { topic, queues }, output)
        }
        TopicCommand::Alter { name, changes } => {
            let r#type = changes.topic_type.map(|topic_type| topic_type.to_wire().into());
            let request = v1::AlterTopicRequest { name, r#type, queue_count: changes.queues };
            let answer = client.api.alter_topic(request).await;
            show(&AlteredTopic { topic: client.answer(answer)?.topic.unwrap_or_default() }, output)
        }
        TopicCommand::Delete { name } => {
            let answer = client.api.delete_topic(v1::DeleteTopicRequest { name: name.clone() }).await;
            client.answer(answer)?;
            show(&DeletedTopic { deleted: name }, output)
        }
    }
}

#[derive(Serialize)]
struct CreatedTopic {
    created: bool,
    topic: Topic,
}

#[derive(Serialize)]
struct TopicList {
    topics: Vec<Topic>,
}

#[derive(Serialize)]
struct DescribedTopic {
    topic: Topic,
    queues: Vec<v1::QueueRange>,
}

#[derive(Serialize)]
struct AlteredTopic {
    topic: Topic,
}

#[derive(Serialize)]
struct DeletedTopic {
    deleted: String,
}

impl Render for CreatedTopic {
    fn to_table(&self) -> String {
        let did = if self.created { "created" } else { "exists already" };
        format!("topic {} {did}: {}\n", self.topic.name, in_words(&self.topic))
    }
}

impl Render for TopicList {
    fn to_table(&self) -> String {
        let rows = self.topics.iter().map(|topic| {
            let created_at = rfc_3339(topic.created_at).unwrap_or_default();
            [topic.name.clone(), topic_type_name(topic.r#type()).to_owned(), topic.queue_count.to_string(), created_at]
        });
        table(["NAME", "TYPE", "QUEUES", "CREATED"], rows)
    }
}

impl Render for DescribedTopic {
    fn to_table(&self) -> String {
        let topic = &self.topic;
        let head = properties([
            ("NAME", topic.name.clone()),
            ("TYPE", topic_type_name(topic.r#type()).to_owned()),
            ("QUEUES", topic.queue_count.to_string()),
            (
                "DEAD LETTERS OF",
                if topic.dead_letter_of.is_empty() { "-".to_owned() } else { topic.dead_letter_of.clone() },
            ),
            ("CREATED", rfc_3339(topic.created_at).unwrap_or_default()),
        ]);
        let rows = self.queues.iter().map(|queue| {
            let known = queue.unavailable.is_empty();
            let offset = |offset: u64| if known { offset.to_string() } else { "?".to_owned() };
            let takes = if queue.writable { "yes" } else { "no" };
            let (min, max) = (offset(queue.min_offset), offset(queue.max_offset));
            [queue.queue_id.to_string(), queue.store_group.clone(), takes.to_owned(), min, max]
        });
        format!("{head}\n{}", table(["QUEUE", "STORE GROUP", "TAKES MESSAGES", "MIN OFFSET", "MAX OFFSET"], rows))
    }
}

impl Render for AlteredTopic {
    fn to_table(&self) -> String {
        format!("topic {} altered: {}\n", self.topic.name, in_words(&self.topic))
    }
}

impl Render for DeletedTopic {
    fn to_table(&self) -> String {
        format!("topic {} deleted\n", self.deleted)
    }
}

fn in_words(topic: &Topic) -> String {
    let queues = if topic.queue_count == 1 { "queue" } else { "queues" };
    format!("{}, {} {queues}", topic_type_name(topic.r#type()), topic.queue_count)
}

impl TopicType {
    fn to_wire(self) -> v1::TopicType {
        match self {
            TopicType::Normal => v1::TopicType::Normal,
            TopicType::Fifo => v1::TopicType::Fifo,
            TopicType::Delay => v1::TopicType::Delay,
            TopicType::Transaction => v1::TopicType::Transaction,
            TopicType::Mixed => v1::TopicType::Mixed,
        }
    }
}
