//! Who the API server's front proxy (the aggregator) is, and which caller it names.
//!
//! In: the ConfigMap in which the API server publishes its front proxy, and the certificate and headers of a request. Out:
//! the caller. The API server authenticates callers and names them in headers; only a connection with a certificate of the
//! front proxy's own authority is believed. The certificate is checked for each request, so that a connection does not
//! outlive an authority that was removed.
//!
//! The rules are those of Kubernetes' own extension API servers (`requestheader` in apiserver's `pkg/authentication`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher};
use managed_secrets_engine::{
    health::Verdict,
    watch::{Sink, Watcher},
};
use parking_lot::RwLock;
use percent_encoding::percent_decode_str;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tracing::{info, warn};

use crate::access::Caller;

/// Namespace of the ConfigMap.
const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap, in which every API server publishes how its extensions recognize callers.
const CONFIGMAP: &str = "extension-apiserver-authentication";
/// Name of the watch of the ConfigMap, for logs and metrics.
pub(crate) const WATCH: &str = "front proxy";
/// The flags of kube-apiserver that switch the front proxy on.
const FLAGS: &str = "--requestheader-client-ca-file, --requestheader-allowed-names, --requestheader-username-headers, \
                     --requestheader-group-headers, --requestheader-extra-headers-prefix, --proxy-client-cert-file and \
                     --proxy-client-key-file";

/// Why callers cannot come through the API server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Problem {
    /// The ConfigMap has not been read.
    #[error("ConfigMap {NAMESPACE}/{CONFIGMAP} has not been read; does the operator have permission to watch it?")]
    NotRead,
    /// There is no front proxy.
    #[error("the API server has no front proxy: start kube-apiserver with {FLAGS}")]
    Off,
    /// An entry of the ConfigMap cannot be understood.
    #[error("ConfigMap {NAMESPACE}/{CONFIGMAP}: {0} is invalid")]
    Invalid(&'static str),
    /// Every client certificate of the cluster would be believed.
    #[error(
        "the front proxy and the users of the cluster have certificates of the same authority, and \
         requestheader-allowed-names is empty, so every user could impersonate every other: give kube-apiserver \
         --requestheader-allowed-names, or an authority of its own for the front proxy"
    )]
    AnyUser,
}

/// The front proxy that the API server publishes.
#[derive(Debug)]
pub(super) struct FrontProxy {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Allowed common names; every name if empty.
    names: BTreeSet<String>,
    /// If every name is allowed: the users of the cluster, none of whom is believed.
    users: Option<Users>,
    user: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// In lower case.
    extra_prefixes: Vec<String>,
}

impl FrontProxy {
    /// Reads the entries of the ConfigMap.
    pub(super) fn read(data: &BTreeMap<String, String>) -> Result<Self, Problem> {
        let entry = |key: &str| data.get(key).map(String::as_str).filter(|text| !text.trim().is_empty());
        let bundle = entry("requestheader-client-ca-file").ok_or(Problem::Off)?;
        let authorities = certificates(bundle);
        if authorities.is_empty() {
            return Err(Problem::Invalid("requestheader-client-ca-file"));
        }
        let list = |key: &'static str| -> Result<Vec<String>, Problem> {
            let texts = entry(key).map(serde_json::from_str::<Option<Vec<String>>>).transpose();
            Ok(texts.map_err(|_| Problem::Invalid(key))?.flatten().unwrap_or_default())
        };
        let headers = |key: &'static str| -> Result<Vec<HeaderName>, Problem> {
            let names = list(key)?.into_iter().map(|name| name.parse());
            names.collect::<Result<_, _>>().map_err(|_| Problem::Invalid(key))
        };
        let names: BTreeSet<String> = list("requestheader-allowed-names")?.into_iter().collect();
        let users = entry("client-ca-file").filter(|_| names.is_empty());
        let users = users.map(|bundle| Users::read(bundle, &authorities)).transpose()?;
        let user = headers("requestheader-username-headers")?;
        if user.is_empty() {
            return Err(Problem::Off);
        }
        Ok(Self {
            verifier: verifier(roots(authorities)).ok_or(Problem::Invalid("requestheader-client-ca-file"))?,
            names,
            users,
            user,
            uid: headers("requestheader-uid-headers")?,
            groups: headers("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?
                .into_iter()
                .map(|prefix| prefix.to_ascii_lowercase())
                .collect(),
        })
    }

    /// Whether these certificates, the client's own first, are the front proxy's.
    pub(super) fn is_it(&self, certificates: &[CertificateDer<'_>], now: Timestamp) -> bool {
        let [own, others @ ..] = certificates else { return false };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier.verify_client_cert(own, others, now).is_ok()
            && (self.names.is_empty() || common_name(own).is_some_and(|name| self.names.contains(&name)))
            && !self.users.as_ref().is_some_and(|users| users.have(own, others, now))
    }

    /// The caller that the headers name. `None` if they name none, or in text that is not UTF-8.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let username = first(headers, &self.user)?;
        let uid = first(headers, &self.uid).unwrap_or_default();
        let groups = self.groups.iter().flat_map(|name| headers.get_all(name)).map(text).collect::<Option<Vec<_>>>()?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let Some(key) = self.extra_prefixes.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()))
            else {
                continue;
            };
            let key = percent_decode_str(key).decode_utf8().ok()?.into_owned();
            extra.entry(key).or_default().push(text(value)?);
        }
        Some(Caller { username, uid, groups, extra })
    }
}

/// Recognizes the certificates with which users authenticate to the API server.
#[derive(Debug)]
struct Users {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The front proxy's authorities. One of the users' may have issued them, and a client could leave them out.
    between: Vec<CertificateDer<'static>>,
}

impl Users {
    /// Reads the users' authorities. An error if the front proxy has none of its own, or if one of them is not understood:
    /// its certificates would be taken for the front proxy's.
    fn read(bundle: &str, front_proxys: &[CertificateDer<'static>]) -> Result<Self, Problem> {
        const INVALID: Problem = Problem::Invalid("client-ca-file");
        let authorities = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect::<Result<Vec<_>, _>>();
        let mut users = RootCertStore::empty();
        for authority in authorities.map_err(|_| INVALID)? {
            users.add(authority).map_err(|_| INVALID)?;
        }
        // A certificate that was issued again has the same key.
        let has_key_of = |other: &TrustAnchor<'_>| {
            users.roots.iter().any(|user| user.subject_public_key_info == other.subject_public_key_info)
        };
        if roots(front_proxys.to_vec()).roots.iter().any(has_key_of) {
            return Err(Problem::AnyUser);
        }
        Ok(Self { verifier: verifier(users).ok_or(INVALID)?, between: front_proxys.to_vec() })
    }

    /// Whether a user could authenticate with these certificates.
    fn have(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let chain: Vec<_> = self.between.iter().chain(others).cloned().collect();
        self.verifier.verify_client_cert(own, &chain, now).is_ok()
    }
}

/// The first value that is not empty.
fn first(headers: &HeaderMap, names: &[HeaderName]) -> Option<String> {
    names.iter().filter_map(|name| headers.get(name)).find(|value| !value.is_empty()).and_then(text)
}

fn text(value: &header::HeaderValue) -> Option<String> {
    std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
}

fn certificates(bundle: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).collect()
}

fn roots(authorities: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    roots
}

/// `None` if there are no authorities.
fn verifier(roots: RootCertStore) -> Option<Arc<dyn ClientCertVerifier>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
}

/// The common name of a certificate's subject.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    // Two names are a trick.
    names.next().is_none().then_some(name)
}

/// The front proxy as the API server publishes it now.
#[derive(Debug)]
pub(super) struct Followed(RwLock<Result<Arc<FrontProxy>, Problem>>);

impl Default for Followed {
    fn default() -> Self {
        Self(RwLock::new(Err(Problem::NotRead)))
    }
}

impl Followed {
    /// Starts to follow the ConfigMap.
    pub(super) fn watch(self: &Arc<Self>, watcher: &Watcher) {
        let config = watcher::Config::default().fields(&format!("metadata.name={CONFIGMAP}"));
        let scope = |client| Api::<ConfigMap>::namespaced(client, NAMESPACE);
        watcher.watch(
            WATCH,
            scope,
            config,
            Arc::new(Published { followed: Arc::clone(self), listed: RwLock::default() }),
        );
    }

    /// The front proxy, or why there is none.
    pub(super) fn get(&self) -> Result<Arc<FrontProxy>, Problem> {
        self.0.read().clone()
    }

    /// Without a front proxy, tokens still work.
    pub(super) fn verdict(&self) -> Verdict {
        match &*self.0.read() {
            Ok(_) => Verdict::Good,
            Err(problem) => Verdict::Degraded(problem.to_string()),
        }
    }

    pub(super) fn set(&self, data: Option<&BTreeMap<String, String>>) {
        let read = data.map_or(Err(Problem::Off), FrontProxy::read).map(Arc::new);
        match &read {
            Ok(_) => info!("the value API accepts requests of the API server's front proxy"),
            Err(problem) => warn!(%problem, "values cannot be read through the API server"),
        }
        *self.0.write() = read;
    }
}

/// Receives the ConfigMap.
struct Published {
    followed: Arc<Followed>,
    listed: RwLock<Option<BTreeMap<String, String>>>,
}

impl Sink<ConfigMap> for Published {
    fn init(&self) {
        *self.listed.write() = None;
    }

    fn init_apply(&self, object: ConfigMap) {
        *self.listed.write() = Some(object.data.unwrap_or_default());
    }

    fn init_done(&self) {
        self.followed.set(self.listed.write().take().as_ref());
    }

    fn apply(&self, object: ConfigMap) {
        self.followed.set(Some(&object.data.unwrap_or_default()));
    }

    fn delete(&self, _: ConfigMap) {
        self.followed.set(None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
pub(super) mod tests {
    use http::HeaderValue;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    use super::*;

    /// A certificate authority.
    pub(crate) struct Authority {
        pub(crate) pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub(crate) fn new(name: &str) -> Self {
            let params = Self::params(name);
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            Self { pem, issuer: Issuer::new(params, key) }
        }

        /// The same authority with another certificate: the name and the key are the same.
        fn again(&self, name: &str) -> String {
            let mut params = Self::params(name);
            params.serial_number = Some(vec![7].into());
            params.self_signed(self.issuer.key()).unwrap().pem()
        }

        /// An authority whose certificate this one issued.
        fn subordinate(&self, name: &str) -> Self {
            let params = Self::params(name);
            let key = KeyPair::generate().unwrap();
            let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
            Self { pem, issuer: Issuer::new(params, key) }
        }

        fn params(name: &str) -> CertificateParams {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        }

        pub(crate) fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
        }
    }

    fn data(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let usual = [
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ];
        usual.iter().chain(entries).map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn only_a_certificate_of_the_front_proxy_is_believed() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (old, new, other) = (Authority::new("old"), Authority::new("new"), Authority::new("other"));
        let bundle = format!("{}{}", old.pem, new.pem);
        let names = ("requestheader-allowed-names", r#"["front-proxy"]"#);
        let proxy = FrontProxy::read(&data(&[("requestheader-client-ca-file", &bundle), names])).unwrap();
        let now = Timestamp::now();
        let good = old.issue("front-proxy", ClientAuth);
        assert!(proxy.is_it(std::slice::from_ref(&good), now));
        assert!(proxy.is_it(&[new.issue("front-proxy", ClientAuth)], now), "old and new authority together");
        for wrong in [
            old.issue("someone", ClientAuth),
            old.issue("", ClientAuth),
            old.issue("front-proxy", ServerAuth),
            other.issue("front-proxy", ClientAuth),
            CertificateDer::from(vec![0; 8]),
        ] {
            assert!(!proxy.is_it(&[wrong], now));
        }
        assert!(!proxy.is_it(&[], now));
        let long_ago = Timestamp::from_second(-1).unwrap();
        assert!(!proxy.is_it(&[good], long_ago), "the dates are checked");
        // The old authority is removed.
        let proxy = FrontProxy::read(&data(&[("requestheader-client-ca-file", &new.pem), names])).unwrap();
        assert!(!proxy.is_it(&[old.issue("front-proxy", ClientAuth)], now));
    }

    #[test]
    fn without_an_authority_of_its_own_there_is_no_front_proxy() {
        let (proxy, users) = (Authority::new("proxy"), Authority::new("users"));
        let read = |entries: &[(&str, &str)]| FrontProxy::read(&data(entries)).map(drop);
        assert_eq!(read(&[]), Err(Problem::Off));
        assert_eq!(read(&[("requestheader-client-ca-file", " ")]), Err(Problem::Off));
        let invalid = Err(Problem::Invalid("requestheader-client-ca-file"));
        assert_eq!(read(&[("requestheader-client-ca-file", "no certificate")]), invalid);
        let ca = ("requestheader-client-ca-file", proxy.pem.as_str());
        assert_eq!(read(&[ca, ("requestheader-username-headers", "[]")]), Err(Problem::Off));
        assert_eq!(
            read(&[ca, ("requestheader-group-headers", "X-Remote-Group")]),
            Err(Problem::Invalid("requestheader-group-headers"))
        );
        // Any name is allowed if only the front proxy has such certificates.
        assert_eq!(read(&[ca, ("client-ca-file", &users.pem)]), Ok(()));
        let both = format!("{}{}", users.pem, proxy.pem);
        assert_eq!(read(&[ca, ("client-ca-file", &both)]), Err(Problem::AnyUser));
        assert_eq!(
            read(&[ca, ("client-ca-file", &both), ("requestheader-allowed-names", r#"["front-proxy"]"#)]),
            Ok(())
        );
    }

    #[test]
    fn where_every_name_is_allowed_no_certificate_of_a_user_is_the_front_proxys() {
        use ExtendedKeyUsagePurpose::ClientAuth;
        let read = |proxy: &str, users: &str| {
            FrontProxy::read(&data(&[("requestheader-client-ca-file", proxy), ("client-ca-file", users)]))
        };
        let now = Timestamp::now();
        let (root, apart) = (Authority::new("root"), Authority::new("apart"));
        let users = root.subordinate("users");
        let (ours, theirs) = (root.issue("front-proxy", ClientAuth), users.issue("jane", ClientAuth));
        let ca = |authority: &Authority| certificates(&authority.pem).remove(0);

        // The users' authority is below the front proxy's.
        let below = read(&root.pem, &users.pem).unwrap();
        assert!(below.is_it(std::slice::from_ref(&ours), now));
        assert!(!below.is_it(&[theirs.clone(), ca(&users)], now));
        let only_jane = ("requestheader-allowed-names", r#"["jane"]"#);
        let named = [("requestheader-client-ca-file", &*root.pem), ("client-ca-file", &*users.pem), only_jane];
        let named = FrontProxy::read(&data(&named)).unwrap();
        assert!(named.is_it(&[theirs.clone(), ca(&users)], now), "the chain is valid: an allowed name is believed");

        // It is above the front proxy's: what the client sends does not matter.
        let above = read(&users.pem, &root.pem).unwrap();
        assert!(!above.is_it(std::slice::from_ref(&theirs), now));
        assert!(!above.is_it(&[theirs.clone(), ca(&users)], now));
        assert!(
            read(&users.pem, &apart.pem).unwrap().is_it(&[theirs], now),
            "with another authority of the users it is"
        );

        // It is the same, with two certificates.
        let again = root.again("root");
        assert_ne!(again, root.pem);
        assert_eq!(read(&root.pem, &again).map(drop), Err(Problem::AnyUser));

        // It is not understood.
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for users in ["no certificate", broken, &format!("{}{broken}", users.pem)] {
            assert_eq!(read(&root.pem, users).map(drop), Err(Problem::Invalid("client-ca-file")), "{users}");
        }
        let named = [("requestheader-client-ca-file", &*root.pem), ("client-ca-file", broken), only_jane];
        assert!(FrontProxy::read(&data(&named)).is_ok(), "with names, it does not matter");
    }

    #[test]
    fn the_caller_is_the_one_that_the_headers_name() {
        let authority = Authority::new("proxy");
        let proxy = FrontProxy::read(&data(&[("requestheader-client-ca-file", &authority.pem)])).unwrap();
        let headers = |pairs: &[(&'static str, &[u8])]| -> HeaderMap {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()))
                .collect()
        };
        let caller = proxy.caller(&headers(&[
            ("x-remote-user", "ünn".as_bytes()),
            ("x-remote-uid", b"u-1"),
            ("x-remote-group", b"readers"),
            ("x-remote-group", b"system:authenticated"),
            ("x-remote-extra-example.com%2fscopes", b"a"),
            ("x-remote-extra-example.com%2fscopes", b"b"),
            ("authorization", b"Bearer x"),
        ]));
        let expected = Caller {
            username: "ünn".to_owned(),
            uid: "u-1".to_owned(),
            groups: vec!["readers".to_owned(), "system:authenticated".to_owned()],
            extra: [("example.com/scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into(),
        };
        assert_eq!(caller, Some(expected));
        assert_eq!(proxy.caller(&headers(&[("x-remote-group", b"system:masters")])), None);
        assert_eq!(proxy.caller(&headers(&[("x-remote-user", b"")])), None);
        assert_eq!(proxy.caller(&headers(&[("x-remote-user", b"\xff")])), None);
    }
}
