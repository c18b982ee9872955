//! What is delivered is what is returned, and no other version in its place.
#![allow(clippy::unwrap_used, reason = "tests")]

use kube::api::DeleteParams;
use managed_secrets_api::names::record_name;
use serde_json::{Value, json};
use testkit::control_plane::poll;

use super::{Estate, client::Identity, path};
use crate::integration::{objects::Site, operator::PATIENCE};

/// Gives the object `db` two values, and has the first one delivered.
async fn pinned(site: &Site, more: &Value) -> String {
    let mut spec = json!({"name": "DB"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    for value in ["one", "two"] {
        spec["value"] = json!(site.seal("db", value).await);
        site.apply("db", spec.clone()).await;
        site.in_step("db").await;
    }
    spec["version"] = json!(1);
    site.apply("db", spec.clone()).await;
    site.in_step("db").await;
    spec["value"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_version_that_is_to_be_delivered_and_not_kept_is_not_replaced_by_the_newest() {
    let estate = Estate::shared().await;
    let site = estate.site("not-kept").await;
    let token = estate.reader(&site, "web", &["DB", "NEW"]).await;
    let ask = async |name: &str, query: &str| {
        estate.direct(&Identity::Token(&token), &format!("{}{query}", path(&site.namespace, name)), &[]).await
    };
    // Waits for the refusal that names the newest version. Until then, only `before` is given.
    let refused = async |name: &str, before: &str, newest: u64| {
        poll("the refusal", PATIENCE, || async {
            let answer = ask(name, "").await;
            assert!(answer.code == 404 || answer.value() == before, "{name}: another version is given");
            Ok((answer.code == 404 && answer.body.contains(&format!("?version={newest}"))).then_some(()))
        })
        .await
        .unwrap();
        assert_eq!(ask(name, &format!("?version={newest}")).await.code, 200);
    };
    let newest = pinned(&site, &json!({})).await;
    poll("the earlier value", PATIENCE, || async { Ok((ask("DB", "").await.value() == "one").then_some(())) })
        .await
        .unwrap();

    // Rebuilt from its source, the record has the newest value alone.
    site.secrets().delete(&record_name("DB"), &DeleteParams::default()).await.unwrap();
    refused("DB", "one", 3).await;
    site.reports("db", "False", "VersionNotKept").await;
    site.delivers("db", "value", "one").await;
    refused("DB", "one", 3).await;

    // The first value of an object that names another one.
    site.apply("new", json!({"name": "NEW", "generate": {}, "version": 9})).await;
    refused("NEW", "", 1).await;

    site.apply("db", json!({"name": "DB", "value": newest})).await;
    site.delivers("db", "value", "two").await;
    poll("the newest value", PATIENCE, || async {
        let answer = ask("DB", "").await;
        Ok((answer.code == 200 && answer.value() == "two").then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_retained_secret_answers_with_what_its_secret_holds() {
    let estate = Estate::shared().await;
    let site = estate.site("retained-version").await;
    let token = estate.reader(&site, "web", &["DB"]).await;
    let path = path(&site.namespace, "DB");
    let ask = async |query: &str| estate.direct(&Identity::Token(&token), &format!("{path}{query}"), &[]).await;
    pinned(&site, &json!({"deletionPolicy": "Retain"})).await;
    site.delete("db").await;
    // Once this one is served, the operator knows that the other one is deleted.
    site.apply("later", json!({"name": "LATER", "generate": {}})).await;
    site.served("later").await;

    for (query, value) in [("", "one"), ("?version=1", "one"), ("?version=2", "two")] {
        let answer = ask(query).await;
        assert_eq!((answer.code, answer.value().as_str()), (200, value), "{query}");
    }
    site.intrude("db", json!({"stringData": {"value": "another"}})).await;
    let answer = ask("").await;
    assert!(answer.code == 404 && answer.body.contains("?version=2") && !answer.body.contains("another"), "{answer:?}");
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    let answer = ask("").await;
    assert_eq!((answer.code, answer.value().as_str()), (200, "two"), "no Secret has another version");
}
