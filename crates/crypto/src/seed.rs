//! A seed: 32 random bytes of the keyring, and the keys derived from it.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{RandomError, SeedId, random};

/// 32 bytes that a record's keys are derived from. Zeroized on drop; shows only its id.
pub struct Seed {
    bytes: Zeroizing<[u8; 32]>,
    id: SeedId,
}

impl Seed {
    /// The seed with these bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&derive(&bytes, None, b"MSE1/id")[..8]);
        Self { bytes, id: SeedId(id) }
    }

    /// A fresh seed from the operating system's randomness.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::new(random::bytes()?))
    }

    /// Its public name, `HKDF(seed, "MSE1/id", 8)`.
    #[must_use]
    pub fn id(&self) -> SeedId {
        self.id
    }

    /// `MK`, which authenticates the metadata of records.
    pub(super) fn metadata_key(&self) -> Zeroizing<[u8; 32]> {
        derive(&self.bytes, None, b"MSE1/meta")
    }

    /// `WK`, which wraps one DEK.
    pub(super) fn wrapping_key(&self, salt: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        derive(&self.bytes, Some(salt), b"MSE1/wrap")
    }

    /// The bytes, for wrapping under the KEK.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed({})", self.id)
    }
}

/// `HKDF-SHA256(ikm, salt, info, 32)`. A shorter output is its beginning: HKDF-Expand's output has no length in it.
pub(super) fn derive(ikm: &[u8; 32], salt: Option<&[u8]>, info: &[u8]) -> Zeroizing<[u8; 32]> {
    expand(&Hkdf::new(salt, ikm), &[info])
}

/// `HKDF-Expand(prk, info…, 32)`.
pub(super) fn expand(prk: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let expanded = prk.expand_multi_info(info, key.as_mut_slice());
    // HKDF-SHA256 refuses only outputs beyond 255 blocks of 32 bytes (RFC 5869, section 2.3); this is one block.
    debug_assert!(expanded.is_ok(), "one block is within HKDF's limit");
    key
}
