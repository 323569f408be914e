//! `gantry admin topic …`

use super::client::Client;
use super::render::{OutputFormat, Render, instant, properties, show, table};
use clap::{Args, Subcommand, ValueEnum};
use gantry_proto::model::limits::QUEUE_COUNT_MAX;
use gantry_proto::wire::admin::v1;
use serde::Serialize;

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
            show(&CreatedTopic { created: answer.created, topic: Topic::from_wire(answer.topic) }, output)
        }
        TopicCommand::List { prefix } => show(&list(&mut client, prefix).await?, output),
        TopicCommand::Describe { name } => {
            let answer = client.api.describe_topic(v1::DescribeTopicRequest { name }).await;
            let answer = client.answer(answer)?;
            let queues = answer.queues.iter().map(Queue::from_wire).collect();
            show(&DescribedTopic { topic: Topic::from_wire(answer.topic), queues }, output)
        }
        TopicCommand::Alter { name, changes } => {
            let r#type = changes.topic_type.map(|topic_type| topic_type.to_wire().into());
            let request = v1::AlterTopicRequest { name, r#type, queue_count: changes.queues };
            let answer = client.api.alter_topic(request).await;
            show(&AlteredTopic { topic: Topic::from_wire(client.answer(answer)?.topic) }, output)
        }
        TopicCommand::Delete { name } => {
            let answer = client.api.delete_topic(v1::DeleteTopicRequest { name: name.clone() }).await;
            client.answer(answer)?;
            show(&DeletedTopic { deleted: name }, output)
        }
    }
}

async fn list(client: &mut Client, prefix: String) -> anyhow::Result<TopicList> {
    let mut topics = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListTopicsRequest { prefix: prefix.clone(), page_size: 0, page_token };
        let answer = client.api.list_topics(request).await;
        let page = client.answer(answer)?;
        topics.extend(page.topics.into_iter().map(|topic| Topic::from_wire(Some(topic))));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(TopicList { topics });
        }
    }
}

#[derive(Serialize)]
struct Topic {
    name: String,
    r#type: &'static str,
    queue_count: u32,
    dead_letter_of: Option<String>,
    created_at: Option<String>,
}

#[derive(Serialize)]
struct Queue {
    queue_id: u32,
    min_offset: u64,
    max_offset: u64,
    store_group: String,
    writable: bool,
    unavailable: Option<String>,
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
    queues: Vec<Queue>,
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
        format!("topic {} {did}: {}\n", self.topic.name, self.topic.in_words())
    }
}

impl Render for TopicList {
    fn to_table(&self) -> String {
        let rows = self.topics.iter().map(|topic| {
            let created_at = topic.created_at.clone().unwrap_or_default();
            [topic.name.clone(), topic.r#type.to_owned(), topic.queue_count.to_string(), created_at]
        });
        table(["NAME", "TYPE", "QUEUES", "CREATED"], rows)
    }
}

impl Render for DescribedTopic {
    fn to_table(&self) -> String {
        let topic = &self.topic;
        let head = properties([
            ("NAME", topic.name.clone()),
            ("TYPE", topic.r#type.to_owned()),
            ("QUEUES", topic.queue_count.to_string()),
            ("DEAD LETTERS OF", topic.dead_letter_of.clone().unwrap_or_else(|| "-".to_owned())),
            ("CREATED", topic.created_at.clone().unwrap_or_default()),
        ]);
        let rows = self.queues.iter().map(|queue| {
            let offset = |offset: u64| queue.unavailable.clone().map_or_else(|| offset.to_string(), |_| "?".to_owned());
            let takes = if queue.writable { "yes" } else { "no" };
            let (min, max) = (offset(queue.min_offset), offset(queue.max_offset));
            [queue.queue_id.to_string(), queue.store_group.clone(), takes.to_owned(), min, max]
        });
        format!("{head}\n{}", table(["QUEUE", "STORE GROUP", "TAKES MESSAGES", "MIN OFFSET", "MAX OFFSET"], rows))
    }
}

impl Render for AlteredTopic {
    fn to_table(&self) -> String {
        format!("topic {} altered: {}\n", self.topic.name, self.topic.in_words())
    }
}

impl Render for DeletedTopic {
    fn to_table(&self) -> String {
        format!("topic {} deleted\n", self.deleted)
    }
}

impl Topic {
    fn from_wire(topic: Option<v1::Topic>) -> Topic {
        let topic = topic.unwrap_or_default();
        Topic {
            r#type: type_name(topic.r#type()),
            queue_count: topic.queue_count,
            dead_letter_of: Some(topic.dead_letter_of).filter(|group| !group.is_empty()),
            created_at: instant(topic.created_at),
            name: topic.name,
        }
    }

    fn in_words(&self) -> String {
        let queues = if self.queue_count == 1 { "queue" } else { "queues" };
        format!("{}, {} {queues}", self.r#type, self.queue_count)
    }
}

impl Queue {
    fn from_wire(queue: &v1::QueueRange) -> Queue {
        Queue {
            queue_id: queue.queue_id,
            min_offset: queue.min_offset,
            max_offset: queue.max_offset,
            store_group: queue.store_group.clone(),
            writable: queue.writable,
            unavailable: Some(queue.unavailable.clone()).filter(|reason| !reason.is_empty()),
        }
    }
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

fn type_name(topic_type: v1::TopicType) -> &'static str {
    match topic_type {
        v1::TopicType::Unspecified => "unknown",
        v1::TopicType::Normal => "normal",
        v1::TopicType::Fifo => "fifo",
        v1::TopicType::Delay => "delay",
        v1::TopicType::Transaction => "transaction",
        v1::TopicType::Mixed => "mixed",
    }
}
