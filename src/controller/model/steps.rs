//! What can happen: edits by users, changes by others, the collector, operators at work, crashes; and how to draw
//! sequences of it.

use proptest::{collection::vec, option, prelude::*};

use super::{line::Fault, operator::Stream, server::Deletion, templates::TEMPLATES, workload::Touch};

/// Small numbers stand for names: few of them, so that they collide.
pub(super) type Pick = usize;

/// Where a value comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Generate { long: bool },
    Source { source: Pick, other_key: bool },
    Sealed(Pick),
}

/// An edit of one field of a spec.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edit {
    Name(Pick),
    Description(Pick),
    From(From),
    Deliver(bool),
    TargetName(Pick),
    TargetKey(bool),
    TargetType(bool),
    TargetLabel(bool),
    /// An annotation of the target that is too long for a cache.
    TargetNote(Option<Pick>),
    /// A template of the target; with some of them, such an annotation.
    TargetTexts(Option<Pick>),
    Adopt(bool),
    Retain(bool),
    Suspend(bool),
    RotateEvery(bool),
    Revision(Option<Pick>),
    History(Option<i32>),
    Version(Option<i64>),
    Restart(bool),
    Previous {
        key: bool,
        overlap: bool,
    },
}

/// What a user does to a Secret that exists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meddle {
    EditValue,
    AddKey,
    RemoveRole,
    RemoveLabels,
    RemoveOwners,
    Label,
    Delete,
    Freeze,
    Hold(bool),
}

/// Something that happens at once.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Apply(Pick, Vec<Edit>),
    DeleteObject(Pick, Deletion),
    HoldObject(Pick, bool),
    LoseStatus(Pick),
    /// A source gets a value, under the other key or not.
    Source {
        source: Pick,
        value: Pick,
        other_key: bool,
    },
    DropSource(Pick),
    Meddle(Pick, Meddle),
    /// A Secret appears at a target's place: with a key of ours or not, holding what the record holds or not.
    Squat {
        target: Pick,
        value: Option<bool>,
        controlled: bool,
    },
    /// A Secret appears at a record's place.
    SquatRecord(Pick),
    /// A user copies a Secret with labels, annotations and owner references.
    Copy {
        which: Pick,
        to: Pick,
    },
    /// A user does something to the workload.
    Workload(Touch),
    Collect,
    Tick(u8),
    /// Hours pass.
    Pass(u8),
    /// The wall clock of every operator is set forwards or back, in hours.
    Jump(i8),
}

/// What an operator does.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Hear(Stream, usize),
    CatchUp,
    ListAgain,
    Restart,
    /// A pass of some object, whether it was woken or not.
    Pass {
        object: Pick,
        late: bool,
        fault: Option<(usize, Fault)>,
        meanwhile: Option<(usize, Box<Meanwhile>)>,
    },
    /// All caught up, the queue worked off.
    Settle,
    /// Looks at workloads, after so many seconds.
    Look {
        seconds: u8,
        fault: Option<(usize, Fault)>,
        /// What a user does to the workload before one of the requests.
        meanwhile: Option<(usize, Touch)>,
    },
}

/// What happens between two requests of a pass.
#[derive(Clone, Debug)]
pub(super) enum Meanwhile {
    Event(Event),
    /// The request has been carried out; then this happens, and the watches show it before the answer arrives.
    Shown(Event),
    /// The other operator makes a pass.
    Other {
        object: Pick,
        fresh: bool,
        fault: Option<(usize, Fault)>,
    },
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Event(Event),
    Work(usize, Work),
}

/// How many ManagedSecrets there are.
pub(super) const OBJECTS: usize = 3;

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        4 => any::<bool>().prop_map(|long| From::Generate { long }),
        4 => (0..2usize, prop::bool::weighted(0.2)).prop_map(|(source, other_key)| From::Source { source, other_key }),
        1 => (0..2usize).prop_map(From::Sealed),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..3usize).prop_map(Edit::Name),
        1 => (0..3usize).prop_map(Edit::Description),
        3 => from().prop_map(Edit::From),
        1 => any::<bool>().prop_map(Edit::Deliver),
        2 => (0..5usize).prop_map(Edit::TargetName),
        1 => any::<bool>().prop_map(Edit::TargetKey),
        1 => any::<bool>().prop_map(Edit::TargetType),
        1 => any::<bool>().prop_map(Edit::TargetLabel),
        1 => option::of(0..TEMPLATES.len()).prop_map(Edit::TargetTexts),
        2 => any::<bool>().prop_map(Edit::Adopt),
        2 => any::<bool>().prop_map(Edit::Retain),
        1 => prop::bool::weighted(0.3).prop_map(Edit::Suspend),
        2 => prop::bool::weighted(0.7).prop_map(Edit::RotateEvery),
        1 => option::of(0..2usize).prop_map(Edit::Revision),
        1 => option::of(0..3i32).prop_map(Edit::History),
        2 => option::weighted(0.6, 1..4i64).prop_map(Edit::Version),
        2 => prop::bool::weighted(0.8).prop_map(Edit::Restart),
        2 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(key, overlap)| Edit::Previous { key, overlap }),
    ]
}

fn meddle() -> impl Strategy<Value = Meddle> {
    prop_oneof![
        Just(Meddle::EditValue),
        Just(Meddle::AddKey),
        Just(Meddle::RemoveRole),
        Just(Meddle::RemoveLabels),
        Just(Meddle::RemoveOwners),
        Just(Meddle::Label),
        Just(Meddle::Delete),
        Just(Meddle::Delete),
        Just(Meddle::Freeze),
        any::<bool>().prop_map(Meddle::Hold),
    ]
}

fn touch() -> impl Strategy<Value = Touch> {
    prop_oneof![
        2 => Just(Touch::Create),
        1 => Just(Touch::Delete),
        1 => Just(Touch::Strip),
        1 => Just(Touch::Undo),
    ]
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let deletion = prop_oneof![3 => Just(Deletion::Background), 1 => Just(Deletion::Orphan)];
    prop_oneof![
        10 => (0..OBJECTS, vec(edit(), 0..3)).prop_map(|(object, edits)| Event::Apply(object, edits)),
        2 => (0..OBJECTS, deletion).prop_map(|(object, how)| Event::DeleteObject(object, how)),
        1 => (0..OBJECTS, any::<bool>()).prop_map(|(object, hold)| Event::HoldObject(object, hold)),
        1 => (0..OBJECTS).prop_map(Event::LoseStatus),
        2 => (0..2usize, 0..3usize, prop::bool::weighted(0.2))
            .prop_map(|(source, value, other_key)| Event::Source { source, value, other_key }),
        1 => (0..2usize).prop_map(Event::DropSource),
        5 => (0..8usize, meddle()).prop_map(|(which, meddle)| Event::Meddle(which, meddle)),
        2 => (0..5usize, option::of(any::<bool>()), prop::bool::weighted(0.2))
            .prop_map(|(target, value, controlled)| Event::Squat { target, value, controlled }),
        1 => (0..3usize).prop_map(Event::SquatRecord),
        1 => (0..8usize, 0..5usize).prop_map(|(which, to)| Event::Copy { which, to }),
        1 => touch().prop_map(Event::Workload),
        2 => Just(Event::Collect),
        1 => any::<u8>().prop_map(Event::Tick),
        1 => (1..30u8).prop_map(Event::Pass),
        1 => (-30..30i8).prop_map(Event::Jump),
    ]
}

fn fault() -> impl Strategy<Value = (usize, Fault)> {
    let fault = prop_oneof![
        2 => Just(Fault::DieBefore),
        4 => Just(Fault::DieAfter),
        1 => Just(Fault::CutBefore),
        3 => Just(Fault::CutAfter),
        1 => Just(Fault::Error),
    ];
    (0..8usize, fault)
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![
        event().prop_map(Meanwhile::Event),
        event().prop_map(Meanwhile::Shown),
        (0..OBJECTS, any::<bool>(), option::weighted(0.2, fault()))
            .prop_map(|(object, fresh, fault)| Meanwhile::Other { object, fresh, fault }),
    ]
}

fn work() -> impl Strategy<Value = Work> {
    let stream = prop_oneof![Just(Stream::Objects), Just(Stream::Labelled), Just(Stream::Sources)];
    let pass = (
        0..OBJECTS,
        prop::bool::weighted(0.2),
        option::weighted(0.3, fault()),
        option::weighted(0.3, (0..8usize, meanwhile().prop_map(Box::new))),
    );
    let look = (0..20u8, option::weighted(0.2, fault()), option::weighted(0.2, (0..4usize, touch())));
    prop_oneof![
        2 => (stream, 0..4usize).prop_map(|(stream, most)| Work::Hear(stream, most)),
        3 => Just(Work::CatchUp),
        1 => Just(Work::ListAgain),
        1 => Just(Work::Restart),
        8 => pass.prop_map(|(object, late, fault, meanwhile)| Work::Pass { object, late, fault, meanwhile }),
        4 => Just(Work::Settle),
        2 => look.prop_map(|(seconds, fault, meanwhile)| Work::Look { seconds, fault, meanwhile }),
    ]
}

/// A sequence.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => event().prop_map(Step::Event),
        1 => (prop::bool::weighted(0.25), work()).prop_map(|(second, work)| Step::Work(usize::from(second), work)),
    ];
    vec(step, 10..60)
}
