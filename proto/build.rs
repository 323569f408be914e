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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
