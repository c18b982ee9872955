//! A certificate that somebody else makes, in a mounted folder: the keys of a Secret of type `kubernetes.io/tls`.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

/// The chain, as cert-manager and `kubectl create secret tls` call it.
const CERTIFICATE: &str = "tls.crt";
/// Its key.
const KEY: &str = "tls.key";
/// The certificates to trust; may be absent, when somebody else puts them into the configurations.
const BUNDLE: &str = "ca.crt";

/// Why a folder has no certificate for us.
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
    /// A file holds something else.
    #[error("{0} must hold PEM")]
    Pem(PathBuf),
    /// Certificate and key don't belong together, or are of a kind that cannot be used.
    #[error("the certificate in {path} cannot be served: {source}")]
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
    /// What to trust, in PEM.
    pub bundle: Option<String>,
}

/// Reads the folder.
pub fn read(folder: &Path) -> Result<Content, FolderError> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|source| FolderError::Read { path, source })
    };
    let pem = |name: &str| FolderError::Pem(folder.join(name));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file(CERTIFICATE)?).collect();
    let chain = chain.map_err(|_| pem(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_slice(&file(KEY)?).map_err(|_| pem(KEY))?;
    let bundle = match file(BUNDLE) {
        Err(FolderError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        found => Some(String::from_utf8(found?).map_err(|_| pem(BUNDLE))?),
    };
    let certified =
        certified(chain, key).map_err(|source| FolderError::Unusable { path: folder.to_owned(), source })?;
    Ok(Content { certified, bundle })
}

/// A certificate and its key, checked to belong together.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
}
