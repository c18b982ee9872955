//! Keeps the stored `managedFields` if an apply changes nothing, so that the API server writes nothing.
//!
//! The API server sees plaintext where a sealed value is stored, records in `managedFields` that the caller changed the
//! field now, and then calls the webhook. After the webhook only that entry differs. The API server ignores an entry that
//! differs only in its date. But a later date also moves the entry behind others, and then the API server writes the
//! object (kube-apiserver 1.36, which sorts `managedFields` by operation and date). So if nothing else has changed, and the
//! entries are the same in another order, the webhook returns the stored entries.

use serde_json::Value;

/// JSON pointer to the entries that say who manages which field.
pub(super) const MANAGED_FIELDS: &str = "/metadata/managedFields";
/// The parts that users and controllers write, besides status.
const CONTENT: [&str; 5] =
    ["/spec", "/metadata/labels", "/metadata/annotations", "/metadata/ownerReferences", "/metadata/finalizers"];

/// Returns the stored `managedFields` if `object` (after `replace`) changes only their order and dates.
pub(super) fn managed_fields(object: &Value, stored: &Value, replace: &[(&'static str, Value)]) -> Option<Value> {
    let (present, before) = (object.pointer(MANAGED_FIELDS)?, stored.pointer(MANAGED_FIELDS)?);
    if present == before || undated(present)? != undated(before)? {
        return None;
    }
    let is_same = |pointer: &&str| {
        let (present, before) = (object.pointer(pointer), stored.pointer(pointer));
        match (present, before) {
            (Some(present), Some(before)) => is_same(present, before, pointer, replace),
            (None, None) => true,
            _ => false,
        }
    };
    CONTENT.iter().all(is_same).then(|| before.clone())
}

/// Whether a part of the object equals the stored one, after the replacements. It makes no copy: an object can be large.
fn is_same(present: &Value, before: &Value, at: &str, replace: &[(&'static str, Value)]) -> bool {
    if let Some((_, value)) = replace.iter().find(|(pointer, _)| *pointer == at) {
        return value == before;
    }
    let below = |pointer: &str| pointer.strip_prefix(at).is_some_and(|rest| rest.starts_with('/'));
    match (present, before) {
        (Value::Object(present), Value::Object(before)) if replace.iter().any(|(pointer, _)| below(pointer)) => {
            present.len() == before.len()
                && present.iter().all(|(key, value)| {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    before.get(key).is_some_and(|before| is_same(value, before, &at, replace))
                })
        }
        _ => present == before,
    }
}

/// Returns the entries without their dates, sorted.
fn undated(entries: &Value) -> Option<Vec<String>> {
    let undated = |entry: &Value| {
        let mut entry = entry.clone();
        entry.as_object_mut()?.remove("time");
        Some(entry.to_string())
    };
    let mut entries: Vec<String> = entries.as_array()?.iter().map(undated).collect::<Option<_>>()?;
    entries.sort_unstable();
    Some(entries)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &str, entries: &[(&str, u8)]) -> Value {
        let entry = |(manager, second): &(&str, u8)| json!({"manager": manager, "time": format!("T{second}")});
        json!({
            "metadata": {"labels": {"a": "b"}, "managedFields": entries.iter().map(entry).collect::<Vec<_>>()},
            "spec": {"value": value},
        })
    }

    fn given_back(object: &Value, stored: &Value) -> Option<Value> {
        managed_fields(object, stored, &[("/spec/value", json!("sealed"))])
    }

    #[test]
    fn order_and_dates_are_given_back_where_nothing_else_moved() {
        let stored = object("sealed", &[("apply", 1), ("create", 1)]);
        let again = object("plain", &[("create", 1), ("apply", 2)]);
        assert_eq!(given_back(&again, &stored).as_ref(), stored.pointer(MANAGED_FIELDS));
        assert_eq!(given_back(&object("plain", &[("apply", 1), ("create", 1)]), &stored), None, "nothing to give back");
    }

    #[test]
    fn whatever_else_moves_keeps_its_note() {
        let stored = object("sealed", &[("apply", 1), ("create", 1)]);
        let again = object("plain", &[("create", 1), ("apply", 2)]);
        assert_eq!(given_back(&object("plain", &[("create", 1), ("other", 2)]), &stored), None, "another manager");
        assert_eq!(given_back(&object("plain", &[("apply", 2)]), &stored), None, "one less");
        let changed = |pointer: &str, value: Value| {
            let mut object = again.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            object
        };
        assert_eq!(given_back(&changed("/metadata/labels/a", json!("c")), &stored), None, "a label");
        assert_eq!(given_back(&changed("/spec", json!({"value": "plain", "name": "x"})), &stored), None, "the spec");
        let mut more = again.clone();
        more["spec"]["name"] = json!("x");
        assert_eq!(given_back(&more, &stored), None, "a new field beside the value");
        more["spec"].as_object_mut().unwrap().remove("value");
        assert_eq!(given_back(&more, &stored), None, "a field in its place");
        let mut copied = [stored.clone(), again.clone()];
        for (object, copy) in copied.iter_mut().zip(["sealed", "plain"]) {
            object["metadata"]["annotations"] = json!({"a/b~c": copy, "d": "e"});
        }
        let [stored_copy, again_copy] = &copied;
        let replace = [("/spec/value", json!("sealed")), ("/metadata/annotations/a~1b~0c", json!("sealed"))];
        assert!(managed_fields(again_copy, stored_copy, &replace).is_some());
        assert_eq!(managed_fields(again_copy, stored_copy, &replace[..1]), None, "a copy that stays in clear");
        let with_another_value = managed_fields(&again, &stored, &[("/spec/value", json!("other"))]);
        assert_eq!(with_another_value, None, "the value");
    }
}
