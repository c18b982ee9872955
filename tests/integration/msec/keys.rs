//! `keys`: what it lists, and that a request is carried out, refused and waited for.

use managed_secrets_crypto::mss1::PublicKey;
use serde_json::Value;

use super::{Plugin, user_with};
use crate::integration::{
    installation::RESTORER,
    lost_keys::Keys,
    objects::Site,
    operator::{Running, Setup},
    program::Ran,
    sealing_keys::{FAST, spec},
};

/// An operator with keys of its own, and the plugin, which finds it.
async fn place(purpose: &str) -> (Keys, Site, Running, Plugin) {
    let (keys, site) = (Keys::new().await, Site::new(purpose).await);
    let setup = Setup { operator_namespace: keys.site.namespace.clone(), sealing: FAST, ..Setup::of(&site.namespace) };
    let operator = setup.start_with(keys.config.clone());
    let mut plugin = Plugin::new(&site).await;
    plugin.env.push(("MANAGED_SECRETS_OPERATOR_NAMESPACE".to_owned(), keys.site.namespace.clone()));
    (keys, site, operator, plugin)
}

/// `kubectl msec keys`, by a user who may write the keyring of another namespace than the installed operator's.
async fn ask(plugin: &Plugin, args: &[&str]) -> Ran {
    let who = ["--as", RESTORER, "--as-group", "system:masters"];
    plugin.run(&[&["keys"][..], args, &who].concat()).await
}

/// What the list says of a key: its state, and how many values use it.
async fn listed(plugin: &Plugin, key: &PublicKey) -> (String, Value) {
    let json: Value = serde_json::from_str(&plugin.run(&["keys", "list", "-o", "json"]).await.ok()).unwrap();
    let id = key.key_id().to_string();
    let key = json["keys"].as_array().unwrap().iter().find(|it| it["id"] == id.as_str()).unwrap();
    (key["state"].as_str().unwrap().to_owned(), key["usedBy"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_replaced_retired_and_revoked() {
    let (keys, site, operator, plugin) = place("keys").await;
    let first = keys.published().await;
    site.apply("db", spec(&site, &first, "db", "one")).await;
    site.in_step("db").await;
    let id = first.key_id().to_string();
    assert_eq!(listed(&plugin, &first).await, ("active".to_owned(), 1.into()));
    let text = plugin.run(&["keys", "ls"]).await.ok();
    assert!(text.starts_with("ID\tPURPOSE\tSTATE\tAGE\tUSED BY\tKEK\n"), "{text}");
    assert!(text.contains(&format!("{id}\tsealing\tactive\t")) && text.contains("\t1 sealed value\tlocal "), "{text}");
    assert!(text.contains("\tseed\tactive\t"), "{text}");
    let refused = ask(&plugin, &["retire", &id]).await.error(1).to_owned();
    assert!(refused.contains("is the active sealing key; run kubectl msec keys rotate first"), "{refused}");

    let said = ask(&plugin, &["rotate"]).await.ok();
    let second = keys.published_after(&first).await;
    assert_eq!(said, format!("key {} is the active sealing key; earlier keys still open\n", second.key_id()));
    assert_eq!(listed(&plugin, &first).await, ("open-only".to_owned(), 1.into()));
    let refused = ask(&plugin, &["retire", &id]).await.error(1).to_owned();
    assert!(refused.contains("used by sealed values: 1") && refused.contains("kubectl msec reseal"), "{refused}");

    site.apply("db", spec(&site, &second, "db", "two")).await;
    site.delivers("db", "value", "two").await;
    site.in_step("db").await;
    let said = ask(&plugin, &["retire", &id]).await.ok();
    assert_eq!(said, format!("retired key {id}; kubectl msec keys reinstate {id} lets it open again\n"));
    assert_eq!(ask(&plugin, &["retire", &id]).await.ok(), format!("key {id} is retired already\n"));
    assert_eq!(listed(&plugin, &first).await, ("retired".to_owned(), 0.into()));
    assert_eq!(ask(&plugin, &["reinstate", &id]).await.ok(), format!("reinstated key {id}\n"));

    let active = second.key_id().to_string();
    let refused = ask(&plugin, &["revoke", &active]).await;
    let refused = refused.error(1).to_owned();
    assert!(refused.contains("no terminal to ask for confirmation"), "{refused}");
    let ran = ask(&plugin, &["revoke", &active, "--yes"]).await;
    assert_eq!(ran.ok(), format!("revoked key {active}\n"));
    let third = keys.published_after(&second).await;
    assert_eq!(listed(&plugin, &second).await, ("revoked".to_owned(), 1.into()));
    assert_eq!(listed(&plugin, &third).await, ("active".to_owned(), 0.into()));
    let refused = ask(&plugin, &["reinstate", &active]).await.error(1).to_owned();
    assert!(refused.contains("does not come back"), "{refused}");
    assert_eq!(ask(&plugin, &["revoke", "xyz"]).await.code, 2);
    assert_eq!(ask(&plugin, &["rotate", "--kek", "--seed"]).await.code, 2);
    let said = ask(&plugin, &["rotate", "--kek"]).await.ok();
    assert!(said.starts_with("the keys are encrypted with local "), "{said}");
    operator.stop().await;

    // No operator runs: the request stays, and the command says so.
    let waited = ask(&plugin, &["rotate", "--timeout", "1s"]).await.error(1).to_owned();
    assert!(waited.contains("the operator has not answered yet; the request stays"), "{waited}");
    let said = ask(&plugin, &["rotate", "--seed", "--wait=false"]).await.ok();
    assert!(said.starts_with("asked the operator to rotate seed;"), "{said}");
    let json: Value = serde_json::from_str(&plugin.run(&["keys", "list", "-o", "json"]).await.ok()).unwrap();
    assert_eq!(json["requests"], serde_json::json!(["rotate sealing", "rotate seed"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_do_is_named() {
    let (keys, site, operator, plugin) = place("keys-denied").await;
    keys.published().await;
    let none = plugin.impersonating(&user_with(&site, &[]).await);
    let namespace = &keys.site.namespace;
    let refused = none.run(&["keys", "list"]).await.error(1).to_owned();
    assert!(refused.contains(&format!("kubectl auth can-i list secrets -n {namespace}")), "{refused}");
    let reader = user_with(&site, &[(&["get", "list"], "", "secrets")]).await;
    let reader = plugin.impersonating(&reader);
    let ran = reader.run(&["keys", "list"]).await;
    assert!(ran.ok().contains("\tsealing\tactive\t") && ran.out.contains("\tunknown\t"), "{}", ran.out);
    let refused = reader.run(&["keys", "rotate"]).await.error(1).to_owned();
    let named = format!("kubectl auth can-i patch secrets/managed-secrets-keyring -n {namespace}");
    assert!(refused.contains(&named), "{refused}");
    operator.stop().await;
}
