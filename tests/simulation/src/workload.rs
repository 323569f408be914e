//! Simulated clients: they speak the client protocol as official ones do, through any proxy, and record what they asked and
//! what they were told.

mod consumer;
mod hurry;
mod members;
mod operator;
mod producer;
mod push;
mod session;

pub use consumer::consume;
pub use hurry::hurry;
pub use operator::operate;
pub use producer::produce;
pub use push::push;
