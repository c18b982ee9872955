//! Plaintext in a manifest, on a real API server that calls the webhooks of an operator in this process.
//!
//! One control plane serves all these tests. [`Premises`] is one installation on it, limited to one namespace: with
//! manifests of its own, so with webhook configurations that only its namespace meets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

mod apply;
pub(in crate::integration) mod balancer;
mod closed;
mod handover;
mod matrix;
mod memory;
mod oracle;
mod refusals;
mod replicas;
mod rights;
mod rotation;
mod rotator;
mod words;

use std::{path::PathBuf, process::Output, sync::Arc, time::Duration};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, Client, Config, api::PostParams};
use managed_secrets::{
    install::manifests,
    port::Port,
    webhook::{
        self,
        certificates::{self, Reached, Source, authority::Lifetimes},
        server::Limits,
    },
};
use managed_secrets_api::{ManagedSecret, crd, keys, names::cluster_object_name};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{self, Access, ControlPlane, poll};
use tokio::sync::OnceCell;

pub(crate) use self::replicas::replace_the_sealing_key;
use super::{
    installation::RESTORER,
    objects::Site,
    operator::{PATIENCE, Running, Setup},
};

static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// The control plane of these tests: the CRD, and nothing that calls a webhook before a test installs it.
pub(crate) async fn control_plane() -> &'static ControlPlane {
    let start = || async {
        let file = Scratch::new("crd.yaml", &serde_json::to_string(&crd::crd()).unwrap());
        let manifests = vec![file.path.clone()];
        ControlPlane::start_own(&testkit::Options { manifests, ..testkit::Options::default() }).await.unwrap()
    };
    CONTROL_PLANE.get_or_init(start).await
}

/// One installation: a namespace, and the operator's namespace, manifests and identity for it.
pub(crate) struct Premises {
    /// The namespace that is served.
    pub(crate) site: Site,
    /// The operator's own.
    pub(crate) operator_namespace: String,
    /// The operator's access.
    pub(crate) config: Config,
}

impl Premises {
    /// Installs all but a running operator.
    pub(crate) async fn new(purpose: &str) -> Self {
        Self::around(Site::on(control_plane().await, purpose).await).await
    }

    /// The same for a namespace that is there already, with what is in it.
    pub(crate) async fn around(site: Site) -> Self {
        let control_plane = control_plane().await;
        let operator_namespace = format!("{}-operator", site.namespace);
        let options = manifests::Options {
            operator_namespace: operator_namespace.clone(),
            namespaces: vec![site.namespace.clone()],
            restorers: vec![RESTORER.to_owned()],
            ..manifests::Options::default()
        };
        let file = Scratch::new("manifests.yaml", &manifests::print(&options).unwrap());
        control_plane.apply(std::slice::from_ref(&file.path)).await.unwrap();
        let access = control_plane.access();
        let path = access.kubeconfig_for(&operator_namespace, keys::OPERATOR_NAME).await.unwrap();
        let config = testkit::access::config_of(&path).await.unwrap();
        let premises = Self { site, operator_namespace, config };
        premises.policies_in_force().await;
        premises
    }

    /// The API server takes up policies in the background.
    async fn policies_in_force(&self) {
        let objects = self.site.objects();
        let copy = self.manifest("probe", &json!({"name": "PROBE", "value": "probe"}));
        let probe = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": "probe", "annotations": {"example.com/copy": copy}},
            "spec": {"name": "PROBE", "generate": {}},
        });
        let probe: ManagedSecret = serde_json::from_value(probe).unwrap();
        poll("the policies to be in force", PATIENCE, || async {
            let answer = objects.create(&PostParams { dry_run: true, ..PostParams::default() }, &probe).await;
            Ok(answer.is_err_and(|error| error.to_string().contains("example.com/copy")).then_some(()))
        })
        .await
        .unwrap();
    }

    /// kubectl, clients, kubeconfigs.
    pub(crate) async fn access(&self) -> &'static Access {
        control_plane().await.access()
    }

    /// The name of one of this installation's webhook configurations.
    pub(crate) fn configuration(&self, name: &str) -> String {
        cluster_object_name(name, &self.operator_namespace, false)
    }

    /// Webhooks on a free port, with these lifetimes.
    pub(crate) fn webhooks(&self, lifetimes: Lifetimes) -> webhook::Options {
        let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("https://{}", port.address().unwrap());
        webhook::Options {
            port,
            certificates: certificates::Options {
                operator_namespace: self.operator_namespace.clone(),
                source: Source::Own,
                reached: Reached::Url { url, host: "127.0.0.1".to_owned() },
                webhooks: true,
                also_named: Vec::new(),
                api_service: None,
                seal_configuration: self.configuration(keys::SEAL_CONFIGURATION),
                warn_configuration: self.configuration(keys::WARN_CONFIGURATION),
                lifetimes,
            },
            // No other replica takes over, unless a test says so.
            limits: Limits { drain: Duration::ZERO, ..Limits::default() },
            allow_cluster_scope: false,
            stats: Arc::default(),
        }
    }

    /// An operator with webhooks, to be started with [`Premises::start`].
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            operator_namespace: self.operator_namespace.clone(),
            webhooks: Some(self.webhooks(Lifetimes::default())),
            ..Setup::of(&self.site.namespace)
        }
    }

    /// Starts an operator, and waits until the API server calls both its webhooks.
    pub(crate) async fn start(&self, setup: Setup) -> Running {
        let stats = setup.webhooks.as_ref().map(|webhooks| Arc::clone(&webhooks.stats));
        let running = setup.start_with(self.config.clone());
        // They are in two configurations, of which the API server takes note one after the other.
        poll("both webhooks to be called", PATIENCE, || async {
            self.called().await;
            Ok(stats.as_ref().is_none_or(|stats| stats.warn.get() > 0).then_some(()))
        })
        .await
        .unwrap();
        running
    }

    /// Waits until plaintext is sealed: the API server takes note of a configuration a moment after it is written.
    pub(crate) async fn called(&self) {
        let probe = self.manifest("probe", &json!({"name": "PROBE", "value": "probe"}));
        poll("the webhook to be called", PATIENCE, || async {
            let output = self.kubectl(&["apply", "--dry-run=server", "-f", "-"], &probe).await;
            Ok(output.status.success().then_some(()))
        })
        .await
        .unwrap();
    }

    /// A client as an administrator who is listed as restorer.
    pub(crate) async fn restorer(&self) -> Client {
        self.access().await.client_as(RESTORER, &["system:masters"]).await.unwrap()
    }

    /// A manifest of one ManagedSecret.
    pub(crate) fn manifest(&self, name: &str, spec: &Value) -> String {
        json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": name, "namespace": self.site.namespace}, "spec": spec,
        })
        .to_string()
    }

    /// kubectl as administrator, in the namespace that is served.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let arguments = [&["--namespace", &self.site.namespace], arguments].concat();
        self.access().await.kubectl_with_input(&arguments, input).await.unwrap()
    }

    /// The same, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn ok(output: &Output) -> String {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        format!("{out}{err}")
    }

    /// The same, which must fail; what it printed.
    #[track_caller]
    pub(crate) fn refused(output: &Output) -> String {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "must be refused: {out}{err}");
        format!("{out}{err}")
    }

    /// The sealing webhook's configuration.
    pub(crate) async fn sealing(&self, client: &Client) -> MutatingWebhookConfiguration {
        Api::all(client.clone()).get(&self.configuration(keys::SEAL_CONFIGURATION)).await.unwrap()
    }
}

/// A file that goes with the test.
pub(crate) struct Scratch {
    /// Removed with this.
    _folder: TempDir,
    /// The file.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Writes a file.
    pub(crate) fn new(name: &str, content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Self { _folder: folder, path }
    }
}
