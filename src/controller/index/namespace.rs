//! One namespace of the cache, and whom an event in it concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use managed_secrets_api::{
    keys::{ANNO_OWNER, ANNO_UID, RECORD_PREFIX, ROLE_RECORD},
    names::record_name,
    types::Delivery,
};

use super::{
    is_surely_newer,
    kept::{Entry, KeptObject, KeptSecret},
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

/// The objects that a Secret concerns, by its name.
#[derive(Debug, Default)]
struct Concerned {
    /// Their status names it as their record or target.
    in_status: BTreeSet<String>,
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
#[derive(Debug, Default)]
pub(super) struct NamespaceIndex {
    pub(super) objects: HashMap<String, KeptObject>,
    pub(super) secrets: HashMap<String, KeptSecret>,
    pub(super) buried: HashMap<String, Buried>,
    pub(super) sources: Sources,
    by_secret: HashMap<String, Concerned>,
    /// Objects by the name of their source.
    pub(super) by_source: HashMap<String, BTreeSet<String>>,
    /// Objects by the Secret and the key that they deliver under, in the order in which they would get the Secret. Only
    /// those that can: so a look-up costs the same however many want one Secret.
    pub(super) by_delivery: HashMap<(String, String), BTreeSet<Claim>>,
    /// Secrets by the object that they name as their owner.
    pub(super) by_owner: HashMap<String, BTreeSet<String>>,
    /// Secrets that are labelled and named as records, by their id.
    pub(super) by_id: HashMap<String, BTreeSet<String>>,
}

impl NamespaceIndex {
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
    pub(super) fn others_of(&self, own: &Own) -> Vec<&String> {
        let rank = |name: &&String| {
            let has_our_reference =
                self.secret(name).is_some_and(|entry| entry.view.ours.owner_uids.contains(&own.uid));
            (!name.starts_with(RECORD_PREFIX), !has_our_reference)
        };
        let mut names: Vec<&String> = self.by_owner.get(&own.name).into_iter().flatten().collect();
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
    pub(super) fn change_object(
        &mut self,
        before: Option<&Own>,
        after: Option<(&Own, Packed<Own>)>,
    ) -> BTreeSet<String> {
        let (after, packed) = after.unzip();
        let Some(name) = before.or(after).map(|own| own.name.clone()) else { return BTreeSet::new() };
        let renamed = before.map(|before| &before.spec.name) != after.map(|after| &after.spec.name);
        // What it wants is all that it has to do with circles.
        let mut wake = before.filter(|_| renamed).map(|before| self.circle(before)).unwrap_or_default();
        // What closes or opens a ring of values concerns all of it.
        let edited = match (before, after) {
            (Some(before), Some(after)) => before.spec != after.spec || before.deleting != after.deleting,
            _ => true,
        };
        wake.extend(before.filter(|_| edited).map(|before| self.ring(before)).unwrap_or_default());
        let was = before.map(Bonds::of).unwrap_or_default();
        let is = after.map(Bonds::of).unwrap_or_default();
        match after.zip(packed) {
            Some((after, packed)) => drop(self.objects.insert(name.clone(), KeptObject::new(after, packed))),
            None => drop(self.objects.remove(&name)),
        }
        self.rebind(&name, &was, &is, &mut wake);
        if before.map(|before| &before.uid) != after.map(|after| &after.uid) {
            // Whether the holder of a name lives makes a difference to those that wait for the name.
            for secret in self.by_owner.get(&name).cloned().unwrap_or_default() {
                self.start_line(&secret, &mut wake);
            }
        }
        if let Some(own) = after.filter(|_| renamed) {
            wake.extend(self.circle(own));
        }
        if edited {
            wake.extend(self.rings([name.clone()]));
        }
        wake.remove(&name);
        wake
    }

    fn rebind(&mut self, name: &str, was: &Bonds, is: &Bonds, wake: &mut BTreeSet<String>) {
        for secret in was.in_status.difference(&is.in_status) {
            self.concerned_by(secret).in_status.remove(name);
        }
        for secret in is.in_status.difference(&was.in_status) {
            self.concerned_by(secret).in_status.insert(name.to_owned());
        }
        if was.source != is.source {
            if let Some(source) = &was.source {
                remove_from(&mut self.by_source, source, name);
            }
            if let Some(source) = &is.source {
                self.by_source.entry(source.clone()).or_default().insert(name.to_owned());
            }
        }
        let claim = |rank| Claim { rank, object: name.to_owned() };
        if was.delivers != is.delivers {
            if let Some((place, rank)) = &was.delivers
                && let Some(claims) = self.by_delivery.get_mut(place)
            {
                claims.remove(&claim(*rank));
                if claims.is_empty() {
                    self.by_delivery.remove(place);
                }
            }
            if let Some((place, rank)) = &is.delivers {
                self.by_delivery.entry(place.clone()).or_default().insert(claim(*rank));
            }
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
            // A free name was kept for it, and is no longer.
            let kept = |rank: &Rank| *rank <= Rank::Moves;
            if before.filter(kept).is_some_and(|before| after.is_none_or(|after| before < after))
                && !self.secrets.contains_key(secret)
            {
                self.start_line(secret, wake);
            }
        }
        for secret in was.secrets() {
            if self.by_secret.get(secret).is_some_and(|it| it.in_status.is_empty() && it.line.is_empty()) {
                self.by_secret.remove(secret);
            }
        }
    }

    fn concerned_by(&mut self, secret: &str) -> &mut Concerned {
        self.by_secret.entry(secret.to_owned()).or_default()
    }

    /// Puts in a Secret, or takes it out: `before` is what it was, `after` what it is. Returns whom that concerns.
    pub(super) fn change_secret(&mut self, before: Option<&Entry>, after: Option<Entry>) -> BTreeSet<String> {
        let mut wake = BTreeSet::new();
        let Some(name) = before.or(after.as_ref()).map(|entry| entry.view.name.clone()) else { return wake };
        let held = before.map(|entry| Standing::of(&entry.view));
        let holds = after.as_ref().map(|entry| Standing::of(&entry.view));
        let same_holder = held == holds;
        let owned_by = |entry: Option<&Entry>| entry.map(|entry| owners(&entry.view)).unwrap_or_default();
        let (owned, owns) = (owned_by(before), owned_by(after.as_ref()));
        let same_owners = owned == owns;
        if !same_owners {
            // While it is still known: the rings that it is a part of.
            wake.extend(self.rings(owned));
        }
        if let Some(before) = before {
            wake.extend(self.concerned(&before.view));
            for owner in owners(&before.view) {
                remove_from(&mut self.by_owner, &owner, &name);
            }
            if let Some(id) = record_id(&before.view) {
                remove_from(&mut self.by_id, id, &name);
            }
        }
        if let Some(after) = after {
            wake.extend(self.concerned(&after.view));
            for owner in owners(&after.view) {
                self.by_owner.entry(owner).or_default().insert(name.clone());
            }
            if let Some(id) = record_id(&after.view) {
                self.by_id.entry(id.to_owned()).or_default().insert(name.clone());
            }
            self.secrets.insert(name.clone(), after.keep());
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
    pub(super) fn concerned(&self, view: &SecretView) -> BTreeSet<String> {
        let mut concerned = self.by_secret.get(&view.name).map(|it| it.in_status.clone()).unwrap_or_default();
        concerned.extend(owners(view).into_iter().filter(|owner| self.objects.contains_key(owner)));
        concerned
    }

    /// The objects that wait for the name of this Secret have to look: the first of the line now, then one after the other.
    pub(super) fn start_line(&mut self, secret: &str, wake: &mut BTreeSet<String>) {
        if let Some(concerned) = self.by_secret.get_mut(secret) {
            wake.extend(concerned.line.start(wake));
        }
    }

    /// A pass of this object is over: where it had the turn in a line, the next one has it. Returns whom to wake.
    pub(super) fn pass_on(&mut self, name: &str) -> BTreeSet<String> {
        let Some(own) = self.object(name) else { return BTreeSet::new() };
        let wants = Bonds::of(&own).wants;
        let lines = wants.keys().filter_map(|secret| self.by_secret.get_mut(secret)?.line.pass_on(name));
        lines.collect()
    }

    /// The first in the line of a name that is free, but for the object `asking`.
    pub(super) fn first_for_name(&self, name: &str, asking: &str) -> Option<Own> {
        let line = &self.by_secret.get(&record_name(name))?.line;
        let others = line.claims().filter(|claim| claim.object != asking);
        others.filter_map(|claim| self.object(&claim.object)).find(|own| own.spec.name == name)
    }

    pub(super) fn peers(&self, own: &Own, secrets: &[Entry]) -> Peers {
        let reserved_for = self.by_secret.get(&record_name(&own.spec.name)).and_then(|concerned| {
            // An object without a record leaves a free name to one that wants to move there, and can. Who has lost its
            // record keeps its name also while it is suspended or being deleted.
            let least = if own.status.id.is_none() { Rank::Moves } else { Rank::Holds };
            let before_it = concerned.line.claims().take_while(|claim| claim.rank <= least);
            before_it.map(|claim| &claim.object).find(|object| **object != own.name).cloned()
        });
        let holders = secrets.iter().flat_map(|entry| owners(&entry.view));
        let living = holders.filter_map(|holder| Some(self.object(&holder)?.uid)).collect();
        Peers { reserved_for, cycle: !self.circle(own).is_empty(), living, ring: self.ring(own) }
    }

    /// The object that a Secret names as its owner by annotation, if it exists.
    pub(super) fn owner_of(&self, secret: &str) -> Option<Own> {
        let entry = self.secret(secret)?;
        self.object(entry.view.annotation(ANNO_OWNER)?)
    }

    /// Follows the chain "who holds the name that it waits for" from one object. If the chain comes back to it: all that
    /// are in the circle.
    fn circle(&self, own: &Own) -> BTreeSet<String> {
        let mut members = BTreeSet::from([own.name.clone()]);
        let mut wanted = own.spec.name.clone();
        for _ in 0..MAX_CIRCLE {
            let Some(holder) = self.owner_of(&record_name(&wanted)) else { break };
            if holder.name == own.name {
                return if wanted == own.spec.name { BTreeSet::new() } else { members };
            }
            if holder.spec.name == wanted {
                break;
            }
            members.insert(holder.name);
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
    /// The Secret and the key that it delivers under, where it can.
    delivers: Option<((String, String), Rank)>,
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
        let delivers = delivery(own).map(|place| {
            let rank = rank(&place.0, &target, false);
            (place, rank)
        });
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

/// The objects that a Secret names as its owner, by annotation or owner reference.
pub(super) fn owners(view: &SecretView) -> BTreeSet<String> {
    let references = view.owners.iter().filter(|owner| owner.is_managed_secret).map(|owner| owner.name.clone());
    references.chain(view.annotation(ANNO_OWNER).map(str::to_owned)).collect()
}

/// The id of a Secret that is labelled as a record and has a record's name. Users can give the labels to any Secret, but a
/// policy keeps these names for the operator.
fn record_id(view: &SecretView) -> Option<&str> {
    let is_record = view.role() == Some(ROLE_RECORD) && view.name.starts_with(RECORD_PREFIX);
    view.id().filter(|_| is_record)
}

fn remove_from(map: &mut HashMap<String, BTreeSet<String>>, key: &str, item: &str) {
    if let Some(items) = map.get_mut(key) {
        items.remove(item);
        if items.is_empty() {
            map.remove(key);
        }
    }
}
