//! The template of a target: its texts only where they are short or were read live, its keys and a digest always.
//!
//! Texts may have 64 KiB, and anyone who may edit ManagedSecrets may apply any number of specs. The keys tell what the
//! operator owns of a target, and the digest, as an annotation of the target, by which template its data was made. The
//! texts are needed for a write alone, and for the look before an adoption.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::{
    limits::{SECRET_KEY_MAX, TEMPLATE_KEYS_MAX},
    template,
};

use super::{
    clip,
    packed::{Pack, Reader, Writer},
    shape::TEXT_KEPT_BYTES,
};

/// A template that has at least one key.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetTemplate {
    /// With its texts, by their keys.
    Texts(BTreeMap<String, String>),
    /// A live read has to tell the texts.
    Digest {
        /// Its keys.
        keys: BTreeSet<String>,
        /// Its digest.
        digest: [u8; 32],
    },
}

impl TargetTemplate {
    /// Of the texts of a spec; `None` where there are none.
    #[must_use]
    pub fn new(texts: BTreeMap<String, String>) -> Option<Self> {
        (!texts.is_empty()).then_some(Self::Texts(texts))
    }

    /// What a cache keeps: the texts only where they are short.
    #[must_use]
    pub fn kept(self) -> Self {
        match self {
            Self::Texts(texts) if is_short(&texts) => Self::Texts(texts),
            Self::Texts(texts) => {
                let digest = template::digest(&texts);
                // More and longer ones take a CRD of another version, and such a spec is not followed.
                let keys = texts.into_keys().take(TEMPLATE_KEYS_MAX).map(|mut key| {
                    clip(&mut key, SECRET_KEY_MAX);
                    key
                });
                Self::Digest { keys: keys.collect(), digest }
            }
            digest @ Self::Digest { .. } => digest,
        }
    }

    /// The texts by their keys; `None` where a live read has to tell.
    #[must_use]
    pub fn texts(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Texts(texts) => Some(texts),
            Self::Digest { .. } => None,
        }
    }

    /// Its keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let (texts, keys) = match self {
            Self::Texts(texts) => (Some(texts), None),
            Self::Digest { keys, .. } => (None, Some(keys)),
        };
        texts.into_iter().flat_map(BTreeMap::keys).chain(keys.into_iter().flatten()).map(String::as_str)
    }

    /// Its digest, as a target carries it.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(match self {
            Self::Texts(texts) => template::digest(texts),
            Self::Digest { digest, .. } => *digest,
        })
    }
}

fn is_short(texts: &BTreeMap<String, String>) -> bool {
    texts.len() <= TEMPLATE_KEYS_MAX
        && texts.iter().map(|(key, text)| key.len() + text.len()).sum::<usize>() <= TEXT_KEPT_BYTES
}

impl Pack for TargetTemplate {
    fn pack(&self, to: &mut Writer) {
        let (texts, digest) = match self {
            Self::Texts(texts) => (Some(texts), None),
            Self::Digest { keys, digest } => (None, Some((keys, digest))),
        };
        texts.is_some().pack(to);
        if let Some(texts) = texts {
            texts.pack(to);
        }
        if let Some((keys, digest)) = digest {
            keys.pack(to);
            digest.pack(to);
        }
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        if bool::unpack(from) {
            return Self::Texts(Pack::unpack(from));
        }
        Self::Digest { keys: Pack::unpack(from), digest: Pack::unpack(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(texts: &[(&str, &str)]) -> TargetTemplate {
        TargetTemplate::Texts(texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn a_cache_keeps_short_texts_and_of_longer_ones_the_keys_and_a_digest() {
        let short = template(&[("url", &"x".repeat(TEXT_KEPT_BYTES - 3))]);
        assert_eq!(short.clone().kept(), short);
        let long = template(&[("url", &"x".repeat(TEXT_KEPT_BYTES - 3)), ("a", "")]);
        let kept = long.clone().kept();
        assert!(kept.texts().is_none() && kept.keys().eq(["a", "url"]) && kept.digest() == long.digest());
        assert_eq!(kept.clone().kept(), kept);
        assert_ne!(template(&[("url", "y")]).digest(), template(&[("url", "x")]).digest());
        assert_eq!(TargetTemplate::new(BTreeMap::new()), None);
    }
}
