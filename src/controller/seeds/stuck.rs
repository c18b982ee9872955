//! The records that a sweep left under a seed that was replaced, because they cannot be moved.
//!
//! In memory only: the next sweep, of this process or another one, finds them again. So a record that stays damaged
//! does not cause a list each time that a pass meets it, nor a line of the log each time that a list shows it.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Why a record stays under its seed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    /// Its metadata cannot be read.
    Unreadable,
    /// Metadata or bytes do not verify.
    Unverified,
    /// It cannot be written: a permission, an admission policy or a webhook of another program.
    Unwritable,
}

impl Cause {
    /// Every cause.
    pub(crate) const ALL: [Self; 3] = [Self::Unreadable, Self::Unverified, Self::Unwritable];

    /// As metrics name it.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unverified => "unverified",
            Self::Unwritable => "unwritable",
        }
    }
}

/// One version of a record that cannot be moved.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Left {
    resource_version: String,
    cause: Cause,
}

/// The records, by uid.
#[derive(Debug, Default)]
pub struct Stuck(Mutex<HashMap<String, Left>>);

impl Stuck {
    /// Whether this version of a record is known to be stuck.
    #[must_use]
    pub fn has(&self, uid: &str, resource_version: &str) -> bool {
        self.0.lock().get(uid).is_some_and(|left| left.resource_version == resource_version)
    }

    /// Takes note of a record. Returns whether that is news.
    pub(super) fn note(&self, uid: &str, resource_version: &str, cause: Cause) -> bool {
        let left = Left { resource_version: resource_version.to_owned(), cause };
        self.0.lock().insert(uid.to_owned(), left.clone()) != Some(left)
    }

    /// Forgets all but these: a complete list showed no others.
    pub(super) fn retain(&self, is_stuck: impl Fn(&str) -> bool) {
        self.0.lock().retain(|uid, _| is_stuck(uid));
    }

    /// How many there are of each cause.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); Cause::ALL.len()] {
        let stuck = self.0.lock();
        Cause::ALL.map(|cause| (cause.as_str(), stuck.values().filter(|left| left.cause == cause).count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_news_once_for_each_version_and_cause_and_is_forgotten_when_it_moved() {
        let stuck = Stuck::default();
        let counts = || stuck.counts().map(|(_, count)| count);
        assert!(stuck.note("a", "1", Cause::Unverified) && !stuck.note("a", "1", Cause::Unverified));
        assert!(stuck.has("a", "1") && !stuck.has("a", "2") && !stuck.has("b", "1"));
        assert!(stuck.note("a", "1", Cause::Unwritable), "another cause");
        assert!(stuck.note("a", "2", Cause::Unwritable), "it was written since");
        assert!(stuck.note("b", "1", Cause::Unreadable));
        assert_eq!(counts(), [1, 0, 1]);
        stuck.retain(|uid| uid == "b");
        assert_eq!((counts(), stuck.has("a", "2")), ([1, 0, 0], false));
    }
}
