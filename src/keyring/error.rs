//! Why there is no keyring, in words that say what to restore.

use managed_secrets_api::keys::{KEK_DATA_KEY, KEK_PREFIX, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEK, TYPE_KEYRING};
use managed_secrets_client::CallError;
use managed_secrets_crypto::RandomError;
use managed_secrets_crypto::keyring::{KekError, OpenError};

/// Why there is no keyring. [`KeyringError::is_retryable`] tells trouble that passes from what needs a person.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The API server did not do what was asked.
    #[error("could not {what}: {source}")]
    Api {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        source: CallError,
    },
    /// Others kept writing at the same time.
    #[error("the keyring was being made by others at the same time")]
    Contended,
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A keyring Secret holds no document.
    #[error(
        "Secret {namespace}/{name} is no keyring: its data key {KEYRING_DATA_KEY} must hold an MSK1 document; \
         restore the Secret from a backup"
    )]
    Document {
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        name: String,
    },
    /// The keyring's name is taken by something else.
    #[error(
        "Secret {namespace}/{KEYRING_NAME} exists and is not of type {TYPE_KEYRING}; nothing was changed: \
         remove it if it is not yours, or restore the keyring from a backup"
    )]
    NameTaken {
        /// The operator's namespace.
        namespace: String,
    },
    /// A local KEK is gone.
    #[error(
        "the keyring in namespace {namespace} is wrapped by a key-encryption key that is missing: \
         restore Secret {namespace}/{KEK_PREFIX}{key_id} from a backup. Without it no value can be read; \
         nothing was changed, and no new keyring is made while this one stands"
    )]
    KekMissing {
        /// The operator's namespace.
        namespace: String,
        /// Id of the KEK.
        key_id: String,
    },
    /// A local KEK is not what its name says.
    #[error(
        "Secret {namespace}/{name} is not the key-encryption key of its name: it must have type {TYPE_KEK} and \
         under {KEK_DATA_KEY} the 32 bytes whose SHA-256 begins with the id in its name; restore it from a backup"
    )]
    KekWrong {
        /// The operator's namespace.
        namespace: String,
        /// Name of the Secret.
        name: String,
    },
    /// The keyring needs a KEK file and there is none.
    #[error("the keyring is wrapped by a KEK file with the id {key_id}: start the operator with --kek-file")]
    FileMissing {
        /// Id of the KEK.
        key_id: String,
    },
    /// The KEK file holds another KEK.
    #[error(
        "the keyring is wrapped by a KEK file with the id {key_id}, and --kek-file holds the one with the id {given}: \
         mount the file that the keyring was made with"
    )]
    FileWrong {
        /// Id of the KEK that is needed.
        key_id: String,
        /// Id of the KEK that is there.
        given: String,
    },
    /// A provider that this version does not know.
    #[error("the keyring is wrapped by the provider \"{provider}\", which this version of the operator does not have")]
    UnknownProvider {
        /// Its name.
        provider: String,
    },
    /// The documents do not make a keyring.
    #[error("{0}; restore the keyring's Secrets from a backup")]
    Open(#[from] OpenError<KekError>),
    /// There is no keyring (and [`KeyringStore::load`] makes none).
    #[error("namespace {namespace} has no keyring: restore Secret {namespace}/{KEYRING_NAME} from a backup")]
    Missing {
        /// The operator's namespace.
        namespace: String,
    },
    /// Records exist that only a lost keyring opens.
    #[error(
        "record {record} exists, and namespace {namespace} has no keyring: restore Secret {namespace}/{KEYRING_NAME} and its \
         {KEK_PREFIX}… Secrets from a backup (kubectl msec restore BACKUP). A new keyring could not read what is stored, so \
         none was made. If these keys are lost for good, start the operator once with --allow-new-keyring: it makes new \
         keys and deletes nothing, and records that it cannot read keep their names until you delete them"
    )]
    RecordsWithoutKeyring {
        /// `namespace/name` of one of the records.
        record: String,
        /// The operator's namespace.
        namespace: String,
    },
    /// Records may exist where the operator may not look, and there is no keyring.
    #[error(
        "there is no keyring, and whether records exist that a lost one opens is not known for {namespaces}: permission \
         denied to list Secrets; check that the namespace exists, and that its RoleBinding gives the operator its permissions"
    )]
    Unreadable {
        /// The namespaces.
        namespaces: String,
    },
    /// Making a key failed in a way that randomness does not explain.
    #[error("no key could be made: {0}")]
    Generate(String),
}

impl KeyringError {
    /// Whether trying again can help without a person's doing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Api { .. } | Self::Contended | Self::Random(_) | Self::Unreadable { .. })
    }
}
