//! A call's messages as they come in: how large one may be, what it may consist of, and how long it may take.
//!
//! [`MessageReader`] takes messages out of a request's body. A message's length is checked, and its memory taken, when the
//! five bytes before it are there and nothing of it is kept yet. [`Shape`] then tells from its bytes what decoding would make of
//! it. A decoder of our own makes the same checks as it goes (their limits are in [`limits`]) and needs no [`Shape`].

mod reader;
mod shape;
mod shapes;

pub(super) use reader::{MessageReader, Unread};
pub(super) use shape::Shape;
pub(super) use shapes::*;

use super::Messaging;
use crate::memory::Held;
use crate::translate::Refusal;
use bytes::Bytes;
use gantry_proto::model::limits;
use hyper::body::Incoming;
use std::time::Duration;
use tonic::Status;

/// What a request of one RPC may be.
#[derive(Clone, Copy)]
pub(super) struct RequestLimits {
    /// Bytes of the encoded message.
    pub(super) bytes_max: usize,
    /// What it may consist of. `None`: nothing in it repeats.
    pub(super) shape: Option<&'static Shape>,
}

impl RequestLimits {
    /// Of requests that say a few names and numbers.
    pub(super) const SMALL: RequestLimits = RequestLimits { bytes_max: limits::REQUEST_BYTES_MAX, shape: None };
}

/// Why there is no request.
pub(super) enum Rejected {
    /// Told in the answer's own status.
    Refused(Refusal),
    /// Told by gRPC: the call is not what the protocol says, or too large.
    Status(Status),
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Rejected {
        Rejected::Refused(refusal)
    }
}

impl From<Unread> for Rejected {
    fn from(unread: Unread) -> Rejected {
        match unread {
            Unread::Exhausted(error) => Rejected::Refused(error.into()),
            unread => Rejected::Status(unread.into()),
        }
    }
}

/// The one request of a call, decoded. What it takes is added to `held`.
pub(super) async fn read<R: prost::Message + Default>(
    messaging: &Messaging,
    body: Incoming,
    limits: RequestLimits,
    held: &mut Held,
) -> Result<R, Rejected> {
    let patience = messaging.config.request_timeout;
    let mut reader = MessageReader::new(body);
    let whole = tokio::time::timeout(patience, reader.only(limits.bytes_max, held)).await;
    let message = whole.map_err(|_| Rejected::Status(late(patience)))??;
    decode(message, limits, held)
}

/// Decodes a message that was read, after a look at what it will become.
pub(super) fn decode<R: prost::Message + Default>(
    message: Bytes,
    limits: RequestLimits,
    held: &mut Held,
) -> Result<R, Rejected> {
    if let Some(shape) = limits.shape {
        let weight = shape.weigh(&message).map_err(|error| match error {
            shape::Unfit::Malformed(error) => Rejected::Status(malformed(&error)),
            shape::Unfit::TooMuch(refusal) => Rejected::Refused(refusal),
        })?;
        held.grow(weight).map_err(Refusal::from)?;
    }
    R::decode(message).map_err(|error| Rejected::Status(malformed(&error)))
}

fn malformed(error: &prost::DecodeError) -> Status {
    Status::internal(format!("the request cannot be decoded: {error}"))
}

fn late(patience: Duration) -> Status {
    Status::deadline_exceeded(format!("the request did not arrive within {patience:?}"))
}
