//! When certificates are renewed, told to the API server and served: rounds of the rotator at times of the test's choosing,
//! against a real API server. Only that some of its answers are refusals is made up, before they are asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{Api, Client, client::Body};
use managed_secrets::webhook::certificates::{
    Options, Reached, Rotator, Served, Source, TAKE_NOTE,
    authority::{Document, Lifetimes},
};
use managed_secrets_api::keys::{SEAL_CONFIGURATION, WARN_CONFIGURATION};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use tempfile::TempDir;
use tower::service_fn;

use super::Premises;
use crate::integration::operator::PATIENCE;

const LIVES: Lifetimes =
    Lifetimes { authority: Duration::from_secs(900), leaf: Duration::from_secs(90), overlap: Duration::from_secs(10) };

/// One of the two configurations.
#[derive(Clone, Copy, Debug)]
enum Told {
    Sealing,
    Warning,
}
use Told::{Sealing, Warning};

struct Cluster {
    premises: Premises,
    /// Part of the path of what nobody may write or read.
    forbidden: Arc<Mutex<Option<&'static str>>>,
    served: Arc<Served>,
    rotator: Rotator,
}

impl Cluster {
    async fn new(purpose: &str, source: Source) -> Self {
        Self::lasting(LIVES, purpose, source).await
    }

    async fn lasting(lifetimes: Lifetimes, purpose: &str, source: Source) -> Self {
        let premises = Premises::new(purpose).await;
        let forbidden = Arc::<Mutex<Option<&'static str>>>::default();
        let (real, refuses) = (Client::try_from(premises.config.clone()).unwrap(), Arc::clone(&forbidden));
        let service = service_fn(move |request: Request<Body>| {
            let is_refused = refuses.lock().unwrap().is_some_and(|part| request.uri().path().contains(part));
            let real = real.clone();
            async move {
                if !is_refused {
                    return real.send(request).await;
                }
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403});
                Ok(Response::builder().status(403).body(Body::from(status.to_string().into_bytes())).unwrap())
            }
        });
        let served = Arc::new(Served::default());
        let options = Options {
            operator_namespace: premises.operator_namespace.clone(),
            source,
            reached: Reached::Service { name: "s".to_owned(), namespace: premises.operator_namespace.clone() },
            webhooks: true,
            also_named: Vec::new(),
            api_service: None,
            seal_configuration: premises.configuration(SEAL_CONFIGURATION),
            warn_configuration: premises.configuration(WARN_CONFIGURATION),
            lifetimes,
        };
        let rotator = Rotator::new(Client::new(service, "default"), options, Arc::clone(&served));
        Self { premises, forbidden, served, rotator }
    }

    fn forbid(&self, part: Option<&'static str>) {
        *self.forbidden.lock().unwrap() = part;
    }

    /// The certificates that a configuration trusts.
    async fn trusted(&self, told: Told) -> Vec<Vec<u8>> {
        let client = self.premises.site.client.clone();
        let config = match told {
            Sealing => {
                let name = self.premises.configuration(SEAL_CONFIGURATION);
                let found = Api::<MutatingWebhookConfiguration>::all(client).get(&name).await.unwrap();
                found.webhooks.unwrap().remove(0).client_config
            }
            Warning => {
                let name = self.premises.configuration(WARN_CONFIGURATION);
                let found = Api::<ValidatingWebhookConfiguration>::all(client).get(&name).await.unwrap();
                found.webhooks.unwrap().remove(0).client_config
            }
        };
        config.ca_bundle.map_or_else(Vec::new, |bundle| ders(&bundle.0))
    }

    fn serves(&self) -> Option<Vec<u8>> {
        self.served.certificate()
    }
}

fn ders(pem: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem).map(|one| one.unwrap().to_vec()).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_the_future_is_replaced_when_the_clock_is_set_back() {
    const DAY: i64 = 24 * 3600;
    let mut cluster = Cluster::lasting(Lifetimes::default(), "clock", Source::Own).await;
    cluster.rotator.round(at(0)).await.unwrap();
    let first = cluster.serves().unwrap();
    let trusted = cluster.trusted(Sealing).await;
    // It is time for another one, by a clock that is wrong.
    cluster.rotator.round(at(10 * DAY)).await.unwrap();
    let second = cluster.serves().unwrap();
    assert_ne!(second, first);
    // A day does no harm: certificates are valid from the day before.
    cluster.rotator.round(at(9 * DAY)).await.unwrap();
    assert_eq!(cluster.serves().unwrap(), second);
    cluster.rotator.round(at(1)).await.unwrap();
    let third = cluster.serves().unwrap();
    assert!(third != second && third != first);
    assert_eq!(cluster.trusted(Sealing).await, trusted, "the authority stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_same_authority_is_renewed_though_nobody_can_be_told() {
    let mut cluster = Cluster::new("renewed", Source::Own).await;
    cluster.rotator.round(at(0)).await.unwrap();
    let first = cluster.serves().unwrap();
    cluster.forbid(Some("webhookconfigurations"));
    cluster.rotator.round(at(59)).await.unwrap_err();
    assert_eq!(cluster.serves(), Some(first.clone()), "it is not due");
    cluster.rotator.round(at(61)).await.unwrap_err();
    let second = cluster.serves().unwrap();
    assert_ne!(second, first, "due, and as trusted as the first");
    // Another authority, which nobody trusts as yet.
    cluster.rotator.round(at(600)).await.unwrap_err();
    let last = cluster.serves().unwrap();
    cluster.rotator.round(at(611)).await.unwrap_err();
    assert_eq!(cluster.serves(), Some(last.clone()));
    cluster.forbid(None);
    cluster.rotator.round(at(612)).await.unwrap();
    assert_ne!(cluster.serves(), Some(last));
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_with_one_configuration_does_not_keep_the_other_from_being_told() {
    for (forbidden, told) in [("mutatingwebhook", Warning), ("validatingwebhook", Sealing)] {
        let mut cluster = Cluster::new("trouble", Source::Own).await;
        cluster.forbid(Some(forbidden));
        let error = cluster.rotator.round(at(0)).await.unwrap_err().to_string();
        assert!(error.contains("webhook configuration"), "{error}");
        assert_eq!(cluster.trusted(told).await.len(), 1, "{forbidden}");
    }
}

/// A folder as somebody else fills it.
struct Mounted(TempDir);

impl Mounted {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// A certificate of this authority; the certificate, and what to trust.
    fn write(&self, authority: &Document, with_bundle: bool) -> (Vec<u8>, Vec<u8>) {
        let leaf = authority.issue(&["s.own.svc".to_owned()], at(0), LIVES).unwrap();
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
        };
        std::fs::write(self.path().join("tls.crt"), pem("CERTIFICATE", &leaf.certificate)).unwrap();
        std::fs::write(self.path().join("tls.key"), pem("PRIVATE KEY", &leaf.key)).unwrap();
        let bundle = authority.bundle();
        std::fs::write(self.path().join("ca.crt"), if with_bundle { bundle.as_str() } else { "" }).unwrap();
        (leaf.certificate.clone(), ders(bundle.as_bytes()).remove(0))
    }
}

fn authority() -> Document {
    Document::due(None, at(0), LIVES).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_new_bundle_trusts_is_served_when_the_api_server_has_taken_note() {
    let folder = Mounted::new();
    let mut cluster = Cluster::new("note", Source::Folder(folder.path())).await;
    let (first, old) = folder.write(&authority(), true);
    cluster.rotator.round(at(0)).await.unwrap();
    assert_eq!(cluster.serves(), Some(first.clone()));
    let (second, new) = folder.write(&authority(), true);
    let told_from = Instant::now();
    // As often as somebody rings.
    for _ in 0..2 {
        let wait = cluster.rotator.round(at(1)).await.unwrap();
        assert!(wait <= TAKE_NOTE, "{wait:?}");
        for told in [Sealing, Warning] {
            assert_eq!(cluster.trusted(told).await, [new.clone(), old.clone()]);
        }
        let serves = cluster.serves();
        // On a machine that stood still for so long, it may be served already.
        assert!(serves == Some(first.clone()) || told_from.elapsed() >= TAKE_NOTE, "told, and served a moment later");
    }
    let next = loop {
        let next = cluster.rotator.round(at(6)).await.unwrap();
        if cluster.serves().as_ref() == Some(&second) {
            break next;
        }
        assert!(told_from.elapsed() < PATIENCE, "it is never served");
        tokio::time::sleep(next.min(Duration::from_millis(200))).await;
    };
    assert!(told_from.elapsed() >= TAKE_NOTE, "{:?}", told_from.elapsed());
    assert_eq!(next, Duration::from_secs(4), "until the overlap is over");
    cluster.rotator.round(at(11)).await.unwrap();
    assert_eq!(cluster.trusted(Sealing).await, [new]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_trusted_already_is_served_at_once() {
    let folder = Mounted::new();
    let mut cluster = Cluster::new("once", Source::Folder(folder.path())).await;
    let authority = authority();
    let (_, trusted) = folder.write(&authority, true);
    cluster.rotator.round(at(0)).await.unwrap();
    // Of the same authority, also when nobody can be told, and when the folder does not say whom to trust.
    for with_bundle in [true, false] {
        let (renewed, _) = folder.write(&authority, with_bundle);
        cluster.forbid(Some("webhookconfigurations"));
        cluster.rotator.round(at(1)).await.unwrap_err();
        assert_eq!(cluster.serves(), Some(renewed));
        cluster.forbid(None);
        cluster.rotator.round(at(2)).await.unwrap();
        assert_eq!(cluster.trusted(Sealing).await, std::slice::from_ref(&trusted));
    }
    // The bundle is remembered meanwhile: another one is another.
    folder.write(&self::authority(), true);
    let wait = cluster.rotator.round(at(3)).await.unwrap();
    assert!(wait <= TAKE_NOTE, "{wait:?}");
}
