//! Names of topics and groups. The namespace of a `Resource` is echoed and otherwise ignored, as clients expect.

use super::Refusal;
use gantry_proto::model::{GroupName, TopicName};
use gantry_proto::wire::v2::Resource;

/// The plain name; empty if there is no resource.
pub(crate) fn resource_name(resource: Option<&Resource>) -> &str {
    resource.map(|resource| resource.name.as_str()).unwrap_or_default()
}

/// Whether no name is given: some clients send an empty resource where others send none.
pub(crate) fn is_blank(resource: Option<&Resource>) -> bool {
    resource_name(resource).trim().is_empty()
}

pub(crate) fn topic_name(resource: Option<&Resource>) -> Result<TopicName, Refusal> {
    TopicName::parse(resource_name(resource)).map_err(|error| Refusal::illegal_topic(&error))
}

pub(crate) fn group_name(resource: Option<&Resource>) -> Result<GroupName, Refusal> {
    GroupName::parse(resource_name(resource)).map_err(|error| Refusal::illegal_group(&error))
}
