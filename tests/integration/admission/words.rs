//! What users read: refusals and warnings, through kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::json;

use super::Premises;

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_field_and_the_rule_and_not_the_value() {
    const CANARY: &str = "c4n4ry";
    let premises = Premises::new("words").await;
    let operator = premises.start(premises.setup()).await;
    for (value, expected) in [
        (json!(""), "spec.value: must not be empty"),
        (json!(CANARY.repeat(600)), "spec.value: must have at most 3500 characters"),
        (json!(424_242), "spec.value: must be a quoted string"),
        (json!([CANARY]), "spec.value: must be a quoted string"),
        (json!({CANARY: CANARY}), "spec.value: must be a quoted string"),
        (json!(format!("mss1.{CANARY}")), "spec.value: sealed value must be complete"),
    ] {
        let manifest = premises.manifest("db", &json!({"name": "DB", "value": value}));
        for arguments in [["create", "-f", "-"], ["apply", "-f", "-"], ["apply", "--server-side", "-f=-"]] {
            let message = Premises::refused(&premises.kubectl(&arguments, &manifest).await);
            assert!(message.contains(expected), "{arguments:?}: {message}");
            assert!(!message.contains(CANARY) && !message.contains("424242"), "{arguments:?}: {message}");
        }
    }
    let nameless = premises
        .manifest("db", &json!({"name": "DB", "value": CANARY}))
        .replace("\"name\":\"db\"", "\"generateName\":\"db-\"");
    let message = Premises::refused(&premises.kubectl(&["create", "-f", "-"], &nameless).await);
    assert!(message.contains("metadata.name: must be set"), "{message}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_tell_what_is_seldom_meant_about_a_value_and_not_the_value() {
    const CANARY: &str = "c4n4ry";
    let premises = Premises::new("remarks").await;
    let operator = premises.start(premises.setup()).await;
    for (name, value, expected) in [
        ("fine", CANARY.to_owned(), None),
        ("pem", format!("-----BEGIN KEY-----\n{CANARY}\n-----END KEY-----\n"), None),
        ("line", format!("{CANARY}\n"), Some("spec.value: ends in a line break")),
        ("blank", format!("{CANARY} "), Some("spec.value: ends in white space")),
        ("mark", format!("\u{feff}{CANARY}"), Some("spec.value: begins with a byte-order mark")),
        ("nul", format!("{CANARY}\0"), Some("spec.value: contains NUL")),
    ] {
        let spec = json!({"name": name.to_uppercase(), "value": value});
        let manifest = premises.manifest(name, &spec);
        // Both times: the manifest that holds it is still there.
        for _ in 0..2 {
            let said = Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &manifest).await);
            assert_eq!(said.contains("Warning"), expected.is_some(), "{said}");
            assert!(expected.is_none_or(|expected| said.contains(expected)), "{said}");
            assert!(!said.contains(CANARY), "{said}");
        }
        premises.site.delivers(name, "value", &value).await;
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_tell_what_will_wait_and_refuse_nothing() {
    let premises = Premises::new("warnings").await;
    let operator = premises.start(premises.setup()).await;
    let create = async |name: &str, spec: serde_json::Value| {
        Premises::ok(&premises.kubectl(&["create", "-f", "-"], &premises.manifest(name, &spec)).await)
    };
    let first = create("db", json!({"name": "DB", "value": "one", "target": {"name": "delivered"}})).await;
    assert!(!first.contains("Warning"), "{first}");
    premises.site.served("db").await;
    premises.site.foreign_secret("upstream", &[("key", "x")]).await;
    let from = |name: &str| json!({"secretKeyRef": {"name": name, "key": "key"}});
    let follows = create("follows", json!({"name": "FOLLOWS", "valueFrom": from("upstream")})).await;
    assert!(!follows.contains("Warning"), "{follows}");
    premises.site.served("follows").await;

    let taken = create("second", json!({"name": "DB", "generate": {}, "target": {"name": "delivered"}})).await;
    assert!(taken.contains("the name DB is in use by the ManagedSecret \"db\""), "{taken}");
    assert!(taken.contains("the Secret \"delivered\" belongs to the ManagedSecret \"db\""), "{taken}");
    let missing = create("missing", json!({"name": "MISSING", "valueFrom": from("nowhere")})).await;
    assert!(missing.contains("Secret \"nowhere\" not found"), "{missing}");
    let sealed = premises.site.get("db").await.spec.value.unwrap().0;
    let misplaced = create("misplaced", json!({"name": "MISPLACED", "value": sealed})).await;
    let expected = format!("sealed for {0}/db, used in {0}/misplaced", premises.site.namespace);
    assert!(misplaced.contains(&expected), "{misplaced}");

    // And where it takes the place of another value.
    create("other", json!({"name": "OTHER", "value": "two"})).await;
    let sealed = premises.site.get("other").await.spec.value.unwrap().0;
    let patch = json!({"spec": {"value": sealed}}).to_string();
    let patched = Premises::ok(&premises.kubectl(&["patch", "msec", "db", "--type=merge", "-p", &patch], "").await);
    let expected = format!("sealed for {0}/other, used in {0}/db", premises.site.namespace);
    assert!(patched.contains(&expected), "{patched}");

    // A rename to a taken name as well; a new description is no reason to look.
    let rename = r#"{"spec":{"name":"DB","description":"x"}}"#;
    let renamed = premises.kubectl(&["patch", "msec", "follows", "--type=merge", "-p", rename], "").await;
    assert!(Premises::ok(&renamed).contains("the name DB is in use"));
    operator.stop().await;
}
