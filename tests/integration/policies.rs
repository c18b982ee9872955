//! The admission policies of the manifests: who is refused what, as real users on a real API server.
#![allow(clippy::unwrap_used, reason = "tests")]

mod annotations;
mod metadata_size;
mod operator_writes;
mod protected;
mod user_rights;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::Api;
use kube::api::ListParams;
use managed_secrets::cli::manifests;

use crate::harness::poll;
use crate::integration::installation::{PATIENCE, admin, options};

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
