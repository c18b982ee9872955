//! Labels and annotations of a target: digests, and the text only where it is short or was read live.
//!
//! A spec may ask for 152 KiB of them, and anyone who may edit ManagedSecrets may apply any number of specs. So a cache
//! keeps a digest: it tells whether a target is as a write would make it. The text is needed for the write alone, and is
//! read live right before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use managed_secrets_api::keys::{ANNOTATIONS, LABELS};
use sha2::{Digest as _, Sha256};

use super::packed::{Pack, Reader, Writer, fields};

/// Bytes of a target's labels and annotations, keys and values together, that a cache keeps as text. Most specs ask for
/// less, and need no read beside the watches.
pub const TEXT_KEPT_BYTES: usize = 1024;
/// Labels and annotations together that a cache keeps as text: each takes about 100 bytes, however short it is.
const TEXT_KEPT_ENTRIES: usize = 16;

/// Labels and annotations as they are written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MetadataText {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

fields!(MetadataText { labels, annotations });

impl MetadataText {
    fn is_short(&self) -> bool {
        let maps = [&self.labels, &self.annotations];
        let bytes: usize = maps.iter().flat_map(|map| map.iter()).map(|(key, text)| key.len() + text.len()).sum();
        bytes <= TEXT_KEPT_BYTES && maps.iter().map(|map| map.len()).sum::<usize>() <= TEXT_KEPT_ENTRIES
    }
}

/// The labels and annotations that a spec asks for on its target: always their digest, and their text unless it was too
/// long for a cache.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetMetadata {
    digest: MetadataDigest,
    text: Option<Box<MetadataText>>,
}

fields!(TargetMetadata { digest, text });

impl TargetMetadata {
    /// With the text.
    #[must_use]
    pub fn new(text: MetadataText) -> Self {
        Self { digest: MetadataDigest::of(&text.labels, &text.annotations), text: Some(Box::new(text)) }
    }

    /// What a cache keeps: the text only where it is short.
    #[must_use]
    pub fn kept(self) -> Self {
        Self { text: self.text.filter(|text| text.is_short()), ..self }
    }

    /// The text; `None` where a live read has to tell.
    #[must_use]
    pub fn text(&self) -> Option<&MetadataText> {
        self.text.as_deref()
    }
}

/// Tells whether labels and annotations of a Secret are what a write would make them, without keeping them.
///
/// The operator's own are apart from the user's, so that the shape that a spec asks for is known from the user's digest.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shape {
    operator: MetadataDigest,
    user: MetadataDigest,
}

fields!(Shape { operator, user });

impl Shape {
    /// Of a target with the operator's own labels and annotations, and those that a spec asks for.
    #[must_use]
    pub fn of(operator: &MetadataText, user: &TargetMetadata) -> Self {
        Self { operator: MetadataDigest::of(&operator.labels, &operator.annotations), user: user.digest }
    }

    /// Of those labels and annotations of a Secret whose keys are in the sets.
    pub(super) fn of_owned(
        labels: &BTreeMap<String, String>,
        label_keys: &BTreeSet<String>,
        annotations: &BTreeMap<String, String>,
        annotation_keys: &BTreeSet<String>,
    ) -> Self {
        // What the field manager owns although it is not there any more counts as empty.
        let part = |of_operator: bool| {
            let owned = |map, keys, fixed: &'static [&'static str]| {
                texts(map, keys).filter(move |(key, _)| fixed.contains(key) == of_operator)
            };
            MetadataDigest::of_texts(
                owned(labels, label_keys, &LABELS),
                owned(annotations, annotation_keys, &ANNOTATIONS),
            )
        };
        Self { operator: part(true), user: part(false) }
    }
}

fn texts<'m>(
    map: &'m BTreeMap<String, String>,
    keys: &'m BTreeSet<String>,
) -> impl Iterator<Item = (&'m str, &'m str)> {
    keys.iter().map(|key| (key.as_str(), map.get(key).map_or("", String::as_str)))
}

/// SHA-256 of labels and annotations.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct MetadataDigest([u8; 32]);

/// The digest of no labels and no annotations: most specs ask for none.
static OF_NOTHING: LazyLock<MetadataDigest> = LazyLock::new(|| MetadataDigest::of(&BTreeMap::new(), &BTreeMap::new()));

impl Pack for MetadataDigest {
    fn pack(&self, to: &mut Writer) {
        Some(self.0).filter(|_| *self != *OF_NOTHING).pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        Option::unpack(from).map_or(*OF_NOTHING, Self)
    }
}

impl MetadataDigest {
    fn of(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Self {
        fn all(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
            map.iter().map(|(key, text)| (key.as_str(), text.as_str()))
        }
        Self::of_texts(all(labels), all(annotations))
    }

    /// Of keys in ascending order, with their texts. Each part is preceded by its length, so that no two differ in their
    /// boundaries alone.
    fn of_texts<'t>(
        labels: impl Iterator<Item = (&'t str, &'t str)>,
        annotations: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Self {
        fn map<'t>(texts: impl Iterator<Item = (&'t str, &'t str)>) -> [u8; 32] {
            let mut digest = Sha256::new();
            for part in texts.flat_map(|(key, text)| [key, text]) {
                digest.update(part.len().to_be_bytes());
                digest.update(part);
            }
            digest.finalize().into()
        }
        let mut digest = Sha256::new();
        digest.update(map(labels));
        digest.update(map(annotations));
        Self(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use managed_secrets_api::keys::{ANNO_OWNER, LABEL_ROLE};

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    fn text(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> MetadataText {
        MetadataText { labels: map(labels), annotations: map(annotations) }
    }

    #[test]
    fn a_digest_differs_with_every_key_every_text_and_every_boundary() {
        let all = [
            text(&[], &[]),
            text(&[("a", "b")], &[]),
            text(&[], &[("a", "b")]),
            text(&[("a", "c")], &[]),
            text(&[("ab", "")], &[]),
            text(&[("", "ab")], &[]),
            text(&[("a", ""), ("b", "")], &[]),
            text(&[("a", "")], &[("b", "")]),
            text(&[("a", "b")], &[("a", "b")]),
            text(&[("a", "b"), ("c", "d")], &[]),
        ];
        let operator = MetadataText::default();
        for (n, one) in all.iter().enumerate() {
            for (m, other) in all.iter().enumerate() {
                let shape = |text: &MetadataText| Shape::of(&operator, &TargetMetadata::new(text.clone()));
                assert_eq!(shape(one) == shape(other), n == m, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn a_secret_as_it_was_written_has_the_shape_that_was_asked_for_and_no_other_has() {
        let user = text(&[("a", "1"), ("zone", "x")], &[("note", "long")]);
        let operator = text(&[(LABEL_ROLE, "target")], &[(ANNO_OWNER, "db")]);
        let wanted = Shape::of(&operator, &TargetMetadata::new(user).kept());
        let keys = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<BTreeSet<_>>();
        let labels = map(&[("a", "1"), ("zone", "x"), (LABEL_ROLE, "target")]);
        let annotations = map(&[("note", "long"), (ANNO_OWNER, "db"), ("theirs", "y")]);
        let ours = keys(&map(&[("note", ""), (ANNO_OWNER, "")]));
        let shape = |labels: &_, annotations: &_| Shape::of_owned(labels, &keys(labels), annotations, &ours);
        assert_eq!(shape(&labels, &annotations), wanted);
        let changed = |key: &str, to: &str| {
            let mut changed = annotations.clone();
            changed.insert(key.to_owned(), to.to_owned());
            changed
        };
        assert_eq!(shape(&labels, &changed("theirs", "z")), wanted, "others' are no part of it");
        assert_ne!(shape(&labels, &changed("note", "other")), wanted);
        assert_ne!(shape(&labels, &changed(ANNO_OWNER, "other")), wanted);
        assert_ne!(shape(&map(&[("a", "1"), (LABEL_ROLE, "target")]), &annotations), wanted);
        assert_ne!(shape(&map(&[("a", "1"), ("zone", "x")]), &annotations), wanted);
    }

    #[test]
    fn a_cache_keeps_short_text_and_of_longer_text_the_digest() {
        let short = TargetMetadata::new(text(&[("a", "1")], &[("note", &"x".repeat(TEXT_KEPT_BYTES - 6))]));
        assert_eq!(short.clone().kept(), short);
        let long = TargetMetadata::new(text(&[("a", "1")], &[("note", &"x".repeat(TEXT_KEPT_BYTES - 5))]));
        let keys: Vec<String> = (0..=TEXT_KEPT_ENTRIES).map(|n| n.to_string()).collect();
        let many: Vec<_> = keys.iter().map(|key| (key.as_str(), "")).collect();
        for large in [long, TargetMetadata::new(text(&many, &[]))] {
            let kept = large.clone().kept();
            assert!(large.text().is_some() && kept.text().is_none());
            assert_eq!(Shape::of(&MetadataText::default(), &kept), Shape::of(&MetadataText::default(), &large));
        }
    }
}
