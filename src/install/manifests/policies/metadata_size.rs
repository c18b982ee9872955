//! Bounds the metadata of ManagedSecrets.
//!
//! Kubernetes bounds annotations only, at 256 KiB; labels, owner references and the notes of field managers can fill an
//! object up to 1.5 MiB, and a user who may edit ManagedSecrets could fill etcd and every program that lists them. The
//! operator survives such objects by itself: this keeps them out.
//!
//! The names of fields in `managedFields` cannot be measured: they are nested to any depth, and CEL does not recurse.
//!
//! An object that is too large already can still be written, as long as it does not grow further. Status is no business
//! of this policy.

use managed_secrets_api::limits::{
    OBJECT_ANNOTATIONS_BYTES_MAX, OBJECT_ANNOTATIONS_MAX, OBJECT_LABELS_MAX, OBJECT_MANAGERS_MAX,
    OBJECT_REFERENCES_BYTES_MAX, OBJECT_REFERENCES_MAX,
};

use super::{Options, Policy, Resource, Validation, concerned, keys};

const FALLBACK: &str = "the metadata of a ManagedSecret is too large";

pub(super) fn policy(options: &Options) -> Policy {
    let [labels, annotations] = ["labels", "annotations"].map(|field| map("object", field));
    let [old_labels, old_annotations] = ["labels", "annotations"].map(|field| map("oldObject", field));
    let lists = ["ownerReferences", "finalizers", "managedFields"].map(|field| {
        let most = if field == "managedFields" { OBJECT_MANAGERS_MAX } else { OBJECT_REFERENCES_MAX };
        let count = |object: &str| format!("({object}.metadata.?{field}.orValue([])).size()");
        bound(field, "entries", most, &count("object"), &count("oldObject"))
    });
    let size = |map: &str| format!("{map}.map(key, bytes(key).size() + bytes({map}[key]).size()).sum()");
    let count = |map: &str| format!("{map}.size()");
    let mut validations = vec![
        bound("labels", "entries", OBJECT_LABELS_MAX, &count(&labels), &count(&old_labels)),
        bound("annotations", "entries", OBJECT_ANNOTATIONS_MAX, &count(&annotations), &count(&old_annotations)),
        bound(
            "annotations",
            "bytes of keys and values",
            OBJECT_ANNOTATIONS_BYTES_MAX,
            &size(&annotations),
            &size(&old_annotations),
        ),
    ];
    validations.extend(lists);
    validations.push(references_size());
    Policy {
        name: keys::POLICY_METADATA_SIZE,
        resource: Resource { group: keys::GROUP, name: keys::PLURAL, operations: &["CREATE", "UPDATE"] },
        namespaces: concerned(options),
        conditions: vec![("changes", "oldObject == null || object.metadata != oldObject.metadata".to_owned())],
        variables: Vec::new(),
        validations,
    }
}

/// Bounds the texts of owner references, which Kubernetes does not. Where there are too many, their number decides: an
/// expression over thousands of them would cost more than the API server allows, and so refuse the object that shrinks.
fn references_size() -> Validation {
    let (field, most) = ("ownerReferences", OBJECT_REFERENCES_BYTES_MAX);
    let references = |object: &str| format!("({object}.metadata.?{field}.orValue([]))");
    let too_many = |object: &str| format!("{}.size() > {OBJECT_REFERENCES_MAX}", references(object));
    let size = |object: &str| {
        let texts = "[owner.apiVersion, owner.kind, owner.name, owner.uid]";
        format!("{}.map(owner, {texts}.map(text, bytes(text).size()).sum()).sum()", references(object))
    };
    let (now, before) = (size("object"), size("oldObject"));
    let shrinks = format!("oldObject != null && ({} || {now} <= {before})", too_many("oldObject"));
    Validation {
        admits: format!("{} || {now} <= {most}\n|| {shrinks}", too_many("object")),
        message: super::literal(&format!("metadata.{field} must have at most {most} bytes of text")),
        fallback: FALLBACK,
    }
}

/// CEL: a map of an object's metadata, empty where it is absent.
fn map(object: &str, field: &str) -> String {
    format!("({object}.metadata.?{field}.orValue({{}}))")
}

/// Admits where `now` is at most `most`, or no more than it was.
fn bound(field: &str, unit: &str, most: usize, now: &str, before: &str) -> Validation {
    let message = format!("metadata.{field} must have at most {most} {unit}");
    Validation {
        admits: format!("{now} <= {most}\n|| oldObject != null && {now} <= {before}"),
        message: super::literal(&message),
        fallback: FALLBACK,
    }
}
