//! A key-encryption key that this process holds: the providers "local" and "file".

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::{KeyId, RandomError, aead, random};

/// `LP("MSK1")`.
const AAD: &[u8] = b"\x00\x04MSK1";

/// 32 random bytes that wrap seeds. Zeroized on drop; shows only its id.
pub struct Kek {
    bytes: Zeroizing<[u8; 32]>,
    id: KeyId,
}

/// Why a KEK did not do what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KekError {
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The bytes are no KEK.
    #[error("a key-encryption key must be 32 bytes")]
    Length,
    /// The ciphertext was encrypted with another KEK, or was altered.
    #[error("the ciphertext was encrypted with another key, or was altered")]
    Refused,
}

impl Kek {
    /// The KEK with these bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, KekError> {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.try_into().map_err(|_| KekError::Length)?);
        Ok(Self { id: KeyId::of(bytes.as_slice()), bytes })
    }

    /// A fresh KEK from the operating system's randomness.
    pub fn generate() -> Result<Self, RandomError> {
        let bytes = random::bytes()?;
        Ok(Self { id: KeyId::of(bytes.as_slice()), bytes })
    }

    /// Its public name, SHA-256(KEK)[..8].
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// The bytes, for the code that stores the KEK.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Base64 of `nonce | AES-256-GCM(KEK, nonce, plaintext, aad = LP("MSK1"))`.
    pub fn wrap(&self, plaintext: &[u8]) -> Result<String, KekError> {
        let nonce = random::bytes::<{ aead::NONCE }>()?;
        let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.len() + aead::TAG));
        buffer.extend_from_slice(plaintext);
        let sealed = aead::seal(&self.bytes, &nonce, AAD, buffer).map_err(|_| KekError::Refused)?;
        Ok(BASE64_STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// The reverse of [`Kek::wrap`].
    pub fn unwrap(&self, ciphertext: &str) -> Result<Zeroizing<Vec<u8>>, KekError> {
        let bytes = BASE64_STANDARD.decode(ciphertext).map_err(|_| KekError::Refused)?;
        let (nonce, sealed) = bytes.split_first_chunk().ok_or(KekError::Refused)?;
        aead::open(&self.bytes, nonce, AAD, sealed).map_err(|_| KekError::Refused)
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek({})", self.id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrapped_comes_back_under_the_same_key_only() {
        let (kek, other) = (Kek::new(&[1; 32]).unwrap(), Kek::generate().unwrap());
        let wrapped = kek.wrap(b"seed").unwrap();
        assert_eq!(kek.unwrap(&wrapped).unwrap().as_slice(), b"seed");
        assert_eq!(other.unwrap(&wrapped).unwrap_err(), KekError::Refused);
        assert_ne!(wrapped, kek.wrap(b"seed").unwrap());
    }

    #[test]
    fn every_single_bit_flip_is_refused() {
        let kek = Kek::new(&[1; 32]).unwrap();
        let bytes = BASE64_STANDARD.decode(kek.wrap(b"seed").unwrap()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(kek.unwrap(&BASE64_STANDARD.encode(flipped)).unwrap_err(), KekError::Refused, "{bit}");
        }
        for text in ["", "AAAA", "?"] {
            assert_eq!(kek.unwrap(text).unwrap_err(), KekError::Refused);
        }
    }

    #[test]
    fn a_kek_is_32_bytes_and_shows_its_id_only() {
        assert_eq!(Kek::new(&[1; 31]).unwrap_err(), KekError::Length);
        assert_eq!(Kek::new(&[1; 33]).unwrap_err(), KekError::Length);
        // sha256 of 32 bytes 01, by coreutils.
        assert_eq!(format!("{:?}", Kek::new(&[1; 32]).unwrap()), "Kek(72cd6e8422c407fb)");
    }
}
