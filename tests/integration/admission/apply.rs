//! The whole way: a manifest with a plain value, applied by kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, fs, sync::Arc};

use managed_secrets_api::{ManagedSecret, keys::LAST_APPLIED};
use managed_secrets_crypto::mss1::{Handling, Sealed};
use serde_json::json;

use super::{Premises, control_plane};
use crate::integration::{
    canary::search::{Canary, Finder, files},
    objects::{moved, version},
    operator::public_key_of,
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

/// What a plain value is sealed as follows the delivery that it is applied with.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_value_is_kept_where_it_is_not_delivered() {
    const VALUE: &str = "plain-kept-77c1";
    let premises = Premises::new("kept").await;
    let operator = premises.start(premises.setup()).await;
    let site = &premises.site;
    let text = |object: &ManagedSecret| object.spec.value.clone().unwrap().0;
    let handling = |object: &ManagedSecret| Sealed::parse(&text(object)).unwrap().handling();
    let undelivered = premises.manifest("db", &json!({"name": "DB", "value": VALUE, "delivery": "None"}));
    let apply = async |manifest: &str| Premises::ok(&premises.kubectl(&["apply", "-f", "-"], manifest).await);
    apply(&undelivered).await;
    let kept = site.served("db").await;
    assert_eq!(handling(&kept), Handling::Kept);
    apply(&undelivered).await;
    assert_eq!(version(&site.get("db").await), version(&kept));

    // Delivered, by one who may: the text may be delivered, and it is the same value.
    let delivered = premises.manifest("db", &json!({"name": "DB", "value": VALUE}));
    apply(&delivered).await;
    let object = site.in_step("db").await;
    assert_eq!((handling(&object), moved(&object)), (Handling::Deliverable, moved(&kept)));
    assert_eq!(site.value("db", "value").await.as_deref(), Some(VALUE));

    // And no longer.
    apply(&undelivered).await;
    let object = site.served("db").await;
    assert_eq!((handling(&object), moved(&object)), (Handling::Kept, moved(&kept)));

    // Text that was sealed for delivery is sealed again by the first plain apply, and stays from then on.
    let old = crate::integration::objects::sealed(
        &public_key_of(&site.client, &premises.operator_namespace).await,
        &site.strict("db"),
        VALUE,
    );
    let warned = premises.manifest("db", &json!({"name": "DB", "value": old, "delivery": "None"}));
    let output = premises.kubectl(&["apply", "-f", "-"], &warned).await;
    Premises::ok(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("seal it with --no-delivery"), "{output:?}");
    site.served("db").await;
    apply(&undelivered).await;
    let object = site.served("db").await;
    assert_eq!((handling(&object), moved(&object)), (Handling::Kept, moved(&kept)));
    apply(&undelivered).await;
    assert_eq!(version(&site.get("db").await), version(&object));
    operator.stop().await;
}
