//! Work that is repeated at a fixed interval: what it looks at does not announce its changes.

use crate::store::Store;
use gantry_proto::contract::StoreError;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// Does `work` on a worker, now and after each [`INTERVAL`], until the store stops. If it panics, the log fails.
pub(crate) async fn repeat(store: Arc<Store>, task: &'static str, work: fn(&Store)) {
    loop {
        let working = store.clone();
        if let Err(panicked) = store.env.run_blocking(move || work(&working)).await {
            return store.log.fail(StoreError::WritesStopped(format!("{task}: {panicked}")));
        }
        if store.stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}
