//! Reads a certificate that another program writes into a mounted folder: the keys of a Secret of type `kubernetes.io/tls`.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// File of the chain, named as cert-manager and `kubectl create secret tls` name it.
const CERTIFICATE: &str = "tls.crt";
/// File of its key.
const KEY: &str = "tls.key";
/// File of the certificates to trust. It may be absent if another program writes them into the configurations.
const BUNDLE: &str = "ca.crt";

/// Why a folder has no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has another format.
    #[error("{0} is invalid: it must be PEM")]
    Pem(PathBuf),
    /// Certificate and key do not match, or the TLS library does not support them.
    #[error("the certificate in {path} cannot be used: {source}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What a folder holds.
pub struct Content {
    /// What to serve.
    pub certified: CertifiedKey,
    /// What to trust, in PEM; absent where the folder does not say.
    pub bundle: Option<String>,
    /// Tells this content from another.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of what the files hold.
pub type Fingerprint = [u8; 32];

/// Reads the folder.
pub fn read(folder: &Path) -> Result<Content, FolderError> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|source| FolderError::Read { path, source })
    };
    let pem = |name: &str| FolderError::Pem(folder.join(name));
    let (chain_pem, key_pem) = (file(CERTIFICATE)?, Zeroizing::new(file(KEY)?));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_pem).collect();
    let chain = chain.map_err(|_| pem(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| pem(KEY))?;
    // Read last: when all of them are replaced meanwhile, what is served is never newer than what is trusted.
    let bundle = match file(BUNDLE) {
        Err(FolderError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        found => Some(String::from_utf8(found?).map_err(|_| pem(BUNDLE))?).filter(|text| !text.trim().is_empty()),
    };
    if let Some(bundle) = &bundle {
        let trusted: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect();
        trusted.ok().filter(|trusted| !trusted.is_empty()).ok_or_else(|| pem(BUNDLE))?;
    }
    let certified =
        certified(chain, key).map_err(|source| FolderError::Unusable { path: folder.to_owned(), source })?;
    let mut digest = Sha256::new();
    for part in [&chain_pem, &*key_pem, bundle.as_deref().unwrap_or_default().as_bytes()] {
        digest.update(Sha256::digest(part));
    }
    Ok(Content { certified, bundle, fingerprint: digest.finalize().into() })
}

/// A certificate and its key, checked to belong together.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::webhook::certificates::authority::{Document, Lifetimes};

    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempdir().unwrap())
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn write(&self, name: &str, content: &str) {
            std::fs::write(self.path().join(name), content).unwrap();
        }

        fn why_not(&self) -> String {
            read(self.path()).err().expect("must be refused").to_string()
        }
    }

    /// A certificate and its key, as PEM.
    fn pair() -> (String, String) {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let (now, lives) = (jiff::Timestamp::now(), Lifetimes::default());
        let leaf = Document::due(None, now, lives).unwrap().unwrap().issue(&["a".to_owned()], now, lives).unwrap();
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
        };
        (pem("CERTIFICATE", &leaf.certificate), pem("PRIVATE KEY", &leaf.key))
    }

    #[test]
    fn a_folder_is_read_and_its_changes_are_seen() {
        let folder = Folder::new();
        let (certificate, key) = pair();
        folder.write(CERTIFICATE, &certificate);
        folder.write(KEY, &key);
        let without = read(folder.path()).unwrap();
        assert_eq!(without.bundle, None);
        assert_eq!(read(folder.path()).unwrap().fingerprint, without.fingerprint);
        folder.write(BUNDLE, "\n");
        assert_eq!(read(folder.path()).unwrap().bundle, None, "as from issuers that have none");
        folder.write(BUNDLE, &certificate);
        let with = read(folder.path()).unwrap();
        assert_eq!(with.bundle, Some(certificate));
        assert_ne!(with.fingerprint, without.fingerprint);
    }

    #[test]
    fn what_cannot_be_served_is_named_and_not_shown() {
        let folder = Folder::new();
        let (certificate, key) = pair();
        assert!(folder.why_not().contains(CERTIFICATE));
        folder.write(CERTIFICATE, &certificate);
        assert!(folder.why_not().contains(KEY));
        folder.write(KEY, "hunter2");
        assert!(folder.why_not().contains("must be PEM") && !folder.why_not().contains("hunter2"));
        folder.write(KEY, &pair().1);
        assert!(folder.why_not().contains("cannot be used"), "a key of another certificate");
        folder.write(KEY, &key);
        folder.write(BUNDLE, "hunter2");
        assert!(folder.why_not().contains(BUNDLE) && !folder.why_not().contains("hunter2"));
        folder.write(BUNDLE, "");
        folder.write(CERTIFICATE, "");
        assert!(folder.why_not().contains("cannot be used"));
    }
}
