//! Names that other programs see: API group, label and annotation keys, Secret types, the field manager.

/// API group of the resource, and prefix of every label and annotation of ours.
pub const GROUP: &str = "managedsecrets.dev";
/// Served and stored version of the resource.
pub const VERSION: &str = "v1alpha1";
/// Kind of the resource.
pub const KIND: &str = "ManagedSecret";
/// Plural of the resource.
pub const PLURAL: &str = "managedsecrets";
/// Field manager of every write of the operator (server-side apply).
pub const FIELD_MANAGER: &str = "managed-secrets";
/// Field manager of a value that is left in an adopted Secret, because its key was there before the adoption.
pub const FIELD_MANAGER_LEFT: &str = "managed-secrets-left";
/// Field manager of the marks on workloads that are restarted.
pub const FIELD_MANAGER_RESTARTS: &str = "managed-secrets-restarts";
/// Prefix of the object name of a backing record; user-chosen names must not begin with it.
pub const RECORD_PREFIX: &str = "msec-";
/// Key of a record's data that holds the MSE1 bytes.
pub const RECORD_DATA_KEY: &str = "value";

/// Key of a target's data when `spec.target.key` is absent.
pub const DEFAULT_TARGET_KEY: &str = "value";
/// Type of a target when `spec.target.type` is absent.
pub const DEFAULT_TARGET_TYPE: &str = "Opaque";

/// The type of a Secret with a certificate and its private key. The API server asks that both are there.
pub const TYPE_TLS: &str = "kubernetes.io/tls";
/// Key of the certificate in a Secret of the type [`TYPE_TLS`]: public, so a template has it.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// Key of the private key in a Secret of the type [`TYPE_TLS`].
pub const TLS_PRIVATE_KEY: &str = "tls.key";

/// Secret type of a backing record.
pub const TYPE_RECORD: &str = "managedsecrets.dev/record";
/// Secret type of a keyring.
pub const TYPE_KEYRING: &str = "managedsecrets.dev/keyring";
/// Secret type of a local key-encryption key.
pub const TYPE_KEK: &str = "managedsecrets.dev/kek";

/// Label that marks what a Secret is to us: [`ROLE_RECORD`] or [`ROLE_TARGET`].
pub const LABEL_ROLE: &str = "managedsecrets.dev/role";
/// Value of [`LABEL_ROLE`] on a backing record.
pub const ROLE_RECORD: &str = "record";
/// Value of [`LABEL_ROLE`] on a delivered Secret.
pub const ROLE_TARGET: &str = "target";
/// Every value of [`LABEL_ROLE`] that the operator writes.
pub const ROLES: [&str; 2] = [ROLE_RECORD, ROLE_TARGET];
/// Label that holds the id (UUID) of the secret.
pub const LABEL_ID: &str = "managedsecrets.dev/id";
/// Every label that the operator puts on Secrets.
pub const LABELS: [&str; 2] = [LABEL_ROLE, LABEL_ID];

/// Annotation: the human-friendly name in clear (record).
pub const ANNO_NAME: &str = "managedsecrets.dev/name";
/// Annotation: the description (record).
pub const ANNO_DESCRIPTION: &str = "managedsecrets.dev/description";
/// Annotation: `metadata.name` of the ManagedSecret (record and target).
pub const ANNO_OWNER: &str = "managedsecrets.dev/owner";
/// Annotation: those of our keys, separated by commas, that were there before the Secret was adopted: they stay when the
/// target moves (adopted target).
pub const ANNO_FOUND_KEY: &str = "managedsecrets.dev/found-key";
/// Annotation: uid of the ManagedSecret (record).
pub const ANNO_UID: &str = "managedsecrets.dev/uid";
/// Annotation: creation date, RFC 3339 (record).
pub const ANNO_CREATED: &str = "managedsecrets.dev/created";
/// Annotation: date of the last change of name, description or value (record).
pub const ANNO_UPDATED: &str = "managedsecrets.dev/updated";
/// Annotation: date of the last change of the value (record).
pub const ANNO_VALUE_UPDATED: &str = "managedsecrets.dev/value-updated";
/// Annotation: the value's version, decimal (record).
pub const ANNO_VERSION: &str = "managedsecrets.dev/version";
/// Annotation: `metadata.generation` of the ManagedSecret that the record was made from (record).
pub const ANNO_GENERATION: &str = "managedsecrets.dev/generation";
/// Annotation: the deletion policy in force (record).
pub const ANNO_DELETION_POLICY: &str = "managedsecrets.dev/deletion-policy";
/// Annotation: which source the value came from, and its fingerprint (record).
pub const ANNO_SOURCE: &str = "managedsecrets.dev/source";
/// Annotation: where the value is delivered (record).
pub const ANNO_TARGET: &str = "managedsecrets.dev/target";
/// Annotation: base64 of the record's key commitment (record).
pub const ANNO_COMMITMENT: &str = "managedsecrets.dev/commitment";
/// Annotation: base64 of the seed id and the MAC over the metadata (record).
pub const ANNO_MAC: &str = "managedsecrets.dev/mac";
/// Annotation: SHA-256 of the template that the data was made by, in hex (target with a template).
pub const ANNO_TEMPLATE: &str = "managedsecrets.dev/template";
/// Annotation: which earlier values the record keeps (record that keeps some).
pub const ANNO_HISTORY: &str = "managedsecrets.dev/history";
/// Annotation: which earlier version the target has beside the delivered one, and under which key: `VERSION:KEY` (target with
/// a previous value).
pub const ANNO_PREVIOUS: &str = "managedsecrets.dev/previous";
/// Every annotation that the operator puts on Secrets by itself.
pub const ANNOTATIONS: [&str; 18] = [
    ANNO_NAME,
    ANNO_DESCRIPTION,
    ANNO_OWNER,
    ANNO_FOUND_KEY,
    ANNO_UID,
    ANNO_CREATED,
    ANNO_UPDATED,
    ANNO_VALUE_UPDATED,
    ANNO_VERSION,
    ANNO_GENERATION,
    ANNO_DELETION_POLICY,
    ANNO_SOURCE,
    ANNO_TARGET,
    ANNO_COMMITMENT,
    ANNO_MAC,
    ANNO_TEMPLATE,
    ANNO_HISTORY,
    ANNO_PREVIOUS,
];

/// Name of the one keyring Secret that the operator writes, in its own namespace.
pub const KEYRING_NAME: &str = "managed-secrets-keyring";
/// Data key of a keyring Secret.
pub const KEYRING_DATA_KEY: &str = "keyring.json";
/// Annotation of that Secret: which changes of the keyring are asked of the operator
/// ([`keyring_request`](crate::keyring_request)). Users write it.
pub const ANNO_KEYRING_REQUEST: &str = "managedsecrets.dev/keyring-request";
/// Prefix of the name of a local KEK Secret; the key id in hex follows.
pub const KEK_PREFIX: &str = "managed-secrets-kek-";
/// Data key of a local KEK Secret.
pub const KEK_DATA_KEY: &str = "kek";
/// Secret type of the webhooks' certificate authorities and secret paths.
pub const TYPE_WEBHOOK: &str = "managedsecrets.dev/webhook";
/// Name of the Secret of that type, in the operator's namespace.
pub const WEBHOOK_SECRET: &str = "managed-secrets-webhook";
/// Data key of that Secret.
pub const WEBHOOK_DATA_KEY: &str = "webhook.json";
/// Name of the MutatingWebhookConfiguration. The API server calls webhooks in the order of these names, and those called
/// before ours see plaintext.
pub const SEAL_CONFIGURATION: &str = "0-managed-secrets-seal";
/// Name of the ValidatingWebhookConfiguration.
pub const WARN_CONFIGURATION: &str = "managed-secrets-warn";
/// Name of the sealing webhook, which users read in refusals.
pub const SEAL_WEBHOOK: &str = "seal.managedsecrets.dev";
/// Name of the warning webhook.
pub const WARN_WEBHOOK: &str = "warn.managedsecrets.dev";
/// Annotation in which `kubectl apply` keeps the manifest as it was applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations in which tools keep a packed copy of the manifest, which nothing in the API server can unpack:
///
/// * Rancher's wrangler, with which K3s and RKE2 apply their `manifests` folder: JSON, from 1 KiB on in gzip and base64
///   (`LabelApplied` and `appliedToAnnotation` in rancher/wrangler, pkg/apply);
/// * Banzai Cloud's k8s-objectmatcher: JSON in a zip archive, in base64 (`LastAppliedConfig`).
///
/// kapp keeps its copy (`kapp.k14s.io/original`) as JSON.
pub const PACKED_COPIES: [&str; 2] = ["objectset.rio.cattle.io/applied", "banzaicloud.com/last-applied"];
/// Name of the ConfigMap that publishes the sealing public key, in the operator's namespace.
pub const PUBLIC_KEY_CONFIGMAP: &str = "managed-secrets-sealing-key";
/// Annotation: count and key ids of the newest keyring that the operator has seen (ConfigMap of the public key).
pub const ANNO_KEYRING_SEEN: &str = "managedsecrets.dev/keyring-seen";
/// On a key-encryption key that was created to replace another one: uid and count of changes of the keyring that it was
/// created for, `UID/N`. A replacement that was interrupted goes on with it.
pub const ANNO_KEK_FOR: &str = "managedsecrets.dev/kek-for";
/// Data key of that ConfigMap.
pub const PUBLIC_KEY_DATA_KEY: &str = "sealing-key.json";
/// Name of the ConfigMap with the certificate authorities to trust for the metrics with TLS.
pub const CA_CONFIGMAP: &str = "managed-secrets-ca";
/// The key of the authorities (PEM) in that ConfigMap.
pub const CA_DATA_KEY: &str = "ca.crt";
/// The operator's namespace when nothing else says.
pub const DEFAULT_OPERATOR_NAMESPACE: &str = "managed-secrets-system";
/// Name of the operator's service account and Deployment.
pub const OPERATOR_NAME: &str = "managed-secrets";

/// Condition: summary of an object's state; always there.
pub const CONDITION_READY: &str = "Ready";
/// Condition: there is something left to do, or to wait for.
pub const CONDITION_RECONCILING: &str = "Reconciling";
/// Condition: a person is needed.
pub const CONDITION_STALLED: &str = "Stalled";
/// Condition: the value expires soon, or has expired.
pub const CONDITION_EXPIRING: &str = "Expiring";
/// Condition: a workload of `spec.target.restart` cannot be restarted.
pub const CONDITION_RESTART_BLOCKED: &str = "RestartBlocked";
/// Every condition that the operator writes.
pub const CONDITIONS: [&str; 5] =
    [CONDITION_READY, CONDITION_RECONCILING, CONDITION_STALLED, CONDITION_EXPIRING, CONDITION_RESTART_BLOCKED];

/// Admission policy: whoever has a value delivered somewhere must be allowed to read it where it is.
pub const POLICY_USER_RIGHTS: &str = "managed-secrets-user-rights";
/// Admission policy: a user who has a workload restarted must be allowed to patch it.
pub const POLICY_RESTART_RIGHTS: &str = "managed-secrets-restart-rights";
/// Admission policy: only the operator and restorers write records and keys.
pub const POLICY_PROTECTED_SECRETS: &str = "managed-secrets-protected-secrets";
/// Admission policy: only they write the published sealing key.
pub const POLICY_PROTECTED_PUBLIC_KEY: &str = "managed-secrets-protected-public-key";
/// Admission policy: only they write `status`.
pub const POLICY_PROTECTED_STATUS: &str = "managed-secrets-protected-status";
/// Admission policy: the operator writes no Secrets but its own.
pub const POLICY_OPERATOR_WRITES: &str = "managed-secrets-operator-writes";
/// Admission policy: no annotation holds a manifest with a plain value.
pub const POLICY_PLAINTEXT_ANNOTATIONS: &str = "managed-secrets-plaintext-annotations";
/// Admission policy: the metadata of a ManagedSecret is bounded.
pub const POLICY_METADATA_SIZE: &str = "managed-secrets-metadata-size";
/// Every admission policy, as an installation for the whole cluster names it.
pub const POLICIES: [&str; 8] = [
    POLICY_USER_RIGHTS,
    POLICY_RESTART_RIGHTS,
    POLICY_PROTECTED_SECRETS,
    POLICY_PROTECTED_PUBLIC_KEY,
    POLICY_PROTECTED_STATUS,
    POLICY_OPERATOR_WRITES,
    POLICY_PLAINTEXT_ANNOTATIONS,
    POLICY_METADATA_SIZE,
];
