//! Short public names of keys: 8 bytes, written in hex. An index into the keyring, not a pin.

use std::fmt;

macro_rules! key_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub [u8; 8]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

key_name! {
    /// Names a seed: derived from it, so a substituted seed is noticed.
    SeedId
}

key_name! {
    /// Names a sealing key or a KEK: the first 8 bytes of the SHA-256 of the public key, or of the KEK.
    KeyId
}

impl KeyId {
    /// Reads the name as it is written; `None` if the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 8];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id)).filter(|id| id.to_string() == text)
    }

    /// The name of the key (or public key) with these bytes.
    pub(super) fn of(key: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        let mut id = [0; 8];
        id.copy_from_slice(&Sha256::digest(key)[..8]);
        Self(id)
    }
}
