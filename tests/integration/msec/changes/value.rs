//! `value`: byte for byte, in two requests, and never one that is not the secret's.

use kube::api::DeleteParams;
use serde_json::json;

use super::{may, objects, place};
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
    // What looks like an id is looked up as a name as well. The first request asks whether there is a value API.
    for (called, verbs) in [
        ("plain", &["get", "list", "get"][..]),
        (&id, &["get", "list", "list", "get"]),
        ("msec/plain", &["get", "list", "get"]),
    ] {
        let mark = control_plane.audit_mark().await.unwrap();
        assert_eq!(limited.run(&["value", called]).await.ok(), "hunter2");
        let requests = control_plane.requests_since(mark).await.unwrap();
        let ours: Vec<_> = requests.iter().filter(|it| it.username() == user).map(|it| it.verb.as_str()).collect();
        assert_eq!(ours, verbs, "{called}");
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
    let right = format!("check `kubectl auth can-i get secrets/login -n {}`", site.namespace);
    assert!(refused.error(1).contains(&right), "{refused:?}");
    let inner = plugin.run(&["value", "INNER"]).await;
    assert_eq!(
        inner.error(1),
        "cannot read the value: msec/inner is not delivered (spec.delivery: None), and the value API is not installed in \
         this cluster; install it with `managed-secrets manifests --value-api`, or set spec.delivery: Secret"
    );
    let version = plugin.run(&["value", "DB", "--version", "1"]).await;
    let error = version.error(1);
    assert!(error.starts_with("cannot read version 1 of the value: the value API is not installed"), "{error}");
    operator.stop().await;
}

/// In the form in which the value API answers, whichever of the two gives it.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_value_is_printed_as_json() {
    let (site, operator, plugin) = place("json").await;
    plugin.run_with(&["create", "DB"], "hunter2\u{200b}\n".as_bytes()).await.ok();
    let object = site.in_step("db").await;
    let printed = plugin.run(&["value", "DB", "-o", "json"]).await.ok();
    assert!(printed.is_ascii(), "{printed}");
    let status = status(&object);
    let expected = json!({
        "apiVersion": "values.managedsecrets.dev/v1alpha1", "kind": "SecretValue",
        "metadata": {"name": "DB", "namespace": site.namespace, "uid": status.id},
        "status": {
            "id": status.id, "name": "DB", "version": 1, "updatedDate": status.updated_date,
            "valueUpdatedTime": status.value_updated_time, "value": "hunter2\u{200b}\n",
        },
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), expected);
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
        ("MOVED", "is not the delivered one"),
        ("EMPTIED", "has no key value"),
        ("GONE", "the Secret gone was deleted"),
        ("EARLY", "msec/early is not delivered yet: Pending"),
        ("NOBODY", "secret \"NOBODY\" not found"),
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
    assert!(ran.err.starts_with("note: this is the current value; "), "{ran:?}");
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
    assert!(
        ran.err.starts_with("note: the Secret others was written after the last write that status shows"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_only_wanted_gives_nobodys_value_and_deletes_nothing() {
    let (site, operator, plugin) = place("wanted").await;
    // The name of a record that stayed, as one of another object that waits itself, is held by no object that wants it.
    site.apply("kept", json!({"name": "KEPT", "generate": {}, "deletionPolicy": "Retain"})).await;
    site.served("kept").await;
    plugin.run(&["delete", "KEPT"]).await.ok();
    plugin.run_with(&["create", "OLD", "--object-name", "db"], b"of old").await.ok();
    plugin.run(&["update", "OLD", "--name", "KEPT", "--wait=false"]).await.ok();
    site.reports("db", "False", "NameInUse").await;

    let other = "msec/db waits for the name KEPT and is still called OLD";
    let value = plugin.run(&["value", "KEPT"]).await;
    assert_eq!(value.error(1), format!("{other}; to read its value, name the object: msec/db"), "{value:?}");
    assert_eq!(value.out, "");
    let by_old = plugin.run(&["value", "OLD"]).await;
    assert!(by_old.error(1).contains("secret \"OLD\" not found"), "{by_old:?}");
    assert!(by_old.err.contains("or name the object as msec/OBJECT"), "{by_old:?}");
    assert_eq!(plugin.run(&["value", "msec/db"]).await.ok(), "of old");

    let note = format!("note: {other}\n");
    for arguments in [
        &["get", "KEPT"][..],
        &["get", "KEPT", "-o", "name"],
        &["describe", "KEPT"],
        &["update", "KEPT", "--description", "x", "--dry-run=client"],
    ] {
        let noted = plugin.run(arguments).await;
        assert!(noted.code == 0 && noted.err == note, "{arguments:?}: {noted:?}");
    }
    let by_object = plugin.run(&["get", "msec/db"]).await;
    assert!(by_object.code == 0 && by_object.err.is_empty(), "{by_object:?}");

    let refused = plugin.run(&["delete", "KEPT"]).await;
    assert!(refused.code == 1 && refused.err.starts_with(&format!("warning: {other}; ")), "{refused:?}");
    assert_eq!(objects(&site).await, ["db"]);
    // The object itself is meant by its own name: there is nothing to ask.
    plugin.run(&["delete", "msec/db"]).await.ok();
    operator.stop().await;
}
