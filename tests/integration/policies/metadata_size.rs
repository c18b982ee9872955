//! The metadata of ManagedSecrets is bounded. That objects which are too large already can shrink is shown where some are
//! made, in `memory`.
#![allow(clippy::unwrap_used, reason = "tests")]

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use managed_secrets::api::limits::{
    OBJECT_ANNOTATIONS_BYTES_MAX, OBJECT_ANNOTATIONS_MAX, OBJECT_LABELS_MAX, OBJECT_MANAGERS_MAX, OBJECT_REFERENCES_MAX,
};
use managed_secrets::api::{ManagedSecret, keys};
use serde_json::{Map, Value, json};

use crate::harness::shared::TestNamespace;
use crate::integration::installation::{admin, control_plane, dry_run, expect, object};

fn managed_secret(mut metadata: Value) -> ManagedSecret {
    metadata["name"] = json!("db");
    let api_version = format!("{}/{}", keys::GROUP, keys::VERSION);
    let spec = json!({"name": "DB", "generate": {}});
    object(json!({"apiVersion": api_version, "kind": keys::KIND, "metadata": metadata, "spec": spec}))
}

fn entries(count: usize) -> Value {
    (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<Map<_, _>>().into()
}

#[tokio::test]
async fn metadata_of_an_object_is_bounded() {
    let namespace = TestNamespace::create(control_plane().await, "metadata").await.unwrap();
    let objects = Api::<ManagedSecret>::namespaced(admin().await, &namespace.name);
    let owners = |count: usize| -> Value {
        (0..count)
            .map(|n| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": format!("u{n}")}))
            .collect()
    };
    let finalizers = |count: usize| -> Value { (0..count).map(|n| json!(format!("example.com/f{n}"))).collect() };
    // Of characters that have two bytes.
    let text = |bytes: usize| json!({"a": "é".repeat((bytes - 1) / 2) + &"x".repeat((bytes - 1) % 2)});
    for (field, most, make) in [
        ("labels", OBJECT_LABELS_MAX, &entries as &dyn Fn(usize) -> Value),
        ("annotations", OBJECT_ANNOTATIONS_MAX, &entries),
        ("annotations", OBJECT_ANNOTATIONS_BYTES_MAX, &text),
        ("ownerReferences", OBJECT_REFERENCES_MAX, &owners),
        ("finalizers", OBJECT_REFERENCES_MAX, &finalizers),
    ] {
        let refusal = format!("metadata.{field} must have at most {most} ");
        for (count, refused) in [(most, None), (most + 1, Some(refusal.as_str()))] {
            let large = managed_secret(json!({field: make(count)}));
            expect(&format!("{field}: {count}"), objects.create(&dry_run(), &large).await, refused);
        }
    }
    let plain = objects.create(&PostParams::default(), &managed_secret(json!({}))).await.unwrap();
    let change = Patch::Merge(json!({"metadata": {"labels": entries(OBJECT_LABELS_MAX + 1)}}));
    let params = PatchParams::default();
    expect(
        "an update",
        objects.patch(&plain.name_any(), &params, &change).await,
        Some("metadata.labels must have at most"),
    );
}

#[tokio::test]
async fn field_managers_of_an_object_are_bounded() {
    let namespace = TestNamespace::create(control_plane().await, "managers").await.unwrap();
    let objects = Api::<ManagedSecret>::namespaced(admin().await, &namespace.name);
    let apply = async |manager: usize| {
        let object = managed_secret(json!({}));
        objects.patch("db", &PatchParams::apply(&format!("manager-{manager}")), &Patch::Apply(&object)).await
    };
    for manager in 0..OBJECT_MANAGERS_MAX {
        expect(&format!("manager {manager}"), apply(manager).await, None);
    }
    let refused = format!("metadata.managedFields must have at most {OBJECT_MANAGERS_MAX} entries");
    expect("one more", apply(OBJECT_MANAGERS_MAX).await, Some(&refused));
    expect("one of them", apply(0).await, None);
}
