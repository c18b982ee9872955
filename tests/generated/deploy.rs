//! The files of `deploy/`: the default installation as a kustomize base, and the components as differences from it.

use managed_secrets::install::manifests::{GENERATED, Options, manifests, print};
use managed_secrets_api::keys;
use managed_secrets_cli::{CliError, yaml};
use serde_json::{Value, json};

use crate::components::{COMPONENTS, Component, KMS_FOLDER, KMS_NAME, KMS_SOCKET, Placeholder, SERVED_NAMESPACE};

/// What the files of components leave to the user's kustomization.
const PLACEHOLDERS: [Placeholder; 4] = [SERVED_NAMESPACE, KMS_NAME, KMS_SOCKET, KMS_FOLDER];

/// Every file, as path from the project's root and content.
pub(crate) fn generated() -> Result<Vec<(String, String)>, CliError> {
    let options = Options::default();
    let base = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["manifests.yaml"],
    });
    let mut files = vec![
        ("deploy/manifests.yaml".to_owned(), print(&options)?),
        ("deploy/audit-policy.yaml".to_owned(), format!("{GENERATED}{AUDIT}{}", yaml::document(&audit_policy())?)),
        ("deploy/kustomization.yaml".to_owned(), format!("{GENERATED}{}", yaml::document(&base)?)),
    ];
    let with = |components: &[&Component]| {
        let mut options = options.clone();
        for component in components {
            (component.set)(&mut options);
        }
        manifests(&options)
    };
    for (at, component) in COMPONENTS.iter().enumerate() {
        let before = COMPONENTS.iter().take(at).map(|earlier| (with(&[earlier]), with(&[earlier, component])));
        files.extend(self::component(component, &with(&[]), &with(&[component]), &before.collect::<Vec<_>>())?);
    }
    Ok(files)
}

/// Above the audit rule.
const AUDIT: &str = "\
# For the file that kube-apiserver's --audit-policy-file names: put this rule before any broader one. At level Request
# or above the audit log holds what was sent, and that is before a plain value is sealed.
";

/// The audit rule to put before any broader one: a request is logged as it was sent, before it is sealed.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{
            "level": "Metadata",
            "resources": [
                {"group": keys::GROUP, "resources": [keys::PLURAL, format!("{}/*", keys::PLURAL)]},
                {"group": "", "resources": ["secrets"]},
            ],
        }],
    })
}

/// The files of a component that turns the objects `base` into the objects `wanted`. `before` are such pairs for an
/// installation that one of the components before it has changed.
fn component(
    component: &Component,
    base: &[Value],
    wanted: &[Value],
    before: &[(Vec<Value>, Vec<Value>)],
) -> Result<Vec<(String, String)>, CliError> {
    let mut patches = Vec::new();
    for object in base {
        match counterpart(object, wanted) {
            Some(other) => patches.extend(patch(object, other)?),
            None => patches.push(json!({"patch": yaml::document(&deletion(object))?})),
        }
    }
    let new = added(base, wanted);
    for (from, to) in before {
        assert_eq!(added(from, to), new, "{} adds other objects after another component", component.name);
        for object in added(base, from) {
            match counterpart(object, to) {
                Some(other) => patches.extend(patch(object, other)?),
                // With a target, it is no error if the object is not there.
                None => patches.push(json!({"target": selector(object), "patch": yaml::document(&deletion(object))?})),
            }
        }
    }

    let mut kustomization = json!({"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"});
    let folder = format!("deploy/components/{}", component.name);
    let mut files = Vec::new();
    if !new.is_empty() {
        kustomization["resources"] = json!(["resources.yaml"]);
        files.push((format!("{folder}/resources.yaml"), format!("{GENERATED}{}", yaml::stream(&new)?)));
    }
    if !patches.is_empty() {
        kustomization["patches"] = patches.into();
    }
    let replaced = |placeholder: &Placeholder| {
        let targets: Vec<_> = wanted.iter().flat_map(|object| replacements(object, placeholder)).collect();
        let source = json!({
            "kind": "ConfigMap",
            "name": placeholder.config_map,
            "fieldPath": format!("data.{}", placeholder.key),
        });
        (!targets.is_empty()).then(|| json!({"source": source, "targets": targets}))
    };
    let replaced: Vec<_> = PLACEHOLDERS.iter().filter_map(replaced).collect();
    if !replaced.is_empty() {
        kustomization["replacements"] = replaced.into();
    }
    let text = format!("{GENERATED}#\n{}{}", about(component), yaml::document(&kustomization)?);
    files.push((format!("{folder}/kustomization.yaml"), text));
    Ok(files)
}

/// The same object in another installation. Those of the cluster have another name if the operator serves some namespaces.
fn counterpart<'v>(object: &Value, among: &'v [Value]) -> Option<&'v Value> {
    let names = [name(object).to_owned(), format!("{}.{}", name(object), keys::DEFAULT_OPERATOR_NAMESPACE)];
    among.iter().find(|other| {
        kind(other) == kind(object) && namespace(other) == namespace(object) && names.iter().any(|it| it == name(other))
    })
}

/// The objects of `to` without counterpart in `from`.
fn added<'v>(from: &[Value], to: &'v [Value]) -> Vec<&'v Value> {
    let old: Vec<_> = from.iter().filter_map(|object| counterpart(object, to)).collect();
    to.iter().filter(|object| !old.contains(object)).collect()
}

/// What a component does, as comment of its kustomization.
fn about(component: &Component) -> &'static str {
    match component.name {
        "high-availability" => {
            "\
# Three replicas, spread evenly over nodes, strictly, and over zones, if possible. The base has two replicas, on
# different nodes if possible.
"
        }
        "monitoring" => {
            "\
# A ServiceMonitor, by which the Prometheus operator scrapes the replicas, and a NetworkPolicy that lets Prometheus connect
# to them. The cluster must have the CRDs of the Prometheus operator. List secure-metrics after it.
"
        }
        "secure-metrics" => {
            "\
# Metrics with TLS, for callers with a token, on a port of their own. List it after monitoring.
"
        }
        "restarts" => {
            "\
# Restarts of workloads that spec.target.restart names: the operator may get and patch Deployments, StatefulSets and
# DaemonSets. docs/permissions.md says what that means. List it after namespaced.
"
        }
        "value-api" => {
            "\
# The value API, by which values are read by name or id. docs/value-api.md says what it costs, and how to switch it off.
"
        }
        "namespaced" => {
            "\
# Permissions in one namespace and the operator's own, instead of the whole cluster. A ConfigMap names the namespace. Your
# kustomization must contain it, and kustomize does not print it. List this component after the others but restarts.
#
#   configMapGenerator:
#   - name: managed-secrets-served-namespace
#     literals: [namespace=shop]
#     options:
#       disableNameSuffixHash: true
#       annotations: {config.kubernetes.io/local-config: \"true\"}
#
# For several namespaces, use the output of `managed-secrets manifests --namespace …` as the base instead of deploy/.
"
        }
        "kms" => {
            "\
# The key-encryption key in a KMS, behind a KMS v2 plugin that runs on each node: docs/keys.md explains it. A ConfigMap says
# what the keyring calls the plugin, where its socket is, and the folder of the socket. Your kustomization must contain it,
# and kustomize does not print it. The socket must be in this folder, which is mounted from the node. List this component
# before namespaced.
#
#   configMapGenerator:
#   - name: managed-secrets-kms
#     literals: [name=aws, \"socket=unix:///run/kms/plugin.sock\", folder=/run/kms]
#     options:
#       disableNameSuffixHash: true
#       annotations: {config.kubernetes.io/local-config: \"true\"}
#
# For several plugins, use the output of `managed-secrets manifests --kms … --kms …` as the base instead of deploy/.
"
        }
        "openshift" => {
            "\
# Leaves user and group ids to OpenShift, which gives each namespace its own.
"
        }
        name => panic!("the component {name} has no comment"),
    }
}

/// The patch that turns one object into another; `None` if they are the same.
fn patch(from: &Value, to: &Value) -> Result<Option<Value>, CliError> {
    let difference = json_patch::diff(from, to);
    if difference.0.is_empty() {
        return Ok(None);
    }
    let mut target = selector(from);
    // The component `namespaced`, which comes before, has put in the name of the namespace.
    if target["namespace"] == SERVED_NAMESPACE.text {
        target.as_object_mut().unwrap().remove("namespace");
    }
    let mut patch = json!({"target": target, "patch": yaml::document(&difference)?});
    if name(from) != name(to) {
        patch["options"] = json!({"allowNameChange": true});
    }
    Ok(Some(patch))
}

/// What selects an object in kustomize.
fn selector(object: &Value) -> Value {
    let mut selector = json!({"kind": kind(object), "name": name(object)});
    if let Some(namespace) = namespace(object) {
        selector["namespace"] = json!(namespace);
    }
    selector
}

/// The patch that removes an object.
fn deletion(object: &Value) -> Value {
    let mut metadata = json!({"name": name(object)});
    if let Some(namespace) = namespace(object) {
        metadata["namespace"] = json!(namespace);
    }
    json!({"$patch": "delete", "apiVersion": object["apiVersion"], "kind": kind(object), "metadata": metadata})
}

/// Where an object contains the placeholder, as targets of a replacement.
fn replacements(object: &Value, placeholder: &Placeholder) -> Vec<Value> {
    let mut found = Vec::new();
    occurrences(object, placeholder.text, "", &mut found);
    found
        .into_iter()
        .map(|(path, text)| {
            let mut target = json!({"select": selector(object), "fieldPaths": [path]});
            if text != placeholder.text {
                let part =
                    |delimiter: &str| Some((delimiter.to_owned(), position(&text, delimiter, placeholder.text)?));
                let part = ["=", "-"].into_iter().find_map(part);
                let (delimiter, index) = part.expect("the placeholder is a part of something else");
                target["options"] = json!({"delimiter": delimiter, "index": index});
            }
            target
        })
        .collect()
}

/// Which of the parts between delimiters is this one.
fn position(text: &str, delimiter: &str, part: &str) -> Option<usize> {
    text.split(delimiter).position(|it| it == part)
}

fn occurrences(value: &Value, placeholder: &str, path: &str, found: &mut Vec<(String, String)>) {
    let below = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| occurrences(field, placeholder, &below(name), found));
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(at, item)| occurrences(item, placeholder, &below(&at.to_string()), found));
        }
        Value::String(text) if text.contains(placeholder) => found.push((path.to_owned(), text.clone())),
        _ => {}
    }
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn namespace(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str()
}
