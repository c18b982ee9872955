//! The metadata of ManagedSecrets is bounded. That objects which are too large already can shrink is shown where some are
//! made, in `memory`.
#![allow(clippy::unwrap_used, reason = "tests")]

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use managed_secrets_api::limits::{
    OBJECT_ANNOTATIONS_BYTES_MAX, OBJECT_ANNOTATIONS_MAX, OBJECT_LABELS_MAX, OBJECT_MANAGERS_MAX,
    OBJECT_REFERENCES_BYTES_MAX, OBJECT_REFERENCES_MAX,
};
use managed_secrets_api::{ManagedSecret, keys};
use serde_json::{Map, Value, json};
use testkit::shared::TestNamespace;

use crate::integration::admission::{self, Premises};
use crate::integration::installation::{admin, control_plane, dry_run, editor, expect, object};
use crate::integration::objects::Site;

fn managed_secret(mut metadata: Value) -> ManagedSecret {
    metadata["name"] = json!("db");
    let api_version = format!("{}/{}", keys::GROUP, keys::VERSION);
    let spec = json!({"name": "DB", "generate": {}});
    object(json!({"apiVersion": api_version, "kind": keys::KIND, "metadata": metadata, "spec": spec}))
}

fn entries(count: usize) -> Value {
    (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<Map<_, _>>().into()
}

/// A text of this many bytes, of characters that have two.
fn text_of(bytes: usize) -> String {
    "é".repeat(bytes / 2) + &"x".repeat(bytes % 2)
}

/// An owner reference with this text in one of its fields; the others have 15 bytes less the field's own.
fn owner(field: &str, text: &str) -> Value {
    let mut owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "ab", "uid": "u1"});
    owner[field] = json!(text);
    owner
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
    let text = |bytes: usize| json!({"a": text_of(bytes - 1)});
    for (field, most, make) in [
        ("labels", OBJECT_LABELS_MAX, &entries as &dyn Fn(usize) -> Value),
        ("annotations", OBJECT_ANNOTATIONS_MAX, &entries),
        ("annotations", OBJECT_ANNOTATIONS_BYTES_MAX, &text),
        ("ownerReferences", OBJECT_REFERENCES_MAX, &owners),
        ("ownerReferences", OBJECT_REFERENCES_BYTES_MAX, &|bytes| json!([owner("name", &text_of(bytes - 13))])),
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

/// Whatever text of the metadata an editor fills, by Kubernetes' own rules or by the policy's, it stays small. The names
/// of fields in `managedFields` are the exception: CEL cannot walk through them.
#[tokio::test]
async fn no_text_of_metadata_grows_without_bound() {
    const LARGE: usize = OBJECT_REFERENCES_BYTES_MAX + 1;
    let namespace = TestNamespace::create(control_plane().await, "texts").await.unwrap();
    let objects = Api::<ManagedSecret>::namespaced(editor(&namespace.name, &[]).await, &namespace.name);
    let text = "x".repeat(LARGE);
    let manager = |field: &str, value: Value| {
        let mut manager = json!({
            "manager": "m", "operation": "Update", "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION),
            "time": "2026-11-27T08:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:name": {}}},
        });
        manager[field] = value;
        json!([manager])
    };
    let mut cases = vec![
        ("selfLink", json!(text)),
        ("generateName", json!(text)),
        ("uid", json!(text)),
        ("finalizers", json!([format!("example.com/{text}")])),
        ("finalizers", json!([format!("{text}/x")])),
        ("labels", json!({text.as_str(): "v"})),
        ("labels", json!({"k": text})),
        ("annotations", json!({text.as_str(): "v"})),
        ("managedFields", manager("manager", json!(text))),
        ("managedFields", manager("subresource", json!(text))),
        ("managedFields", manager("apiVersion", json!(text))),
        ("managedFields", manager("fieldsType", json!(text))),
    ];
    cases.extend(["apiVersion", "kind", "name", "uid"].map(|field| ("ownerReferences", json!([owner(field, &text)]))));
    cases.push((
        "ownerReferences",
        ["apiVersion", "kind", "name", "uid"].map(|field| owner(field, &text[..LARGE / 4])).into_iter().collect(),
    ));
    for (field, value) in cases {
        let large = managed_secret(json!({field: value}));
        let shown: String = value.to_string().chars().take(120).collect();
        // What the API server drops is as good as refused.
        if let Ok(created) = objects.create(&dry_run(), &large).await {
            let stored = serde_json::to_string(&created.metadata).unwrap().len();
            assert!(stored < 4096, "{field}: {shown}: {stored} bytes");
        }
    }
}

/// References that are too large already can be made fewer, or smaller, and not larger.
#[tokio::test]
async fn owner_references_that_are_too_large_can_shrink() {
    let site = Site::on(admission::control_plane().await, "references").await;
    // Of a kind that does not exist, so that the garbage collector waits.
    let references = |count: usize, name: usize| -> Value {
        let name = "x".repeat(name);
        (0..count)
            .map(|n| json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": name, "uid": format!("u{n}")}))
            .collect()
    };
    let made = [("many", references(9_000, 4)), ("large", references(2, 100_000))];
    for (name, references) in made {
        let mut object = managed_secret(json!({"ownerReferences": references}));
        object.metadata.name = Some(name.to_owned());
        site.objects().create(&PostParams::default(), &object).await.unwrap();
    }
    // The policies come after them.
    let premises = Premises::around(site).await;
    let change = async |name: &str, metadata: Value, refused: Option<&str>| {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({"metadata": metadata}));
        expect(name, premises.site.objects().patch(name, &params, &patch).await, refused);
    };
    let set = |references: Value| json!({"ownerReferences": references});
    change("many", json!({"labels": {"a": "b"}}), None).await;
    change("many", set(references(8_999, 4)), None).await;
    change("many", set(references(1, 4)), None).await;
    change("many", set(references(9_001, 4)), Some("must have at most 32 entries")).await;
    change("large", json!({"labels": {"a": "b"}}), None).await;
    change("large", set(references(2, 90_000)), None).await;
    change("large", set(references(1, 4)), None).await;
    let refusal = format!("metadata.ownerReferences must have at most {OBJECT_REFERENCES_BYTES_MAX} bytes of text");
    change("large", set(references(2, 100_001)), Some(&refusal)).await;
    change("large", set(references(3, 70_000)), Some(&refusal)).await;
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
