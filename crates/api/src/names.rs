//! Names derived from names.

use sha2::{Digest, Sha256};

use super::keys::RECORD_PREFIX;

/// RFC 4648 section 6, in lower case: what a Kubernetes object name may hold.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Object name of the backing record of the secret called `name`.
///
/// `msec-` + base32(SHA-256(name)[..20]): 160 bits are 32 characters without padding. Two ManagedSecrets with one name
/// compete for one object name, so the API server itself keeps names unique.
#[must_use]
pub fn record_name(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let mut out = String::with_capacity(RECORD_PREFIX.len() + 32);
    out.push_str(RECORD_PREFIX);
    for group in digest[..20].chunks_exact(5) {
        let bits = group.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
        for shift in (0..8).rev() {
            out.push(char::from(BASE32[((bits >> (shift * 5)) & 31) as usize]));
        }
    }
    out
}

/// Name of an object of the cluster that belongs to one installation: that of an operator for the whole cluster, or of
/// one for some namespaces, of which a cluster may have several, each in a namespace of its own.
#[must_use]
pub fn cluster_object_name(name: &str, operator_namespace: &str, whole_cluster: bool) -> String {
    if whole_cluster { name.to_owned() } else { format!("{name}.{operator_namespace}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected names were computed with Python's hashlib and base64 modules.
    #[test]
    fn record_names_match_an_independent_computation() {
        assert_eq!(record_name("WEATHER_API_KEY"), "msec-ayjtvytngnu4vqtp6gvulissfxwnndnb");
        assert_eq!(record_name("a"), "msec-zklycewkdo64v6wcggzzui64jwtyn37y");
    }
}
