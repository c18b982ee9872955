//! A target whose record is missing: restored or copied without it, or left by an adoption. Its value may have no other
//! copy: it is never overwritten, and the condition says how to keep it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt as _, api::PostParams, core::ObjectMeta};
use managed_secrets_api::{keys, names::record_name};
use serde_json::{Value, json};

use super::{
    installation::control_plane,
    msec::Plugin,
    objects::{Site, id, message},
    operator::Setup,
};

/// A Secret as a backup tool or a copying controller has it: name, labels, annotations, content.
async fn copy(secret: &Secret, site: &Site, name: &str) -> Secret {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: secret.metadata.labels.clone(),
        annotations: secret.metadata.annotations.clone(),
        ..ObjectMeta::default()
    };
    site.secrets().create(&PostParams::default(), &Secret { metadata, ..secret.clone() }).await.unwrap()
}

fn generated(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_restored_without_its_record_is_kept_and_taken_over() {
    let (site, there) = (Site::new("recordless").await, Site::new("restored").await);
    let setup = Setup::of(&site.namespace);
    let operator = Setup { namespaces: vec![site.namespace.clone(), there.namespace.clone()], ..setup }.start().await;
    site.apply("db", generated("DB")).await;
    let before = id(&site.served("db").await);
    let delivered = site.secret("db").await.unwrap();
    let value = site.value("db", "value").await.unwrap();
    let restored = copy(&delivered, &there, "db").await;
    there.apply("db", generated("DB")).await;
    let object = there.reports("db", "False", "TargetNotOwned").await;
    let said = message(&object);
    for says in [
        &format!("the id {before}, and its record is missing"),
        "the only copy",
        "delete this ManagedSecret, which deletes its own value",
        "kubectl msec restore BACKUP",
        "--value-stdin",
        "spec.target.adoption: IfUnowned",
    ] {
        assert!(said.contains(says), "{says}: {said}");
    }
    let condition = "If you know, and still have the value there, delete the Secret";
    assert!(said.contains(condition), "{said}");
    assert!(!said.replace(condition, "").contains("delete the Secret"), "only on that condition: {said}");
    assert_eq!(there.secret("db").await.as_ref(), Some(&restored));

    // Adoption alone overwrites nothing: the new record holds another value.
    let adopting = json!({"name": "DB", "generate": {}, "target": {"adoption": "IfUnowned"}});
    there.apply("db", adopting).await;
    let object = there.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("its record is missing"), "{}", message(&object));
    assert_eq!(there.secret("db").await.as_ref(), Some(&restored));

    // As the condition says: the value goes into the record, and the Secret is adopted as it is.
    let plugin = Plugin::on(control_plane().await, &there);
    let update = ["update", "msec/db", "--value-stdin", "--wait=false"];
    plugin.run_with(&update, value.as_bytes()).await.ok();
    there.served("db").await;
    let secret = there.secret("db").await.unwrap();
    assert_eq!((secret.uid(), secret.data.clone()), (restored.uid(), restored.data.clone()));
    assert_eq!(secret.labels()[keys::LABEL_ID], id(&there.get("db").await));
    operator.stop().await;
}

/// The same advice to an object that delivers elsewhere, or is given its value, must not cost a value either.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_missing_record_costs_no_value() {
    let (site, there) = (Site::new("advice").await, Site::new("advised").await);
    let setup = Setup::of(&site.namespace);
    let operator = Setup { namespaces: vec![site.namespace.clone(), there.namespace.clone()], ..setup }.start().await;
    site.source("upstream", "v").await;
    there.source("upstream", "v").await;
    let target = |spec: &Value, target: Value| {
        let mut spec = spec.clone();
        spec["target"] = target;
        spec
    };
    let followed = json!({"name": "FOLLOWED", "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}}});
    site.apply("followed", followed.clone()).await;
    site.apply("moves", generated("MOVES")).await;
    for name in ["followed", "moves"] {
        site.served(name).await;
        copy(&site.secret(name).await.unwrap(), &there, name).await;
    }
    let said = async |name: &str| message(&there.reports(name, "False", "TargetNotOwned").await);

    // It delivers a generated value elsewhere: to delete it, or to replace its value, would cost that one.
    there.apply("moves", target(&generated("MOVES"), json!({"name": "elsewhere"}))).await;
    there.served("moves").await;
    let own = there.value("elsewhere", "value").await;
    there.apply("moves", generated("MOVES")).await;
    let text = said("moves").await;
    assert!(text.contains("choose another spec.target.name"), "{text}");
    assert!(!text.contains("delete this ManagedSecret") && !text.contains("--value-stdin"), "{text}");
    assert_eq!(there.value("elsewhere", "value").await, own);

    // It follows the same source: adoption compares the two, and overwrites nothing.
    there.apply("followed", followed.clone()).await;
    let text = said("followed").await;
    let adopt = "If it holds the value of spec.valueFrom, set spec.target.adoption: IfUnowned";
    assert!(text.contains(adopt) && text.contains("still have the value there, delete the Secret"), "{text}");
    let adopting = target(&followed, json!({"adoption": "IfUnowned"}));
    there.source("upstream", "other").await;
    there.apply("followed", adopting).await;
    let text = said("followed").await;
    assert!(!text.contains(adopt) && text.contains("its record is missing"), "{text}");
    assert_eq!(there.value("followed", "value").await.as_deref(), Some("v"));
    there.source("upstream", "v").await;
    there.served("followed").await;
    operator.stop().await;
}

/// What an adopted Secret keeps when its ManagedSecret is deleted, the next one of that name takes up again, if it has the
/// very same value.
#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_secret_is_adopted_again_by_the_next_object_of_its_name() {
    let site = Site::new("readopted").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("upstream", "v").await;
    let target = |name: &str, key: &str| json!({"name": name, "key": key, "adoption": "IfUnowned"});
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
    let followed = json!({"name": "FOLLOWED", "valueFrom": from, "target": target("theirs-1", "password")});
    let drawn = |key: &str| json!({"name": "DRAWN", "generate": {}, "target": target("theirs-2", key)});
    for (name, secret, spec) in [("followed", "theirs-1", followed.clone()), ("drawn", "theirs-2", drawn("password"))] {
        site.foreign_secret(secret, &[("username", "theirs")]).await;
        site.apply(name, spec).await;
        site.served(name).await;
    }
    let (first, second) = (site.secret("theirs-1").await.unwrap(), site.secret("theirs-2").await.unwrap());
    for (name, record) in [("followed", "FOLLOWED"), ("drawn", "DRAWN")] {
        site.delete(name).await;
        site.gone(&record_name(record)).await;
    }
    site.apply("followed", followed).await;
    let object = site.served("followed").await;
    let after = site.secret("theirs-1").await.unwrap();
    assert_eq!((after.uid(), &after.data), (first.uid(), &first.data));
    assert_eq!(after.labels()[keys::LABEL_ID], id(&object));
    assert!(after.metadata.owner_references.is_none());

    // A generated value is another one: what is there stays, under its key, and also when another key is wanted.
    for key in ["password", "token"] {
        site.apply("drawn", drawn(key)).await;
        let object = site.reports("drawn", "False", "TargetNotOwned").await;
        assert!(message(&object).contains("its record is missing"), "{}", message(&object));
        assert_eq!(site.secret("theirs-2").await.unwrap().data, second.data, "{key}");
    }
    operator.stop().await;
}

/// A record that is retained speaks for its Secret: no other object of that name adopts it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_retained_record_delivers_into_is_not_adopted() {
    let site = Site::new("spoken-for").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", json!({"name": "OLD", "generate": {}, "deletionPolicy": "Retain"})).await;
    site.in_step("db").await;
    let before = site.secret("db").await.unwrap();
    site.delete("db").await;
    site.apply("db", json!({"name": "NEW", "generate": {}, "target": {"adoption": "IfUnowned"}})).await;
    let object = site.reports("db", "False", "TargetNotOwned").await;
    let said = message(&object);
    assert!(said.contains(&format!("record {} is retained", record_name("OLD"))), "{said}");
    assert_eq!(site.secret("db").await, Some(before));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_and_backup_tell_copies_and_what_has_lost_its_record() {
    let (site, there) = (Site::new("copied").await, Site::new("copies").await);
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", generated("DB")).await;
    site.served("db").await;
    let delivered = site.secret("db").await.unwrap();
    operator.stop().await;
    copy(&delivered, &there, "db").await;
    let mut lost = delivered.clone();
    lost.metadata.labels.as_mut().unwrap().insert(keys::LABEL_ID.to_owned(), uuid::Uuid::new_v4().to_string());
    copy(&lost, &there, "lost").await;

    let plugin = Plugin::on(control_plane().await, &there);
    let found = plugin.run(&["doctor", "-o", "json"]).await;
    let found: Value = serde_json::from_str(&found.out).unwrap();
    let findings: Vec<_> = found["findings"].as_array().unwrap().iter().filter(|it| it["check"] == "targets").collect();
    // Others' tests have theirs on the same control plane.
    let says = |level: &str, text: &str| {
        findings.iter().any(|it| it["level"] == level && it["what"].as_str().unwrap().contains(text))
    };
    assert!(says("warning", "have the labels of a delivered Secret, but no record"), "{findings:#?}");
    assert!(says("note", "are copies of delivered Secrets"), "{findings:#?}");

    let backup = plugin.run(&["backup"]).await;
    backup.ok();
    for says in [format!("Secret {0}/lost has the labels", there.namespace), "may have no other copy".to_owned()] {
        assert!(backup.err.contains(&says), "{says}: {backup:?}");
    }
    let everywhere = plugin.kubectl(&["msec", "backup", "-A"], b"").await;
    everywhere.ok();
    let says = format!(
        "Secret {}/db has the labels of a delivered Secret, but is a copy of {}/db",
        there.namespace, site.namespace
    );
    assert!(everywhere.err.contains(&says), "{says}");
}
