//! Records under attack: forged, swapped, rolled back, truncated. Each is refused with its reason and left as it is; what
//! is served stays; the good record heals it.
//!
//! The attacks are a restorer's writes: admission control lets no other user write a record.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use managed_secrets_api::{keys, names::record_name};
use managed_secrets_crypto::mse1;
use serde_json::json;

use super::{
    objects::{Site, message, ready, revision},
    operator::Setup,
    witness::Witness,
};

/// What there is to make an attack of.
struct Loot {
    /// The record at its first version.
    old: Secret,
    /// The record at its second version: the genuine one.
    good: Secret,
    /// The record of another object of the namespace.
    neighbour: Secret,
    /// The record of an object of the same name and `spec.name` in another namespace.
    namesake: Secret,
}

type Forge = fn(&Loot) -> Secret;

/// One way to attack a record.
struct Attack {
    name: String,
    /// What stands in the record's place afterwards.
    forged: Box<dyn Fn(&Loot) -> Secret + Send + Sync>,
    /// The record is deleted and recreated, instead of changed.
    recreate: bool,
    reason: &'static str,
}

fn bytes(record: &mut Secret) -> &mut Vec<u8> {
    &mut record.data.as_mut().unwrap().get_mut(keys::RECORD_DATA_KEY).unwrap().0
}

/// Offset of the first byte after the uid: the seed's id.
fn after_uid(record: &mut Secret) -> usize {
    let bytes = bytes(record);
    16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]))
}

fn flipped(loot: &Loot, offset: impl Fn(usize, usize) -> usize) -> Secret {
    let mut record = loot.good.clone();
    let seed = after_uid(&mut record);
    let bytes = bytes(&mut record);
    let at = offset(seed, bytes.len());
    bytes[at] ^= 1;
    record
}

/// The good record's metadata with other bytes.
fn with_bytes_of(loot: &Loot, other: &Secret) -> Secret {
    Secret { data: other.data.clone(), ..loot.good.clone() }
}

/// Another record, whole, in this one's place.
fn whole(loot: &Loot, other: &Secret) -> Secret {
    let mut record = other.clone();
    record.metadata.name.clone_from(&loot.good.metadata.name);
    record.metadata.owner_references.clone_from(&loot.good.metadata.owner_references);
    record
}

fn attacks() -> Vec<Attack> {
    let mut attacks = on_each_annotation();
    attacks.extend(on_metadata_as_a_whole());
    attacks.extend(on_bytes());
    attacks.extend(from_elsewhere_and_before());
    attacks
}

/// Every annotation, changed, emptied and removed.
fn on_each_annotation() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (field, forged, reason) in [
        (keys::ANNO_NAME, "OTHER", "RecordTampered"),
        (keys::ANNO_DESCRIPTION, "forged", "RecordTampered"),
        (keys::ANNO_OWNER, "neighbour", "RecordTampered"),
        (keys::ANNO_UID, "6f1c3f0e-0000-4000-8000-000000000001", "RecordMoved"),
        (keys::ANNO_CREATED, "2020-01-01T00:00:00Z", "RecordTampered"),
        (keys::ANNO_UPDATED, "2020-01-01T00:00:00Z", "RecordTampered"),
        (keys::ANNO_VALUE_UPDATED, "2020-01-01T00:00:00Z", "RecordTampered"),
        (keys::ANNO_VERSION, "3", "RecordTampered"),
        (keys::ANNO_GENERATION, "99", "RecordTampered"),
        (keys::ANNO_DELETION_POLICY, "Retain", "RecordTampered"),
        (keys::ANNO_SOURCE, "generate", "RecordTampered"),
        (keys::ANNO_TARGET, "own:elsewhere:value", "RecordTampered"),
        (keys::ANNO_COMMITMENT, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "RecordTampered"),
        (
            keys::ANNO_HISTORY,
            "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:2020-01-01T00:00:00Z:value",
            "RecordTampered",
        ),
        (keys::ANNO_MAC, "AAAA", "RecordTampered"),
    ] {
        let short = field.split_once('/').unwrap().1;
        for (way, text, reason) in [
            ("changed", Some(forged), reason),
            ("empty", Some(""), "RecordTampered"),
            ("removed", None, "RecordTampered"),
        ] {
            // No description at all is an empty one: that is what is recorded here.
            if way == "empty" && field == keys::ANNO_DESCRIPTION {
                continue;
            }
            // An empty uid is that of another object as well.
            let reason = if way == "empty" && field == keys::ANNO_UID { "RecordMoved" } else { reason };
            let forged = Box::new(move |loot: &Loot| {
                let mut record = loot.good.clone();
                match text {
                    Some(text) => record.annotations_mut().insert(field.to_owned(), text.to_owned()),
                    None => record.annotations_mut().remove(field),
                };
                record
            });
            attacks.push(Attack { name: format!("{short}-{way}"), forged, recreate: false, reason });
        }
    }
    attacks
}

fn attack(name: &str, reason: &'static str, forged: Forge) -> Attack {
    Attack { name: name.to_owned(), forged: Box::new(forged), recreate: false, reason }
}

fn on_metadata_as_a_whole() -> Vec<Attack> {
    vec![
        attack("id-changed", "RecordTampered", |loot| {
            let mut record = loot.good.clone();
            let id = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
            record.labels_mut().insert(keys::LABEL_ID.to_owned(), id.to_owned());
            record
        }),
        attack("id-removed", "RecordTampered", |loot| {
            let mut record = loot.good.clone();
            record.labels_mut().remove(keys::LABEL_ID);
            record
        }),
        attack("mac-flipped", "RecordTampered", |loot| {
            let mut record = loot.good.clone();
            let mac = record.annotations_mut().get_mut(keys::ANNO_MAC).unwrap();
            let last = if mac.ends_with("A==") { "Q==" } else { "A==" };
            mac.replace_range(mac.len() - 3.., last);
            record
        }),
        attack("mac-of-another-seed", "SeedUnknown", |loot| {
            let mut record = loot.good.clone();
            let mac = record.annotations_mut().get_mut(keys::ANNO_MAC).unwrap();
            let first = if mac.starts_with('A') { "B" } else { "A" };
            mac.replace_range(..1, first);
            record
        }),
        attack("bare", "RecordTampered", |loot| {
            let mut record = loot.good.clone();
            record.metadata.labels = None;
            record.metadata.annotations = None;
            record
        }),
    ]
}

fn on_bytes() -> Vec<Attack> {
    vec![
        attack("truncated", "RecordMalformed", |loot| {
            let mut record = loot.good.clone();
            bytes(&mut record).truncate(100);
            record
        }),
        attack("garbage", "RecordMalformed", |loot| {
            let mut record = loot.good.clone();
            *bytes(&mut record) = vec![0x5a; 276];
            record
        }),
        attack("no-bytes", "RecordMalformed", |loot| Secret { data: None, ..loot.good.clone() }),
        attack("longer", "RecordMalformed", |loot| {
            let mut record = loot.good.clone();
            bytes(&mut record).push(0);
            record
        }),
        attack("plaintext", "RecordMalformed", |loot| {
            let mut record = loot.good.clone();
            record.data = Some([(keys::RECORD_DATA_KEY.to_owned(), ByteString(b"hunter2".to_vec()))].into());
            record
        }),
        attack("flip-magic", "RecordMalformed", |loot| flipped(loot, |_, _| 0)),
        attack("flip-version", "RecordMoved", |loot| flipped(loot, |_, _| 13)),
        attack("flip-uid", "RecordMoved", |loot| flipped(loot, |_, _| 16)),
        attack("flip-seed", "SeedUnknown", |loot| flipped(loot, |seed, _| seed)),
        attack("flip-salt", "RecordMoved", |loot| flipped(loot, |seed, _| seed + 8)),
        attack("flip-wrapped", "RecordMoved", |loot| flipped(loot, |seed, _| seed + 52)),
        attack("flip-commitment", "RecordCommitmentMismatch", |loot| flipped(loot, |seed, _| seed + 100)),
        attack("flip-nonce", "RecordPayloadTampered", |loot| flipped(loot, |seed, _| seed + 132)),
        attack("flip-payload", "RecordPayloadTampered", |loot| flipped(loot, |seed, _| seed + 144)),
        attack("flip-tag", "RecordPayloadTampered", |loot| flipped(loot, |_, end| end - 1)),
    ]
}

fn from_elsewhere_and_before() -> Vec<Attack> {
    let mut attacks = vec![
        attack("bytes-of-neighbour", "RecordMoved", |loot| with_bytes_of(loot, &loot.neighbour)),
        attack("bytes-of-namesake", "RecordMoved", |loot| with_bytes_of(loot, &loot.namesake)),
        attack("bytes-of-before", "RecordRolledBack", |loot| with_bytes_of(loot, &loot.old)),
    ];
    for recreate in [false, true] {
        let way = |what: &str| format!("{what}-{}", if recreate { "recreate" } else { "over" });
        let whole_ones = [
            attack(&way("neighbour"), "RecordMoved", |loot| whole(loot, &loot.neighbour)),
            attack(&way("namesake"), "RecordMoved", |loot| whole(loot, &loot.namesake)),
            attack(&way("before"), "RecordRolledBack", |loot| whole(loot, &loot.old)),
        ];
        attacks.extend(whole_ones.map(|attack| Attack { recreate, ..attack }));
    }
    attacks
}

/// The name of the secret of the object `name`.
fn secret_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

async fn apply(site: &Site, name: &str) {
    let from = json!({"secretKeyRef": {"name": format!("{name}-source"), "key": "key"}});
    site.apply(name, json!({"name": secret_name(name), "valueFrom": from})).await;
}

/// Puts a record in its place, over what is there, or after that was deleted.
async fn put(site: &Site, record: &Secret, recreate: bool) -> Secret {
    let name = record.name_any();
    let secrets = site.secrets();
    let mut record = record.clone();
    record.metadata.managed_fields = None;
    record.metadata.creation_timestamp = None;
    if recreate {
        // Created in the very moment in which it is gone, before anybody rebuilds it.
        secrets.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    for _ in 0..20 {
        let present = secrets.get_opt(&name).await.unwrap().filter(|_| !recreate);
        record.metadata.uid = present.as_ref().and_then(kube::ResourceExt::uid);
        record.metadata.resource_version = present.as_ref().and_then(kube::ResourceExt::resource_version);
        record.metadata.namespace = None;
        let put = match present {
            Some(_) => secrets.replace(&name, &PostParams::default(), &record).await,
            None => secrets.create(&PostParams::default(), &record).await,
        };
        match put {
            Err(kube::Error::Api(status)) if status.code == 409 && !recreate => {}
            answer => return answer.unwrap(),
        }
    }
    panic!("{name} changes all the time");
}

/// The whole field: forty attacks at once, each on an object of its own.
#[tokio::test(flavor = "multi_thread")]
async fn no_forged_record_is_believed_and_the_good_one_heals() {
    let site = Site::new("tamper").await;
    let elsewhere = Site::new("namesakes").await;
    // With one worker, passes follow each other as events do: when the last has had its effect, all have ended.
    let start = async || Setup { workers: 1, ..Setup::of(&site.namespace) }.start().await;
    let mut operator = start().await;
    let other_operator = Setup::of(&elsewhere.namespace).start().await;
    let restorer = site.as_restorer().await;
    let attacks = attacks();
    let names: Vec<&str> = attacks.iter().map(|attack| attack.name.as_str()).collect();
    for name in names.iter().copied().chain(["neighbour"]) {
        site.source(&format!("{name}-source"), &format!("{name} one")).await;
        apply(&site, name).await;
    }
    for name in names.iter().filter(|name| name.contains("namesake")) {
        elsewhere.source(&format!("{name}-source"), "elsewhere").await;
        apply(&elsewhere, name).await;
        elsewhere.served(name).await;
    }
    site.served("neighbour").await;
    let neighbour = site.record("NEIGHBOUR").await.unwrap();
    let mut old = Vec::new();
    for name in &names {
        site.served(name).await;
        old.push(site.record(&secret_name(name)).await.unwrap());
        site.source(&format!("{name}-source"), &format!("{name} two")).await;
    }
    let mut loots = Vec::new();
    for (name, old) in names.iter().zip(old) {
        site.delivers(name, "value", &format!("{name} two")).await;
        site.in_step(name).await;
        let good = site.record(&secret_name(name)).await.unwrap();
        let namesake = elsewhere.record(&secret_name(name)).await.unwrap_or_else(|| neighbour.clone());
        loots.push(Loot { old, good, neighbour: neighbour.clone(), namesake });
    }
    let witness = Witness::of(&site).await;

    operator.stop().await;
    let mut forged = Vec::new();
    for (attack, loot) in attacks.iter().zip(&loots) {
        forged.push(put(&restorer, &(attack.forged)(loot), attack.recreate).await);
    }
    operator = start().await;
    for round in ["found at a start", "looked at again", "with a new value at the source"] {
        for ((attack, loot), forged) in attacks.iter().zip(&loots).zip(&forged) {
            let name = &attack.name;
            let object = site.reports(name, "False", attack.reason).await;
            assert!(message(&object).contains(&record_name(&secret_name(name))), "{name}: {}", message(&object));
            assert_eq!(object.status.unwrap().version, Some(2), "{name}");
            let target = site.value(name, "value").await;
            assert_eq!(target.as_deref(), Some(format!("{name} two").as_str()), "{name} {round}");
            let record = site.record(&secret_name(name)).await;
            assert_eq!(record.as_ref(), Some(forged), "{name} {round}: what is not believed is not written");
            assert_ne!(record.unwrap(), loot.good);
        }
        for name in &names {
            match round {
                "found at a start" => site.nudge(name).await,
                "looked at again" => {
                    site.source(&format!("{name}-source"), &format!("{name} three")).await;
                }
                _ => {}
            }
        }
        match round {
            "found at a start" => {
                site.apply("marker", json!({"name": "MARKER", "generate": {}, "suspend": true})).await;
                site.until("marker", "observed", |object| ready(object).1 == "Suspended").await;
            }
            "looked at again" => {
                site.source("neighbour-source", "neighbour three").await;
                site.delivers("neighbour", "value", "neighbour three").await;
            }
            _ => {}
        }
    }
    // The good record heals, and then the new value is served.
    for loot in &loots {
        put(&restorer, &loot.good, false).await;
    }
    for name in &names {
        site.delivers(name, "value", &format!("{name} three")).await;
        let object = site.served(name).await;
        assert_eq!(object.status.unwrap().version, Some(3), "{name}");
        let wanted = ["two", "three"].map(|value| Some(format!("{name} {value}")));
        assert_eq!(witness.values(name, "value").await, wanted, "{name}");
    }
    operator.stop().await;
    other_operator.stop().await;
}

/// With the operator looking on, also in the moment of the attack.
#[tokio::test(flavor = "multi_thread")]
async fn an_attack_under_the_operators_eyes_serves_nothing_wrong_and_removal_heals() {
    let site = Site::new("eyes").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    // A first version keeps no earlier one.
    let fits = |attack: &Attack| !attack.recreate && attack.name != "history-removed";
    let attacks: Vec<Attack> = attacks().into_iter().filter(fits).collect();
    let witness = Witness::of(&site).await;
    site.source("neighbour-source", "neighbour").await;
    apply(&site, "neighbour").await;
    site.served("neighbour").await;
    let neighbour = site.record("NEIGHBOUR").await.unwrap();
    for attack in &attacks {
        site.source(&format!("{}-source", attack.name), &format!("{} one", attack.name)).await;
        apply(&site, &attack.name).await;
    }
    let mut healed = Vec::new();
    for attack in attacks.iter().filter(|attack| !attack.reason.contains("RolledBack")) {
        let name = &attack.name;
        let before = site.in_step(name).await;
        let good = site.record(&secret_name(name)).await.unwrap();
        let loot = Loot { old: good.clone(), good, neighbour: neighbour.clone(), namesake: neighbour.clone() };
        put(&restorer, &(attack.forged)(&loot), false).await;
        healed.push((name, before, attack.reason));
    }
    for (name, _, reason) in &healed {
        site.reports(name, "False", reason).await;
        site.secrets().delete(&record_name(&secret_name(name)), &DeleteParams::default()).await.unwrap();
        if reason == &"RecordTampered" {
            // One that has lost its label goes unseen by the watch; it is looked for every five minutes, or now.
            site.nudge(name).await;
        }
    }
    for (name, before, _) in &healed {
        let status = site.served(name).await.status.unwrap();
        let old = before.status.clone().unwrap();
        assert_eq!((&status.id, &status.created_date, status.version), (&old.id, &old.created_date, Some(1)), "{name}");
        let record = site.record(&secret_name(name)).await.unwrap();
        assert!(mse1::Record::parse(&record.data.unwrap()[keys::RECORD_DATA_KEY].0).is_ok());
        assert_eq!(witness.values(name, "value").await, [Some(format!("{name} one"))], "{name}");
    }
    operator.stop().await;
}

/// What is no part of what the record says, or can be told without it, is put right.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_its_label_or_owner_or_with_foreign_labels_is_mended() {
    let site = Site::new("mended").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    let cases = [
        ("no-role", json!({"metadata": {"labels": {keys::LABEL_ROLE: null}}})),
        ("wrong-role", json!({"metadata": {"labels": {keys::LABEL_ROLE: "target"}}})),
        ("no-owner", json!({"metadata": {"ownerReferences": null}})),
        ("foreign", json!({"metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "2"}}})),
        ("foreign-data", json!({"data": {"theirs": "eA=="}})),
        ("unmanaged", json!({"metadata": {"managedFields": [{}]}})),
    ];
    let witness = Witness::of(&site).await;
    for (name, _) in &cases {
        site.apply(name, json!({"name": secret_name(name), "generate": {}})).await;
    }
    for (name, change) in cases {
        let before = site.in_step(name).await;
        let value = site.value(name, "value").await;
        let record = site.record(&secret_name(name)).await.unwrap();
        let intruded = restorer.intrude(&record.name_any(), change).await;
        testkit::poll(&format!("{name} to be mended"), super::operator::PATIENCE, || async {
            let status = site.get(name).await.status.unwrap();
            let shown = status.record.unwrap().resource_version;
            let mended = site.record(&secret_name(name)).await.unwrap();
            let same = |a: &Secret, b: &Secret| {
                a.labels().get(keys::LABEL_ROLE) == b.labels().get(keys::LABEL_ROLE)
                    && a.metadata.owner_references == b.metadata.owner_references
            };
            let seen = mended.metadata.resource_version.as_ref() == Some(&shown);
            let moved = revision(&mended) >= revision(&intruded);
            Ok((seen && moved && same(&mended, &record)).then_some(()))
        })
        .await
        .unwrap();
        let mended = site.record(&secret_name(name)).await.unwrap();
        assert_eq!(
            mended.data.as_ref().unwrap()[keys::RECORD_DATA_KEY],
            record.data.as_ref().unwrap()[keys::RECORD_DATA_KEY]
        );
        assert_eq!(mended.labels().get("theirs").is_some(), name == "foreign", "foreign labels stay");
        let after = site.in_step(name).await;
        assert_eq!(ready(&after), ready(&before));
        assert_eq!(after.status.unwrap().version, Some(1));
        assert_eq!(witness.values(name, "value").await, [value], "{name}");
    }
    operator.stop().await;
}
