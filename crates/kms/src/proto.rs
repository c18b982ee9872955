//! The messages of the KMS v2 contract, package `v2`, as prost encodes them.
//!
//! Written after `k8s.io/kms/apis/v2/api.proto`, Copyright 2022 The Kubernetes Authors, Apache License 2.0. They are few and
//! frozen, so the build needs neither `protoc` nor generated code. Tests call a server that is built from the original.

use std::collections::HashMap;

use zeroize::Zeroize;

/// The paths of the three calls, of the service `v2.KeyManagementService`.
pub mod path {
    /// Status.
    pub const STATUS: &str = "/v2.KeyManagementService/Status";
    /// Encrypt.
    pub const ENCRYPT: &str = "/v2.KeyManagementService/Encrypt";
    /// Decrypt.
    pub const DECRYPT: &str = "/v2.KeyManagementService/Decrypt";
}

/// Asks for the status.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {}

/// The status.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// Version of the contract: `v2` or `v2beta1`.
    #[prost(string, tag = "1")]
    pub version: String,
    /// `ok`, or why the plugin is not healthy.
    #[prost(string, tag = "2")]
    pub healthz: String,
    /// Id of the key that encrypts now.
    #[prost(string, tag = "3")]
    pub key_id: String,
}

/// Asks to encrypt. Its plaintext is zeroized on drop, and is not shown.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct EncryptRequest {
    /// What to encrypt.
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    /// Id of this request, for the plugin's log.
    #[prost(string, tag = "2")]
    pub uid: String,
}

/// What was encrypted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncryptResponse {
    /// 1 to 1,024 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// Id of the key that encrypted it.
    #[prost(string, tag = "2")]
    pub key_id: String,
    /// What the plugin wants back with the ciphertext; not secret.
    #[prost(map = "string, bytes", tag = "3")]
    pub annotations: HashMap<String, Vec<u8>>,
}

/// Asks to decrypt.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecryptRequest {
    /// What Encrypt answered.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// Id of this request, for the plugin's log.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// What Encrypt answered.
    #[prost(string, tag = "3")]
    pub key_id: String,
    /// What Encrypt answered.
    #[prost(map = "string, bytes", tag = "4")]
    pub annotations: HashMap<String, Vec<u8>>,
}

/// What was decrypted. Its plaintext is zeroized on drop, and is not shown.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct DecryptResponse {
    /// The plaintext.
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

impl Drop for EncryptRequest {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl Drop for DecryptResponse {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl std::fmt::Debug for EncryptRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptRequest").field("uid", &self.uid).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DecryptResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecryptResponse").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use prost::Message as _;

    use super::*;

    /// The bytes by hand, after the encoding of protocol buffers: tag, length, content.
    #[test]
    fn messages_have_the_fields_of_the_contract() {
        let status = StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: "1".into() };
        assert_eq!(hex::encode(status.encode_to_vec()), "0a02763212026f6b1a0131");
        let encrypt = EncryptRequest { plaintext: b"p".to_vec(), uid: "u".into() };
        assert_eq!(hex::encode(encrypt.encode_to_vec()), "0a0170120175");
        let annotations = HashMap::from([("a.b".to_owned(), b"c".to_vec())]);
        let decrypt = DecryptRequest { ciphertext: b"c".to_vec(), uid: "u".into(), key_id: "1".into(), annotations };
        assert_eq!(hex::encode(decrypt.encode_to_vec()), "0a01631201751a013122080a03612e62120163");
        let answer = hex::decode("0a01631201311a080a03612e62120163").unwrap();
        let encrypted = EncryptResponse::decode(answer.as_slice()).unwrap();
        assert_eq!((encrypted.key_id.as_str(), encrypted.annotations["a.b"].as_slice()), ("1", b"c".as_slice()));
        assert_eq!(DecryptResponse::decode([0x0a, 1, b'p'].as_slice()).unwrap().plaintext, b"p");
    }

    #[test]
    fn plaintexts_are_not_shown() {
        let request = EncryptRequest { plaintext: b"hunter2".to_vec(), uid: "u".into() };
        let answer = DecryptResponse { plaintext: b"hunter2".to_vec() };
        assert_eq!(format!("{request:?} {answer:?}"), "EncryptRequest { uid: \"u\", .. } DecryptResponse { .. }");
    }
}
