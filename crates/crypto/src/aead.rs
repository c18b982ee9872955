//! AES-256-GCM with a 96-bit nonce, as every format of this crate uses it: `ciphertext | 16-byte tag`.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use zeroize::Zeroizing;

pub(super) use crate::limits::AEAD_TAG_BYTES as TAG;

/// Bytes of a key.
pub(super) const KEY: usize = 32;
/// Bytes of a nonce.
pub(super) const NONCE: usize = 12;

/// The cipher refused: on opening, key, nonce, associated data or ciphertext are not the ones sealed with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the cipher refused the input")]
pub(super) struct Refused;

/// Encrypts `buffer` in place. Give it [`TAG`] bytes of spare capacity, or growing leaves a copy behind.
pub(super) fn seal(
    key: &[u8; KEY],
    nonce: &[u8; NONCE],
    aad: &[u8],
    mut buffer: Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, Refused> {
    let cipher = Aes256Gcm::new(<&Key<Aes256Gcm>>::from(key));
    cipher.encrypt_in_place(&Nonce::from(*nonce), aad, &mut *buffer).map_err(|_| Refused)?;
    Ok(std::mem::take(&mut *buffer))
}

/// Decrypts `ciphertext | tag`.
pub(super) fn open(
    key: &[u8; KEY],
    nonce: &[u8; NONCE],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let cipher = Aes256Gcm::new(<&Key<Aes256Gcm>>::from(key));
    cipher.decrypt_in_place(&Nonce::from(*nonce), aad, &mut *buffer).map_err(|_| Refused)?;
    Ok(buffer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn matches_test_case_16_of_the_gcm_specification() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test case 16.
        let key: [u8; 32] = hex::decode("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
            .unwrap()
            .try_into()
            .unwrap();
        let nonce: [u8; 12] = hex::decode("cafebabefacedbaddecaf888").unwrap().try_into().unwrap();
        let aad = hex::decode("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
        let plain = hex::decode(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        )
        .unwrap();
        let sealed = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b";
        let got = seal(&key, &nonce, &aad, Zeroizing::new(plain.clone())).unwrap();
        assert_eq!(hex::encode(&got), sealed);
        assert_eq!(*open(&key, &nonce, &aad, &got).unwrap(), plain);
        assert!(open(&key, &nonce, &aad, &got[..15]).is_err());
        assert!(open(&key, &nonce, b"", &got).is_err());
    }
}
