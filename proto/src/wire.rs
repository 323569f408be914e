//! Generated protocol types. The `.proto` files under `proto/proto` are the source and carry the documentation.

/// The client protocol, `apache.rocketmq.v2`. Held to the wire table by `tests/wire_table.rs`.
#[allow(unreachable_pub, clippy::all)]
pub mod v2 {
    tonic::include_proto!("apache.rocketmq.v2");
}

/// The operator's API, `gantry.admin.v1`.
pub mod admin {
    pub mod json;

    #[allow(unreachable_pub, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("gantry.admin.v1");
    }
}

/// Proxy to store, `gantry.store.v1`. Only `gantry-link` uses it.
pub mod store {
    #[allow(unreachable_pub, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("gantry.store.v1");
    }
}

/// To, in and among controllers, `gantry.controller.v1`: calls, and what the members keep. See [`crate::convert`].
pub mod controller {
    #[allow(unreachable_pub, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("gantry.controller.v1");
    }
}

/// Every compiled file as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
