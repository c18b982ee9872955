//! The API server's front proxy: a certificate authority of its own, and the certificate with which the API server comes to
//! extension API servers.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::error::{Context, Error, Result};

/// The common name of the API server's certificate.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// A certificate authority for clients.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate, in PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A client's certificate and its key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate, in PEM.
    pub certificate: String,
    /// The key, in PEM.
    pub key: String,
}

impl Authority {
    /// Creates an authority.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(|_| Error::Key)?;
        let certificate = params.self_signed(&key).map_err(|_| Error::Key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Issues a certificate for a client with this common name.
    pub fn issue(&self, name: &str) -> Result<ClientCertificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(|_| Error::Key)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|_| Error::Key)?.pem();
        Ok(ClientCertificate { certificate, key: key.serialize_pem() })
    }

    /// Lets the API server with this folder come with a certificate of this authority from now on.
    pub fn present(&self, folder: &Path) -> Result<()> {
        let ClientCertificate { certificate, key } = self.issue(FRONT_PROXY)?;
        replace(folder, "front-proxy-client.key", &key)?;
        replace(folder, "front-proxy-client.crt", &certificate)
    }

    /// Lets the API server with this folder publish these authorities as those of its front proxy from now on.
    pub fn publish(authorities: &[&Self], folder: &Path) -> Result<()> {
        let bundle: String = authorities.iter().map(|authority| authority.certificate.as_str()).collect();
        replace(folder, "front-proxy-ca.crt", &bundle)
    }

    /// Writes what the API server needs into `folder`, and returns the flags that name it.
    pub(super) fn flags(&self, folder: &Path) -> Result<Vec<String>> {
        Self::publish(&[self], folder)?;
        self.present(folder)?;
        let flags = [
            "--requestheader-client-ca-file=front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--proxy-client-cert-file=front-proxy-client.crt",
            "--proxy-client-key-file=front-proxy-client.key",
        ];
        Ok(flags.map(str::to_owned).into())
    }
}

/// Writes a file as a whole, since the API server reads it when it changes.
fn replace(folder: &Path, name: &str, content: &str) -> Result<()> {
    let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
    fs::write(&new, content).context("write", &new)?;
    fs::rename(&new, &path).context("write", &path)
}
