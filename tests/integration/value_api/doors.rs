//! Both ways to a value, and what comes through them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use managed_secrets_api::value::{GROUP, TOKEN_AUDIENCE};
use serde_json::json;
use testkit::{
    control_plane::poll,
    front_proxy::{Authority, FRONT_PROXY},
};

use super::{
    Estate,
    client::{Identity, ask},
    hidden, path,
};
use crate::integration::operator::PATIENCE;

const NAME: &str = "a#B_+=-@$1";

#[tokio::test]
async fn both_doors_give_the_value_by_name_and_by_id() {
    let estate = Estate::shared().await;
    let site = estate.site("doors").await;
    let text = "tëxt \"with\\ all\n";
    let id = hidden(&site, "db", NAME, text).await;
    let token = estate.reader(&site, "web", &[NAME, &id]).await;
    for handle in [NAME, &id] {
        let path = path(&site.namespace, handle);
        let aggregated = estate.aggregated("", &path, &[]).await;
        let direct = estate.direct(&Identity::Token(&token), &path, &[]).await;
        for (door, answer) in [("aggregated", aggregated), ("direct", direct)] {
            assert_eq!((answer.code, answer.value().as_str()), (200, text), "{door}: {answer:?}");
            let json = answer.json();
            assert_eq!(json["metadata"], json!({"name": NAME, "namespace": site.namespace, "uid": id}), "{door}");
            assert_eq!((&json["status"]["version"], &json["status"]["id"]), (&json!(1), &json!(id)), "{door}");
            assert!(answer.headers.contains("cache-control: no-store"), "{door}: {}", answer.headers);
            let tag = answer.header("etag").to_owned();
            assert!(!tag.is_empty(), "{door}");
            let again = match door {
                "direct" => estate.direct(&Identity::Token(&token), &path, &[("If-None-Match", &tag)]).await,
                _ => estate.aggregated("", &path, &[("If-None-Match", &tag)]).await,
            };
            assert_eq!((again.code, again.body.as_str()), (304, ""), "{door}");
        }
    }
    // A new value has another tag.
    let sealed = site.seal("db", "new").await;
    site.apply("db", json!({"name": NAME, "value": sealed, "delivery": "None"})).await;
    site.until("db", "its second version", |it| it.status.as_ref().unwrap().version == Some(2)).await;
    let path = path(&site.namespace, NAME);
    let first = format!("\"{id}.1\"");
    let answer = estate.direct(&Identity::Token(&token), &path, &[("If-None-Match", &first)]).await;
    assert_eq!((answer.code, answer.value().as_str()), (200, "new"));
    for (query, code) in [("?version=2", 200), ("?version=1", 200), ("?version=3", 404), ("?version=x", 400)] {
        let answer = estate.direct(&Identity::Token(&token), &format!("{path}{query}"), &[]).await;
        assert_eq!(answer.code, code, "{query}: {answer:?}");
    }
    // The earlier value is kept; what the spec names is what is returned.
    let earlier = estate.direct(&Identity::Token(&token), &format!("{path}?version=1"), &[]).await.value();
    assert_ne!(earlier, "new");
    site.apply("db", json!({"name": NAME, "value": sealed, "delivery": "None", "version": 1})).await;
    site.until("db", "the earlier version", |it| it.status.as_ref().unwrap().delivered == Some(1)).await;
    poll("the earlier value", PATIENCE, || async {
        let answer = estate.direct(&Identity::Token(&token), &path, &[]).await;
        Ok((answer.code == 200 && answer.value() == earlier).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn kubectl_shows_a_table_without_the_value_and_explains_the_kind() {
    let estate = Estate::shared().await;
    let site = estate.site("table").await;
    hidden(&site, "db", "DB", "hunter2-of-the-table").await;
    let kubectl = async |arguments: &[&str]| {
        estate.control_plane.access().kubectl_ok(&[&["-n", &site.namespace], arguments].concat()).await.unwrap()
    };
    let table = kubectl(&["get", "secretvalue", "DB"]).await;
    assert!(table.contains("VERSION") && table.contains("DB") && !table.contains("hunter2"), "{table}");
    assert_eq!(kubectl(&["get", "secretvalue", "DB", "-o", "jsonpath={.status.value}"]).await, "hunter2-of-the-table");
    // The API server reads the OpenAPI documents in the background.
    poll("the explanation of the kind", PATIENCE, || async {
        let explained = estate.control_plane.access().kubectl_ok(&["explain", "secretvalue.status.value"]).await;
        Ok(explained.is_ok_and(|text| text.contains("The value.")).then_some(()))
    })
    .await
    .unwrap();
    let resources = kubectl(&["api-resources", "--api-group", GROUP, "-o", "wide"]).await;
    assert!(resources.contains("secretvalues") && resources.contains(" get"), "{resources}");
}

#[tokio::test]
async fn documents_and_health_need_no_identity_and_the_only_verb_is_get() {
    let estate = Estate::shared().await;
    let group = "/apis/values.managedsecrets.dev/v1alpha1";
    for path in [
        "/livez",
        "/readyz",
        "/apis",
        "/apis/values.managedsecrets.dev",
        group,
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/apis/values.managedsecrets.dev/v1alpha1",
    ] {
        assert_eq!(estate.direct(&Identity::None, path, &[]).await.code, 200, "{path}");
    }
    let value = format!("{group}/namespaces/default/secretvalues/DB");
    for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
        for path in [group, &value] {
            let answer = ask(estate.address, &Identity::None, method, path, &[("Content-Length", "0")]).await;
            assert_eq!(answer.code, 405, "{method} {path}: {answer:?}");
        }
    }
    for path in [format!("{group}/secretvalues"), format!("{group}/namespaces/default/secretvalues")] {
        assert_eq!(estate.direct(&Identity::None, &path, &[]).await.code, 405, "{path}");
    }
}

#[tokio::test]
async fn only_the_front_proxy_and_tokens_for_the_value_api_are_believed() {
    let estate = Estate::shared().await;
    let site = estate.site("forged").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let token = estate.reader(&site, "web", &["DB"]).await;
    let path = path(&site.namespace, "DB");
    let user = format!("system:serviceaccount:{}:web", site.namespace);
    let named = [("X-Remote-User", user.as_str()), ("X-Remote-Group", "system:masters")];

    let right = estate.authority.issue(FRONT_PROXY).unwrap();
    let answer = estate.direct(&Identity::Certificate(&right), &path, &named).await;
    assert_eq!((answer.code, answer.value().as_str()), (200, "hunter2"), "{answer:?}");
    // The front proxy's word is not enough: the permission is checked again.
    let other = [("X-Remote-User", "jane")];
    assert_eq!(estate.direct(&Identity::Certificate(&right), &path, &other).await.code, 403);
    assert_eq!(estate.direct(&Identity::Certificate(&right), &path, &[]).await.code, 401);

    let wrong_name = estate.authority.issue("someone").unwrap();
    // Of an authority of the same name.
    let wrong_authority = Authority::new("front-proxy-ca").unwrap().issue(FRONT_PROXY).unwrap();
    let api_token = estate.token(&site, "web", &["https://kubernetes.default.svc"]).await;
    let both_audiences = estate.token(&site, "web", &[TOKEN_AUDIENCE, "https://kubernetes.default.svc"]).await;
    for (what, identity) in [
        ("nothing", Identity::None),
        ("a certificate of another name", Identity::Certificate(&wrong_name)),
        ("a certificate of another authority", Identity::Certificate(&wrong_authority)),
        ("a token for the API server", Identity::Token(&api_token)),
        ("no token", Identity::Token("x.y.z")),
    ] {
        let answer = estate.direct(&identity, &path, &named).await;
        assert_eq!((answer.code, answer.value().as_str()), (401, ""), "{what}: {answer:?}");
        assert_eq!(answer.json()["reason"], "Unauthorized", "{what}");
    }
    for token in [&token, &both_audiences] {
        assert_eq!(estate.direct(&Identity::Token(token), &path, &named).await.value(), "hunter2");
    }
    // A token for the value API cannot be used at the API server.
    let answer = estate.aggregated_with_token(&token, &path).await;
    assert_eq!(answer.code, 401, "{answer:?}");
}

#[tokio::test]
async fn a_read_by_name_costs_one_request() {
    let estate = Estate::shared().await;
    let site = estate.site("cost").await;
    let id = hidden(&site, "db", "DB", "hunter2").await;
    let token = estate.reader(&site, "web", &["DB", &id]).await;
    let identity = Identity::Token(&token);
    // Who the caller is, and what they may do, is asked once in ten seconds.
    for handle in ["DB", &id] {
        estate.direct(&identity, &path(&site.namespace, handle), &[]).await;
    }
    let mark = estate.control_plane.audit_mark().await.unwrap();
    for _ in 0..10 {
        for handle in ["DB", &id] {
            assert_eq!(estate.direct(&identity, &path(&site.namespace, handle), &[]).await.code, 200);
        }
    }
    let requests = estate.control_plane.requests_since(mark).await.unwrap();
    let mut counts = BTreeMap::<(String, String), usize>::new();
    for request in requests.iter().filter(|request| request.username() == Estate::operator_user()) {
        let object = request.object();
        // Other tests run beside this one.
        if object.namespace == site.namespace {
            *counts.entry((request.verb.clone(), object.resource)).or_default() += 1;
        }
    }
    let expected = BTreeMap::from([(("get".to_owned(), "secrets".to_owned()), 20)]);
    assert_eq!(counts, expected);
}
