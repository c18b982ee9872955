//! Sequences that once ended badly, as the property found them: each made shorter by hand, and named after what was
//! wrong.

use super::{
    run,
    server::Deletion::{Background, Orphan},
    steps::{
        Edit::{Adopt, Name, Retain, TargetNote, TargetType},
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

/// It was applied at every pass, to find out again that it cannot be changed, which was not needed.
#[test]
fn a_target_that_a_user_made_immutable_is_not_written_while_its_value_is_right() {
    ends_well(&[event(Apply(0, vec![])), first(Settle), event(Meddle(0, Freeze))]);
}

/// Recreated without an owner reference, it was taken for a Secret that the operator does not manage.
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

/// An operator that was behind made a second record, under the old name and with another id, and it was never removed.
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

/// No cache keeps a long annotation: it is read live right before it is written, and the spec may move meanwhile.
#[test]
fn a_long_annotation_that_is_edited_at_any_request_of_a_pass_is_delivered_as_it_is_at_last() {
    for at in 0..8 {
        for edit in [TargetNote(Some(1)), TargetNote(None), TargetType(true), Name(1)] {
            let during = |first_edit| {
                vec![
                    event(Apply(0, vec![first_edit])),
                    first(CatchUp),
                    first(meanwhile(0, at, Meanwhile::Event(Apply(0, vec![edit])))),
                ]
            };
            ends_well(&during(TargetNote(Some(0))));
            let served = [event(Apply(0, vec![TargetNote(Some(1))])), first(Settle)];
            ends_well(&[served.to_vec(), during(TargetNote(Some(0)))].concat());
        }
    }
}

/// It had delivered under an id that no status said yet, and one that was behind gave the object another one, under the new
/// name; the target then belonged to neither.
#[test]
fn an_id_that_only_the_target_tells_stays() {
    ends_well(&[
        event(Apply(2, vec![])),
        second(CatchUp),
        event(Apply(2, vec![Name(0)])),
        first(CatchUp),
        second(pass(2)),
        first(pass(2)),
    ]);
}

/// A record that was lost was made again with the date of a clock that had been set back.
#[test]
fn a_record_that_is_made_again_is_not_older_than_the_lost_one() {
    use super::steps::{Edit, Event::Jump, From};
    ends_well(&[
        event(Apply(0, vec![Edit::From(From::Sealed(0)), Edit::Deliver(false)])),
        first(Settle),
        second(Settle),
        event(Jump(-1)),
        event(Meddle(0, Delete)),
        first(Settle),
    ]);
}

/// None of these was ever wrong: they are what the rules are for.
#[test]
fn what_the_rules_are_for() {
    for steps in [
        // A name is handed over while it is taken, and a Secret of a user stands at the target.
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

#[test]
fn an_adopted_secret_that_is_moved_back_to_with_another_type_is_not_recreated() {
    ends_well(&[
        event(Squat { target: 3, value: None, controlled: false }),
        event(Squat { target: 4, value: None, controlled: true }),
        event(Apply(0, vec![Adopt(true), super::steps::Edit::TargetName(3)])),
        first(Settle),
        event(Apply(0, vec![super::steps::Edit::TargetName(4)])),
        first(Settle),
        event(Apply(0, vec![super::steps::Edit::TargetName(3), TargetType(true)])),
        first(Settle),
    ]);
}

#[test]
fn an_adopted_secret_that_is_moved_back_to_with_another_key_is_not_overwritten() {
    ends_well(&[
        event(Squat { target: 3, value: Some(false), controlled: false }),
        event(Squat { target: 4, value: None, controlled: true }),
        event(Apply(0, vec![Adopt(true), super::steps::Edit::TargetName(3), super::steps::Edit::TargetKey(true)])),
        first(Settle),
        event(Apply(0, vec![super::steps::Edit::TargetName(4)])),
        first(Settle),
        event(Apply(0, vec![super::steps::Edit::TargetName(3), super::steps::Edit::TargetKey(false)])),
        first(Settle),
    ]);
}

#[test]
fn a_type_that_changed_while_secrets_could_not_be_written_is_not_forgotten() {
    let broken = || Pass { object: 0, late: false, fault: Some((0, super::line::Fault::Error)), meanwhile: None };
    ends_well(&[
        event(Apply(0, vec![])),
        first(Settle),
        first(super::steps::Work::Restart),
        second(super::steps::Work::Restart),
        event(Apply(0, vec![TargetType(true)])),
        first(CatchUp),
        first(broken()),
        first(broken()),
        first(Settle),
    ]);
}

#[test]
fn an_old_value_is_not_served_over_a_newer_one() {
    use super::{
        operator::Stream,
        play::{Play, VALUES, base64},
        steps::{Edit, Event::Source, From, Work::Hear},
    };
    let steps = [
        event(Source { source: 0, value: 0, other_key: false }),
        event(Apply(0, vec![Edit::From(From::Source { source: 0, other_key: false })])),
        first(Settle),
        second(Settle),
        event(Meddle(0, super::steps::Meddle::EditValue)),
        first(Hear(Stream::Labelled, 10)),
        event(Source { source: 0, value: 1, other_key: false }),
        first(meanwhile(0, 1, Other { object: 0, fresh: true, fault: None })),
    ];
    let runtime = super::runtime();
    runtime.block_on(async {
        let play = Play::new(false);
        for step in &steps {
            play.step(step).await;
        }
        let newest = base64(VALUES[1]);
        let holds = play.server().secrets["a"].data("value") == newest.as_str();
        assert!(holds, "{}", play.story());
        assert_eq!(play.server().objects["a"].ready(), ("True".to_owned(), "Served".to_owned()));
    });
}

#[test]
fn an_unlabelled_record_that_an_interrupted_rename_left_is_found() {
    use super::{
        line::Fault::DieBefore,
        steps::{Edit::Name, Meddle::RemoveRole},
    };
    ends_well(&[
        event(Apply(0, vec![super::steps::Edit::Suspend(true)])),
        event(Apply(1, vec![])),
        event(Apply(2, vec![Name(0)])),
        first(Settle),
        event(Apply(2, vec![Name(2)])),
        event(Meddle(6, RemoveRole)),
        first(Pass {
            object: 0,
            late: false,
            fault: None,
            meanwhile: Some((0, Box::new(Other { object: 2, fresh: true, fault: Some((2, DieBefore)) }))),
        }),
    ]);
}

/// Our key could not be taken away from it any more, and the pass failed over and over; what status said stayed behind.
#[test]
fn an_adopted_secret_that_a_user_made_immutable_is_released() {
    use super::steps::Edit::{Deliver, TargetName};
    for away in [TargetName(3), Deliver(false)] {
        ends_well(&[
            event(Squat { target: 0, value: None, controlled: false }),
            event(Apply(0, vec![Adopt(true)])),
            first(Settle),
            event(Meddle(0, Freeze)),
            first(Settle),
            event(Apply(0, vec![away])),
            first(Settle),
        ]);
    }
}

/// The name of a lost record is kept for its owner; a pass that found its own spec renamed to it did not know of that.
#[test]
fn a_kept_name_is_not_taken_by_one_that_is_renamed_meanwhile() {
    use super::{
        play::Play,
        steps::{Edit, From},
    };
    let runtime = super::runtime();
    runtime.block_on(async {
        let play = Play::new(false);
        let sealed = |which| Edit::From(From::Sealed(which));
        for step in [event(Apply(0, vec![])), event(Apply(1, vec![sealed(0)])), first(Settle), second(Settle)] {
            play.step(&step).await;
        }
        let record = managed_secrets_api::names::record_name("ONE");
        let which = play.server().secrets.keys().position(|name| *name == record).unwrap();
        for step in [
            event(Apply(1, vec![Name(2), sealed(2)])),
            event(Meddle(which, Delete)),
            first(CatchUp),
            first(meanwhile(1, 0, Meanwhile::Event(Apply(1, vec![Name(0)])))),
        ] {
            play.step(&step).await;
        }
        let taken = play.server().secrets.contains_key(&record);
        assert!(!taken, "{}", play.story());
        play.come_to_rest().await.unwrap();
        let owner = play.server().objects["a"].status_text("/name").map(str::to_owned);
        assert_eq!(owner.as_deref(), Some("ONE"), "{}", play.story());
    });
}

/// A user changes the source all the time: that is not followed at full speed, but the target is put right at once.
#[test]
fn a_source_that_moves_all_the_time_does_not_hold_up_the_target() {
    use std::time::Duration;

    use super::{
        play::{Play, VALUES, base64},
        steps::{Edit, Event::Source, From, Meddle::EditValue},
    };
    let runtime = super::runtime();
    runtime.block_on(async {
        let play = Play::new(true);
        let record = || {
            let server = play.server();
            let secret = &server.secrets[&managed_secrets_api::names::record_name("ONE")];
            server.oracle.open(secret).unwrap().meta
        };
        for step in [
            event(Source { source: 0, value: 0, other_key: false }),
            event(Apply(0, vec![Edit::From(From::Source { source: 0, other_key: false })])),
            first(Settle),
        ] {
            play.step(&step).await;
        }
        let holds = |value: &str| play.server().secrets["a"].data("value") == base64(value).as_str();
        let before = record();
        *play.operators[0].source_wait.lock() = Some(Duration::from_secs(300));
        for step in [
            event(Source { source: 0, value: 1, other_key: true }),
            first(Settle),
            event(Meddle(0, EditValue)),
            first(Settle),
        ] {
            play.step(&step).await;
        }
        assert!(holds(VALUES[0]), "{}", play.story());
        assert_eq!(record(), before, "{}", play.story());
        // A new value does not wait, nor does it lose its place in the record.
        play.step(&event(Source { source: 0, value: 1, other_key: false })).await;
        play.step(&first(Settle)).await;
        assert!(holds(VALUES[1]), "{}", play.story());
        assert_eq!(record().version, before.version + 1);
        *play.operators[0].source_wait.lock() = None;
        play.step(&event(Source { source: 0, value: 0, other_key: true })).await;
        let told = record().source;
        play.come_to_rest().await.unwrap();
        assert_ne!(record().source, told, "{}", play.story());
    });
}

/// Each took its value from the next one's target, for ever.
#[test]
fn a_ring_of_values_comes_to_rest_and_goes_on_when_it_is_broken() {
    use managed_secrets_api::{
        ManagedSecretSpec,
        types::{Generate, SecretKeyRef, ValueFrom},
    };

    use super::play::{NAMES, Play};
    let runtime = super::runtime();
    runtime.block_on(async {
        let play = Play::new(false);
        let apply = |which: usize, upstream: Option<usize>| {
            let key = |upstream: usize| SecretKeyRef { name: NAMES[upstream].to_owned(), key: "value".to_owned() };
            let spec = ManagedSecretSpec {
                name: NAMES[which].to_uppercase(),
                value_from: upstream.map(|upstream| ValueFrom { secret_key_ref: key(upstream) }),
                generate: upstream.is_none().then(Generate::default),
                ..ManagedSecretSpec::default()
            };
            play.server().apply_spec(NAMES[which], spec);
        };
        let reasons = || NAMES.map(|name| play.server().objects[name].ready().1);
        // Each of its own, so that they differ.
        (0..3).for_each(|which| apply(which, None));
        play.come_to_rest().await.unwrap();
        (0..3).for_each(|which| apply(which, Some((which + 1) % 3)));
        play.come_to_rest().await.unwrap();
        assert_eq!(reasons(), ["SourceRing"; 3], "{}", play.story());
        apply(2, None);
        play.come_to_rest().await.unwrap();
        assert_eq!(reasons(), ["Served"; 3], "{}", play.story());
    });
}

/// The answer to a live read, or to a write, came after the watch had shown the deletion: what it said stayed in the cache
/// for good, and an object of that name waited for a deletion that was over.
#[test]
fn an_answer_that_comes_after_the_deletion_leaves_no_ghost() {
    use super::{server::Deletion, steps::Event};
    for at in 0..4 {
        // Its record or target, deleted by hand, while each of the calls of a pass is on its way.
        for which in 0..2 {
            ends_well(&[
                event(Apply(0, vec![])),
                first(CatchUp),
                first(meanwhile(0, at, Meanwhile::Shown(Event::Meddle(which, Delete)))),
            ]);
            ends_well(&[
                event(Apply(0, vec![])),
                first(Settle),
                event(Meddle(0, AddKey)),
                first(CatchUp),
                first(meanwhile(0, at, Meanwhile::Shown(Event::Meddle(which, Delete)))),
            ]);
        }
        // All of it goes, as with a namespace.
        ends_well(&[
            event(Apply(0, vec![])),
            first(Settle),
            event(Apply(0, vec![super::steps::Edit::Description(1)])),
            first(CatchUp),
            first(meanwhile(0, at, Meanwhile::Shown(Event::DeleteObject(0, Deletion::Background)))),
        ]);
    }
}

/// The answer to its creation was lost, it was renamed, and a user removed the label of the record that no status names.
#[test]
fn a_record_that_cannot_be_found_is_not_the_current_one() {
    use super::{
        line::Fault::DieAfter,
        steps::{Event::Meddle, Meddle::RemoveRole},
    };
    ends_well(&[
        event(Apply(2, vec![Name(0)])),
        first(CatchUp),
        first(Pass { object: 2, late: false, fault: Some((0, DieAfter)), meanwhile: None }),
        event(Apply(2, vec![Name(2)])),
        event(Meddle(0, RemoveRole)),
    ]);
}

/// The target is the only copy of the value, and a user has made it immutable: that value is right.
#[test]
fn a_lost_record_is_rebuilt_from_a_frozen_target() {
    use super::{play::Play, steps::Event::Meddle};
    let steps = [
        event(Apply(0, vec![])),
        first(Settle),
        event(Meddle(0, Freeze)),
        first(Settle),
        event(Meddle(1, Delete)),
        first(Settle),
    ];
    let runtime = super::runtime();
    runtime.block_on(async {
        let play = Play::new(false);
        for step in &steps {
            play.step(step).await;
        }
        assert_eq!(play.server().objects["a"].ready().0, "True", "{}", play.story());
    });
}

/// Not a failure that was found: the rule that no clock, and no restart, makes two rotations of one.
#[test]
fn a_clock_that_jumps_a_day_and_back_rotates_once() {
    use managed_secrets_api::names::record_name;

    use super::{
        play::Play,
        steps::{Edit::RotateEvery, Event::Jump, Work::Restart},
    };
    let runtime = super::runtime();
    runtime.block_on(async {
        let play = Play::new(true);
        let version = || {
            let server = play.server();
            server.oracle.open(&server.secrets[&record_name("ONE")]).unwrap().meta.version
        };
        for step in [event(Apply(0, vec![RotateEvery(true)])), first(Settle)] {
            play.step(&step).await;
        }
        assert_eq!(version(), 1);
        for (hours, expected) in [(-24, 1), (24, 1), (24, 2), (-24, 2), (-24, 2), (24, 2), (24, 2)] {
            play.step(&event(Jump(hours))).await;
            for _ in 0..3 {
                play.step(&first(Restart)).await;
                play.step(&first(Settle)).await;
            }
            assert_eq!(version(), expected, "{hours}: {}", play.story());
        }
        play.verdict().unwrap();
    });
}
