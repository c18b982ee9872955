//! `value`, `can-read`, `describe` and `doctor` in a cluster that has the value API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use testkit::poll;

use super::{Plugin, changes::may, user_with};
use crate::integration::{
    objects::Site,
    operator::PATIENCE,
    program::Ran,
    value_api::{Estate, FrontProxy, hidden},
};

async fn place(purpose: &str) -> (&'static Estate, Site, Plugin) {
    let estate = Estate::shared().await;
    let site = estate.site(purpose).await;
    let plugin = Plugin::on(&estate.control_plane, &site);
    (estate, site, plugin)
}

/// A new user who may read the values that these names or ids call, and nothing else; created as people do it.
async fn reader(site: &Site, plugin: &Plugin, handles: &[&str]) -> String {
    let user = format!("reader-{}", uuid::Uuid::new_v4().simple());
    let named: Vec<_> = handles.iter().map(|handle| format!("--resource-name={handle}")).collect();
    let named: Vec<_> = named.iter().map(String::as_str).collect();
    let place = ["-n", &site.namespace];
    let role = ["create", "role", &user, "--verb=get", "--resource=secretvalues.values.managedsecrets.dev"];
    assert_eq!(plugin.kubectl(&[&role[..], &named, &place].concat(), b"").await.code, 0);
    let (of_role, of_user) = (format!("--role={user}"), format!("--user={user}"));
    let binding = ["create", "rolebinding", &user, &of_role, &of_user];
    assert_eq!(plugin.kubectl(&[&binding[..], &place].concat(), b"").await.code, 0);
    user
}

/// Runs a command until it succeeds: roles take effect after a moment.
async fn succeeds(plugin: &Plugin, arguments: &[&str]) -> Ran {
    poll("the command to succeed", PATIENCE, || async {
        let ran = plugin.run(arguments).await;
        Ok((ran.code == 0).then_some(ran))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_delivered_is_read_by_name_id_or_object() {
    const NAME: &str = "DB_+=-@#$";
    let (_, site, plugin) = place("read").await;
    let id = hidden(&site, "db", NAME, "hunter2\n").await;
    for called in [NAME, &id, "msec/db"] {
        let ran = plugin.run(&["value", called]).await;
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "hunter2\n", ""), "{called}");
    }
    let json: Value = serde_json::from_str(&plugin.run(&["value", NAME, "-o", "json"]).await.ok()).unwrap();
    assert_eq!((&json["kind"], &json["status"]["version"]), (&json!("SecretValue"), &json!(1)));
    assert_eq!((&json["status"]["id"], &json["status"]["value"]), (&json!(id), &json!("hunter2\n")));
    assert_eq!(plugin.run(&["value", NAME, "--version", "1"]).await.ok(), "hunter2\n");
    let other = plugin.run(&["value", NAME, "--version", "2"]).await;
    let error = "cannot read version 2 of the value: this secret or this version of it was not found";
    assert_eq!(other.error(1), error, "{other:?}");
    let missing = plugin.run(&["value", "AWAY"]).await;
    assert!(missing.error(1).contains("secret \"AWAY\" not found"), "{missing:?}");
    let described = plugin.run(&["describe", NAME]).await.ok();
    let line =
        format!("Value API:      secretvalues.values.managedsecrets.dev/{id} in the namespace {}", site.namespace);
    assert!(described.lines().any(|found| found == line), "{described}");
}

/// The permission for one name or id is enough: the command does not need to find the object.
#[tokio::test(flavor = "multi_thread")]
async fn the_permission_for_a_name_or_an_id_is_enough() {
    let (_, site, plugin) = place("reader").await;
    let id = hidden(&site, "db", "DB", "hunter2").await;
    let by_name = plugin.impersonating(&reader(&site, &plugin, &["DB"]).await);
    let by_id = plugin.impersonating(&reader(&site, &plugin, &[&id]).await);
    assert_eq!(succeeds(&by_name, &["value", "DB"]).await.out, "hunter2");
    assert_eq!(succeeds(&by_id, &["value", &id]).await.out, "hunter2");
    let check = |handle: &str| {
        format!("check `kubectl auth can-i get secretvalues.values.managedsecrets.dev/{handle} -n {}`", site.namespace)
    };
    let refused = by_name.run(&["value", &id]).await;
    assert!(refused.error(1).contains(&check(&id)), "{refused:?}");
    let refused = by_id.run(&["value", "DB"]).await;
    assert!(refused.error(1).contains(&check("DB")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_value_can_be_read_from_its_secret_and_a_refusal_names_both_permissions() {
    let (_, site, plugin) = place("both").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.in_step("db").await;
    let value = site.value("db", "value").await.unwrap();
    assert_eq!(plugin.run(&["value", "DB"]).await.ok(), value);
    let from_secret = plugin.impersonating(&user_with(&site, &[may(&["list"]), (&["get"], "", "secrets")]).await);
    assert_eq!(succeeds(&from_secret, &["value", "DB"]).await.out, value);
    let neither = plugin.impersonating(&user_with(&site, &[may(&["list"])]).await);
    let refused = neither.run(&["value", "DB"]).await;
    let error = refused.error(1);
    for resource in ["secrets/db", "secretvalues.values.managedsecrets.dev/DB"] {
        assert!(error.contains(&format!("`kubectl auth can-i get {resource} -n {}`", site.namespace)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_of_the_value_api_opens_the_value() {
    let (_, site, plugin) = place("can-read").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let user = reader(&site, &plugin, &["DB"]).await;
    let ran = succeeds(&plugin, &["can-read", "DB", "--as", &user]).await;
    let first = format!("{user} can read the value of DB in the namespace {}\n", site.namespace);
    assert!(ran.out.starts_with(&first), "{ran:?}");
    let open: Vec<_> = ran.out.lines().filter(|line| line.contains(" yes ")).collect();
    assert!(open.len() == 1 && open[0].starts_with("value API, by name DB "), "{ran:?}");
}

/// The whole life of an outage: what commands say, and how the cluster recovers.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_delivered_values_can_be_read_and_doctor_says_what_is_blocked() {
    let mut estate = Estate::start(FrontProxy::On).await;
    let site = estate.site("outage").await;
    let plugin = Plugin::on(&estate.control_plane, &site);
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.in_step("db").await;
    hidden(&site, "inner", "INNER", "hunter2").await;
    let finding = async |level: &str, says: &str| {
        poll("the finding", PATIENCE, || async {
            let ran = plugin.run(&["doctor", "-o", "json"]).await;
            let all: Value = serde_json::from_str(&ran.out).unwrap_or_default();
            let is_it = |it: &&Value| {
                it["check"] == "value API" && it["level"] == level && it["what"].as_str().unwrap().contains(says)
            };
            Ok(all["findings"].as_array().into_iter().flatten().find(is_it).map(|_| ()))
        })
        .await
        .unwrap_or_else(|error| panic!("{level} {says}: {error}"));
    };
    finding("ok", "is available").await;
    estate.operator.take().unwrap().stop().await.unwrap();
    finding("problem", "no namespace of the cluster finishes deleting").await;
    let value = site.value("db", "value").await.unwrap();
    assert_eq!(plugin.run(&["value", "DB"]).await.ok(), value);
    let inner = plugin.run(&["value", "INNER"]).await;
    let error = inner.error(1);
    assert!(error.contains("no Secret holds its value; the value API: it does not answer (HTTP 503"), "{error}");
    // What doctor advises helps.
    let delete = ["delete", "apiservice", "v1alpha1.values.managedsecrets.dev"];
    assert_eq!(plugin.kubectl(&delete, b"").await.code, 0);
    finding("warning", "not found: the operator answers requests to its Service only").await;
    let delete = ["delete", "namespace", &site.namespace, "--timeout=90s"];
    assert_eq!(plugin.kubectl(&delete, b"").await.code, 0);
    estate.control_plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_the_flags_that_the_api_server_lacks() {
    let mut estate = Estate::start(FrontProxy::Off).await;
    let site = estate.site("flags").await;
    let plugin = Plugin::on(&estate.control_plane, &site);
    hidden(&site, "inner", "INNER", "hunter2").await;
    let ran = plugin.run(&["doctor"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("the API server does not say who it is (no --requestheader-client-ca-file)"), "{ran:?}");
    assert!(ran.out.contains("--proxy-client-cert-file"), "{ran:?}");
    let refused = plugin.run(&["value", "INNER"]).await;
    assert!(refused.error(1).contains("it does not trust the API server (HTTP 401)"), "{refused:?}");
    estate.operator.take().unwrap().stop().await.unwrap();
    estate.control_plane.stop().await.unwrap();
}
