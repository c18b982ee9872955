//! The recovery key: an X-Wing key pair that is kept offline, and the keys of a keyring sealed to it.
//!
//! ```text
//!  recovery key, in a safe:  "msec-recovery-key-1." + hex( 32 seed | 4 checksum )
//!  recipient, its public half: "msec-recipient-1." + base64url-no-pad( 1216 public key | 4 checksum )
//!
//!  copy of a keyring's entry: 1 version=0x01 | 2 kem | 2 kdf | 2 aead | 8 recipient id | 1120 enc | ciphertext of P
//!  info = "managedsecrets.dev/recovery"     aad = every byte before enc
//!  mac  = HMAC-SHA256(HKDF(seed, none, "MSK1/recovery", 32), SHA-256(public key) || copy)
//! ```
//!
//! P is what a KEK wraps, too: purpose, id, creation date and seed. Suite and HPKE are those of [`mss1`](crate::mss1);
//! the info differs, so neither opens as the other. The mac proves that the copy was written by a program that holds the
//! seed: an operator, which cannot open the copy, tells with it whether its key is covered. The formats are frozen.
//!
//! HPKE's base mode proves nothing about the author of a copy. Keys that a recovery key opens are as trustworthy as the
//! document that they come from.

mod cover;
mod open;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use self::cover::{Coverage, copied, cover, coverage};
pub use self::open::{Lost, Recovered};
use crate::codec::Reader;
use crate::limits::{SEALED_ENC_BYTES as ENC, SEALED_SUITE as SUITE};
use crate::mss1::{PublicKey, PublicKeyError, SealingKey};
use crate::{KeyId, RandomError, random, seed};

/// What a recovery key begins with, for people and for programs that look for keys in files.
pub const KEY_PREFIX: &str = "msec-recovery-key-1.";
/// What a recipient begins with.
pub const RECIPIENT_PREFIX: &str = "msec-recipient-1.";

const INFO: &[u8] = b"managedsecrets.dev/recovery";
/// Bytes of a checksum.
const CHECKSUM: usize = 4;

/// The key of an entry, sealed to a recovery key.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RecoveryCopy {
    /// Which recovery key opens it: hex of SHA-256(public key)[..8].
    pub recipient: String,
    /// Base64 of the sealed bytes.
    pub sealed: String,
    /// Base64 of the mac that a holder of the entry's key has computed.
    pub mac: String,
    /// Fields of later versions. A program that writes the document keeps them.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// The public half of a recovery key: what keys are sealed to. Anyone may have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipient(PublicKey);

/// A recovery key. Zeroized on drop; shows only its id.
pub struct RecoveryKey(SealingKey);

/// The text is no recipient.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "must be a recipient as `kubectl msec recovery-key generate` prints it: {RECIPIENT_PREFIX} and 1627 characters"
)]
pub struct RecipientError;

/// The text holds no recovery key. Says nothing of its content.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyTextError {
    /// No line is a key.
    #[error("must have one line that begins with {KEY_PREFIX}")]
    Missing,
    /// Two lines are keys.
    #[error("must have one recovery key, and has several")]
    Several,
    /// The line is cut, or a character is wrong.
    #[error("has a recovery key that is incomplete or mistyped: its checksum does not match")]
    Checksum,
}

/// Why a recovery key was not created, or a key not sealed to one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// X-Wing refused its own key. Never happens.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// HPKE refused. Never happens with a checked key.
    #[error("the cipher refused the key")]
    Cipher,
}

/// Why a copy does not open.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// It is sealed to other recovery keys only.
    #[error("is not sealed to this recovery key")]
    OtherRecipient,
    /// It was altered.
    #[error("has a copy for this recovery key that was altered")]
    Tampered,
    /// What was sealed is not what its entry says.
    #[error("does not match its copy for this recovery key: {0} differs")]
    Entry(&'static str),
}

impl Recipient {
    /// Its short name: an index, not a pin.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.0.key_id()
    }

    /// SHA-256 of the public key in hex: what people compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    /// Seals what a KEK wraps to this recipient.
    fn seal(&self, envelope: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut bytes = header(self.id());
        // HPKE's own choice of generator panics where the operating system gives no randomness; this one says so.
        let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(|_| RandomError)?;
        let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
            &OpModeS::Base,
            self.0.hpke(),
            INFO,
            envelope,
            &bytes,
            &mut rng,
        )
        .map_err(|_| SealError::Cipher)?;
        bytes.extend_from_slice(&enc.to_bytes());
        bytes.extend_from_slice(&ciphertext);
        Ok(bytes)
    }

    /// The mac over a copy, ready to finish or compare.
    fn mac(&self, key: &[u8; 32], sealed: &[u8]) -> Hmac<Sha256> {
        // HMAC's own rule for a key shorter than its block: zeros follow (RFC 2104, section 2).
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(seed::derive(key, None, b"MSK1/recovery").as_slice());
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(&Sha256::digest(self.0.as_bytes()));
        mac.update(sealed);
        mac
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0.as_bytes();
        let bytes = [key, &checksum(RECIPIENT_PREFIX, key)].concat();
        write!(f, "{RECIPIENT_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.trim().strip_prefix(RECIPIENT_PREFIX).ok_or(RecipientError)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| RecipientError)?;
        let (key, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(RecipientError)?;
        if checksum(RECIPIENT_PREFIX, key) != *sum {
            return Err(RecipientError);
        }
        PublicKey::from_bytes(key).map(Self).map_err(|_| RecipientError)
    }
}

impl RecoveryKey {
    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self(SealingKey::new(random::bytes()?)?))
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.public().clone())
    }

    /// The line that [`parse`](Self::parse) reads.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = self.0.seed();
        let mut text = Zeroizing::new(String::with_capacity(KEY_PREFIX.len() + 2 * (seed.len() + CHECKSUM)));
        text.push_str(KEY_PREFIX);
        text.push_str(&Zeroizing::new(hex::encode(seed)));
        text.push_str(&hex::encode(checksum(KEY_PREFIX, seed)));
        text
    }

    /// Reads a file: one line is the key, and lines that begin with `#` and empty lines are not read. White space in the
    /// line does not count, so that a key can be typed from paper in groups.
    pub fn parse(file: &str) -> Result<Self, KeyTextError> {
        let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys = lines.map(|line| line.strip_prefix(KEY_PREFIX));
        let digits = keys.next().flatten().ok_or(KeyTextError::Missing)?;
        if keys.next().is_some() {
            return Err(KeyTextError::Several);
        }
        let mut compact = Zeroizing::new(Vec::with_capacity(digits.len()));
        compact.extend(digits.bytes().filter(|byte| !byte.is_ascii_whitespace()));
        let bytes = hex::decode(&*compact).map(Zeroizing::new).map_err(|_| KeyTextError::Checksum)?;
        let (seed, sum) = bytes.split_first_chunk::<32>().ok_or(KeyTextError::Checksum)?;
        if checksum(KEY_PREFIX, seed) != *sum {
            return Err(KeyTextError::Checksum);
        }
        SealingKey::new(Zeroizing::new(*seed)).map(Self).map_err(|_| KeyTextError::Checksum)
    }

    /// Opens the bytes of a copy.
    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut reader = Reader::new(sealed);
        let (suite, id) = (reader.array::<7>(), reader.array::<8>());
        let enc = reader.array::<ENC>();
        let (Some(suite), Some(id), Some(enc)) = (suite, id, enc) else { return Err(OpenError::Tampered) };
        if suite != &SUITE {
            return Err(OpenError::Tampered);
        }
        let enc = <XWing as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| OpenError::Tampered)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
            &OpModeR::Base,
            self.0.hpke(),
            &enc,
            INFO,
            reader.rest(),
            &header(KeyId(*id)),
        )
        .map(Zeroizing::new)
        .map_err(|_| OpenError::Tampered)
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryKey({})", self.0.key_id())
    }
}

impl RecoveryCopy {
    /// Seals a key's envelope to a recipient.
    fn seal(recipient: &Recipient, key: &[u8; 32], envelope: &[u8]) -> Result<Self, SealError> {
        let sealed = recipient.seal(envelope)?;
        let mac = recipient.mac(key, &sealed).finalize().into_bytes();
        Ok(Self {
            recipient: recipient.id().to_string(),
            sealed: BASE64_STANDARD.encode(&sealed),
            mac: BASE64_STANDARD.encode(mac),
            unknown: Map::new(),
        })
    }

    /// Whether a holder of this key sealed it to this recipient.
    fn is_of(&self, recipient: &Recipient, key: &[u8; 32]) -> bool {
        let (Ok(sealed), Ok(mac)) = (BASE64_STANDARD.decode(&self.sealed), BASE64_STANDARD.decode(&self.mac)) else {
            return false;
        };
        self.recipient == recipient.id().to_string() && recipient.mac(key, &sealed).verify_slice(&mac).is_ok()
    }
}

/// Every byte before the encapsulated key.
fn header(recipient: KeyId) -> Vec<u8> {
    [SUITE.as_slice(), &recipient.0].concat()
}

/// Finds a mistyped character: 4 bytes of SHA-256(prefix || bytes).
fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(prefix).chain_update(bytes).finalize();
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest[..CHECKSUM]);
    sum
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests;
