//! The certificate of the clients' port: the operator's, or a self-signed one that is made once and kept, so that a client
//! that has been told to trust it can go on doing so.

use anyhow::{Context as _, bail};
use gantry_proxy::tls::PemPair;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Reads a certificate chain and its key.
pub fn read(certificate: &Path, key: &Path) -> anyhow::Result<PemPair> {
    let read = |what, path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read the {what} {}", path.display()))
    };
    Ok(PemPair { certificates: read("certificate", certificate)?, private_key: read("key", key)? })
}

/// Name of the kept certificate.
pub const CERTIFICATE: &str = "certificate.pem";
/// Name of its key.
pub const KEY: &str = "key.pem";

/// Reads the self-signed certificate kept in `dir`, or makes one with `generate` and keeps it.
pub fn read_or_make(dir: &Path, generate: impl FnOnce() -> anyhow::Result<PemPair>) -> anyhow::Result<PemPair> {
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    // The key is written first: a certificate without its key never exists.
    match (certificate.exists(), key.exists()) {
        (true, true) => read(&certificate, &key),
        (true, false) => bail!("{} is missing; delete {} to have both made anew", key.display(), certificate.display()),
        (false, _) => {
            let made = generate()?;
            let keep = |name, pem: &str, mode| {
                replace(dir, name, pem, mode).with_context(|| format!("cannot write {}", dir.join(name).display()))
            };
            keep(KEY, &made.private_key, 0o600)?;
            keep(CERTIFICATE, &made.certificates, 0o644)?;
            Ok(made)
        }
    }
}

/// Writes a file that is complete or not there. The mode holds from its first byte on.
fn replace(dir: &Path, name: &str, text: &str, mode: u32) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn pem(n: u32) -> anyhow::Result<PemPair> {
        Ok(PemPair { certificates: format!("certificate {n}"), private_key: format!("key {n}") })
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..2 {
            let read = read_or_make(dir.path(), || pem(n)).unwrap();
            assert_eq!((read.certificates.as_str(), read.private_key.as_str()), ("certificate 0", "key 0"));
        }
        let mode = fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_start_that_was_cut_short_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY), "key of a certificate that was never written").unwrap();
        fs::write(dir.path().join("key.pem.new"), "half a k").unwrap();
        assert_eq!(read_or_make(dir.path(), || pem(1)).unwrap().private_key, "key 1");
        assert_eq!(read_or_make(dir.path(), || pem(2)).unwrap().private_key, "key 1");
    }

    #[test]
    fn a_lost_key_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        read_or_make(dir.path(), || pem(1)).unwrap();
        fs::remove_file(dir.path().join(KEY)).unwrap();
        let error = read_or_make(dir.path(), || pem(2)).err().unwrap().to_string();
        assert!(error.contains("key.pem is missing; delete "), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = read(Path::new("/absent/c.pem"), Path::new("/absent/k.pem")).err().unwrap();
        assert!(format!("{error:#}").starts_with("cannot read the certificate /absent/c.pem: No such file"));
    }
}
