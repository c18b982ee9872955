//! The cache: what the watches have shown, arranged so that one reconcile looks up only what concerns it, and one event
//! wakes only whom it concerns.
//!
//! In: events of the watches, and what the API server answered to our own writes (so that a pass never acts on a state
//! older than its own last write). Out: a [`Snapshot`] for a pass; names to wake for an event. Pure: no client, no
//! lock, and no clock but what is passed in. No value of any Secret ever comes here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::{
    view::{Own, SecretView},
    world::{Peers, SourceSeen},
};
use crate::{
    api::{keys::ANNO_OWNER, names::record_name},
    engine::queue::Grouped,
};

mod rings;

/// For how long our own write is believed although no watch has shown it. Afterwards a live read decides: a watch may
/// be stuck, and after a restore of etcd versions go backwards.
pub const UNCONFIRMED_FOR: Duration = Duration::from_secs(5);

/// Namespace and `metadata.name` of a ManagedSecret.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// Namespaces take turns: what one of them has waiting does not delay another.
impl Grouped for Key {
    type Group = String;

    fn group(&self) -> &String {
        &self.namespace
    }
}

/// Who has what another wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Holder {
    /// A ManagedSecret, by its `metadata.name`.
    Object(String),
    /// A Secret that no ManagedSecret owns any more.
    Secret(String),
}

/// What one pass starts from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The ManagedSecret.
    pub own: Own,
    /// Labelled Secrets that may concern it.
    pub secrets: Vec<SecretView>,
    /// Types of those Secrets by uid, where they are known.
    pub types: BTreeMap<String, String>,
    /// The source of `valueFrom`.
    pub source: SourceSeen,
    /// What others want.
    pub peers: Peers,
}

/// A Secret and how it came here.
#[derive(Clone, Debug)]
struct Entry {
    view: SecretView,
    /// When we wrote it, until a watch shows it.
    unconfirmed: Option<Instant>,
    /// Its type, where a write or a live read has told; no part of what a watch shows.
    type_: Option<String>,
}

/// Metadata of the Secrets that a `valueFrom` may name.
#[derive(Debug, Default)]
struct Sources {
    synced: bool,
    versions: HashMap<String, (String, String)>,
}

/// One namespace.
#[derive(Debug, Default)]
struct Site {
    objects: HashMap<String, Own>,
    secrets: HashMap<String, Entry>,
    /// Versions of Secrets that we deleted: an older event must not bring them back.
    buried: HashMap<String, SecretView>,
    sources: Sources,
    /// Objects by `spec.name`.
    by_name: HashMap<String, BTreeSet<String>>,
    /// Objects by the name of a Secret that concerns them: record, target, wanted or in force.
    by_secret: HashMap<String, BTreeSet<String>>,
    /// Objects by the name of their source.
    by_source: HashMap<String, BTreeSet<String>>,
    /// Secrets by the object that they name as their owner.
    by_owner: HashMap<String, BTreeSet<String>>,
}

/// All namespaces.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashMap<String, Site>,
}

impl Index {
    /// What a pass starts from; `None` where there is no such object.
    #[must_use]
    pub fn snapshot(&self, key: &Key, now: Instant) -> Option<Snapshot> {
        let site = self.namespaces.get(&key.namespace)?;
        let own = site.objects.get(&key.name)?.clone();
        let mut names: BTreeSet<&String> = site.by_owner.get(&key.name).into_iter().flatten().collect();
        let concerning = secrets_of(&own);
        names.extend(&concerning);
        let entries: Vec<&Entry> = names
            .into_iter()
            .filter_map(|name| site.secrets.get(name))
            .filter(|entry| entry.unconfirmed.is_none_or(|since| now.duration_since(since) < UNCONFIRMED_FOR))
            .collect();
        let types = entries.iter().filter_map(|entry| Some((entry.view.uid.clone(), entry.type_.clone()?))).collect();
        let secrets = entries.into_iter().map(|entry| entry.view.clone()).collect();
        let source = match &own.spec.value_from {
            None => SourceSeen::NotWanted,
            Some(_) if !site.sources.synced => SourceSeen::Unsynced,
            Some(from) => match site.sources.versions.get(&from.secret_key_ref.name) {
                None => SourceSeen::Absent,
                Some((uid, version)) => SourceSeen::Present { uid: uid.clone(), resource_version: version.clone() },
            },
        };
        let peers = site.peers(&own);
        Some(Snapshot { own, secrets, types, source, peers })
    }

    /// Whether an object's spec is newer than its status says.
    #[must_use]
    pub fn is_fresh(&self, key: &Key) -> bool {
        let own = self.namespaces.get(&key.namespace).and_then(|site| site.objects.get(&key.name));
        own.is_some_and(|own| own.status.observed_generation != Some(own.generation))
    }

    /// Whom the name `name` belongs to, if not to the object `asking`: its record's owner, else one that wants it too.
    #[must_use]
    pub fn holder_of_name(&self, namespace: &str, name: &str, asking: &str) -> Option<Holder> {
        let site = self.namespaces.get(namespace)?;
        let record = record_name(name);
        match site.secrets.get(&record).map(|entry| entry.view.annotation(ANNO_OWNER).unwrap_or_default()) {
            Some(owner) if owner == asking => None,
            Some(owner) if site.objects.contains_key(owner) => Some(Holder::Object(owner.to_owned())),
            Some(_) => Some(Holder::Secret(record)),
            None => site.by_name.get(name)?.iter().find(|other| *other != asking).cloned().map(Holder::Object),
        }
    }

    /// Whom a delivered Secret belongs to, if not to the object `asking`.
    #[must_use]
    pub fn holder_of_target(&self, namespace: &str, secret: &str, asking: &str) -> Option<Holder> {
        let owner = self.namespaces.get(namespace)?.secrets.get(secret)?.view.annotation(ANNO_OWNER)?;
        (owner != asking).then(|| Holder::Object(owner.to_owned()))
    }

    /// Whether a Secret that a value could be taken from is known not to exist.
    #[must_use]
    pub fn lacks_source(&self, namespace: &str, secret: &str) -> bool {
        let sources = self.namespaces.get(namespace).map(|site| &site.sources);
        sources.is_some_and(|sources| sources.synced && !sources.versions.contains_key(secret))
    }

    /// Every object.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.namespaces.iter().flat_map(|(namespace, site)| {
            site.objects.keys().map(|name| Key { namespace: namespace.clone(), name: name.clone() })
        })
    }

    /// Namespaces in which some object has a `valueFrom`.
    pub fn source_namespaces(&self) -> impl Iterator<Item = &String> {
        self.namespaces.iter().filter(|(_, site)| !site.by_source.is_empty()).map(|(namespace, _)| namespace)
    }

    /// An object as a watch shows it, or as it came back from our own write of its status. Returns whom to wake.
    pub fn put_object(&mut self, own: Own) -> Vec<Key> {
        let namespace = own.namespace.clone();
        let site = self.namespaces.entry(namespace.clone()).or_default();
        let mut wake = BTreeSet::new();
        if let Some(before) = site.objects.get(&own.name) {
            // Whatever its uid: the versions of one kind are of one sequence, and an older event may come late.
            if !is_newer(&own.resource_version, &before.resource_version) {
                return Vec::new();
            }
            let before = before.clone();
            // What closes or opens a ring concerns all of it.
            if before.spec != own.spec || before.deleting != own.deleting {
                wake.extend(site.ring(&before));
            }
            site.unlink(&before);
            if before.spec.name != own.spec.name || before.deleting != own.deleting {
                wake.extend(site.behind(&before));
            }
        }
        let name = own.name.clone();
        let moved =
            site.objects.get(&name).is_none_or(|before| before.spec != own.spec || before.deleting != own.deleting);
        wake.insert(name.clone());
        site.link(&own);
        site.objects.insert(name.clone(), own);
        if moved {
            wake.extend(site.rings([name]));
        }
        keys(&namespace, wake)
    }

    /// An object is gone.
    pub fn remove_object(&mut self, namespace: &str, name: &str, uid: Option<&str>) -> Vec<Key> {
        let Some(site) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        let Some(before) = site.objects.get(name).filter(|before| uid.is_none_or(|uid| uid == before.uid)).cloned()
        else {
            return Vec::new();
        };
        let ring = site.ring(&before);
        site.objects.remove(name);
        site.unlink(&before);
        let mut wake = site.behind(&before);
        wake.extend(ring);
        wake.insert(name.to_owned());
        self.drop_if_empty(namespace);
        keys(namespace, wake)
    }

    /// A labelled Secret as a watch or a live read shows it (`written` absent), or as it came back from our own write.
    /// Returns whom to wake: nobody where nothing is new.
    pub fn put_secret(&mut self, namespace: &str, view: SecretView, written: Option<Instant>) -> Vec<Key> {
        let mut view = view.kept();
        let site = self.namespaces.entry(namespace.to_owned()).or_default();
        let name = view.name.clone();
        let known_type = site.secrets.get(&name).filter(|entry| entry.view.uid == view.uid);
        let type_ = view.type_.take().or_else(|| known_type.and_then(|entry| entry.type_.clone()));
        if site
            .buried
            .get(&name)
            .is_some_and(|dead| dead.uid == view.uid && !is_newer(&view.resource_version, &dead.resource_version))
        {
            return Vec::new();
        }
        if let Some(before) = site.secrets.get_mut(&name)
            && !is_newer(&view.resource_version, &before.view.resource_version)
        {
            let same = before.view.uid == view.uid && before.view.resource_version == view.resource_version;
            if same {
                before.type_ = type_;
            }
            let shown = written.is_none() && same;
            if shown && before.unconfirmed.take().is_some() {
                // Nothing new to its owner, who wrote it; but others may wait for its place.
                let mut others = site.by_secret.get(&name).cloned().unwrap_or_default();
                others.retain(|other| !owners(&view).contains(other));
                others.extend(site.rings(owners(&view)));
                return keys(namespace, others);
            }
            return Vec::new();
        }
        let before = site.secrets.get(&name).map(|before| owners(&before.view)).unwrap_or_default();
        let mut wake = if before == owners(&view) { BTreeSet::new() } else { site.rings(before.clone()) };
        if let Some(before) = site.secrets.remove(&name) {
            wake.extend(site.concerned(&before.view));
            site.unlink_secret(&before.view);
        }
        site.buried.remove(&name);
        wake.extend(site.concerned(&view));
        for owner in owners(&view) {
            site.by_owner.entry(owner).or_default().insert(name.clone());
        }
        let after = owners(&view);
        site.secrets.insert(name, Entry { view, unconfirmed: written, type_ });
        if before != after {
            wake.extend(site.rings(after));
        }
        if written.is_some() { Vec::new() } else { keys(namespace, wake) }
    }

    /// A labelled Secret is gone, or has lost its label. Wakes also where it was known already, for our own deletion
    /// frees a name that others wait for.
    pub fn remove_secret(&mut self, namespace: &str, view: &SecretView) -> Vec<Key> {
        let Some(site) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        let mut concerned = BTreeSet::new();
        if site.secrets.get(&view.name).is_some_and(|entry| entry.view.uid == view.uid) {
            concerned.extend(site.rings(owners(view)));
            if let Some(entry) = site.secrets.remove(&view.name) {
                site.unlink_secret(&entry.view);
            }
        }
        site.buried.remove(&view.name);
        concerned.extend(site.concerned(view));
        let concerned = keys(namespace, concerned);
        self.drop_if_empty(namespace);
        concerned
    }

    /// We deleted a Secret: until its end is seen, no event from before may bring it back.
    ///
    /// Where the watch has shown the end before our answer came, there is nothing to keep out any more.
    pub fn bury(&mut self, namespace: &str, view: &SecretView) {
        let known = |site: &Site| site.secrets.get(&view.name).is_some_and(|entry| entry.view.uid == view.uid);
        if self.namespaces.get(namespace).is_some_and(known) {
            self.remove_secret(namespace, view);
            let site = self.namespaces.entry(namespace.to_owned()).or_default();
            site.buried.insert(view.name.clone(), view.clone().kept());
        }
    }

    /// Namespaces come and go; what is left of one is nothing. What a watch on its sources has listed stays until that
    /// watch ends, for it will not list again.
    fn drop_if_empty(&mut self, namespace: &str) {
        let empty = |site: &Site| {
            site.objects.is_empty() && site.secrets.is_empty() && site.buried.is_empty() && !site.sources.synced
        };
        if self.namespaces.get(namespace).is_some_and(empty) {
            self.namespaces.remove(namespace);
        }
    }

    /// A list of objects is complete: what it shows replaces all that was known, also newer versions, for a list after
    /// a restore of etcd shows older ones. Returns those that are new or changed, or whom a vanished one concerns.
    pub fn replace_objects(&mut self, namespace: Option<&str>, listed: Vec<Own>) -> Vec<Key> {
        let kept: BTreeSet<(String, String)> =
            listed.iter().map(|own| (own.namespace.clone(), own.name.clone())).collect();
        let gone: Vec<Key> = self
            .keys()
            .filter(|key| namespace.is_none_or(|namespace| namespace == key.namespace))
            .filter(|key| !kept.contains(&(key.namespace.clone(), key.name.clone())))
            .collect();
        let mut wake: Vec<Key> =
            gone.iter().flat_map(|key| self.remove_object(&key.namespace, &key.name, None)).collect();
        for own in listed {
            let before = self.namespaces.get(&own.namespace).and_then(|site| site.objects.get(&own.name));
            match before {
                Some(before) if before.uid == own.uid && before.resource_version == own.resource_version => {}
                Some(_) => {
                    wake.extend(self.remove_object(&own.namespace, &own.name, None));
                    wake.extend(self.put_object(own));
                }
                None => wake.extend(self.put_object(own)),
            }
        }
        wake
    }

    /// A list of labelled Secrets is complete: what it shows replaces all that was known, also newer versions, for a
    /// list after a restore of etcd shows older ones.
    pub fn replace_secrets(&mut self, namespace: Option<&str>, listed: Vec<(String, SecretView)>) -> Vec<Key> {
        let mut before: HashMap<(String, String), Entry> = HashMap::new();
        for (name, site) in self.namespaces.iter_mut().filter(|(name, _)| namespace.is_none_or(|only| only == *name)) {
            site.buried.clear();
            for (secret, entry) in site.secrets.drain() {
                before.insert((name.clone(), secret), entry);
            }
            site.by_owner.clear();
        }
        let mut wake = Vec::new();
        for (namespace, mut view) in listed {
            let old = before.remove(&(namespace.clone(), view.name.clone())).filter(|old| old.view.uid == view.uid);
            let same = old.as_ref().is_some_and(|old| old.view.resource_version == view.resource_version);
            view.type_ = old.and_then(|old| old.type_);
            let concerned = self.put_secret(&namespace, view, None);
            if !same {
                wake.extend(concerned);
            }
        }
        for ((namespace, _), gone) in before {
            wake.extend(self.remove_secret(&namespace, &gone.view));
        }
        wake
    }

    /// A source Secret as the watch on its namespace shows it.
    pub fn put_source(&mut self, namespace: &str, name: &str, uid: String, resource_version: String) -> Vec<Key> {
        let site = self.namespaces.entry(namespace.to_owned()).or_default();
        let version = (uid, resource_version);
        let before = site.sources.versions.insert(name.to_owned(), version.clone());
        if before == Some(version) || !site.sources.synced {
            return Vec::new();
        }
        keys(namespace, site.by_source.get(name).cloned().unwrap_or_default())
    }

    /// A source Secret is gone.
    pub fn remove_source(&mut self, namespace: &str, name: &str) -> Vec<Key> {
        let Some(site) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        site.sources.versions.remove(name);
        keys(namespace, site.by_source.get(name).cloned().unwrap_or_default())
    }

    /// A list of source Secrets is complete.
    pub fn replace_sources(&mut self, namespace: &str, listed: HashMap<String, (String, String)>) -> Vec<Key> {
        let site = self.namespaces.entry(namespace.to_owned()).or_default();
        let first = !std::mem::replace(&mut site.sources.synced, true);
        let before = std::mem::replace(&mut site.sources.versions, listed);
        let moved = site
            .by_source
            .iter()
            .filter(|(source, _)| first || before.get(*source) != site.sources.versions.get(*source))
            .flat_map(|(_, objects)| objects.clone())
            .collect();
        keys(namespace, moved)
    }

    /// The watch on a namespace's sources has ended.
    pub fn forget_sources(&mut self, namespace: &str) {
        if let Some(site) = self.namespaces.get_mut(namespace) {
            site.sources = Sources::default();
        }
        self.drop_if_empty(namespace);
    }
}

impl Site {
    fn link(&mut self, own: &Own) {
        self.by_name.entry(own.spec.name.clone()).or_default().insert(own.name.clone());
        for secret in secrets_of(own) {
            self.by_secret.entry(secret).or_default().insert(own.name.clone());
        }
        if let Some(from) = &own.spec.value_from {
            self.by_source.entry(from.secret_key_ref.name.clone()).or_default().insert(own.name.clone());
        }
    }

    fn unlink(&mut self, own: &Own) {
        remove_from(&mut self.by_name, &own.spec.name, &own.name);
        for secret in secrets_of(own) {
            remove_from(&mut self.by_secret, &secret, &own.name);
        }
        if let Some(from) = &own.spec.value_from {
            remove_from(&mut self.by_source, &from.secret_key_ref.name, &own.name);
        }
    }

    fn unlink_secret(&mut self, view: &SecretView) {
        for owner in owners(view) {
            remove_from(&mut self.by_owner, &owner, &view.name);
        }
    }

    /// The objects that a Secret concerns: its owner, and those that want its name.
    fn concerned(&self, view: &SecretView) -> BTreeSet<String> {
        let mut concerned = self.by_secret.get(&view.name).cloned().unwrap_or_default();
        concerned.extend(owners(view).into_iter().filter(|owner| self.objects.contains_key(owner)));
        concerned
    }

    /// The objects that want a name which `own` wants or holds, and those that wait for theirs, and so on: what they say
    /// of the name's holder, or of a circle of names, depends on what `own` wants.
    fn behind(&self, own: &Own) -> BTreeSet<String> {
        let mut behind = BTreeSet::new();
        let mut names: Vec<&String> = own.status.name.iter().chain([&own.spec.name]).collect();
        while let Some(name) = names.pop() {
            for peer in self.by_name.get(name).into_iter().flatten() {
                if behind.insert(peer.clone()) {
                    names.extend(self.objects.get(peer).and_then(|peer| peer.status.name.as_ref()));
                }
            }
        }
        behind
    }

    fn peers(&self, own: &Own) -> Peers {
        let record = record_name(&own.spec.name);
        let wanting = self.by_name.get(&own.spec.name).into_iter().flatten();
        let reserved_for = wanting
            .filter(|peer| **peer != own.name)
            .filter_map(|peer| self.objects.get(peer))
            .find(|peer| {
                // Also for one that is suspended or being deleted: its name is still its name.
                let lost_it = peer.status.record.as_ref().is_some_and(|held| held.name == record);
                // An object without a record leaves a free name to one that wants to move there, and can.
                let moves_there = own.status.id.is_none()
                    && !peer.deleting
                    && !peer.spec.suspended()
                    && peer.violations.is_empty()
                    && peer.status.id.is_some()
                    && peer.status.name.as_ref().is_some_and(|held| *held != own.spec.name);
                lost_it || moves_there
            })
            .map(|peer| peer.name.clone());
        let holders = self.secrets.get(&record).into_iter().flat_map(|entry| owners(&entry.view));
        let wanting = self.by_name.get(&own.spec.name).into_iter().flatten().cloned();
        let living = wanting.chain(holders).filter_map(|peer| Some(self.objects.get(&peer)?.uid.clone())).collect();
        Peers { reserved_for, cycle: self.waits_in_a_cycle(own), living, ring: self.ring(own), outdated: false }
    }

    /// Follows the chain "who holds the name that it waits for" from one object, and sees whether it comes back.
    fn waits_in_a_cycle(&self, own: &Own) -> bool {
        let mut wanted = &own.spec.name;
        // Each object waits for one name, so a chain that is longer than there are objects is a cycle elsewhere.
        for _ in 0..=self.objects.len() {
            let Some(holder) = self
                .secrets
                .get(&record_name(wanted))
                .and_then(|entry| entry.view.annotation(ANNO_OWNER))
                .and_then(|owner| self.objects.get(owner))
            else {
                return false;
            };
            if holder.name == own.name {
                return wanted != &own.spec.name;
            }
            if holder.spec.name == *wanted {
                return false;
            }
            wanted = &holder.spec.name;
        }
        false
    }
}

/// Names of the Secrets that concern an object, wanted or in force.
fn secrets_of(own: &Own) -> BTreeSet<String> {
    let mut names = BTreeSet::from([record_name(&own.spec.name), own.spec.target_name(&own.name).to_owned()]);
    names.extend(own.status.record.iter().map(|record| record.name.clone()));
    names.extend(own.status.target.iter().map(|target| target.name.clone()));
    names
}

/// The objects that a Secret names as its owner, by annotation or owner reference.
fn owners(view: &SecretView) -> BTreeSet<String> {
    let references = view.owners.iter().filter(|owner| owner.is_managed_secret).map(|owner| owner.name.clone());
    references.chain(view.annotation(ANNO_OWNER).map(str::to_owned)).collect()
}

/// Versions are comparable numbers since Kubernetes 1.35, and were before, undocumented. Where they are not numbers,
/// whatever comes later is newer.
fn is_newer(new: &str, old: &str) -> bool {
    match (new.parse::<u64>(), old.parse::<u64>()) {
        (Ok(new), Ok(old)) => new > old,
        _ => new != old,
    }
}

fn remove_from(map: &mut HashMap<String, BTreeSet<String>>, key: &str, item: &str) {
    if let Some(items) = map.get_mut(key) {
        items.remove(item);
        if items.is_empty() {
            map.remove(key);
        }
    }
}

fn keys(namespace: &str, names: BTreeSet<String>) -> Vec<Key> {
    names.into_iter().map(|name| Key { namespace: namespace.to_owned(), name }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
