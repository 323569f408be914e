//! Settings that are each fine and do not go together.

use super::declaration::Config;
use super::resolver::Resolver;
use super::value::Value as _;

/// Reports every contradiction.
pub(super) fn find(config: &Config, resolver: &mut Resolver) {
    let (listen, store) = (&config.listen, &config.store);
    if listen.tls_certificate.is_some() != listen.tls_key.is_some() {
        resolver.contradiction(
            &["listen.tls_certificate", "listen.tls_key"],
            "listen.tls_certificate and listen.tls_key go together: set both, or none for a self-signed certificate",
        );
    }
    let ports = [
        ("listen.address", listen.address),
        ("ops.address", config.ops.address),
        ("admin.listen", config.admin.listen),
    ];
    for (n, (one, address)) in ports.into_iter().enumerate() {
        for (other, _) in ports[..n].iter().filter(|(_, taken)| *taken == address && address.port() != 0) {
            resolver
                .contradiction(&[other, one], format!("{other} and {one} are both {address}: choose another for one"));
        }
    }
    if let Some(retention_watermark) = store.retention_watermark
        && retention_watermark >= store.disk_watermark
    {
        resolver.contradiction(
            &["store.retention_watermark", "store.disk_watermark"],
            format!(
                "store.retention_watermark ({}) must be below store.disk_watermark ({}): old messages are dropped before \
                 new ones are refused",
                retention_watermark.show(),
                store.disk_watermark.show()
            ),
        );
    }
    if let Some(retention) = store.retention_bytes
        && retention.0 < 2 * store.segment_bytes.0
    {
        resolver.contradiction(
            &["store.segment_bytes", "store.retention_bytes"],
            format!(
                "store.retention_bytes ({}) must be at least twice store.segment_bytes ({}): whole segments are dropped",
                retention.show(),
                store.segment_bytes.show()
            ),
        );
    }
}
