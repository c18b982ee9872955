//! Every limit of the API, once. Characters are Unicode scalar values, as OpenAPI's `maxLength` counts them.

/// Longest `spec.name`, in characters.
pub const NAME_MAX: usize = 50;
/// Characters of `spec.name` besides ASCII letters and digits.
pub const NAME_SYMBOLS: &str = "_+=-@#$";
/// Longest `spec.description`, in characters.
pub const DESCRIPTION_MAX: usize = 200;
/// Shortest value, in characters.
pub const VALUE_MIN: usize = 1;
/// Longest value, in characters.
pub const VALUE_MAX: usize = 3500;
/// Shortest generated value, in characters.
pub const GENERATE_MIN: i32 = 1;
/// Longest generated value, in characters.
pub const GENERATE_MAX: i32 = 3500;
/// Length of a generated value when none is given, in characters.
pub const GENERATE_DEFAULT: i32 = 32;
/// Longest Secret name (DNS subdomain), in characters.
pub const SECRET_NAME_MAX: usize = 253;
/// Longest Secret key, in characters.
pub const SECRET_KEY_MAX: usize = 253;
/// Most labels, and most annotations, of a target.
pub const TARGET_METADATA_MAX: usize = 64;
/// Longest namespace (DNS label), in characters.
pub const NAMESPACE_MAX: usize = 63;
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
/// Keys and values of a ManagedSecret's own annotations together, in bytes: three quarters of what Kubernetes allows an
/// object. Tools keep a copy of the manifest there. One of the largest spec takes 180 KB: a target's annotations at their
/// limit, its labels with 24 KB, and the longest sealed text with 24 KB.
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

/// What sealed text begins with; base64url without padding follows.
pub const SEALED_PREFIX: &str = "mss1.";
/// The first bytes of every sealed text: version 1, KEM X-Wing (0x647a), KDF HKDF-SHA256 (0x0001), AEAD AES-256-GCM
/// (0x0002). The numbers are IANA's HPKE registry's.
pub const SEALED_SUITE: [u8; 7] = [0x01, 0x64, 0x7a, 0x00, 0x01, 0x00, 0x02];
/// Bytes of the id of a sealing key in sealed text.
pub const SEALED_KEY_ID_BYTES: usize = 8;
/// The bit of sealed text's scope byte that says: kept, not to be delivered without the permission to read the value.
pub const SEALED_KEPT_BIT: u8 = 0x80;
/// Bytes of an encapsulated X-Wing key: an ML-KEM-768 ciphertext and an X25519 public key.
pub const SEALED_ENC_BYTES: usize = 1120;
/// Bytes of an AES-GCM tag.
pub const AEAD_TAG_BYTES: usize = 16;
/// Smallest padded value, in bytes.
pub const BUCKET_MIN: usize = 64;
/// Largest padded value, in bytes: holds [`VALUE_MAX`] characters of four bytes and a length of four.
pub const BUCKET_MAX: usize = 16_384;
/// Length of the shortest sealed text (cluster scope, smallest bucket), in characters.
pub const SEALED_MIN: usize = sealed_length(0, 0, BUCKET_MIN);
/// Length of the longest sealed text (strict scope, longest names, largest bucket), in characters.
pub const SEALED_MAX: usize = sealed_length(NAMESPACE_MAX, SECRET_NAME_MAX, BUCKET_MAX);

/// Characters of sealed text for a namespace and a name of these lengths, and a padded value of `bucket` bytes.
const fn sealed_length(namespace: usize, name: usize, bucket: usize) -> usize {
    let scope = 1;
    let header = SEALED_SUITE.len() + SEALED_KEY_ID_BYTES + scope + 2 + namespace + 2 + name;
    let bytes = header + SEALED_ENC_BYTES + bucket + AEAD_TAG_BYTES;
    SEALED_PREFIX.len() + (bytes * 4).div_ceil(3)
}

/// Kubernetes 1.x that this program is tested with: the oldest minor version, and the newest.
pub const KUBERNETES_MINORS: std::ops::RangeInclusive<u32> = 34..=37;
/// Days that a certificate authority of the webhooks is valid.
pub const AUTHORITY_DAYS: u32 = 365;
