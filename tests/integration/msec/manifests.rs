//! `seal`, `reseal`, `validate`, `diff` with a cluster: what is in files meets what is live. What they do without one
//! is shown by `crates/kubectl-msec/tests/msec.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod diff;
mod differential;
mod reseal;

use managed_secrets_crypto::mss1::Sealed;
use serde_json::Value;

use super::Plugin;
use crate::integration::{
    objects::Site,
    operator::{Setup, public_key},
};

/// What no output may hold.
const CANARY: &str = "k4n4ry-in-clear";

/// A manifest of an object of the site; the value is written as it is given.
fn manifest(site: &Site, name: &str, value: &str) -> String {
    format!(
        "# {name}: ask Ann\napiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata:\n  namespace: \
         {}\n  \
         name: {name} # the handle\nspec:\n  value: {value} # why\n  name: {}\n",
        site.namespace,
        name.to_uppercase().replace('-', "_")
    )
}

/// `spec.value` of a file that holds one document.
fn value_of(text: &str) -> String {
    let object: Value = serde_saphyr::from_str(text).unwrap();
    object["spec"]["value"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_sealed_with_the_clusters_key_is_applied_and_served() {
    let site = Site::new("sealfile").await;
    let operator = Setup::of(&site.namespace).start().await;
    let key = public_key(&site.client).await;
    let plugin = Plugin::new(&site).await;
    let file = plugin
        .folder
        .file("db.yaml", manifest(&site, "db", &format!("|\n    {CANARY}\n    two")).replace(" # why", ""));
    let pin = key.fingerprint();
    // As a user who may only read the public key, as every user may.
    let nobody = plugin.impersonating("nobody@example.com");
    let ran = nobody.run(&["seal", "-f", &file, "--fingerprint", &pin]).await;
    assert_eq!(ran.ok(), format!("{file}: sealed {}/db\n", site.namespace));
    let text = plugin.folder.read("db.yaml");
    assert!(!text.contains(CANARY) && text.starts_with("# db: ask Ann\n"), "{text}");
    assert_eq!(Sealed::parse(&value_of(&text)).unwrap().key_id(), key.key_id());
    plugin.run(&["validate", "-f", &file]).await.ok();
    plugin.kubectl(&["apply", "-f", &file], b"").await.ok();
    site.delivers("db", "value", &format!("{CANARY}\ntwo\n")).await;

    let other = nobody.run(&["seal", "--name", "db", "--fingerprint", &"0".repeat(64)]).await;
    assert!(other.error(1).contains("--fingerprint"), "{other:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_became_managed_secrets_are_taken_over() {
    let site = Site::new("convert").await;
    let operator = Setup::of(&site.namespace).start().await;
    let plugin = Plugin::new(&site).await;
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: db-password, namespace: {}}}\nstringData: {{password: \
         {CANARY}}}\n",
        site.namespace
    );
    let file = plugin.folder.file("secret.yaml", &secret);
    plugin.kubectl(&["apply", "-f", &file], b"").await.ok();
    let uid = site.secret("db-password").await.unwrap().metadata.uid;
    let ran = plugin.run(&["seal", "--from-secret", &file, "--adopt"]).await;
    let converted = ran.ok();
    assert!(!format!("{ran:?}").contains(CANARY));
    plugin.kubectl(&["apply", "-f", "-"], converted.as_bytes()).await.ok();
    let object = site.served("db-password").await;
    assert_eq!(
        (object.spec.name.as_str(), object.status.unwrap().target.map(|target| target.uid)),
        ("DB_PASSWORD", uid)
    );
    assert_eq!(site.value("db-password", "password").await.as_deref(), Some(CANARY));
    operator.stop().await;
}
