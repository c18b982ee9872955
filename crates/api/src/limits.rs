//! Every limit of the API, once. Characters are Unicode scalar values, as OpenAPI's `maxLength` counts them.

pub use managed_secrets_crypto::limits::{
    AEAD_TAG_BYTES, BUCKET_MAX, BUCKET_MIN, NAMESPACE_MAX, SEALED_ENC_BYTES, SEALED_KEPT_BIT, SEALED_KEY_ID_BYTES,
    SEALED_MAX, SEALED_MIN, SEALED_PREFIX, SEALED_SUITE, SECRET_NAME_MAX, VALUE_MAX, VALUE_MIN,
};

/// Longest `spec.name`, in characters.
pub const NAME_MAX: usize = 50;
/// Characters of `spec.name` besides ASCII letters and digits.
pub const NAME_SYMBOLS: &str = "_+=-@#$";
/// Longest `spec.description`, in characters.
pub const DESCRIPTION_MAX: usize = 200;
/// Shortest generated value, in characters.
pub const GENERATE_MIN: i32 = 1;
/// Longest generated value, in characters.
pub const GENERATE_MAX: i32 = 3500;
/// Length of a generated value when none is given, in characters.
pub const GENERATE_DEFAULT: i32 = 32;
/// Characters of a date such as `spec.expires`: RFC 3339 in UTC and whole seconds.
pub const DATE_CHARACTERS: usize = "2027-03-01T00:00:00Z".len();
/// Shortest duration, in characters: `0s`.
pub const DURATION_CHARACTERS_MIN: usize = 2;
/// Longest duration, in characters.
pub const DURATION_CHARACTERS_MAX: usize = 24;
/// Shortest time between two scheduled rotations of a generated value, in hours.
pub const ROTATE_EVERY_HOURS_MIN: u32 = 1;
/// Longest time between two scheduled rotations of a generated value, in hours: ten years.
pub const ROTATE_EVERY_HOURS_MAX: u32 = 87_600;
/// Longest `generate.revision`, in characters.
pub const REVISION_MAX: usize = 63;
/// Characters of `generate.revision` besides ASCII letters and digits: those of dates, versions and commits.
pub const REVISION_SYMBOLS: &str = "._:+/-";
/// Longest `spec.expiryWarning`, in hours: ten years.
pub const EXPIRY_WARNING_HOURS_MAX: u32 = 87_600;
/// `spec.expiryWarning` when none is given, in hours: 30 days.
pub const EXPIRY_WARNING_HOURS_DEFAULT: u32 = 720;
/// Most earlier values that a record keeps. Eleven records of the largest value take 183 KB of the 1 MiB that Kubernetes
/// allows a Secret.
pub const HISTORY_MAX: i32 = 10;
/// Highest `spec.version`: the largest whole number that every JSON parser reads exactly.
pub const VERSION_MAX: i64 = (1 << 53) - 1;
/// How many earlier values a record keeps when `spec.history` is absent.
pub const HISTORY_DEFAULT: i32 = 1;
/// Longest `spec.overlap`, in hours: ten years.
pub const OVERLAP_HOURS_MAX: u32 = 87_600;
/// Longest Secret key, in characters.
pub const SECRET_KEY_MAX: usize = 253;
/// Most labels, and most annotations, of a target.
pub const TARGET_METADATA_MAX: usize = 64;
/// Most workloads that a new value restarts.
pub const RESTARTS_MAX: usize = 8;
/// Longest value of a label, in characters.
pub const LABEL_VALUE_MAX: usize = 63;
/// Longest part of a label or annotation key behind its prefix, in characters.
pub const METADATA_KEY_NAME_MAX: usize = 63;
/// Longest label or annotation key: a DNS subdomain, a slash and a name, in characters.
pub const METADATA_KEY_MAX: usize = SECRET_NAME_MAX + 1 + METADATA_KEY_NAME_MAX;
/// Longest value of one annotation of a target, in characters.
pub const ANNOTATION_VALUE_MAX: usize = 16_384;
/// Keys and values of a target's annotations together, in bytes: half of what Kubernetes allows an object, so that
/// there is room for ours and for those that others set on the Secret.
pub const ANNOTATIONS_BYTES_MAX: usize = 128 * 1024;
/// Most keys of `target.template`.
pub const TEMPLATE_KEYS_MAX: usize = 16;
/// Longest text of `target.template`, in characters: a chain of certificates fits.
pub const TEMPLATE_TEXT_MAX: usize = 16_384;
/// Keys and texts of `target.template` together, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// What a template may make of a value, in bytes: the data of all keys, and what each filter makes on the way.
/// Kubernetes takes 1 MiB in a Secret. A pass holds this several times, so it is less.
pub const RENDERED_BYTES_MAX: usize = 256 * 1024;
/// Keys and values of a ManagedSecret's own annotations together, in bytes: three quarters of what Kubernetes allows an
/// object. Tools keep a copy of the manifest there. One of the largest spec takes 180 KB: a target's annotations at their
/// limit, its labels with 24 KB, and the longest sealed text with 24 KB. One that has a template of 64 KB besides must be
/// applied server-side, which keeps no copy.
pub const OBJECT_ANNOTATIONS_BYTES_MAX: usize = 192 * 1024;
/// Most annotations of a ManagedSecret.
pub const OBJECT_ANNOTATIONS_MAX: usize = 256;
/// Most labels of a ManagedSecret: Kubernetes has no limit. Its values are short, so that these have 24 KB at most.
pub const OBJECT_LABELS_MAX: usize = 64;
/// Most owner references, and most finalizers, of a ManagedSecret.
pub const OBJECT_REFERENCES_MAX: usize = 32;
/// The texts of all owner references of a ManagedSecret together, in bytes: Kubernetes bounds none of them. Its own
/// controllers write less than 700 in each. (A finalizer has 317 characters at most.)
pub const OBJECT_REFERENCES_BYTES_MAX: usize = 24 * 1024;
/// Most entries of `managedFields` of a ManagedSecret: each names every field that one manager wrote.
pub const OBJECT_MANAGERS_MAX: usize = 64;
/// Longest Secret type (a DNS subdomain, a slash and a name), in characters.
pub const SECRET_TYPE_MAX: usize = METADATA_KEY_MAX;
/// Longest condition type, in characters (metav1.Condition).
pub const CONDITION_TYPE_MAX: usize = 316;
/// Longest condition reason, in characters (metav1.Condition).
pub const CONDITION_REASON_MAX: usize = 1024;
/// Longest condition message, in characters (metav1.Condition).
pub const CONDITION_MESSAGE_MAX: usize = 32_768;
/// Longest message that the operator writes into a condition, in bytes: it keeps the status of every object in memory.
pub const STATUS_MESSAGE_BYTES_MAX: usize = 2048;
/// Most conditions of one object.
pub const CONDITIONS_MAX: usize = 16;
/// Longest text of a field of status that holds a date, a uid or a resourceVersion, in characters.
pub const STATUS_TEXT_MAX: usize = 128;

/// Kubernetes 1.x that this program is tested with: the oldest minor version, and the newest.
pub const KUBERNETES_MINORS: std::ops::RangeInclusive<u32> = 34..=37;
/// Days that a certificate authority of the webhooks is valid.
pub const AUTHORITY_DAYS: u32 = 365;
