//! Compiles our `.proto` files without a system `protoc`, and keeps the descriptor set for the wire test.

use prost::Message as _;
use std::path::PathBuf;

const FILES: [&str; 6] = [
    "apache/rocketmq/v2/service.proto",
    "apache/rocketmq/v2/admin.proto",
    "gantry/admin/v1/admin.proto",
    "gantry/store/v1/store.proto",
    "gantry/controller/v1/controller.proto",
    "gantry/controller/v1/raft.proto",
];

/// Messages of the operator's API that `gantry admin --output json` prints.
const SHOWN: [&str; 4] = ["Topic", "QueueRange", "Group", "GroupProgress"];
/// Their fields that are not printed as they are, and the function of `wire::admin::json` that prints them.
const SHOWN_AS: [(&str, &str); 6] = [
    ("Topic.type", "topic_type"),
    ("Topic.dead_letter_of", "unless_empty"),
    ("Topic.created_at", "instant"),
    ("QueueRange.unavailable", "unless_empty"),
    ("Group.backoff", "backoff"),
    ("Group.created_at", "instant"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut code = tonic_prost_build::configure().bytes(".");
    for message in SHOWN {
        code = code.type_attribute(format!("gantry.admin.v1.{message}"), "#[derive(serde::Serialize)]");
    }
    for (field, how) in SHOWN_AS {
        let attribute = format!("#[serde(serialize_with = \"crate::wire::admin::json::{how}\")]");
        code = code.field_attribute(format!("gantry.admin.v1.{field}"), attribute);
    }
    code.compile_fds(descriptors)?;
    Ok(())
}
