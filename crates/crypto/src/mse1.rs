//! MSE1: a value version at rest, sealed under a seed and bound to the object it belongs to.
//!
//! ```text
//! off  len  field
//! 0    4    "MSE1"
//! 4    1    suite   0x01 = HKDF-SHA256 + AES-256-GCM + commitment
//! 5    1    purpose 0x01
//! 6    8    version, u64 big-endian
//! 14   2+u  uid of the ManagedSecret that wrote it: LP, at most 64 bytes
//! --   8    seedId
//! --   32   salt
//! --   12   nonce
//! --   48   wrapped DEK
//! --   32   commitment CK
//! --   12   nonce
//! --   m+16 AES-256-GCM(EK, nonce, pad(value), aad = A_payload)
//! ```
//!
//! The format is frozen: what it once wrote is read for ever. Whether an authentic record is the one wanted (its uid,
//! its version) is the caller's policy, not the format's.

mod rewrap;

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::{self, FieldTooLong, Reader};
use super::{Plaintext, RandomError, Seed, SeedId, ValueError, aead, random, seed};

pub use self::rewrap::{RewrapError, rewrap};

const MAGIC: &[u8; 4] = b"MSE1";
const SUITE: u8 = 0x01;
const PURPOSE: u8 = 0x01;
/// Longest uid, in bytes.
const UID_MAX: usize = 64;
/// Bytes of a wrapped DEK: the key and its tag.
const WRAPPED: usize = aead::KEY + aead::TAG;

/// The object a record belongs to. `spec.name` is not part of it, so a rename keeps the ciphertext.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// `metadata.name` of the `ManagedSecret`.
    pub object: &'a str,
}

/// A record whose format is valid. Nothing of it is authentic until it is opened.
#[derive(Clone, Eq, PartialEq)]
pub struct Record {
    bytes: Vec<u8>,
    version: u64,
    uid: String,
    seed_id: SeedId,
    commitment: [u8; 32],
}

/// Why a value was not sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The namespace or name fits no length prefix.
    #[error(transparent)]
    Field(#[from] FieldTooLong),
    /// The uid is longer than a record holds.
    #[error("the uid is longer than {UID_MAX} bytes")]
    Uid,
    /// The cipher refused. Cannot happen with a [`Plaintext`], which always fits.
    #[error("the cipher refused the value")]
    Cipher,
}

/// Why a record does not open: one variant per step, in the order of the steps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are not in the format; says which rule they break.
    #[error("not a record: {0}")]
    Format(&'static str),
    /// The keyring lacks the seed. Worth one fresh look at the keyring.
    #[error("the keyring has no seed {0}")]
    SeedUnknown(SeedId),
    /// The DEK does not unwrap: the record was moved here from another object, or its header was altered.
    #[error("the record belongs to another object, or its header was altered")]
    Wrap,
    /// The record's commitment is not that of its key.
    #[error("the record's commitment does not match its key")]
    Commitment,
    /// The payload was altered.
    #[error("the record's payload was altered")]
    Payload,
    /// The payload is authentic, but not padded by the rules; says which rule it breaks.
    #[error("the record's padding {0}")]
    Padding(&'static str),
    /// The payload is authentic, but no value.
    #[error("the record's content {0}")]
    Value(ValueError),
}

/// Everything random of one sealing. Each is used once.
struct Material {
    dek: Zeroizing<[u8; aead::KEY]>,
    salt: [u8; 32],
    wrap_nonce: [u8; aead::NONCE],
    payload_nonce: [u8; aead::NONCE],
}

/// Seals a value version, written by the `ManagedSecret` `uid`, with a fresh key.
pub fn seal(seed: &Seed, place: &Place<'_>, uid: &str, version: u64, value: &Plaintext) -> Result<Record, SealError> {
    let material = Material {
        dek: random::bytes()?,
        salt: *random::bytes()?,
        wrap_nonce: *random::bytes()?,
        payload_nonce: *random::bytes()?,
    };
    seal_with(&material, seed, place, uid, version, value)
}

fn seal_with(
    material: &Material,
    seed: &Seed,
    place: &Place<'_>,
    uid: &str,
    version: u64,
    value: &Plaintext,
) -> Result<Record, SealError> {
    let padded = codec::pad(value.as_bytes()).ok_or(SealError::Cipher)?;
    let payload = seal_padded(material, seed, place, uid, version, padded)?;
    Record::parse(&payload).map_err(|_| SealError::Cipher)
}

fn seal_padded(
    material: &Material,
    seed: &Seed,
    place: &Place<'_>,
    uid: &str,
    version: u64,
    padded: Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, SealError> {
    if uid.len() > UID_MAX {
        return Err(SealError::Uid);
    }
    let payload_aad = associated_data("MSE1/payload", place, uid, version)?;
    let keys = PayloadKeys::derive(&material.dek, &payload_aad);
    let wrap_aad = associated_data("MSE1/wrap", place, uid, version)?;
    let wrapped = wrap(seed, &material.salt, &material.wrap_nonce, &wrap_aad, &material.dek)?;
    let payload =
        aead::seal(&keys.encryption, &material.payload_nonce, &payload_aad, padded).map_err(|_| SealError::Cipher)?;

    let mut out = Vec::with_capacity(14 + 2 + uid.len() + 8 + 32 + 12 + WRAPPED + 32 + 12 + payload.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[SUITE, PURPOSE]);
    out.extend_from_slice(&version.to_be_bytes());
    codec::put(&mut out, uid.as_bytes())?;
    out.extend_from_slice(&seed.id().0);
    out.extend_from_slice(&material.salt);
    out.extend_from_slice(&material.wrap_nonce);
    out.extend_from_slice(&wrapped);
    out.extend_from_slice(keys.commitment.as_slice());
    out.extend_from_slice(&material.payload_nonce);
    out.extend_from_slice(&payload);
    Ok(out)
}

/// Opens a record found at `place`, with the seed that `lookup` finds for it.
pub fn open<'k>(
    record: &Record,
    place: &Place<'_>,
    lookup: impl FnOnce(SeedId) -> Option<&'k Seed>,
) -> Result<Plaintext, OpenError> {
    let fields = Fields::read(&record.bytes)?;
    let seed = lookup(record.seed_id).ok_or(OpenError::SeedUnknown(record.seed_id))?;
    let aad = |label| {
        // A place whose name fits no length prefix has never been sealed for.
        associated_data(label, place, &record.uid, record.version).map_err(|_| OpenError::Wrap)
    };

    let dek = unwrap(seed, &fields, &aad("MSE1/wrap")?)?;
    let payload_aad = aad("MSE1/payload")?;
    let keys = PayloadKeys::derive(&dek, &payload_aad);
    keys.matches(&fields)?;
    let padded = aead::open(&keys.encryption, fields.payload_nonce, &payload_aad, fields.payload)
        .map_err(|_| OpenError::Payload)?;
    let value = codec::unpad(&padded).map_err(OpenError::Padding)?;
    Plaintext::new(value).map_err(OpenError::Value)
}

/// Wraps a DEK under a seed.
fn wrap(
    seed: &Seed,
    salt: &[u8; 32],
    nonce: &[u8; aead::NONCE],
    wrap_aad: &[u8],
    dek: &[u8; aead::KEY],
) -> Result<Vec<u8>, SealError> {
    let mut buffer = Zeroizing::new(Vec::with_capacity(WRAPPED));
    buffer.extend_from_slice(dek);
    aead::seal(&seed.wrapping_key(salt), nonce, wrap_aad, buffer).map_err(|_| SealError::Cipher)
}

/// The reverse of [`wrap`].
fn unwrap(seed: &Seed, fields: &Fields<'_>, wrap_aad: &[u8]) -> Result<Zeroizing<[u8; aead::KEY]>, OpenError> {
    let unwrapped = aead::open(&seed.wrapping_key(fields.salt), fields.wrap_nonce, wrap_aad, fields.wrapped)
        .map_err(|_| OpenError::Wrap)?;
    let mut dek = Zeroizing::new([0; aead::KEY]);
    dek.copy_from_slice(unwrapped.get(..aead::KEY).ok_or(OpenError::Wrap)?);
    Ok(dek)
}

impl Record {
    /// Checks the format: magic, suite, purpose, and every length.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        let fields = Fields::read(bytes)?;
        Ok(Self {
            version: u64::from_be_bytes(*fields.version),
            uid: fields.uid.to_owned(),
            seed_id: SeedId(*fields.seed_id),
            commitment: *fields.commitment,
            bytes: bytes.to_vec(),
        })
    }

    /// The value's version, as the record has it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Uid of the `ManagedSecret` that wrote the record, as the record has it.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The seed it was sealed under.
    #[must_use]
    pub fn seed_id(&self) -> SeedId {
        self.seed_id
    }

    /// Its key commitment, which the mac over the metadata covers.
    #[must_use]
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// What is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("uid", &self.uid)
            .field("seed_id", &self.seed_id)
            .finish_non_exhaustive()
    }
}

/// A record's bytes, cut into fields.
struct Fields<'a> {
    version: &'a [u8; 8],
    uid: &'a str,
    seed_id: &'a [u8; 8],
    salt: &'a [u8; 32],
    wrap_nonce: &'a [u8; aead::NONCE],
    wrapped: &'a [u8; WRAPPED],
    commitment: &'a [u8; 32],
    payload_nonce: &'a [u8; aead::NONCE],
    payload: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, OpenError> {
        const SHORT: OpenError = OpenError::Format("must not end before its last field");
        let mut reader = Reader::new(bytes);
        if reader.array::<4>().ok_or(SHORT)? != MAGIC {
            return Err(OpenError::Format("must begin with MSE1"));
        }
        if reader.array::<1>().ok_or(SHORT)? != &[SUITE] {
            return Err(OpenError::Format("must have suite 1"));
        }
        if reader.array::<1>().ok_or(SHORT)? != &[PURPOSE] {
            return Err(OpenError::Format("must have purpose 1"));
        }
        let version = reader.array().ok_or(SHORT)?;
        let uid = reader.field().ok_or(SHORT)?;
        if uid.len() > UID_MAX {
            return Err(OpenError::Format("must have a uid of at most 64 bytes"));
        }
        let fields = Self {
            version,
            uid: std::str::from_utf8(uid).map_err(|_| OpenError::Format("must have a uid in UTF-8"))?,
            seed_id: reader.array().ok_or(SHORT)?,
            salt: reader.array().ok_or(SHORT)?,
            wrap_nonce: reader.array().ok_or(SHORT)?,
            wrapped: reader.array().ok_or(SHORT)?,
            commitment: reader.array().ok_or(SHORT)?,
            payload_nonce: reader.array().ok_or(SHORT)?,
            payload: reader.rest(),
        };
        match fields.payload.len().checked_sub(aead::TAG) {
            Some(length) if codec::is_bucket(length) => Ok(fields),
            _ => Err(OpenError::Format("must have a payload padded to 64, 128, 256 … 16384 bytes")),
        }
    }
}

/// The two keys derived from a DEK.
struct PayloadKeys {
    encryption: Zeroizing<[u8; 32]>,
    commitment: Zeroizing<[u8; 32]>,
}

impl PayloadKeys {
    fn derive(dek: &[u8; aead::KEY], payload_aad: &[u8]) -> Self {
        let prk = Hkdf::<Sha256>::new(Some(b"MSE1/dek"), dek);
        Self {
            encryption: seed::expand(&prk, &[b"enc", payload_aad]),
            commitment: seed::expand(&prk, &[b"commit", payload_aad]),
        }
    }

    /// Checks that the record commits to these keys.
    fn matches(&self, fields: &Fields<'_>) -> Result<(), OpenError> {
        if bool::from(self.commitment.as_slice().ct_eq(fields.commitment)) {
            Ok(())
        } else {
            Err(OpenError::Commitment)
        }
    }
}

/// `A_wrap` and `A_payload`: what ties a ciphertext to its object, its writer and its version.
fn associated_data(label: &str, place: &Place<'_>, uid: &str, version: u64) -> Result<Vec<u8>, FieldTooLong> {
    let mut out = Vec::with_capacity(128);
    codec::put(&mut out, label.as_bytes())?;
    out.extend_from_slice(&[SUITE, PURPOSE]);
    for field in [place.namespace, place.object, "value", uid] {
        codec::put(&mut out, field.as_bytes())?;
    }
    out.extend_from_slice(&version.to_be_bytes());
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
