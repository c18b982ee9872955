//! The target: whose a Secret at its place is, and what has to be done to it.
//!
//! In: [`Facts`] and the record's id. Out: a [`Delivery`]. Pure. The rule behind every branch: a Secret that is not
//! ours is never written and never deleted, and carrying our labels does not make it ours, for people copy Secrets with
//! labels and owner references.

mod recordless;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod theirs;
pub(super) mod unheard;

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::{
    Reason,
    keys::{
        ANNO_FOUND_KEY, ANNO_OWNER, ANNO_PREVIOUS, ANNO_TEMPLATE, DEFAULT_TARGET_TYPE, LABEL_ID, LABEL_ROLE,
        ROLE_RECORD, ROLE_TARGET,
    },
    overlap,
    template::Rendered,
    types::{Adoption, DeletionPolicy, Delivery as DeliveryKind},
};

use self::{recordless::Marks, theirs::Theirs};
use super::{
    super::{
        conditions::READY,
        facts::{Facts, Known, Seen},
        plan::{Need, Problem, Read, Slot, TargetContent, TargetWrite, Values, Verdict},
        record::Delivered,
        view::{
            Own, SecretView,
            shape::{MetadataText, Shape, TargetMetadata},
            template::TargetTemplate,
        },
    },
    look::{content, looked_at},
    previous::{self, Previous},
};

/// What becomes of the target.
#[derive(Debug)]
pub(super) struct Delivery<'w> {
    /// What the record says about it.
    pub(super) record: Delivered,
    /// What has to be done.
    pub(super) action: Action<'w>,
    /// The earlier value that it has beside the delivered one.
    pub(super) previous: Option<Previous>,
    /// What of an adopted Secret is not ours to write.
    theirs: Theirs,
}

/// What the target is to hold.
pub(super) struct Wanted<'v> {
    /// The earlier value beside the delivered one.
    pub(super) previous: Option<Previous>,
    /// Gives the values, asked for only where an adoption must compare.
    pub(super) values: &'v dyn Fn() -> Result<Values, Need>,
}

/// What of an adopted Secret is not ours. `found` are the keys of data that were there before.
fn theirs(
    facts: &Facts,
    seen: &Seen,
    id: &str,
    found: BTreeSet<String>,
    previous: Option<&Previous>,
) -> Result<Theirs, Need> {
    let theirs = Theirs { keys: found, ..Theirs::default() };
    let operator = operator_metadata(facts, &theirs, id, previous);
    if seen.view.shape == Shape::of(&operator, &facts.snapshot.own.target_metadata) {
        // All of it is ours, as it should be.
        return Ok(theirs);
    }
    if !seen.live {
        // A cache does not keep what others put there.
        return Err(Need::secret(&seen.view.name));
    }
    Ok(theirs.with_metadata(wanted_metadata(facts)?, &seen.view))
}

impl<'w> Delivery<'w> {
    fn new(record: Delivered, action: Action<'w>) -> Self {
        Self { record, action, previous: None, theirs: Theirs::default() }
    }

    /// Nothing is written: no version may be delivered. `recorded` is what the record says so far.
    pub(super) fn withheld(facts: &Facts, recorded: Option<&Delivered>, problem: &Problem) -> Self {
        let own = &facts.snapshot.own;
        let record = recorded.cloned().unwrap_or_else(|| Delivered::wanted(&own.name, &own.spec));
        Self::new(record, Action::Blocked(Verdict::Terminal(problem.clone())))
    }

    /// What of the spec an adopted Secret cannot follow.
    pub(super) fn trouble(&self, name: &str) -> Option<Verdict> {
        let problem = self.theirs.other.as_ref()?.problem(", which the operator does not change");
        let message = format!("target Secret {name} was adopted, and {problem}");
        Some(Verdict::Terminal(Problem::new(Reason::TargetNotOwned, message)))
    }
}

/// What has to be done to a target.
#[derive(Debug)]
pub(super) enum Action<'w> {
    /// `delivery: None`: there is none.
    Nothing,
    /// Write it, over this Secret if there is one, unless it is in step.
    Write(Option<&'w Seen>),
    /// Its type is another: delete it, then make it again.
    Recreate(&'w Seen),
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
    /// The operator does not manage it.
    Unmanaged,
}

fn relation<'a>(facts: &Facts, seen: &'a Seen, id: &str, recorded: Option<&Delivered>) -> Relation<'a> {
    let own = &facts.snapshot.own;
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
            _ => Relation::Unmanaged,
        };
    }
    if let Some(Delivered::Adopted { uid, .. }) = recorded
        && *uid == view.uid
    {
        // Until the target carries our id, the conditions of an adoption are checked again.
        let written = own.status.target.as_ref().is_some_and(|target| target.uid == view.uid);
        return if same_id || written { Relation::Adopted } else { Relation::Unmanaged };
    }
    let made_by_us = unheard::is_made_for(own, view);
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
    Relation::Unmanaged
}

/// Decides about the target. `recorded` is what the record says so far.
pub(super) fn decide<'w>(
    facts: &'w Facts,
    id: &str,
    recorded: Option<&Delivered>,
    wanted: Wanted<'_>,
) -> Result<Delivery<'w>, Need> {
    let delivery = action(facts, id, recorded, &wanted)?;
    Ok(Delivery { previous: wanted.previous, ..delivery })
}

fn action<'w>(
    facts: &'w Facts,
    id: &str,
    recorded: Option<&Delivered>,
    wanted: &Wanted<'_>,
) -> Result<Delivery<'w>, Need> {
    let spec = &facts.snapshot.own.spec;
    if spec.delivery() == DeliveryKind::None {
        return Ok(Delivery::new(Delivered::None, Action::Nothing));
    }
    let name = spec.target_name(&facts.snapshot.own.name);
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
    if let Some(refused) = facts.written.refused.as_ref().filter(|refused| refused.secret == name) {
        return Ok(Delivery::new(kept, Action::Blocked(Verdict::Terminal(refused.problem.clone()))));
    }
    let in_status = facts.snapshot.own.status.target.as_ref().is_some_and(|target| target.name == name);
    let own_by_record = matches!(recorded, Some(Delivered::Own { name: before, .. }) if before == name);
    let seen = match facts.secret(name) {
        // An adopted Secret may have lost its label: before the record calls what is here our own, a look tells.
        Known::Unseen if adopted_here || (in_status && !own_by_record) => {
            return Err(Need::secret(name));
        }
        // A create over a large Secret that the caches do not show takes the API server long, and fails. Once the status says
        // so, and as long as it says what the look found, a look is cheaper than another try.
        Known::Unseen if facts.says(Reason::ApiUnavailable) || facts.says(Reason::TargetNotOwned) => {
            return Err(Need::secret(name));
        }
        Known::Unseen | Known::Absent => {
            return Ok(Delivery::new(own_place, Action::Write(None)));
        }
        Known::Present(seen) => seen,
    };
    let view = &seen.view;
    if unheard::has_record(facts, id) {
        return Err(Need::Retry);
    }
    let related = relation(facts, seen, id, recorded);
    let kept = match related {
        Relation::Adopted => Delivered::Adopted { uid: view.uid.clone(), name: name.to_owned(), key: key.to_owned() },
        _ => kept,
    };
    let keep = |action| Delivery::new(kept, action);
    if view.deleting && related != Relation::Dying {
        looked_at(facts, seen, Reason::WaitingForDeletion)?;
        let message = format!("target Secret {name} is being deleted: wait for its finalizers");
        return Ok(keep(Action::Blocked(Verdict::Pending(Problem::new(Reason::WaitingForDeletion, message)))));
    }
    if related == Relation::Adopted && facts.type_of(view).is_none() && !settled(facts) {
        // No apply of ours would tell that an adopted Secret is of another type than spec.target.type.
        return Err(Need::secret(name));
    }
    let other_type = facts.type_of(view).is_some_and(|type_| type_ != spec.target_type());
    let frozen =
        matches!(related, Relation::Ours | Relation::Adopted) && view.immutable && !holds(facts, view, wanted)?;
    let adopted = || Delivered::Adopted { uid: view.uid.clone(), name: name.to_owned(), key: key.to_owned() };
    Ok(match related {
        Relation::Dying => {
            looked_at(facts, seen, Reason::WaitingForDeletion)?;
            let message = format!("target Secret {name} belongs to a deleted ManagedSecret and is being deleted");
            keep(Action::Blocked(Verdict::Working(Problem::new(Reason::WaitingForDeletion, message))))
        }
        Relation::OfAnother(holder) => {
            looked_at(facts, seen, Reason::TargetInUse)?;
            let message = format!(
                "target Secret {name} is held by ManagedSecret {holder}: choose another spec.target.name here or there{}",
                if view.owners.is_empty() { COPIED } else { "" }
            );
            keep(Action::Blocked(Verdict::Pending(Problem::new(Reason::TargetInUse, message))))
        }
        Relation::Ours | Relation::Adopted if frozen => immutable(keep, name),
        Relation::Ours if other_type => Delivery::new(own_place, Action::Recreate(seen)),
        Relation::Ours => Delivery::new(own_place, Action::Write(Some(seen))),
        Relation::Adopted if other_type => {
            let message = format!(
                "target Secret {name} was adopted and its type is not spec.target.type: set spec.target.type to its type, because the operator never recreates an adopted Secret"
            );
            keep(Action::Blocked(Verdict::Terminal(Problem::new(Reason::TargetNotOwned, message))))
        }
        Relation::Adopted => match found_in_adopted(facts, view, wanted)? {
            Ok(found) => {
                let theirs = theirs(facts, seen, id, found, wanted.previous.as_ref())?;
                Delivery { theirs, ..Delivery::new(adopted(), Action::Write(Some(seen))) }
            }
            Err(problem) => keep(Action::Blocked(Verdict::Terminal(problem))),
        },
        Relation::Unmanaged if spec.adoption() == Adoption::Never => {
            keep(Action::Blocked(Verdict::Terminal(not_managed(facts, view))))
        }
        Relation::Unmanaged if !seen.live => return Err(Need::secret(name)),
        Relation::Unmanaged => match adoptable(facts, view, wanted)? {
            Ok(theirs) => Delivery { theirs, ..Delivery::new(adopted(), Action::Write(Some(seen))) },
            Err(problem) => keep(Action::Blocked(Verdict::Terminal(problem))),
        },
    })
}

/// Why a Secret that the operator does not manage cannot be the target.
fn not_managed(facts: &Facts, view: &SecretView) -> Problem {
    if let Marks::Recordless(id) = recordless::marks(facts, view) {
        return recordless::problem(facts, view, id);
    }
    let message = format!(
        "Secret {} exists and the operator does not manage it{}: choose another spec.target.name, delete the Secret, or set spec.target.adoption: IfUnowned",
        view.name,
        holder_text(view)
    );
    Problem::new(Reason::TargetNotOwned, message)
}

/// Whether status says that this very spec is served.
fn settled(facts: &Facts) -> bool {
    let status = &facts.snapshot.own.status;
    let mut conditions = status.conditions.iter().flatten();
    status.observed_generation == Some(facts.snapshot.own.generation)
        && conditions.any(|condition| condition.type_ == READY && condition.status == "True")
}

fn immutable<'w>(keep: impl FnOnce(Action<'w>) -> Delivery<'w>, name: &str) -> Delivery<'w> {
    let message = format!("target Secret {name} is immutable: delete it, or choose another spec.target.name");
    keep(Action::Blocked(Verdict::Terminal(Problem::new(Reason::TargetImmutable, message))))
}

/// The keys of the target's data.
fn wanted_keys<'o>(own: &'o Own, previous: Option<&Previous>) -> BTreeSet<&'o str> {
    let mut keys = own.data_keys();
    if let (Some(key), None) = (overlap::key(&own.spec), previous) {
        keys.remove(key);
    }
    keys
}

/// What the target delivers, made of these values.
fn target_content(facts: &Facts, values: Values) -> Result<TargetContent, Need> {
    let own = &facts.snapshot.own;
    let texts = |template| TargetTemplate::texts(template).ok_or(Need::Read(Read::Spec));
    let template = own.template.as_deref().map(texts).transpose()?.cloned().unwrap_or_default();
    Ok(TargetContent { key: own.spec.target_key().to_owned(), values, template })
}

/// The target's data as they should be, where they are compared with what a Secret holds. Why there are none is said in
/// this place, too, for then nothing is written.
fn wanted_data(facts: &Facts, wanted: &Wanted<'_>) -> Result<Result<BTreeMap<String, Rendered>, Problem>, Need> {
    let content = target_content(facts, (wanted.values)()?)?;
    Ok(content.data().map_err(|error| error.problem(facts.snapshot.own.spec.target_name(&facts.snapshot.own.name))))
}

/// Whether a Secret holds the data already, and nothing of ours besides. Immutability freezes the data alone: who need not
/// change it may go on.
fn holds(facts: &Facts, view: &SecretView, wanted: &Wanted<'_>) -> Result<bool, Need> {
    let present = &content(facts, view)?.values;
    let keys = wanted_keys(&facts.snapshot.own, wanted.previous.as_ref());
    if !keys.iter().all(|key| present.contains_key(*key))
        || !view.ours.data.iter().all(|key| keys.contains(key.as_str()))
    {
        return Ok(false);
    }
    let Ok(data) = wanted_data(facts, wanted)? else { return Ok(false) };
    Ok(data.iter().all(|(key, bytes)| present.get(key).is_some_and(|present| present.holds(bytes))))
}

/// Those of our keys that an adopted Secret had before, or why one of them cannot be written: moved to another key of an
/// adopted Secret, or given one by the template, that key may be another program's.
fn found_in_adopted(
    facts: &Facts,
    view: &SecretView,
    wanted: &Wanted<'_>,
) -> Result<Result<BTreeSet<String>, Problem>, Need> {
    let own = &facts.snapshot.own;
    let before = own.status.target.as_ref().filter(|before| before.uid == view.uid);
    let is_ours = |key: &str| {
        view.ours.data.contains(key)
            || before.is_some_and(|before| before.key == key)
            || (delivers_template(own, view) && own.template_keys().any(|of_template| of_template == key))
            || (overlap::key(&own.spec) == Some(key) && previous::was_delivered(own, view))
    };
    let keys = wanted_keys(own, wanted.previous.as_ref());
    let (ours, others): (BTreeSet<_>, BTreeSet<_>) = keys.into_iter().partition(|key| is_ours(key));
    let noted: BTreeSet<&str> = view.annotation(ANNO_FOUND_KEY).into_iter().flat_map(|keys| keys.split(',')).collect();
    let kept = ours.into_iter().filter(|key| noted.contains(key)).map(str::to_owned).collect::<BTreeSet<_>>();
    if others.is_empty() {
        return Ok(Ok(kept));
    }
    Ok(keys_are_free(facts, view, &others, wanted)?.map(|found| kept.into_iter().chain(found).collect()))
}

/// Whether our last write of a Secret was made by this very template: then its keys were ours, also those that another
/// program has taken over since by a write.
fn delivers_template(own: &Own, view: &SecretView) -> bool {
    let made_by = view.annotation(ANNO_TEMPLATE).filter(|_| view.ours.annotations.contains(ANNO_TEMPLATE));
    made_by.zip(own.template.as_ref()).is_some_and(|(made_by, template)| made_by == template.digest())
}

/// Whether a Secret that the operator does not manage may be adopted: no controller owns it, and nothing of it would be overwritten. If so, what
/// it has already of what the spec asks for.
fn adoptable(facts: &Facts, view: &SecretView, wanted: &Wanted<'_>) -> Result<Result<Theirs, Problem>, Need> {
    let (name, keys) = (&view.name, wanted_keys(&facts.snapshot.own, wanted.previous.as_ref()));
    let refuse = |why: &str| {
        Ok(Err(Problem::new(Reason::TargetNotOwned, format!("Secret {name} exists and cannot be adopted: {why}"))))
    };
    if view.owners.iter().any(|owner| owner.controller) {
        return refuse(&format!("a controller owns it{}", holder_text(view)));
    }
    let marks = recordless::marks(facts, view);
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
    if view.type_.as_deref() != Some(facts.snapshot.own.spec.target_type()) {
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
    let other = view.ours.data.iter().find(|ours| !keys.contains(ours.as_str()));
    let loses_nothing =
        other.is_none() && (!view.ours.type_ || facts.snapshot.own.spec.target_type() == DEFAULT_TARGET_TYPE);
    let found = if let Marks::Recordless(id) = marks {
        let free = if loses_nothing { keys_are_free(facts, view, &keys, wanted)?.ok() } else { None };
        let Some(found) = free else { return Ok(Err(recordless::problem(facts, view, id))) };
        found
    } else {
        if let Some(other) = other {
            return refuse(&format!("the operator delivered its key {other}, and adoption would remove that key"));
        }
        match keys_are_free(facts, view, &keys, wanted)? {
            Ok(found) => found,
            Err(problem) => return Ok(Err(problem)),
        }
    };
    let theirs = Theirs { keys: found, ..Theirs::default() }.with_metadata(wanted_metadata(facts)?, view);
    if let Some(unlike) = &theirs.other {
        return refuse(&unlike.problem(""));
    }
    Ok(Ok(theirs))
}

/// Whether keys of a Secret that the operator does not manage can be ours: each is absent, or already holds the very same
/// bytes. Those that do are told.
fn keys_are_free(
    facts: &Facts,
    view: &SecretView,
    keys: &BTreeSet<&str>,
    wanted: &Wanted<'_>,
) -> Result<Result<BTreeSet<String>, Problem>, Need> {
    let present = &content(facts, view)?.values;
    let taken: Vec<&str> = keys.iter().copied().filter(|key| present.contains_key(*key)).collect();
    if taken.is_empty() {
        return Ok(Ok(BTreeSet::new()));
    }
    let data = match wanted_data(facts, wanted)? {
        Ok(data) => data,
        Err(problem) => return Ok(Err(problem)),
    };
    let same = |key: &str| data.get(key).zip(present.get(key)).is_some_and(|(bytes, present)| present.holds(bytes));
    Ok(match taken.iter().find(|key| !same(key)) {
        None => Ok(taken.into_iter().map(str::to_owned).collect()),
        Some(key) => {
            let own = &facts.snapshot.own;
            let field = if own.template_keys().any(|of_template| of_template == *key) {
                "key in spec.target.template"
            } else if overlap::key(&own.spec) == Some(*key) {
                "spec.target.previousKey"
            } else {
                "spec.target.key"
            };
            let message =
                format!("Secret {} exists and its key {key} holds another value: choose another {field}", view.name);
            Err(Problem::new(Reason::TargetNotOwned, message))
        }
    })
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
fn operator_metadata(facts: &Facts, theirs: &Theirs, id: &str, previous: Option<&Previous>) -> MetadataText {
    let own = &facts.snapshot.own;
    let label = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    let mut annotations = BTreeMap::from([label(ANNO_OWNER, &own.name)]);
    if !theirs.keys.is_empty() {
        let keys: Vec<&str> = theirs.keys.iter().map(String::as_str).collect();
        annotations.insert(ANNO_FOUND_KEY.to_owned(), keys.join(","));
    }
    if let Some(template) = &own.template {
        annotations.insert(ANNO_TEMPLATE.to_owned(), template.digest());
    }
    if let Some(previous) = previous {
        annotations.insert(ANNO_PREVIOUS.to_owned(), previous.text());
    }
    MetadataText { labels: [label(LABEL_ROLE, ROLE_TARGET), label(LABEL_ID, id)].into(), annotations }
}

/// The labels and annotations that the spec asks for. Long ones are not in the cache: they are read live, together with
/// the spec that they belong to, and what follows is decided by that spec.
fn wanted_metadata(facts: &Facts) -> Result<&MetadataText, Need> {
    facts.snapshot.own.target_metadata.text().ok_or(Need::Read(Read::Spec))
}

/// The same, but for what an adopted Secret had before.
fn written_metadata(facts: &Facts, theirs: &Theirs) -> Result<MetadataText, Need> {
    let mut text = wanted_metadata(facts)?.clone();
    text.labels.retain(|key, _| !theirs.labels.contains(key));
    text.annotations.retain(|key, _| !theirs.annotations.contains(key));
    Ok(text)
}

/// A target as we mean it, but its data, of which it has the keys; digests stand for its labels, its annotations and its
/// template.
pub(super) struct TargetForm {
    /// Name of the Secret.
    pub(super) name: String,
    keys: BTreeSet<String>,
    /// The type; absent for an adopted Secret, whose type is not ours to own.
    pub(super) type_: Option<String>,
    shape: Shape,
    owner_reference: bool,
    has_previous: bool,
}

/// The target as we mean it: enough to tell whether it has to be written.
pub(super) fn target_form(facts: &Facts, delivery: &Delivery<'_>, id: &str) -> Result<TargetForm, Need> {
    let (own, theirs) = (&facts.snapshot.own, &delivery.theirs);
    let previous = delivery.previous.as_ref();
    let operator = operator_metadata(facts, theirs, id, previous);
    let shape = if theirs.labels.is_empty() && theirs.annotations.is_empty() {
        Shape::of(&operator, &own.target_metadata)
    } else {
        Shape::of(&operator, &TargetMetadata::new(written_metadata(facts, theirs)?))
    };
    let adopted = matches!(delivery.record, Delivered::Adopted { .. });
    Ok(TargetForm {
        name: own.spec.target_name(&own.name).to_owned(),
        keys: wanted_keys(own, previous).into_iter().map(str::to_owned).collect(),
        type_: (!adopted).then(|| own.spec.target_type().to_owned()),
        shape,
        owner_reference: !adopted && own.spec.deletion_policy() == DeletionPolicy::Delete,
        has_previous: previous.is_some(),
    })
}

impl TargetForm {
    /// The write of a target `over` what is there, with the text of its labels and annotations, for the secret with this
    /// `id`. The value is that of `version`.
    pub(super) fn write(
        self,
        facts: &Facts,
        over: Option<&Seen>,
        delivery: &Delivery<'_>,
        id: &str,
        version: u64,
        values: Values,
    ) -> Result<TargetWrite, Need> {
        let MetadataText { mut labels, mut annotations } = written_metadata(facts, &delivery.theirs)?;
        let operator = operator_metadata(facts, &delivery.theirs, id, delivery.previous.as_ref());
        labels.extend(operator.labels);
        annotations.extend(operator.annotations);
        let content = target_content(facts, values)?;
        let Self { name, keys, type_, shape: _, owner_reference, has_previous: _ } = self;
        let view = over.map(|seen| &seen.view);
        let found = view.into_iter().flat_map(SecretView::found_keys).filter(|found| !keys.contains(*found));
        let found_keys = found.map(str::to_owned).collect();
        Ok(TargetWrite {
            slot: view.map_or(Slot::Free, Slot::over),
            name,
            content,
            version,
            type_,
            labels,
            annotations,
            owner_reference,
            from_cache: over.is_some_and(|seen| !seen.live),
            found_keys,
            other_manager: view.and_then(|view| view.other_manager.clone()),
        })
    }

    /// Whether a target's metadata is what a write would make it. What our field manager owns tells what would be removed.
    pub(super) fn is_in_shape(&self, view: &SecretView, owner_uid: &str) -> bool {
        view.shape == self.shape
            && view.ours.data == self.keys
            && view.ours.type_ == self.type_.is_some()
            && owners_fit(view, self.owner_reference, owner_uid)
    }
}

impl TargetForm {
    /// Whether a write takes away the previous value that the last one gave a Secret: its time is over.
    pub(super) fn ends_overlap(&self, own: &Own, view: &SecretView) -> bool {
        !self.has_previous && previous::was_delivered(own, view)
    }
}

/// Whether a Secret has our owner reference exactly where it is wanted.
pub(super) fn owners_fit(view: &SecretView, wanted: bool, owner_uid: &str) -> bool {
    let owned = view.ours.owner_uids.contains(owner_uid);
    // An admission policy can take the reference away and leave the bookkeeping.
    if wanted { owned && view.owners.iter().any(|owner| owner.uid == owner_uid) } else { !owned }
}

/// A target that is no longer the current one.
#[derive(Debug, PartialEq)]
pub(super) enum Leftover<'w> {
    /// Made by us: delete it.
    Delete(&'w SecretView),
    /// Adopted: give up our key and labels, and nothing else. A key that was there before stays.
    Release(&'w SecretView),
}

/// The first target to remove: the one that status names, or one that is ours by owner reference, away from `place`
/// (the current name, if any). `ids` are that of our record and those of records that are about to be removed.
pub(super) fn leftover<'w>(
    facts: &'w Facts,
    ids: &BTreeSet<&str>,
    place: Option<&str>,
) -> Result<Option<Leftover<'w>>, Need> {
    let own = &facts.snapshot.own;
    if let Some(before) = own.status.target.as_ref().filter(|before| Some(before.name.as_str()) != place) {
        match facts.secret(&before.name) {
            Known::Unseen => return Err(Need::secret(&before.name)),
            Known::Present(seen)
                if seen.view.uid == before.uid
                    && !seen.view.deleting
                    && seen.view.id().is_none_or(|id| ids.contains(id))
                    && !(seen.view.ours.labels.is_empty()
                        // What is frozen could not be given up.
                        && (seen.view.ours.data.is_empty() || seen.view.immutable)) =>
            {
                let view = &seen.view;
                return Ok(Some(if view.ours.type_ { Leftover::Delete(view) } else { Leftover::Release(view) }));
            }
            Known::Absent | Known::Present(_) => {}
        }
    }
    let stray = facts.all_present().map(|seen| &seen.view).find(|view| {
        view.role() == Some(ROLE_TARGET)
            && Some(view.name.as_str()) != place
            && !view.deleting
            && view.id().is_some_and(|id| ids.contains(id))
            && view.owners.iter().any(|owner| owner.uid == own.uid)
            && view.ours.owner_uids.contains(&own.uid)
            && view.ours.type_
    });
    Ok(stray.map(Leftover::Delete))
}
