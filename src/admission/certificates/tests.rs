use std::{collections::BTreeMap, sync::Mutex};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use rustls::pki_types::pem::PemObject as _;
use tower::service_fn;

use super::*;
use crate::api::keys::{SEAL_WEBHOOK, WARN_WEBHOOK};

const LIVES: Lifetimes =
    Lifetimes { authority: Duration::from_secs(900), leaf: Duration::from_secs(90), overlap: Duration::from_secs(10) };

/// An API server that holds what the keeper reads and writes, by path.
#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Value>,
    /// Part of the path of what nobody may write or read.
    forbidden: Option<&'static str>,
}

impl Stored {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let refused = |code: StatusCode| (code, json!({"kind": "Status", "code": code.as_u16(), "reason": "No"}));
        if self.forbidden.is_some_and(|part| path.contains(part)) {
            return refused(StatusCode::FORBIDDEN);
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match *method {
            Method::GET => {
                self.objects.get(path).map_or_else(|| refused(StatusCode::NOT_FOUND), |it| (StatusCode::OK, it.clone()))
            }
            // A Secret: created or applied, with its name in the path.
            Method::PATCH if path.contains("/secrets/") => {
                self.objects.insert(path.to_owned(), body.clone());
                (StatusCode::CREATED, body)
            }
            Method::PATCH => {
                let object = self.objects.get_mut(path).unwrap();
                object["webhooks"][0]["clientConfig"] = body[2]["value"].clone();
                (StatusCode::OK, object.clone())
            }
            _ => panic!("{method} {path}"),
        }
    }
}

struct Cluster {
    stored: Arc<Mutex<Stored>>,
    served: Arc<Served>,
    keeper: Keeper,
}

const SEALING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/s";
const WARNING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/w";

impl Cluster {
    fn new(source: Source) -> Self {
        let mut stored = Stored::default();
        for (path, webhook) in [(SEALING, SEAL_WEBHOOK), (WARNING, WARN_WEBHOOK)] {
            let configuration = json!({
                "metadata": {"resourceVersion": "1"}, "webhooks": [{"name": webhook, "clientConfig": {}}],
            });
            stored.objects.insert(path.to_owned(), configuration);
        }
        let stored = Arc::new(Mutex::new(stored));
        let answering = Arc::clone(&stored);
        let service = service_fn(move |request: Request<Body>| {
            let answering = Arc::clone(&answering);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (code, answer) = answering.lock().unwrap().answer(&head.method, head.uri.path(), &body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        let served = Arc::new(Served::default());
        let options = Options {
            operator_namespace: "own".to_owned(),
            source,
            reached: Reached::Service { name: "s".to_owned(), namespace: "own".to_owned() },
            seal_configuration: "s".to_owned(),
            warn_configuration: "w".to_owned(),
            lifetimes: LIVES,
        };
        let keeper = Keeper::new(Client::new(service, "default"), options, Arc::clone(&served));
        Self { stored, served, keeper }
    }

    fn forbid(&self, part: Option<&'static str>) {
        self.stored.lock().unwrap().forbidden = part;
    }

    /// The certificates that a configuration trusts.
    fn trusted(&self, configuration: &str) -> Vec<Vec<u8>> {
        let bundle =
            self.stored.lock().unwrap().objects[configuration]["webhooks"][0]["clientConfig"]["caBundle"].clone();
        let bundle = BASE64_STANDARD.decode(bundle.as_str().unwrap_or_default()).unwrap();
        ders(&bundle)
    }

    fn serves(&self) -> Option<Vec<u8>> {
        let certificate = self.served.certificate.read().unwrap();
        certificate.as_ref().map(|certified| certified.end_entity_cert().unwrap().to_vec())
    }
}

fn ders(pem: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem).map(|one| one.unwrap().to_vec()).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

#[tokio::test]
async fn a_certificate_of_the_same_authority_is_renewed_though_nobody_can_be_told() {
    let mut cluster = Cluster::new(Source::Own);
    cluster.keeper.round(at(0)).await.unwrap();
    let first = cluster.serves().unwrap();
    cluster.forbid(Some("webhookconfigurations"));
    cluster.keeper.round(at(59)).await.unwrap_err();
    assert_eq!(cluster.serves(), Some(first.clone()), "it is not due");
    cluster.keeper.round(at(61)).await.unwrap_err();
    let second = cluster.serves().unwrap();
    assert_ne!(second, first, "due, and as trusted as the first");
    // Another authority, which nobody trusts as yet.
    cluster.keeper.round(at(600)).await.unwrap_err();
    let last = cluster.serves().unwrap();
    cluster.keeper.round(at(611)).await.unwrap_err();
    assert_eq!(cluster.serves(), Some(last.clone()));
    cluster.forbid(None);
    cluster.keeper.round(at(612)).await.unwrap();
    assert_ne!(cluster.serves(), Some(last));
}

#[tokio::test]
async fn trouble_with_one_configuration_does_not_keep_the_other_from_being_told() {
    for (forbidden, told) in [("mutatingwebhook", WARNING), ("validatingwebhook", SEALING)] {
        let mut cluster = Cluster::new(Source::Own);
        cluster.forbid(Some(forbidden));
        let error = cluster.keeper.round(at(0)).await.unwrap_err().to_string();
        assert!(error.contains("the webhook configuration"), "{error}");
        assert_eq!(cluster.trusted(told).len(), 1, "{forbidden}");
    }
}

/// A folder as somebody else fills it.
struct Mounted(PathBuf);

impl Mounted {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("managed-secrets-mounted-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// A certificate of this authority; the certificate, and what to trust.
    fn write(&self, authority: &Document, with_bundle: bool) -> (Vec<u8>, Vec<u8>) {
        let leaf = authority.issue(&["s.own.svc".to_owned()], at(0), LIVES).unwrap();
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
        };
        std::fs::write(self.0.join("tls.crt"), pem("CERTIFICATE", &leaf.certificate)).unwrap();
        std::fs::write(self.0.join("tls.key"), pem("PRIVATE KEY", &leaf.key)).unwrap();
        let bundle = authority.bundle();
        std::fs::write(self.0.join("ca.crt"), if with_bundle { bundle.as_str() } else { "" }).unwrap();
        (leaf.certificate.clone(), ders(bundle.as_bytes()).remove(0))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn authority() -> Document {
    Document::due(None, at(0), LIVES).unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_only_a_new_bundle_trusts_is_served_when_the_api_server_has_taken_note() {
    let folder = Mounted::new("note");
    let mut cluster = Cluster::new(Source::Folder(folder.0.clone()));
    let (first, old) = folder.write(&authority(), true);
    cluster.keeper.round(at(0)).await.unwrap();
    assert_eq!(cluster.serves(), Some(first.clone()));
    let (second, new) = folder.write(&authority(), true);
    // As often as somebody rings.
    for _ in 0..2 {
        assert_eq!(cluster.keeper.round(at(1)).await.unwrap(), TAKE_NOTE);
        for configuration in [SEALING, WARNING] {
            assert_eq!(cluster.trusted(configuration), [new.clone(), old.clone()]);
        }
        assert_eq!(cluster.serves(), Some(first.clone()), "told, and served a moment later");
    }
    tokio::time::advance(TAKE_NOTE).await;
    let next = cluster.keeper.round(at(6)).await.unwrap();
    assert_eq!(cluster.serves(), Some(second));
    assert_eq!(next, Duration::from_secs(4), "until the overlap is over");
    cluster.keeper.round(at(11)).await.unwrap();
    assert_eq!(cluster.trusted(SEALING), [new]);
}

#[tokio::test(start_paused = true)]
async fn what_is_trusted_already_is_served_at_once() {
    let folder = Mounted::new("once");
    let mut cluster = Cluster::new(Source::Folder(folder.0.clone()));
    let authority = authority();
    let (_, trusted) = folder.write(&authority, true);
    cluster.keeper.round(at(0)).await.unwrap();
    // Of the same authority, also when nobody can be told, and when the folder does not say whom to trust.
    for with_bundle in [true, false] {
        let (renewed, _) = folder.write(&authority, with_bundle);
        cluster.forbid(Some("webhookconfigurations"));
        cluster.keeper.round(at(1)).await.unwrap_err();
        assert_eq!(cluster.serves(), Some(renewed));
        cluster.forbid(None);
        cluster.keeper.round(at(2)).await.unwrap();
        assert_eq!(cluster.trusted(SEALING), std::slice::from_ref(&trusted));
    }
    // The bundle is remembered meanwhile: another one is another.
    folder.write(&self::authority(), true);
    assert_eq!(cluster.keeper.round(at(3)).await.unwrap(), TAKE_NOTE);
}
