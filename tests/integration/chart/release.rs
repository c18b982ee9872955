//! A release on a real API server, from its installation to its end.

use std::{collections::BTreeMap, fs, future::Future};

use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingWebhookConfiguration,
            WebhookClientConfig,
        },
        apps::v1::Deployment,
        core::v1::{Namespace, NamespaceCondition, Secret},
        rbac::v1::ClusterRole,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use managed_secrets_api::{keys, value};
use serde_json::{Value, json};
use testkit::{poll, root};

use super::{CHART, Helm, MAJORS, NAMESPACE, RELEASE, cluster::Cluster};
use crate::integration::{
    objects::{Site, id, status},
    operator::PATIENCE,
};

/// One release of one Helm, and a namespace with secrets.
struct Story {
    helm: Helm,
    cluster: Cluster,
    site: Site,
}

impl Story {
    async fn begin(major: u8) -> Self {
        let cluster = Cluster::start().await;
        let site = Site::on(&cluster.plane, "shop").await;
        Self { helm: Helm::new(major), cluster, site }
    }

    /// Runs Helm, which must succeed.
    async fn helm(&self, arguments: &[&str], values: Option<&Value>) -> String {
        self.helm.run(Some(self.cluster.kubeconfig()), arguments, values).await.ok()
    }

    async fn install(&self, values: &Value) {
        let said = self.helm(&["install", RELEASE, "--create-namespace"], Some(values)).await;
        assert!(said.contains("Back up its keys") && !said.contains("key file"), "{said}");
    }

    /// Installs, starts the operator and waits until it seals values.
    async fn install_and_run(&self, values: &Value) -> testkit::Operator {
        self.install(values).await;
        let operator = self.cluster.start_operator().await;
        let checked = self.cluster.helm_test(&self.helm, RELEASE).await;
        assert_eq!(checked.code, 0, "{checked:?}; {}", operator.log().unwrap());
        operator
    }

    /// Applies a plain value without end while something happens. Each apply must be sealed and not refused.
    async fn while_values_are_applied<T>(&self, during: impl Future<Output = T>) -> T {
        let applies = async {
            for number in 0_u32.. {
                let spec = json!({"name": "STREAM", "value": format!("value-{number}"), "delivery": "None"});
                let stored = self.site.apply("stream", spec).await;
                assert!(stored.spec.value.unwrap().0.starts_with("mss1."));
            }
        };
        tokio::select! {
            done = during => done,
            () = applies => unreachable!("it never ends"),
        }
    }

    /// What the operator wrote into the webhook configurations.
    async fn injected(&self) -> [WebhookClientConfig; 2] {
        let seal = Api::<MutatingWebhookConfiguration>::all(self.cluster.client.clone());
        let warn = Api::<ValidatingWebhookConfiguration>::all(self.cluster.client.clone());
        [
            seal.get(keys::SEAL_CONFIGURATION).await.unwrap().webhooks.unwrap().remove(0).client_config,
            warn.get(keys::WARN_CONFIGURATION).await.unwrap().webhooks.unwrap().remove(0).client_config,
        ]
    }

    /// Seconds that the API server waits for the sealing webhook.
    async fn timeout(&self) -> i32 {
        let seal = Api::<MutatingWebhookConfiguration>::all(self.cluster.client.clone());
        let seal = seal.get(keys::SEAL_CONFIGURATION).await.unwrap();
        seal.webhooks.unwrap().remove(0).timeout_seconds.unwrap()
    }

    async fn policies(&self) -> Vec<String> {
        let policies = Api::<ValidatingAdmissionPolicy>::all(self.cluster.client.clone());
        policies.list(&ListParams::default()).await.unwrap().iter().map(kube::ResourceExt::name_any).collect()
    }

    /// The Secrets of the release's namespace, without those in which Helm keeps its releases.
    async fn keys(&self) -> BTreeMap<String, Secret> {
        let secrets = Api::<Secret>::namespaced(self.cluster.client.clone(), NAMESPACE);
        let others = ListParams::default().fields("type!=helm.sh/release.v1");
        let found = secrets.list(&others).await.unwrap();
        found.into_iter().map(|secret| (secret.name_any(), secret)).collect()
    }
}

/// The chart with another timeout of the sealing webhook: what a later version may change.
fn later_version(helm: &mut Helm, timeout: i32) {
    let folder = helm.home.path().join("later");
    let original = std::mem::replace(&mut helm.chart, folder.clone());
    let mut folders = vec![original.clone()];
    while let Some(from) = folders.pop() {
        let to = folder.join(from.strip_prefix(&original).unwrap());
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let mut text = fs::read_to_string(&entry).unwrap();
            if entry.ends_with("webhooks.yaml") {
                text = text
                    .replace(&format!("timeoutSeconds: {timeout}\n"), &format!("timeoutSeconds: {}\n", timeout + 1));
            }
            fs::write(to.join(entry.file_name().unwrap()), text).unwrap();
        }
    }
}

async fn life_of_a_release(major: u8) {
    let mut story = Story::begin(major).await;
    let operator = story.install_and_run(&json!({})).await;
    let spec = json!({"name": "DB", "value": "only-an-example"});
    story.site.apply("db", spec.clone()).await;
    let first = story.site.served("db").await;
    story.site.delivers("db", "value", "only-an-example").await;

    // The keyring is a Secret, also if the key that encrypts it is in a file.
    let in_file = json!({"kekFile": "/run/kek/key"});
    let said = story.helm(&["upgrade", RELEASE, "--dry-run=server"], Some(&in_file)).await;
    assert!(said.contains("Back up its keys") && said.contains("Keep a copy of the key file, too."), "{said}");

    // An upgrade keeps what the operator has written, and no value is refused meanwhile.
    let injected = story.injected().await;
    assert!(injected.iter().all(|client| client.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty())));
    let values = json!({"replicas": 3, "policies": {"metadataSize": false}, "restorers": ["velero"]});
    let upgrade = ["upgrade", RELEASE];
    story.while_values_are_applied(story.helm(&upgrade, Some(&values))).await;
    assert_eq!(story.injected().await, injected);
    assert!(!story.policies().await.contains(&keys::POLICY_METADATA_SIZE.to_owned()));
    let deployments = Api::<Deployment>::namespaced(story.cluster.client.clone(), NAMESPACE);
    assert_eq!(deployments.get(keys::OPERATOR_NAME).await.unwrap().spec.replicas, Some(3));

    // So does one that changes the webhook configuration itself, and the way back.
    let timeout = story.timeout().await;
    later_version(&mut story.helm, timeout);
    story.while_values_are_applied(story.helm(&upgrade, Some(&values))).await;
    assert_eq!((story.injected().await, story.timeout().await), (injected.clone(), timeout + 1));
    story.while_values_are_applied(story.helm(&["rollback", RELEASE, "1"], None)).await;
    assert_eq!((story.injected().await, story.timeout().await), (injected, timeout));
    assert!(story.policies().await.contains(&keys::POLICY_METADATA_SIZE.to_owned()));
    story.helm.chart = root().join(CHART);

    // After an uninstall, every secret is delivered, and the keys are there.
    let keys_before = story.keys().await;
    assert!(keys_before.contains_key(keys::KEYRING_NAME), "{:?}", keys_before.keys());
    story.cluster.stop_operator(operator).await;
    let said = story.helm(&["uninstall", RELEASE], None).await;
    assert!(said.contains("CustomResourceDefinition"), "Helm says what it keeps: {said}");
    assert_eq!(story.keys().await, keys_before);
    assert_eq!(story.site.value("db", "value").await.as_deref(), Some("only-an-example"));
    assert_eq!(id(&story.site.get("db").await), id(&first));
    assert!(story.site.record("DB").await.is_some());
    assert!(story.policies().await.is_empty() && deployments.get_opt(keys::OPERATOR_NAME).await.unwrap().is_none());
    let roles = Api::<ClusterRole>::all(story.cluster.client.clone());
    assert!(roles.get_opt("managedsecret-editor").await.unwrap().is_none());

    // A new release takes up the keys.
    let operator = story.install_and_run(&json!({})).await;
    story.site.apply("db", spec).await;
    let again = story.site.served("db").await;
    assert_eq!((id(&again), status(&again).version), (id(&first), status(&first).version));
    story.site.apply("db", json!({"name": "DB", "value": "another-example"})).await;
    story.site.delivers("db", "value", "another-example").await;
    assert_eq!(story.keys().await[keys::KEYRING_NAME].data, keys_before[keys::KEYRING_NAME].data);
    story.cluster.stop_operator(operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_3_installs_upgrades_uninstalls_and_installs_again() {
    life_of_a_release(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_4_installs_upgrades_uninstalls_and_installs_again() {
    life_of_a_release(4).await;
}

/// Helm keeps what the operator writes into the APIService, and deletes it first: without its server, no namespace of the
/// cluster would finish deleting.
async fn life_of_a_value_api(major: u8) {
    let story = Story::begin(major).await;
    let values = json!({"valueApi": {"enabled": true}, "monitoring": {"secureMetrics": true}});
    let operator = story.install_and_run(&values).await;
    story.cluster.publish_value_api().await;
    story.site.apply("db", json!({"name": "DB", "value": "only-an-example", "delivery": "None"})).await;
    story.site.served("db").await;
    let path = value::path(&story.site.namespace, value::Handle::parse("DB").unwrap()).unwrap();
    let access = story.cluster.plane.access();
    let read = async || access.kubectl_ok(&["get", "--raw", &path]).await.unwrap();
    assert!(read().await.contains(r#""value":"only-an-example""#));

    let completed = |service: APIService| (service.metadata.owner_references, service.spec.unwrap().ca_bundle);
    let before = completed(story.cluster.value_api().await.unwrap());
    assert!(before.0.is_some() && before.1.is_some());
    let more = json!({"valueApi": {"enabled": true}, "replicas": 3});
    story.helm(&["upgrade", RELEASE], Some(&more)).await;
    assert_eq!(completed(story.cluster.value_api().await.unwrap()), before);
    assert!(read().await.contains(r#""value":"only-an-example""#));

    // Without an operator, a namespace waits until the release is uninstalled.
    story.cluster.stop_operator(operator).await;
    story.cluster.value_api_is("False").await;
    let namespaces = Api::<Namespace>::all(story.cluster.client.clone());
    let namespace = story.site.namespace.as_str();
    namespaces.delete(namespace, &DeleteParams::default()).await.unwrap();
    let waiting = poll("the namespace to wait for the value API", PATIENCE, || async {
        let conditions = namespaces.get(namespace).await?.status.and_then(|status| status.conditions);
        let is_it = |condition: &NamespaceCondition| {
            condition.type_ == "NamespaceDeletionDiscoveryFailure" && condition.status == "True"
        };
        Ok(conditions.unwrap_or_default().iter().any(is_it).then_some(()))
    });
    waiting.await.unwrap();
    story.helm(&["uninstall", RELEASE], None).await;
    assert!(story.cluster.value_api().await.is_none());
    let deleted = poll("the namespace to be deleted", PATIENCE, || async {
        Ok(namespaces.get_opt(namespace).await?.is_none().then_some(()))
    });
    deleted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_3_upgrades_the_value_api_and_uninstalls_it_without_a_server() {
    life_of_a_value_api(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_4_upgrades_the_value_api_and_uninstalls_it_without_a_server() {
    life_of_a_value_api(4).await;
}

/// The Roles of the chart suffice, and `helm test` fails when the operator does not run.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_for_one_namespace_delivers_there_and_helm_test_says_if_nothing_is_sealed() {
    let story = Story::begin(4).await;
    let values = json!({"namespaces": [story.site.namespace], "openshift": true});
    let operator = story.install_and_run(&values).await;
    story.site.apply("db", json!({"name": "DB", "value": "only-an-example"})).await;
    story.site.served("db").await;
    story.site.delivers("db", "value", "only-an-example").await;
    story.cluster.stop_operator(operator).await;

    let failed = story.cluster.helm_test(&story.helm, RELEASE).await;
    assert!(failed.error(1).contains("refuses plain values") && failed.err.contains("doctor"), "{failed:?}");
    let off = json!({"namespaces": [story.site.namespace], "webhooks": {"enabled": false}});
    story.helm(&["upgrade", RELEASE], Some(&off)).await;
    assert!(story.cluster.helm_test(&story.helm, RELEASE).await.ok().contains("refuses plain values"));
}

/// The CRD stays with its release. Another release, or the plain manifests before it, must be taken over explicitly.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_already_is_taken_over_on_request_only() {
    for major in MAJORS {
        let story = Story::begin(major).await;
        let text = managed_secrets::install::crd_text().unwrap();
        let options = managed_secrets::install::manifests::Options {
            operator_namespace: NAMESPACE.to_owned(),
            ..managed_secrets::install::manifests::Options::default()
        };
        let all = format!("{text}---\n{}", managed_secrets::install::manifests::print(&options).unwrap());
        let access = story.cluster.plane.access();
        let output = access.kubectl_with_input(&["apply", "--server-side", "-f", "-"], &all).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let install = ["install", RELEASE];
        let refused = story.helm.run(Some(story.cluster.kubeconfig()), &install, Some(&json!({}))).await;
        assert!(refused.code == 1 && refused.err.contains("cannot be imported"), "{refused:?}");
        let take_over =
            [&install[..], &["--take-ownership"], if major == 4 { &["--force-conflicts"] } else { &[] }].concat();
        story.helm(&take_over, Some(&json!({}))).await;

        story.helm(&["uninstall", RELEASE], None).await;
        let definitions = Api::<CustomResourceDefinition>::all(story.cluster.client.clone());
        let definition = definitions.get("managedsecrets.managedsecrets.dev").await.unwrap();
        assert_eq!(definition.annotations()["meta.helm.sh/release-name"], RELEASE);
        let other = story.helm.run(Some(story.cluster.kubeconfig()), &["install", "other"], Some(&json!({}))).await;
        assert!(other.code == 1 && other.err.contains("managedsecrets.managedsecrets.dev"), "{other:?}");
        story.helm(&["install", "other", "--take-ownership"], Some(&json!({}))).await;
    }
}
