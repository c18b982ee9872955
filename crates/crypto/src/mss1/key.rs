//! The two halves of a sealing key.

use std::fmt;

use hpke::kem::XWing;
use hpke::{Deserializable, Kem, Serializable};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::KeyId;

/// Bytes of an X-Wing public key.
const PUBLIC: usize = 1216;

/// What values are sealed for. Anyone may have it.
#[derive(Clone)]
pub struct PublicKey {
    bytes: Vec<u8>,
    hpke: <XWing as Kem>::PublicKey,
}

/// The bytes are no X-Wing public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a public key must be {PUBLIC} bytes that encode an X-Wing key")]
pub struct PublicKeyError;

impl PublicKey {
    /// Checks the encoding.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let hpke = <XWing as Kem>::PublicKey::from_bytes(bytes).map_err(|_| PublicKeyError)?;
        Ok(Self { bytes: bytes.to_vec(), hpke })
    }

    /// Its encoding: ML-KEM-768's encapsulation key, then X25519's public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its short name: an index, not a pin.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::of(&self.bytes)
    }

    /// SHA-256 of the key in hex: what people compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }

    pub(crate) fn hpke(&self) -> &<XWing as Kem>::PublicKey {
        &self.hpke
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

/// Opens sealed values: an X-Wing key pair, derived from a 32-byte seed. Zeroized on drop.
pub struct SealingKey {
    seed: Zeroizing<[u8; 32]>,
    hpke: <XWing as Kem>::PrivateKey,
    public: PublicKey,
    key_id: KeyId,
}

impl SealingKey {
    /// The key pair of this X-Wing seed.
    pub fn new(seed: Zeroizing<[u8; 32]>) -> Result<Self, PublicKeyError> {
        let hpke = <XWing as Kem>::PrivateKey::from_bytes(seed.as_slice()).map_err(|_| PublicKeyError)?;
        let public_key = XWing::sk_to_pk(&hpke);
        let public = PublicKey { bytes: public_key.to_bytes().to_vec(), hpke: public_key };
        Ok(Self { key_id: public.key_id(), seed, hpke, public })
    }

    /// The half that values are sealed for.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Its short name.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The seed, for wrapping under the KEK.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    pub(crate) fn hpke(&self) -> &<XWing as Kem>::PrivateKey {
        &self.hpke
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.key_id)
    }
}
