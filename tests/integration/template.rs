//! `spec.target.template`: more keys of the target, made of the value, through everything that can happen to them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use kube::{ResourceExt as _, api::DeleteParams};
use managed_secrets_api::{
    keys,
    limits::{TEMPLATE_BYTES_MAX, TEMPLATE_KEYS_MAX, TEMPLATE_TEXT_MAX},
    names::record_name,
};
use serde_json::{Value, json};
use testkit::poll;

use super::{
    objects::{Site, message, moved, status},
    operator::{PATIENCE, Setup},
    witness::Witness,
};

/// Follows the Secret `source`, with this target; left out where nothing is said of it, for an apply that empties a map
/// leaves `null` there.
fn spec(target: &Value) -> Value {
    let mut spec = json!({"name": "NAME", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}}});
    if *target != json!({}) {
        spec["target"] = target.clone();
    }
    spec
}

fn templated(template: &Value) -> Value {
    spec(&json!({"template": template}))
}

/// All data of a Secret.
async fn data(site: &Site, secret: &str) -> BTreeMap<String, String> {
    found(site, secret).await.unwrap()
}

/// All data of a Secret, if it exists: another type recreates it.
async fn found(site: &Site, secret: &str) -> Option<BTreeMap<String, String>> {
    let data = site.secret(secret).await?.data.unwrap_or_default();
    Some(data.into_iter().map(|(key, bytes)| (key, String::from_utf8(bytes.0).unwrap())).collect())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

/// Waits until the Secret holds exactly this, and status knows of it.
async fn holds(site: &Site, secret: &str, expected: &[(&str, &str)]) {
    let expected = map(expected);
    let waited = poll("the data of the template", PATIENCE, || async {
        Ok((found(site, secret).await.as_ref() == Some(&expected)).then_some(()))
    })
    .await;
    assert!(waited.is_ok(), "{secret} holds the keys {:?}", found(site, secret).await.unwrap_or_default().keys());
    site.in_step("db").await;
}

const URL: &str = "postgres://shop:$(value | urlencode)@db:5432/shop";

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_follow_the_value_and_the_template_and_are_restored() {
    let site = Site::new("template").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "p@ss").await;
    site.apply("db", templated(&json!({"username": "shop", "DATABASE_URL": URL}))).await;
    let first = [("DATABASE_URL", "postgres://shop:p%40ss@db:5432/shop"), ("username", "shop"), ("value", "p@ss")];
    holds(&site, "db", &first).await;
    let object = site.served("db").await;
    assert!(message(&object).contains("keys from spec.target.template: 2"), "{}", message(&object));
    assert_eq!(status(&object).target.unwrap().key, "value");

    site.source("source", "new/1").await;
    let second = [("DATABASE_URL", "postgres://shop:new%2F1@db:5432/shop"), ("username", "shop"), ("value", "new/1")];
    holds(&site, "db", &second).await;
    // In one write: no pod sees the new value beside the old address.
    for state in witness.states().await.into_iter().filter(|state| state.name == "db") {
        assert!([map(&first), map(&second)].contains(&state.data), "{:?}", state.data.keys());
    }

    // Nothing moves but the shape: neither the version nor a date.
    let before = moved(&site.get("db").await);
    site.apply("db", templated(&json!({"DATABASE_URL": "mysql://$(value)", "auth": "$(\"shop:\" value | base64)"})))
        .await;
    let third = [("DATABASE_URL", "mysql://new/1"), ("auth", "c2hvcDpuZXcvMQ=="), ("value", "new/1")];
    holds(&site, "db", &third).await;
    assert_eq!(moved(&site.get("db").await), before);

    // Each key is restored, and what others put beside them stays.
    for change in [
        json!({"data": {"auth": "aW50cnVkZXI="}}),
        json!({"data": {"DATABASE_URL": null}}),
        json!({"data": {"value": null, "auth": null}}),
    ] {
        site.intrude("db", change).await;
        holds(&site, "db", &third).await;
    }
    assert!(!site.events("db", "TargetDriftCorrected").await.is_empty());
    // Also while no operator runs, and a restart alone writes nothing.
    operator.stop().await;
    site.intrude("db", json!({"data": {"auth": "aW50cnVkZXI=", "theirs": "eA=="}})).await;
    operator = Setup::of(&site.namespace).start().await;
    holds(&site, "db", &[&third[..2], &[("theirs", "x")], &third[2..]].concat()).await;
    site.intrude("db", json!({"data": {"theirs": null}})).await;
    let rest = site.in_step("db").await;
    let secret = site.secret("db").await.unwrap();
    operator.stop().await;
    operator = Setup::of(&site.namespace).start().await;
    site.apply("other", json!({"name": "OTHER", "generate": {}})).await;
    site.nudge("db").await;
    site.served("other").await;
    assert_eq!(site.secret("db").await, Some(secret));
    assert_eq!(status(&site.get("db").await), status(&rest));

    // A target that moves takes all keys along; without a template, its keys are removed.
    site.apply("db", spec(&json!({"name": "moved", "key": "token", "template": {"t": "$(value)"}}))).await;
    holds(&site, "moved", &[("t", "new/1"), ("token", "new/1")]).await;
    site.gone("db").await;
    site.apply("db", spec(&json!({"name": "moved", "key": "token"}))).await;
    holds(&site, "moved", &[("token", "new/1")]).await;
    assert!(!site.secret("moved").await.unwrap().annotations().contains_key(keys::ANNO_TEMPLATE));
    operator.stop().await;
}

/// A digest stands for the texts in the cache; they are read to be written.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_template_is_delivered_and_restored() {
    let site = Site::new("largest-template").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    let template = |mark: &str| -> Value {
        let text = format!("$(value){mark}{}", "x".repeat(TEMPLATE_BYTES_MAX / TEMPLATE_KEYS_MAX - 30));
        (0..TEMPLATE_KEYS_MAX).map(|n| (format!("key-{n:02}"), json!(text))).collect::<serde_json::Map<_, _>>().into()
    };
    let expected = |template: &Value, value: &str| -> Vec<(String, String)> {
        let texts = template.as_object().unwrap().iter();
        let mut all: Vec<_> =
            texts.map(|(key, text)| (key.clone(), text.as_str().unwrap().replace("$(value)", value))).collect();
        all.push(("value".to_owned(), value.to_owned()));
        all
    };
    let until = async |template: &Value, value: &str| {
        let all = expected(template, value);
        let pairs: Vec<_> = all.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        holds(&site, "db", &pairs).await;
    };
    let first = template("a");
    site.apply("db", templated(&first)).await;
    until(&first, "v").await;
    // One character of one text.
    let mut second = first.clone();
    second["key-09"] = json!(second["key-09"].as_str().unwrap().replace(")a", ")b"));
    site.apply("db", templated(&second)).await;
    until(&second, "v").await;
    site.source("source", "w").await;
    until(&second, "w").await;
    operator.stop().await;
    site.intrude("db", json!({"data": {"key-03": null, "key-15": "eA=="}})).await;
    operator = Setup::of(&site.namespace).start().await;
    until(&second, "w").await;
    let longest = json!({"chain": "c".repeat(TEMPLATE_TEXT_MAX)});
    site.apply("db", templated(&longest)).await;
    until(&longest, "w").await;
    operator.stop().await;
}

/// What is there is not the value: it is never taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_for_the_key_of_the_value_replaces_it() {
    let site = Site::new("replaced").await;
    let operator = Setup::of(&site.namespace).start().await;
    let replaced = |template: Value| json!({"name": "NAME", "generate": {"length": 8}, "target": {"key": "config", "template": template}});
    site.apply("db", replaced(json!({"config": "password = $(value | json)\n"}))).await;
    let object = site.in_step("db").await;
    let config = site.value("db", "config").await.unwrap();
    let value = config.strip_prefix("password = \"").and_then(|rest| rest.strip_suffix("\"\n")).unwrap().to_owned();
    assert_eq!(value.len(), 8);
    assert_eq!(data(&site, "db").await.len(), 1);
    assert_eq!(status(&object).target.unwrap().key, "");
    assert!(message(&object).contains("delivered in Secret db"), "{}", message(&object));

    // The record is the only copy.
    site.secrets().delete(&record_name("NAME"), &DeleteParams::default()).await.unwrap();
    site.reports("db", "False", "RecordLost").await;
    assert_eq!(site.value("db", "config").await.as_deref(), Some(config.as_str()));
    site.delete("db").await;
    site.gone("db").await;

    // As it is under another key, the value outlives its record.
    site.apply("db", replaced(json!({"url": "x://$(value)"}))).await;
    let object = site.in_step("db").await;
    assert_eq!(status(&object).target.unwrap().key, "config");
    let value = site.value("db", "config").await.unwrap();
    site.secrets().delete(&record_name("NAME"), &DeleteParams::default()).await.unwrap();
    site.until("db", "the record is back", |now| {
        status(now).record.is_some_and(|record| Some(record.uid) != status(&object).record.map(|before| before.uid))
    })
    .await;
    let url = format!("x://{value}");
    holds(&site, "db", &[("config", &value), ("url", &url)]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_of_an_adopted_secret_is_subject_to_the_rule_for_the_value() {
    let site = Site::new("template-adopted").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    let adopting = |target: Value| {
        let mut target = target;
        target["adoption"] = json!("IfUnowned");
        spec(&target)
    };
    let theirs = site.foreign_secret("db", &[("theirs", "t"), ("url", "x://canary"), ("same", "=v")]).await;
    let template = json!({"url": "x://$(value)", "same": "=$(value)", "new": "n"});
    site.apply("db", adopting(json!({"template": template}))).await;
    let object = site.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("its key url holds another value"), "{}", message(&object));
    assert!(message(&object).contains("spec.target.template") && !message(&object).contains("canary"));
    assert_eq!(site.secret("db").await, Some(theirs));

    site.intrude("db", json!({"data": {"url": null}})).await;
    site.nudge("db").await;
    let all = [("new", "n"), ("same", "=v"), ("theirs", "t"), ("url", "x://v"), ("value", "v")];
    holds(&site, "db", &all).await;
    let secret = site.secret("db").await.unwrap();
    assert_eq!(secret.annotations()[keys::ANNO_FOUND_KEY], "same");
    assert_eq!(secret.metadata.owner_references, None);

    // A key of another program cannot be given to the template later.
    site.apply("db", adopting(json!({"template": {"url": "x://$(value)", "same": "=$(value)", "theirs": "$(value)"}})))
        .await;
    let object = site.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("its key theirs holds another value"), "{}", message(&object));
    assert_eq!(site.value("db", "theirs").await.as_deref(), Some("t"));
    assert_eq!(site.value("db", "new").await.as_deref(), Some("n"), "what is delivered stays");

    // A key that was there before stays when the template gives it up, with its content then; also when another is given up
    // after it.
    site.apply("db", adopting(json!({"template": template}))).await;
    site.served("db").await;
    site.source("source", "w").await;
    holds(&site, "db", &[("new", "n"), ("same", "=w"), ("theirs", "t"), ("url", "x://w"), ("value", "w")]).await;
    let left = [("same", "=w"), ("theirs", "t"), ("url", "x://w"), ("value", "w")];
    site.apply("db", adopting(json!({"template": {"url": "x://$(value)"}}))).await;
    holds(&site, "db", &left).await;
    site.apply("db", adopting(json!({"template": {"url": "x://$(value)", "theirs": "t"}}))).await;
    site.in_step("db").await;
    assert_eq!(site.secret("db").await.unwrap().annotations()[keys::ANNO_FOUND_KEY], "theirs");
    site.apply("db", adopting(json!({"template": {"url": "x://$(value)"}}))).await;
    holds(&site, "db", &left).await;
    let mut released = spec(&json!({}));
    released["delivery"] = json!("None");
    site.apply("db", released).await;
    site.served("db").await;
    assert_eq!(data(&site, "db").await, map(&[("same", "=w"), ("theirs", "t")]));
    operator.stop().await;
}

/// A write of another program makes a key that program's, but the template that made the target tells that it was ours.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_adopted_secret_are_restored_and_block_no_later_value() {
    let site = Site::new("template-restored").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    site.foreign_secret("db", &[("theirs", "t")]).await;
    // One that the cache keeps with its texts, and one of which it keeps the keys alone.
    for url in ["x://".to_owned(), format!("x://{}", "y".repeat(2000))] {
        let template = json!({"config": "c=$(value)", "url": format!("{url}$(value)")});
        let target = json!({"adoption": "IfUnowned", "key": "config", "template": template});
        site.apply("db", spec(&target)).await;
        let until = async |value: &str| {
            let (config, url) = (format!("c={value}"), format!("{url}{value}"));
            holds(&site, "db", &[("config", &config), ("theirs", "t"), ("url", &url)]).await;
        };
        until("v").await;
        assert_eq!(status(&site.get("db").await).target.unwrap().key, "", "the template replaces the value");
        let changes = [
            json!({"data": {"url": "aW50cnVkZXI="}}),
            json!({"data": {"config": "aW50cnVkZXI="}}),
            json!({"data": {"config": null, "url": "aW50cnVkZXI="}}),
        ];
        for change in &changes {
            site.intrude("db", change.clone()).await;
            until("v").await;
        }
        // With a new value at the same time.
        for (change, value) in changes.iter().zip(["w", "x", "v"]) {
            operator.stop().await;
            site.intrude("db", change.clone()).await;
            site.source("source", value).await;
            operator = Setup::of(&site.namespace).start().await;
            until(value).await;
        }
    }
    operator.stop().await;
}

/// It is refused before the write, so what is delivered stays, all of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_too_large_is_not_written() {
    let site = Site::new("template-large").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "small").await;
    let text = "$(value | json | json | json)".repeat(40);
    site.apply("db", templated(&json!({"k": text}))).await;
    site.in_step("db").await;
    let before = data(&site, "db").await;
    site.source("source", &"\\".repeat(3000)).await;
    for restart in [false, true] {
        if restart {
            operator.stop().await;
            operator = Setup::of(&site.namespace).start().await;
            // Status says it already: what is new shows that this operator is at work.
            site.nudge("db").await;
            site.apply("fresh", json!({"name": "FRESH", "generate": {}})).await;
            site.served("fresh").await;
        }
        let object = site.reports("db", "False", "TemplateTooLarge").await;
        assert!(message(&object).contains("256 KiB") && !message(&object).contains("\\\\"), "{}", message(&object));
        assert_eq!(status(&object).version, Some(2));
        assert_eq!(status(&object).target.unwrap().resource_version, "", "it holds an older version");
        assert_eq!(data(&site, "db").await, before);
    }
    // A first delivery, too: the record is written once.
    let mut first = templated(&json!({"k": text}));
    first["name"] = json!("OTHER");
    site.apply("other", first).await;
    let object = site.reports("other", "False", "TemplateTooLarge").await;
    assert!(status(&object).id.is_some() && status(&object).record.is_some() && status(&object).target.is_none());
    assert!(site.secret("other").await.is_none());
    let record = site.record("OTHER").await;
    site.nudge("other").await;
    site.source("source", "small again").await;
    holds(&site, "db", &[("k", &"\"\\\"\\\\\\\"small again\\\\\\\"\\\"\"".repeat(40)), ("value", "small again")]).await;
    site.served("other").await;
    assert_eq!(site.record("OTHER").await.unwrap().uid(), record.unwrap().uid());
    for state in witness.states().await.iter().filter(|state| state.name == "db") {
        assert!(state.data["value"].starts_with("small"));
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_its_key_and_a_login_of_docker_have_their_types() {
    let site = Site::new("typed").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "-----BEGIN PRIVATE KEY-----").await;
    let chain = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let tls = json!({"type": "kubernetes.io/tls", "key": "tls.key", "template": {"tls.crt": chain}});
    site.apply("db", spec(&tls)).await;
    holds(&site, "db", &[("tls.crt", chain), ("tls.key", "-----BEGIN PRIVATE KEY-----")]).await;
    assert_eq!(site.secret("db").await.unwrap().type_.as_deref(), Some("kubernetes.io/tls"));

    let config = "{\"auths\":{\"r.example\":{\"auth\":$(\"shop:\" value | base64 | json)}}}";
    let docker = |text: &str| {
        let type_ = "kubernetes.io/dockerconfigjson";
        spec(&json!({"type": type_, "key": ".dockerconfigjson", "template": {".dockerconfigjson": text}}))
    };
    site.apply("db", docker(config)).await;
    let json = "{\"auths\":{\"r.example\":{\"auth\":\"c2hvcDotLS0tLUJFR0lOIFBSSVZBVEUgS0VZLS0tLS0=\"}}}";
    holds(&site, "db", &[(".dockerconfigjson", json)]).await;
    // The API server checks that it is JSON, and its refusal shows nothing of it.
    site.apply("db", docker("{canary $(value)")).await;
    let object = site.reports("db", "False", "WriteRefused").await;
    assert!(message(&object).contains(".dockerconfigjson"), "{}", message(&object));
    assert!(!message(&object).contains("canary") && !message(&object).contains("BEGIN"), "{}", message(&object));
    assert_eq!(data(&site, "db").await, map(&[(".dockerconfigjson", json)]));
    operator.stop().await;
}

/// The type of a Secret cannot be changed, so the old one is deleted: not before the new one is known to be accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_type_that_is_refused_leaves_what_is_delivered() {
    let site = Site::new("retyped").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "v\"w").await;
    let key = ".dockerconfigjson";
    site.apply("db", spec(&json!({"key": key}))).await;
    holds(&site, "db", &[(key, "v\"w")]).await;
    let before = site.secret("db").await.unwrap();
    let docker =
        |text: &str| spec(&json!({"type": "kubernetes.io/dockerconfigjson", "key": key, "template": {key: text}}));
    let large = "$(value | json | json | json)".repeat(TEMPLATE_TEXT_MAX / 40);
    for (round, (text, reason)) in
        [("{\"auth\":$(value)}", "WriteRefused"), ("{$(value)", "WriteRefused"), (&large, "TemplateTooLarge")]
            .into_iter()
            .enumerate()
    {
        if reason == "TemplateTooLarge" {
            site.source("source", &"\"".repeat(1000)).await;
        }
        if round == 1 {
            // The next one has not seen the type itself.
            operator.stop().await;
            site.apply("db", docker(text)).await;
            operator = Setup::of(&site.namespace).start().await;
        } else {
            site.apply("db", docker(text)).await;
        }
        let object = site.reports("db", "False", reason).await;
        assert!(!message(&object).contains("v\"w"), "{}", message(&object));
        let present = site.secret("db").await.unwrap();
        assert_eq!((present.uid(), &present.type_, &present.data), (before.uid(), &before.type_, &before.data));
    }
    site.source("source", "v\"w").await;
    site.apply("db", docker("{\"auths\":{\"r\":{\"auth\":$(value | json)}}}")).await;
    holds(&site, "db", &[(key, "{\"auths\":{\"r\":{\"auth\":\"v\\\"w\"}}}")]).await;
    assert_eq!(site.secret("db").await.unwrap().type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
    assert_eq!(witness.uids("db").await.len(), 2);
    operator.stop().await;
}

/// Immutability freezes the data: as long as it is what it should be, nothing is amiss.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_target_is_compared_key_by_key() {
    let site = Site::new("template-frozen").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    site.apply("db", templated(&json!({"url": "x://$(value)", "user": "shop"}))).await;
    site.in_step("db").await;
    site.intrude("db", json!({"immutable": true})).await;
    site.in_step("db").await;
    // The same data by other texts.
    site.apply("db", templated(&json!({"url": "$(\"x://\" value)", "user": "shop"}))).await;
    site.in_step("db").await;
    for template in [json!({"url": "x://$(value)"}), json!({"url": "y://$(value)", "user": "shop"})] {
        site.apply("db", templated(&template)).await;
        site.reports("db", "False", "TargetImmutable").await;
    }
    assert_eq!(data(&site, "db").await, map(&[("url", "x://v"), ("user", "shop"), ("value", "v")]));
    operator.stop().await;
}
