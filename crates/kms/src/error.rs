//! Why a plugin did not do what it was asked.

use std::{fmt, time::Duration};

use crate::limits;

/// A call of the contract.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Call {
    /// Status.
    Status,
    /// Encrypt.
    Encrypt,
    /// Decrypt.
    Decrypt,
}

impl Call {
    /// Its name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no answer that can be used. Every one of them may pass: retry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KmsError {
    /// The plugin cannot be reached.
    #[error(
        "cannot connect to the plugin at {socket}: {why}; check that it runs and that this user may connect to the socket"
    )]
    Connect {
        /// Its address.
        socket: String,
        /// What the system said.
        why: String,
    },
    /// The plugin answered with an error.
    #[error("the plugin answered {call} with the error {code}{message}")]
    Refused {
        /// The call.
        call: Call,
        /// The gRPC code.
        code: String,
        /// What the plugin said, with a colon before it; empty for `Encrypt`, whose message may quote the plaintext.
        message: String,
    },
    /// The plugin did not answer in time.
    #[error("the plugin did not answer {call} within {} s", after.as_secs())]
    Timeout {
        /// The call.
        call: Call,
        /// How long it had.
        after: Duration,
    },
    /// The answer violates the contract.
    #[error("the plugin's answer to {call} violates the contract: {what}")]
    Violation {
        /// The call.
        call: Call,
        /// The rule.
        what: Violation,
    },
    /// The plugin says that it is not healthy.
    #[error("the plugin is not healthy: {healthz}")]
    Unhealthy {
        /// What it says.
        healthz: String,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random,
}

/// A rule of the contract that an answer violates.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    /// Another version.
    #[error("the version must be v2 or v2beta1")]
    Version,
    /// Id of the key.
    #[error("the id of the key must be 1 to {max} bytes", max = limits::MAX_KEY_ID)]
    KeyId,
    /// Size of the ciphertext.
    #[error("the ciphertext must be 1 to {max} bytes", max = limits::MAX_CIPHERTEXT)]
    Ciphertext,
    /// The ciphertext shows the plaintext.
    #[error("the plaintext must not appear in the answer")]
    Plaintext,
    /// Sizes of the annotations.
    #[error("the annotations must not be larger than {max} bytes", max = limits::MAX_ANNOTATIONS)]
    AnnotationsSize,
    /// Key of an annotation.
    #[error("the key of an annotation must be a fully qualified domain name")]
    AnnotationKey,
    /// A key other than the one that the status names.
    #[error("the id of the key must be the one of the last status")]
    OtherKey,
}
