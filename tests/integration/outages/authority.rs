//! A certificate authority of a cluster.
#![allow(clippy::unwrap_used, reason = "tests")]

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use testkit::Serving;

/// An authority, and the certificates that it signs for the API server.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    pub(super) certificate: String,
}

/// Valid for some days before and after now: clocks are set while they are in use.
fn dated(params: &mut CertificateParams) {
    let day = |days: u64| std::time::Duration::from_secs(days * 24 * 3600);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + now - day(5), epoch + now + day(5));
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        dated(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A new certificate of the API server. Administrators trust `authorities`.
    pub(super) fn serving(&self, authorities: &str) -> Serving {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "kubernetes.default.svc".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        dated(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Serving { certificate, key: key.serialize_pem(), authorities: authorities.to_owned() }
    }
}
