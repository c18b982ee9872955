//! The whole way: a manifest with a plain value, applied by kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, fs, sync::Arc};

use managed_secrets::api::keys::LAST_APPLIED;
use serde_json::json;

use super::{Premises, control_plane};
use crate::integration::{
    canary::search::{Canary, Finder, files},
    objects::version,
};

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
    let canaries = [Canary::of("the value", VALUE.to_owned(), &[]), Canary::of("the uid", name, &[])];
    let finder = Finder::new(&canaries);
    // Files of a database that runs: one may be gone before it is read.
    let contents = files(&control_plane().await.etcd_dir().unwrap()).into_iter().filter_map(|file| fs::read(file).ok());
    let found: BTreeSet<usize> = contents.flat_map(|content| finder.find(&content)).collect();
    assert!(found.contains(&1), "the search finds what is there");
    assert!(!found.contains(&0));
    operator.stop().await;
}

/// Every way to write an object again: it moves nothing, shows no difference, and asks the webhook only if it holds
/// plaintext.
#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_value_moves_nothing_and_sealed_text_does_not_come_here() {
    let premises = Premises::new("again").await;
    let setup = premises.setup();
    let stats = Arc::clone(&setup.webhooks.as_ref().unwrap().stats);
    let operator = premises.start(setup).await;
    let spec = |value: &str| json!({"name": "DB", "value": value, "delivery": "None"});
    let plain = premises.manifest("db", &spec("hunter2-unchanged"));
    let patch = json!({"spec": {"value": "hunter2-unchanged"}}).to_string();
    let operations = json!([{"op": "replace", "path": "/spec/value", "value": "hunter2-unchanged"}]).to_string();
    let ways: [(&[&str], &str); 9] = [
        (&["apply", "-f", "-"], &plain),
        (&["apply", "-f", "-", "--dry-run=server"], &plain),
        (&["diff", "-f", "-"], &plain),
        (&["replace", "-f", "-"], &plain),
        (&["patch", "msec", "db", "--type=merge", "-p", &patch], ""),
        (&["patch", "msec", "db", "--type=json", "-p", &operations], ""),
        (&["apply", "--server-side", "--force-conflicts", "-f", "-"], &plain),
        (&["apply", "--server-side", "-f", "-"], &plain),
        (&["diff", "--server-side", "-f", "-"], &plain),
    ];
    Premises::ok(&premises.kubectl(&["create", "--save-config", "-f", "-"], &plain).await);
    let first = premises.site.served("db").await;
    let sealed = first.spec.value.clone().unwrap().0;
    for (way, input) in ways {
        // The first of a kind may move metadata: who manages what, and kubectl's copy.
        Premises::ok(&premises.kubectl(way, input).await);
        let before = premises.site.get("db").await;
        let calls = stats.seal.get();
        let printed = Premises::ok(&premises.kubectl(way, input).await);
        let after = premises.site.get("db").await;
        assert_eq!(version(&after), version(&before), "{way:?}");
        assert_eq!(after.metadata.generation, first.metadata.generation, "{way:?}");
        assert_eq!(after.spec.value, first.spec.value, "{way:?}");
        assert!(!serde_json::to_string(&after).unwrap().contains("hunter2"), "{way:?}");
        assert!(way[0] != "diff" || printed.is_empty(), "{printed}");
        assert!(stats.seal.get() > calls, "{way:?}: the webhook was asked");
    }

    let calls = (stats.seal.get(), stats.warn.get());
    let exported = premises.manifest("db", &spec(&sealed));
    for way in [["apply", "-f", "-"], ["replace", "-f", "-"], ["apply", "--server-side", "-f=-"]] {
        Premises::ok(&premises.kubectl(&way, &exported).await);
    }
    Premises::ok(&premises.kubectl(&["label", "msec", "db", "a=b"], "").await);
    Premises::ok(
        &premises.kubectl(&["patch", "msec", "db", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#], "").await,
    );
    Premises::ok(&premises.kubectl(&["delete", "msec", "db"], "").await);
    assert_eq!((stats.seal.get(), stats.warn.get()), calls, "nothing of this is the webhooks' business");
    operator.stop().await;
}
