//! Pieces of the CRD's schema that neither a derive nor a number beside a field can say.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::limits::{
    ANNOTATION_VALUE_MAX, CONDITION_MESSAGE_MAX, CONDITION_REASON_MAX, CONDITION_TYPE_MAX, CONDITIONS_MAX,
    LABEL_VALUE_MAX, SEALED_MAX, TEMPLATE_TEXT_MAX,
};

/// `spec.value`: a schema under which no refusal echoes what was sent, whatever its JSON type.
///
/// * Without `type`, a server-side apply converts nothing; with `type: string` it echoes an unquoted number.
/// * A list or an object in its place is refused by its type's name alone. Were its fields unknown to the schema, strict
///   decoding would come first and echo their names, and in a patch the whole object.
///
/// The CEL rule refuses all but sealed text.
pub(super) fn sealed_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": SEALED_MAX,
        "additionalProperties": { "x-kubernetes-preserve-unknown-fields": true },
        "items": { "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// `target.labels`, without the limit on their number.
pub(super) fn target_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": LABEL_VALUE_MAX } })
}

/// `target.annotations`, without the limit on their number.
pub(super) fn target_annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": ANNOTATION_VALUE_MAX } })
}

/// `target.template`, without the limit on their number.
pub(super) fn target_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": TEMPLATE_TEXT_MAX } })
}

/// `status.conditions` with the limits of metav1.Condition, which its type in k8s-openapi does not carry.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": CONDITIONS_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the object's state.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "`Ready`, `Reconciling`, `Stalled`, `Expiring` or `RestartBlocked`.",
                    "type": "string",
                    "maxLength": CONDITION_TYPE_MAX,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {
                    "description": "`True`, `False` or `Unknown`.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "The generation that the condition describes.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "When `status` last changed.",
                    "type": "string",
                    "format": "date-time",
                },
                "reason": {
                    "description": "Why, in one word; docs/reasons.md explains each.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": CONDITION_REASON_MAX,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "Why, and what to do.",
                    "type": "string",
                    "maxLength": CONDITION_MESSAGE_MAX,
                },
            },
        },
    })
}
