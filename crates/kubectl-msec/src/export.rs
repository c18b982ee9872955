//! `kubectl msec export`: manifests that can be committed, from what is on the cluster.
//!
//! In: the objects as the API server has them. Out: a YAML stream, sorted by name, of what a user would have written:
//! kind, name, namespace, labels, annotations and spec. The objects are read untyped, so that a field of a newer
//! version is not lost. A live value is sealed; anything else is never printed.
//!
//! The namespace stays: a value sealed with strict scope is bound to it, and fails elsewhere.

use std::collections::BTreeSet;

use clap::Args;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, ResourceExt as _};
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::keys::LAST_APPLIED;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say, yaml};
use managed_secrets_crypto::mss1::Sealed;
use serde_json::{Map, Value, json};

use super::completion;
use super::lookup::{self, Called};
use super::session::{ClusterArgs, Session};

const EXAMPLES: &str = "\
The output leaves out status, the fields that the server sets, and the marks of the tools that applied an object (Argo \
CD, Flux, Helm, kapp, kubectl): the tool that applies the manifest sets its own.

Examples:
  # One secret
  kubectl msec export WEATHER_API_KEY > weather-api-key.yaml

  # All secrets of an application in the namespace
  kubectl msec export -l app=shop > secrets.yaml";

/// Arguments of `export`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct ExportArgs {
    /// Which secrets, each by NAME, ID or msec/OBJECT; all of the namespace when absent
    #[arg(value_name = "NAME|ID", conflicts_with_all = ["all_namespaces", "selector"], add = completion::secrets())]
    pub secrets: Vec<String>,

    /// From every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Only objects with these labels, such as app=shop,tier!=test
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
}

/// Prints secrets as manifests.
pub(super) async fn export(cluster: &ClusterArgs, args: &ExportArgs) -> Result<(), CliError> {
    let session = Session::open(cluster)?;
    let mut objects = if args.secrets.is_empty() {
        let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
        list(&session, args.all_namespaces, &params).await?
    } else {
        named(&session, &args.secrets).await?
    };
    if objects.is_empty() {
        say::tell("No secrets found.");
        return Ok(());
    }
    objects.sort_by_key(|object| (object.namespace(), object.name_any()));
    let manifests = objects.iter().map(manifest).collect::<Result<Vec<_>, _>>()?;
    let generated: Vec<_> = objects
        .iter()
        .filter(|object| object.data.pointer("/spec/generate").is_some())
        .map(|object| format!("msec/{}", object.name_any()))
        .collect();
    if !generated.is_empty() {
        say::tell(format_args!("note: another cluster generates other values for: {}", generated.join(", ")));
    }
    say::print_document(&yaml::stream(&manifests)?)
}

async fn list(session: &Session, everywhere: bool, params: &ListParams) -> Result<Vec<DynamicObject>, CliError> {
    let resource = ApiResource::erase::<ManagedSecret>(&());
    let permission = Permission::to_objects("list");
    let (api, permission) = if everywhere {
        (Api::all_with(session.client.clone(), &resource), permission)
    } else {
        let api = Api::namespaced_with(session.client.clone(), &session.namespace, &resource);
        (api, permission.within(&session.namespace))
    };
    let list = api.list(params).await.map_err(|error| permission.explain("cannot list secrets", &error))?;
    Ok(list.items)
}

/// The named objects, each once, even if it is named several times.
async fn named(session: &Session, secrets: &[String]) -> Result<Vec<DynamicObject>, CliError> {
    let mut names = BTreeSet::new();
    for secret in secrets {
        let object = lookup::one(session, secret).await?;
        lookup::note_if_only_wanted(secret, &object);
        names.extend(object.metadata.name);
    }
    let mut objects = Vec::new();
    for name in names {
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = list(session, false, &params).await?;
        let not_found = || Called::Object(name.clone()).not_found(&session.namespace);
        objects.push(found.into_iter().next().ok_or_else(not_found)?);
    }
    Ok(objects)
}

/// The part of an object that a user would have written.
fn manifest(object: &DynamicObject) -> Result<Value, CliError> {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    // The CRD's rule allows nothing else; but the user who commits this relies on it.
    let sealed = spec.get("value").is_none_or(|value| value.as_str().is_some_and(|text| Sealed::parse(text).is_ok()));
    if !sealed {
        return Err(CliError::Failed(format!(
            "msec/{}: spec.value is not a valid sealed value; nothing is exported",
            object.name_any()
        )));
    }
    let released_by_helm = object.annotations().keys().any(|key| key.starts_with(HELM));
    let is_helms = |key: &str, value: &str| released_by_helm && key == MANAGED_BY && value == "Helm";
    let labels = object.labels().iter().filter(|(key, value)| !is_a_tools(key) && !is_helms(key, value));
    let annotations = object.annotations().iter().filter(|(key, _)| !is_a_tools(key));
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), object.name_any().into());
    metadata.extend(object.namespace().map(|namespace| ("namespace".to_owned(), namespace.into())));
    for (field, entries) in [("labels", entries(labels)), ("annotations", entries(annotations))] {
        if !entries.is_empty() {
            metadata.insert(field.to_owned(), entries.into());
        }
    }
    let types = object.types.clone().unwrap_or_else(kube::core::TypeMeta::resource::<ManagedSecret>);
    Ok(json!({"apiVersion": types.api_version, "kind": types.kind, "metadata": metadata, "spec": spec}))
}

fn entries<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> Map<String, Value> {
    entries.map(|(key, value)| (key.clone(), value.clone().into())).collect()
}

/// Helm's marks of a release; with them, it also sets the label below.
const HELM: &str = "meta.helm.sh/";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Prefixes of labels and annotations by which tools know what they applied, each documented by its tool. Committed,
/// they would make the object another application's, or have it pruned. `app.kubernetes.io/instance`, which Argo CD can
/// be told to use, stays: people set it, too.
const TOOLS: &[&str] = &[
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/installation-id",
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "helm.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/namespace",
    HELM,
    "kapp.k14s.io/app",
    "kapp.k14s.io/association",
    "kapp.k14s.io/identity",
    "kapp.k14s.io/original",
    "kapp.k14s.io/original-diff-md5",
    "config.k8s.io/owning-inventory",
    "objectset.rio.cattle.io/",
];

fn is_a_tools(key: &str) -> bool {
    key == LAST_APPLIED || TOOLS.iter().any(|tool| key == *tool || (tool.ends_with('/') && key.starts_with(tool)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn object(metadata: &Value, spec: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": metadata, "spec": spec,
            "status": {"id": "x"},
        }))
        .unwrap()
    }

    #[test]
    fn what_a_user_wrote_stays_and_the_rest_is_removed() {
        let spec = json!({"name": "DB", "generate": {}, "ofANewerVersion": {"x": 1}});
        let metadata = json!({
            "name": "db", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"manager": "m"}],
            "labels": {"app": "shop", "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": "shop",
                "kustomize.toolkit.fluxcd.io/name": "k"},
            "annotations": {(LAST_APPLIED): "{}", "meta.helm.sh/release-name": "r", "example.com/owner": "team",
                "argocd.argoproj.io/tracking-id": "t", "argocd.argoproj.io/sync-wave": "2",
                "kapp.k14s.io/original": "{}"},
        });
        assert_eq!(
            manifest(&object(&metadata, &spec)).unwrap(),
            json!({
                "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
                "metadata": {
                    "name": "db", "namespace": "shop",
                    "labels": {"app": "shop", "app.kubernetes.io/instance": "shop"},
                    "annotations": {"example.com/owner": "team", "argocd.argoproj.io/sync-wave": "2"},
                },
                "spec": spec,
            })
        );
        let by_hand = json!({"name": "db", "labels": {"app.kubernetes.io/managed-by": "Helm"}});
        let kept = manifest(&object(&by_hand, &spec)).unwrap();
        assert_eq!(kept["metadata"]["labels"], by_hand["labels"]);
    }

    #[test]
    fn plaintext_is_never_printed() {
        for value in [json!("hunter2"), json!("mss1.hunter2"), json!(4711)] {
            let error = manifest(&object(&json!({"name": "db"}), &json!({"name": "DB", "value": value}))).unwrap_err();
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
    }
}
