//! The metadata as a process sees them.

use crate::tasks::Tasks;
use anyhow::Context as _;
use futures_util::StreamExt as _;
use gantry_proto::contract::{MetadataService, MetadataStream, follow_metadata};
use gantry_proto::model::{MetadataVersion, MetadataView, ViewUpdate};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Between two attempts to watch again.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// Waits for all metadata once, and follows their changes from then on.
pub(super) async fn watch(metadata: Arc<dyn MetadataService>, tasks: &mut Tasks) -> anyhow::Result<Arc<MetadataView>> {
    let view = Arc::new(MetadataView::default());
    let mut changes = metadata.watch(MetadataVersion::default()).await.context("cannot watch the metadata")?;
    let everything = changes.next().await.context("the controller ended while this process started")?;
    view.apply(everything.version, &everything.changes);
    let followed = view.clone();
    tasks.spawn("the follower of the metadata", async move {
        loop {
            follow_metadata(changes, &followed, report).await;
            // A controller in this process is being opened again.
            changes = again(&*metadata, &followed).await;
        }
    });
    Ok(view)
}

/// Goes on from what is known, as soon as that is possible.
async fn again(metadata: &dyn MetadataService, view: &MetadataView) -> MetadataStream {
    loop {
        sleep(WATCH_AGAIN).await;
        if let Ok(changes) = metadata.watch(view.version()).await {
            return changes;
        }
    }
}

fn report(applied: ViewUpdate) {
    match applied {
        ViewUpdate::Forwards => {}
        ViewUpdate::Backwards { newest } => tracing::error!(
            newest = newest.0,
            "the controller's metadata are older than those seen before: it was put back to an earlier state. Topics and \
             groups that it does not name are kept in the stores; nothing is deleted until its metadata are newer again"
        ),
        ViewUpdate::OtherCluster { known, found } => tracing::error!(
            %known,
            found = %found.map_or_else(|| "a cluster that was not founded yet".to_owned(), |found| found.to_string()),
            "the controller speaks for another cluster: its metadata are ignored. Look at the controller's address"
        ),
    }
}
