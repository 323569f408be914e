//! Not tests but tools for them: a producer to stop from outside, a consumer that drains a topic.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use rocketmq::error::ClientError;
use rocketmq::Producer;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, Instant};

use crate::fixture::{check, message, start_producer, Consumer, Fixture, Outcome, Problem, Sent, AWAIT, INVISIBLE};
use crate::{one_line, Options};

/// Time between two calls after the first of them failed.
const PAUSE: Duration = Duration::from_millis(200);

/// What the workers of a producing tool share.
struct Production {
    topic: String,
    options: Options,
    end: Instant,
    stopped: AtomicBool,
    number: AtomicU64,
    acked: AtomicU64,
    errors: AtomicU64,
}

impl Production {
    fn is_running(&self) -> bool {
        !self.stopped.load(Relaxed) && Instant::now() < self.end
    }

    /// Produces with one producer after another: this one neither reopens the telemetry stream
    /// that the server's death broke nor stops reading from it.
    async fn work(self: Arc<Self>) {
        while self.is_running() {
            match start_producer(&self.topic, &self.options).await {
                Ok(producer) => self.produce_until_error(producer).await,
                Err(error) => {
                    eprintln!("no producer: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn produce_until_error(&self, producer: Producer) {
        while self.is_running() {
            let number = 1 + self.number.fetch_add(1, Relaxed);
            match send(&producer, &self.topic, number).await {
                Ok(id) => {
                    self.acked.fetch_add(1, Relaxed);
                    say(format!("ACKED {number} {id}"));
                }
                Err(error) => {
                    self.errors.fetch_add(1, Relaxed);
                    say(format!("ERROR {number} {error}"));
                    sleep(PAUSE).await;
                    return;
                }
            }
        }
        if let Err(error) = producer.shutdown().await {
            eprintln!("shutting the producer down: {error}");
        }
    }
}

pub async fn produce_until_stopped(fixture: &mut Fixture) -> Outcome {
    let production = Arc::new(Production {
        topic: fixture.topic.clone(),
        options: fixture.options.clone(),
        end: Instant::now() + fixture.remaining(),
        stopped: AtomicBool::new(false),
        number: AtomicU64::new(0),
        acked: AtomicU64::new(0),
        errors: AtomicU64::new(0),
    });
    let watched = production.clone();
    tokio::spawn(async move {
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
        watched.stopped.store(true, Relaxed);
    });
    let mut workers = JoinSet::new();
    for _ in 0..fixture.options.inflight {
        workers.spawn(production.clone().work());
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|panic| Problem::Failure(panic.to_string()))?;
    }
    fixture.counts = format!(
        "acked={} errors={}",
        production.acked.load(Relaxed),
        production.errors.load(Relaxed)
    );
    Ok(())
}

pub async fn consume_until_quiet(fixture: &mut Fixture) -> Outcome {
    let topic = fixture
        .options
        .topic
        .clone()
        .unwrap_or_else(|| fixture.name_for("produce-until-stopped"));
    let quiet = fixture.options.quiet;
    let consumer = fixture
        .consumer_of(topic, fixture.group.clone(), "*", AWAIT.min(quiet))
        .await?;
    let (mut received, mut errors, mut heard) = (0, 0, Instant::now());
    while heard.elapsed() < quiet {
        check(!fixture.remaining().is_zero(), || {
            format!("no {quiet:?} of quiet within {:?}", fixture.options.timeout)
        })?;
        let before = received;
        let result = consume(&consumer, &mut received).await;
        // A server that fails is not a quiet one.
        if received > before || result.is_err() {
            heard = Instant::now();
        }
        if let Err(error) = result {
            errors += 1;
            say(format!("ERROR {error}"));
            sleep(PAUSE).await;
        }
    }
    fixture.counts = format!("received={received} errors={errors}");
    Ok(())
}

/// Receives once, and acknowledges what came all at once.
async fn consume(consumer: &Consumer, received: &mut u64) -> Result<(), ClientError> {
    let mut acks = JoinSet::new();
    for message in consumer.receive(INVISIBLE).await? {
        let body = String::from_utf8_lossy(message.body());
        say(format!(
            "RECEIVED {body} {} {}",
            message.message_id(),
            message.delivery_attempt()
        ));
        *received += 1;
        let consumer = consumer.clone();
        acks.spawn(async move { consumer.ack(&message).await });
    }
    acks.join_all().await.into_iter().collect()
}

async fn send(producer: &Producer, topic: &str, number: u64) -> Result<String, ClientError> {
    let receipt = producer.send(message(topic, &Sent::new(number.to_string()))?).await?;
    Ok(receipt.message_id().to_owned())
}

/// Prints one line.
fn say(line: String) {
    println!("{}", one_line(&line));
}
