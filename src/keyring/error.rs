//! Errors of the keyring. Each message says what to restore.

use managed_secrets_api::keys::{KEK_DATA_KEY, KEK_PREFIX, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEK, TYPE_KEYRING};
use managed_secrets_client::CallError;
use managed_secrets_crypto::RandomError;
use managed_secrets_crypto::keyring::{GenerateError, KekError, OpenError};
use managed_secrets_crypto::recovery::SealError;
use managed_secrets_kms::KmsError;

/// Why there is no keyring. [`KeyringError::is_retryable`] separates transient errors from those that need an administrator.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A request to the API server failed.
    #[error("could not {what}: {source}")]
    Api {
        /// The action that failed.
        what: &'static str,
        /// The cause.
        source: CallError,
    },
    /// Other replicas kept writing at the same time.
    #[error("other replicas were writing the keyring at the same time; will retry")]
    Contended,
    /// It is another keyring than the one that the work began with.
    #[error("the keyring was changed, replaced or deleted meanwhile; will begin again")]
    Changed,
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A keyring Secret has no valid document.
    #[error(
        "Secret {namespace}/{name} is not a keyring: its data key {KEYRING_DATA_KEY} must hold an MSK1 document; \
         restore the Secret from a backup"
    )]
    Document {
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        name: String,
    },
    /// Another Secret has the keyring's name.
    #[error(
        "Secret {namespace}/{KEYRING_NAME} exists and is not of type {TYPE_KEYRING}, so the operator did not change it; \
         delete it if you do not need it, or restore the keyring from a backup"
    )]
    NameTaken {
        /// The operator's namespace.
        namespace: String,
    },
    /// A local KEK does not exist.
    #[error(
        "the keyring in namespace {namespace} is encrypted with a key-encryption key that is missing; \
         restore Secret {namespace}/{KEK_PREFIX}{key_id} from a backup. Without it the operator can read no value. The \
         operator changed nothing, and creates no new keyring while this one exists"
    )]
    KekMissing {
        /// The operator's namespace.
        namespace: String,
        /// Id of the KEK.
        key_id: String,
    },
    /// A local KEK is not what its name says.
    #[error(
        "Secret {namespace}/{name} is not the key-encryption key that its name says: it must have type {TYPE_KEK}, and \
         its data key {KEK_DATA_KEY} must hold 32 bytes whose SHA-256 begins with the id in its name; restore it from a \
         backup"
    )]
    KekWrong {
        /// The operator's namespace.
        namespace: String,
        /// Name of the Secret.
        name: String,
    },
    /// The keyring needs a KEK file and none was given.
    #[error("the keyring is encrypted with a KEK file with the id {key_id}; start the operator with --kek-file")]
    FileMissing {
        /// Id of the KEK.
        key_id: String,
    },
    /// The KEK file holds another KEK.
    #[error(
        "the keyring is encrypted with a KEK file with the id {key_id}, and --kek-file has the id {given}; mount the file \
         that the keyring was created with"
    )]
    FileWrong {
        /// Id of the KEK that the keyring needs.
        key_id: String,
        /// Id of the KEK that was given.
        given: String,
    },
    /// A provider that this version does not know.
    #[error(
        "the keyring is encrypted by the provider \"{provider}\", which this version of the operator does not support; \
         start a version that supports it"
    )]
    UnknownProvider {
        /// Its name.
        provider: String,
    },
    /// A KMS plugin did not do what it was asked. It says nothing about the keys.
    #[error("KMS plugin {name}: {source}; will retry")]
    Kms {
        /// Its name.
        name: String,
        /// What went wrong.
        source: KmsError,
    },
    /// What a KMS plugin unwrapped is not what its entry says: the plugin is wrong, or the keyring was changed.
    #[error(
        "KMS plugin {name} did not decrypt the key {id} of the keyring: {what} differs; will retry. If the plugin works \
         (managed-secrets kms check), restore the keyring's Secrets from a backup"
    )]
    KmsEntry {
        /// Name of the plugin.
        name: String,
        /// Id of the entry.
        id: String,
        /// What differs.
        what: &'static str,
    },
    /// The keyring needs a KMS plugin that was not named.
    #[error(
        "the keyring is encrypted by the provider \"{provider}\"; start the operator with --kms {name}=unix:///PATH",
        name = .provider.trim_start_matches(managed_secrets_crypto::provider::Provider::KMS)
    )]
    KmsMissing {
        /// The provider, as the keyring calls it.
        provider: String,
    },
    /// A key that was unwrapped is not what its entry says.
    #[error(
        "the key {id} of the keyring does not match its entry: {what} differs; restore the keyring's Secrets from a backup"
    )]
    Entry {
        /// Id of the entry.
        id: String,
        /// What differs.
        what: &'static str,
    },
    /// The documents do not make a keyring.
    #[error("{0}; restore the keyring's Secrets from a backup")]
    Open(#[from] OpenError<KekError>),
    /// There is no keyring (and [`KeyringStore::load`] creates none).
    #[error("namespace {namespace} has no keyring: restore Secret {namespace}/{KEYRING_NAME} from a backup")]
    Missing {
        /// The operator's namespace.
        namespace: String,
    },
    /// Records exist that only a lost keyring opens.
    #[error(
        "record {record} exists, and namespace {namespace} has no keyring: restore Secret {namespace}/{KEYRING_NAME} and its \
         {KEK_PREFIX}… Secrets from a backup (kubectl msec restore BACKUP). The operator created no new keyring, because a \
         new one could not read the stored records. If these keys are permanently lost, start the operator once with \
         --allow-new-keyring: it creates new keys and deletes nothing, and records that it cannot read keep their names \
         until you delete them"
    )]
    RecordsWithoutKeyring {
        /// `namespace/name` of one of the records.
        record: String,
        /// The operator's namespace.
        namespace: String,
    },
    /// There is no keyring, and the operator may not check whether records exist.
    #[error(
        "keyring not found, and the operator cannot check whether {namespaces} has records of a lost keyring: permission \
         denied to list Secrets; check that the namespace exists, and that its RoleBinding gives the operator its permissions"
    )]
    Unreadable {
        /// The namespaces.
        namespaces: String,
    },
    /// Admission control of another program would store another keyring than the operator writes.
    #[error(
        "an admission policy or webhook of another program changes Secret {namespace}/{KEYRING_NAME}, so the operator did \
         not write it; exclude this Secret from that policy or webhook"
    )]
    Altered {
        /// The operator's namespace.
        namespace: String,
    },
    /// The stored keyring is older than one that was seen before.
    #[error("{rollback}; {RESTORE}", RESTORE = crate::keyring::RESTORE)]
    RolledBack {
        /// What it lacks.
        rollback: managed_secrets_crypto::keyring::Rollback,
    },
    /// A key could not be created, for another reason than missing randomness.
    #[error("could not create a key: {0}")]
    Generate(String),
}

impl KeyringError {
    /// Whether a retry can help without an administrator's action.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Api { .. } | Self::Contended | Self::Changed | Self::Random(_) | Self::Unreadable { .. })
            || self.is_of_kms()
    }

    /// Whether a KMS plugin does not do what it was asked: no restart of the operator helps.
    #[must_use]
    pub fn is_of_kms(&self) -> bool {
        matches!(self, Self::Kms { .. } | Self::KmsEntry { .. })
    }
}

impl From<SealError> for KeyringError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Random(error) => error.into(),
            error => Self::Generate(error.to_string()),
        }
    }
}

impl From<GenerateError<KekError>> for KeyringError {
    fn from(error: GenerateError<KekError>) -> Self {
        match error {
            GenerateError::Random(random) | GenerateError::Wrap(KekError::Random(random)) => random.into(),
            error => Self::Generate(error.to_string()),
        }
    }
}
