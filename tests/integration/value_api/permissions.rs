//! The permission is asked for the name or id as it was given, before anything is read.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::json;
use testkit::{control_plane::poll, front_proxy::FRONT_PROXY};

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

/// The same requests and steps, so the same time: the permission is asked for, and nothing is looked up.
#[tokio::test]
async fn without_permission_a_missing_secret_costs_the_same_requests_as_any_other() {
    let estate = Estate::shared().await;
    let site = estate.site("same-cost").await;
    let id = hidden(&site, "db", "THERE", "hunter2").await;
    let token = estate.reader(&site, "web", &["OTHER"]).await;
    let proxy = estate.authority.issue(FRONT_PROXY).unwrap();
    let jane = [("X-Remote-User", "jane")];
    let missing = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
    // Who the caller is, is asked once.
    assert_eq!(estate.direct(&Identity::Token(&token), &path(&site.namespace, "FIRST"), &[]).await.code, 403);
    for name in ["THERE", "AWAY", &id, missing] {
        let path = path(&site.namespace, name);
        for door in ["direct", "aggregated"] {
            let mark = estate.control_plane.audit_mark().await.unwrap();
            let answer = match door {
                "direct" => estate.direct(&Identity::Token(&token), &path, &[]).await,
                _ => estate.direct(&Identity::Certificate(&proxy), &path, &jane).await,
            };
            assert_eq!(answer.code, 403, "{door} {name}: {answer:?}");
            let requests = estate.control_plane.requests_since(mark).await.unwrap();
            // Other tests run beside this one, in other namespaces.
            let of_this = requests.iter().filter(|request| {
                let asked = &request.request_object["spec"]["resourceAttributes"]["namespace"];
                request.username() == Estate::operator_user()
                    && (request.object().namespace == site.namespace || *asked == site.namespace)
            });
            let asked: Vec<_> = of_this
                .map(|request| {
                    let name = request.request_object["spec"]["resourceAttributes"]["name"].clone();
                    (request.verb.clone(), request.object().resource, name)
                })
                .collect();
            let expected = ("create".to_owned(), "subjectaccessreviews".to_owned(), json!(name));
            assert_eq!(asked, [expected], "{door} {name}");
        }
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
