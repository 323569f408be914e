use gantry_proto::env::Clock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const HTTP2: &[u8] = b"h2";

/// A peer's certificate and the authority that certifies all peers. Serves and calls with the same certificate.
#[derive(Clone)]
pub struct MutualTls {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

/// Why certificates were not taken.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// Not PEM, or nothing of the kind in it.
    #[error("the {what} cannot be read: {why}")]
    Unreadable { what: &'static str, why: String },
    /// They do not fit together.
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
}

impl MutualTls {
    /// Takes PEM: the authority's certificates, the peer's certificate chain (its own first) and its private key. `clock`
    /// says which certificates have expired.
    pub fn new(
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
        clock: Arc<dyn Clock>,
    ) -> Result<MutualTls, InvalidTls> {
        let mut roots = RootCertStore::empty();
        for root in certificates("certificate of the authority", authority)? {
            roots.add(root).map_err(unusable)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| InvalidTls::Unreadable { what: "private key", why: error.to_string() })?;

        let provider = Arc::new(ring::default_provider());
        let time: Arc<dyn TimeProvider> = Arc::new(PassedTime(clock));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(unusable)?;
        let mut server = ServerConfig::builder_with_details(provider.clone(), time.clone())
            .with_protocol_versions(VERSIONS)
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        server.alpn_protocols = vec![HTTP2.to_vec()];
        let mut client = client_builder(provider, time)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        client.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(MutualTls { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// Both ends are Gantry's own: no older client has to be served.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn client_builder(
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, InvalidTls> {
    ClientConfig::builder_with_details(provider, time).with_protocol_versions(VERSIONS).map_err(unusable)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(found) if found.is_empty() => {
            Err(InvalidTls::Unreadable { what, why: "it holds no certificate".to_owned() })
        }
        Ok(found) => Ok(found),
        Err(error) => Err(InvalidTls::Unreadable { what, why: error.to_string() }),
    }
}

fn unusable(error: impl fmt::Display) -> InvalidTls {
    InvalidTls::Unusable(error.to_string())
}

impl fmt::Debug for MutualTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MutualTls(…)")
    }
}

/// The passed clock, as rustls asks for it.
struct PassedTime(Arc<dyn Clock>);

impl TimeProvider for PassedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now().as_millis())))
    }
}

impl fmt::Debug for PassedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassedTime")
    }
}
