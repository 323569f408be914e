//! Simulated clients: they speak the client protocol as official ones do, through any proxy, and record what they asked and
//! what they were told.

mod connection;
mod consumer;
mod members;
mod operator;
mod producer;
mod push;
mod session;

pub use consumer::consume;
pub use operator::operate;
pub use producer::produce;
pub use push::push;

use std::time::Duration;

/// A span as the protocol writes it.
fn to_wire(span: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: span.as_secs() as i64, nanos: span.subsec_nanos() as i32 }
}
