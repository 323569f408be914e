use super::channel::Channel;
use super::dialer::Dialer;
use super::introduction::is_refusal;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

/// How long no new attempt is made after an address could not be reached.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// One address, and the connection to it that all calls share. It is made when a call needs it.
pub(crate) struct Peer {
    address: String,
    dialer: Dialer,
    /// Locked while the connection is made: other calls wait for it.
    channel: AsyncMutex<Option<Channel>>,
    failed: Mutex<Option<(Instant, String)>>,
}

/// Why a call brought no answer.
#[derive(Debug)]
pub(crate) enum CallFailure {
    /// It was not sent.
    NotSent(String),
    /// It may have been carried out.
    Unknown(String),
}

impl Peer {
    pub(crate) fn new(address: &str, dialer: Dialer) -> Arc<Peer> {
        let (channel, failed) = (AsyncMutex::new(None), Mutex::new(None));
        Arc::new(Peer { address: address.to_owned(), dialer, channel, failed })
    }

    /// The connection. Makes it if there is none that works.
    pub(crate) async fn channel(&self) -> Result<Channel, String> {
        let mut place = self.channel.lock().await;
        if let Some(channel) = place.as_ref().filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        *place = None;
        if let Some((at, why)) = self.failed.lock().as_ref()
            && at.elapsed() < UNREACHABLE_PAUSE
        {
            return Err(why.clone());
        }
        match self.dialer.dial(&self.address).await {
            Ok(channel) => {
                *place = Some(channel.clone());
                Ok(channel)
            }
            Err(error) => {
                let why = format!("{} cannot be reached: {error}", self.address);
                *self.failed.lock() = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    /// Makes one call. `patience` includes making the connection.
    pub(crate) async fn call<T, F>(&self, patience: Duration, call: impl FnOnce(Channel) -> F) -> Result<T, CallFailure>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let deadline = Instant::now() + patience;
        let in_time = format!("{} does not answer within {patience:?}", self.address);
        let channel = match timeout_at(deadline, self.channel()).await {
            Ok(made) => made.map_err(CallFailure::NotSent)?,
            Err(_) => return Err(CallFailure::NotSent(in_time)),
        };
        match timeout_at(deadline, call(channel)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(CallFailure::Unknown(in_time)),
        }
    }

    fn failure(&self, status: &Status) -> CallFailure {
        let text = format!("{}: {}", self.address, status.message());
        match status.code() {
            _ if is_refusal(status) => CallFailure::NotSent(text),
            // Refused before any handler saw it.
            Code::Unauthenticated | Code::Unimplemented => CallFailure::NotSent(text),
            _ => CallFailure::Unknown(text),
        }
    }
}
