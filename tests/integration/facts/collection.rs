//! What the garbage collector takes, and what it leaves.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::json;
use testkit::poll;
use testkit::shared::TestNamespace;

use crate::integration::collector;

use super::{apply, gadget, gadgets, identity, secret, with};

struct Family {
    namespace: TestNamespace,
    gadgets: Api<DynamicObject>,
    secrets: Api<Secret>,
}

impl Family {
    /// A Gadget `owner` that owns a Secret `child`, beside a Secret `bystander`.
    async fn new(purpose: &str) -> Self {
        let (namespace, client) = TestNamespace::shared(purpose).await.unwrap();
        let family = Self {
            gadgets: gadgets(client.clone(), &namespace.name),
            secrets: Api::namespaced(client, &namespace.name),
            namespace,
        };
        let owner = identity(&apply(&family.gadgets, &gadget("owner")).await.unwrap());
        family.give_child("child", &owner.uid).await;
        apply(&family.secrets, &secret("bystander", "value")).await.unwrap();
        family
    }

    async fn give_child(&self, name: &str, owner_uid: &str) {
        let reference = json!([{
            "apiVersion": "facts.managedsecrets.dev/v1", "kind": "Gadget", "name": "owner", "uid": owner_uid,
        }]);
        apply(&self.secrets, &with(secret(name, "value"), "ownerReferences", reference)).await.unwrap();
    }

    async fn is_collected(&self, name: &str) {
        // The collector asks the API server which types there are every 30 s: a new one can take that long.
        poll(&format!("{name} to be collected"), Duration::from_secs(90), || async {
            Ok(self.secrets.get_opt(name).await?.is_none().then_some(()))
        })
        .await
        .unwrap();
        assert!(self.secrets.get_opt("bystander").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn children_go_with_their_owner() {
    let family = Family::new("children").await;
    family.gadgets.delete("owner", &DeleteParams::background()).await.unwrap();
    family.is_collected("child").await;
}

#[tokio::test]
async fn a_secret_restored_with_a_dead_owner_is_collected() {
    let family = Family::new("dead-owner").await;
    family.give_child("restored", "00000000-0000-4000-8000-000000000000").await;
    family.is_collected("restored").await;
    assert!(family.secrets.get_opt("child").await.unwrap().is_some(), "its owner lives");
}

#[tokio::test]
async fn an_owner_made_again_does_not_keep_the_first_ones_children() {
    let family = Family::new("made-again").await;
    family.gadgets.delete("owner", &DeleteParams::background()).await.unwrap();
    apply(&family.gadgets, &gadget("owner")).await.unwrap();
    family.is_collected("child").await;
}

#[tokio::test]
async fn a_dead_owner_beside_a_live_one_is_taken_away() {
    let family = Family::new("two-owners").await;
    let owner = identity(&family.gadgets.get("owner").await.unwrap());
    let reference = |uid: &str| json!({ "apiVersion": "facts.managedsecrets.dev/v1", "kind": "Gadget", "name": "owner", "uid": uid });
    let references = json!([reference(&owner.uid), reference("00000000-0000-4000-8000-000000000000")]);
    apply(&family.secrets, &with(secret("shared", "value"), "ownerReferences", references)).await.unwrap();
    poll("the dead owner to go", Duration::from_secs(90), || async {
        Ok((family.secrets.get("shared").await?.owner_references().len() == 1).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(family.secrets.get("shared").await.unwrap().owner_references()[0].uid, owner.uid);
}

#[tokio::test]
async fn orphaning_strips_the_owner_reference() {
    let family = Family::new("orphan").await;
    let child = family.secrets.get("child").await.unwrap();
    collector::has_seen_all(family.secrets.clone().into_client(), &family.namespace.name).await;
    let parameters = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    family.gadgets.delete("owner", &parameters).await.unwrap();
    let orphan = poll("the owner reference to go", Duration::from_secs(90), || async {
        let orphan = family.secrets.get("child").await?;
        let owner_is_gone = family.gadgets.get_opt("owner").await?.is_none();
        Ok((owner_is_gone && orphan.owner_references().is_empty()).then_some(orphan))
    })
    .await
    .unwrap();
    assert_eq!((orphan.uid(), orphan.data), (child.uid(), child.data));
}
