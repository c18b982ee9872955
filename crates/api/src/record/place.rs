//! Where a value came from and where it is delivered, as a record's annotations say it.

use std::fmt;

use crate::types::SourceKind;

/// Which source a value came from, and the fingerprint of that source. Nothing of it is derived from a plaintext.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// Sealed text, by its SHA-256 in hex.
    Sealed {
        /// SHA-256 of the text, in hex.
        sha256: String,
    },
    /// A key of a Secret.
    Secret {
        /// Uid of that Secret.
        uid: String,
        /// Its resourceVersion when it was read.
        resource_version: String,
        /// The key.
        key: String,
    },
    /// The operator generated it.
    Generate {
        /// The revision of the spec that it was generated for.
        revision: Option<String>,
    },
}

const GENERATE: &str = "generate";

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed { sha256 } => write!(f, "value:sha256:{sha256}"),
            Self::Secret { uid, resource_version, key } => write!(f, "valueFrom:{uid}:{resource_version}:{key}"),
            Self::Generate { revision: None } => f.write_str(GENERATE),
            Self::Generate { revision: Some(revision) } => write!(f, "{GENERATE}:{revision}"),
        }
    }
}

impl Source {
    /// Which field of the spec it is.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Sealed { .. } => SourceKind::Value,
            Self::Secret { .. } => SourceKind::ValueFrom,
            Self::Generate { .. } => SourceKind::Generate,
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == GENERATE {
            return Some(Self::Generate { revision: None });
        }
        if let Some(revision) = text.strip_prefix(GENERATE).and_then(|rest| rest.strip_prefix(':')) {
            return Some(Self::Generate { revision: Some(revision.to_owned()) });
        }
        if let Some(sha256) = text.strip_prefix("value:sha256:") {
            return Some(Self::Sealed { sha256: sha256.to_owned() });
        }
        let mut parts = text.strip_prefix("valueFrom:")?.splitn(3, ':');
        Some(Self::Secret {
            uid: parts.next()?.to_owned(),
            resource_version: parts.next()?.to_owned(),
            key: parts.next()?.to_owned(),
        })
    }
}

/// Where a value is delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delivered {
    /// Into a Secret that the operator created.
    Own {
        /// Its name.
        name: String,
        /// The key of the value.
        key: String,
    },
    /// Into a Secret that existed before.
    Adopted {
        /// Its uid.
        uid: String,
        /// Its name.
        name: String,
        /// The key of the value.
        key: String,
    },
    /// Nowhere.
    None,
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { name, key } => write!(f, "own:{name}:{key}"),
            Self::Adopted { uid, name, key } => write!(f, "adopted:{uid}:{name}:{key}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Delivered {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::None);
        }
        if let Some(rest) = text.strip_prefix("own:") {
            let (name, key) = rest.split_once(':')?;
            return Some(Self::Own { name: name.to_owned(), key: key.to_owned() });
        }
        let mut parts = text.strip_prefix("adopted:")?.splitn(3, ':');
        Some(Self::Adopted {
            uid: parts.next()?.to_owned(),
            name: parts.next()?.to_owned(),
            key: parts.next()?.to_owned(),
        })
    }

    /// Whether both name the same place; an adopted Secret and one that the operator
    /// created are the same place under one name.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// Name and key of the Secret.
    #[must_use]
    pub fn place(&self) -> Option<(&str, &str)> {
        match self {
            Self::Own { name, key } | Self::Adopted { name, key, .. } => Some((name, key)),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_targets_read_what_they_write() {
        for source in [
            Source::Sealed { sha256: "ab".repeat(32) },
            Source::Secret { uid: "u".into(), resource_version: "12".into(), key: "k.e_y".into() },
            Source::Generate { revision: None },
            Source::Generate { revision: Some("2026-11-28T15:00:00Z".into()) },
        ] {
            assert_eq!(Source::parse(&source.to_string()), Some(source));
        }
        for target in [
            Delivered::Own { name: "db".into(), key: "value".into() },
            Delivered::Adopted { uid: "u-1".into(), name: "db".into(), key: "k".into() },
            Delivered::None,
        ] {
            assert_eq!(Delivered::parse(&target.to_string()), Some(target));
        }
    }
}
