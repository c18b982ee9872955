//! mss1: a value sealed for the cluster, as it stands in `spec.value` and in Git.
//!
//! HPKE (RFC 9180) in base mode with X-Wing (ML-KEM-768 and X25519), HKDF-SHA256 and AES-256-GCM:
//!
//! ```text
//! "mss1." + base64url-no-pad( 1 version | 2 kem | 2 kdf | 2 aead | 8 keyId | 1 scope | LP(namespace)
//!                             | LP(metadata.name) | 1120 enc | m+16 ciphertext of pad(value) )
//! scope: 1 strict, 2 namespace, 3 cluster; and 0x80: kept
//! info = "managedsecrets.dev/mss1"      aad = every byte up to and including LP(metadata.name)
//! ```
//!
//! The scope byte is readable without a key and authenticated with the value, so everyone can tell where a sealed value
//! belongs before anything opens it. Sealing proves nothing about who sealed. The format is frozen.

mod handling;
mod key;
mod published;
mod scope;
#[cfg(any(test, feature = "count-work"))]
pub mod work;

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};
use zeroize::Zeroizing;

pub use self::handling::Handling;
pub use self::key::{PublicKey, PublicKeyError, SealingKey};
pub use self::published::{PublishedKey, PublishedKeyError, SUITE_NAME};
pub use self::scope::{Scope, WrongPlace};
use super::codec::{self, FieldTooLong, Reader};
use super::{KeyId, Plaintext, RandomError, ValueError, aead};
use crate::limits::{SEALED_ENC_BYTES as ENC, SEALED_MAX, SEALED_MIN, SEALED_PREFIX as PREFIX, SEALED_SUITE as SUITE};

const INFO: &[u8] = b"managedsecrets.dev/mss1";

/// A sealed value whose format is valid. Its scope is not authentic until it is opened.
#[derive(Clone, Eq, PartialEq)]
pub struct Sealed {
    bytes: Vec<u8>,
    key_id: KeyId,
    scope: Scope,
    handling: Handling,
    /// Bytes of the header, which is the associated data.
    header: usize,
}

/// The text is not a sealed value; names the rule that it breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("sealed value {0}")]
pub struct FormatError(&'static str);

/// Why a value was not sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The namespace or name is none.
    #[error("{0}")]
    Scope(&'static str),
    /// HPKE refused. Cannot happen with a checked key and a [`Plaintext`].
    #[error("the cipher refused the value")]
    Cipher,
}

/// Why a sealed value does not open: one variant per step, in the order of the steps.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// It was sealed for another place. Nothing was decapsulated.
    #[error(transparent)]
    Place(#[from] WrongPlace),
    /// It was sealed for another key than the one given.
    #[error("sealed for the key {0}")]
    Key(KeyId),
    /// It was altered.
    #[error("the sealed value was altered")]
    Tampered,
    /// It is authentic, but not padded by the rules; says which rule it breaks.
    #[error("the sealed value's padding {0}")]
    Padding(&'static str),
    /// It is authentic, but what it holds is no value.
    #[error("the opened value {0}")]
    Value(ValueError),
}

/// Seals a value for a scope; the text differs each time.
pub fn seal(key: &PublicKey, scope: &Scope, handling: Handling, value: &Plaintext) -> Result<String, SealError> {
    let padded = codec::pad(value.as_bytes()).ok_or(SealError::Cipher)?;
    seal_padded(key, scope, handling, &padded)
}

fn seal_padded(key: &PublicKey, scope: &Scope, handling: Handling, padded: &[u8]) -> Result<String, SealError> {
    #[cfg(any(test, feature = "count-work"))]
    work::count(|work| work.sealed += 1);
    scope.check().map_err(SealError::Scope)?;
    let mut bytes = header(key.key_id(), scope, handling).map_err(|FieldTooLong| SealError::Cipher)?;
    // HPKE's own choice of generator panics where the operating system gives no randomness; this one says so.
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(|_| RandomError)?;
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
        &OpModeS::Base,
        key.hpke(),
        INFO,
        padded,
        &bytes,
        &mut rng,
    )
    .map_err(|_| SealError::Cipher)?;
    bytes.extend_from_slice(&enc.to_bytes());
    bytes.extend_from_slice(&ciphertext);
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes)))
}

/// Every byte before the encapsulated key.
fn header(key_id: KeyId, scope: &Scope, handling: Handling) -> Result<Vec<u8>, FieldTooLong> {
    let mut out = Vec::with_capacity(2048);
    out.extend_from_slice(&SUITE);
    out.extend_from_slice(&key_id.0);
    out.push(scope.code() | handling.bit());
    codec::put(&mut out, scope.namespace().unwrap_or_default().as_bytes())?;
    codec::put(&mut out, scope.name().unwrap_or_default().as_bytes())?;
    Ok(out)
}

impl Sealed {
    /// Checks the format: prefix, canonical base64, suite, scope and every length.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(FormatError("must begin with \"mss1.\""))?;
        // Before decoding: text from outside must not choose how much memory that takes.
        if !(SEALED_MIN..=SEALED_MAX).contains(&text.len()) {
            return Err(FormatError("must be complete: it is shorter or longer than any sealed value"));
        }
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| FormatError("must be canonical base64url without padding"))?;
        Self::from_bytes(bytes)
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, FormatError> {
        const SHORT: FormatError = FormatError("must be complete: it ends before its last field");
        let mut reader = Reader::new(&bytes);
        if reader.array::<7>().ok_or(SHORT)? != &SUITE {
            return Err(FormatError("must have version 1 and suite 1"));
        }
        let key_id = KeyId(*reader.array().ok_or(SHORT)?);
        let [byte] = *reader.array::<1>().ok_or(SHORT)?;
        let (handling, code) = Handling::split(byte);
        let namespace = reader.field().ok_or(SHORT)?;
        let name = reader.field().ok_or(SHORT)?;
        let scope = Scope::from_fields(code, namespace, name).map_err(FormatError)?;
        let header = bytes.len() - reader.rest().len();
        reader.array::<ENC>().ok_or(SHORT)?;
        match reader.rest().len().checked_sub(aead::TAG) {
            Some(length) if codec::is_bucket(length) => Ok(Self { bytes, key_id, scope, handling, header }),
            _ => Err(FormatError("must hold a value padded to 64, 128, 256 … 16384 bytes")),
        }
    }

    /// The key that a text says it was sealed for, without a check of the rest; `None` if the text begins like no sealed
    /// value. It costs no more the longer the text is.
    #[must_use]
    pub fn key_named(text: &str) -> Option<KeyId> {
        // 20 characters of base64 are 15 bytes: the suite and the key's id.
        let head = text.strip_prefix(PREFIX)?.get(..20)?;
        let bytes: [u8; 15] = BASE64_URL_SAFE_NO_PAD.decode(head).ok()?.try_into().ok()?;
        let (suite, id) = bytes.split_first_chunk::<7>()?;
        (*suite == SUITE).then_some(KeyId(id.try_into().ok()?))
    }

    /// Where it may be used, as the text has it.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What may be done with its value, as the text has it.
    #[must_use]
    pub fn handling(&self) -> Handling {
        self.handling
    }

    /// The key it was sealed for.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Whether its scope allows use in the `ManagedSecret` `namespace/name`. Needs no key.
    pub fn fits(&self, namespace: &str, name: &str) -> Result<(), WrongPlace> {
        self.scope.fits(namespace, name)
    }

    /// Opens it for the `ManagedSecret` `namespace/name`. The scope is checked before anything is decapsulated.
    pub fn open(&self, key: &SealingKey, namespace: &str, name: &str) -> Result<Plaintext, OpenError> {
        self.fits(namespace, name)?;
        if self.key_id != key.key_id() {
            return Err(OpenError::Key(self.key_id));
        }
        #[cfg(any(test, feature = "count-work"))]
        work::count(|work| work.opened += 1);
        let (header, rest) = self.bytes.split_at_checked(self.header).ok_or(OpenError::Tampered)?;
        let (enc, ciphertext) = rest.split_at_checked(ENC).ok_or(OpenError::Tampered)?;
        let enc = <XWing as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| OpenError::Tampered)?;
        let padded = hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
            &OpModeR::Base,
            key.hpke(),
            &enc,
            INFO,
            ciphertext,
            header,
        )
        .map(Zeroizing::new)
        .map_err(|_| OpenError::Tampered)?;
        let value = codec::unpad(&padded).map_err(OpenError::Padding)?;
        Plaintext::new(value).map_err(OpenError::Value)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("key_id", &self.key_id)
            .field("scope", &self.scope)
            .field("handling", &self.handling)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
