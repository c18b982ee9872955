//! What is decoded of an object, and what a cache keeps of it.

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use super::{
    watched::{Stub, WatchedObject, WatchedSecret},
    *,
};
use crate::api::keys::{ANNO_DESCRIPTION, ANNO_FOUND_KEY, ANNO_NAME, ANNO_OWNER, FIELD_MANAGER, ROLE_TARGET};

fn decoded(metadata: Value) -> SecretView {
    serde_json::from_value(metadata).unwrap()
}

fn metadata() -> Value {
    json!({
        "name": "db", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
        "labels": {"managedsecrets.dev/role": "target", "team": "a"},
        "annotations": {"managedsecrets.dev/owner": "db", "big": "x", "mine": "y"},
        "ownerReferences": [{"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "name": "db", "uid": "o1"}],
        "managedFields": [
            {"manager": "managed-secrets", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": "2026-11-23T08:00:00Z", "fieldsV1": {
                "f:type": {}, "f:data": {"f:value": {}},
                "f:metadata": {"f:labels": {"f:managedsecrets.dev/role": {}}, "f:annotations": {"f:mine": {}},
                    "f:ownerReferences": {"k:{\"uid\":\"o1\"}": {}}}}},
            {"manager": "managed-secrets", "operation": "Update", "fieldsV1": {"f:data": {"f:stray": {}}}},
            {"manager": "early", "operation": "Update", "time": "2026-11-23T07:00:00Z", "fieldsV1": {}},
            {"manager": "late", "operation": "Update", "time": "2026-11-23T09:00:00Z", "fieldsV1": {"f:data": {"f:other": {}}}}
        ]
    })
}

#[test]
fn reads_what_our_manager_owns_and_who_wrote_last() {
    let view = decoded(metadata());
    assert!(view.ours.type_);
    assert_eq!(view.ours.data, BTreeSet::from(["value".to_owned()]));
    assert_eq!(view.ours.owner_uids, BTreeSet::from(["o1".to_owned()]));
    assert_eq!(view.other_manager.as_deref(), Some("late"));
    assert!(view.is_dying("db", "o2") && !view.is_dying("db", "o1") && !view.is_dying("other", "o2"));
    let map = |key: &str, text: &str| BTreeMap::from([(key.to_owned(), text.to_owned())]);
    let role = map("managedsecrets.dev/role", "target");
    assert_eq!(view.shape, Shape::of(&role, &map("mine", "y")), "others' labels and annotations are no part of it");
    assert_ne!(view.shape, Shape::of(&role, &map("mine", "z")));
    assert_ne!(view.shape, Shape::of(&role, &BTreeMap::new()));
    let kept = view.kept();
    assert_eq!(kept.annotations.keys().collect::<Vec<_>>(), [ANNO_OWNER]);
    assert_eq!(kept.labels.keys().collect::<Vec<_>>(), [LABEL_ROLE]);
    assert_eq!(kept.clone().kept(), kept, "what was kept is kept");
}

#[test]
fn field_sets_of_another_form_are_skipped() {
    for fields in
        [json!(null), json!(5), json!("x"), json!([1]), json!({"f:data": [1], "f:metadata": {"f:labels": true}})]
    {
        let mut odd = metadata();
        odd["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}]);
        assert_eq!(decoded(odd).ours, OwnedFields::default(), "{fields}");
    }
    for none in [json!(null), json!([])] {
        let mut odd = metadata();
        odd["managedFields"] = none;
        assert_eq!(decoded(odd).ours, OwnedFields::default());
    }
}

/// About how many bytes a view takes: what it prints is longer than what it holds.
fn size(view: &SecretView) -> usize {
    format!("{view:?}").len()
}

/// As much as one object can hold of each, under our manager's name.
#[test]
fn a_cache_keeps_little_of_any_secret() {
    let long = "x".repeat(200_000);
    let many = |prefix: &str, text: &str| -> serde_json::Map<String, Value> {
        (0..4000).map(|n| (format!("{prefix}{n}"), json!(text))).collect()
    };
    let mut annotations = many("example.com/a", "text");
    let mut more = many("managedsecrets.dev/a", "text");
    annotations.append(&mut more);
    for key in ANNOTATIONS {
        annotations.insert(key.to_owned(), json!(long));
    }
    let owners: Vec<Value> = (0..4000)
        .map(|n| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": long[..9000], "uid": format!("u{n}")}))
        .collect();
    let fields: serde_json::Map<String, Value> = (0..4000).map(|n| (format!("f:a{n}"), json!({}))).collect();
    let uids: serde_json::Map<String, Value> =
        (0..4000).map(|n| (format!("k:{{\"uid\":\"u{n}\"}}"), json!({}))).collect();
    let mut huge = metadata();
    huge["labels"] = many("example.com/l", "text").into();
    huge["labels"][LABEL_ROLE] = json!(ROLE_TARGET);
    huge["annotations"] = annotations.into();
    huge["ownerReferences"] = owners.into();
    huge["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {
        "f:data": fields, "f:metadata": {"f:labels": fields, "f:annotations": fields, "f:ownerReferences": uids},
    }}]);
    let view = decoded(huge).kept();
    assert!(size(&view) < 16 * 1024, "{} bytes", size(&view));
    assert_eq!(view.role(), Some(ROLE_TARGET));
    assert!(view.ours.data.len() > 1 && !view.ours.labels.is_empty(), "that there is more is known");
}

#[test]
fn the_largest_record_is_kept_whole() {
    use crate::api::limits::{DESCRIPTION_MAX, NAME_MAX, SECRET_KEY_MAX, SECRET_NAME_MAX};
    let mut largest = metadata();
    let place = format!("adopted:{}:{}:{}", "u".repeat(36), "n".repeat(SECRET_NAME_MAX), "k".repeat(SECRET_KEY_MAX));
    let mut annotations: BTreeMap<&str, String> = ANNOTATIONS.iter().map(|key| (*key, place.clone())).collect();
    annotations.insert(ANNO_DESCRIPTION, "\u{10ffff}".repeat(DESCRIPTION_MAX));
    annotations.insert(ANNO_NAME, "N".repeat(NAME_MAX));
    // Of an adopted target only.
    annotations.remove(ANNO_FOUND_KEY);
    largest["annotations"] = json!(annotations);
    let (whole, kept) = (decoded(largest.clone()), decoded(largest).kept());
    assert_eq!(kept.annotations, whole.annotations);
}

#[test]
fn a_managed_secret_that_cannot_be_read_is_nothing_with_a_name() {
    let object = |spec: Value| -> WatchedObject {
        serde_json::from_value(json!({"metadata": metadata(), "spec": spec, "status": null})).unwrap()
    };
    let good = object(json!({"name": "DB", "generate": {}}));
    assert_eq!((good.name_any(), good.resource_version()), ("db".to_owned(), Some("7".to_owned())));
    assert_eq!(good.kept.as_ref().unwrap().spec.name, "DB");
    assert!(good.meta().annotations.is_none() && good.meta().managed_fields.is_none() && good.meta().labels.is_none());
    for spec in [json!({"name": 5}), json!(null), json!("text")] {
        let bad = object(spec);
        assert!(bad.kept.is_none() && bad.name_any() == "db");
    }
}

#[test]
fn of_other_objects_only_the_version_is_decoded() {
    let object = json!({"kind": "PartialObjectMetadata", "metadata": metadata()});
    let stub: Stub<Secret> = serde_json::from_value(object.clone()).unwrap();
    assert_eq!((stub.uid().as_deref(), stub.resource_version().as_deref()), (Some("u1"), Some("7")));
    assert!(stub.meta().annotations.is_none());
    let secret: WatchedSecret = serde_json::from_value(object).unwrap();
    assert_eq!(secret.namespace().as_deref(), Some("shop"));
    assert_eq!(secret.kept.role(), Some(ROLE_TARGET));
}
