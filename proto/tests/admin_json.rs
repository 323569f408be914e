//! What `gantry admin --output json` prints of topics and groups.

use gantry_proto::wire::admin::json::rfc_3339;
use gantry_proto::wire::admin::v1;
use gantry_proto::wire::admin::v1::backoff_policy::Strategy;
use prost_types::{Duration, Timestamp};
use serde_json::{json, to_value};

#[test]
fn instants_are_rfc_3339() {
    let shown = |seconds, nanos| rfc_3339(Some(Timestamp { seconds, nanos }));
    assert_eq!(shown(1_700_000_000, 5_000_000).as_deref(), Some("2023-11-14T22:13:20.005Z"));
    assert_eq!(shown(-1, 0), None);
    assert_eq!(shown(i64::MAX, 0), None);
}

#[test]
fn topics_and_groups_are_written_as_scripts_read_them() {
    let created_at = Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 });
    let mut topic = v1::Topic { name: "orders".to_owned(), queue_count: 8, created_at, ..Default::default() };
    topic.set_type(v1::TopicType::Fifo);
    let written = json!({
        "name": "orders", "type": "fifo", "queue_count": 8, "dead_letter_of": null,
        "created_at": "2023-11-14T22:13:20.005Z"
    });
    assert_eq!(to_value(&topic).unwrap(), written);
    let second = Some(Duration { seconds: 1, nanos: 0 });
    let exponential = v1::ExponentialBackoff { initial: second, max: second, multiplier: 2.0 };
    let backoff = v1::BackoffPolicy { strategy: Some(Strategy::Exponential(exponential)) };
    let mut group = v1::Group { name: "billing".to_owned(), max_attempts: 3, ..Default::default() };
    assert_eq!(to_value(&group).unwrap()["backoff"], json!(null));
    group.backoff = Some(backoff);
    let written = json!({
        "name": "billing", "fifo": false, "max_attempts": 3, "dead_letter_topic": "", "created_at": null,
        "backoff": { "kind": "exponential", "initial_ms": 1000, "max_ms": 1000, "multiplier": 2.0 }
    });
    assert_eq!(to_value(&group).unwrap(), written);
    let customized = v1::CustomizedBackoff { next: second.into_iter().collect() };
    group.backoff = Some(v1::BackoffPolicy { strategy: Some(Strategy::Customized(customized)) });
    let written = json!({ "kind": "customized", "next_ms": [1000] });
    assert_eq!(to_value(&group).unwrap()["backoff"], written);
}
