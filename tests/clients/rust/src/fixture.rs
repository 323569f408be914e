//! What a scenario works with: names, clients that are closed after it, and waits that end.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use rocketmq::conf::{ClientOption, ProducerOption, SimpleConsumerOption};
use rocketmq::error::ClientError;
use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::{Message, MessageBuilder, MessageView};
use rocketmq::{Producer, SimpleConsumer};
use tokio::time::Instant;

use crate::Options;

/// How long a receive waits for a message.
pub const AWAIT: Duration = Duration::from_secs(3);
/// How long a received message stays with its receiver.
pub const INVISIBLE: Duration = Duration::from_secs(30);
const BATCH: i32 = 32;

pub type Outcome = Result<(), Problem>;

/// Why a scenario did not pass.
pub enum Problem {
    /// The server did not do what the scenario asks for.
    Failure(String),
    /// The client lacks what the scenario needs.
    Skip(String),
    Client(ClientError),
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Problem {
        Problem::Client(error)
    }
}

pub fn check(condition: bool, reason: impl FnOnce() -> String) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(Problem::Failure(reason()))
    }
}

pub fn expect<T: PartialEq + Debug>(what: &str, actual: T, expected: T) -> Outcome {
    check(actual == expected, || {
        format!("{what} is {actual:?}, expected {expected:?}")
    })
}

/// A message to send, and once it is, its id.
#[derive(Default)]
pub struct Sent {
    pub body: Vec<u8>,
    pub tag: Option<&'static str>,
    pub keys: Vec<String>,
    pub properties: HashMap<String, String>,
    pub id: String,
}

impl Sent {
    pub fn new(body: impl Into<Vec<u8>>) -> Sent {
        Sent {
            body: body.into(),
            ..Sent::default()
        }
    }

    /// Checks that `message` is this one, delivered for the `attempt`th time.
    pub fn verify(&self, message: &MessageView, attempt: i32) -> Outcome {
        let keys = |keys: &[String]| keys.iter().cloned().collect::<BTreeSet<_>>();
        expect("message id", message.message_id(), &self.id)?;
        expect(&format!("tag of {}", self.id), message.tag(), self.tag)?;
        expect(&format!("keys of {}", self.id), keys(message.keys()), keys(&self.keys))?;
        expect(
            &format!("properties of {}", self.id),
            message.properties(),
            &self.properties,
        )?;
        expect(
            &format!("delivery attempt of {}", self.id),
            message.delivery_attempt(),
            attempt,
        )?;
        self.verify_body(message)
    }

    pub fn verify_body(&self, message: &MessageView) -> Outcome {
        check(message.body() == self.body, || {
            format!("body of {} ({} bytes) came back changed", self.id, self.body.len())
        })
    }
}

/// A simple consumer of one topic.
#[derive(Clone)]
pub struct Consumer {
    client: Arc<SimpleConsumer>,
    topic: String,
    filter: Arc<FilterExpression>,
}

impl Consumer {
    pub async fn receive(&self, invisible: Duration) -> Result<Vec<MessageView>, ClientError> {
        self.client
            .receive_with(&self.topic, &self.filter, BATCH, invisible)
            .await
    }

    pub async fn ack(&self, message: &MessageView) -> Result<(), ClientError> {
        self.client.ack(message).await
    }
}

enum Client {
    Producer(Arc<Producer>),
    Consumer(Arc<SimpleConsumer>),
}

pub struct Fixture {
    pub options: Options,
    pub topic: String,
    pub group: String,
    /// What a tool did, for its result line.
    pub counts: String,
    deadline: Instant,
    clients: Vec<Client>,
}

impl Fixture {
    pub fn new(scenario: &str, options: Options) -> Fixture {
        let name = name_for(scenario, &options);
        Fixture {
            topic: options.topic.clone().unwrap_or_else(|| name.clone()),
            group: options.group.clone().unwrap_or_else(|| format!("{name}-group")),
            counts: String::new(),
            deadline: Instant::now() + options.timeout,
            clients: Vec::new(),
            options,
        }
    }

    pub fn name_for(&self, scenario: &str) -> String {
        name_for(scenario, &self.options)
    }

    /// What is left of the scenario's time.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub async fn producer(&mut self) -> Result<Arc<Producer>, ClientError> {
        let producer = Arc::new(start_producer(&self.topic, &self.options).await?);
        self.clients.push(Client::Producer(producer.clone()));
        Ok(producer)
    }

    /// A consumer of the scenario's topic.
    pub async fn consumer(&mut self, tags: &str, wait: Duration) -> Result<Consumer, ClientError> {
        self.consumer_of(self.topic.clone(), self.group.clone(), tags, wait)
            .await
    }

    pub async fn consumer_of(
        &mut self,
        topic: String,
        group: String,
        tags: &str,
        wait: Duration,
    ) -> Result<Consumer, ClientError> {
        let mut option = SimpleConsumerOption::default();
        option.set_topics(vec![topic.as_str()]);
        option.set_consumer_group(group);
        let mut client_option = client_option(&self.options);
        client_option.set_long_polling_timeout(wait);
        let mut client = SimpleConsumer::new(option, client_option)?;
        client.start().await?;
        let client = Arc::new(client);
        self.clients.push(Client::Consumer(client.clone()));
        let filter = Arc::new(FilterExpression::new(FilterType::Tag, tags));
        Ok(Consumer { client, topic, filter })
    }

    /// Sends one message to the scenario's topic and checks its receipt.
    pub async fn send(&self, producer: &Producer, mut sent: Sent) -> Result<Sent, Problem> {
        let receipt = producer.send(message(&self.topic, &sent)?).await?;
        sent.id = receipt.message_id().to_owned();
        check(is_message_id(&sent.id), || {
            format!("message id {:?} is not of version 1", sent.id)
        })?;
        Ok(sent)
    }

    /// Receives until `count` messages came; more are a failure.
    pub async fn receive(
        &self,
        consumer: &Consumer,
        count: usize,
        invisible: Duration,
    ) -> Result<Vec<MessageView>, Problem> {
        let mut messages = Vec::new();
        while messages.len() < count {
            check(!self.remaining().is_zero(), || {
                format!("{} of {count} messages came", messages.len())
            })?;
            messages.extend(consumer.receive(invisible).await?);
        }
        expect("number of messages", messages.len(), count)?;
        Ok(messages)
    }

    pub async fn receive_one(&self, consumer: &Consumer, invisible: Duration) -> Result<MessageView, Problem> {
        Ok(self.receive(consumer, 1, invisible).await?.remove(0))
    }

    pub async fn expect_nothing(&self, consumer: &Consumer) -> Outcome {
        let surplus = consumer.receive(INVISIBLE).await?;
        expect("what a further receive finds", ids(&surplus), Vec::new())
    }

    /// Shuts the clients down, the last one first.
    pub async fn close(&mut self) -> Outcome {
        while let Some(client) = self.clients.pop() {
            match client {
                Client::Producer(client) => close(client, Producer::shutdown).await?,
                Client::Consumer(client) => close(client, SimpleConsumer::shutdown).await?,
            }
        }
        Ok(())
    }
}

pub async fn start_producer(topic: &str, options: &Options) -> Result<Producer, ClientError> {
    let mut option = ProducerOption::default();
    option.set_topics(vec![topic]);
    let mut producer = Producer::new(option, client_option(options))?;
    producer.start().await?;
    Ok(producer)
}

pub fn message(topic: &str, sent: &Sent) -> Result<impl Message, ClientError> {
    let mut builder = MessageBuilder::builder()
        .set_topic(topic)
        .set_body(sent.body.clone())
        .set_keys(sent.keys.clone())
        .set_properties(sent.properties.clone());
    if let Some(tag) = sent.tag {
        builder = builder.set_tag(tag);
    }
    builder.build()
}

/// The sorted ids of the messages.
pub fn ids(messages: &[MessageView]) -> Vec<String> {
    let mut ids: Vec<_> = messages.iter().map(|message| message.message_id().to_owned()).collect();
    ids.sort();
    ids
}

fn name_for(scenario: &str, options: &Options) -> String {
    format!("{}-rust-{scenario}", options.prefix)
}

fn client_option(options: &Options) -> ClientOption {
    let mut option = ClientOption::default();
    option.set_access_url(&options.endpoint);
    option.set_enable_tls(options.tls);
    option
}

/// Version 1 of the client-made ids: 01, MAC address, process, time, counter.
fn is_message_id(id: &str) -> bool {
    id.len() == 34 && id.starts_with("01") && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Calls the client's `shutdown`, which wants it back; one that a stuck scenario still holds is left alone.
async fn close<C, F>(client: Arc<C>, shutdown: impl FnOnce(C) -> F) -> Result<(), ClientError>
where
    F: std::future::Future<Output = Result<(), ClientError>>,
{
    match Arc::into_inner(client) {
        Some(client) => shutdown(client).await,
        None => Ok(()),
    }
}
