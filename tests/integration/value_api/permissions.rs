//! The permission is asked for the name or id as it was given, before anything is read.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::json;
use testkit::control_plane::poll;

use super::{Estate, client::Identity, hidden, path};
use crate::integration::operator::PATIENCE;

#[tokio::test]
async fn a_permission_on_the_id_outlives_a_rename_and_one_on_the_name_does_not() {
    let estate = Estate::shared().await;
    let site = estate.site("rename").await;
    let id = hidden(&site, "db", "OLD", "hunter2").await;
    let by_name = estate.reader(&site, "by-name", &["OLD"]).await;
    let by_id = estate.reader(&site, "by-id", &[&id]).await;
    let ask = async |token: &str, handle: &str| {
        estate.direct(&Identity::Token(token), &path(&site.namespace, handle), &[]).await
    };
    for (token, handle, code) in
        [(&by_name, "OLD", 200), (&by_name, &*id, 403), (&by_id, "OLD", 403), (&by_id, &*id, 200)]
    {
        assert_eq!(ask(token, handle).await.code, code, "{handle}");
    }
    let sealed = site.get("db").await.spec.value.unwrap().0;
    site.apply("db", json!({"name": "NEW", "value": sealed, "delivery": "None"})).await;
    site.served("db").await;
    assert_eq!(ask(&by_name, "NEW").await.code, 403);
    assert_eq!(ask(&by_id, &id).await.value(), "hunter2");
    poll("the old name to end", PATIENCE, || async { Ok((ask(&by_name, "OLD").await.code == 404).then_some(())) })
        .await
        .unwrap();
}

#[tokio::test]
async fn without_permission_a_missing_secret_looks_like_any_other() {
    let estate = Estate::shared().await;
    let site = estate.site("missing").await;
    hidden(&site, "db", "THERE", "hunter2").await;
    let token = estate.reader(&site, "web", &["OTHER"]).await;
    let ask = async |name: &str| {
        let direct = estate.direct(&Identity::Token(&token), &path(&site.namespace, name), &[]).await;
        let aggregated = estate.aggregated("jane", &path(&site.namespace, name), &[]).await;
        [direct, aggregated].map(|answer| (answer.code, answer.body.replace(name, "NAME")))
    };
    assert_eq!(ask("THERE").await, ask("AWAY").await);
    assert!(ask("THERE").await.iter().all(|(code, _)| *code == 403));
    // With permission, it is missing.
    assert_eq!(estate.direct(&Identity::Token(&token), &path(&site.namespace, "OTHER"), &[]).await.code, 404);
    // Nothing in the operator's own namespace is a secret, and a namespace that does not exist has none.
    for namespace in [super::OPERATOR_NAMESPACE, "away"] {
        assert_eq!(estate.aggregated("", &path(namespace, "THERE"), &[]).await.code, 404, "{namespace}");
    }
}

#[tokio::test]
async fn a_suspended_or_stalled_object_gives_what_is_delivered() {
    let estate = Estate::shared().await;
    let site = estate.site("suspend").await;
    hidden(&site, "db", "DB", "first").await;
    let path = path(&site.namespace, "DB");
    let sealed = site.seal("db", "second").await;
    site.apply("db", json!({"name": "DB", "value": sealed, "delivery": "None", "suspend": true})).await;
    let is_observed = |object: &managed_secrets_api::ManagedSecret| {
        object.status.as_ref().unwrap().observed_generation == object.metadata.generation
    };
    site.until("db", "observed", is_observed).await;
    assert_eq!(estate.aggregated("", &path, &[]).await.value(), "first");
    // Sealed for another object, so it cannot be opened.
    let foreign = site.seal("other", "third").await;
    site.apply("db", json!({"name": "DB", "value": foreign, "delivery": "None"})).await;
    site.until("db", "stalled", |object| super::super::objects::ready(object).0 == "False").await;
    assert_eq!(estate.aggregated("", &path, &[]).await.value(), "first");
    // A deleted secret is not found, also while its record still exists.
    site.objects().delete("db", &kube::api::DeleteParams::default()).await.unwrap();
    poll("the value to end", PATIENCE, || async {
        Ok((estate.aggregated("", &path, &[]).await.code == 404).then_some(()))
    })
    .await
    .unwrap();
}
