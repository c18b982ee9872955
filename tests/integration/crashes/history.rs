//! What a pod could have read on the way, against what it may read.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::keys;

use super::super::witness::State;

/// What a scenario allows to be seen in the Secrets of its namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    targets: BTreeMap<(&'static str, &'static str), Values>,
    foreign: BTreeSet<(&'static str, &'static str, &'static str)>,
    may_vanish: BTreeSet<&'static str>,
    beside: BTreeSet<(&'static str, &'static str)>,
}

#[derive(Clone, Debug)]
enum Values {
    /// These, in this order: what was replaced never comes back.
    InOrder(Vec<&'static str>),
    /// Any, but always the same.
    Constant,
    /// This one, then any, but always the same.
    ThenConstant(&'static str),
    /// Any, and then so many others, none of which comes again.
    Rotated(usize),
    /// Any that another key of the same Secret had before what it has now.
    Former(&'static str),
}

impl Allowed {
    /// A key that may hold these values beside the delivered one, in this order.
    pub(super) fn serves_beside(mut self, secret: &'static str, key: &'static str, values: &[&'static str]) -> Self {
        self.beside.insert((secret, key));
        self.serves(secret, key, values)
    }

    /// Under this key of this Secret: these values, in this order.
    pub(super) fn serves(mut self, secret: &'static str, key: &'static str, values: &[&'static str]) -> Self {
        self.targets.insert((secret, key), Values::InOrder(values.to_vec()));
        self
    }

    /// Under this key of this Secret: a generated value that never changes.
    pub(super) fn generates(mut self, secret: &'static str, key: &'static str) -> Self {
        self.targets.insert((secret, key), Values::Constant);
        self
    }

    /// Under this key of this Secret: this value, and then a generated one that never changes.
    pub(super) fn serves_then_generates(
        mut self,
        secret: &'static str,
        key: &'static str,
        value: &'static str,
    ) -> Self {
        self.targets.insert((secret, key), Values::ThenConstant(value));
        self
    }

    /// Under this key of this Secret: the value that it has, and then another one that never changes.
    pub(super) fn rotates(self, secret: &'static str, key: &'static str) -> Self {
        self.rotates_times(secret, key, 1)
    }

    /// Under this key of this Secret: the value that it has, and then so many others, none of which comes again.
    pub(super) fn rotates_times(mut self, secret: &'static str, key: &'static str, times: usize) -> Self {
        self.targets.insert((secret, key), Values::Rotated(times));
        self
    }

    /// A key that may hold, beside the delivered value of the key `of`, the one that was there before.
    pub(super) fn has_the_former(mut self, secret: &'static str, key: &'static str, of: &'static str) -> Self {
        self.beside.insert((secret, key));
        self.targets.insert((secret, key), Values::Former(of));
        self
    }

    /// A user's: this Secret holds this value under this key, always.
    pub(super) fn keeps(mut self, secret: &'static str, key: &'static str, value: &'static str) -> Self {
        self.foreign.insert((secret, key, value));
        self
    }

    /// This Secret may vanish in between.
    pub(super) fn may_lose(mut self, secret: &'static str) -> Self {
        self.may_vanish.insert(secret);
        self
    }

    /// Judges what was seen, of which the last must be served still; an error says what was wrong first.
    pub(super) fn judge(&self, states: &[State]) -> Result<(), String> {
        let mut last: BTreeMap<(&str, &str), (usize, &str)> = BTreeMap::new();
        // All values of each key, in order.
        let mut had: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let mut alive = BTreeSet::new();
        for state in states.iter().filter(|state| state.type_ != keys::TYPE_RECORD) {
            let name = state.name.as_str();
            if state.deleted {
                alive.remove(name);
                if !self.may_vanish.contains(name) {
                    return Err(format!("Secret {name} vanished"));
                }
                continue;
            }
            for (_, key, value) in self.foreign.iter().filter(|(secret, ..)| *secret == name) {
                if state.data.get(*key).map(String::as_str) != Some(value) {
                    return Err(format!("Secret {name} lost the key {key} of a user"));
                }
            }
            let own =
                state.data.iter().filter(|(key, value)| !self.foreign.contains(&(name, key.as_str(), value.as_str())));
            let mut served = 0;
            for (key, value) in own {
                let Some((&(name, key), allowed)) = self.targets.iter().find(|((s, k), _)| *s == name && k == key)
                else {
                    return Err(format!("Secret {name} holds something under {key}"));
                };
                let before = last.get(&(name, key)).copied();
                let place = match allowed {
                    // One that comes again counts as the later one.
                    Values::InOrder(values) => {
                        let from = before.map_or(0, |(place, _)| place);
                        let again = values.iter().skip(from).position(|allowed| allowed == value);
                        again.map(|at| from + at).or_else(|| values.iter().position(|allowed| allowed == value))
                    }
                    Values::Constant => before.is_none_or(|(_, before)| before == value).then_some(0),
                    Values::Rotated(times) => match before {
                        None => Some(0),
                        Some((place, before)) if before == value => Some(place),
                        Some((place, _)) => {
                            let is_new = !had[&(name, key)].contains(&value.as_str());
                            Some(place + 1).filter(|place| is_new && place <= times)
                        }
                    },
                    Values::Former(of) => {
                        let now = state.data.get(*of).map(String::as_str);
                        // As long as the other key has one value, so has this one.
                        let mut all = had.get(&(name, *of)).into_iter().flatten().copied();
                        let former = all.rfind(|had| Some(*had) != now);
                        (former == Some(value.as_str())).then_some(0)
                    }
                    Values::ThenConstant(first) if first == value => Some(0),
                    Values::ThenConstant(first) => {
                        before.is_none_or(|(_, before)| before == value || before == *first).then_some(1)
                    }
                };
                let Some(place) = place else { return Err(format!("Secret {name} holds a wrong value under {key}")) };
                if before.is_some_and(|(before, _)| place < before) {
                    return Err(format!("Secret {name} holds an earlier value under {key} again"));
                }
                last.insert((name, key), (place, value));
                had.entry((name, key)).or_default().push(value);
                served += usize::from(!self.beside.contains(&(name, key)));
            }
            alive.insert(name);
            let foreign = self.foreign.iter().any(|(secret, ..)| *secret == name);
            if !(served == 1 || served == 0 && foreign) {
                return Err(format!("Secret {name} serves {served} values"));
            }
        }
        let unfinished = last.iter().filter(|((name, _), _)| alive.contains(name)).find(|((name, key), (place, _))| {
            match self.targets.get(&(*name, *key)) {
                Some(Values::InOrder(values)) => *place + 1 < values.len(),
                Some(Values::Rotated(times)) => *place < *times,
                Some(Values::ThenConstant(_)) => *place == 0,
                Some(Values::Constant | Values::Former(_)) | None => false,
            }
        });
        unfinished
            .map_or(Ok(()), |((name, key), _)| Err(format!("Secret {name} still holds an earlier value under {key}")))
    }
}

#[test]
fn a_wrong_an_empty_an_earlier_and_a_vanished_value_are_found() {
    let state = |data: &[(&str, &str)], deleted| State {
        name: "db".to_owned(),
        uid: String::new(),
        type_: "Opaque".to_owned(),
        data: data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        deleted,
    };
    let allowed = Allowed::default().serves("db", "value", &["one", "two"]);
    let (one, two) = (state(&[("value", "one")], false), state(&[("value", "two")], false));
    assert_eq!(allowed.judge(&[one.clone(), one.clone(), two.clone()]), Ok(()));
    for wrong in [
        vec![state(&[("value", "three")], false)],
        vec![state(&[("value", "")], false)],
        vec![state(&[], false)],
        vec![state(&[("other", "one")], false)],
        vec![one.clone(), two.clone(), one.clone()],
        vec![one.clone()],
        vec![two.clone(), state(&[("value", "two")], true)],
    ] {
        assert!(allowed.judge(&wrong).is_err(), "{wrong:?}");
    }
    let adopted = allowed.keeps("db", "theirs", "x");
    let serving = state(&[("theirs", "x"), ("value", "two")], false);
    let theirs = state(&[("theirs", "x")], false);
    assert_eq!(adopted.judge(&[theirs.clone(), serving]), Ok(()));
    assert!(adopted.judge(&[theirs, two.clone()]).is_err());
    let made = Allowed::default().generates("db", "value");
    assert_eq!(made.judge(&[two.clone(), two.clone()]), Ok(()));
    assert!(made.judge(&[two.clone(), state(&[("value", "other")], false)]).is_err());
    let rotated = Allowed::default().rotates("db", "value");
    assert_eq!(rotated.judge(&[one.clone(), one.clone(), two.clone(), two.clone()]), Ok(()));
    for wrong in [vec![one.clone()], vec![one.clone(), two.clone(), one], vec![two, state(&[("value", "")], true)]] {
        assert!(rotated.judge(&wrong).is_err(), "{wrong:?}");
    }
    let beside = |old: &str, value: &str| state(&[("old", old), ("value", value)], false);
    let (one, two, three) =
        (state(&[("value", "1")], false), state(&[("value", "2")], false), state(&[("value", "3")], false));
    let twice = Allowed::default().rotates_times("db", "value", 2).has_the_former("db", "old", "value");
    for right in [
        vec![one.clone(), two.clone(), three.clone()],
        vec![one.clone(), beside("1", "2"), beside("2", "3"), three.clone()],
        vec![one.clone(), beside("1", "2"), two.clone(), beside("2", "3"), beside("2", "3")],
    ] {
        assert_eq!(twice.judge(&right), Ok(()), "{right:?}");
    }
    for wrong in [
        vec![one.clone(), two.clone()],
        vec![one.clone(), two.clone(), one.clone()],
        vec![one.clone(), two.clone(), beside("1", "3")],
        vec![one.clone(), two.clone(), beside("3", "3")],
        vec![one.clone(), beside("other", "2"), three.clone()],
        vec![one, two, three, state(&[("value", "4")], false)],
    ] {
        assert!(twice.judge(&wrong).is_err(), "{wrong:?}");
    }
}
