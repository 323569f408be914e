//! What every call says about its caller, in the headers that the official clients send.

use crate::clock::Moment;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// The generation of the client protocol that we speak. Servers compare it, so it is not Gantry's own version.
pub(super) const CLIENT_VERSION: &str = "5.2.0";

/// Headers of one client.
pub(super) struct Headers {
    client_id: MetadataValue<Ascii>,
    namespace: MetadataValue<Ascii>,
    request_prefix: u64,
    requests: AtomicU64,
}

impl Headers {
    /// `client_id` and `namespace` must be printable ASCII; `nonce` tells this client's requests from others'.
    pub(super) fn new(client_id: &str, namespace: &str, nonce: u64) -> anyhow::Result<Headers> {
        Ok(Headers {
            client_id: client_id.parse()?,
            namespace: namespace.parse()?,
            request_prefix: nonce,
            requests: AtomicU64::new(0),
        })
    }

    /// Adds them to a call that starts `now`.
    pub(super) fn write(&self, metadata: &mut MetadataMap, now: Moment) {
        metadata.insert("x-mq-language", MetadataValue::from_static("RUST"));
        metadata.insert("x-mq-protocol", MetadataValue::from_static("v2"));
        metadata.insert("x-mq-client-version", MetadataValue::from_static(CLIENT_VERSION));
        metadata.insert("x-mq-client-id", self.client_id.clone());
        metadata.insert("x-mq-namespace", self.namespace.clone());
        // Both texts are ASCII, so these are always there.
        if let Ok(date) = date_time(now).parse() {
            metadata.insert("x-mq-date-time", date);
        }
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        if let Ok(id) = request_id(self.request_prefix, request).parse() {
            metadata.insert("x-mq-request-id", id);
        }
    }
}

/// `yyyyMMddTHHmmssZ`.
fn date_time(now: Moment) -> String {
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + now.since_epoch()).to_string();
    text.chars().filter(|character| !matches!(character, '-' | ':')).collect()
}

/// The form of a version 4 UUID, unique by counting.
fn request_id(prefix: u64, request: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        prefix >> 32,
        (prefix >> 16) & 0xffff,
        (prefix >> 4) & 0xfff,
        (request >> 48) & 0xfff,
        request & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_and_request_id_have_the_form_that_clients_send() {
        let now = Moment::from_unix_nanos(1_755_777_296_999_000_000);
        assert_eq!(date_time(now), "20250821T115456Z");
        assert_eq!(request_id(0x0123_4567_89ab_cdef, 0x1f), "01234567-89ab-4cde-8000-00000000001f");
    }

    #[test]
    fn every_call_names_its_client_and_itself() {
        let headers = Headers::new("host@1@0@x", "", 7).unwrap();
        let (mut first, mut second) = (MetadataMap::new(), MetadataMap::new());
        headers.write(&mut first, Moment::from_unix_nanos(0));
        headers.write(&mut second, Moment::from_unix_nanos(0));
        assert_eq!(first.get("x-mq-client-id").unwrap(), "host@1@0@x");
        assert_eq!(first.get("x-mq-date-time").unwrap(), "19700101T000000Z");
        assert_ne!(first.get("x-mq-request-id"), second.get("x-mq-request-id"));
        assert_eq!(first.len(), 7);
    }
}
