//! Writes the bundle to trust into the APIService of the value API, and the ClusterRole that owns it.
//!
//! In: the certificates to trust. Out: one JSON patch if the APIService differs, with its resourceVersion as precondition.
//! The administrator owns everything else in it, also how the API server reaches the operator.
//!
//! While a registered API does not answer, the API server deletes no namespace. So the APIService must end with the
//! operator: a ClusterRole of the operator owns it. An owner in the operator's namespace would not do, because the end of
//! that namespace would wait for the APIService.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::{
    api::rbac::v1::ClusterRole,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource as _,
    api::{GetParams, Patch, PatchParams},
    core::Request,
};
use managed_secrets_api::{keys::FIELD_MANAGER, value::API_SERVICE};
use managed_secrets_client::{CallError, call};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};

/// The path of the resource.
const URL: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Which ClusterRole owns the APIService.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the ClusterRole.
    pub owner: String,
}

/// The parts of an APIService that the operator reads.
#[derive(Deserialize)]
struct ApiService {
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    ca_bundle: Option<String>,
    #[serde(default, rename = "insecureSkipTLSVerify")]
    insecure_skip_tls_verify: bool,
}

/// Updates the APIService, if there is one. `trust` takes the present bundle and returns the wanted one; `None` if the source
/// of the certificate also writes the bundle.
pub(super) async fn inject(
    client: &Client,
    options: &Options,
    trust: impl FnOnce(&str) -> Option<String>,
) -> Result<(), CallError> {
    let request = Request::new(URL);
    let get = request.get(API_SERVICE, &GetParams::default()).map_err(CallError::request)?;
    let found: ApiService = match call(client, get).await {
        Err(CallError::Refused(refusal)) if refusal.is_not_found() => return Ok(()),
        found => found?,
    };
    let owner = owner(client, &options.owner).await.filter(|owner| !is_owned(&found.metadata, owner));
    let Some(operations) = operations(&found, owner, trust) else { return Ok(()) };
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let operations = Patch::<()>::Json(serde_json::from_value(operations).map_err(|_| CallError::Malformed)?);
    let write = request.patch(API_SERVICE, &params, &operations).map_err(CallError::request)?;
    call::<serde::de::IgnoredAny>(client, write).await?;
    info!(name = API_SERVICE, "updated the APIService");
    Ok(())
}

/// Whether this ClusterRole, and no former one of its name, owns the APIService. Kubernetes deletes an object because of an
/// owner that was deleted, and a restored backup can contain one.
fn is_owned(metadata: &ObjectMeta, owner: &OwnerReference) -> bool {
    let mut of_name = metadata.owner_references.iter().flatten().filter(|reference| is_same_role(reference, owner));
    of_name.next().is_some_and(|first| first.uid == owner.uid) && of_name.next().is_none()
}

fn is_same_role(reference: &OwnerReference, owner: &OwnerReference) -> bool {
    reference.kind == owner.kind && reference.name == owner.name
}

/// The owner reference. `None` if the ClusterRole cannot be read: the API works without it.
async fn owner(client: &Client, name: &str) -> Option<OwnerReference> {
    match Api::<ClusterRole>::all(client.clone()).get_metadata(name).await {
        Ok(role) => Some(OwnerReference {
            api_version: ClusterRole::api_version(&()).into_owned(),
            kind: ClusterRole::kind(&()).into_owned(),
            name: name.to_owned(),
            uid: role.metadata.uid?,
            ..OwnerReference::default()
        }),
        Err(error) => {
            warn!(name, %error, "could not read the ClusterRole that must own the APIService; delete the APIService before you \
                uninstall the operator");
            None
        }
    }
}

/// Returns JSON patch operations; `None` if nothing has to change.
fn operations(
    found: &ApiService,
    owner: Option<OwnerReference>,
    trust: impl FnOnce(&str) -> Option<String>,
) -> Option<Value> {
    let mut operations = vec![json!({
        "op": "test", "path": "/metadata/resourceVersion", "value": found.metadata.resource_version,
    })];
    if let Some(owner) = owner {
        let others = found.metadata.owner_references.iter().flatten().filter(|other| !is_same_role(other, &owner));
        let all: Vec<&OwnerReference> = others.chain([&owner]).collect();
        operations.push(json!({"op": "add", "path": "/metadata/ownerReferences", "value": all}));
    }
    let present =
        found.spec.ca_bundle.as_deref().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
    let present = String::from_utf8_lossy(&present);
    // The API server accepts no bundle beside this; an administrator chose it.
    if !found.spec.insecure_skip_tls_verify
        && let Some(wanted) = trust(&present).filter(|wanted| *wanted != present)
    {
        operations.push(json!({"op": "add", "path": "/spec/caBundle", "value": BASE64_STANDARD.encode(wanted)}));
    }
    (operations.len() > 1).then_some(Value::Array(operations))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn found(spec: &Value) -> ApiService {
        let owners = json!([{"apiVersion": "v1", "kind": "Other", "name": "other", "uid": "o"}]);
        let metadata = json!({"resourceVersion": "7", "ownerReferences": owners});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn only_the_bundle_and_the_owner_are_written() {
        let bundle = BASE64_STANDARD.encode("new");
        let trust = |_: &str| Some("new".to_owned());
        let service = json!({"name": "elsewhere", "namespace": "there", "port": 8443});
        let changed = operations(&found(&json!({"service": service})), None, trust).unwrap();
        let expected = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/spec/caBundle", "value": bundle},
        ]);
        assert_eq!(changed, expected);
        assert_eq!(operations(&found(&json!({"caBundle": bundle})), None, trust), None);
        assert_eq!(operations(&found(&json!({"caBundle": bundle})), None, |_| None), None);
        assert_eq!(operations(&found(&json!({"insecureSkipTLSVerify": true})), None, trust), None);
        let owner = role("r");
        let changed = operations(&found(&json!({"caBundle": bundle})), Some(owner), trust).unwrap();
        let names: Vec<_> = changed[1]["value"].as_array().unwrap().iter().map(|owner| &owner["name"]).collect();
        assert_eq!(names, ["other", "role"]);
    }

    fn role(uid: &str) -> OwnerReference {
        let (kind, name) = (ClusterRole::kind(&()).into_owned(), "role".to_owned());
        OwnerReference { kind, name, uid: uid.to_owned(), ..OwnerReference::default() }
    }

    #[test]
    fn a_former_role_of_the_same_name_is_no_owner() {
        let owned_by = |owners: Vec<OwnerReference>| {
            let metadata = ObjectMeta { owner_references: Some(owners), ..ObjectMeta::default() };
            is_owned(&metadata, &role("now"))
        };
        assert!(owned_by(vec![role("now")]));
        let other = OwnerReference { kind: "Other".to_owned(), ..role("other") };
        assert!(owned_by(vec![other.clone(), role("now")]));
        for wrong in [vec![], vec![role("former")], vec![role("now"), role("former")], vec![other.clone()]] {
            assert!(!owned_by(wrong.clone()), "{wrong:?}");
        }
        let mut service = found(&json!({}));
        service.metadata.owner_references = Some(vec![role("former"), other]);
        let changed = operations(&service, Some(role("now")), |_| None).unwrap();
        let uids: Vec<_> = changed[1]["value"].as_array().unwrap().iter().map(|owner| &owner["uid"]).collect();
        assert_eq!(uids, ["other", "now"]);
    }
}
