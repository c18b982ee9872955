//! The earlier values that a record keeps, as its annotation says it.
//!
//! The annotation has the newest first, `VERSION:COMMITMENT:CREATED:SOURCE` each, with a space between them. The one that was
//! delivered before the present one also has `@DATE`, if that is not the version before the newest until the newest came.
//! The MAC covers it, and a key commitment names one ciphertext, so nothing that is kept can be exchanged.

use std::fmt;

use managed_secrets_crypto::mac;

use super::canonical;
use crate::keys::RECORD_DATA_KEY;
use crate::types::SourceKind;

/// An earlier value that a record keeps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeptVersion {
    /// Its version.
    pub version: u64,
    /// The key commitment of its bytes.
    pub commitment: [u8; 32],
    /// When it became the value, RFC 3339.
    pub created: String,
    /// Where it came from.
    pub source: SourceKind,
}

impl KeptVersion {
    /// The key of the record's data that holds its bytes.
    #[must_use]
    pub fn data_key(&self) -> String {
        kept_key(self.version)
    }
}

/// The key of a record's data that holds an earlier value.
#[must_use]
pub fn kept_key(version: u64) -> String {
    format!("{RECORD_DATA_KEY}.{version}")
}

/// Whether a key of a record's data can hold an earlier value.
#[must_use]
pub fn is_kept_key(key: &str) -> bool {
    let version = key.strip_prefix(RECORD_DATA_KEY).and_then(|rest| rest.strip_prefix('.'));
    version.is_some_and(|version| canonical::<u64>(version).is_some())
}

/// The version that was delivered before the one that is delivered now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// The version.
    pub version: u64,
    /// Until when it was delivered, RFC 3339.
    pub until: String,
}

/// The earlier values that a record keeps, the newest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    versions: Vec<KeptVersion>,
    replaced: Option<Replaced>,
}

impl History {
    /// These versions, in any order.
    #[must_use]
    pub fn new(mut versions: Vec<KeptVersion>) -> Self {
        versions.sort_by_key(|kept| std::cmp::Reverse(kept.version));
        Self { versions, replaced: None }
    }

    /// The same versions, of which the newest value has replaced this one. It counts only if it is kept.
    #[must_use]
    pub fn with_replaced(self, replaced: Option<Replaced>) -> Self {
        let replaced = replaced.filter(|replaced| self.get(replaced.version).is_some());
        Self { replaced, ..self }
    }

    /// The version that was delivered before the one that is delivered now, where the order of the versions and their dates do
    /// not tell it.
    #[must_use]
    pub fn replaced(&self) -> Option<&Replaced> {
        self.replaced.as_ref()
    }

    /// The value that was delivered before the newest one, and until when. The newest one has this version and date.
    #[must_use]
    pub fn previous<'s>(&'s self, newest: u64, updated: &'s str) -> Option<(&'s KeptVersion, &'s str)> {
        match &self.replaced {
            Some(Replaced { version, until }) => Some((self.get(*version)?, until)),
            None => Some((self.versions.first().filter(|kept| kept.version + 1 == newest)?, updated)),
        }
    }

    /// The earlier values, the newest first.
    pub fn iter(&self) -> std::slice::Iter<'_, KeptVersion> {
        self.versions.iter()
    }

    /// An earlier value.
    #[must_use]
    pub fn get(&self, version: u64) -> Option<&KeptVersion> {
        self.versions.iter().find(|kept| kept.version == version)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Reads the annotation of a record with this newest version; `None` if it is not in the one form that the operator
    /// writes.
    pub(super) fn parse(text: &str, newest: u64) -> Option<Self> {
        let mut replaced = None;
        let mut parse = |text| {
            let (kept, until) = parse_one(text)?;
            let is_second = until.is_some() && replaced.is_some();
            replaced = replaced.take().or_else(|| Some(Replaced { version: kept.version, until: until?.to_owned() }));
            (!is_second).then_some(kept)
        };
        let versions = text.split(' ').map(&mut parse).collect::<Option<Vec<_>>>()?;
        let above = std::iter::once(newest).chain(versions.iter().map(|kept| kept.version));
        let falling = above.zip(&versions).all(|(above, kept)| kept.version < above && kept.version > 0);
        falling.then_some(Self { versions, replaced })
    }
}

impl<'a> IntoIterator for &'a History {
    type Item = &'a KeptVersion;
    type IntoIter = std::slice::Iter<'a, KeptVersion>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, KeptVersion { version, commitment, created, source }) in self.versions.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            let (commitment, source) = (mac::commitment_text(commitment), source.as_str());
            write!(f, "{space}{version}:{commitment}:{created}:{source}")?;
            if let Some(replaced) = self.replaced.as_ref().filter(|replaced| replaced.version == *version) {
                write!(f, "{UNTIL}{}", replaced.until)?;
            }
        }
        Ok(())
    }
}

/// What is before the date until which a version was delivered. Neither base64 nor a date contains it.
const UNTIL: char = '@';

/// A version, and until when it was delivered, if that is told.
fn parse_one(text: &str) -> Option<(KeptVersion, Option<&str>)> {
    let (text, until) = match text.split_once(UNTIL) {
        Some((text, until)) => (text, Some(until)),
        None => (text, None),
    };
    let (rest, source) = text.rsplit_once(':')?;
    let mut parts = rest.splitn(3, ':');
    let kept = KeptVersion {
        version: canonical(parts.next()?)?,
        commitment: mac::parse_commitment(parts.next()?)?,
        created: parts.next().filter(|created| !created.is_empty())?.to_owned(),
        source: SourceKind::ALL.into_iter().find(|kind| kind.as_str() == source)?,
    };
    (until != Some("")).then_some((kept, until))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn kept(version: u64, source: SourceKind) -> KeptVersion {
        KeptVersion { version, commitment: [7; 32], created: "2026-11-23T08:00:00Z".to_owned(), source }
    }

    #[test]
    fn a_history_reads_back_as_it_was_written_the_newest_first() {
        let history = History::new(
            SourceKind::ALL.into_iter().zip([2, 9, 4]).map(|(kind, version)| kept(version, kind)).collect(),
        );
        let versions: Vec<_> = history.iter().map(|kept| kept.version).collect();
        assert_eq!(versions, [9, 4, 2]);
        assert_eq!(History::parse(&history.to_string(), 10), Some(history.clone()));
        assert_eq!(history.get(4).map(KeptVersion::data_key).as_deref(), Some("value.4"));
        assert_eq!((history.get(3), History::default().to_string().as_str()), (None, ""));
    }

    #[test]
    fn the_value_that_was_delivered_before_is_the_newest_or_the_one_that_is_named() {
        let versions = || History::new([3, 2, 1].map(|version| kept(version, SourceKind::Value)).into());
        let previous =
            |history: &History| history.previous(4, "then").map(|(kept, until)| (kept.version, until.to_owned()));
        assert_eq!(previous(&versions()), Some((3, "then".to_owned())));
        assert_eq!(previous(&History::default()), None);
        assert_eq!(versions().previous(5, "then"), None, "4 is not kept, and was delivered");
        let until = "2026-11-28T10:00:00Z".to_owned();
        let named = versions().with_replaced(Some(Replaced { version: 1, until: until.clone() }));
        assert_eq!(previous(&named), Some((1, until.clone())));
        assert!(named.to_string().ends_with(":2026-11-23T08:00:00Z:value@2026-11-28T10:00:00Z"), "{named}");
        assert_eq!(History::parse(&named.to_string(), 4), Some(named.clone()));
        assert_eq!(named.with_replaced(None), versions());
        let dropped = History::new(vec![kept(3, SourceKind::Value)]);
        assert_eq!(dropped.clone().with_replaced(Some(Replaced { version: 1, until })), dropped);
    }

    #[test]
    fn only_the_form_that_the_operator_writes_is_read() {
        let commitment = mac::commitment_text(&[7; 32]);
        let one = |version: &str| format!("{version}:{commitment}:2026-11-23T08:00:00Z:generate");
        assert!(History::parse(&one("3"), 4).is_some());
        for text in [
            String::new(),
            " ".to_owned(),
            one("4"),
            one("0"),
            one("03"),
            one("x"),
            format!("{} {}", one("2"), one("3")),
            format!("{} {}", one("3"), one("3")),
            format!("{}  {}", one("3"), one("2")),
            format!("{} ", one("3")),
            one("3").replace("generate", "Generate"),
            one("3").replace("2026-11-23T08:00:00Z", ""),
            one("3").replace(&commitment, "AAAA"),
            one("3") + "@",
            format!("{}@x {}@x", one("3"), one("2")),
        ] {
            assert_eq!(History::parse(&text, 4), None, "{text:?}");
        }
    }

    #[test]
    fn the_key_of_an_earlier_value_is_told_from_others() {
        assert!(is_kept_key("value.3") && is_kept_key(&kept_key(u64::MAX)));
        for key in ["value", "value.", "value.03", "value.x", "values.3", "value.3.4", "other"] {
            assert!(!is_kept_key(key), "{key}");
        }
    }
}
