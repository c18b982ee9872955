//! What the operator may do with webhook configurations: with its own two, what it needs; with all others, nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use managed_secrets_api::keys;
use testkit::poll;

use super::Premises;
use crate::integration::operator::PATIENCE;

/// Whether the client's user may do this; no name is all of them.
async fn may(client: &Client, verb: &str, resource: &str, name: Option<&str>) -> bool {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some("admissionregistration.k8s.io".to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some(verb.to_owned()),
                name: name.map(ToOwned::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    answer.unwrap().status.unwrap().allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn of_webhook_configurations_the_operator_has_its_own_two_and_no_others() {
    const MUTATING: &str = "mutatingwebhookconfigurations";
    const VALIDATING: &str = "validatingwebhookconfigurations";
    const OTHERS: [&str; 4] = [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    let premises = Premises::new("rights").await;
    let operator = Client::try_from(premises.config.clone()).unwrap();
    let sealing = premises.configuration(keys::SEAL_CONFIGURATION);
    let warning = premises.configuration(keys::WARN_CONFIGURATION);
    for (resource, own, foreign) in [(MUTATING, &sealing, &warning), (VALIDATING, &warning, &sealing)] {
        for verb in ["get", "list", "watch", "patch"] {
            poll("the roles to be in force", PATIENCE, || async {
                Ok(may(&operator, verb, resource, Some(own)).await.then_some(()))
            })
            .await
            .unwrap();
            // Neither those of an installation for the whole cluster, nor the other one's name, nor all.
            for name in [Some(keys::SEAL_CONFIGURATION), Some(keys::WARN_CONFIGURATION), Some(foreign.as_str()), None] {
                assert!(!may(&operator, verb, resource, name).await, "{verb} {resource} {name:?}");
            }
        }
        for verb in ["create", "update", "delete", "deletecollection"] {
            for name in [Some(own.as_str()), None] {
                assert!(!may(&operator, verb, resource, name).await, "{verb} {resource} {name:?}");
            }
        }
    }
    for resource in OTHERS {
        for verb in ["get", "list", "create", "update", "patch", "delete"] {
            assert!(!may(&operator, verb, resource, Some(&sealing)).await, "{verb} {resource}");
        }
    }
}
