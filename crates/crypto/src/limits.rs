//! Limits of values and of their encrypted forms, and of the names that they are bound to. Characters are Unicode
//! scalar values.

/// Shortest value, in characters.
pub const VALUE_MIN: usize = 1;
/// Longest value, in characters.
pub const VALUE_MAX: usize = 3500;
/// Longest Secret name (DNS subdomain), in characters.
pub const SECRET_NAME_MAX: usize = 253;
/// Longest namespace (DNS label), in characters.
pub const NAMESPACE_MAX: usize = 63;

/// The prefix of every sealed value; base64url without padding follows.
pub const SEALED_PREFIX: &str = "mss1.";
/// The first bytes of every sealed value: version 1, KEM X-Wing (0x647a), KDF HKDF-SHA256 (0x0001), AEAD AES-256-GCM
/// (0x0002). The numbers are IANA's HPKE registry's.
pub const SEALED_SUITE: [u8; 7] = [0x01, 0x64, 0x7a, 0x00, 0x01, 0x00, 0x02];
/// Bytes of the id of a sealing key in a sealed value.
pub const SEALED_KEY_ID_BYTES: usize = 8;
/// The bit of the scope byte that means "kept": delivering the value needs the permission to read it.
pub const SEALED_KEPT_BIT: u8 = 0x80;
/// Bytes of an encapsulated X-Wing key: an ML-KEM-768 ciphertext and an X25519 public key.
pub const SEALED_ENC_BYTES: usize = 1120;
/// Bytes of an AES-GCM tag.
pub const AEAD_TAG_BYTES: usize = 16;
/// Smallest padded value, in bytes.
pub const BUCKET_MIN: usize = 64;
/// Largest padded value, in bytes: holds [`VALUE_MAX`] characters of four bytes and a length of four.
pub const BUCKET_MAX: usize = 16_384;
/// Length of the shortest sealed value (cluster scope, smallest bucket), in characters.
pub const SEALED_MIN: usize = sealed_length(0, 0, BUCKET_MIN);
/// Length of the longest sealed value (strict scope, longest names, largest bucket), in characters.
pub const SEALED_MAX: usize = sealed_length(NAMESPACE_MAX, SECRET_NAME_MAX, BUCKET_MAX);

/// Characters of a sealed value for a namespace and a name of these lengths, and a padded value of `bucket` bytes.
const fn sealed_length(namespace: usize, name: usize, bucket: usize) -> usize {
    let scope = 1;
    let header = SEALED_SUITE.len() + SEALED_KEY_ID_BYTES + scope + 2 + namespace + 2 + name;
    let bytes = header + SEALED_ENC_BYTES + bucket + AEAD_TAG_BYTES;
    SEALED_PREFIX.len() + (bytes * 4).div_ceil(3)
}
