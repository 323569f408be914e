//! The services of a member: each call is answered here if this member leads, and by the one that leads if not. A call is
//! passed on once at most; the one that it reaches answers or says that it cannot.

mod answers;
mod membership;
mod metadata;
mod peer;
mod requests;

use crate::codec::{CodecError, Reader};
use crate::controller::Controller;
use crate::raft::{Kind, Leader, NodeError};
use bytes::Bytes;

/// Where a call is to be answered.
enum Route {
    Here,
    /// The answer of the member that leads.
    Answered(Bytes),
}

impl Controller {
    /// Passes a call on to the member that leads, unless it is this one.
    async fn route(&self, kind: Kind, message: impl FnOnce() -> Vec<u8>) -> Result<Route, NodeError> {
        if self.is_stopping() {
            return Err(NodeError::Unavailable("the controller is stopping".to_owned()));
        }
        match self.core.node.find_leader().await? {
            Leader::Here => Ok(Route::Here),
            Leader::Other { id, address } => {
                self.core.node.call(id, &address, kind, &message()).await.map(Route::Answered)
            }
            Leader::Unknown => Err(NodeError::Unavailable("no member of the controller leads".to_owned())),
        }
    }
}

/// An answer that came from another member.
fn decoded<T>(answer: &Bytes, read: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>) -> Result<T, NodeError> {
    // It was heard; that its answer is not understood says nothing about what it did.
    crate::raft::whole(answer, read).map_err(|error| NodeError::Unknown(error.to_string()))
}
