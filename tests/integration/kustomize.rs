//! `deploy/` as kustomize builds it: each component gives the objects that `managed-secrets manifests` prints with its
//! flags, the API server admits them, and the operator works with their permissions.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::Api;
use managed_secrets::install::manifests::{self, KmsSocket, Options};
use managed_secrets_api::keys::{GROUP, KIND, OPERATOR_NAME, SEAL_CONFIGURATION, VERSION, WARN_CONFIGURATION};
use managed_secrets_cli::yaml::read_stream;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{ControlPlane, Operator, control_plane::quiet_address, poll, root};

use super::{
    installation::{OPERATOR_NAMESPACE, PATIENCE, Right, dry_run, may, object},
    kms::plugin::Plugin,
    program::PROGRAM,
};

#[path = "../generated/components.rs"]
mod components;

use components::{COMPONENTS, Component, KMS_FOLDER, KMS_NAME, KMS_SOCKET, SERVED_NAMESPACE};

/// The namespace that the component `namespaced` is used for.
const SERVED: &str = "shop";

/// The plugin that the component `kms` is used for, where none runs.
fn no_plugin() -> KmsSocket {
    let (socket, folder) = ("unix:///run/kms/plugin.sock".to_owned(), "/run/kms".to_owned());
    KmsSocket { name: "aws-prod".to_owned(), socket, folder }
}

/// A user's kustomization of the base and these components.
fn kustomization(components: &[&Component], kms: &KmsSocket) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(root().join("deploy")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let paths: Vec<_> = components.iter().map(|component| format!("deploy/components/{}", component.name)).collect();
    let mut kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["deploy"],
        "components": paths,
    });
    let is_used = |name: &str| components.iter().any(|component| component.name == name);
    let mut config_maps = Vec::new();
    if is_used("namespaced") {
        config_maps.push(config_map(SERVED_NAMESPACE.config_map, &[(SERVED_NAMESPACE.key, SERVED)]));
    }
    if is_used("kms") {
        let literals = [(KMS_NAME.key, &*kms.name), (KMS_SOCKET.key, &*kms.socket), (KMS_FOLDER.key, &*kms.folder)];
        config_maps.push(config_map(KMS_NAME.config_map, &literals));
    }
    if !config_maps.is_empty() {
        kustomization["configMapGenerator"] = config_maps.into();
    }
    fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    folder
}

/// A `ConfigMap` that components read, and that kustomize does not print.
fn config_map(name: &str, literals: &[(&str, &str)]) -> Value {
    json!({
        "name": name,
        "literals": literals.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        "options": {
            "disableNameSuffixHash": true,
            "annotations": {"config.kubernetes.io/local-config": "true"},
        },
    })
}

/// The options that the components stand for.
fn options(components: &[&Component], kms: &KmsSocket) -> Options {
    let mut options = Options::default();
    for component in components {
        (component.set)(&mut options);
    }
    for namespace in &mut options.namespaces {
        assert_eq!(namespace, SERVED_NAMESPACE.text);
        SERVED.clone_into(namespace);
    }
    for plugin in &mut options.kms {
        assert_eq!(plugin.name, KMS_NAME.text);
        plugin.clone_from(kms);
    }
    options
}

/// The base, each component alone, and all of them.
fn forms() -> Vec<Vec<&'static Component>> {
    let each = COMPONENTS.iter().map(|component| vec![component]);
    [vec![]].into_iter().chain(each).chain([COMPONENTS.iter().collect()]).collect()
}

fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"])
    };
    objects.into_iter().map(|object| (name(&object), object)).collect()
}

/// Two components, in their order.
fn pairs() -> Vec<Vec<&'static Component>> {
    let pairs = |(at, one): (usize, &'static Component)| {
        COMPONENTS.iter().skip(at + 1).map(move |other| vec![one, other]).collect::<Vec<_>>()
    };
    COMPONENTS.iter().enumerate().flat_map(pairs).collect()
}

#[tokio::test]
async fn components_give_what_the_flags_give_alone_and_together() {
    let access = testkit::shared::embedded().await.unwrap().access();
    for form in forms().into_iter().chain(pairs()) {
        let folder = kustomization(&form, &no_plugin());
        let built = access.kubectl_ok(&["kustomize", folder.path().to_str().unwrap()]).await.unwrap();
        let built = by_name(read_stream(&built).unwrap());
        let wanted = by_name(manifests::manifests(&options(&form, &no_plugin())));
        let names: Vec<_> = form.iter().map(|component| component.name).collect();
        assert_eq!(built.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{names:?}");
        for (name, object) in wanted {
            assert_eq!(built[&name], object, "{names:?}: {name}");
        }
    }
}

#[tokio::test]
async fn a_component_with_placeholders_needs_its_config_map() {
    let access = testkit::shared::embedded().await.unwrap().access();
    for (name, config_map) in [("kms", KMS_NAME.config_map), ("namespaced", SERVED_NAMESPACE.config_map)] {
        let component = COMPONENTS.iter().find(|component| component.name == name).unwrap();
        let folder = kustomization(&[component], &no_plugin());
        let file = folder.path().join("kustomization.yaml");
        let mut kustomization: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        kustomization.as_object_mut().unwrap().remove("configMapGenerator");
        fs::write(&file, kustomization.to_string()).unwrap();
        let output = access.kubectl(&["kustomize", folder.path().to_str().unwrap()]).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(config_map), "{error}");
    }
}

/// The type of the Prometheus operator, without its schema.
fn service_monitors() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_is_admitted_and_the_operator_works_with_it() {
    let plugin = Plugin::start().await;
    let socket = plugin.socket();
    let folder = socket.path().parent().unwrap().display().to_string();
    let kms = KmsSocket { name: "test".to_owned(), socket: socket.to_string(), folder };
    let folder = tempfile::tempdir().unwrap();
    let monitors = folder.path().join("servicemonitors.json");
    fs::write(&monitors, service_monitors().to_string()).unwrap();
    let manifests = vec![root().join("crds"), monitors];
    let plane = ControlPlane::start_own(&testkit::Options { manifests, ..testkit::Options::default() }).await.unwrap();
    let access = plane.access();
    for namespace in [SERVED, "elsewhere"] {
        access.kubectl_ok(&["create", "namespace", namespace]).await.unwrap();
    }
    let (namespaced, cluster): (Vec<_>, Vec<_>) =
        forms().into_iter().partition(|form| !options(form, &kms).namespaces.is_empty());

    // One over the other, as an administrator who changes the installation does.
    for (number, form) in cluster.iter().enumerate() {
        let folder = kustomization(form, &kms);
        let apply = ["apply", "-k", folder.path().to_str().unwrap()];
        if number > 0 {
            // It needs the namespace, so the first form cannot be checked so.
            access.kubectl_ok(&[&apply[..], &["--dry-run=server"]].concat()).await.unwrap();
        }
        access.kubectl_ok(&apply).await.unwrap();
        the_pod_is_admitted(&plane).await;
        if number == 0 {
            has_no_drift(&plane, folder.path()).await;
        }
    }
    works(&plane, "first", &[SERVED, "elsewhere"]).await;

    let mut installed =
        Options { monitoring: true, secure_metrics: true, restarts: true, value_api: true, ..Options::default() };
    for form in namespaced {
        installed.with_namespace = false;
        let delete = ["delete", "--ignore-not-found", "-f", "-"];
        let deleted = access.kubectl_with_input(&delete, &manifests::print(&installed).unwrap()).await.unwrap();
        assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
        let folder = kustomization(&form, &kms);
        access.kubectl_ok(&["apply", "-k", folder.path().to_str().unwrap()]).await.unwrap();
        installed = options(&form, &kms);
        the_pod_is_admitted(&plane).await;
        works(&plane, &format!("with-{}", form.len()), &[SERVED]).await;
        let operator = access.client_of(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
        let read = Right { verb: "list", group: "", resource: "secrets", name: None };
        assert!(may(&operator, SERVED, &read).await);
        assert!(!may(&operator, "elsewhere", &read).await);
    }
    plane.stop().await.unwrap();
}

/// The API server creates the pods of the Deployment: they fit the pod security standard of their namespace, and the
/// quota for their priority class.
async fn the_pod_is_admitted(plane: &ControlPlane) {
    let client = plane.access().admin_client().await.unwrap();
    let deployment =
        Api::<Deployment>::namespaced(client.clone(), OPERATOR_NAMESPACE).get(OPERATOR_NAME).await.unwrap();
    let mut pod = serde_json::to_value(deployment.spec.template).unwrap();
    pod["metadata"]["name"] = json!("probe");
    let pod: Pod = object(pod);
    let pods = Api::<Pod>::namespaced(client, OPERATOR_NAMESPACE);
    poll("the pod to be admitted", PATIENCE, || async {
        match pods.create(&dry_run(), &pod).await {
            Ok(_) => Ok(Some(())),
            // The quota controller has not seen the quota yet. A ReplicaSet tries again as well.
            Err(error) if error.to_string().contains("status unknown for quota") => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
    .unwrap();
}

/// The operator completes its webhook configurations, and a GitOps tool finds no difference to what Git holds.
async fn has_no_drift(plane: &ControlPlane, folder: &Path) {
    let access = plane.access();
    let listen = format!("--webhook-listen={}", quiet_address().unwrap());
    let operator = operator(plane, &[&listen]).await;
    let bundle = "jsonpath={.webhooks[0].clientConfig.caBundle}";
    for configuration in [
        format!("mutatingwebhookconfiguration/{SEAL_CONFIGURATION}"),
        format!("validatingwebhookconfiguration/{WARN_CONFIGURATION}"),
    ] {
        poll("the CA bundle", PATIENCE, || async {
            Ok((!access.kubectl_ok(&["get", &configuration, "-o", bundle]).await?.is_empty()).then_some(()))
        })
        .await
        .unwrap();
        let before = access.kubectl_ok(&["get", &configuration, "-o", "yaml"]).await.unwrap();
        let folder = folder.to_str().unwrap();
        for by in [&[][..], &["--server-side", "--force-conflicts", "--field-manager=tool"]] {
            let output = access.kubectl(&[&["diff", "-k", folder], by].concat()).await.unwrap();
            let (found, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{by:?}: {found}{error}");
        }
        access.kubectl_ok(&["apply", "-k", folder]).await.unwrap();
        assert_eq!(access.kubectl_ok(&["get", &configuration, "-o", "yaml"]).await.unwrap(), before);
    }
    assert_eq!(operator.stop().await.unwrap(), 0);
}

/// Starts the operator with the arguments of its Deployment and these, as its service account.
async fn operator(plane: &ControlPlane, own: &[&str]) -> Operator {
    let kubeconfig = plane.access().kubeconfig_for(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
    let client = plane.access().admin_client().await.unwrap();
    let deployment = Api::<Deployment>::namespaced(client, OPERATOR_NAMESPACE).get(OPERATOR_NAME).await.unwrap();
    let given = deployment.spec.template.spec.unwrap().containers.remove(0).args.unwrap();
    let (command, given) = given.split_first().unwrap();
    assert_eq!(command, "run");
    // These ports are fixed, and another test may use them.
    let ports = ["--admin-listen", "--metrics-listen"];
    let given = given.iter().filter(|argument| !ports.iter().any(|port| argument.starts_with(port)));
    let arguments: Vec<_> = given.map(String::as_str).chain(own.iter().copied()).collect();
    Operator::start(plane, Path::new(PROGRAM), &kubeconfig, &arguments).await.unwrap()
}

/// The operator seals and delivers a plain value in each namespace.
async fn works(plane: &ControlPlane, name: &str, namespaces: &[&str]) {
    let access = plane.access();
    let address = quiet_address().unwrap();
    let (listen, url) = (format!("--webhook-listen={address}"), format!("--webhook-url=https://{address}"));
    let operator = operator(plane, &[&listen, &url]).await;
    for namespace in namespaces {
        let secret = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"name": name, "value": "only-an-example"},
        });
        poll("the operator to seal a plain value", PATIENCE, || async {
            let applied = access.kubectl_with_input(&["create", "-f", "-"], &secret.to_string()).await?;
            Ok(applied.status.success().then_some(()))
        })
        .await
        .unwrap();
        let wait = ["-n", namespace, "wait", "--for=condition=Ready", "--timeout=60s", &format!("msec/{name}")];
        access.kubectl_ok(&wait).await.unwrap();
        let get = ["-n", namespace, "get", "secret", name, "-o", "jsonpath={.data.value}"];
        // The value in base64.
        assert_eq!(access.kubectl_ok(&get).await.unwrap(), "b25seS1hbi1leGFtcGxl");
    }
    assert_eq!(operator.stop().await.unwrap(), 0);
}
