//! What must hold of every object at every moment: a pure function of what was applied and of what was seen.

use std::{collections::BTreeMap, fmt};

/// SHA-256 of a value.
pub(crate) type Digest = [u8; 32];

/// A rule that an object breaks. No value is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Violation {
    /// The id differs from an earlier one of the same object.
    OtherId { before: String, now: String },
    /// The version is lower than an earlier one.
    LowerVersion { before: i64, now: i64 },
    /// The target has a value that was never applied.
    UnknownValue,
    /// The target has an earlier value of the object, after a later one was delivered. Values are counted from 1.
    OlderValue { before: usize, now: usize },
    /// What was applied was not delivered in time.
    Lost { what: String },
}

impl Violation {
    /// Whether it is that something did not happen in time.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherId { before, now } => write!(out, "the id {before} became {now}"),
            Self::LowerVersion { before, now } => write!(out, "version {before} became {now}"),
            Self::UnknownValue => write!(out, "the target has a value that was never applied"),
            Self::OlderValue { before, now } => {
                write!(out, "the target has value number {now} again, after number {before}")
            }
            Self::Lost { what } => write!(out, "not delivered in time: {what}"),
        }
    }
}

/// What is known of one object, from its creation to its deletion.
#[derive(Debug, Default)]
struct Known {
    id: Option<String>,
    version: i64,
    /// Its values, in the order in which they were applied. `None` is one that the operator generates, until it is seen.
    values: Vec<Option<Digest>>,
    /// What another program wrote into its target, until that is repaired.
    intruder: Option<Intruder>,
    /// How many of `values` were applied when the newest delivered one was.
    delivered: usize,
}

/// A value of another program.
#[derive(Debug)]
struct Intruder {
    value: Digest,
    seen: bool,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Checker(BTreeMap<String, Known>);

impl Checker {
    /// A value is about to be applied.
    pub(crate) fn will_apply(&mut self, object: &str, value: Digest) {
        self.0.entry(object.to_owned()).or_default().values.push(Some(value));
    }

    /// The operator is about to generate a value.
    pub(crate) fn will_generate(&mut self, object: &str) {
        self.0.entry(object.to_owned()).or_default().values.push(None);
    }

    /// Another program is about to write this into the target.
    pub(crate) fn will_drift(&mut self, object: &str, value: Digest) {
        self.0.entry(object.to_owned()).or_default().intruder = Some(Intruder { value, seen: false });
    }

    /// The operator has repaired the target: what another program wrote must not come back.
    pub(crate) fn repaired(&mut self, object: &str) {
        if let Some(known) = self.0.get_mut(object) {
            known.intruder = None;
        }
    }

    /// The object and what belongs to it were deleted.
    pub(crate) fn forget(&mut self, object: &str) {
        self.0.remove(object);
    }

    /// The status of an object was seen.
    pub(crate) fn saw_status(&mut self, object: &str, id: Option<&str>, version: Option<i64>) -> Result<(), Violation> {
        let Some(known) = self.0.get_mut(object) else { return Ok(()) };
        if let Some(now) = id {
            let before = known.id.get_or_insert_with(|| now.to_owned());
            if before != now {
                return Err(Violation::OtherId { before: before.clone(), now: now.to_owned() });
            }
        }
        if let Some(now) = version {
            let before = known.version;
            known.version = now.max(before);
            if now < before {
                return Err(Violation::LowerVersion { before, now });
            }
        }
        Ok(())
    }

    /// The target of an object was seen with this value.
    pub(crate) fn saw_target(&mut self, object: &str, value: &Digest) -> Result<(), Violation> {
        let known = self.0.get_mut(object).ok_or(Violation::UnknownValue)?;
        if let Some(intruder) = known.intruder.as_mut().filter(|intruder| intruder.value == *value) {
            intruder.seen = true;
            return Ok(());
        }
        let find = |wanted| known.values.iter().position(|applied| *applied == wanted);
        let position = find(Some(*value)).or_else(|| find(None)).ok_or(Violation::UnknownValue)?;
        known.values[position] = Some(*value);
        if known.intruder.as_ref().is_some_and(|intruder| intruder.seen) {
            known.intruder = None;
        }
        let (before, now) = (known.delivered, position + 1);
        known.delivered = now.max(before);
        if now < before { Err(Violation::OlderValue { before, now }) } else { Ok(()) }
    }

    /// Whether this is the value that was applied last.
    pub(crate) fn is_latest(&self, object: &str, value: &Digest) -> bool {
        self.0.get(object).is_some_and(|known| known.values.last() == Some(&Some(*value)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const VALUES: [Digest; 3] = [[1; 32], [2; 32], [3; 32]];
    const INTRUDER: Digest = [9; 32];

    /// A checker that knows an object with two values.
    fn checker() -> Checker {
        let mut checker = Checker::default();
        VALUES[..2].iter().for_each(|value| checker.will_apply("db", *value));
        checker
    }

    #[test]
    fn what_was_applied_may_be_seen_in_its_order() {
        let mut checker = checker();
        for value in [VALUES[0], VALUES[0], VALUES[1], VALUES[1]] {
            checker.saw_target("db", &value).unwrap();
        }
        checker.saw_status("db", Some("a"), Some(1)).unwrap();
        checker.saw_status("db", Some("a"), Some(1)).unwrap();
        checker.saw_status("db", None, None).unwrap();
        checker.saw_status("db", Some("a"), Some(3)).unwrap();
        assert!(checker.is_latest("db", &VALUES[1]) && !checker.is_latest("db", &VALUES[0]));
    }

    #[test]
    fn a_wrong_value_is_found() {
        let mut checker = checker();
        assert_eq!(checker.saw_target("db", &VALUES[2]), Err(Violation::UnknownValue));
        assert_eq!(checker.saw_target("other", &VALUES[0]), Err(Violation::UnknownValue));
        checker.saw_target("db", &VALUES[1]).unwrap();
        assert_eq!(checker.saw_target("db", &VALUES[0]), Err(Violation::OlderValue { before: 2, now: 1 }));
    }

    #[test]
    fn another_id_and_a_lower_version_are_found() {
        let mut checker = checker();
        checker.saw_status("db", Some("a"), Some(2)).unwrap();
        let other = Violation::OtherId { before: "a".to_owned(), now: "b".to_owned() };
        assert_eq!(checker.saw_status("db", Some("b"), Some(2)), Err(other));
        assert_eq!(checker.saw_status("db", Some("a"), Some(1)), Err(Violation::LowerVersion { before: 2, now: 1 }));
        assert_eq!(checker.saw_status("db", Some("a"), Some(1)), Err(Violation::LowerVersion { before: 2, now: 1 }));
    }

    #[test]
    fn what_another_program_writes_is_no_value() {
        let mut checker = checker();
        checker.saw_target("db", &VALUES[1]).unwrap();
        checker.will_drift("db", INTRUDER);
        checker.saw_target("db", &INTRUDER).unwrap();
        checker.saw_target("db", &INTRUDER).unwrap();
        assert!(!checker.is_latest("db", &INTRUDER));
        assert_eq!(checker.saw_target("db", &VALUES[0]), Err(Violation::OlderValue { before: 2, now: 1 }));
    }

    #[test]
    fn what_another_program_wrote_must_not_come_back() {
        let repaired: [fn(&mut Checker); 2] =
            [|checker| checker.saw_target("db", &VALUES[1]).unwrap(), |checker| checker.repaired("db")];
        for repaired in repaired {
            let mut checker = checker();
            checker.will_drift("db", INTRUDER);
            // What was written before may be seen late.
            checker.saw_target("db", &VALUES[1]).unwrap();
            checker.saw_target("db", &INTRUDER).unwrap();
            repaired(&mut checker);
            assert_eq!(checker.saw_target("db", &INTRUDER), Err(Violation::UnknownValue));
        }
    }

    #[test]
    fn a_generated_value_stays_as_it_was_seen_first() {
        let mut checker = Checker::default();
        checker.will_generate("db");
        assert!(!checker.is_latest("db", &VALUES[0]));
        checker.saw_target("db", &VALUES[0]).unwrap();
        checker.saw_target("db", &VALUES[0]).unwrap();
        assert!(checker.is_latest("db", &VALUES[0]));
        assert_eq!(checker.saw_target("db", &VALUES[1]), Err(Violation::UnknownValue));
    }

    #[test]
    fn an_object_that_is_created_again_begins_again() {
        let mut checker = checker();
        checker.saw_status("db", Some("a"), Some(2)).unwrap();
        checker.forget("db");
        checker.will_apply("db", VALUES[2]);
        checker.saw_status("db", Some("b"), Some(1)).unwrap();
        checker.saw_target("db", &VALUES[2]).unwrap();
        assert_eq!(checker.saw_target("db", &VALUES[0]), Err(Violation::UnknownValue));
    }
}
