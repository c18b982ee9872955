//! Calls that are on their way, and what ended meanwhile.
//!
//! An answer describes a state of the past. Where a watch has shown the end of an object after the call was sent, the
//! answer may be older than that end, and no later event would take out what it puts in: a ghost, for good. So every call
//! whose answer goes into the cache is announced before it is sent; ends are remembered while calls are on their way, and
//! an answer that one of them outdates is dropped. Dropping is always safe: what exists, the watch shows.

use std::collections::{BTreeMap, HashMap};

use super::Key;

/// A kind of object that the cache holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    Object,
    Secret,
}

/// A call that is on its way. Every one is given back by [`Index::answered`](super::Index::answered).
#[derive(Debug)]
pub struct Sent {
    moment: u64,
    /// Uid and version of the Secret that the cache showed then.
    shown: Option<(String, String)>,
}

impl Sent {
    /// Whether the cache showed this state of the Secret when the call was sent.
    pub(super) fn showed(&self, uid: &str, version: &str) -> bool {
        self.shown.as_ref().is_some_and(|(shown, at)| shown == uid && at == version)
    }
}

/// The last end of an object.
#[derive(Debug)]
struct End {
    moment: u64,
    /// The version at which it ended, where that is known.
    version: Option<u64>,
}

/// Calls on their way, and the ends since the first of them was sent: without calls, nothing is remembered.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Counts ends and lists.
    now: u64,
    /// How many calls were sent at each moment.
    sent: BTreeMap<u64, usize>,
    ends: HashMap<(Kind, Key), End>,
    by_moment: BTreeMap<u64, (Kind, Key)>,
    /// Lists of one namespace, or of all: they end everything that they do not show.
    lists: Vec<(u64, Kind, Option<String>)>,
}

impl Calls {
    pub(super) fn send(&mut self, shown: Option<(String, String)>) -> Sent {
        *self.sent.entry(self.now).or_default() += 1;
        Sent { moment: self.now, shown }
    }

    /// Forgets the call, and what only it could have asked about.
    #[allow(clippy::needless_pass_by_value, reason = "a call is given back once")]
    pub(super) fn answered(&mut self, sent: Sent) {
        if let Some(calls) = self.sent.get_mut(&sent.moment) {
            *calls -= 1;
            if *calls == 0 {
                self.sent.remove(&sent.moment);
            }
        }
        let oldest = self.sent.first_key_value().map_or(self.now, |(moment, _)| *moment);
        while let Some(first) = self.by_moment.first_entry().filter(|first| *first.key() <= oldest) {
            let (moment, key) = first.remove_entry();
            if self.ends.get(&key).is_some_and(|end| end.moment == moment) {
                self.ends.remove(&key);
            }
        }
        self.lists.retain(|(moment, ..)| *moment > oldest);
    }

    /// A watch has shown that an object ended.
    pub(super) fn ended(&mut self, kind: Kind, key: Key, version: Option<&str>) {
        if self.sent.is_empty() {
            return;
        }
        self.now += 1;
        self.by_moment.insert(self.now, (kind, key.clone()));
        let version = version.and_then(|version| version.parse().ok());
        self.ends.insert((kind, key), End { moment: self.now, version });
    }

    /// A watch has listed a namespace, or all.
    pub(super) fn listed(&mut self, kind: Kind, namespace: Option<&str>) {
        if !self.sent.is_empty() {
            self.now += 1;
            self.lists.push((self.now, kind, namespace.map(str::to_owned)));
        }
    }

    /// Whether the answer to a call, with an object at `version`, may be older than what the watch has shown since.
    pub(super) fn is_outdated(&self, sent: &Sent, kind: Kind, key: &Key, version: &str) -> bool {
        let listed = self.lists.iter().any(|(moment, of, namespace)| {
            *moment > sent.moment
                && *of == kind
                && namespace.as_ref().is_none_or(|namespace| **namespace == *key.namespace)
        });
        let ended = self.ends.get(&(kind, key.clone())).filter(|end| end.moment > sent.moment).is_some_and(|end| {
            // Made again since: that is news.
            let newer = version.parse().ok().zip(end.version).is_some_and(|(version, end): (u64, u64)| version > end);
            !newer
        });
        listed || ended
    }

    /// How much is remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.ends.len() + self.by_moment.len() + self.lists.len() + self.sent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "ns".into(), name: name.into() }
    }

    #[test]
    fn an_answer_is_outdated_by_an_end_that_was_shown_after_it_was_asked_for() {
        let mut calls = Calls::default();
        calls.ended(Kind::Secret, key("a"), Some("5"));
        let first = calls.send(None);
        assert!(!calls.is_outdated(&first, Kind::Secret, &key("a"), "4"), "it was asked after that");
        calls.ended(Kind::Secret, key("a"), Some("9"));
        let second = calls.send(None);
        assert!(calls.is_outdated(&first, Kind::Secret, &key("a"), "7"));
        assert!(calls.is_outdated(&first, Kind::Secret, &key("a"), "9"));
        assert!(!calls.is_outdated(&first, Kind::Secret, &key("a"), "10"), "made again");
        assert!(!calls.is_outdated(&first, Kind::Object, &key("a"), "7"), "another kind");
        assert!(!calls.is_outdated(&first, Kind::Secret, &key("b"), "7"), "another object");
        assert!(!calls.is_outdated(&second, Kind::Secret, &key("a"), "7"), "asked after it");
        calls.answered(first);
        calls.answered(second);
        assert_eq!(calls.remembered(), 0);
    }

    #[test]
    fn an_answer_is_outdated_by_a_list_of_its_namespace() {
        let mut calls = Calls::default();
        let sent = calls.send(None);
        calls.listed(Kind::Secret, Some("elsewhere"));
        calls.listed(Kind::Object, None);
        assert!(!calls.is_outdated(&sent, Kind::Secret, &key("a"), "7"));
        calls.listed(Kind::Secret, None);
        assert!(calls.is_outdated(&sent, Kind::Secret, &key("a"), "7"));
        calls.answered(sent);
        assert_eq!(calls.remembered(), 0);
    }

    #[test]
    fn what_no_call_can_ask_about_is_forgotten() {
        let mut calls = Calls::default();
        let slow = calls.send(None);
        for n in 0..10 {
            let quick = calls.send(None);
            calls.ended(Kind::Secret, key(&n.to_string()), None);
            calls.answered(quick);
        }
        assert!(calls.is_outdated(&slow, Kind::Secret, &key("0"), "1"), "the slow one may still bring it");
        let last = calls.send(None);
        calls.answered(slow);
        assert_eq!(calls.remembered(), 1, "the call itself");
        calls.answered(last);
        assert_eq!(calls.remembered(), 0);
    }
}
