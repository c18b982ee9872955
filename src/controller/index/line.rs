//! The line before one name: the objects that want it, in the order in which they would get it.
//!
//! Of thousands that want one name, one can have it. So when the name becomes free or changes its holder, only the first
//! of the line is woken, and it has the turn: when its pass is over, it hands the turn on to the next one, whether it took
//! the name or could not. Guarantees, held by the property test below:
//! * one object at most has the turn;
//! * after [`Line::start`], every object that stays in the line and can take the name has the turn once, unless the line
//!   starts again: no wake-up is lost, also where objects leave the line meanwhile;
//! * the turn ends.

use std::collections::BTreeSet;

use super::{Name, few::Few};

/// What an object has to do with a name that it wants. The order is that of the line.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Rank {
    /// Its status names the Secret as its own: it holds the name, or has lost the Secret and gets it back.
    Holds,
    /// It is delivered under another name, and moves to this one.
    Moves,
    /// It has no such name yet.
    Wants,
    /// It wants the name and cannot take it, such as one that is suspended: it never has the turn.
    Cannot,
}

/// An object in a line.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Claim {
    pub(super) rank: Rank,
    pub(super) object: Name,
}

/// The objects that want one name.
#[derive(Debug, Default)]
pub(super) struct Line {
    claims: Few<Claim>,
    /// The object that has the turn, with the claim that it had when it got it.
    turn: Option<Claim>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The claims, in the order of the line.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter()
    }

    pub(super) fn join(&mut self, claim: Claim) {
        self.claims.insert(claim);
    }

    /// An object wants the name no more. If it had the turn, returns the object that has it now.
    pub(super) fn leave(&mut self, claim: &Claim) -> Option<Name> {
        self.claims.remove(claim);
        self.pass_on(&claim.object)
    }

    /// The same object, with another rank. It keeps the turn.
    pub(super) fn change(&mut self, before: &Claim, after: Claim) {
        self.claims.remove(before);
        self.claims.insert(after);
    }

    /// Gives the turn to the first object that is not in `woken`: those are looked at anyway. Returns which one has it.
    pub(super) fn start(&mut self, woken: &BTreeSet<Name>) -> Option<Name> {
        let first = self.claims.iter().find(|claim| !woken.contains(&claim.object)).cloned();
        self.give(first)
    }

    /// If `object` has the turn, hands it on. Returns the object that has it now.
    pub(super) fn pass_on(&mut self, object: &str) -> Option<Name> {
        let turn = self.turn.take_if(|turn| *turn.object == *object)?;
        let next = self.claims.after(&turn).find(|claim| *claim.object != *object).cloned();
        self.give(next)
    }

    fn give(&mut self, next: Option<Claim>) -> Option<Name> {
        self.turn = next.filter(|next| next.rank != Rank::Cannot);
        self.turn.as_ref().map(|turn| turn.object.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(rank: Rank, object: usize) -> Claim {
        Claim { rank, object: format!("o{object}").into() }
    }

    #[test]
    fn the_turn_goes_through_the_line_once() {
        let mut line = Line::default();
        for (rank, object) in
            [(Rank::Cannot, 0), (Rank::Wants, 1), (Rank::Moves, 2), (Rank::Wants, 3), (Rank::Holds, 4)]
        {
            line.join(claim(rank, object));
        }
        let mut turns = vec![line.start(&BTreeSet::from(["o4".into()])).unwrap()];
        assert_eq!(line.pass_on("o1"), None, "it has no turn to hand on");
        while let Some(next) = line.pass_on(&turns.last().unwrap().clone()) {
            turns.push(next);
        }
        assert_eq!(turns, ["o2", "o1", "o3"].map(Name::from));
        assert_eq!(line.pass_on("o3"), None);
    }

    const RANKS: [Rank; 4] = [Rank::Holds, Rank::Moves, Rank::Wants, Rank::Cannot];

    #[derive(Clone, Debug)]
    enum Step {
        Join(usize, usize),
        Leave(usize),
        Change(usize, usize),
        Start,
        PassOn,
        PassOnWithoutTurn(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..6usize, 0..4usize).prop_map(|(object, rank)| Step::Join(object, rank)),
            1 => (0..6usize).prop_map(Step::Leave),
            1 => (0..6usize, 0..4usize).prop_map(|(object, rank)| Step::Change(object, rank)),
            1 => Just(Step::Start),
            3 => Just(Step::PassOn),
            1 => (0..6usize).prop_map(Step::PassOnWithoutTurn),
        ]
    }

    proptest! {
        // No file remembers a failure: one that matters becomes a test of its own.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_object_that_stays_in_the_line_has_the_turn(steps in proptest::collection::vec(step(), 1..60)) {
            let mut line = Line::default();
            let mut claims: [Option<Claim>; 6] = Default::default();
            // Those that were in the line when it started, have stayed as they were since, and are still to have the turn.
            let mut owed: BTreeSet<Claim> = BTreeSet::new();
            let mut turn: Option<Name> = None;
            for step in steps {
                match step {
                    Step::Join(object, rank) if claims[object].is_none() => {
                        let joined = claim(RANKS[rank], object);
                        line.join(joined.clone());
                        claims[object] = Some(joined);
                    }
                    Step::Leave(object) => if let Some(left) = claims[object].take() {
                        owed.remove(&left);
                        let next = line.leave(&left);
                        if turn.as_ref() == Some(&left.object) {
                            turn = next;
                        } else {
                            prop_assert_eq!(next, None);
                        }
                    },
                    Step::Change(object, rank) => if let Some(before) = claims[object].take() {
                        let after = claim(RANKS[rank], object);
                        line.change(&before, after.clone());
                        if before != after {
                            owed.remove(&before);
                        }
                        claims[object] = Some(after);
                    },
                    Step::Start => {
                        owed = claims.iter().flatten().filter(|claim| claim.rank != Rank::Cannot).cloned().collect();
                        turn = line.start(&BTreeSet::new());
                    }
                    Step::PassOn => if let Some(object) = turn.take() {
                        turn = line.pass_on(&object);
                    },
                    Step::PassOnWithoutTurn(object) => {
                        let object = Name::from(format!("o{object}"));
                        if turn.as_ref() != Some(&object) {
                            prop_assert_eq!(line.pass_on(&object), None);
                        }
                    }
                    Step::Join(..) => {}
                }
                if let Some(turn) = &turn {
                    owed.retain(|claim| claim.object != *turn);
                    let of_it = claims.iter().flatten().any(|claim| claim.object == *turn);
                    prop_assert!(of_it, "the turn is of one that has left");
                } else {
                    prop_assert!(owed.is_empty(), "the turn ended before {:?} had it", owed);
                }
            }
        }
    }
}
