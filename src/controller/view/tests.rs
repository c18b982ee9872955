//! What is decoded of an object, and what a cache keeps of it.

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource as _, ResourceExt as _};
use managed_secrets_api::{
    keys::{
        ANNO_COMMITMENT, ANNO_DESCRIPTION, ANNO_FOUND_KEY, ANNO_MAC, ANNO_NAME, ANNO_OWNER, ANNO_PREVIOUS,
        ANNO_TEMPLATE, FIELD_MANAGER, KIND, ROLE_TARGET,
    },
    limits::{ANNOTATIONS_BYTES_MAX, METADATA_KEY_NAME_MAX},
    record::{History, KeptVersion},
    types::SourceKind,
};
use serde_json::{Value, json};

use super::{
    watched::{Stub, WatchedObject, WatchedSecret},
    *,
};

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
    let operator = MetadataText { labels: map("managedsecrets.dev/role", "target"), annotations: BTreeMap::new() };
    let shape = |annotations: BTreeMap<String, String>| {
        Shape::of(&operator, &TargetMetadata::new(MetadataText { labels: BTreeMap::new(), annotations }))
    };
    assert_eq!(view.shape, shape(map("mine", "y")), "others' labels and annotations are no part of it");
    assert_ne!(view.shape, shape(map("mine", "z")));
    assert_ne!(view.shape, shape(BTreeMap::new()));
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
fn size(view: &impl std::fmt::Debug) -> usize {
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
    let fields: serde_json::Map<String, Value> =
        (0..4000).map(|n| (format!("f:a{n}{}", &long[..9000]), json!({}))).collect();
    let uids: serde_json::Map<String, Value> =
        (0..4000).map(|n| (format!("k:{{\"uid\":\"u{n}{}\"}}", &long[..9000]), json!({}))).collect();
    let mut huge = metadata();
    huge["labels"] = many("example.com/l", "text").into();
    huge["labels"][LABEL_ROLE] = json!(ROLE_TARGET);
    huge["annotations"] = annotations.into();
    huge["ownerReferences"] = owners.into();
    huge["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {
        "f:data": fields, "f:metadata": {"f:labels": fields, "f:annotations": fields, "f:ownerReferences": uids},
    }}]);
    huge["managedFields"].as_array_mut().unwrap().push(json!({"manager": long, "operation": "Update", "fieldsV1": {}}));
    let view = SecretView { type_: Some(long), ..decoded(huge) }.kept();
    assert!(size(&view) < 16 * 1024, "{} bytes", size(&view));
    assert_eq!(view.clone().kept(), view, "what was kept is kept");
    assert_eq!(view.role(), Some(ROLE_TARGET));
    assert!(view.ours.data.len() > 1 && !view.ours.labels.is_empty(), "that there is more is known");
}

/// What decides is found behind any number of labels, annotations, owners and field managers of others.
#[test]
fn a_live_view_is_bounded_and_has_all_that_decides() {
    let many = |count: usize, last: &str, text: &str| -> serde_json::Map<String, Value> {
        (0..count).map(|n| (format!("a{n}"), json!("x"))).chain([(last.to_owned(), json!(text))]).collect()
    };
    let mut crowded = metadata();
    crowded["labels"] = many(20_000, LABEL_ROLE, ROLE_TARGET).into();
    crowded["labels"]["wanted"] = json!("1");
    crowded["annotations"] = many(20_000, "mine", "y").into();
    crowded["annotations"][ANNO_OWNER] = json!("db");
    let owner = |n: usize, kind: &str| json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": kind, "name": "n".repeat(2000), "uid": format!("u{n}")});
    let owners = (0..4000).map(|n| owner(n, "Other")).chain([owner(4000, KIND)]);
    crowded["ownerReferences"] = owners.collect();
    let managers = (0..300).map(|n| {
        let fields: serde_json::Map<String, Value> = (0..50).map(|m| (format!("f:a{n}-{m}"), json!({}))).collect();
        json!({"manager": FIELD_MANAGER, "operation": "Apply", "subresource": format!("s{n}"),
            "fieldsV1": {"f:data": fields, "f:metadata": {"f:labels": fields}}})
    });
    crowded["managedFields"].as_array_mut().unwrap().extend(managers);
    let view = decoded(crowded);
    assert!(size(&view) < 64 * 1024, "{} bytes", size(&view));
    assert_eq!(view.left_out, LeftOut { labels: true, annotations: true });
    assert_eq!(
        (view.role(), view.annotation(ANNO_OWNER), view.annotation("mine")),
        (Some(ROLE_TARGET), Some("db"), Some("y"))
    );
    assert!(view.owners.iter().any(|owner| owner.uid == "u4000" && owner.is_managed_secret));
    assert_eq!(view.kept().left_out, LeftOut::default(), "a cache holds none of others anyway");

    let few = decoded(metadata());
    assert_eq!(few.left_out, LeftOut::default());
    assert_eq!((few.labels.len(), few.annotations.len()), (2, 3));
}

#[test]
fn a_live_read_has_the_data_that_was_asked_for_and_that_the_operator_owns() {
    // In an order that the API server does not use.
    let mut data: serde_json::Map<String, Value> = (0..20_000).map(|n| (format!("k{n}"), json!(""))).collect();
    data.insert("asked".to_owned(), json!("YQ=="));
    data.insert("value".to_owned(), json!("Yg=="));
    data.insert("empty".to_owned(), json!(null));
    let object =
        json!({"data": data, "metadata": metadata(), "type": "x".repeat(100_000), "immutable": true}).to_string();
    let live = LiveSecret::read(object.as_bytes(), &["asked", "empty", "missing"]).unwrap();
    let found: Vec<(&str, &[u8])> = live.data.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice())).collect();
    assert_eq!(found, [("asked", b"a".as_slice()), ("empty", b""), ("value", b"b")]);
    assert!(live.view.immutable && live.view.type_.is_some_and(|type_| type_.len() < 1000));

    for data in [json!(null), json!({})] {
        let object = json!({"metadata": metadata(), "data": data}).to_string();
        assert!(LiveSecret::read(object.as_bytes(), &["asked"]).unwrap().data.is_empty());
    }
    let object = json!({"metadata": metadata(), "data": {"asked": "no base64!"}}).to_string();
    assert!(LiveSecret::read(object.as_bytes(), &["asked"]).is_err());
}

#[test]
fn the_largest_record_is_kept_whole() {
    let mut largest = metadata();
    let place = format!("adopted:{}:{}:{}", "u".repeat(36), "n".repeat(SECRET_NAME_MAX), "k".repeat(SECRET_KEY_MAX));
    let mut annotations: BTreeMap<&str, String> = ANNOTATIONS.iter().map(|key| (*key, place.clone())).collect();
    annotations.insert(ANNO_DESCRIPTION, "\u{10ffff}".repeat(DESCRIPTION_MAX));
    annotations.insert(ANNO_NAME, "N".repeat(NAME_MAX));
    let kept = |version| KeptVersion {
        version,
        commitment: [7; 32],
        created: "2026-11-23T08:00:00Z".to_owned(),
        source: SourceKind::ValueFrom,
    };
    let history =
        History::new((0..u64::try_from(HISTORY_MAX).unwrap()).map(|number| kept(u64::MAX - number)).collect());
    annotations.insert(ANNO_HISTORY, history.to_string());
    for proof in [ANNO_COMMITMENT, ANNO_MAC] {
        annotations.insert(proof, "m".repeat(56));
    }
    // Of targets only.
    annotations.retain(|key, _| ![ANNO_FOUND_KEY, ANNO_PREVIOUS, ANNO_TEMPLATE].contains(key));
    // Of a target that was adopted with every key of the largest template, and those of the values.
    let found = vec!["k".repeat(SECRET_KEY_MAX); TEMPLATE_KEYS_MAX + 2].join(",");
    let previous = format!("{}:{}", u64::MAX, "k".repeat(SECRET_KEY_MAX));
    let target = [
        (ANNO_OWNER, "n".repeat(SECRET_NAME_MAX)),
        (ANNO_FOUND_KEY, found),
        (ANNO_TEMPLATE, "0".repeat(64)),
        (ANNO_PREVIOUS, previous),
    ];
    for annotations in [annotations, BTreeMap::from(target)] {
        largest["annotations"] = json!(annotations);
        let (whole, kept) = (decoded(largest.clone()), decoded(largest.clone()).kept());
        assert_eq!(kept.annotations, whole.annotations);
    }
}

fn managed_secret(spec: &Value, status: &Value) -> Value {
    json!({"metadata": metadata(), "spec": spec, "status": status})
}

fn read(object: &Value) -> Own {
    Own::new(serde_json::from_value(object.clone()).unwrap())
}

/// The largest spec that the API allows, but for the labels and annotations of its target.
fn largest_spec() -> Value {
    let name = "n".repeat(SECRET_NAME_MAX);
    json!({
        "name": "N".repeat(NAME_MAX), "description": "\u{10ffff}".repeat(DESCRIPTION_MAX),
        "valueFrom": {"secretKeyRef": {"name": "s".repeat(SECRET_NAME_MAX), "key": "k".repeat(SECRET_KEY_MAX)}},
        "target": {
            "name": name, "key": "k".repeat(SECRET_KEY_MAX),
            "type": format!("{name}/{}", "t".repeat(METADATA_KEY_NAME_MAX)), "adoption": "IfUnowned",
            "restart": vec![json!({"kind": "StatefulSet", "name": name}); RESTARTS_MAX],
        },
        "expires": "2027-03-01T00:00:00Z", "expiryWarning": "87599h59m60s",
    })
}

fn largest_status() -> Value {
    let (uid, name) = ("u".repeat(36), "n".repeat(SECRET_NAME_MAX));
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": "False", "reason": "TargetNotOwned", "lastTransitionTime": "2026-11-23T08:00:00Z",
            "message": "m".repeat(STATUS_MESSAGE_BYTES_MAX),
        })
    };
    json!({
        "id": uid, "name": "N".repeat(NAME_MAX), "version": 1, "observedGeneration": 1,
        "record": {"name": name, "uid": uid, "resourceVersion": "1"},
        "target": {"name": name, "key": "k".repeat(SECRET_KEY_MAX), "uid": uid, "resourceVersion": "1"},
        "conditions": CONDITIONS.map(condition),
    })
}

#[test]
fn a_cache_keeps_every_field_of_the_largest_spec_but_the_text_of_its_targets_metadata() {
    let text: BTreeMap<String, String> =
        (0..TARGET_METADATA_MAX).map(|n| (format!("a{n}"), "x".repeat(ANNOTATIONS_BYTES_MAX / 70))).collect();
    let mut spec = largest_spec();
    spec["target"]["annotations"] = json!(text);
    let own = read(&managed_secret(&spec, &largest_status()));
    assert_eq!(own.violation, None);
    assert_eq!(own.target_metadata.text().unwrap().annotations, text);
    let kept = own.clone().kept();
    assert_eq!(kept, Own { target_metadata: own.target_metadata.clone().kept(), ..own });
    assert_eq!(kept.target_metadata.text(), None);
    assert!(size(&kept) + shape::TEXT_KEPT_BYTES < 20 * 1024, "{} bytes", size(&kept));
    let watched: WatchedObject = serde_json::from_value(managed_secret(&spec, &largest_status())).unwrap();
    assert_eq!(watched.kept, Some(kept), "nothing else is decoded by a watch");
}

/// A CRD of another version may have no limits, and others may have written the status.
#[test]
fn a_cache_keeps_little_of_an_object_that_the_api_does_not_allow() {
    let long = "x".repeat(200_000);
    let many: serde_json::Map<String, Value> = (0..4000).map(|n| (format!("{n}{long}"), json!(long))).take(5).collect();
    let mut spec = largest_spec();
    for pointer in [
        "/name",
        "/description",
        "/valueFrom/secretKeyRef/name",
        "/valueFrom/secretKeyRef/key",
        "/expires",
        "/expiryWarning",
    ] {
        *spec.pointer_mut(pointer).unwrap() = json!(long);
    }
    for field in ["name", "key", "type"] {
        spec["target"][field] = json!(long);
    }
    let odd = [spec.clone(), {
        let mut odd = largest_spec();
        odd["target"]["labels"] = json!(many);
        odd
    }];
    let mut status = largest_status();
    let of_others = (0..4000).map(|n| {
        json!({
            "type": format!("Other{n}"), "status": "True", "reason": long[..1000], "message": long[..9000],
            "lastTransitionTime": "2026-11-23T08:00:00Z",
        })
    });
    status["conditions"][0]["message"] = json!(long);
    status["conditions"].as_array_mut().unwrap().extend(of_others);
    for spec in odd {
        let live = read(&managed_secret(&spec, &status));
        let own = live.clone().kept();
        assert!(own.violation.is_some() && own.violation == live.violation, "a condition says the same of both");
        assert!(size(&own) < 24 * 1024, "{} bytes", size(&own));
        assert_eq!(own.status.conditions.as_ref().unwrap().len(), CONDITIONS.len());
        assert_eq!(own.clone().kept(), own, "what was kept is kept");
    }
}

/// What is cut is equal to nothing that the API allows.
#[test]
fn a_text_that_is_cut_is_still_too_long() {
    let cut = |text: &str| {
        let mut text = text.to_owned();
        clip(&mut text, 4);
        text
    };
    assert_eq!(["abcd", "abcde", "abcdef", "ab€€"].map(cut), ["abcd", "abcde", "abcde", "ab€"]);
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
