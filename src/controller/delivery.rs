//! The target: whose a Secret at its place is, and what has to be done to it.
//!
//! In: the [`World`] and the record's id. Out: a [`Delivery`]. Pure. The rule behind every branch: a Secret that is not
//! ours is never written and never deleted, and carrying our labels does not make it ours, for people copy Secrets with
//! labels and owner references.

mod recordless;

use std::collections::BTreeSet;

use managed_secrets_api::{
    Reason,
    keys::{ANNO_FOUND_KEY, ANNO_OWNER, DEFAULT_TARGET_TYPE, LABEL_ID, LABEL_ROLE, ROLE_RECORD, ROLE_TARGET},
    types::{Adoption, DeletionPolicy, Delivery as Wanted},
};
use managed_secrets_crypto::Plaintext;

use self::recordless::Marks;
use super::{
    conditions::{READY, Verdict},
    decide::{Read, Slot, Step, TargetWrite, looked_at},
    record::Delivered,
    view::{
        SecretView,
        shape::{MetadataText, Shape, TargetMetadata},
    },
    world::{Known, Problem, Seen, World},
};

/// What becomes of the target.
#[derive(Debug)]
pub struct Delivery {
    /// What the record says about it.
    pub record: Delivered,
    /// What has to be done.
    pub action: Action,
    /// What of an adopted Secret is not ours to write.
    pub theirs: Theirs,
}

/// What an adopted Secret had before, of all that the spec asks for: it is neither written nor taken away.
#[derive(Debug, Default)]
pub struct Theirs {
    /// Keys of labels.
    labels: BTreeSet<String>,
    /// Keys of annotations.
    annotations: BTreeSet<String>,
    /// The first of them whose value is not the one that the spec asks for: what it is, and its field of the spec.
    other: Option<(String, &'static str)>,
    /// The key of the value. It is written, but stays when the target moves.
    key: bool,
}

impl Theirs {
    /// With the labels and annotations of a Secret that was read live, of those that the spec asks for. What our manager
    /// owns of it is ours, whoever else owns it.
    fn with_metadata(mut self, wanted: &MetadataText, view: &SecretView) -> Self {
        for (key, text) in wanted.labels.iter().filter(|(key, _)| !view.ours.labels.contains(*key)) {
            let Some(live) = view.labels.get(key) else { continue };
            if live != text {
                self.other.get_or_insert((format!("label {key}"), "spec.target.labels"));
            }
            self.labels.insert(key.clone());
        }
        for (key, text) in wanted.annotations.iter().filter(|(key, _)| !view.ours.annotations.contains(*key)) {
            let Some(live) = view.annotations.get(key) else { continue };
            if live != text {
                self.other.get_or_insert((format!("annotation {key}"), "spec.target.annotations"));
            }
            self.annotations.insert(key.clone());
        }
        self
    }
}

/// What of an adopted Secret is not ours. `found` is whether the key of the value was there before.
fn theirs(world: &World, seen: &Seen, id: &str, found: bool) -> Result<Theirs, Step> {
    let theirs = Theirs { key: found, ..Theirs::default() };
    if seen.view.shape == Shape::of(&operator_metadata(world, &theirs, id), &world.own.target_metadata) {
        // All of it is ours, as it should be.
        return Ok(theirs);
    }
    if !seen.live {
        // A cache does not keep what others put there.
        return Err(Step::Read(Read::Secret(seen.view.name.clone())));
    }
    Ok(theirs.with_metadata(wanted_metadata(world)?, &seen.view))
}

impl Delivery {
    fn new(record: Delivered, action: Action) -> Self {
        Self { record, action, theirs: Theirs::default() }
    }

    /// What of the spec an adopted Secret cannot follow.
    #[must_use]
    pub fn trouble(&self, name: &str) -> Option<Verdict> {
        let (what, field) = self.theirs.other.as_ref()?;
        let message = format!(
            "target Secret {name} was adopted, and its {what} has another value, which the operator does not change: remove it \
             from {field}, or from the Secret"
        );
        Some(Verdict::Terminal(Problem::new(Reason::TargetNotOwned, message)))
    }
}

/// What has to be done to a target.
#[derive(Debug)]
pub enum Action {
    /// `delivery: None`: there is none.
    Nothing,
    /// Write it, if it is not in step.
    Write(Slot),
    /// Its type is another: delete it, then make it anew.
    Recreate(Slot),
    /// Nothing may be written at its place.
    Blocked(Verdict),
}

/// Whose a Secret is.
#[derive(Debug, PartialEq)]
enum Relation<'a> {
    Ours,
    Adopted,
    Dying,
    OfAnother(&'a str),
    Stranger,
}

fn relation<'a>(world: &World, seen: &'a Seen, id: &str, recorded: Option<&Delivered>) -> Relation<'a> {
    let own = &world.own;
    let view = &seen.view;
    if view.is_dying(&own.name, &own.uid) {
        return Relation::Dying;
    }
    let other = view.owners.iter().find(|owner| owner.is_managed_secret && owner.uid != own.uid);
    if let Some(other) = other {
        return Relation::OfAnother(&other.name);
    }
    let same_id = view.id() == Some(id);
    if view.id().is_some() && !same_id {
        return match view.annotation(ANNO_OWNER) {
            Some(owner) if owner != own.name => Relation::OfAnother(owner),
            _ => Relation::Stranger,
        };
    }
    if let Some(Delivered::Adopted { uid, .. }) = recorded
        && *uid == view.uid
    {
        // Until the target carries our id, the conditions of an adoption are checked again.
        let written = own.status.target.as_ref().is_some_and(|target| target.uid == view.uid);
        return if same_id || written { Relation::Adopted } else { Relation::Stranger };
    }
    let made_by_us = view.owners.iter().any(|owner| owner.uid == own.uid) && view.ours.owner_uids.contains(&own.uid);
    let in_status = own.status.target.as_ref().is_some_and(|target| target.uid == view.uid);
    let unowned = view.owners.is_empty()
        && view.role() != Some(ROLE_RECORD)
        && same_id
        && view.annotation(ANNO_OWNER) == Some(own.name.as_str());
    let retained = own.status.target.is_none() && unowned;
    let own_by_record = matches!(recorded, Some(Delivered::Own { name, .. }) if *name == view.name);
    // Under `Retain` a target that moves, or is made again, has no owner reference, and status names another until the
    // pass is over: the record names this one, and our manager made it.
    let moved = own_by_record && unowned && view.ours.type_ && view.ours.labels.contains(LABEL_ID);
    if made_by_us || in_status || retained || moved {
        // An adopted Secret must never be deleted. Made by us is one that the record calls our own (also when a restore
        // has lost what our manager owns of it), or else one whose type our manager owns.
        return if made_by_us || own_by_record || view.ours.type_ { Relation::Ours } else { Relation::Adopted };
    }
    Relation::Stranger
}

/// Decides about the target. `recorded` is what the record says so far; `value` gives the value that will be delivered,
/// asked for only where an adoption must compare.
pub fn decide<'w>(
    world: &'w World,
    id: &str,
    recorded: Option<&Delivered>,
    value: impl Fn() -> Result<&'w Plaintext, Step>,
) -> Result<Delivery, Step> {
    let spec = &world.own.spec;
    if spec.delivery() == Wanted::None {
        return Ok(Delivery::new(Delivered::None, Action::Nothing));
    }
    let name = spec.target_name(&world.own.name);
    let key = spec.target_key();
    let own_place = Delivered::Own { name: name.to_owned(), key: key.to_owned() };
    // What the record says of this Secret, under whichever key: an adoption is not forgotten because the key moves.
    let kept = match recorded {
        Some(Delivered::Adopted { uid, name: before, .. }) if before == name => {
            Delivered::Adopted { uid: uid.clone(), name: name.to_owned(), key: key.to_owned() }
        }
        _ => own_place.clone(),
    };
    let adopted_here = kept != own_place;
    if let Some(refused) = world.refused.as_ref().filter(|refused| refused.secret == name) {
        return Ok(Delivery::new(kept, Action::Blocked(Verdict::Terminal(refused.problem.clone()))));
    }
    let in_status = world.own.status.target.as_ref().is_some_and(|target| target.name == name);
    let own_by_record = matches!(recorded, Some(Delivered::Own { name: before, .. }) if before == name);
    let seen = match world.secret(name) {
        // An adopted Secret may have lost its label: before the record calls what is here our own, a look tells.
        Known::Unseen if adopted_here || (in_status && !own_by_record) => {
            return Err(Step::Read(Read::Secret(name.to_owned())));
        }
        Known::Unseen | Known::Absent => {
            return Ok(Delivery::new(own_place, Action::Write(Slot::Free)));
        }
        Known::Present(seen) => seen,
    };
    let view = &seen.view;
    let slot = Slot::over(view);
    let related = relation(world, seen, id, recorded);
    let kept = match related {
        Relation::Adopted => Delivered::Adopted { uid: view.uid.clone(), name: name.to_owned(), key: key.to_owned() },
        _ => kept,
    };
    let keep = |action| Delivery::new(kept, action);
    if view.deleting && related != Relation::Dying {
        looked_at(world, seen, Reason::WaitingForDeletion)?;
        let message = format!("target Secret {name} is being deleted: wait for its finalizers");
        return Ok(keep(Action::Blocked(Verdict::Pending(Problem::new(Reason::WaitingForDeletion, message)))));
    }
    if related == Relation::Adopted && world.type_of(view).is_none() && !settled(world) {
        // No apply of ours would tell that an adopted Secret is of another type than spec.target.type.
        return Err(Step::Read(Read::Secret(name.to_owned())));
    }
    let other_type = world.type_of(view).is_some_and(|type_| type_ != spec.target_type());
    let frozen =
        matches!(related, Relation::Ours | Relation::Adopted) && view.immutable && !holds(world, view, key, &value)?;
    let adopted = || Delivered::Adopted { uid: view.uid.clone(), name: name.to_owned(), key: key.to_owned() };
    Ok(match related {
        Relation::Dying => {
            looked_at(world, seen, Reason::WaitingForDeletion)?;
            let message = format!("target Secret {name} belongs to a deleted ManagedSecret and is being deleted");
            keep(Action::Blocked(Verdict::Working(Problem::new(Reason::WaitingForDeletion, message))))
        }
        Relation::OfAnother(holder) => {
            looked_at(world, seen, Reason::TargetInUse)?;
            let message = format!(
                "target Secret {name} is held by ManagedSecret {holder}: choose another spec.target.name here or there{}",
                if view.owners.is_empty() { COPIED } else { "" }
            );
            keep(Action::Blocked(Verdict::Pending(Problem::new(Reason::TargetInUse, message))))
        }
        Relation::Ours | Relation::Adopted if frozen => immutable(keep, name),
        Relation::Ours if other_type => Delivery::new(own_place, Action::Recreate(slot)),
        Relation::Ours => Delivery::new(own_place, Action::Write(slot)),
        Relation::Adopted if other_type => {
            let message = format!(
                "target Secret {name} was adopted and its type is not spec.target.type: set spec.target.type to its type, because the operator never recreates an adopted Secret"
            );
            keep(Action::Blocked(Verdict::Terminal(Problem::new(Reason::TargetNotOwned, message))))
        }
        Relation::Adopted => {
            let key_is_ours = view.ours.data.contains(key)
                || world.own.status.target.as_ref().is_some_and(|before| before.uid == view.uid && before.key == key);
            // Moved to another key of an adopted Secret: that key may be somebody else's.
            let found = view.annotation(ANNO_FOUND_KEY) == Some(key);
            match if key_is_ours { Ok(found) } else { key_is_free(world, view, key, value)? } {
                Ok(found) => {
                    let theirs = theirs(world, seen, id, found)?;
                    Delivery { record: adopted(), action: Action::Write(slot), theirs }
                }
                Err(problem) => keep(Action::Blocked(Verdict::Terminal(problem))),
            }
        }
        Relation::Stranger => {
            if spec.adoption() == Adoption::Never {
                return Ok(keep(Action::Blocked(Verdict::Terminal(not_managed(world, view)))));
            }
            if !seen.live {
                return Err(Step::Read(Read::Secret(name.to_owned())));
            }
            match adoptable(world, view, key, value)? {
                Ok(theirs) => Delivery { record: adopted(), action: Action::Write(slot), theirs },
                Err(problem) => keep(Action::Blocked(Verdict::Terminal(problem))),
            }
        }
    })
}

/// Why a Secret that the operator does not manage cannot be the target.
fn not_managed(world: &World, view: &SecretView) -> Problem {
    if let Marks::Recordless(id) = recordless::marks(world, view) {
        return recordless::problem(world, view, id);
    }
    let message = format!(
        "Secret {} exists and the operator does not manage it{}: choose another spec.target.name, delete the Secret, or set spec.target.adoption: IfUnowned",
        view.name,
        holder_text(view)
    );
    Problem::new(Reason::TargetNotOwned, message)
}

/// Whether status says that this very spec is served.
fn settled(world: &World) -> bool {
    let status = &world.own.status;
    let mut conditions = status.conditions.iter().flatten();
    status.observed_generation == Some(world.own.generation)
        && conditions.any(|condition| condition.type_ == READY && condition.status == "True")
}

fn immutable(keep: impl FnOnce(Action) -> Delivery, name: &str) -> Delivery {
    let message = format!("target Secret {name} is immutable: delete it, or choose another spec.target.name");
    keep(Action::Blocked(Verdict::Terminal(Problem::new(Reason::TargetImmutable, message))))
}

/// Whether a Secret holds the value already. Immutability freezes the data alone: who need not change it may go on.
fn holds<'w>(
    world: &'w World,
    view: &SecretView,
    key: &str,
    value: impl Fn() -> Result<&'w Plaintext, Step>,
) -> Result<bool, Step> {
    let Some(content) = world.content.as_ref().filter(|content| content.uid == view.uid) else {
        return Err(Step::Read(Read::Secret(view.name.clone())));
    };
    match content.values.get(key) {
        Some(Some(present)) => Ok(present.same_as(value()?)),
        _ => Ok(false),
    }
}

/// Whether a stranger's Secret may be taken over: nobody controls it, and nothing of it would be overwritten. If so, what
/// it has already of what the spec asks for.
fn adoptable<'w>(
    world: &'w World,
    view: &SecretView,
    key: &str,
    value: impl FnOnce() -> Result<&'w Plaintext, Step>,
) -> Result<Result<Theirs, Problem>, Step> {
    let name = &view.name;
    let refuse = |why: &str| {
        Ok(Err(Problem::new(Reason::TargetNotOwned, format!("Secret {name} exists and cannot be adopted: {why}"))))
    };
    if view.owners.iter().any(|owner| owner.controller) {
        return refuse(&format!("a controller owns it{}", holder_text(view)));
    }
    let marks = recordless::marks(world, view);
    if let Marks::Recorded(record) = marks {
        return refuse(&format!(
            "an earlier ManagedSecret of this name delivered it, and record {record} is retained for it"
        ));
    }
    if marks == Marks::None && view.role().is_some() {
        return refuse(
            "it has the label managedsecrets.dev/role: remove that label if the Secret is the target of no ManagedSecret",
        );
    }
    if view.type_.as_deref() != Some(world.own.spec.target_type()) {
        return refuse("its type is not spec.target.type");
    }
    if view.immutable {
        return Ok(Err(Problem::new(
            Reason::TargetImmutable,
            format!("Secret {name} exists and cannot be adopted: it is immutable"),
        )));
    }
    // An apply removes what our manager owns and the apply leaves out: another key is a value that may have no other copy,
    // and a type falls back to Opaque, which the API server refuses.
    let other = view.ours.data.iter().find(|ours| *ours != key);
    let loses_nothing = other.is_none() && (!view.ours.type_ || world.own.spec.target_type() == DEFAULT_TARGET_TYPE);
    let found = if let Marks::Recordless(id) = marks {
        let free = if loses_nothing { key_is_free(world, view, key, value)?.ok() } else { None };
        let Some(found) = free else { return Ok(Err(recordless::problem(world, view, id))) };
        found
    } else {
        if let Some(other) = other {
            return refuse(&format!("the operator delivered its key {other}, and adoption would remove that key"));
        }
        match key_is_free(world, view, key, value)? {
            Ok(found) => found,
            Err(problem) => return Ok(Err(problem)),
        }
    };
    let theirs = Theirs { key: found, ..Theirs::default() }.with_metadata(wanted_metadata(world)?, view);
    if let Some((what, field)) = &theirs.other {
        return refuse(&format!("its {what} has another value: remove it from {field}, or from the Secret"));
    }
    Ok(Ok(theirs))
}

/// Whether a key of somebody's Secret can be ours: it is absent, or already holds the very same value, which is told.
fn key_is_free<'w>(
    world: &'w World,
    view: &SecretView,
    key: &str,
    value: impl FnOnce() -> Result<&'w Plaintext, Step>,
) -> Result<Result<bool, Problem>, Step> {
    let Some(content) = world.content.as_ref().filter(|content| content.uid == view.uid) else {
        return Err(Step::Read(Read::Secret(view.name.clone())));
    };
    match content.values.get(key) {
        None => Ok(Ok(false)),
        Some(Some(present)) if present.same_as(value()?) => Ok(Ok(true)),
        Some(_) => {
            let message = format!(
                "Secret {} exists and its key {key} holds another value: choose another spec.target.key",
                view.name
            );
            Ok(Err(Problem::new(Reason::TargetNotOwned, message)))
        }
    }
}

/// What else a Secret can be that another ManagedSecret seems to hold, going by its annotation alone.
const COPIED: &str = "; if the Secret is a copy and no such ManagedSecret exists, remove its labels managedsecrets.dev/role and \
                      managedsecrets.dev/id";

fn holder_text(view: &SecretView) -> String {
    let owner = view.owners.iter().find(|owner| owner.controller).or_else(|| view.owners.first());
    match (owner, &view.other_manager) {
        (Some(owner), _) => format!(" (owned by {})", owner.name),
        (None, Some(manager)) => format!(" (last written by {manager})"),
        (None, None) => String::new(),
    }
}

/// The operator's own labels and annotations of a target.
fn operator_metadata(world: &World, theirs: &Theirs, id: &str) -> MetadataText {
    let own = &world.own;
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    let mut annotations = vec![(ANNO_OWNER, own.name.as_str())];
    if theirs.key {
        annotations.push((ANNO_FOUND_KEY, own.spec.target_key()));
    }
    MetadataText { labels: map(&[(LABEL_ROLE, ROLE_TARGET), (LABEL_ID, id)]), annotations: map(&annotations) }
}

/// The labels and annotations that the spec asks for. Long ones are not in the cache: they are read live, together with
/// the spec that they belong to, and what follows is decided by that spec.
fn wanted_metadata(world: &World) -> Result<&MetadataText, Step> {
    world.own.target_metadata.text().ok_or(Step::Read(Read::Spec))
}

/// The same, but for what an adopted Secret had before.
fn written_metadata(world: &World, theirs: &Theirs) -> Result<MetadataText, Step> {
    let mut text = wanted_metadata(world)?.clone();
    text.labels.retain(|key, _| !theirs.labels.contains(key));
    text.annotations.retain(|key, _| !theirs.annotations.contains(key));
    Ok(text)
}

/// A target as we mean it, but its value; a digest stands for its labels and annotations.
pub struct TargetForm {
    /// Name of the Secret.
    pub name: String,
    key: String,
    /// The type; absent for an adopted Secret, whose type is not ours to own.
    pub type_: Option<String>,
    shape: Shape,
    owner_reference: bool,
}

/// The target as we mean it: enough to tell whether it has to be written.
pub fn target_form(world: &World, delivery: &Delivery, id: &str) -> Result<TargetForm, Step> {
    let (own, theirs) = (&world.own, &delivery.theirs);
    let operator = operator_metadata(world, theirs, id);
    let shape = if theirs.labels.is_empty() && theirs.annotations.is_empty() {
        Shape::of(&operator, &own.target_metadata)
    } else {
        Shape::of(&operator, &TargetMetadata::new(written_metadata(world, theirs)?))
    };
    let adopted = matches!(delivery.record, Delivered::Adopted { .. });
    Ok(TargetForm {
        name: own.spec.target_name(&own.name).to_owned(),
        key: own.spec.target_key().to_owned(),
        type_: (!adopted).then(|| own.spec.target_type().to_owned()),
        shape,
        owner_reference: !adopted && own.spec.deletion_policy() == DeletionPolicy::Delete,
    })
}

/// The write of a target: its form, with the text of its labels and annotations.
pub fn target_write(
    world: &World,
    slot: Slot,
    form: TargetForm,
    delivery: &Delivery,
    id: &str,
) -> Result<TargetWrite, Step> {
    let MetadataText { mut labels, mut annotations } = written_metadata(world, &delivery.theirs)?;
    let operator = operator_metadata(world, &delivery.theirs, id);
    labels.extend(operator.labels);
    annotations.extend(operator.annotations);
    let TargetForm { name, key, type_, shape: _, owner_reference } = form;
    Ok(TargetWrite { slot, name, key, type_, labels, annotations, owner_reference })
}

/// Whether a target's metadata is what a write would make it. What our field manager owns tells what would be removed.
#[must_use]
pub fn in_shape(view: &SecretView, form: &TargetForm, owner_uid: &str) -> bool {
    view.shape == form.shape
        && view.ours.data.len() == 1
        && view.ours.data.contains(&form.key)
        && view.ours.type_ == form.type_.is_some()
        && owners_fit(view, form.owner_reference, owner_uid)
}

/// Whether a Secret has our owner reference exactly where it is wanted.
#[must_use]
pub fn owners_fit(view: &SecretView, wanted: bool, owner_uid: &str) -> bool {
    let owned = view.ours.owner_uids.contains(owner_uid);
    // An admission policy can take the reference away and leave the bookkeeping.
    if wanted { owned && view.owners.iter().any(|owner| owner.uid == owner_uid) } else { !owned }
}

/// A target that is no longer the one in force.
#[derive(Debug, PartialEq)]
pub enum Leftover {
    /// Made by us: delete it.
    Delete(Slot),
    /// Adopted: give up our key and labels, and nothing else. A key that was there before stays.
    Release(Slot),
}

/// The first target to remove: the one that status names, or one that is ours by owner reference, away from `place`
/// (the name in force, if any). `ids` are that of our record and those of records that are about to be removed.
pub fn leftover(world: &World, ids: &BTreeSet<&str>, place: Option<&str>) -> Result<Option<(String, Leftover)>, Step> {
    let own = &world.own;
    if let Some(before) = own.status.target.as_ref().filter(|before| Some(before.name.as_str()) != place) {
        match world.secret(&before.name) {
            Known::Unseen => return Err(Step::Read(Read::Secret(before.name.clone()))),
            Known::Present(seen)
                if seen.view.uid == before.uid
                    && !seen.view.deleting
                    && seen.view.id().is_none_or(|id| ids.contains(id))
                    && !(seen.view.ours.labels.is_empty()
                        // What is frozen could not be given up.
                        && (seen.view.ours.data.is_empty() || seen.view.immutable)) =>
            {
                let slot = Slot::over(&seen.view);
                let what = if seen.view.ours.type_ { Leftover::Delete(slot) } else { Leftover::Release(slot) };
                return Ok(Some((before.name.clone(), what)));
            }
            Known::Absent | Known::Present(_) => {}
        }
    }
    let stray = world.all_present().map(|seen| &seen.view).find(|view| {
        view.role() == Some(ROLE_TARGET)
            && Some(view.name.as_str()) != place
            && !view.deleting
            && view.id().is_some_and(|id| ids.contains(id))
            && view.owners.iter().any(|owner| owner.uid == own.uid)
            && view.ours.owner_uids.contains(&own.uid)
            && view.ours.type_
    });
    Ok(stray.map(|view| (view.name.clone(), Leftover::Delete(Slot::over(view)))))
}
