//! The admission policies of the manifests: who is refused what, as real users on a real API server.
#![allow(clippy::unwrap_used, reason = "tests")]

mod annotations;
mod metadata_size;
mod operator_writes;
mod protected;
mod user_rights;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use managed_secrets::install::manifests::{self, Options};
use serde_json::{Value, json};
use testkit::poll;

use crate::integration::installation::{OPERATOR_NAMESPACE, PATIENCE, admin, dry_run, object, options};

/// The API server checks the expressions against the schemas of what they look at, and warns in `status`.
#[tokio::test]
async fn expressions_fit_the_schemas() {
    let policies = Api::<ValidatingAdmissionPolicy>::all(admin().await);
    let installed = manifests::manifests(&options());
    let names: Vec<_> = installed
        .iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicy")
        .map(|object| object["metadata"]["name"].as_str().unwrap())
        .collect();
    let checked = poll("the policies to be type-checked", PATIENCE, || async {
        let mut list = policies.list(&ListParams::default()).await?.items;
        list.retain(|policy| names.contains(&policy.metadata.name.as_deref().unwrap_or_default()));
        let done =
            list.iter().all(|policy| policy.status.as_ref().is_some_and(|status| status.type_checking.is_some()));
        Ok((done && list.len() == names.len()).then_some(list))
    })
    .await
    .unwrap();
    for policy in checked {
        let warnings =
            policy.status.and_then(|status| status.type_checking).and_then(|checks| checks.expression_warnings);
        assert_eq!(warnings.unwrap_or_default(), Vec::new(), "{:?}", policy.metadata.name);
    }
}

/// The operator's namespace enforces the Pod Security Standard "restricted", which the API server knows.
#[tokio::test]
async fn the_operators_pod_is_as_strict_as_its_namespace_asks() {
    let pods = Api::<Pod>::namespaced(admin().await, OPERATOR_NAMESPACE);
    let template = |openshift: bool| -> Value {
        let objects = manifests::manifests(&Options { openshift, ..Options::default() });
        let deployment = objects.into_iter().find(|object| object["kind"] == "Deployment").unwrap();
        let mut pod = deployment["spec"]["template"].clone();
        pod["metadata"]["name"] = json!("operator");
        pod
    };
    for openshift in [false, true] {
        let pod: Pod = object(template(openshift));
        pods.create(&dry_run(), &pod).await.unwrap();
    }
    let mut lax = template(true);
    lax["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
    let refused = pods.create(&dry_run(), &object(lax)).await.unwrap_err();
    assert!(refused.to_string().contains("violates PodSecurity \"restricted"), "{refused}");
}
