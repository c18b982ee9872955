//! Sequences that once ended badly, as the property found them: each made shorter by hand, and named after what was
//! wrong.

use super::{
    run,
    server::Deletion::{Background, Orphan},
    steps::{
        Edit::{Adopt, Name, Retain, TargetType},
        Event::{Apply, Collect, DeleteObject, Meddle, Squat, SquatRecord},
        Meanwhile::{self, Other},
        Meddle::{AddKey, Delete, Freeze, Hold},
        Pick, Step,
        Work::{CatchUp, Pass, Settle},
    },
};

fn event(event: super::steps::Event) -> Step {
    Step::Event(event)
}

fn first(work: super::steps::Work) -> Step {
    Step::Work(0, work)
}

fn second(work: super::steps::Work) -> Step {
    Step::Work(1, work)
}

fn pass(object: Pick) -> super::steps::Work {
    Pass { object, late: false, fault: None, meanwhile: None }
}

fn meanwhile(object: Pick, at: usize, meanwhile: Meanwhile) -> super::steps::Work {
    Pass { object, late: false, fault: None, meanwhile: Some((at, Box::new(meanwhile))) }
}

#[track_caller]
fn ends_well(steps: &[Step]) {
    if let Err(wrong) = run(steps) {
        panic!("{wrong}");
    }
}

/// It was applied at every pass, to find out anew that it cannot be changed, which nobody wanted.
#[test]
fn a_target_that_somebody_froze_is_left_in_peace_while_its_value_is_right() {
    ends_well(&[event(Apply(0, vec![])), first(Settle), event(Meddle(0, Freeze))]);
}

/// Made anew without owner reference, it passed for somebody else's.
#[test]
fn a_retained_target_that_was_deleted_is_made_again_and_known_again() {
    ends_well(&[
        event(Apply(0, vec![])),
        first(Settle),
        event(Apply(0, vec![Retain(true)])),
        first(Settle),
        event(Meddle(0, Delete)),
    ]);
}

/// An operator that was behind made a second record, under the old name and with another id, and nobody removed it.
#[test]
fn a_second_record_of_an_operator_that_was_behind_goes() {
    ends_well(&[
        event(Apply(0, vec![])),
        first(CatchUp),
        event(Apply(0, vec![Name(1)])),
        second(CatchUp),
        second(pass(0)),
        first(pass(0)),
    ]);
}

/// The second operator had renamed it; to the first, the record seemed lost, and it was made again under the old name.
#[test]
fn a_record_that_was_renamed_elsewhere_is_not_taken_for_lost() {
    ends_well(&[
        event(Apply(1, vec![])),
        first(Settle),
        event(Meddle(1, AddKey)),
        second(CatchUp),
        event(Apply(1, vec![Name(0)])),
        first(Settle),
        second(pass(1)),
    ]);
}

/// It was sealed again while a finalizer held it, and then it was gone.
#[test]
fn a_retained_record_that_is_being_deleted_is_not_taken_over() {
    ends_well(&[
        event(Apply(1, vec![])),
        first(CatchUp),
        first(pass(1)),
        event(DeleteObject(1, Orphan)),
        event(Meddle(1, Hold(true))),
        event(Meddle(1, Delete)),
        event(Apply(1, vec![])),
        first(Settle),
    ]);
}

/// An operator that did not know the type of the adopted Secret, as after a restart, called it served; the other one, which
/// did, called it not owned; and so on for ever.
#[test]
fn an_adopted_target_of_another_type_is_told_the_same_by_every_operator() {
    ends_well(&[
        event(Squat { target: 0, value: None, controlled: false }),
        event(Apply(0, vec![Adopt(true)])),
        first(Settle),
        event(Apply(0, vec![TargetType(true)])),
        first(Settle),
    ]);
}

/// None of these was ever wrong: they are what the rules are for.
#[test]
fn what_the_rules_are_for() {
    for steps in [
        // A name is handed over while it is taken, and a stranger stands at the target.
        vec![
            event(Squat { target: 0, value: None, controlled: false }),
            event(SquatRecord(1)),
            event(Apply(0, vec![])),
            event(Apply(1, vec![])),
            first(Settle),
        ],
        // Deleted and applied again, before the collector came.
        vec![
            event(Apply(0, vec![])),
            first(Settle),
            event(DeleteObject(0, Background)),
            event(Apply(0, vec![])),
            first(Settle),
            event(Collect),
        ],
        // Both operators make the first record of one object.
        vec![
            event(Apply(0, vec![])),
            first(CatchUp),
            first(meanwhile(0, 0, Other { object: 0, fresh: true, fault: None })),
        ],
    ] {
        ends_well(&steps);
    }
}
