//! No plaintext is stored when the webhook cannot do its work; and everything that holds none goes through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use managed_secrets_api::{
    ManagedSecret,
    keys::{self, LAST_APPLIED},
};
use serde_json::{Value, json};
use testkit::poll;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Premises;
use crate::integration::operator::{PATIENCE, Setup, public_key_of};

const VALUE: &str = "plain-canary-9c41";

/// Plaintext in the value, and in an annotation alone, is refused with words that help; the rest goes through.
async fn plaintext_is_refused_and_the_rest_goes_through(premises: &Premises, sealed: &str) {
    let site = &premises.site;
    let plain = premises.manifest("plain", &json!({"name": "PLAIN", "value": VALUE}));
    for arguments in [["apply", "-f", "-"], ["create", "-f", "-"], ["apply", "--server-side", "-f=-"]] {
        let message = Premises::refused(&premises.kubectl(&arguments, &plain).await);
        assert!(message.contains("spec.value") && message.contains("managed-secrets seal"), "{message}");
        assert!(!message.contains(VALUE), "{message}");
    }
    for (key, copy) in [(LAST_APPLIED, plain.clone()), ("kapp.k14s.io/original", plain.replace("\":\"", "\": \""))] {
        // Not by kubectl: it would write its own copy.
        let object = json!({
            "metadata": {"name": "copied", "annotations": {key: copy}}, "spec": {"name": "COPIED", "value": sealed},
        });
        let object: ManagedSecret = serde_json::from_value(with_kind(object)).unwrap();
        let answer = site.objects().create(&PostParams::default(), &object).await;
        let message = answer.expect_err("refused").to_string();
        assert!(message.contains(key) && message.contains("managed-secrets seal"), "{message}");
        assert!(!message.contains(VALUE), "{message}");
    }

    site.apply("sealed", json!({"name": "SEALED", "value": sealed})).await;
    site.apply("made", json!({"name": "MADE", "generate": {"length": 8}})).await;
    let from = json!({"secretKeyRef": {"name": "value", "key": "value"}});
    site.apply("taken", json!({"name": "TAKEN", "valueFrom": from})).await;
    let meta = json!({"metadata": {"labels": {"value": "x"}, "finalizers": ["example.com/hold"]}});
    let (objects, merge) = (site.objects(), PatchParams::default());
    objects.patch("sealed", &merge, &Patch::Merge(&meta)).await.unwrap();
    // What is stored already does not make plaintext in its place any better.
    let plain = premises.manifest("sealed", &json!({"name": "SEALED", "value": VALUE}));
    let patch = json!({"spec": {"value": VALUE}}).to_string();
    let ways: [(&[&str], &str); 4] = [
        (&["apply", "-f", "-"], &plain),
        (&["apply", "--server-side", "--force-conflicts", "-f", "-"], &plain),
        (&["replace", "-f", "-"], &plain),
        (&["patch", "msec", "sealed", "--type=merge", "-p", &patch], ""),
    ];
    for (way, input) in ways {
        let message = Premises::refused(&premises.kubectl(way, input).await);
        assert!(message.contains("managed-secrets seal") && !message.contains(VALUE), "{way:?}: {message}");
    }
    assert_eq!(site.get("sealed").await.spec.value.unwrap().0, sealed);

    // Status is no business of the webhook's: whoever may write it does, and for others it is the policy that refuses.
    let status = Patch::Merge(json!({"status": {"observedGeneration": 1}}));
    let refused = objects.patch_status("sealed", &merge, &status).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("managedsecrets/status")));
    let written = Api::<ManagedSecret>::namespaced(premises.restorer().await, &site.namespace);
    let written = written.patch_status("sealed", &merge, &status).await.unwrap();
    assert_eq!(written.status.and_then(|status| status.observed_generation), Some(1));
    let free = json!({"metadata": {"finalizers": null}});
    objects.delete("sealed", &DeleteParams::default()).await.unwrap();
    objects.patch("sealed", &merge, &Patch::Merge(&free)).await.unwrap();
    for name in ["made", "taken"] {
        site.delete(name).await;
    }
}

fn with_kind(mut object: Value) -> Value {
    object["apiVersion"] = json!(format!("{}/{}", keys::GROUP, keys::VERSION));
    object["kind"] = json!(keys::KIND);
    object
}

/// The operator makes its keys and its certificates, then ends. Returns text sealed for the object `sealed`.
async fn visited_by_an_operator(premises: &Premises) -> String {
    visited_by(premises, premises.setup()).await
}

async fn visited_by(premises: &Premises, setup: Setup) -> String {
    let operator = premises.start(setup).await;
    let key = public_key_of(&premises.site.client, &premises.operator_namespace).await;
    operator.stop().await;
    crate::integration::objects::sealed(&key, &premises.site.strict("sealed"), VALUE)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_dead_endpoint() {
    let premises = Premises::new("dead").await;
    let sealed = visited_by_an_operator(&premises).await;
    plaintext_is_refused_and_the_rest_goes_through(&premises, &sealed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_webhook_configurations() {
    let premises = Premises::new("deleted").await;
    let sealed = visited_by_an_operator(&premises).await;
    let client = premises.site.client.clone();
    let delete = DeleteParams::default();
    Api::<MutatingWebhookConfiguration>::all(client.clone())
        .delete(&premises.configuration(keys::SEAL_CONFIGURATION), &delete)
        .await
        .unwrap();
    Api::<ValidatingWebhookConfiguration>::all(client)
        .delete(&premises.configuration(keys::WARN_CONFIGURATION), &delete)
        .await
        .unwrap();
    plaintext_is_refused_and_the_rest_goes_through(&premises, &sealed).await;
}

/// What somebody else answers on the webhook's port: over TLS that the API server trusts, so that it gets there.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_webhook_that_answers_garbage() {
    let premises = Premises::new("garbage").await;
    let sealed = visited_by_an_operator(&premises).await;
    for garbage in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let impostor = Impostor::start(garbage);
        impostor.take_the_place_of_the_webhook(&premises).await;
        plaintext_is_refused_and_the_rest_goes_through(&premises, &sealed).await;
        assert!(impostor.calls.load(SeqCst) > 0, "it was called");
    }
}

/// A TLS server that answers each request with the same bytes.
struct Impostor {
    port: u16,
    bundle: String,
    calls: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Impostor {
    fn start(answer: &'static str) -> Self {
        use managed_secrets::webhook::certificates::{
            authority::{Document, Lifetimes},
            folder,
        };
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
        let (now, lives) = (jiff::Timestamp::now(), Lifetimes::default());
        let authorities = Document::due(None, now, lives).unwrap().unwrap();
        let leaf = authorities.issue(&["127.0.0.1".to_owned()], now, lives).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.key.to_vec()));
        let certified = folder::certified(vec![CertificateDer::from(leaf.certificate)], key).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let calls = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                counted.fetch_add(1, SeqCst);
                let _ = stream.read(&mut vec![0; 65536]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, bundle: authorities.bundle(), calls, task }
    }

    async fn take_the_place_of_the_webhook(&self, premises: &Premises) {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let client = json!({
            "url": format!("https://127.0.0.1:{}/x", self.port),
            "caBundle": BASE64_STANDARD.encode(&self.bundle),
        });
        let operations = json!([{"op": "replace", "path": "/webhooks/0/clientConfig", "value": client}]);
        let patch = Patch::<()>::Json(serde_json::from_value(operations).unwrap());
        let api = Api::<MutatingWebhookConfiguration>::all(premises.site.client.clone());
        let name = premises.configuration(keys::SEAL_CONFIGURATION);
        api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        let plain = premises.manifest("probe", &json!({"name": "PROBE", "value": "x"}));
        poll("the impostor to be called", PATIENCE, || async {
            premises.kubectl(&["apply", "--dry-run=server", "-f", "-"], &plain).await;
            Ok((self.calls.load(SeqCst) > 0).then_some(()))
        })
        .await
        .unwrap();
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A webhook that is reached and does not answer costs its timeout, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_webhook_that_never_answers() {
    let premises = Premises::new("mute").await;
    let setup = premises.setup();
    let address = setup.webhooks.as_ref().unwrap().port.address().unwrap();
    let sealed = visited_by(&premises, setup).await;
    // Listens where the operator did, and accepts nothing: the kernel makes connections, and no answer comes.
    let _mute = TcpListener::bind(address).unwrap();
    let plain = premises.manifest("plain", &json!({"name": "PLAIN", "value": VALUE}));
    let began = Instant::now();
    let message = Premises::refused(&premises.kubectl(&["create", "-f", "-"], &plain).await);
    assert!(message.contains("managed-secrets seal"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    premises.site.apply("sealed", json!({"name": "SEALED", "value": sealed})).await;
}
