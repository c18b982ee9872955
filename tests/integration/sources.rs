//! Where values come from: sealed text, another Secret, the operating system's randomness; and from one to another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use kube::api::{DeleteParams, Patch, PatchParams};
use managed_secrets_api::{ManagedSecret, names::record_name, types::Alphabet};
use managed_secrets_crypto::mss1::{Scope, SealingKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    objects::{Site, id, message, moved, next_second, sealed, status},
    operator::{Setup, Tap},
};

/// Sealed text with one byte changed; `at` counts from the end where it is negative.
fn altered(text: &str, at: isize) -> String {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix("mss1.").unwrap()).unwrap();
    let position = if at < 0 { bytes.len().checked_add_signed(at).unwrap() } else { at.cast_unsigned() };
    bytes[position] ^= 0x10;
    format!("mss1.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_text_opens_where_its_scope_allows_and_nowhere_else() {
    let site = Site::new("sealed").await;
    let operator = Setup::of(&site.namespace).start().await;
    let here = Scope::Namespace { namespace: site.namespace.clone() };
    let there = Scope::Namespace { namespace: "another".to_owned() };
    let elsewhere = Scope::Strict { namespace: "prod".to_owned(), name: "db".to_owned() };
    let foreign = SealingKey::new(Zeroizing::new([7; 32])).unwrap();
    let strict = site.seal("db", "strict value").await;

    let spec = |value: &str| json!({"name": "NAME", "value": value});
    site.apply("db", spec(&strict)).await;
    let first = site.served("db").await;
    let used_in = format!("used in {}/db", site.namespace);
    let key_id = foreign.key_id().to_string();
    let cases = [
        (
            site.seal("other", "x").await,
            "SealedForAnotherPlace",
            vec![format!("{}/other", site.namespace), used_in.clone()],
        ),
        (site.seal_for(&elsewhere, "x").await, "SealedForAnotherPlace", vec!["prod/db".to_owned(), used_in.clone()]),
        (site.seal_for(&there, "x").await, "SealedForAnotherPlace", vec!["another".to_owned(), used_in]),
        (site.seal_for(&Scope::Cluster, "x").await, "SealedScopeNotAllowed", vec!["--allow-cluster-scope".to_owned()]),
        (sealed(foreign.public(), &site.strict("db"), "x"), "SealedWithUnknownKey", vec![key_id]),
        // The length of the namespace, and the last byte of the ciphertext.
        (altered(&strict, 17), "SealedMalformed", vec![]),
        (altered(&strict, -1), "SealedTampered", vec![]),
    ];
    for (text, reason, says) in cases {
        site.apply("db", spec(&text)).await;
        let object = site.reports("db", "False", reason).await;
        let message = message(&object);
        assert!(message.contains("spec.value") && !message.contains(&text[5..25]), "{reason}: {message}");
        for part in says {
            assert!(message.contains(&part), "{reason}: {message} lacks {part}");
        }
        assert_eq!((id(&object), moved(&object)), (id(&first), moved(&first)), "{reason}");
        site.delivers("db", "value", "strict value").await;
    }
    site.apply("db", spec(&site.seal_for(&here, "for all here").await)).await;
    assert_eq!(status(&site.served("db").await).version, Some(2));
    site.delivers("db", "value", "for all here").await;

    // An operator that allows cluster scope opens what the one before refused.
    site.apply("wide", json!({"name": "WIDE", "value": site.seal_for(&Scope::Cluster, "wide").await})).await;
    site.reports("wide", "False", "SealedScopeNotAllowed").await;
    operator.stop().await;
    let operator = Setup { allow_cluster_scope: true, ..Setup::of(&site.namespace) }.start().await;
    site.served("wide").await;
    site.delivers("wide", "value", "wide").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_again_is_no_new_value() {
    let site = Site::new("resealed").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = |value: &str| json!({"name": "NAME", "value": value});
    site.apply("db", spec(&site.seal("db", "same").await)).await;
    let first = site.served("db").await;
    let here = Scope::Namespace { namespace: site.namespace.clone() };
    next_second().await;
    for text in [site.seal("db", "same").await, site.seal_for(&here, "same").await] {
        site.apply("db", spec(&text)).await;
        assert_eq!(moved(&site.served("db").await), moved(&first));
    }
    // A trailing newline is a part of the value.
    site.apply("db", spec(&site.seal("db", "same\n").await)).await;
    assert_eq!(status(&site.served("db").await).version, Some(2));
    site.delivers("db", "value", "same\n").await;
    operator.stop().await;
}

fn from(key: &str) -> Value {
    json!({"name": "NAME", "valueFrom": {"secretKeyRef": {"name": "up", "key": key}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_followed() {
    let site = Site::new("followed").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.apply("db", from("k")).await;
    site.reports("db", "False", "SourceNotFound").await;
    site.foreign_secret("up", &[("k", "one"), ("second", "two")]).await;
    let first = site.served("db").await;
    site.delivers("db", "value", "one").await;

    next_second().await;
    site.intrude("up", json!({"stringData": {"k": "another"}})).await;
    let object = site.until("db", "version 2", |object| status(object).version == Some(2)).await;
    site.delivers("db", "value", "another").await;
    assert_eq!(id(&object), id(&first));
    assert!(status(&object).value_updated_time > status(&first).value_updated_time);

    // Metadata, other keys, and a source made again with the same content are no new value. The last step is one, so
    // that what came before has been looked at.
    next_second().await;
    site.intrude("up", json!({"metadata": {"labels": {"a": "b"}}})).await;
    site.intrude("up", json!({"stringData": {"unused": "x"}})).await;
    site.apply("db", from("k")).await;
    site.secrets().delete("up", &DeleteParams::default()).await.unwrap();
    let missing = site.reports("db", "False", "SourceNotFound").await;
    assert_eq!(moved(&missing), moved(&object));
    site.delivers("db", "value", "another").await;
    site.foreign_secret("up", &[("k", "another"), ("second", "two")]).await;
    assert_eq!(moved(&site.served("db").await), moved(&object));

    // Another key with another value is; with the same value it is not.
    site.intrude("up", json!({"stringData": {"third": "another"}})).await;
    site.apply("db", from("third")).await;
    assert_eq!(moved(&site.served("db").await), moved(&object));
    site.apply("db", from("second")).await;
    assert_eq!(status(&site.served("db").await).version, Some(3));
    site.delivers("db", "value", "two").await;

    // A change while no operator runs is found by the next one.
    operator.stop().await;
    site.intrude("up", json!({"stringData": {"second": "three"}})).await;
    let operator = Setup::of(&site.namespace).start().await;
    site.delivers("db", "value", "three").await;
    assert_eq!(status(&site.until("db", "version 4", |o| status(o).version == Some(4)).await).version, Some(4));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_value_leaves_what_is_served() {
    let site = Site::new("unfit").await;
    let operator = Setup::of(&site.namespace).start().await;
    let longest = "é".repeat(3500);
    site.foreign_secret("up", &[("k", "good")]).await;
    site.apply("db", from("k")).await;
    let first = site.served("db").await;
    let too_long = "é".repeat(3501);
    for (data, reason) in [
        (json!({"stringData": {"k": ""}}), "InvalidValue"),
        (json!({"stringData": {"k": too_long}}), "InvalidValue"),
        (json!({"data": {"k": "/w=="}}), "InvalidValue"),
        (json!({"data": {"k": null}}), "SourceKeyNotFound"),
    ] {
        site.intrude("up", data).await;
        let object = site.reports("db", "False", reason).await;
        let message = message(&object);
        assert!(message.contains("spec.valueFrom") && message.contains("Secret up"), "{message}");
        assert!(!message.contains("éé"), "{message}");
        assert_eq!(moved(&object), moved(&first));
        site.delivers("db", "value", "good").await;
        // Each case begins healthy, or its reason could be that of the one before.
        site.intrude("up", json!({"stringData": {"k": "good"}})).await;
        assert_eq!(moved(&site.served("db").await), moved(&first));
    }
    site.intrude("up", json!({"stringData": {"k": longest}})).await;
    site.delivers("db", "value", &longest).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_generated_from_their_alphabet_in_their_length() {
    let site = Site::new("generated").await;
    let operator = Setup::of(&site.namespace).start().await;
    let mut cases: Vec<(String, Alphabet, usize)> = Vec::new();
    for alphabet in [Alphabet::Alphanumeric, Alphabet::AlphanumericSymbols, Alphabet::Hex, Alphabet::Base64Url] {
        for length in [1, 2, 64, 3500] {
            let name = format!("{}-{length}", format!("{alphabet:?}").to_lowercase());
            let spec = json!({"name": name, "generate": {"length": length, "alphabet": alphabet}});
            site.apply(&name, spec).await;
            cases.push((name, alphabet, length));
        }
    }
    site.apply("plain", json!({"name": "plain", "generate": {}})).await;
    cases.push(("plain".to_owned(), Alphabet::Alphanumeric, 32));
    let mut seen = BTreeSet::new();
    for (name, alphabet, length) in cases {
        site.served(&name).await;
        let value = site.value(&name, "value").await.unwrap();
        assert_eq!(value.chars().count(), length, "{name}");
        assert!(value.chars().all(|c| alphabet.characters().contains(c)), "{name}");
        if length > 63 {
            let used: BTreeSet<char> = value.chars().collect();
            assert!(used.len() > 8, "{name}");
            // Of 3500 draws from at most 90 characters, the odds that one is missing are below 1e-14.
            assert!(length < 3500 || used.len() == alphabet.characters().len(), "{name}");
            assert!(seen.insert(value), "{name}: generated twice");
        }
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_value_outlives_all_but_the_loss_of_both() {
    let site = Site::new("once").await;
    let mut operator = Some(Setup::of(&site.namespace).start().await);
    let spec =
        |length: u32, alphabet: &str| json!({"name": "NAME", "generate": {"length": length, "alphabet": alphabet}});
    site.apply("db", spec(24, "Alphanumeric")).await;
    let first = site.served("db").await;
    let value = site.value("db", "value").await.unwrap();
    next_second().await;

    for (length, alphabet) in [(48, "Alphanumeric"), (48, "Hex")] {
        site.apply("db", spec(length, alphabet)).await;
        let object = site.served("db").await;
        assert_eq!((id(&object), moved(&object)), (id(&first), moved(&first)));
        assert!(message(&object).contains("applies to the next generated value"), "{}", message(&object));
        site.delivers("db", "value", &value).await;
    }
    for running in [true, false] {
        for lost in ["status", "record", "target", "nothing"] {
            if !running {
                operator.take().unwrap().stop().await;
            }
            let before = site.get("db").await;
            match lost {
                "status" => {
                    let none = Patch::Merge(json!({"status": null}));
                    let objects = site.as_restorer().await.objects();
                    objects.patch_status("db", &PatchParams::default(), &none).await.unwrap();
                }
                "record" => {
                    let name = status(&before).record.unwrap().name;
                    site.secrets().delete(&name, &DeleteParams::default()).await.unwrap();
                }
                "target" => drop(site.secrets().delete("db", &DeleteParams::default()).await.unwrap()),
                _ => {}
            }
            if operator.is_none() {
                operator = Some(Setup::of(&site.namespace).start().await);
            }
            let case = format!("{lost} lost, running {running}");
            let restored = site
                .until("db", &case, |object| {
                    let (was, is) = (status(&before), status(object));
                    match lost {
                        "record" => is.record.is_some() && is.record != was.record,
                        "target" => is.target.is_some() && is.target != was.target,
                        _ => is.record.is_some(),
                    }
                })
                .await;
            assert_eq!((id(&restored), moved(&restored)), (id(&first), moved(&first)), "{case}");
            assert_eq!(status(&restored).created_date, status(&first).created_date, "{case}");
            site.delivers("db", "value", &value).await;
            assert!(site.record("NAME").await.is_some(), "{case}");
        }
    }

    // Both lost: nothing can restore it, and nothing is invented.
    operator.take().unwrap().stop().await;
    for name in site.labelled().await {
        site.secrets().delete(&name, &DeleteParams::default()).await.unwrap();
    }
    let operator = Setup::of(&site.namespace).start().await;
    let object = site.reports("db", "False", "RecordLost").await;
    assert!(message(&object).contains("restore one of the two from a backup"), "{}", message(&object));
    assert_eq!((id(&object), moved(&object)), (id(&first), moved(&first)));
    assert!(site.labelled().await.is_empty());
    // Neither is the target believed that another user puts in its place.
    site.foreign_secret("db", &[("value", "an impostor")]).await;
    site.apply("db", spec(50, "Hex")).await;
    site.reports("db", "False", "RecordLost").await;
    assert_eq!(site.value("db", "value").await.as_deref(), Some("an impostor"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_is_rebuilt_from_the_source() {
    let site = Site::new("rebuilt").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = async |value: &str| json!({"name": "NAME", "value": site.seal("db", value).await});
    site.apply("db", spec("one").await).await;
    let first = site.served("db").await;
    let remove = async |target: bool| {
        site.secrets().delete(&record_name("NAME"), &DeleteParams::default()).await.unwrap();
        if target {
            site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
        }
    };
    let rebuilt = async |before: &ManagedSecret| {
        let lost = status(before).record.unwrap().uid;
        let object = site.until("db", "rebuilt", |o| status(o).record.is_some_and(|r| r.uid != lost)).await;
        assert_eq!((id(&object), status(&object).created_date), (id(&first), status(&first).created_date));
        object
    };
    next_second().await;

    // The target shows that the value is the same.
    remove(false).await;
    let second = rebuilt(&first).await;
    assert_eq!(moved(&second), moved(&first));

    // With another value it is a new version, and so it is where no target is left to compare with.
    operator.stop().await;
    remove(false).await;
    site.apply("db", spec("two").await).await;
    let operator = Setup::of(&site.namespace).start().await;
    let third = rebuilt(&second).await;
    assert_eq!(status(&third).version, Some(2));
    assert!(status(&third).value_updated_time > status(&first).value_updated_time);
    site.delivers("db", "value", "two").await;
    operator.stop().await;
    remove(true).await;
    let operator = Setup::of(&site.namespace).start().await;
    let fourth = rebuilt(&third).await;
    assert_eq!(status(&fourth).version, Some(3));
    site.delivers("db", "value", "two").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_stays_where_the_name_of_a_lost_record_was_taken() {
    let site = Site::new("taken").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = |name: &str, suspend: bool| json!({"name": name, "generate": {}, "suspend": suspend});
    site.apply("holder", spec("HELD", false)).await;
    site.apply("db", spec("NAME", false)).await;
    let first = site.served("db").await;
    let before = site.secret("db").await.unwrap();
    // While it is suspended and wants another name, nothing keeps its own for it.
    site.apply("db", spec("HELD", true)).await;
    site.reports("db", "True", "Suspended").await;
    site.secrets().delete(&record_name("NAME"), &DeleteParams::default()).await.unwrap();
    site.apply("heir", spec("NAME", false)).await;
    site.served("heir").await;

    site.apply("db", spec("HELD", false)).await;
    let object = site.reports("db", "False", "NameInUse").await;
    assert_eq!((id(&object), moved(&object)), (id(&first), moved(&first)));
    let after = site.secret("db").await.unwrap();
    assert_eq!(
        (after.metadata.uid, after.metadata.resource_version),
        (before.metadata.uid, before.metadata.resource_version)
    );

    // A free name, and it is the same secret again.
    site.apply("db", spec("FREE", false)).await;
    let object = site.served("db").await;
    assert_eq!((id(&object), status(&object).version), (id(&first), Some(1)));
    assert_eq!(site.secret("db").await.unwrap().data, before.data);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_moves_from_source_to_source() {
    let site = Site::new("moves").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.foreign_secret("up", &[("k", "one"), ("other", "two")]).await;
    let sealed = async |value: &str| json!({"name": "NAME", "value": site.seal("db", value).await});
    let generate = |length: u32| json!({"name": "NAME", "generate": {"length": length}});
    site.apply("db", sealed("one").await).await;
    let first = site.served("db").await;
    let reaches = async |spec: Value, version: i64, case: &str| {
        site.apply("db", spec).await;
        let object = site.served("db").await;
        assert_eq!((id(&object), status(&object).version), (id(&first), Some(version)), "{case}");
        site.value("db", "value").await.unwrap()
    };
    assert_eq!(reaches(from("k"), 1, "value to valueFrom, the same").await, "one");
    assert_eq!(reaches(sealed("one").await, 1, "valueFrom to value, the same").await, "one");
    assert_eq!(reaches(from("other"), 2, "value to valueFrom, another").await, "two");
    assert_eq!(reaches(sealed("three").await, 3, "valueFrom to value, another").await, "three");
    let generated = reaches(generate(20), 4, "value to generate").await;
    assert_eq!(generated.len(), 20);
    assert_eq!(reaches(generate(30), 4, "generate stays").await, generated);
    assert_eq!(reaches(sealed(&generated).await, 4, "generate to value, the same").await, generated);
    let generated_again = reaches(generate(30), 5, "value to generate always makes a new value").await;
    assert_eq!(generated_again.len(), 30);
    site.intrude("up", json!({"stringData": {"k": generated_again.clone()}})).await;
    assert_eq!(reaches(from("k"), 5, "generate to valueFrom, the same").await, generated_again);
    assert_ne!(reaches(generate(30), 6, "valueFrom to generate always makes a new value").await, generated_again);
    assert_eq!(reaches(from("other"), 7, "generate to valueFrom, another").await, "two");
    operator.stop().await;
}
