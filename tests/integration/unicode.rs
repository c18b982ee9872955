//! Every character arrives as it was sent, although the API server reads an apply as YAML 1.1; records that it folded
//! before requests were escaped are repaired.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use managed_secrets::controller::record::folded::fold;
use managed_secrets_api::{ManagedSecret, keys, limits::DESCRIPTION_MAX, names::record_name};
use managed_secrets_client::{Created, SecretApi, SecretObject};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};
use testkit::shared::TestNamespace;

use super::{
    faults::refusal,
    objects::{Site, conditions, id, message, moved, next_second},
    operator::{Fault, Setup, Tap},
};

/// What YAML 1.1 folds, refuses or escapes in a way of its own, and its neighbours.
const SPECIAL: [char; 28] = [
    ' ', '\t', '\n', '\r', '\0', '"', '\\', '\u{1}', '\u{1b}', '\u{7e}', '\u{7f}', '\u{80}', '\u{84}', '\u{85}',
    '\u{86}', '\u{92}', '\u{9f}', '\u{a0}', '\u{2027}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{d7ff}', '\u{e000}',
    '\u{feff}', '\u{fffd}', '\u{fffe}', '\u{ffff}',
];

fn text(most: usize) -> impl Strategy<Value = String> {
    let character = prop_oneof![2 => prop::sample::select(SPECIAL.to_vec()), 1 => any::<char>()];
    prop::collection::vec(character, 0..most).prop_map(|characters| characters.into_iter().collect())
}

/// As many values of a strategy as wanted, the same at each run.
fn samples<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(11), ..Config::default() });
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// All of Unicode, in pieces that an annotation can hold: plain, and with blanks between, as folding depends on those.
fn all_of_unicode() -> Vec<String> {
    let characters: Vec<char> = ('\0'..=char::MAX).collect();
    let plain = characters.chunks(40_000).map(|piece| piece.iter().collect());
    let spaced = characters[..0x3000].chunks(20_000).map(|piece| piece.iter().flat_map(|it| [' ', *it]).collect());
    plain.chain(spaced).collect()
}

#[tokio::test]
async fn every_character_survives_an_apply() {
    let (namespace, client) = TestNamespace::shared("unicode").await.unwrap();
    let secrets = SecretApi::namespaced(client, &namespace.name);
    let pieces = all_of_unicode();
    assert!(pieces.len() > 20);
    for (number, piece) in pieces.into_iter().enumerate() {
        let metadata = ObjectMeta {
            name: Some(format!("piece-{number}")),
            annotations: Some(BTreeMap::from([("piece".to_owned(), piece.clone())])),
            ..ObjectMeta::default()
        };
        let Created::Yes(created) = secrets.create(SecretObject { metadata, ..SecretObject::default() }).await.unwrap()
        else {
            panic!("exists")
        };
        // Not `assert_eq`: the texts fill the screen.
        assert!(created.annotations.unwrap()["piece"] == piece, "piece {number} is not what was sent");
    }
}

/// What the repair of folded records rests on.
#[tokio::test]
async fn the_api_server_folds_what_is_not_escaped_as_expected() {
    let (namespace, client) = TestNamespace::shared("folds").await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(client, &namespace.name);
    let character = prop::sample::select(vec![' ', '\u{85}', '\u{2028}', '\u{2029}', 'a', 'ü', '\n', '\t']);
    let strategy = prop::collection::vec(character, 0..12).prop_map(|it| it.into_iter().collect::<String>());
    let texts: BTreeMap<String, String> =
        samples(&strategy, 200).into_iter().enumerate().map(|(number, text)| (number.to_string(), text)).collect();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": texts});
    let applied = maps.patch("texts", &PatchParams::apply("raw"), &Patch::Apply(&object)).await.unwrap().data.unwrap();
    assert!(applied != texts, "nothing was folded");
    for (number, text) in &texts {
        assert_eq!(applied[number], fold(text), "{text:?}");
    }
}

/// A refusal names nothing that the API server quotes, and is for a person.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_api_server_cannot_read_is_no_outage() {
    for (purpose, secret) in [("bad-record", record_name("NAME")), ("bad-target", "db".to_owned())] {
        let site = Site::new(purpose).await;
        let strike = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (striking, path) = (std::sync::Arc::clone(&strike), format!("/secrets/{secret}"));
        let tap = Tap::new(move |_, request| {
            let due = striking.load(std::sync::atomic::Ordering::SeqCst);
            let hit = due && request.method() == "PATCH" && request.uri().path().ends_with(&path);
            if hit { refusal(400, "BadRequest", None) } else { Fault::Pass }
        });
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        site.apply("db", json!({"name": "NAME", "generate": {}})).await;
        let object = site.reports("db", "False", "WriteRefused").await;
        assert_eq!(conditions(&object), ["Ready", "Stalled"], "{purpose}");
        assert!(message(&object).contains("400 BadRequest"), "{}", message(&object));
        assert!(!serde_json::to_string(&object).unwrap().contains("on purpose"), "{purpose}");
        strike.store(false, std::sync::atomic::Ordering::SeqCst);
        site.nudge("db").await;
        site.served("db").await;
        operator.stop().await;
    }
}

struct Texts {
    description: String,
    annotation: String,
    value: String,
}

fn texts() -> impl Strategy<Value = Texts> {
    let value = text(80).prop_filter("a value is never empty", |value| !value.is_empty());
    (text(DESCRIPTION_MAX), text(200), value).prop_map(|(description, annotation, value)| Texts {
        description,
        annotation,
        value,
    })
}

impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}", self.description, self.annotation)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_description_annotation_and_value_is_delivered_as_it_is() {
    let site = Site::new("texts").await;
    let operator = Setup::of(&site.namespace).start().await;
    let mut cases = samples(&texts(), 40);
    for special in SPECIAL {
        let spaced = format!("a {special} b{special}");
        cases.push(Texts { description: spaced.clone(), annotation: spaced.clone(), value: spaced });
    }
    let site = &site;
    let checks = cases.iter().enumerate().map(|(number, case)| async move {
        let (name, secret_name) = (format!("t{number}"), format!("T{number}"));
        // By POST, which is read as JSON.
        let source = json!({"metadata": {"name": format!("{name}-source")}, "stringData": {"key": case.value}});
        let source: Secret = serde_json::from_value(source).unwrap();
        site.secrets().create(&PostParams::default(), &source).await.unwrap();
        let object = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND, "metadata": {"name": name},
            "spec": {
                "name": secret_name, "description": case.description,
                "valueFrom": {"secretKeyRef": {"name": format!("{name}-source"), "key": "key"}},
                "target": {"annotations": {"example.com/text": case.annotation}, "labels": {"number": secret_name}},
            },
        });
        let object: ManagedSecret = serde_json::from_value(object).unwrap();
        site.objects().create(&PostParams::default(), &object).await.unwrap();
        site.in_step(&name).await;
        let (record, target) = (site.record(&secret_name).await.unwrap(), site.secret(&name).await.unwrap());
        assert_eq!(record.annotations()[keys::ANNO_DESCRIPTION], case.description, "{case:?}");
        assert_eq!(target.annotations()["example.com/text"], case.annotation, "{case:?}");
        assert_eq!(target.labels()["number"], secret_name);
        assert!(target.data.unwrap()["value"].0 == case.value.as_bytes(), "the value of {case:?}");
    });
    join_all(checks).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_holds_ascii_only() {
    let site = Site::new("labels").await;
    for special in SPECIAL.iter().filter(|it| !it.is_ascii_graphic()) {
        let object = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND, "metadata": {"name": "db"},
            "spec": {"name": "NAME", "generate": {}, "target": {"labels": {"a": format!("x{special}y")}}},
        });
        let object: ManagedSecret = serde_json::from_value(object).unwrap();
        let refused = site.objects().create(&PostParams::default(), &object).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 422), "{special:?}: {refused}");
    }
}

/// One record as it stood after the API server had folded its description.
struct Folded {
    name: &'static str,
    /// The description that the record was written for.
    written: &'static str,
    /// The spec's description when the operator looks again.
    now: &'static str,
    /// Status was never written.
    first: bool,
    heals: bool,
}

const FOLDED: [Folded; 6] = [
    Folded { name: "same", written: "vor\u{85}nach", now: "vor\u{85}nach", first: false, heals: true },
    Folded {
        name: "many",
        written: "a \u{85} \u{85}b \u{2028} c\u{85}",
        now: "a \u{85} \u{85}b \u{2028} c\u{85}",
        first: false,
        heals: true,
    },
    Folded { name: "first", written: "x \u{2029} y", now: "x \u{2029} y", first: true, heals: true },
    Folded { name: "edited", written: "vor \u{85} nach it", now: "", first: false, heals: true },
    Folded { name: "unprovable", written: "a\u{85}b\u{85}c", now: "", first: false, heals: false },
    // Not folded: a user wrote it.
    Folded { name: "tampered", written: "vor nach", now: "vor nach", first: false, heals: false },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_folded_is_repaired_and_a_tampered_one_is_not() {
    let site = Site::new("folded").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    let spec = |name: &str, description: &str| json!({"name": name.to_uppercase(), "description": description, "generate": {}});
    let mut before = Vec::new();
    for case in &FOLDED {
        // Not by an apply: the test's own are read as YAML too.
        let object = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": case.name}, "spec": spec(case.name, case.written),
        });
        let object: ManagedSecret = serde_json::from_value(object).unwrap();
        site.objects().create(&PostParams::default(), &object).await.unwrap();
    }
    for case in &FOLDED {
        before.push((site.in_step(case.name).await, site.value(case.name, "value").await));
    }
    operator.stop().await;
    next_second().await;
    for case in &FOLDED {
        let folded = if case.name == "tampered" { "vor\u{85}nach".to_owned() } else { fold(case.written) };
        let stored = json!({"metadata": {"annotations": {keys::ANNO_DESCRIPTION: folded}}});
        restorer.intrude(&record_name(&case.name.to_uppercase()), stored).await;
        if case.first {
            let none = Patch::Merge(json!({"status": null}));
            restorer.objects().patch_status(case.name, &PatchParams::default(), &none).await.unwrap();
        }
        if case.now != case.written {
            let edited = Patch::Merge(json!({"spec": {"description": case.now}}));
            site.objects().patch(case.name, &PatchParams::default(), &edited).await.unwrap();
        }
    }
    operator = Setup::of(&site.namespace).start().await;
    for (case, (object, value)) in FOLDED.iter().zip(before) {
        let name = case.name;
        if case.heals {
            let now = site.in_step(name).await;
            let record = site.record(&name.to_uppercase()).await.unwrap();
            assert_eq!(record.annotations()[keys::ANNO_DESCRIPTION], case.now, "{name}");
            assert_eq!((id(&now), moved(&now).2), (id(&object), 1), "{name}");
            let same_dates = (moved(&now), &now.status.as_ref().unwrap().created_date)
                == (moved(&object), &object.status.as_ref().unwrap().created_date);
            assert_eq!(same_dates, case.now == case.written, "{name}");
        } else {
            site.reports(name, "False", "RecordTampered").await;
        }
        assert!(site.value(name, "value").await == value, "{name}: what is delivered stays");
    }
    // The description that it was written with, put back, proves it.
    let back: Value = json!({"spec": {"description": "a\u{85}b\u{85}c"}});
    site.objects().patch("unprovable", &PatchParams::default(), &Patch::Merge(back)).await.unwrap();
    site.in_step("unprovable").await;
    operator.stop().await;
}
