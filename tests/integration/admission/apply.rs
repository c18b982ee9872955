//! The whole way: a manifest with a plain value, applied by kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use managed_secrets::api::keys::LAST_APPLIED;
use serde_json::json;

use super::{Premises, control_plane};
use crate::integration::objects::version;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_value_is_sealed_before_it_is_stored_and_delivered() {
    const VALUE: &str = "plain-canary-5f1c";
    let premises = Premises::new("plain").await;
    let operator = premises.start(premises.setup()).await;
    let manifest = premises.manifest("db", &json!({"name": "DB", "value": VALUE}));
    Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &manifest).await);
    premises.site.delivers("db", "value", VALUE).await;
    let object = premises.site.served("db").await;
    let sealed = object.spec.value.clone().unwrap().0;
    assert!(sealed.starts_with("mss1."));
    let annotation = &object.metadata.annotations.as_ref().unwrap()[LAST_APPLIED];
    assert!(annotation.contains(&sealed), "the copy is the same sealed text");
    assert!(!serde_json::to_string(&object).unwrap().contains(VALUE));

    // Once more: nothing moves, and there is no difference to show.
    Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &manifest).await);
    assert_eq!(version(&premises.site.get("db").await), version(&object));
    assert_eq!(Premises::ok(&premises.kubectl(&["diff", "-f", "-"], &manifest).await), "");
    operator.stop().await;

    // Nobody there: sealed manifests go on, plain ones are told what to do.
    let message = Premises::refused(&premises.kubectl(&["apply", "-f", "-"], &manifest).await);
    assert!(message.contains("managed-secrets seal"), "{message}");
    assert!(!message.contains(VALUE));
    let exported = premises.manifest("db", &json!({"name": "DB", "description": "x", "value": sealed}));
    Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &exported).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_value_that_is_not_delivered_is_nowhere_in_etcd() {
    const VALUE: &str = "plain-canary-never-delivered-77ab";
    let premises = Premises::new("nowhere").await;
    let operator = premises.start(premises.setup()).await;
    let manifest = premises.manifest("db", &json!({"name": "DB", "value": VALUE, "delivery": "None"}));
    Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &manifest).await);
    let object = premises.site.served("db").await;
    Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &manifest).await);
    Premises::ok(&premises.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &manifest).await);
    assert_eq!(premises.site.get("db").await.spec.value, object.spec.value);
    let name = object.metadata.uid.unwrap();
    let holds = |content: &[u8], text: &str| content.windows(text.len()).any(|window| window == text.as_bytes());
    let files: Vec<_> =
        walk(&control_plane().await.etcd_dir().unwrap()).iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(files.iter().any(|content| holds(content, &name)), "the search finds what is there");
    assert!(!files.iter().any(|content| holds(content, VALUE)));
    operator.stop().await;
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
