//! One namespace of the cache, and whom an event in it concerns.

use std::{
    borrow::{Borrow, Cow},
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use managed_secrets_api::{
    keys::{ANNO_OWNER, ANNO_UID, RECORD_PREFIX, ROLE_RECORD},
    names::record_name,
    types::Delivery,
};

use uuid::Uuid;

use super::{
    Key, Name,
    few::Few,
    is_surely_newer,
    kept::{Entry, KeptObject, KeptSecret, word},
    line::{Claim, Line, Rank},
    rings::delivery,
};
use crate::controller::{
    facts::Peers,
    view::{Own, OwnerRef, SecretView, packed::Packed},
};

/// The longest circle of names that is told as one. The members of a longer one only say whom they wait for: following a
/// chain must not cost more the more objects there are.
const MAX_CIRCLE: usize = 64;

/// The most Secrets of one object that a pass looks at, besides those that its spec and status name.
const OTHERS_MAX: usize = 16;

/// Metadata of the Secrets that a `valueFrom` may name.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) synced: bool,
    pub(super) versions: HashMap<String, (String, String)>,
}

/// A key of a Secret's data, delivered under.
#[derive(Debug, Eq, Hash, PartialEq)]
pub(super) struct Place {
    pub(super) secret: Name,
    key: Cow<'static, str>,
}

impl Place {
    pub(super) fn new(secret: Name, key: &str) -> Self {
        Self { secret, key: word(key) }
    }
}

/// The objects that a Secret concerns, by its name.
#[derive(Debug, Default)]
struct Concerned {
    /// Their status names it as their record or target.
    in_status: Few<Name>,
    /// They want it for their record or target.
    line: Line,
}

/// A Secret that we deleted: an older event must not bring it back.
#[derive(Debug)]
pub(super) struct Buried {
    pub(super) uid: String,
    pub(super) resource_version: String,
}

impl Buried {
    pub(super) fn of(view: &SecretView) -> Self {
        Self { uid: view.uid.clone(), resource_version: view.resource_version.clone() }
    }
}

/// One namespace.
///
/// Its maps share the memory of names: whatever puts one in takes it from [`NamespaceIndex::name`].
#[derive(Debug)]
pub(super) struct NamespaceIndex {
    pub(super) name: Name,
    pub(super) objects: HashMap<Name, KeptObject>,
    pub(super) secrets: HashMap<Name, KeptSecret>,
    pub(super) buried: HashMap<String, Buried>,
    pub(super) sources: Sources,
    by_secret: HashMap<Name, Concerned>,
    /// Objects by the name of their source.
    pub(super) by_source: HashMap<Name, Few<Name>>,
    /// Objects by the Secret and the key that they deliver under, in the order in which they would get the Secret. Only
    /// those that can: so a look-up costs the same however many want one Secret.
    pub(super) by_delivery: HashMap<Place, Few<Claim>>,
    /// Secrets by the object that they name as their owner.
    by_owner: HashMap<Name, Few<Name>>,
    /// Secrets that are labelled and named as records, by their id.
    pub(super) by_id: HashMap<Uuid, Few<Name>>,
}

impl NamespaceIndex {
    /// A namespace of which nothing is known.
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            objects: HashMap::new(),
            secrets: HashMap::new(),
            buried: HashMap::new(),
            sources: Sources::default(),
            by_secret: HashMap::new(),
            by_source: HashMap::new(),
            by_delivery: HashMap::new(),
            by_owner: HashMap::new(),
            by_id: HashMap::new(),
        }
    }

    /// A name, in the memory that it already takes here.
    pub(super) fn name(&self, text: &str) -> Name {
        let object = || self.objects.get_key_value(text).map(|(name, _)| name);
        let secret = || self.by_secret.get_key_value(text).map(|(name, _)| name);
        let shown = || self.secrets.get_key_value(text).map(|(name, _)| name);
        let owner = || self.by_owner.get_key_value(text).map(|(name, _)| name);
        let source = || self.by_source.get_key_value(text).map(|(name, _)| name);
        let known = object().or_else(secret).or_else(shown).or_else(owner).or_else(source);
        known.map_or_else(|| text.into(), Name::clone)
    }

    /// The keys of objects of this namespace.
    pub(super) fn keys(&self, names: impl IntoIterator<Item = Name>) -> Vec<Key> {
        names.into_iter().map(|name| Key { namespace: Name::clone(&self.name), name }).collect()
    }

    /// An object, unpacked.
    pub(super) fn object(&self, name: &str) -> Option<Own> {
        self.objects.get(name).map(|kept| kept.packed.get())
    }

    /// A Secret, unpacked.
    pub(super) fn secret(&self, name: &str) -> Option<Entry> {
        self.secrets.get(name).map(KeptSecret::entry)
    }

    /// Secrets that name an object as their owner: leftovers of an earlier pass, or copies. Users can make any number of
    /// copies, so few are looked at: records first, which only the operator creates, then those that our field manager
    /// gave the object's owner reference.
    pub(super) fn others_of(&self, own: &Own) -> Vec<&Name> {
        let rank = |name: &&Name| {
            let has_our_reference =
                self.secret(name).is_some_and(|entry| entry.view.ours.owner_uids.contains(&own.uid));
            (!name.starts_with(RECORD_PREFIX), !has_our_reference)
        };
        let mut names: Vec<&Name> = self.by_owner.get(&*own.name).into_iter().flat_map(Few::iter).collect();
        if names.len() > OTHERS_MAX {
            names.sort_by_cached_key(rank);
            names.truncate(OTHERS_MAX);
        }
        names
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.secrets.is_empty() && self.buried.is_empty() && !self.sources.synced
    }

    /// Puts in an object, or takes it out: `before` is what it was, `after` what it is. Returns whom that concerns, but
    /// for itself.
    pub(super) fn change_object(&mut self, before: Option<&Own>, after: Option<(&Own, Packed<Own>)>) -> BTreeSet<Name> {
        let (after, packed) = after.unzip();
        let Some(name) = before.or(after).map(|own| self.name(&own.name)) else { return BTreeSet::new() };
        let renamed = before.map(|before| &before.spec.name) != after.map(|after| &after.spec.name);
        // What it wants is all that it has to do with circles.
        let mut wake = before.filter(|_| renamed).map(|before| self.circle(before)).unwrap_or_default();
        // What closes or opens a ring of values concerns all of it.
        let edited = match (before, after) {
            (Some(before), Some(after)) => {
                before.spec != after.spec
                    || before.deleting != after.deleting
                    || !before.template_keys().eq(after.template_keys())
            }
            _ => true,
        };
        let ring = before.filter(|_| edited).map(|before| self.ring(before)).unwrap_or_default();
        wake.extend(ring.iter().map(|member| self.name(member)));
        let was = before.map(Bonds::of).unwrap_or_default();
        let is = after.map(Bonds::of).unwrap_or_default();
        match after.zip(packed) {
            Some((after, packed)) => {
                let kept = KeptObject::new(after, packed, self.source(after));
                self.objects.insert(Name::clone(&name), kept);
            }
            None => drop(self.objects.remove(&name)),
        }
        self.rebind(&name, &was, &is, &mut wake);
        if before.map(|before| &before.uid) != after.map(|after| &after.uid) {
            // Whether the holder of a name lives makes a difference to those that wait for the name.
            for secret in self.by_owner.get(&name).into_iter().flat_map(Few::iter) {
                start_line(&mut self.by_secret, secret, &mut wake);
            }
        }
        if let Some(own) = after.filter(|_| renamed) {
            wake.extend(self.circle(own));
        }
        if edited {
            wake.extend(self.rings([Name::clone(&name)]));
        }
        wake.remove(&name);
        wake
    }

    fn rebind(&mut self, name: &Name, was: &Bonds, is: &Bonds, wake: &mut BTreeSet<Name>) {
        for secret in was.in_status.difference(&is.in_status) {
            self.concerned_by(secret).in_status.remove(name);
        }
        for secret in is.in_status.difference(&was.in_status) {
            self.concerned_by(secret).in_status.insert(Name::clone(name));
        }
        if was.source != is.source {
            if let Some(source) = &was.source {
                remove_from(&mut self.by_source, &**source, &**name);
            }
            if let Some(source) = &is.source {
                let source = self.name(source);
                self.by_source.entry(source).or_default().insert(Name::clone(name));
            }
        }
        let claim = |rank| Claim { rank, object: Name::clone(name) };
        for (secret, key, rank) in was.delivers.difference(&is.delivers) {
            let place = Place::new(self.name(secret), key);
            remove_from(&mut self.by_delivery, &place, &claim(*rank));
        }
        for (secret, key, rank) in is.delivers.difference(&was.delivers) {
            let place = Place::new(self.name(secret), key);
            self.by_delivery.entry(place).or_default().insert(claim(*rank));
        }
        for secret in was.wants.keys().chain(is.wants.keys()).collect::<BTreeSet<_>>() {
            let line = &mut self.concerned_by(secret).line;
            let (before, after) = (was.wants.get(secret).copied(), is.wants.get(secret).copied());
            match (before, after) {
                (Some(before), Some(after)) if before == after => continue,
                (Some(before), Some(after)) => line.change(&claim(before), claim(after)),
                (Some(before), None) => wake.extend(line.leave(&claim(before))),
                (None, Some(after)) => line.join(claim(after)),
                (None, None) => {}
            }
            // A free name was kept for it and is no longer, or is from now on: those that want the name say what they wait for.
            let keeps = |rank: Option<Rank>| rank.filter(|rank| *rank <= Rank::Moves);
            if keeps(before) != keeps(after) && !self.secrets.contains_key(&**secret) {
                self.start_line(secret, wake);
            }
        }
        for secret in was.secrets() {
            if self.by_secret.get(&**secret).is_some_and(|it| it.in_status.is_empty() && it.line.is_empty()) {
                self.by_secret.remove(&**secret);
            }
        }
    }

    fn concerned_by(&mut self, secret: &str) -> &mut Concerned {
        let secret = self.name(secret);
        self.by_secret.entry(secret).or_default()
    }

    /// Puts in a Secret, or takes it out: `before` is what it was, `after` what it is. Returns whom that concerns.
    pub(super) fn change_secret(&mut self, before: Option<&Entry>, after: Option<Entry>) -> BTreeSet<Name> {
        let mut wake = BTreeSet::new();
        let Some(name) = before.or(after.as_ref()).map(|entry| self.name(&entry.view.name)) else { return wake };
        let held = before.map(|entry| Standing::of(&entry.view));
        let holds = after.as_ref().map(|entry| Standing::of(&entry.view));
        let same_holder = held == holds;
        let owned_by = |entry: Option<&Entry>| entry.map(|entry| self.owners(&entry.view)).unwrap_or_default();
        let (owned, owns) = (owned_by(before), owned_by(after.as_ref()));
        let same_owners = owned == owns;
        if !same_owners {
            // While it is still known: the rings that it is a part of.
            wake.extend(self.rings(owned.iter().map(Name::clone)));
        }
        if let Some(before) = before {
            wake.extend(self.concerned(&before.view));
            for owner in &owned {
                remove_from(&mut self.by_owner, &**owner, &*name);
            }
            if let Some(id) = record_id(&before.view) {
                remove_from(&mut self.by_id, &id, &*name);
            }
        }
        if let Some(after) = after {
            wake.extend(self.concerned(&after.view));
            for owner in &owns {
                self.by_owner.entry(Name::clone(owner)).or_default().insert(Name::clone(&name));
            }
            if let Some(id) = record_id(&after.view) {
                self.by_id.entry(id).or_default().insert(Name::clone(&name));
            }
            let holder = after.view.annotation(ANNO_OWNER).map(|holder| self.name(holder));
            self.secrets.insert(Name::clone(&name), after.keep(holder));
        } else {
            self.secrets.remove(&name);
        }
        if !same_owners {
            wake.extend(self.rings(owns));
        }
        if !same_holder {
            self.start_line(&name, &mut wake);
        }
        wake
    }

    /// The Secret of which a watch or an answer shows the end, unless what is known of it is newer.
    pub(super) fn ended(&self, end: &SecretView) -> Option<Entry> {
        let known = self.secret(&end.name)?;
        let newer = is_surely_newer(&known.view.resource_version, &end.resource_version);
        (known.view.uid == end.uid && !newer).then_some(known)
    }

    /// The objects that a Secret is about: its owners, and those whose status names it.
    pub(super) fn concerned(&self, view: &SecretView) -> BTreeSet<Name> {
        let in_status = self.by_secret.get(&*view.name).into_iter().flat_map(|it| it.in_status.iter().map(Name::clone));
        let owners = self.owners(view).into_iter().filter(|owner| self.objects.contains_key(owner));
        in_status.chain(owners).collect()
    }

    /// The objects that a Secret names as its owner, by annotation or owner reference.
    pub(super) fn owners(&self, view: &SecretView) -> BTreeSet<Name> {
        owners(view).map(|owner| self.name(owner)).collect()
    }

    /// The objects that wait for the name of this Secret have to look: the first of the line now, then one after the other.
    pub(super) fn start_line(&mut self, secret: &str, wake: &mut BTreeSet<Name>) {
        start_line(&mut self.by_secret, secret, wake);
    }

    /// A pass of this object is over: where it had the turn in a line, the next one has it. Returns whom to wake.
    pub(super) fn pass_on(&mut self, name: &str) -> BTreeSet<Name> {
        let Some(own) = self.object(name) else { return BTreeSet::new() };
        let wants = Bonds::of(&own).wants;
        let lines = wants.keys().filter_map(|secret| self.by_secret.get_mut(&**secret)?.line.pass_on(name));
        lines.collect()
    }

    /// The objects that take their value from this Secret.
    pub(super) fn following(&self, source: &str) -> BTreeSet<Name> {
        self.by_source.get(source).into_iter().flat_map(|objects| objects.iter().map(Name::clone)).collect()
    }

    /// The first in the line of a name that is free, but for the object `asking`.
    pub(super) fn first_for_name(&self, name: &str, asking: &str) -> Option<Own> {
        let line = &self.by_secret.get(&*record_name(name))?.line;
        let others = line.claims().filter(|claim| *claim.object != *asking);
        others.filter_map(|claim| self.object(&claim.object)).find(|own| own.spec.name == name)
    }

    pub(super) fn peers(&self, own: &Own, secrets: &[Entry]) -> Peers {
        let reserved_for = self.by_secret.get(&*record_name(&own.spec.name)).and_then(|concerned| {
            // An object without a record leaves a free name to one that wants to move there, and can. Who has lost its
            // record keeps its name also while it is suspended or being deleted.
            let least = if own.status.id.is_none() { Rank::Moves } else { Rank::Holds };
            let before_it = concerned.line.claims().take_while(|claim| claim.rank <= least);
            before_it
                .map(|claim| &claim.object)
                .find(|object| ***object != *own.name)
                .map(|object| (**object).to_owned())
        });
        let holders = secrets.iter().flat_map(|entry| owners(&entry.view));
        let living = holders.filter_map(|holder| Some(self.object(holder)?.uid)).collect();
        Peers { reserved_for, cycle: !self.circle(own).is_empty(), living, ring: self.ring(own) }
    }

    /// The object that a Secret names as its owner by annotation, if it exists.
    pub(super) fn owner_of(&self, secret: &str) -> Option<Own> {
        self.object(self.secrets.get(secret)?.owner.as_ref()?)
    }

    /// Follows the chain "who holds the name that it waits for" from one object. If the chain comes back to it: all that
    /// are in the circle.
    fn circle(&self, own: &Own) -> BTreeSet<Name> {
        let mut members = BTreeSet::from([self.name(&own.name)]);
        let mut wanted = own.spec.name.clone();
        for _ in 0..MAX_CIRCLE {
            let Some(holder) = self.owner_of(&record_name(&wanted)) else { break };
            if holder.name == own.name {
                return if wanted == own.spec.name { BTreeSet::new() } else { members };
            }
            if holder.spec.name == wanted {
                break;
            }
            members.insert(self.name(&holder.name));
            wanted = holder.spec.name;
        }
        BTreeSet::new()
    }
}

/// What binds an object to names of Secrets.
#[derive(Default)]
struct Bonds {
    /// Record and target of its status.
    in_status: BTreeSet<String>,
    /// Record and target that its spec wants.
    wants: BTreeMap<String, Rank>,
    source: Option<String>,
    /// The Secret and the keys that it delivers under, where it can.
    delivers: BTreeSet<(String, String, Rank)>,
}

impl Bonds {
    fn of(own: &Own) -> Self {
        let status = &own.status;
        let record = status.record.as_ref().map(|record| record.name.clone());
        let target = status.target.as_ref().map(|target| target.name.clone());
        let can = !own.deleting && !own.spec.suspended() && own.violation.is_none();
        let moves = status.id.is_some() && status.name.as_ref().is_some_and(|held| *held != own.spec.name);
        let rank = |wanted: &String, held: &Option<String>, moves: bool| match (held.as_ref() == Some(wanted), can) {
            (true, _) => Rank::Holds,
            (false, false) => Rank::Cannot,
            (false, true) if moves => Rank::Moves,
            (false, true) => Rank::Wants,
        };
        let wanted = record_name(&own.spec.name);
        let mut wants = BTreeMap::from([(wanted.clone(), rank(&wanted, &record, moves))]);
        if own.spec.delivery() == Delivery::Secret {
            let wanted = own.spec.target_name(&own.name).to_owned();
            let rank = rank(&wanted, &target, false);
            wants.entry(wanted).or_insert(rank);
        }
        let delivers = delivery(own).into_iter().flat_map(|(secret, keys)| {
            let secret = secret.to_owned();
            let rank = rank(&secret, &target, false);
            keys.into_iter().map(move |key| (secret.clone(), key.to_owned(), rank)).collect::<Vec<_>>()
        });
        let delivers = delivers.collect();
        let source = own.spec.value_from.as_ref().map(|from| from.secret_key_ref.name.clone());
        Self { in_status: record.into_iter().chain(target).collect(), wants, source, delivers }
    }

    fn secrets(&self) -> impl Iterator<Item = &String> {
        self.in_status.iter().chain(self.wants.keys())
    }
}

/// Names of the Secrets that concern an object: of its spec and of its status.
pub(super) fn secrets_of(own: &Own) -> BTreeSet<String> {
    let Bonds { in_status, wants, .. } = Bonds::of(own);
    let mut names = in_status;
    names.extend(wants.into_keys());
    names.insert(own.spec.target_name(&own.name).to_owned());
    names
}

/// What of a Secret matters to those that want its name: who holds it, and whether it goes.
#[derive(Eq, PartialEq)]
struct Standing {
    uid: String,
    annotations: [Option<String>; 2],
    labels: [Option<String>; 2],
    owners: Vec<OwnerRef>,
    deleting: bool,
}

impl Standing {
    fn of(view: &SecretView) -> Self {
        Self {
            uid: view.uid.clone(),
            annotations: [ANNO_OWNER, ANNO_UID].map(|key| view.annotation(key).map(str::to_owned)),
            labels: [view.role(), view.id()].map(|label| label.map(str::to_owned)),
            owners: view.owners.clone(),
            deleting: view.deleting,
        }
    }
}

fn owners(view: &SecretView) -> impl Iterator<Item = &str> {
    let references = view.owners.iter().filter(|owner| owner.is_managed_secret).map(|owner| &*owner.name);
    references.chain(view.annotation(ANNO_OWNER))
}

fn start_line(by_secret: &mut HashMap<Name, Concerned>, secret: &str, wake: &mut BTreeSet<Name>) {
    if let Some(concerned) = by_secret.get_mut(secret) {
        wake.extend(concerned.line.start(wake));
    }
}

/// The id of a Secret that is labelled as a record and has a record's name. Users can give the labels to any Secret, but a
/// policy keeps these names for the operator.
fn record_id(view: &SecretView) -> Option<Uuid> {
    let is_record = view.role() == Some(ROLE_RECORD) && view.name.starts_with(RECORD_PREFIX);
    view.id().filter(|_| is_record)?.parse().ok()
}

fn remove_from<K, Q, T, R>(map: &mut HashMap<K, Few<T>>, key: &Q, item: &R)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
    T: Borrow<R> + Ord,
    R: Ord + ?Sized,
{
    if let Some(items) = map.get_mut(key) {
        items.remove(item);
        if items.is_empty() {
            map.remove(key);
        }
    }
}
