//! Gauges of the store, under the names that dashboards of such systems know. Measured from time to time, off every
//! message's way, and only where something changed.

use crate::store::Store;
use metrics::{Label, gauge};
use std::sync::atomic::Ordering;

/// Groups and topics that get gauges of their own; a scrape must stay readable.
const SERIES_MAX: usize = 10_000;

/// Measures what may have changed since the last time.
pub(crate) fn observe(store: &Store) {
    let local = || vec![Label::new("storage_type", "local"), Label::new("storage_medium", "disk")];
    let (retained_from, written_to) = store.log_range();
    let behind = written_to.0.saturating_sub(store.log.flushed_to().0);
    gauge!("rocketmq_storage_size", local()).set((written_to.0 - retained_from.0) as f64);
    gauge!("rocketmq_storage_flush_behind_bytes", local()).set(behind as f64);
    let (bytes, cut_short) = {
        let mut dedup = store.dedup.lock();
        (dedup.bytes(), dedup.take_cut_short())
    };
    gauge!("gantry_dedup_bytes").set(bytes as f64);
    if let Some(remembered) = cut_short {
        metrics::counter!("gantry_dedup_cut_short_total").increment(1);
        tracing::warn!(
            ?remembered, window = ?store.config.dedup_window,
            "message ids are forgotten before their time: a producer's retry that comes later than this is stored again. \
             store.dedup_memory bounds what is remembered"
        );
    }
    let (topics, groups) = store.view.counts();
    gauge!("rocketmq_topic_number").set(topics as f64);
    gauge!("rocketmq_consumer_group_number").set(groups as f64);

    // The gauges of the others say what they said before.
    for shard in store.progress.take_unobserved() {
        let names = store.view.group_by_id(shard.group).zip(store.view.topic_by_id(shard.topic));
        let (Some((group, topic)), Some(reader)) = (names, store.reader(shard.topic)) else {
            // Deleted, or not known yet.
            shard.is_to_be_observed();
            continue;
        };
        if !shard.has_series(|| store.series.fetch_add(1, Ordering::Relaxed) < SERIES_MAX) {
            continue;
        }
        let state = shard.lock();
        let (ready, inflight) = (state.ready(&reader) as f64, state.inflight() as f64);
        let damaged = state.damaged() as f64;
        drop(state);
        let labels =
            vec![Label::new("consumer_group", group.name.to_string()), Label::new("topic", topic.name.to_string())];
        gauge!("rocketmq_consumer_ready_messages", labels.clone()).set(ready);
        gauge!("rocketmq_consumer_inflight_messages", labels.clone()).set(inflight);
        gauge!("gantry_consumer_damaged_messages", labels.clone()).set(damaged);
        gauge!("rocketmq_consumer_lag_messages", labels).set(ready + inflight);
    }
}
