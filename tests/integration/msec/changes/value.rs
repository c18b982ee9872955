//! `value`: byte for byte, in two requests, and never one that is not the secret's.

use kube::api::DeleteParams;
use serde_json::json;

use super::{may, place};
use crate::integration::{
    installation::control_plane,
    msec::user_with,
    objects::{id, status},
    operator::Setup,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_printed_byte_for_byte_by_name_id_or_object() {
    let (site, operator, plugin) = place("value").await;
    let long = "\u{10ffff}".repeat(3500);
    for (object, value) in [("plain", "hunter2"), ("lines", "\n \0a\r\n\u{feff}天\n"), ("long", &long)] {
        plugin.run_with(&["create", object], value.as_bytes()).await.ok();
        let printed = plugin.run(&["value", object]).await;
        assert!(printed.code == 0 && printed.out == value && printed.err.is_empty(), "{object}");
    }
    let user = user_with(&site, &[may(&["list"]), (&["get"], "", "secrets")]).await;
    let limited = plugin.impersonating(&user);
    let control_plane = control_plane().await;
    let id = id(&site.get("plain").await);
    for called in ["plain", &id, "msec/plain"] {
        let mark = control_plane.audit_mark().await.unwrap();
        assert_eq!(limited.run(&["value", called]).await.ok(), "hunter2");
        let requests = control_plane.requests_since(mark).await.unwrap();
        let ours: Vec<_> = requests.iter().filter(|it| it.username() == user).map(|it| it.verb.as_str()).collect();
        assert_eq!(ours, ["list", "get"], "{called}");
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_it_is_told_which_right_it_takes() {
    let (site, operator, plugin) = place("unread").await;
    site.apply("db", json!({"name": "DB", "generate": {}, "target": {"name": "login"}})).await;
    site.apply("inner", json!({"name": "INNER", "generate": {}, "delivery": "None"})).await;
    site.served("db").await;
    site.served("inner").await;
    let user = user_with(&site, &[may(&["list"])]).await;
    let limited = plugin.impersonating(&user);
    let refused = limited.run(&["value", "DB"]).await;
    let right = format!("`kubectl auth can-i get secrets/login -n {}` says no", site.namespace);
    assert!(refused.error(1).contains(&right), "{refused:?}");
    let inner = plugin.run(&["value", "INNER"]).await;
    let error = inner.error(1);
    assert!(error.contains("set spec.delivery: Secret, which takes the right"), "{error}");
    let right = format!(
        "`kubectl auth can-i get managedsecrets.managedsecrets.dev/inner --subresource value -n {}`",
        site.namespace
    );
    assert!(error.contains(&right), "{error}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_secrets_value_is_not_printed() {
    let (site, operator, plugin) = place("not-ours").await;
    for name in ["moved", "emptied", "gone"] {
        site.apply(name, json!({"name": name.to_uppercase(), "generate": {}})).await;
        site.served(name).await;
    }
    operator.stop().await;
    site.secrets().delete("moved", &DeleteParams::default()).await.unwrap();
    site.foreign_secret("moved", &[("value", "not the value")]).await;
    site.intrude("emptied", json!({"data": {"value": null}, "stringData": {"other": "not the value"}})).await;
    site.secrets().delete("gone", &DeleteParams::default()).await.unwrap();
    site.apply("early", json!({"name": "EARLY", "generate": {}})).await;
    for (called, expected) in [
        ("MOVED", "is not the one that was delivered"),
        ("EMPTIED", "has no key value"),
        ("GONE", "the Secret gone is gone"),
        ("EARLY", "msec/early is not served yet: Pending"),
        ("NOBODY", "no secret is called NOBODY"),
    ] {
        let ran = plugin.run(&["value", called]).await;
        assert!(ran.error(1).contains(expected), "{called}: {ran:?}");
        assert!(!ran.err.contains("not the value"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_about_to_change_is_printed_with_a_note() {
    let (site, operator, plugin) = place("in-force").await;
    plugin.run_with(&["create", "DB"], b"in force").await.ok();
    operator.stop().await;
    plugin.run_with(&["update", "DB", "--value-stdin", "--wait=false"], b"wanted").await.ok();
    let ran = plugin.run(&["value", "DB"]).await;
    assert_eq!(ran.ok(), "in force");
    assert!(ran.err.starts_with("note: this is the value in force; "), "{ran:?}");
    assert!(ran.err.contains("Pending") && ran.err.lines().count() == 1, "{ran:?}");
    assert_eq!(status(&site.get("db").await).version, Some(1));

    // Others wrote the Secret, and nobody is there to put it right.
    plugin.run(&["create", "OTHERS", "--generate", "--wait=false"]).await.ok();
    let operator = Setup::of(&site.namespace).start().await;
    site.in_step("others").await;
    assert_eq!(plugin.run(&["value", "OTHERS"]).await.err, "");
    operator.stop().await;
    site.intrude("others", json!({"stringData": {"value": "theirs"}})).await;
    let ran = plugin.run(&["value", "OTHERS"]).await;
    assert_eq!(ran.ok(), "theirs");
    assert!(ran.err.starts_with("note: the Secret others was written after the operator's last write"), "{ran:?}");
}
