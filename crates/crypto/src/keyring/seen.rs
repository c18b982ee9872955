//! Whether a stored keyring is older than one that was seen before.
//!
//! A key that is missing is a step back, unless the document says that it was given up: no operator removes a key. A document
//! counts its changes, too: a key that was revoked and no longer is, is a step back unless the count says that the document was
//! changed since. A backup was restored over it, or a program that does not count wrote it. A retirement is no revocation: an
//! administrator may take it back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Document, Entry, Origin, Part, State};

/// What was seen of the operator's own document.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    generation: u64,
    /// Each key, and whether it is known to be revoked.
    keys: BTreeMap<String, bool>,
}

/// The stored keyring is older than one that was seen before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rollback {
    /// Ids of keys that no document has any more.
    pub missing: Vec<String>,
    /// Ids of keys that were revoked, and open again, or may be reinstated.
    pub reopened: Vec<String>,
}

/// [`Seen`] as text.
#[derive(Deserialize, Serialize)]
struct Text {
    generation: u64,
    keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<String>,
}

impl Seen {
    /// What a document says.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let keys = document.entries.iter().map(|entry| (entry.id.clone(), entry.is_revoked()));
        Self { generation: document.generation, keys: keys.collect() }
    }

    /// The document's count of changes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Reads [`text`](Self::text); `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Text { generation, keys, revoked } = serde_json::from_str(text).ok()?;
        let keys = keys.into_iter().map(|id| (id, false));
        Some(Self { generation, keys: keys.chain(revoked.into_iter().map(|id| (id, true))).collect() })
    }

    /// The count, the ids of the keys, and which of them are revoked, for a place that everyone may read.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        let revoked = self.revoked().map(str::to_owned).collect();
        serde_json::to_string(&Text {
            generation: self.generation,
            keys: self.ids().map(str::to_owned).collect(),
            revoked,
        })
    }

    /// Ids of its keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    fn revoked(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(|(_, revoked)| **revoked).map(|(id, _)| id.as_str())
    }

    /// Remembers the keys of an earlier document that this one lacks and has not given up: another document has them.
    #[must_use]
    pub fn and_beside(mut self, earlier: &Self, document: &Document) -> Self {
        let beside = earlier.keys.iter().filter(|(id, _)| !document.given_up.contains(id));
        for (id, revoked) in beside {
            self.keys.entry(id.clone()).or_insert(*revoked);
        }
        self
    }

    /// Remembers what another replica has seen: the later one counts, and of two of the same count, every key.
    pub fn merge(&mut self, other: Self) {
        if other.generation > self.generation {
            *self = other;
        } else if other.generation == self.generation {
            for (id, revoked) in other.keys {
                self.keys.entry(id).or_insert(revoked);
            }
        }
    }

    /// What documents lack of it. A key that a document beside the operator's own has is not missing.
    #[must_use]
    pub fn lost_in<'d>(&self, documents: impl IntoIterator<Item = Part<'d>>) -> Option<Rollback> {
        let (mut ids, mut own, mut generation) = (BTreeSet::new(), BTreeMap::new(), 0);
        let mut given_up = BTreeSet::new();
        for Part { document, origin } in documents {
            ids.extend(document.entries.iter().map(|entry| entry.id.as_str()));
            if origin == Origin::Own {
                generation = generation.max(document.generation);
                own.extend(document.entries.iter().map(|entry| (entry.id.as_str(), entry.is_revoked())));
                given_up.extend(document.given_up.iter().map(String::as_str));
            }
        }
        let missing = self.ids().filter(|id| !ids.contains(id) && !given_up.contains(id));
        let missing: Vec<_> = missing.map(str::to_owned).collect();
        let is_later = generation > self.generation;
        let is_open = |id: &&str| own.get(id).is_some_and(|revoked| !revoked);
        let reopened: Vec<_> = self.revoked().filter(|id| !is_later && is_open(id)).map(str::to_owned).collect();
        (!missing.is_empty() || !reopened.is_empty()).then_some(Rollback { missing, reopened })
    }
}

impl Document {
    /// Puts back what this document lacks of entries that were seen before: keys that it does not have, and states that
    /// allowed less. Ids of `revoked` are revoked again.
    pub fn put_back(&mut self, seen: &[Entry], revoked: &[String]) {
        for entry in seen {
            match self.entries.iter_mut().find(|own| own.id == entry.id && own.purpose == entry.purpose) {
                None => self.entries.push(entry.clone()),
                Some(own) if entry.state > State::Pending && allowed(entry) > allowed(own) => {
                    (own.state, own.retired) = (entry.state, entry.retired.clone());
                }
                Some(_) => {}
            }
        }
        for entry in self.entries.iter_mut().filter(|entry| revoked.contains(&entry.id)) {
            (entry.state, entry.retired) = (State::Revoked, None);
        }
    }
}

/// What an entry allows, from most to least: a retired key may be reinstated, a revoked one may not.
fn allowed(entry: &Entry) -> (State, bool) {
    (entry.state, entry.is_revoked())
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keyring is older than one that was seen before")?;
        if !self.missing.is_empty() {
            write!(f, "; it lacks the keys {}", self.missing.join(", "))?;
        }
        if !self.reopened.is_empty() {
            write!(f, "; these keys were revoked, and open again: {}", self.reopened.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(generation: u64, keys: &[(&str, &str)]) -> Document {
        let entries: Vec<_> = keys
            .iter()
            .map(|(id, state)| {
                let retired = (*state == "retired").then_some("2026-11-28T09:00:00Z");
                let state = if retired.is_some() { "revoked" } else { *state };
                json!({
                    "id": id, "purpose": "sealing", "state": state, "created": "2026-11-28T08:00:00Z", "retired": retired,
                    "wrapped": {"provider": "local", "keyId": "k", "ciphertext": ""},
                })
            })
            .collect();
        serde_json::from_value(json!({"format": "MSK1", "generation": generation, "entries": entries})).unwrap()
    }

    fn own(document: &Document) -> [Part<'_>; 1] {
        [Part { document, origin: Origin::Own }]
    }

    #[test]
    fn a_keyring_that_goes_back_is_noticed_and_a_change_is_not_one() {
        type Row = (u64, &'static [(&'static str, &'static str)], &'static [&'static str], &'static [&'static str]);
        let before = document(5, &[("a", "open-only"), ("b", "active"), ("c", "revoked")]);
        let seen = Seen::of(&before);
        let rows: [Row; 10] = [
            // The same, and changes that were not counted: a narrower state, a new key.
            (5, &[("a", "open-only"), ("b", "active"), ("c", "revoked")], &[], &[]),
            (5, &[("a", "revoked"), ("b", "active"), ("c", "revoked"), ("d", "active")], &[], &[]),
            // An older document with everything in it.
            (3, &[("a", "open-only"), ("b", "active"), ("c", "revoked")], &[], &[]),
            // A backup, and a key that was cut out.
            (3, &[("a", "active"), ("c", "open-only")], &["b"], &["c"]),
            (0, &[("a", "open-only")], &["b", "c"], &[]),
            (5, &[("a", "open-only"), ("c", "revoked")], &["b"], &[]),
            // A revocation that was taken back.
            (5, &[("a", "open-only"), ("b", "active"), ("c", "open-only")], &[], &["c"]),
            // A later count says that a revocation was taken back on purpose. It says nothing about a key: another keyring may
            // count further.
            (6, &[("a", "open-only"), ("b", "active"), ("c", "open-only"), ("d", "active")], &[], &[]),
            (6, &[("b", "open-only"), ("d", "active")], &["a", "c"], &[]),
            (9, &[("x", "active")], &["a", "b", "c"], &[]),
        ];
        for (generation, keys, missing, reopened) in rows {
            let now = document(generation, keys);
            let found = seen.lost_in(own(&now)).unwrap_or(Rollback { missing: vec![], reopened: vec![] });
            assert_eq!(
                (&found.missing[..], &found.reopened[..]),
                (&texts(missing)[..], &texts(reopened)[..]),
                "{keys:?}"
            );
        }
    }

    #[test]
    fn a_key_that_was_given_up_is_not_missing_and_one_that_stood_beside_is_remembered() {
        let seen = Seen::of(&document(5, &[("a", "active"), ("b", "active")]));
        let mut now = document(6, &[("a", "active")]);
        let beside = document(1, &[("b", "active")]);
        let both = [own(&now)[0], Part { document: &beside, origin: Origin::Joined }];
        assert_eq!(seen.lost_in(both), None);
        let remembered = Seen::of(&now).and_beside(&seen, &now);
        assert_eq!(remembered.lost_in(own(&now)).unwrap().missing, ["b"], "what stood beside was deleted");
        now.given_up = vec!["b".to_owned()];
        assert_eq!(remembered.lost_in(own(&now)), None);
        assert_eq!(Seen::of(&now).and_beside(&remembered, &now), Seen::of(&now));
    }

    #[test]
    fn what_was_seen_is_put_back_and_nothing_is_widened() {
        let seen = document(5, &[("a", "open-only"), ("b", "active"), ("c", "revoked"), ("d", "pending")]);
        let mut now = document(3, &[("a", "active"), ("c", "active"), ("d", "active"), ("e", "active")]);
        now.put_back(&seen.entries, &["e".to_owned()]);
        let states: Vec<_> = now.entries.iter().map(|entry| (entry.id.as_str(), entry.state)).collect();
        let [open, active, revoked] = [State::OpenOnly, State::Active, State::Revoked];
        assert_eq!(states, [("a", open), ("c", revoked), ("d", active), ("e", revoked), ("b", active)]);
        assert_eq!(Seen::of(&seen).lost_in(own(&now)), None);
    }

    #[test]
    fn a_retirement_may_be_taken_back_and_a_revocation_does_not_become_one() {
        let states = |document: &Document| -> Vec<_> {
            document.entries.iter().map(|entry| (entry.state, entry.is_retired())).collect()
        };
        let [retired, revoked, open] =
            ["retired", "revoked", "open-only"].map(|state| document(5, &[("a", state), ("b", "active")]));
        assert_eq!(Seen::of(&retired).lost_in(own(&open)), None);
        assert_eq!(Seen::of(&retired).lost_in(own(&revoked)), None);
        assert!(!Seen::of(&retired).text().unwrap().contains("revoked"));
        // A backup of the time before the revocation: the key could be reinstated.
        assert_eq!(Seen::of(&revoked).lost_in(own(&retired)).unwrap().reopened, ["a"]);
        for (seen, stored, ids, expected) in [
            (&revoked, &retired, vec![], (State::Revoked, false)),
            (&open, &retired, vec!["a".to_owned()], (State::Revoked, false)),
            (&retired, &revoked, vec![], (State::Revoked, false)),
            (&retired, &open, vec![], (State::Revoked, true)),
            (&open, &retired, vec![], (State::Revoked, true)),
        ] {
            let mut now = stored.clone();
            now.put_back(&seen.entries, &ids);
            assert_eq!(states(&now), [expected, (State::Active, false)]);
        }
    }

    #[test]
    fn of_two_that_were_seen_the_later_counts_and_of_equals_every_key() {
        let seen = |generation, keys: &[_]| Seen::of(&document(generation, keys));
        let (early, late) = (seen(1, &[("a", "active"), ("b", "active")]), seen(2, &[("b", "active")]));
        for mut both in [early.clone(), late.clone()] {
            both.merge(early.clone());
            both.merge(late.clone());
            assert_eq!(both, late);
        }
        let mut both = seen(2, &[("b", "revoked")]);
        both.merge(seen(2, &[("b", "active"), ("c", "active")]));
        assert_eq!(both, seen(2, &[("b", "revoked"), ("c", "active")]));
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_key_in_a_keyring_beside_the_own_one_is_not_missing() {
        let seen = Seen::of(&document(5, &[("a", "active"), ("b", "active")]));
        let (old, restored) = (document(1, &[("a", "active")]), document(7, &[("b", "active")]));
        let beside = Part { document: &restored, origin: Origin::Joined };
        assert_eq!(seen.lost_in([own(&old)[0], beside]), None);
        // What stands beside says nothing of the own one's age.
        let rollback = seen.lost_in([own(&old)[0], Part { document: &old, origin: Origin::Joined }]).unwrap();
        assert_eq!(rollback.to_string(), "the keyring is older than one that was seen before; it lacks the keys b");
    }

    #[test]
    fn the_text_says_what_is_revoked_and_reads_back() {
        let seen = Seen::of(&document(5, &[("a", "revoked"), ("b", "active")]));
        let text = seen.text().unwrap();
        assert_eq!(text, r#"{"generation":5,"keys":["a","b"],"revoked":["a"]}"#);
        let read = Seen::parse(&text).unwrap();
        let (old, wider) = (document(4, &[("b", "active")]), document(5, &[("a", "active"), ("b", "active")]));
        assert_eq!(read.lost_in(own(&old)).unwrap().missing, ["a"]);
        assert_eq!(read.lost_in(own(&wider)).unwrap().reopened, ["a"]);
        let earlier = Seen::parse(r#"{"generation":5,"keys":["a","b"]}"#).unwrap();
        assert_eq!(earlier.lost_in(own(&wider)), None, "an earlier version says nothing of states");
        assert_eq!(Seen::parse("{}"), None);
    }
}
