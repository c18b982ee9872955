//! `get`, `list`, `public-key`, `explain`: what is shown, in which form, and at which cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};

use super::Plugin;
use crate::integration::{
    installation::control_plane,
    objects::{Site, status},
    operator::{Setup, public_key},
};

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_shown_by_name_by_id_and_by_object() {
    let site = Site::new("shown").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("weather", json!({"name": "A=B@$#-+=", "description": "Wetter, 天気", "generate": {}})).await;
    site.apply("other", json!({"name": "OTHER", "generate": {}})).await;
    let weather = site.served("weather").await;
    site.served("other").await;
    let id = status(&weather).id.unwrap();
    let plugin = Plugin::new(&site).await;

    for called in ["A=B@$#-+=", &id, &id.to_uppercase(), "msec/weather", "managedsecret.managedsecrets.dev/weather"] {
        let out = plugin.run(&["get", called, "-o", "jsonpath={.status.id}"]).await.ok();
        assert_eq!(out, id, "{called}");
        let out = plugin.run(&["get", called]).await.ok();
        let lines: Vec<Vec<_>> = out.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines.len(), 2, "{out}");
        assert_eq!(lines[0], ["NAME", "SECRET", "ID", "READY", "REASON", "VERSION", "UPDATED", "AGE"]);
        assert_eq!(lines[1][..6], ["weather", "A=B@$#-+=", &id, "True", "Served", "1"]);
    }
    // The very columns of kubectl's own table.
    let ours = plugin.run(&["list", "-o", "wide", "--no-headers"]).await.ok();
    let theirs = plugin.kubectl(&["get", "msec", "-n", &site.namespace, "-o", "wide", "--no-headers"], b"").await;
    let cells = |line: &str| line.split("  ").map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    let rows = |text: &str| text.lines().map(cells).collect::<Vec<Vec<String>>>();
    let without_ages = |rows: Vec<Vec<String>>| -> Vec<Vec<String>> {
        rows.into_iter().map(|row| row.into_iter().filter(|cell| !cell.ends_with('s')).collect()).collect()
    };
    assert_eq!(without_ages(rows(&ours)), without_ages(rows(&theirs.out)));

    let names = plugin.run(&["list", "-o", "name", "--sort-by", ".metadata.name"]).await.ok();
    assert_eq!(names, "managedsecret.managedsecrets.dev/other\nmanagedsecret.managedsecrets.dev/weather\n");
    let sorted = plugin.run(&["list", "--no-headers", "--sort-by", "{.spec.description}"]).await.ok();
    assert!(sorted.starts_with("other"), "{sorted}");
    let json: Value = serde_json::from_str(&plugin.run(&["get", &id, "-o", "json"]).await.ok()).unwrap();
    assert_eq!(json["kind"], "ManagedSecret");
    assert_eq!(json["metadata"]["managedFields"], Value::Null);
    let list: Value = serde_json::from_str(&plugin.run(&["list", "-o", "json"]).await.ok()).unwrap();
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(2)));
    let everywhere = plugin.run(&["list", "-A", "--field-selector", &format!("status.id={id}")]).await.ok();
    assert!(everywhere.starts_with("NAMESPACE\t") && everywhere.contains(&site.namespace), "{everywhere}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_in_one_line() {
    let site = Site::new("absent").await;
    let plugin = Plugin::new(&site).await;
    let absent = plugin.run(&["get", "NOBODY"]).await;
    assert!(absent.error(1).contains("NOBODY") && absent.err.contains(&site.namespace), "{absent:?}");
    let wrong = plugin.run(&["get", "no body"]).await;
    assert!(wrong.error(2).contains("letters, digits"), "{wrong:?}");
    let empty = plugin.run(&["list"]).await;
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert!(empty.err.contains("No secrets found"), "{empty:?}");
    let reason = plugin.run(&["explain", "NameInUse"]).await;
    assert!(reason.ok().starts_with("NameInUse\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_costs_one_request_and_a_missing_right_is_named() {
    let site = Site::new("lookup").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    let id = status(&site.served("db").await).id.unwrap();
    let user = super::user_with(&site, &[(&["list"], "managedsecrets.dev", "managedsecrets")]).await;
    let plugin = Plugin::new(&site).await.impersonating(&user);
    let control_plane = control_plane().await;
    for called in ["DB", &id] {
        let mark = control_plane.audit_mark().await.unwrap();
        plugin.run(&["get", called]).await.ok();
        let requests = control_plane.requests_since(mark).await.unwrap();
        let ours: Vec<_> = requests.iter().filter(|request| request.username() == user).collect();
        assert_eq!(ours.len(), 1, "{ours:?}");
    }
    let nobody = plugin.impersonating("nobody@example.com");
    let refused = nobody.run(&["get", "DB"]).await;
    let says = format!("kubectl auth can-i list managedsecrets.managedsecrets.dev -n {}", site.namespace);
    assert!(refused.error(1).contains(&says), "{refused:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_key_is_told_and_written_to_a_file() {
    let site = Site::new("key").await;
    let operator = Setup::of(&site.namespace).start().await;
    let key = public_key(&site.client).await;
    let plugin = Plugin::new(&site).await;
    let out = plugin.run(&["public-key", "--out", "key.json"]).await.ok();
    assert!(out.contains(&key.fingerprint()), "{out}");
    let again = plugin.run(&["public-key", "--public-key", "key.json", "--document"]).await.ok();
    assert_eq!(again, plugin.folder.read("key.json"));
    let other = plugin.run(&["public-key", "--fingerprint", &"0".repeat(64)]).await;
    assert!(other.error(1).contains("--fingerprint"), "{other:?}");
    // Everybody may read it where the operator is, and nowhere else.
    let nobody = plugin.impersonating("nobody@example.com");
    nobody.run(&["public-key"]).await.ok();
    let refused = nobody.run(&["public-key", "--operator-namespace", &site.namespace]).await;
    let says = format!("kubectl auth can-i get configmaps/managed-secrets-sealing-key -n {}", site.namespace);
    assert!(refused.error(1).contains(&says), "{refused:?}");
    operator.stop().await;
}
