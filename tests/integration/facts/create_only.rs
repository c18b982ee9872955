//! An apply with `metadata.resourceVersion: "1"`, which no live object can have, creates or is refused.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use testkit::poll;
use testkit::shared::TestNamespace;

use super::{MANAGER, apply, identity, refusal, secret, value_of, with};

fn create_only(object: Value) -> Value {
    with(object, "resourceVersion", "1")
}

#[tokio::test]
async fn it_creates_once() {
    let (namespace, client) = TestNamespace::shared("create-only").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace.name);
    let object = create_only(secret("one", "first"));

    assert_eq!(status_of_apply(&client, &namespace.name, &object).await, 201);
    let created = secrets.get("one").await.unwrap();
    assert_eq!(status_of_apply(&client, &namespace.name, &object).await, 409);
    let status = refusal(apply(&secrets, &create_only(secret("one", "second"))).await);
    assert!(status.is_conflict(), "{status:?}");
    assert_eq!(secrets.get("one").await.unwrap(), created);
}

/// The HTTP status: kube's typed calls don't tell 200 from 201.
async fn status_of_apply(client: &Client, namespace: &str, object: &Value) -> u16 {
    let name = object["metadata"]["name"].as_str().unwrap();
    let uri = format!("/api/v1/namespaces/{namespace}/secrets/{name}?fieldManager={MANAGER}&force=true");
    let request = http::Request::patch(uri)
        .header("Content-Type", "application/apply-patch+yaml")
        .body(kube::client::Body::from(object.to_string().into_bytes()))
        .unwrap();
    client.send(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn of_sixty_racers_one_wins() {
    let (namespace, client) = TestNamespace::shared("racers").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client, &namespace.name);
    for round in 0..3 {
        let name = format!("race-{round}");
        let racers: Vec<_> = (0..60).map(|racer| create_only(secret(&name, &format!("racer-{racer}")))).collect();
        let answers = join_all(racers.iter().map(|object| apply(&secrets, object))).await;

        let (winners, losers): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1);
        assert!(losers.into_iter().map(refusal).all(|status| status.code == 409));
        let stored = secrets.get(&name).await.unwrap();
        assert_eq!(value_of(&stored), value_of(winners[0].as_ref().unwrap()));
    }
}

#[tokio::test]
async fn it_leaves_a_foreign_object_alone_where_a_plain_apply_does_not() {
    let (namespace, client) = TestNamespace::shared("foreign").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client, &namespace.name);
    let foreign: Secret = serde_json::from_value(secret("theirs", "precious")).unwrap();
    let parameters = PostParams { field_manager: Some("another".to_owned()), ..PostParams::default() };
    let foreign = secrets.create(&parameters, &foreign).await.unwrap();

    let status = refusal(apply(&secrets, &create_only(secret("theirs", "ours"))).await);
    assert!(status.is_conflict(), "{status:?}");
    assert_eq!(secrets.get("theirs").await.unwrap(), foreign);

    // Why it is needed: the forced apply takes the field over without a word.
    let taken = apply(&secrets, &secret("theirs", "ours")).await.unwrap();
    assert_eq!((value_of(&taken).as_str(), taken.metadata.uid), ("ours", foreign.metadata.uid));
}

#[tokio::test]
async fn it_works_again_after_a_delete() {
    let (namespace, client) = TestNamespace::shared("again").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client, &namespace.name);
    let object = create_only(secret("one", "first"));
    let first = identity(&apply(&secrets, &object).await.unwrap());
    secrets.delete("one", &DeleteParams::default()).await.unwrap();
    let second = identity(&apply(&secrets, &object).await.unwrap());
    assert_ne!(first.uid, second.uid);
}

#[tokio::test]
async fn a_terminating_namespace_refuses_it_and_says_why() {
    let (namespace, client) = TestNamespace::shared("terminating").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace.name);
    let namespaces = Api::<Namespace>::all(client.clone());
    apply(&secrets, &secret("there-before", "first")).await.unwrap();
    // A finalizer keeps the namespace in this state.
    let maps = Api::<ConfigMap>::namespaced(client, &namespace.name);
    let holder = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "holder", "finalizers": ["facts.managedsecrets.dev/hold"] } });
    apply(&maps, &holder).await.unwrap();
    namespaces.delete(&namespace.name, &DeleteParams::default()).await.unwrap();

    let status = refusal(apply(&secrets, &create_only(secret("late", "value"))).await);
    assert!(status.is_forbidden(), "{status:?}");
    let causes = &status.details.as_ref().unwrap().causes;
    assert_eq!(causes[0].reason, "NamespaceTerminating", "{status:?}");

    let release = json!({ "metadata": { "finalizers": null } });
    maps.patch("holder", &PatchParams::default(), &Patch::Merge(release)).await.unwrap();
    poll("the namespace to go", Duration::from_secs(60), || async {
        Ok(namespaces.get_opt(&namespace.name).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_missing_namespace_answers_not_found() {
    let (namespace, client) = TestNamespace::shared("missing").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client, &format!("{}-not", namespace.name));
    let status = refusal(apply(&secrets, &create_only(secret("one", "value"))).await);
    assert!(status.is_not_found(), "{status:?}");
}
