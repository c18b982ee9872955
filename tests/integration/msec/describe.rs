//! `describe`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use managed_secrets_crypto::mss1::SealingKey;
use serde_json::{Value, json};
use testkit::poll;
use zeroize::Zeroizing;

use super::{
    changes::{may, mounts, place},
    golden, user_with,
};
use crate::integration::{
    objects::{id, sealed, status},
    operator::{PATIENCE, public_key},
};

/// The text behind `Name:`.
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let start = format!("{name}:");
    let line = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{name}: {text}"));
    line[start.len()..].trim()
}

/// The lines below a heading.
fn part<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| *line != format!("{heading}:"));
    assert!(lines.next().is_some(), "{heading}: {text}");
    lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_known_is_told_in_words() {
    let (site, operator, plugin) = place("told").await;
    let create = ["create", "DB", "--description", "Daten\u{1b}[31m", "--target-name", "login"];
    plugin.run_with(&create, b"hunter2").await.ok();
    mounts(&site, "web", "login").await;
    let object = site.served("db").await;
    let text = plugin.run(&["describe", &id(&object)]).await.ok();
    let key = public_key(&site.client).await.key_id();
    for (name, expected) in [
        ("Secret", "DB".to_owned()),
        ("ID", id(&object)),
        ("Object", format!("msec/db in the namespace {}", site.namespace)),
        // What a description holds does not steer the terminal.
        ("Description", "Daten\\u{1b}[31m".to_owned()),
        ("State", "Served".to_owned()),
        ("Version", "1".to_owned()),
        ("Source", format!("sealed value for msec/db in the namespace {} only, key {key} (current)", site.namespace)),
        ("Record", format!("Secret {}", status(&object).record.unwrap().name)),
        ("Target", "Secret login, key value, type Opaque".to_owned()),
        ("On deletion", "record and target are deleted (Delete)".to_owned()),
    ] {
        assert_eq!(line(&text, name), expected);
    }
    let created = status(&object).created_date.unwrap();
    for name in ["Created", "Updated", "Value updated"] {
        assert!(line(&text, name).starts_with(&format!("{created} (")), "{text}");
    }
    let conditions = part(&text, "Conditions");
    assert!(conditions[0].starts_with("Ready is True for ") && conditions[0].ends_with(": Served"), "{text}");
    assert_eq!(conditions[1], "delivered as key value of Secret login");
    assert_eq!(part(&text, "Used by"), ["pod/web (volume credentials)"]);
    assert_eq!(part(&text, "Events"), ["none that the cluster still keeps"]);
    assert!(!text.contains("What to do") && !text.contains("hunter2"), "{text}");
    let record = status(&object).record.unwrap().name;
    let facts =
        [(record, "RECORD"), (id(&object), "ID"), (key.to_string(), "KEY"), (site.namespace.clone(), "NAMESPACE")];
    golden::matches("describe-healthy", &text, &facts);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_earlier_values_and_what_is_delivered_of_them_are_told() {
    let (site, operator, plugin) = place("told-life").await;
    let spec = |revision: &str, more: Value| {
        let mut spec = json!({
            "name": "DB", "generate": {"rotateEvery": "720h", "revision": revision}, "history": 2, "overlap": "24h",
            "target": {"previousKey": "old"},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    for revision in ["a", "b", "c"] {
        site.apply("db", spec(revision, json!({}))).await;
        site.in_step("db").await;
    }
    let told = async || plugin.run(&["describe", "DB"]).await.ok();
    let object = status(&site.get("db").await);
    let updated: jiff::Timestamp = object.value_updated_time.unwrap().parse().unwrap();
    let end = updated + jiff::SignedDuration::from_hours(24);
    let text = told().await;
    assert_eq!(line(&text, "Version"), "3");
    assert_eq!(line(&text, "Earlier values"), "2, 1");
    assert_eq!(line(&text, "Previous value"), format!("version 2, key old until {end}"));
    let source = line(&text, "Source");
    assert!(source.contains("rotated every 720h") && source.contains(&object.next_rotation.unwrap()), "{source}");

    site.apply("db", spec("c", json!({"version": 1}))).await;
    site.in_step("db").await;
    let text = told().await;
    assert_eq!(line(&text, "Version"), "3 (the delivered one is 1)");
    assert_eq!(line(&text, "Previous value"), "none now (key old)");

    site.apply("db", spec("c", json!({"overlap": "0s"}))).await;
    site.in_step("db").await;
    assert_eq!(line(&told().await, "Previous value"), "none now (key old)");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_to_do_is_told_if_it_is_not_served() {
    let (site, operator, plugin) = place("todo").await;
    // A key that this cluster has never had.
    let other = SealingKey::new(Zeroizing::new([0x42; 32])).unwrap().public().clone();
    let text = sealed(&other, &site.strict("foreign"), "hunter2");
    site.apply("foreign", json!({"name": "FOREIGN", "value": text})).await;
    site.reports("foreign", "False", "SealedWithUnknownKey").await;
    poll("the event", PATIENCE, || async {
        Ok((!site.events("foreign", "SealedWithUnknownKey").await.is_empty()).then_some(()))
    })
    .await
    .unwrap();
    let text = plugin.run(&["describe", "FOREIGN"]).await.ok();
    let present = public_key(&site.client).await.key_id();
    assert!(
        line(&text, "Source").contains(&format!("key {} (the current key is {present}; ", other.key_id())),
        "{text}"
    );
    assert!(line(&text, "State").starts_with("SealedWithUnknownKey: "), "{text}");
    let advice = part(&text, "What to do");
    assert!(advice[0].starts_with("This cluster has no key that opens spec.value"), "{text}");
    assert_eq!(advice[1], format!("kubectl msec update msec/foreign -n {} --value-stdin", site.namespace));
    assert!(part(&text, "Conditions").iter().any(|line| line.starts_with("Stalled is True")), "{text}");
    assert_eq!(part(&text, "Used by"), ["nothing: there is no Secret"]);
    let facts = [
        (other.key_id().to_string(), "OTHER_KEY"),
        (present.to_string(), "KEY"),
        (site.namespace.clone(), "NAMESPACE"),
    ];
    golden::matches("describe-problem", &text, &facts);

    // The advice helps.
    plugin.run_with(&["update", "msec/foreign", "--value-stdin"], b"hunter2").await.ok();

    // A rename that waits: both names, both policies.
    site.apply("late", json!({"name": "LATE", "generate": {}})).await;
    site.served("late").await;
    site.apply("late", json!({"name": "FOREIGN", "generate": {}})).await;
    site.reports("late", "False", "NameInUse").await;
    let text = plugin.run(&["describe", "msec/late"]).await.ok();
    assert_eq!(line(&text, "Secret"), "LATE (current; wanted: FOREIGN)");
    assert_eq!(line(&text, "Source"), "generated once: 32 characters, Alphanumeric");
    assert!(part(&text, "What to do")[1].ends_with("--name NEW"), "{text}");
    operator.stop().await;

    site.apply("early", json!({"name": "EARLY", "generate": {}, "deletionPolicy": "Retain"})).await;
    let text = plugin.run(&["describe", "EARLY"]).await.ok();
    assert_eq!(part(&text, "What to do")[1], format!("kubectl msec doctor -n {}", site.namespace));
    assert!(line(&text, "On deletion").starts_with("not effective yet: record and target stay"), "{text}");
    assert_eq!((line(&text, "ID"), line(&text, "Created")), ("none yet", "never"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_unknown_with_the_right_that_it_takes() {
    let (site, operator, plugin) = place("unknown").await;
    plugin.run_with(&["create", "DB"], b"hunter2").await.ok();
    let user = user_with(&site, &[may(&["list"])]).await;
    let limited = plugin.impersonating(&user);
    let ran = limited.run(&["describe", "DB", "--operator-namespace", "default"]).await;
    let text = ran.ok();
    let no = |what: &str, namespace: &str| format!("check `kubectl auth can-i {what} -n {namespace}`");
    let users = part(&text, "Used by");
    let check = format!("permission denied: check `kubectl auth can-i list pods -n {}`", site.namespace);
    assert!(users.len() == 1 && users[0].starts_with("unknown: pods, ") && users[0].contains(&check), "{text}");
    assert!(part(&text, "Events")[0].ends_with(&no("list events", &site.namespace)), "{text}");
    let right = no("get configmaps/managed-secrets-sealing-key", "default");
    assert!(line(&text, "Source").contains(&format!("(the current key is unknown: {}", "cannot read")), "{text}");
    assert!(line(&text, "Source").contains(&right), "{text}");
    assert_eq!(line(&text, "State"), "Served");
    let absent = limited.run(&["describe", "NOBODY"]).await;
    assert!(absent.error(1).contains("secret \"NOBODY\" not found"), "{absent:?}");
    operator.stop().await;
}
