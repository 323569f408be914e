//! Tells consumers when their group was altered, whichever proxy was asked for it: the change is seen in the watched metadata.
//! A task of its own.

use crate::messaging::{Messaging, settings_command};
use crate::translate;
use gantry_proto::model::MetadataVersion;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Changes that come within this are looked at together.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs until `stop`.
pub(crate) async fn run(messaging: &Messaging, stop: CancellationToken) {
    let view = messaging.directory.view();
    let changes = async {
        loop {
            // Read before looking: what changes meanwhile is looked at again.
            let seen = view.version();
            tell(messaging);
            view.reached(MetadataVersion(seen.0 + 1)).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = changes => {}
    }
}

/// Sends their settings to those consumers that were told others of their group.
fn tell(messaging: &Messaging) {
    let current = |name: &str| messaging.directory.view().group(name);
    for (session, group) in messaging.sessions.with_altered_group(current) {
        let Some(settings) = session.settings() else { continue };
        let reply = translate::settings_reply(&settings, Some(&group), messaging.config.long_polling_max);
        if session.send(settings_command(reply)) {
            session.told(Some(group));
        } else {
            tracing::debug!(client_id = session.client_id(), group = %group.name, "settings could not be pushed");
        }
    }
}
