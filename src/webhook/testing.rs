//! What the unit tests of this room share: keyrings, an operator without a cluster, an API server that knows rights.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::{Client, client::Body};
use managed_secrets_api::keys::{GROUP, KIND, PLURAL, VERSION};
use managed_secrets_crypto::{
    Kek, Keyring, Plaintext,
    keyring::{Document, KekError, State, Wrapped},
    mss1::{self, Handling, Scope},
};
use serde_json::{Value, json};
use tower::service_fn;
use zeroize::Zeroizing;

use super::{
    Operator,
    access::Access,
    certificates::{Served, authority},
    http::{Webhooks, router},
    server::Limits,
};

pub(super) const NAMESPACE: &str = "shop";

/// A keyring document of keys made at this second.
pub(super) fn document(second: i64) -> Document {
    let wrap = |bytes: &[u8]| {
        let kek = Kek::new(&[9; 32]).unwrap();
        let ciphertext = kek.wrap(bytes)?;
        Ok::<_, KekError>(Wrapped::new("local", kek.key_id().to_string(), ciphertext))
    };
    Keyring::generate_entries(jiff::Timestamp::from_second(second).unwrap(), wrap).unwrap()
}

pub(super) fn keyring(documents: &[Document]) -> Keyring {
    Keyring::open(documents, |wrapped| Kek::new(&[9; 32]).unwrap().unwrap(&wrapped.ciphertext)).unwrap()
}

/// The document with every key in this state.
pub(super) fn in_state(mut document: Document, state: State) -> Document {
    for entry in &mut document.entries {
        entry.state = state;
    }
    document
}

pub(super) fn sealed(keyring: &Keyring, scope: &Scope, value: &str) -> String {
    sealed_as(Handling::Deliverable, keyring, scope, value)
}

pub(super) fn sealed_as(handling: Handling, keyring: &Keyring, scope: &Scope, value: &str) -> String {
    let value = Plaintext::new(Zeroizing::new(value.as_bytes().to_vec())).unwrap();
    mss1::seal(&keyring.current_public_key().unwrap().key, scope, handling, &value).unwrap()
}

pub(super) fn strict(name: &str) -> Scope {
    Scope::Strict { namespace: NAMESPACE.to_owned(), name: name.to_owned() }
}

/// What sealed text holds, for the object `name` of [`NAMESPACE`].
pub(super) fn opened(keyring: &Keyring, text: &str, name: &str) -> String {
    let sealed = mss1::Sealed::parse(text).unwrap();
    assert_eq!(*sealed.scope(), strict(name), "sealed for this object and no other");
    let managed_secrets_crypto::keyring::SealingKeyStatus::Usable(key) = keyring.sealing_key(sealed.key_id()) else {
        panic!("an unusable key")
    };
    String::from_utf8(sealed.open(key, NAMESPACE, name).unwrap().as_bytes().to_vec()).unwrap()
}

/// An object with this spec.
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
pub(super) fn object(name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "metadata": {"name": name}, "spec": spec})
}

/// A review of a write by `user`.
pub(super) fn review(user: &str, object: &Value, stored: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": if stored.is_null() { "CREATE" } else { "UPDATE" }, "namespace": NAMESPACE,
            "resource": {"group": GROUP, "version": VERSION, "resource": PLURAL},
            "userInfo": {"username": user}, "object": object, "oldObject": stored,
        },
    })
}

/// An operator with a keyring and nothing else.
pub(super) struct Alone {
    pub(super) keyring: Mutex<Arc<Keyring>>,
    /// What [`Operator::look_again`] finds.
    pub(super) found: Mutex<Option<Arc<Keyring>>>,
    /// Names and Secrets that others hold, sources that are missing.
    pub(super) held: Vec<&'static str>,
}

impl Alone {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self { keyring: Mutex::new(Arc::new(keyring)), found: Mutex::default(), held: Vec::new() }
    }

    fn holder(&self, what: &str) -> Option<String> {
        self.held.contains(&what).then(|| "ManagedSecret \"other\"".to_owned())
    }
}

impl Operator for Alone {
    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.lock().unwrap())
    }

    fn look_again(&self) -> BoxFuture<'_, ()> {
        if let Some(found) = self.found.lock().unwrap().take() {
            *self.keyring.lock().unwrap() = found;
        }
        Box::pin(std::future::ready(()))
    }

    fn holder_of_name(&self, _: &str, name: &str, _: &str) -> Option<String> {
        self.holder(name)
    }

    fn holder_of_target(&self, _: &str, secret: &str, _: &str) -> Option<String> {
        self.holder(secret)
    }

    fn restarts(&self) -> bool {
        self.held.contains(&"restarts")
    }

    fn lacks_source(&self, _: &str, secret: &str) -> bool {
        self.held.contains(&secret)
    }
}

/// An API server that lets users read everything whose name begins with `reader`, and counts how often it is asked.
pub(super) fn readers() -> (Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(request.uri().path().ends_with("/localsubjectaccessreviews"), "{}", request.uri());
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let user = review["spec"]["user"].as_str().unwrap_or_default();
            review["status"] = json!({"allowed": user.starts_with("reader")});
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(serde_json::to_vec(&review).unwrap())))
        }
    });
    (Client::new(service, NAMESPACE), asked)
}

/// What serves on the path that comes with it.
pub(super) fn served() -> (Arc<Served>, String) {
    let now = jiff::Timestamp::now();
    let document = authority::Document::due(None, now, authority::Lifetimes::default()).unwrap().unwrap();
    let served = Served::default();
    served.set_paths(&document);
    (Arc::new(served), document.path(now, authority::Lifetimes::default()).to_owned())
}

/// The routes in front of an operator, on a secret path.
pub(super) fn webhooks(operator: impl Operator, client: Client, limits: Limits) -> (axum::Router, String) {
    let (served, path) = served();
    let access = Access::new(client);
    let webhooks =
        Webhooks { served, access, operator: Arc::new(operator), allow_cluster_scope: false, stats: Arc::default() };
    (router(Arc::new(webhooks), limits), path)
}
