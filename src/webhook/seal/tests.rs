use managed_secrets_api::keys::LAST_APPLIED;
use managed_secrets_crypto::keyring::State;
use serde_json::json;

use super::*;
use crate::webhook::testing::{NAMESPACE, document, in_state, keyring, object, opened, sealed, sealed_as, strict};

const PLAIN: &str = "hunter2-grüße\n";

fn plain() -> Value {
    object("db", json!({"name": "DB", "value": PLAIN}))
}

fn with_copy(mut object: Value, copy: &str) -> Value {
    object["metadata"]["annotations"] = json!({LAST_APPLIED: copy});
    object
}

fn find(object: &Value, stored: Option<&Value>) -> Result<Option<Findings>, Refusal> {
    Findings::of(NAMESPACE, object, stored, false)
}

/// What the value and the copy become.
fn sealing(keyring: &Keyring, object: &Value, stored: Option<&Value>, may_read: bool) -> Outcome {
    find(object, stored).unwrap().unwrap().seal(keyring, may_read).unwrap()
}

fn replaced(outcome: &Outcome, path: &str) -> String {
    outcome.replace.iter().find(|(at, _)| *at == path).unwrap().1.as_str().unwrap().to_owned()
}

#[test]
fn plaintext_is_sealed_for_its_object() {
    let keyring = keyring(&[document(1)]);
    let outcome = sealing(&keyring, &plain(), None, false);
    assert_eq!(outcome.replace.len(), 1);
    assert_eq!(opened(&keyring, &replaced(&outcome, VALUE), "db"), PLAIN);
    assert!(outcome.unread.is_none(), "there was nothing to read");
}

#[test]
fn only_the_values_in_the_copy_are_replaced_and_by_the_same_text() {
    let keyring = keyring(&[document(1)]);
    let copy = |value: &str| {
        format!(
            "{{ \"b\":1.0, \"spec\" : {{\"value\": {value}, \"description\":\"\\u003chunter2\\u003e\"}},\n \"value\":\"x\"}}\n"
        )
    };
    let written = Value::from(PLAIN).to_string();
    let outcome = sealing(&keyring, &with_copy(plain(), &copy(&written)), None, false);
    let value = replaced(&outcome, VALUE);
    assert_eq!(replaced(&outcome, COPY), copy(&format!("\"{value}\"")));

    let repeated = with_copy(plain(), r#"{"spec":{"value":"the first","value":"two"}}"#);
    let copy: Value = serde_json::from_str(&replaced(&sealing(&keyring, &repeated, None, false), COPY)).unwrap();
    assert_eq!(opened(&keyring, copy["spec"]["value"].as_str().unwrap(), "db"), "two");
    // Sealed text has no blanks.
    assert!(!copy.to_string().contains("the first"));
}

#[test]
fn a_copy_with_a_value_many_times_is_little_work() {
    let keyring = keyring(&[document(1)]);
    let values: Vec<_> = (0..100_000).map(|value| format!("\"value\":\"{value}\"")).collect();
    let copy = format!("{{\"spec\":{{{}}}}}", values.join(","));
    let done = replaced(&sealing(&keyring, &with_copy(plain(), &copy), None, false), COPY);
    assert!(done.len() < copy.len() + 3000, "one sealed text, not 100000");
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(opened(&keyring, done["spec"]["value"].as_str().unwrap(), "db"), "99999");
}

#[test]
fn a_copy_alone_is_sealed_too() {
    // What kubectl writes when an object moves from client-side to server-side apply.
    let keyring = keyring(&[document(1)]);
    let text = sealed(&keyring, &strict("db"), PLAIN);
    let stored = object("db", json!({"name": "DB", "value": text}));
    let copy = json!({"spec": {"value": PLAIN}}).to_string();
    for (may_read, same) in [(true, true), (false, false)] {
        let outcome = sealing(&keyring, &with_copy(stored.clone(), &copy), Some(&stored), may_read);
        assert_eq!(outcome.replace.len(), 1);
        let copy: Value = serde_json::from_str(&replaced(&outcome, COPY)).unwrap();
        let value = copy["spec"]["value"].as_str().unwrap();
        assert_eq!(value == text, same);
        assert_eq!(opened(&keyring, value, "db"), PLAIN);
    }
}

#[test]
fn unchanged_plaintext_keeps_the_stored_text_for_those_who_may_read_it() {
    let old = document(1);
    let text = sealed(&keyring(std::slice::from_ref(&old)), &strict("db"), PLAIN);
    let keyring = keyring(&[in_state(old, State::OpenOnly), document(2)]);
    let stored = object("db", json!({"name": "DB", "value": text}));
    let copied = with_copy(plain(), &json!({"spec": {"value": PLAIN}}).to_string());
    let kept = sealing(&keyring, &copied, Some(&stored), true);
    assert_eq!(replaced(&kept, VALUE), text, "under an older key as well");
    assert_eq!(replaced(&kept, COPY), json!({"spec": {"value": text}}).to_string());
    assert!(kept.unread.is_none());

    let fresh = sealing(&keyring, &plain(), Some(&stored), false);
    assert_ne!(replaced(&fresh, VALUE), text);
    assert_eq!(opened(&keyring, &replaced(&fresh, VALUE), "db"), PLAIN);
    assert_eq!(fresh.unread, Some(Permission::Secret("db".to_owned())));

    let mut changed = plain();
    changed["spec"]["value"] = json!("hunter3");
    let changed = sealing(&keyring, &changed, Some(&stored), true);
    assert_eq!(opened(&keyring, &replaced(&changed, VALUE), "db"), "hunter3");
}

fn handling(text: &str) -> Handling {
    Sealed::parse(text).unwrap().handling()
}

/// Text that may be delivered undoes `delivery: None` when the object is created again.
#[test]
fn what_is_not_delivered_is_sealed_to_be_kept() {
    let keyring = keyring(&[document(1)]);
    for (delivery, expected) in [
        (json!("None"), Handling::Kept),
        (json!("Secret"), Handling::Deliverable),
        (json!(null), Handling::Deliverable),
        (json!(["None"]), Handling::Deliverable),
    ] {
        let mut object = with_copy(plain(), &json!({"spec": {"value": PLAIN}}).to_string());
        object["spec"]["delivery"] = delivery;
        let outcome = sealing(&keyring, &object, None, false);
        let value = replaced(&outcome, VALUE);
        assert_eq!(handling(&value), expected);
        assert_eq!(replaced(&outcome, COPY), json!({"spec": {"value": value}}).to_string());
    }
}

#[test]
fn stored_text_is_kept_only_for_the_delivery_that_it_was_sealed_for() {
    let keyring = keyring(&[document(1)]);
    for (wanted, fitting, other) in
        [("None", Handling::Kept, Handling::Deliverable), ("Secret", Handling::Deliverable, Handling::Kept)]
    {
        let mut object = plain();
        object["spec"]["delivery"] = json!(wanted);
        // Whether the stored object delivers it decides who may read it, and no more.
        for before in ["None", "Secret"] {
            let stored = |handling| {
                let text = sealed_as(handling, &keyring, &strict("db"), PLAIN);
                (text.clone(), json!({"spec": {"value": text, "delivery": before}}))
            };
            let (text, kept) = stored(fitting);
            assert_eq!(replaced(&sealing(&keyring, &object, Some(&kept), true), VALUE), text, "{wanted}");
            let (text, moved) = stored(other);
            let fresh = replaced(&sealing(&keyring, &object, Some(&moved), true), VALUE);
            assert_ne!(fresh, text);
            assert_eq!(handling(&fresh), fitting);
            assert_eq!(opened(&keyring, &fresh, "db"), PLAIN);
        }
    }
}

/// kubectl's copy follows the text that stays in the object, whatever that was sealed for.
#[test]
fn a_copy_alone_is_the_text_that_stays() {
    let keyring = keyring(&[document(1)]);
    let text = sealed(&keyring, &strict("db"), PLAIN);
    let stored = object("db", json!({"name": "DB", "value": text, "delivery": "None"}));
    let copied = with_copy(stored.clone(), &json!({"spec": {"value": PLAIN}}).to_string());
    let outcome = sealing(&keyring, &copied, Some(&stored), true);
    assert_eq!(replaced(&outcome, COPY), json!({"spec": {"value": text}}).to_string());
}

/// For whoever may not read, what comes out for a right guess and for a wrong one must not differ but in the sealed
/// text itself, which differs each time.
#[test]
fn without_the_right_a_guess_shows_nothing() {
    let keyring = keyring(&[document(1)]);
    let text = sealed(&keyring, &strict("db"), "1234");
    let stored = object("db", json!({"name": "DB", "value": text}));
    let guessed = |guess: &str| {
        let object = object("db", json!({"name": "DB", "value": guess}));
        sealing(&keyring, &object, Some(&stored), false)
    };
    let (right, wrong) = (guessed("1234"), guessed("1235"));
    assert_eq!(right.unread, wrong.unread);
    assert_eq!(replaced(&right, VALUE).len(), replaced(&wrong, VALUE).len());
    for outcome in [&right, &wrong, &guessed("1234")] {
        assert_ne!(replaced(outcome, VALUE), text);
    }
    assert_ne!(replaced(&right, VALUE), replaced(&guessed("1234"), VALUE));
}

#[test]
fn stored_text_that_does_not_belong_here_is_not_kept() {
    let keys = [document(1), document(2)];
    let revoked = keyring(&[in_state(keys[0].clone(), State::Revoked), keys[1].clone()]);
    let unknown = keyring(&keys[1..]);
    let all = keyring(&keys);
    let old = keyring(&keys[..1]);
    let elsewhere = Scope::Strict { namespace: "prod".to_owned(), name: "db".to_owned() };
    for (why, keyring, text) in [
        ("another object", &all, sealed(&all, &strict("other"), PLAIN)),
        ("another namespace", &all, sealed(&all, &elsewhere, PLAIN)),
        ("cluster scope, not allowed", &all, sealed(&all, &Scope::Cluster, PLAIN)),
        ("a revoked key", &revoked, sealed(&old, &strict("db"), PLAIN)),
        ("an unknown key", &unknown, sealed(&old, &strict("db"), PLAIN)),
    ] {
        let stored = object("db", json!({"name": "DB", "value": text}));
        let outcome = sealing(keyring, &plain(), Some(&stored), true);
        assert_ne!(replaced(&outcome, VALUE), text, "{why}");
        assert_eq!(opened(keyring, &replaced(&outcome, VALUE), "db"), PLAIN, "{why}");
    }
    let stored = object("db", json!({"value": sealed(&old, &strict("db"), PLAIN)}));
    assert!(find(&plain(), Some(&stored)).unwrap().unwrap().lacks_a_key(&unknown));
    assert!(!find(&plain(), Some(&stored)).unwrap().unwrap().lacks_a_key(&old));
    let anywhere = object("db", json!({"value": sealed(&all, &Scope::Cluster, PLAIN)}));
    let allowed = Findings::of(NAMESPACE, &plain(), Some(&anywhere), true).unwrap().unwrap();
    assert_eq!(replaced(&allowed.seal(&all, true).unwrap(), VALUE), anywhere["spec"]["value"]);
}

#[test]
fn the_right_that_counts_is_that_of_the_stored_object() {
    let keyring = keyring(&[document(1)]);
    let text = sealed(&keyring, &strict("db"), PLAIN);
    let permission =
        |stored: Value, object: &Value| find(object, Some(&stored)).unwrap().unwrap().permission().cloned();
    let moved = object("db", json!({"value": PLAIN, "target": {"name": "mine"}, "delivery": "None"}));
    for wanted in [&plain(), &moved] {
        assert_eq!(permission(object("db", json!({"value": text})), wanted), Some(Permission::Secret("db".to_owned())));
        assert_eq!(
            permission(object("db", json!({"value": text, "target": {"name": "t"}})), wanted),
            Some(Permission::Secret("t".to_owned()))
        );
        assert_eq!(
            permission(object("db", json!({"value": text, "target": {"name": "t"}, "delivery": "None"})), wanted),
            Some(Permission::Value(Handles { object: "db".to_owned(), names: Vec::new(), id: None }))
        );
        assert_eq!(permission(object("db", json!({"generate": {}})), wanted), None);
    }
}

#[test]
fn a_value_that_is_not_delivered_is_read_by_its_id_by_all_its_names_or_as_before() {
    let by = |name| (value::GROUP, value::PLURAL, "", name);
    let formerly = (keys::GROUP, keys::PLURAL, "value", "db");
    for (wanted, status, by_name, id) in [
        ("DB", json!({"name": "DB", "id": "the-id"}), vec![by("DB")], Some("the-id")),
        ("NEW", json!({"name": "DB", "id": "the-id"}), vec![by("NEW"), by("DB")], Some("the-id")),
        ("DB", json!(null), vec![by("DB")], None),
    ] {
        let handles = Handles::of("db", &json!({"spec": {"name": wanted}, "status": status}));
        let mut expected: Vec<_> = id.map(|id| vec![by(id)]).into_iter().collect();
        expected.extend([by_name, vec![formerly]]);
        assert_eq!(Permission::Value(handles).ways(), expected);
    }
}

#[test]
fn what_holds_no_plaintext_is_left_alone() {
    let keyring = keyring(&[document(1)]);
    let text = sealed(&keyring, &strict("db"), PLAIN);
    let sealed_copy = json!({"spec": {"value": text}}).to_string();
    for spec in
        [json!({"value": text}), json!({"value": null}), json!({"generate": {}}), json!({}), json!("x"), json!(null)]
    {
        for copy in [sealed_copy.as_str(), "no json", "{}", r#"{"spec":{"value":null}}"#, r#"{"value":"x"}"#] {
            let object = with_copy(object("db", spec.clone()), copy);
            assert!(find(&object, None).unwrap().is_none(), "{object}");
        }
    }
    for object in [json!(null), json!([]), json!({"spec": []})] {
        assert!(find(&object, None).unwrap().is_none());
    }
}

#[test]
fn refusals_say_the_rule_and_not_the_value() {
    const CANARY: &str = "c4n4ry";
    let long = CANARY.repeat(600);
    for (value, expected) in [
        (json!(""), "spec.value: must not be empty"),
        (json!(long), "spec.value: must have at most 3500 characters"),
        (json!(424_242), "spec.value: must be a quoted string"),
        (json!(true), "spec.value: must be a quoted string"),
        (json!([CANARY]), "spec.value: must be a quoted string"),
        (json!({CANARY: CANARY}), "spec.value: must be a quoted string"),
        (json!(format!("mss1.{CANARY}")), "spec.value: sealed value must be complete"),
    ] {
        let refusal = |object: &Value| match find(object, None) {
            Err(refusal) => Violation::from(refusal).to_string(),
            Ok(_) => panic!("must be refused: {expected}"),
        };
        let text = refusal(&object("db", json!({"value": value})));
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains(CANARY) && !text.contains("424242") && !text.contains("3600"), "{text}");
        if !value.as_str().is_some_and(|text| text.starts_with("mss1.")) {
            let copy = json!({"spec": {"value": value}}).to_string();
            assert!(refusal(&with_copy(object("db", json!({"generate": {}})), &copy)).starts_with(expected));
        }
    }
    let nameless = json!({"metadata": {"generateName": "db-"}, "spec": {"value": PLAIN}});
    assert_eq!(find(&nameless, None).err(), Some(Refusal::NoName));
    assert!(find(&object("db", json!({"value": "ß".repeat(3500)})), None).is_ok());
}
