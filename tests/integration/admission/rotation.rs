//! Certificates: rotated while values are applied, repaired when edited, or brought by somebody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{os::unix::fs::symlink, path::Path, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets::webhook::certificates::{
    Source,
    authority::{Document, Lifetimes},
};
use managed_secrets_api::keys;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use testkit::poll;
use tokio::time::Instant;

use super::{
    Premises, Scratch,
    balancer::{Balancer, answers},
};
use crate::integration::operator::PATIENCE;

/// Lives so short that a test sees several; as sound as those of production.
const SHORT: Lifetimes =
    Lifetimes { authority: Duration::from_secs(45), leaf: Duration::from_secs(9), overlap: Duration::from_secs(3) };

/// What the API server was told of one webhook.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    url: String,
    /// Certificates, in DER.
    trusted: Vec<Vec<u8>>,
}

impl Told {
    fn of(client: &WebhookClientConfig) -> Self {
        let bundle = client.ca_bundle.clone().unwrap_or_default().0;
        Self { url: client.url.clone().unwrap_or_default(), trusted: ders(&bundle) }
    }

    /// The secret path.
    fn path(&self) -> &str {
        self.url.rsplit('/').nth(1).unwrap()
    }
}

fn ders(bundle: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(bundle).map(|one| one.unwrap().to_vec()).collect()
}

impl Premises {
    /// What it was told of both: the sealing one, the warning one.
    async fn told(&self) -> [Told; 2] {
        let sealing = self.sealing(&self.site.client).await.webhooks.unwrap().remove(0);
        let warning = Api::<ValidatingWebhookConfiguration>::all(self.site.client.clone());
        let warning = warning.get(&self.configuration(keys::WARN_CONFIGURATION)).await.unwrap();
        [Told::of(&sealing.client_config), Told::of(&warning.webhooks.unwrap().remove(0).client_config)]
    }

    async fn break_the_configuration(&self) {
        let client = json!({"url": "https://127.0.0.1:1/x"});
        let operations = json!([{"op": "replace", "path": "/webhooks/0/clientConfig", "value": client}]);
        let patch = || Patch::<()>::Json(serde_json::from_value(operations.clone()).unwrap());
        let params = PatchParams::default();
        let sealing = Api::<MutatingWebhookConfiguration>::all(self.site.client.clone());
        sealing.patch(&self.configuration(keys::SEAL_CONFIGURATION), &params, &patch()).await.unwrap();
        let warning = Api::<ValidatingWebhookConfiguration>::all(self.site.client.clone());
        warning.patch(&self.configuration(keys::WARN_CONFIGURATION), &params, &patch()).await.unwrap();
    }
}

/// Plaintext, applied without end: each write must be answered by the webhook, or it is refused.
struct Stream<'p> {
    premises: &'p Premises,
    balancer: Balancer,
    rounds: usize,
}

impl Stream<'_> {
    /// Several at once; values change now and then. Between rounds connections are ended now and then, so that others are
    /// made, with the certificate and the bundle of the moment: those that are open ask for neither.
    async fn round(&mut self) {
        const AT_ONCE: usize = 4;
        let value = format!("value-{}", self.rounds / 8);
        // Panics where one is refused.
        let site = &self.premises.site;
        join_all((0..AT_ONCE).map(|number| {
            let spec = json!({"name": format!("DB_{number}"), "value": value, "delivery": "None"});
            async move { site.apply(&format!("db-{number}"), spec).await }
        }))
        .await;
        if self.rounds.is_multiple_of(3) {
            self.balancer.cut().await;
        }
        self.rounds += 1;
    }

    /// Rounds until what the API server was told is so; how often it changed meanwhile.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Told) -> bool) -> usize {
        let began = Instant::now();
        let (mut told, mut changes) = (self.premises.told().await, 0);
        while !told.iter().all(&wanted) {
            assert!(began.elapsed() < STREAM_PATIENCE, "{what}: after {changes} changes");
            self.round().await;
            let now = self.premises.told().await;
            changes += usize::from(now[0] != told[0]);
            told = now;
        }
        changes
    }
}

/// Several times what a rotation takes here.
const STREAM_PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn authorities_and_certificates_rotate_and_no_apply_is_lost() {
    let premises = Premises::new("rotate").await;
    let balancer = Balancer::start();
    let (mut setup, address, _) = balancer.replica(&premises);
    setup.webhooks.as_mut().unwrap().certificates.lifetimes = SHORT;
    balancer.add(address).await;
    let operator = premises.start(setup).await;
    let [first, _] = premises.told().await;
    let mut stream = Stream { premises: &premises, balancer, rounds: 0 };
    let is_over = |told: &Told| told.url != first.url && !told.trusted.contains(&first.trusted[0]);
    let changes = stream.until("the first authority to be forgotten", is_over).await;
    assert!((1..=3).contains(&changes), "{changes}: another one is known, used, alone; a slow test sees two as one");
    // What is trusted now is what is served now.
    for _ in 0..3 {
        stream.round().await;
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_edits_or_deletes_is_put_right() {
    let premises = Premises::new("repair").await;
    let operator = premises.start(premises.setup()).await;
    let told = premises.told().await;
    premises.break_the_configuration().await;
    poll("the configuration to be put right", PATIENCE, || async { Ok((premises.told().await == told).then_some(())) })
        .await
        .unwrap();
    premises.called().await;

    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(
        premises.site.client.clone(),
        &premises.operator_namespace,
    );
    secrets.delete(keys::WEBHOOK_SECRET, &DeleteParams::default()).await.unwrap();
    poll("another authority and path", PATIENCE, || async {
        let now = premises.told().await;
        let is_new = |(now, told): (&Told, &Told)| now.url != told.url && now.trusted != told.trusted;
        Ok((now.iter().zip(&told).all(is_new) && now[0].trusted == now[1].trusted).then_some(()))
    })
    .await
    .unwrap();
    premises.called().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_serve_with_one_authority_and_both_are_trusted() {
    let premises = Premises::new("replicas").await;
    let balancer = Balancer::start();
    let (setup, address, _) = balancer.replica(&premises);
    balancer.add(address).await;
    let first = premises.start(setup).await;
    let told = premises.told().await;
    assert_eq!(told[0].trusted.len(), 1);
    assert_eq!(told[0].path(), told[1].path());
    let (setup, address, stats) = balancer.replica(&premises);
    let second = setup.start_with(premises.config.clone());
    answers(address).await;
    balancer.only(address).await;
    premises.called().await;
    assert!(stats.seal.get() > 0, "by the second");
    assert_eq!(premises.told().await, told, "one authority and one path: it had nothing to write");
    first.stop().await;
    premises.called().await;
    second.stop().await;
}

/// A folder as a mounted Secret of cert-manager's, filled as the kubelet does it: all files change at once.
struct Mounted {
    scratch: Scratch,
    version: usize,
}

impl Mounted {
    fn new() -> Self {
        let this = Self { scratch: Scratch::new("note", ""), version: 0 };
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(file), this.path().join(file)).unwrap();
        }
        this
    }

    fn path(&self) -> &Path {
        self.scratch.path.parent().unwrap()
    }

    /// A certificate of an authority of its own, which is returned.
    fn write(&mut self) -> Vec<u8> {
        let (now, lives) = (jiff::Timestamp::now(), Lifetimes::default());
        let authorities = Document::due(None, now, lives).unwrap().unwrap();
        let leaf = authorities.issue(&["127.0.0.1".to_owned()], now, lives).unwrap();
        let pem = |label: &str, der: &[u8]| testkit::control_plane::pem(label, der);
        self.version += 1;
        let name = format!("..{}", self.version);
        let folder = self.path().join(&name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), pem("CERTIFICATE", &leaf.certificate)).unwrap();
        std::fs::write(folder.join("tls.key"), pem("PRIVATE KEY", &leaf.key)).unwrap();
        std::fs::write(folder.join("ca.crt"), authorities.bundle()).unwrap();
        symlink(name, self.path().join("..data_tmp")).unwrap();
        std::fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
        ders(authorities.bundle().as_bytes()).remove(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_in_a_folder_are_followed_and_no_apply_is_lost() {
    let premises = Premises::new("folder").await;
    let mut mounted = Mounted::new();
    let mut current = mounted.write();
    let balancer = Balancer::start();
    let (mut setup, address, _) = balancer.replica(&premises);
    let certificates = &mut setup.webhooks.as_mut().unwrap().certificates;
    certificates.source = Source::Folder(mounted.path().to_owned());
    // What was trusted stays for so long.
    certificates.lifetimes.overlap = Duration::from_secs(15);
    balancer.add(address).await;
    let operator = premises.start(setup).await;
    assert!(premises.told().await.iter().all(|told| told.trusted == [current.clone()]));
    let mut stream = Stream { premises: &premises, balancer, rounds: 0 };
    for _ in 0..2 {
        let next = mounted.write();
        let changes = stream.until("the new one to be trusted", |told| told.trusted.contains(&next)).await;
        assert_eq!(changes, 1);
        assert!(premises.told().await.iter().all(|told| told.trusted == [next.clone(), current.clone()]));
        stream.until("the old one to be forgotten", |told| told.trusted == [next.clone()]).await;
        // So it is served.
        for _ in 0..3 {
            stream.round().await;
        }
        current = next;
    }
    operator.stop().await;
}
