//! Topics and groups: asked of the controller, watched by everybody.

use crate::model::{
    MetadataChange, MetadataCommand, MetadataOutcome, MetadataRefusal, MetadataVersion, MetadataView, ViewUpdate,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

/// What the controller does for the other tiers.
#[async_trait::async_trait]
pub trait MetadataService: Send + Sync + 'static {
    /// Carries a command out, durably, and says what came of it and at which version. A caller that must see its own
    /// change waits with [`MetadataView::reached`].
    async fn propose(&self, command: MetadataCommand) -> Result<(MetadataVersion, MetadataOutcome), MetadataError>;

    /// Streams metadata: first everything (a [`MetadataChange::Reset`] leads) unless `after` is recent enough to continue
    /// from, then each change as it happens. The stream ends only when the service does, or when it has
    /// to begin anew: then it is watched again.
    async fn watch(&self, after: MetadataVersion) -> Result<MetadataStream, MetadataError>;
}

/// What [`MetadataService::watch`] yields.
pub type MetadataStream = BoxStream<'static, MetadataEvent>;

/// The changes of one version.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataEvent {
    /// The version reached after these changes.
    pub version: MetadataVersion,
    /// In order.
    pub changes: Vec<MetadataChange>,
}

/// Why a call to the metadata service failed.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Understood and refused; nothing changed.
    #[error(transparent)]
    Refused(#[from] MetadataRefusal),
    /// Nobody could be asked. Nothing happened; try again.
    #[error("the controller cannot be asked now: {0}")]
    Unavailable(String),
    /// The command may or may not have been carried out.
    #[error("the controller did not say whether it was done: {0}")]
    Unknown(String),
}

/// Applies a watched stream to a view until the stream ends. Tells `surprised` of what was not a step forwards.
pub async fn follow_metadata(mut stream: MetadataStream, view: &MetadataView, surprised: impl Fn(ViewUpdate)) {
    while let Some(event) = stream.next().await {
        match view.apply(event.version, &event.changes) {
            ViewUpdate::Forwards => {}
            surprise => surprised(surprise),
        }
    }
}
