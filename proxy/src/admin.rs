//! The operator's API: topics and consumer groups here, the cluster in `cluster`. Errors are gRPC statuses: its clients are
//! Gantry's own.
//!
//! A change is answered once this proxy's view shows it, so the next call sees it, too.

mod cluster;
mod statuses;

pub(crate) use cluster::Cluster;

use crate::messaging::Messaging;
use crate::stores::RoutedQueue;
use crate::translate::{duration, duration_to_wire, timestamp_to_wire};
use gantry_proto::contract::{MetadataError, QueueStatus};
use gantry_proto::model::{self, GroupName, InvalidName, MetadataCommand, MetadataOutcome, MetadataRefusal, TopicName};
use gantry_proto::wire::admin::v1::admin_service_server::AdminService;
use gantry_proto::wire::admin::v1::{self as wire, backoff_policy::Strategy};
use statuses::{failed, refused, store_failed, unexpected_outcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Paths of the methods for topics and groups begin with this.
pub(crate) const SERVICE_PATH: &str = "/gantry.admin.v1.AdminService/";
/// Paths of the methods for the cluster begin with this.
pub(crate) const CLUSTER_SERVICE_PATH: &str = "/gantry.admin.v1.ClusterService/";

/// Entries of a page: the most, and the default.
const PAGE_SIZE: usize = 1000;

/// Answers operators.
pub(crate) struct Admin {
    messaging: Arc<Messaging>,
}

impl Admin {
    pub(crate) fn new(messaging: Arc<Messaging>) -> Admin {
        Admin { messaging }
    }

    fn view(&self) -> &model::MetadataView {
        self.messaging.directory.view()
    }

    async fn propose(&self, command: MetadataCommand) -> Result<MetadataOutcome, MetadataError> {
        self.messaging.directory.propose(command).await
    }

    fn topic(&self, name: &TopicName) -> Result<Arc<model::Topic>, Status> {
        self.view().topic(name.as_str()).ok_or_else(|| refused(&MetadataRefusal::TopicNotFound(name.clone())))
    }

    fn group(&self, name: &GroupName) -> Result<Arc<model::ConsumerGroup>, Status> {
        self.view().group(name.as_str()).ok_or_else(|| refused(&MetadataRefusal::GroupNotFound(name.clone())))
    }

    fn topic_to_wire(&self, topic: &model::Topic) -> wire::Topic {
        let topic_type = match topic.topic_type {
            model::TopicType::Normal => wire::TopicType::Normal,
            model::TopicType::Fifo => wire::TopicType::Fifo,
            model::TopicType::Delay => wire::TopicType::Delay,
            model::TopicType::Transaction => wire::TopicType::Transaction,
            model::TopicType::Mixed => wire::TopicType::Mixed,
        };
        wire::Topic {
            name: topic.name.to_string(),
            r#type: topic_type as i32,
            queue_count: self.view().queues_of(topic).len() as u32,
            dead_letter_of: topic.dead_letter_of.as_ref().map(GroupName::to_string).unwrap_or_default(),
            created_at: Some(timestamp_to_wire(topic.created_at)),
        }
    }

    fn group_to_wire(&self, group: &model::ConsumerGroup) -> wire::Group {
        let dead_letter_topic = self.view().topic_by_id(group.dead_letter_topic);
        wire::Group {
            name: group.name.to_string(),
            fifo: group.fifo,
            max_attempts: group.max_attempts,
            backoff: Some(backoff_to_wire(&group.backoff)),
            dead_letter_topic: dead_letter_topic.map(|topic| topic.name.to_string()).unwrap_or_default(),
            created_at: Some(timestamp_to_wire(group.created_at)),
        }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn create_topic(
        &self,
        request: Request<wire::CreateTopicRequest>,
    ) -> Result<Response<wire::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let topic_type = topic_type(request.r#type)?.unwrap_or(model::TopicType::Normal);
        let queue_count = match request.queue_count {
            0 => self.messaging.config.queue_count_default,
            asked => asked,
        };
        let command = MetadataCommand::CreateTopic { name: topic_name(&request.name)?, topic_type, queue_count };
        let (topic, created) = match self.propose(command).await {
            Ok(outcome) => (topic_outcome(outcome)?, true),
            Err(MetadataError::Refused(MetadataRefusal::TopicExists(topic))) if request.if_not_exists => (topic, false),
            Err(error) => return Err(failed(error)),
        };
        Ok(Response::new(wire::CreateTopicResponse { topic: Some(self.topic_to_wire(&topic)), created }))
    }

    async fn alter_topic(
        &self,
        request: Request<wire::AlterTopicRequest>,
    ) -> Result<Response<wire::AlterTopicResponse>, Status> {
        let request = request.into_inner();
        let command = MetadataCommand::AlterTopic {
            name: topic_name(&request.name)?,
            topic_type: request.r#type.map(topic_type).transpose()?.flatten(),
            queue_count: request.queue_count,
        };
        let topic = topic_outcome(self.propose(command).await.map_err(failed)?)?;
        Ok(Response::new(wire::AlterTopicResponse { topic: Some(self.topic_to_wire(&topic)) }))
    }

    async fn describe_topic(
        &self,
        request: Request<wire::DescribeTopicRequest>,
    ) -> Result<Response<wire::DescribeTopicResponse>, Status> {
        let topic = self.topic(&topic_name(&request.into_inner().name)?)?;
        let (mut known, mut failures) = (BTreeMap::new(), BTreeMap::new());
        for (store_group, answer) in self.messaging.stores.queues(&topic).await {
            match answer {
                Ok(queues) => known.extend(queues.into_iter().map(|status| (status.queue, status))),
                Err(error) => drop(failures.insert(store_group.id, error)),
            }
        }
        let routed_queues = self.messaging.stores.queues_of(&topic);
        if routed_queues.iter().all(|routed| failures.contains_key(&routed.store_group.id))
            && let Some((_, error)) = failures.pop_first()
        {
            return Err(store_failed(error));
        }
        let range = |routed: &RoutedQueue| {
            let status = known.get(&routed.queue);
            let failure = failures.get(&routed.store_group.id);
            wire::QueueRange {
                queue_id: routed.queue.0,
                min_offset: status.map_or(0, |status: &QueueStatus| status.min_offset.0),
                max_offset: status.map_or(0, |status| status.max_offset.0),
                store_group: routed.store_group.name.to_string(),
                writable: routed.writable,
                unavailable: failure.map(ToString::to_string).unwrap_or_default(),
            }
        };
        let queues = routed_queues.iter().map(range).collect();
        Ok(Response::new(wire::DescribeTopicResponse { topic: Some(self.topic_to_wire(&topic)), queues }))
    }

    async fn list_topics(
        &self,
        request: Request<wire::ListTopicsRequest>,
    ) -> Result<Response<wire::ListTopicsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size);
        let mut topics = self.view().topics_page(&request.prefix, &request.page_token, size + 1);
        let next_page_token = cut_page(&mut topics, size, |topic| topic.name.to_string());
        let topics = topics.iter().map(|topic| self.topic_to_wire(topic)).collect();
        Ok(Response::new(wire::ListTopicsResponse { topics, next_page_token }))
    }

    async fn delete_topic(
        &self,
        request: Request<wire::DeleteTopicRequest>,
    ) -> Result<Response<wire::DeleteTopicResponse>, Status> {
        let name = topic_name(&request.into_inner().name)?;
        self.propose(MetadataCommand::DeleteTopic { name }).await.map_err(failed)?;
        Ok(Response::new(wire::DeleteTopicResponse {}))
    }

    async fn create_group(
        &self,
        request: Request<wire::CreateGroupRequest>,
    ) -> Result<Response<wire::CreateGroupResponse>, Status> {
        let request = request.into_inner();
        let command = MetadataCommand::CreateGroup {
            name: group_name(&request.name)?,
            fifo: request.fifo,
            max_attempts: match request.max_attempts {
                0 => self.messaging.config.max_attempts_default,
                asked => asked,
            },
            backoff: request.backoff.map(backoff).transpose()?.unwrap_or_default(),
        };
        let (group, created) = match self.propose(command).await {
            Ok(outcome) => (group_outcome(outcome)?, true),
            Err(MetadataError::Refused(MetadataRefusal::GroupExists(group))) if request.if_not_exists => (group, false),
            Err(error) => return Err(failed(error)),
        };
        Ok(Response::new(wire::CreateGroupResponse { group: Some(self.group_to_wire(&group)), created }))
    }

    async fn alter_group(
        &self,
        request: Request<wire::AlterGroupRequest>,
    ) -> Result<Response<wire::AlterGroupResponse>, Status> {
        let request = request.into_inner();
        let command = MetadataCommand::AlterGroup {
            name: group_name(&request.name)?,
            fifo: request.fifo,
            max_attempts: request.max_attempts,
            backoff: request.backoff.map(backoff).transpose()?,
        };
        let group = group_outcome(self.propose(command).await.map_err(failed)?)?;
        Ok(Response::new(wire::AlterGroupResponse { group: Some(self.group_to_wire(&group)) }))
    }

    async fn describe_group(
        &self,
        request: Request<wire::DescribeGroupRequest>,
    ) -> Result<Response<wire::DescribeGroupResponse>, Status> {
        let group = self.group(&group_name(&request.into_inner().name)?)?;
        let answers = self.messaging.stores.progress(group.id).await;
        let asked = answers.len();
        let mut by_topic = BTreeMap::<String, wire::GroupProgress>::new();
        let mut failures = Vec::new();
        for (store_group, answer) in answers {
            let progress = match answer {
                Ok(progress) => progress,
                Err(error) => {
                    failures.push((store_group.name.to_string(), error));
                    continue;
                }
            };
            for part in progress {
                // A topic that was deleted has no name any more, and nothing of it will be delivered.
                let Some(topic) = self.view().topic_by_id(part.topic) else { continue };
                let name = topic.name.to_string();
                let sum = by_topic
                    .entry(name.clone())
                    .or_insert_with(|| wire::GroupProgress { topic: name, ..wire::GroupProgress::default() });
                sum.ready += part.ready;
                sum.inflight += part.inflight;
                sum.damaged += part.damaged;
            }
        }
        if failures.len() == asked
            && let Some((_, error)) = failures.pop()
        {
            return Err(store_failed(error));
        }
        Ok(Response::new(wire::DescribeGroupResponse {
            group: Some(self.group_to_wire(&group)),
            progress: by_topic.into_values().collect(),
            unavailable_store_groups: failures.into_iter().map(|(name, _)| name).collect(),
        }))
    }

    async fn list_groups(
        &self,
        request: Request<wire::ListGroupsRequest>,
    ) -> Result<Response<wire::ListGroupsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size);
        let mut groups = self.view().groups_page(&request.prefix, &request.page_token, size + 1);
        let next_page_token = cut_page(&mut groups, size, |group| group.name.to_string());
        let groups = groups.iter().map(|group| self.group_to_wire(group)).collect();
        Ok(Response::new(wire::ListGroupsResponse { groups, next_page_token }))
    }

    async fn delete_group(
        &self,
        request: Request<wire::DeleteGroupRequest>,
    ) -> Result<Response<wire::DeleteGroupResponse>, Status> {
        let name = group_name(&request.into_inner().name)?;
        self.propose(MetadataCommand::DeleteGroup { name }).await.map_err(failed)?;
        Ok(Response::new(wire::DeleteGroupResponse {}))
    }
}

fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => PAGE_SIZE,
        asked => asked.min(PAGE_SIZE),
    }
}

/// Removes the one entry too many that was asked for, and returns where the next page begins; empty if there is none.
fn cut_page<T>(entries: &mut Vec<T>, size: usize, name: impl Fn(&T) -> String) -> String {
    let more = entries.len() > size;
    entries.truncate(size);
    if more { entries.last().map(name).unwrap_or_default() } else { String::new() }
}

fn topic_name(name: &str) -> Result<TopicName, Status> {
    TopicName::parse(name).map_err(|error| invalid_name("topic", &error))
}

fn group_name(name: &str) -> Result<GroupName, Status> {
    GroupName::parse(name).map_err(|error| invalid_name("consumer group", &error))
}

fn invalid_name(what: &str, error: &InvalidName) -> Status {
    Status::invalid_argument(format!("{what}: {error}"))
}

/// `None`: unspecified.
fn topic_type(number: i32) -> Result<Option<model::TopicType>, Status> {
    Ok(match wire::TopicType::try_from(number) {
        Ok(wire::TopicType::Unspecified) => None,
        Ok(wire::TopicType::Normal) => Some(model::TopicType::Normal),
        Ok(wire::TopicType::Fifo) => Some(model::TopicType::Fifo),
        Ok(wire::TopicType::Delay) => Some(model::TopicType::Delay),
        Ok(wire::TopicType::Transaction) => Some(model::TopicType::Transaction),
        Ok(wire::TopicType::Mixed) => Some(model::TopicType::Mixed),
        Err(_) => return Err(Status::invalid_argument(format!("topic type {number} is not known"))),
    })
}

fn backoff(policy: wire::BackoffPolicy) -> Result<model::BackoffPolicy, Status> {
    let impossible = || Status::invalid_argument("a backoff duration is missing or negative");
    let parse = |wire: Option<prost_types::Duration>| wire.as_ref().and_then(duration).ok_or_else(impossible);
    match policy.strategy {
        None => Err(Status::invalid_argument("the backoff policy has no strategy")),
        Some(Strategy::Customized(customized)) => Ok(model::BackoffPolicy::Customized(
            customized.next.into_iter().map(|next| parse(Some(next))).collect::<Result<_, _>>()?,
        )),
        Some(Strategy::Exponential(exponential)) => Ok(model::BackoffPolicy::Exponential {
            initial: parse(exponential.initial)?,
            max: parse(exponential.max)?,
            multiplier: exponential.multiplier,
        }),
    }
}

fn backoff_to_wire(policy: &model::BackoffPolicy) -> wire::BackoffPolicy {
    let strategy = match policy {
        model::BackoffPolicy::Customized(next) => Strategy::Customized(wire::CustomizedBackoff {
            next: next.iter().map(|next| duration_to_wire(*next)).collect(),
        }),
        model::BackoffPolicy::Exponential { initial, max, multiplier } => {
            Strategy::Exponential(wire::ExponentialBackoff {
                initial: Some(duration_to_wire(*initial)),
                max: Some(duration_to_wire(*max)),
                multiplier: *multiplier,
            })
        }
    };
    wire::BackoffPolicy { strategy: Some(strategy) }
}

fn topic_outcome(outcome: MetadataOutcome) -> Result<Arc<model::Topic>, Status> {
    match outcome {
        MetadataOutcome::Topic(topic) => Ok(topic),
        _ => Err(unexpected_outcome()),
    }
}

fn group_outcome(outcome: MetadataOutcome) -> Result<Arc<model::ConsumerGroup>, Status> {
    match outcome {
        MetadataOutcome::Group(group) => Ok(group),
        _ => Err(unexpected_outcome()),
    }
}
