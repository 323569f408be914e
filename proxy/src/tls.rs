//! TLS material: PEM text in, rustls configuration out. Files are `deploy`'s business.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// A certificate chain and its private key as PEM text.
#[derive(Clone)]
pub struct PemPair {
    /// The server's certificate first, then those that lead to its authority.
    pub certificates: String,
    /// PKCS#8, PKCS#1 or SEC1.
    pub private_key: String,
}

/// Why TLS material was refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text has no certificate.
    #[error("no certificate was found; a PEM file with a BEGIN CERTIFICATE section is expected")]
    NoCertificate,
    /// The text is not PEM.
    #[error("the certificate chain is not valid PEM: {0}")]
    Certificates(rustls::pki_types::pem::Error),
    /// The text has no private key.
    #[error("no usable private key was found; a PEM file with a BEGIN PRIVATE KEY section is expected: {0}")]
    PrivateKey(rustls::pki_types::pem::Error),
    /// Key and certificate are not usable together.
    #[error("certificate and private key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// A name that no certificate can carry.
    #[error("a certificate for {names:?} cannot be made: {source}")]
    Generate {
        /// The names asked for.
        names: Vec<String>,
        /// What the generator said.
        source: rcgen::Error,
    },
}

/// The listener's TLS configuration: TLS 1.2 and 1.3, HTTP/2 only, no client certificates.
pub fn server_config(pem: &PemPair) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem.certificates.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Certificates)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(pem.private_key.as_bytes()).map_err(TlsError::PrivateKey)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A new certificate that vouches for itself. Most official clients encrypt by default and trust any certificate.
pub fn self_signed(names: impl IntoIterator<Item = impl Into<String>>) -> Result<PemPair, TlsError> {
    let names: Vec<String> = names.into_iter().map(Into::into).collect();
    let made =
        rcgen::generate_simple_self_signed(names.clone()).map_err(|source| TlsError::Generate { names, source })?;
    Ok(PemPair { certificates: made.cert.pem(), private_key: made.signing_key.serialize_pem() })
}

impl std::fmt::Debug for PemPair {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PemPair").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_pair_makes_a_configuration_that_offers_http2() {
        let pair = self_signed(["localhost", "127.0.0.1"]).unwrap();
        let config = server_config(&pair).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec()]);
        assert!(!format!("{pair:?}").contains("PRIVATE KEY"));
    }

    #[test]
    fn unusable_material_is_named() {
        let pair = self_signed(["localhost"]).unwrap();
        let other = self_signed(["localhost"]).unwrap();
        let no_certificate = PemPair { certificates: String::new(), ..pair.clone() };
        assert!(matches!(server_config(&no_certificate), Err(TlsError::NoCertificate)));
        let no_key = PemPair { private_key: "nothing".to_owned(), ..pair.clone() };
        assert!(matches!(server_config(&no_key), Err(TlsError::PrivateKey(_))));
        let not_a_pair = PemPair { private_key: other.private_key, ..pair };
        assert!(matches!(server_config(&not_a_pair), Err(TlsError::Unusable(_))));
    }
}
