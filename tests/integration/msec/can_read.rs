//! `can-read`: who can read a value, and through what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use managed_secrets_api::value;
use serde_json::{Value, json};
use testkit::poll;

use super::{
    Plugin,
    changes::{may, place},
    user_with,
};
use crate::integration::{installation::control_plane, objects::id, operator::PATIENCE};

/// The answer about a user, and the ways: what through, whether the permission is there, whether it opens the value.
async fn asked(plugin: &Plugin, arguments: &[&str]) -> (bool, Vec<(String, String, bool)>) {
    let ran = plugin.run(&[&["can-read", "-o", "json"], arguments].concat()).await;
    let answer: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    let can = answer["canRead"].as_bool().unwrap();
    assert_eq!(ran.code, i32::from(!can), "{ran:?}");
    let text = |way: &Value, field: &str| way[field].as_str().unwrap().to_owned();
    let way = |way: &Value| (text(way, "through"), text(way, "allowed"), way["open"].as_bool().unwrap());
    (can, answer["ways"].as_array().unwrap().iter().map(way).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_a_value_is_found_and_nothing_is_impersonated() {
    let (site, operator, plugin) = place("can-read").await;
    site.apply("db", json!({"name": "DB", "generate": {}, "target": {"name": "login"}})).await;
    let id = id(&site.served("db").await);
    let (by_name, by_id) = ("value API, by name DB".to_owned(), format!("value API, by id {id}"));
    let secret = "delivered Secret login".to_owned();
    let pod = "pod that mounts the delivered Secret".to_owned();
    let keys = "record, with the operator's keys".to_owned();
    let by = |what: &str, verb: &str| format!("{what}, by {verb}");
    let (listed, watched) = (by(&secret, "list"), by(&secret, "watch"));
    let (all_listed, all_watched) = (by(&keys, "list"), by(&keys, "watch"));
    // The operator does not serve the value API here, so its permission opens nothing.
    for (granted, allowed, can) in [
        (vec![may(&["list"])], vec![], false),
        (vec![(&["get"][..], "", "secrets")], vec![&secret, &keys], true),
        (vec![(&["list"][..], "", "secrets")], vec![&listed, &all_listed], true),
        (vec![(&["watch"][..], "", "secrets")], vec![&watched, &all_watched], true),
        (vec![(&["get"][..], value::GROUP, value::PLURAL)], vec![&by_name, &by_id], false),
        (vec![(&["create"][..], "", "pods")], vec![&pod], true),
    ] {
        let user = user_with(&site, &granted).await;
        let (found, ways) = asked(&plugin, &["DB", "--as", &user]).await;
        let open: Vec<_> = ways.iter().filter(|way| way.1 == "yes").map(|way| &way.0).collect();
        assert_eq!((found, open), (can, allowed), "{granted:?}: {ways:?}");
        assert!(ways.iter().all(|way| way.1 != "unknown"), "{ways:?}");
        assert!(ways.iter().filter(|way| way.0.starts_with("value API")).all(|way| !way.2), "{ways:?}");
    }

    // A group, a service account, the user who asks; and a user who may not ask about others.
    let (found, _) = asked(&plugin, &["DB", "--as", "ann", "--as-group", "system:masters"]).await;
    assert!(found);
    let account = format!("system:serviceaccount:{}:web", site.namespace);
    let ran = plugin.run(&["can-read", "DB", "--as", &account]).await;
    let first = format!("{account} cannot read the value of DB in the namespace {}\n", site.namespace);
    assert!(ran.code == 1 && ran.out.starts_with(&first), "{ran:?}");
    let check = format!("kubectl auth can-i get secrets/login -n {} --as {account}", site.namespace);
    assert!(ran.out.contains(&check), "{ran:?}");
    let (found, ways) = asked(&plugin, &[&id]).await;
    assert!(found && ways.iter().all(|way| way.1 == "yes"), "{ways:?}");
    assert!(ways.iter().any(|way| way.0 == by_id && !way.2), "{ways:?}");
    operator.stop().await;
}

/// The built-in role `admin` of a namespace is enough, except for the question about the operator's namespace.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_one_namespace_can_ask_about_it() {
    let (site, operator, plugin) = place("can-read-own").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    let binding = ["create", "rolebinding", "admin", "--clusterrole=admin", "-n", &site.namespace];
    let account = format!("--serviceaccount={}:default", site.namespace);
    let ran = plugin.kubectl(&[&binding[..], &[&account]].concat(), b"").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let kubeconfig = control_plane().await.access().kubeconfig_for(&site.namespace, "default").await.unwrap();
    let place = ["-n", &site.namespace, "--kubeconfig", kubeconfig.to_str().unwrap()];
    let ask = ["msec", "can-read", "DB", "--as", "ann", "-o", "json"];
    let answer = poll("the role to be effective", PATIENCE, || async {
        let ran = plugin.kubectl(&[&ask[..], &place].concat(), b"").await;
        Ok(serde_json::from_str::<Value>(&ran.out).ok())
    })
    .await
    .unwrap();
    for way in answer["ways"].as_array().unwrap() {
        let is_elsewhere = way["through"].as_str().unwrap().starts_with("record, with the operator's keys");
        assert_eq!(way["allowed"], if is_elsewhere { "unknown" } else { "no" }, "{way}");
        let note = way["note"].as_str().unwrap_or_default();
        assert_eq!(note.contains("create localsubjectaccessreviews"), is_elsewhere, "{way}");
    }
    operator.stop().await;
}
