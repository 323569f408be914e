//! All tiers in one process: the composition root.

use crate::config::Loaded;

/// Runs until told to stop.
pub async fn run(_loaded: Loaded) -> anyhow::Result<()> {
    anyhow::bail!("not composed yet")
}
