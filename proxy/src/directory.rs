//! Topics and consumer groups by name, from the watched metadata; created on first use where the configuration allows it.
//!
//! Reading never waits. Creating asks the metadata service, and then waits until this proxy's own view shows the result, so
//! that the next call of the same client finds it. All of that ends at one deadline: the call's, or a little after it began
//! to wait.

mod creation_rate;

use crate::stores::Deadline;
use crate::translate::Refusal;
use creation_rate::CreationRate;
use gantry_proto::contract::{MetadataError, MetadataService};
use gantry_proto::model::{
    BackoffPolicy, ConsumerGroup, GroupName, InvalidName, MetadataCommand, MetadataOutcome, MetadataRefusal,
    MetadataVersion, MetadataView, Topic, TopicName, TopicType,
};
use gantry_proto::wire::v2::Code;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client's call waits for the metadata service. Clients wait 3 s for a route.
const METADATA_PATIENCE: Duration = Duration::from_secs(2);

/// Topics and groups as this proxy sees them.
pub(crate) struct Directory {
    view: Arc<MetadataView>,
    metadata: Arc<dyn MetadataService>,
    creation: CreationRules,
    /// One creation at a time: when a thousand clients start together, the first one creates and the others find it.
    creating: tokio::sync::Mutex<CreationRate>,
}

/// What is created when a client names it for the first time, and with which settings.
pub(crate) struct CreationRules {
    pub(crate) topics: bool,
    pub(crate) queue_count: u32,
    pub(crate) groups: bool,
    pub(crate) max_attempts: u32,
    /// How many per second, in the long run.
    pub(crate) rate: u32,
    /// With so many topics none is created on first use; likewise groups.
    pub(crate) number_max: usize,
}

impl Directory {
    pub(crate) fn new(
        view: Arc<MetadataView>,
        metadata: Arc<dyn MetadataService>,
        creation: CreationRules,
    ) -> Directory {
        let creating = tokio::sync::Mutex::new(CreationRate::new(creation.rate, Instant::now()));
        Directory { view, metadata, creation, creating }
    }

    /// Looks a topic up without copying its name; only a name that is not found is checked.
    pub(crate) fn topic(&self, name: &str) -> Result<Option<Arc<Topic>>, InvalidName> {
        match self.view.topic(name) {
            Some(topic) => Ok(Some(topic)),
            None => TopicName::parse(name).map(|_| None),
        }
    }

    /// Likewise, a consumer group.
    pub(crate) fn group(&self, name: &str) -> Result<Option<Arc<ConsumerGroup>>, InvalidName> {
        match self.view.group(name) {
            Some(group) => Ok(Some(group)),
            None => GroupName::parse(name).map(|_| None),
        }
    }

    /// The topic of that name. Creates it if there is none and that is allowed.
    pub(crate) async fn topic_or_create(&self, name: &TopicName, deadline: Deadline) -> Result<Arc<Topic>, Refusal> {
        if let Some(topic) = self.view.topic(name.as_str()) {
            return Ok(topic);
        }
        if !self.creation.topics || name.is_derived() {
            return Err(Refusal::topic_not_found(name.as_str()));
        }
        let command = MetadataCommand::CreateTopic {
            name: name.clone(),
            topic_type: TopicType::Mixed,
            queue_count: self.creation.queue_count,
        };
        self.create(("topic", name.as_str()), command, deadline, || self.view.topic(name.as_str())).await
    }

    /// The consumer group of that name. Creates it if there is none and that is allowed.
    pub(crate) async fn group_or_create(
        &self,
        name: &GroupName,
        deadline: Deadline,
    ) -> Result<Arc<ConsumerGroup>, Refusal> {
        if let Some(group) = self.view.group(name.as_str()) {
            return Ok(group);
        }
        if !self.creation.groups {
            return Err(Refusal::group_not_found(name.as_str()));
        }
        let command = MetadataCommand::CreateGroup {
            name: name.clone(),
            fifo: false,
            max_attempts: self.creation.max_attempts,
            backoff: BackoffPolicy::default(),
        };
        self.create(("consumer group", name.as_str()), command, deadline, || self.view.group(name.as_str())).await
    }

    /// Has a command carried out, and waits until the view shows its result.
    pub(crate) async fn propose(&self, command: MetadataCommand) -> Result<MetadataOutcome, MetadataError> {
        self.propose_until(command, Deadline::after(METADATA_PATIENCE)).await
    }

    async fn propose_until(&self, command: MetadataCommand, until: Deadline) -> Result<MetadataOutcome, MetadataError> {
        let proposed = async {
            let (version, outcome) = self.metadata.propose(command).await?;
            self.view.reached(version).await;
            Ok(outcome)
        };
        tokio::time::timeout_at(until.instant(), proposed)
            .await
            .unwrap_or_else(|_| Err(MetadataError::Unknown("no answer in time".to_owned())))
    }

    pub(crate) fn view(&self) -> &MetadataView {
        &self.view
    }

    async fn create<T>(
        &self,
        (kind, name): (&str, &str),
        command: MetadataCommand,
        deadline: Deadline,
        find: impl Fn() -> Option<Arc<T>>,
    ) -> Result<Arc<T>, Refusal> {
        let until = deadline.within(METADATA_PATIENCE);
        let mut one_at_a_time = tokio::time::timeout_at(until.instant(), self.creating.lock())
            .await
            .map_err(|_| Refusal::new(Code::ProxyTimeout, "too many topics and groups are being created; try again"))?;
        if let Some(found) = find() {
            return Ok(found);
        }
        let (topics, groups) = self.view.counts();
        let number = if kind == "topic" { topics } else { groups };
        if number >= self.creation.number_max {
            let full = format!("{kind} {name} does not exist, and with {number} of them none is created on first use");
            return Err(Refusal::new(Code::TooManyRequests, full));
        }
        if !one_at_a_time.admit(Instant::now()) {
            let fast = format!("{kind} {name} does not exist, and too many are being created on first use; try again");
            return Err(Refusal::new(Code::TooManyRequests, fast));
        }
        match self.propose_until(command, until).await {
            // "Exists": another proxy was faster, and its change is on its way to our view.
            Ok(_) | Err(MetadataError::Refused(MetadataRefusal::TopicExists(_) | MetadataRefusal::GroupExists(_))) => {}
            // Without the controller, topics and groups that exist go on, and new ones cannot be created.
            Err(error) => {
                let Refusal { code, message } = error.into();
                return Err(Refusal::new(code, format!("{kind} {name} does not exist and cannot be made: {message}")));
            }
        }
        let visible = async {
            loop {
                let seen = self.view.version();
                if let Some(found) = find() {
                    return found;
                }
                self.view.reached(MetadataVersion(seen.0 + 1)).await;
            }
        };
        tokio::time::timeout_at(until.instant(), visible)
            .await
            .map_err(|_| Refusal::new(Code::ProxyTimeout, "created, but not visible here yet; try again"))
    }
}
