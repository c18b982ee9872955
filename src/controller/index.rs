//! The cache: what the watches have shown, arranged so that one reconcile looks up only what concerns it, and one event
//! wakes only whom it concerns.
//!
//! In: events of the watches, and what the API server answered to live reads and to our own writes (so that a pass never
//! acts on a state older than its own last write). Out: a [`Cached`] for a pass; names to wake for an event. Pure: no
//! client, no lock, and no clock but what is passed in. No value of any Secret ever comes here.
//!
//! Two rules keep it right and cheap:
//! * an answer never outlives a later event: calls are announced with [`Index::send`] (see the module `calls`);
//! * of many objects that want one name, one at a time is woken (see the module `line`), so that an event costs the same
//!   however many there are. [`Index::pass_on`] belongs to the end of every pass.

mod calls;
mod few;
mod kept;
mod line;
mod namespace;
mod rings;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use managed_secrets_api::{Reason, keys::ANNO_OWNER, names::record_name};
use managed_secrets_crypto::KeyId;
use managed_secrets_engine::queue::{Grouped, Priority};

pub(crate) use self::calls::Sent;
use self::{
    calls::{Calls, Kind},
    few::Few,
    kept::{Entry, Said, word},
    namespace::{Buried, NamespaceIndex, secrets_of},
};
use super::{
    facts::{Cached, SourceSeen},
    view::{Own, SecretView, packed::Packed},
};

/// For how long our own write is believed although no watch has shown it. Afterwards a live read decides: a watch may
/// be stuck, and after a restore of etcd versions go backwards.
pub(crate) const UNCONFIRMED_FOR: Duration = Duration::from_secs(5);

/// The name of an object or of a namespace. Clones share its memory.
pub(crate) type Name = Arc<str>;

/// Namespace and `metadata.name` of a ManagedSecret.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Namespace.
    pub namespace: Name,
    /// `metadata.name`.
    pub name: Name,
}

/// Namespaces take turns: what one of them has waiting does not delay what is as urgent in another.
impl Grouped for Key {
    type Group = Name;

    fn group(&self) -> &Name {
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

/// All namespaces.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashMap<Name, NamespaceIndex>,
    calls: Calls,
}

impl Index {
    /// What a pass starts from; `None` where there is no such object.
    #[must_use]
    pub fn snapshot(&self, key: &Key, now: Instant) -> Option<Cached> {
        let ns = self.namespaces.get(&key.namespace)?;
        let own = ns.object(&key.name)?;
        let concerning = secrets_of(&own);
        let mut names: BTreeSet<&str> = concerning.iter().map(|name| &**name).collect();
        names.extend(ns.others_of(&own).into_iter().map(|name| &**name));
        let entries: Vec<Entry> = names
            .into_iter()
            .filter_map(|name| ns.secret(name))
            .filter(|entry| entry.unconfirmed.is_none_or(|since| now.duration_since(since) < UNCONFIRMED_FOR))
            .collect();
        let peers = ns.peers(&own, &entries);
        let type_of = |entry: &Entry| Some((entry.view.uid.clone(), entry.type_.clone()?.into_owned()));
        let types = entries.iter().filter_map(type_of).collect();
        let secrets = entries.into_iter().map(|entry| entry.view).collect();
        let source = match &own.spec.value_from {
            None => SourceSeen::NotWanted,
            Some(_) if !ns.sources.synced => SourceSeen::Unsynced,
            Some(from) => match ns.sources.versions.get(&from.secret_key_ref.name) {
                None => SourceSeen::Absent,
                Some((uid, version)) => SourceSeen::Present { uid: uid.clone(), resource_version: version.clone() },
            },
        };
        Some(Cached { own, secrets, types, source, peers })
    }

    /// How urgently a user waits for an object, whose spec is newer than its status says; `None` if none does.
    #[must_use]
    pub fn urgency(&self, key: &Key) -> Option<Priority> {
        self.namespaces.get(&key.namespace)?.objects.get(&key.name)?.urgency
    }

    /// Whom the name `name` belongs to, if not to the object `asking`: its record's owner, else one that wants it too.
    #[must_use]
    pub fn holder_of_name(&self, namespace: &str, name: &str, asking: &str) -> Option<Holder> {
        let ns = self.namespaces.get(namespace)?;
        let record = record_name(name);
        match ns.secret(&record).map(|mut entry| entry.view.annotations.remove(ANNO_OWNER).unwrap_or_default()) {
            Some(owner) if owner == asking => None,
            Some(owner) if ns.objects.contains_key(&*owner) => Some(Holder::Object(owner)),
            Some(_) => Some(Holder::Secret(record)),
            None => ns.first_for_name(name, asking).map(|own| Holder::Object(own.name)),
        }
    }

    /// Whom a delivered Secret belongs to, if not to the object `asking`.
    #[must_use]
    pub fn holder_of_target(&self, namespace: &str, secret: &str, asking: &str) -> Option<Holder> {
        let owner = self.namespaces.get(namespace)?.secret(secret)?.view.annotations.remove(ANNO_OWNER)?;
        (owner != asking).then_some(Holder::Object(owner))
    }

    /// Whether a Secret that a value could be taken from is known not to exist.
    #[must_use]
    pub fn lacks_source(&self, namespace: &str, secret: &str) -> bool {
        let sources = self.namespaces.get(namespace).map(|ns| &ns.sources);
        sources.is_some_and(|sources| sources.synced && !sources.versions.contains_key(secret))
    }

    /// The names of the Secrets that are labelled and named as records with this id.
    #[must_use]
    pub fn records(&self, namespace: &str, id: &str) -> Vec<String> {
        let records = self.namespaces.get(namespace).and_then(|ns| ns.by_id.get(&id.parse().ok()?));
        records.into_iter().flat_map(Few::iter).map(|name| (**name).to_owned()).collect()
    }

    /// An object by its `metadata.name`.
    #[must_use]
    pub fn object(&self, namespace: &str, name: &str) -> Option<Own> {
        self.namespaces.get(namespace)?.object(name)
    }

    /// Every object.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.namespaces.values().flat_map(|ns| ns.keys(ns.objects.keys().map(Name::clone)))
    }

    /// How many objects have each reason of their `Ready` condition, and how many have one that this version does not know.
    /// Objects without the condition are not counted.
    #[must_use]
    pub fn reasons(&self) -> (BTreeMap<Reason, usize>, usize) {
        let (mut known, mut unknown) = (BTreeMap::new(), 0);
        for said in self.namespaces.values().flat_map(|ns| ns.objects.values()).filter_map(|own| own.ready) {
            match said {
                Said::Known(reason) => *known.entry(reason).or_default() += 1,
                Said::Unknown => unknown += 1,
            }
        }
        (known, unknown)
    }

    /// How many sealed values name each sealing key. Users can name any key, so there are at most as many as objects.
    #[must_use]
    pub fn sealed(&self) -> BTreeMap<KeyId, usize> {
        let mut keys = BTreeMap::new();
        for own in self.namespaces.values().flat_map(|ns| ns.objects.values()) {
            if let Some(key) = own.packed.sealed_for() {
                *keys.entry(key).or_default() += 1;
            }
        }
        keys
    }

    /// How many objects have each reason of the `Expiring` condition.
    #[must_use]
    pub fn expiring(&self) -> [(Reason, usize); 2] {
        let objects = || self.namespaces.values().flat_map(|ns| ns.objects.values());
        Reason::OF_EXPIRY.map(|reason| (reason, objects().filter(|own| own.expiring == Some(reason)).count()))
    }

    /// How many objects have `spec.version`; while it is set, new values are stored and not delivered.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.namespaces.values().flat_map(|ns| ns.objects.values()).filter(|own| own.pinned).count()
    }

    /// Namespaces in which some object has a `valueFrom`.
    pub fn source_namespaces(&self) -> impl Iterator<Item = &Name> {
        self.namespaces.iter().filter(|(_, ns)| !ns.by_source.is_empty()).map(|(namespace, _)| namespace)
    }

    /// Announces a call whose answer will be put in here, about the Secret or ManagedSecret `name`.
    pub fn send(&mut self, namespace: &str, name: &str) -> Sent {
        let entry = self.namespaces.get(namespace).and_then(|ns| ns.secret(name));
        let shown = entry.map(|entry| (entry.view.uid, entry.view.resource_version));
        self.calls.send(shown)
    }

    /// A call was answered, or given up. Every [`Sent`] comes back here.
    pub fn answered(&mut self, sent: Sent) {
        self.calls.answered(sent);
    }

    /// A pass of this object is over, however it ended. Returns whom to wake: if a name became free, and this object had
    /// the turn to take it, the next one that wants it.
    pub fn pass_on(&mut self, key: &Key) -> Vec<Key> {
        let Some(ns) = self.namespaces.get_mut(&key.namespace) else { return Vec::new() };
        let next = ns.pass_on(&key.name);
        ns.keys(next)
    }

    /// An object as a watch shows it. Returns whom to wake.
    pub fn put_object(&mut self, own: Own) -> Vec<Key> {
        let ns = self.namespaces.get(&*own.namespace);
        let before = ns.and_then(|ns| ns.object(&own.name));
        // Whatever its uid: the versions of one kind are of one sequence, and an older event may come late.
        if before.as_ref().is_some_and(|before| !is_newer(&own.resource_version, &before.resource_version)) {
            return Vec::new();
        }
        let own = own.kept();
        let packed = Packed::new(&own);
        self.set_object(before.as_ref(), &own, packed)
    }

    /// An object as it came back from our own write of its status. Returns whom to wake.
    pub fn put_described(&mut self, own: Own, sent: &Sent) -> Vec<Key> {
        let key = Key { namespace: own.namespace.as_str().into(), name: own.name.as_str().into() };
        if self.calls.is_outdated(sent, Kind::Object, &key, &own.resource_version) {
            return Vec::new();
        }
        self.put_object(own)
    }

    fn set_object(&mut self, before: Option<&Own>, own: &Own, packed: Packed<Own>) -> Vec<Key> {
        let ns = self.namespace(&own.namespace);
        let mut wake = ns.change_object(before, Some((own, packed)));
        wake.insert(ns.name(&own.name));
        ns.keys(wake)
    }

    /// An object is gone.
    pub fn remove_object(&mut self, namespace: &str, name: &str, uid: Option<&str>) -> Vec<Key> {
        self.calls.ended(Kind::Object, Key { namespace: namespace.into(), name: name.into() }, None);
        let Some(ns) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        let Some(before) = ns.object(name).filter(|before| uid.is_none_or(|uid| uid == before.uid)) else {
            return Vec::new();
        };
        let mut wake = ns.change_object(Some(&before), None);
        wake.insert(ns.name(name));
        let wake = ns.keys(wake);
        self.drop_if_empty(namespace);
        wake
    }

    /// A labelled Secret as a watch or a live read shows it (`written` absent), or as it came back from our own write.
    /// Returns whom to wake, but not who wrote it.
    pub fn put_secret(&mut self, namespace: &str, view: SecretView, written: Option<Instant>) -> Vec<Key> {
        let mut view = view.kept();
        let ns = self.namespace(namespace);
        let before = ns.secret(&view.name);
        let known_type = before.as_ref().filter(|before| before.view.uid == view.uid);
        let known_type = known_type.and_then(|before| before.type_.clone());
        let type_ = view.type_.take().map(|type_| word(&type_)).or(known_type);
        if ns
            .buried
            .get(&view.name)
            .is_some_and(|dead| dead.uid == view.uid && !is_newer(&view.resource_version, &dead.resource_version))
        {
            return Vec::new();
        }
        if let Some(before) = &before
            && !is_newer(&view.resource_version, &before.view.resource_version)
        {
            if before.view.uid == view.uid
                && before.view.resource_version == view.resource_version
                && let Some(kept) = ns.secrets.get_mut(&*view.name)
            {
                kept.type_ = type_;
                if written.is_none() && kept.unconfirmed.take().is_some() {
                    // Nothing new to its owner, who wrote it; but a ring of values may be closed by it.
                    return ns.keys(ns.rings(ns.owners(&view)));
                }
            }
            return Vec::new();
        }
        ns.buried.remove(&view.name);
        let writers = if written.is_some() { ns.owners(&view) } else { BTreeSet::new() };
        let mut wake = ns.change_secret(before.as_ref(), Some(Entry::new(view, written, type_)));
        wake.retain(|name| !writers.contains(name));
        ns.keys(wake)
    }

    /// A labelled Secret as it came back from our own write. Returns whom to wake, but not who wrote it.
    pub fn put_written(&mut self, namespace: &str, view: SecretView, sent: &Sent, now: Instant) -> Vec<Key> {
        if self.is_outdated(namespace, &view, sent) {
            return Vec::new();
        }
        self.put_secret(namespace, view, Some(now))
    }

    /// What a live read of the Secret `name` found: `None` where there is no labelled Secret of that name. Returns whom to
    /// wake.
    pub fn learn(&mut self, namespace: &str, name: &str, found: Option<SecretView>, sent: &Sent) -> Vec<Key> {
        if let Some(view) = found {
            if !self.is_outdated(namespace, &view, sent) {
                return self.put_secret(namespace, view, None);
            }
            let kept = self.namespaces.get_mut(namespace).and_then(|ns| ns.secrets.get_mut(name));
            if let Some(kept) = kept.filter(|kept| kept.packed.get().uid == view.uid) {
                kept.type_ = view.kept().type_.map(|type_| word(&type_));
            }
            return Vec::new();
        }
        // Only the cache shows it, and did so before the read began.
        let Some(ns) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        let same = |entry: &Entry| sent.showed(&entry.view.uid, &entry.view.resource_version);
        let Some(ghost) = ns.secret(name).filter(same) else { return Vec::new() };
        let wake = ns.change_secret(Some(&ghost), None);
        let wake = ns.keys(wake);
        self.drop_if_empty(namespace);
        wake
    }

    /// Everything that the cache shows: objects and Secrets, with their versions.
    #[cfg(test)]
    pub(super) fn contents(&self) -> [BTreeSet<(String, String)>; 2] {
        let namespaces = || self.namespaces.values();
        let objects = namespaces().flat_map(|ns| ns.objects.values());
        let secrets = namespaces().flat_map(|ns| ns.secrets.values());
        [
            objects.map(|own| own.packed.get()).map(|own| (own.name, own.resource_version)).collect(),
            secrets.map(|secret| secret.packed.get()).map(|view| (view.name, view.resource_version)).collect(),
        ]
    }

    fn is_outdated(&self, namespace: &str, view: &SecretView, sent: &Sent) -> bool {
        let key = Key { namespace: namespace.into(), name: view.name.as_str().into() };
        self.calls.is_outdated(sent, Kind::Secret, &key, &view.resource_version)
    }

    /// A labelled Secret is gone, or has lost its label. Wakes also where it was known already, for our own deletion
    /// frees a name that others wait for.
    pub fn remove_secret(&mut self, namespace: &str, view: &SecretView) -> Vec<Key> {
        let key = Key { namespace: namespace.into(), name: view.name.as_str().into() };
        self.calls.ended(Kind::Secret, key, Some(&view.resource_version));
        let Some(ns) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        ns.buried.remove(&view.name);
        let mut wake = ns.concerned(view);
        match ns.ended(view) {
            Some(before) => wake.extend(ns.change_secret(Some(&before), None)),
            None if ns.secrets.contains_key(&*view.name) => {}
            None => ns.start_line(&view.name, &mut wake),
        }
        let wake = ns.keys(wake);
        self.drop_if_empty(namespace);
        wake
    }

    /// We deleted a Secret: until its end is seen, no event from before may bring it back. Returns whom to wake.
    ///
    /// Where the watch has shown the end before our answer came, there is nothing to keep out any more.
    pub fn bury(&mut self, namespace: &str, view: &SecretView) -> Vec<Key> {
        let Some(ns) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        let Some(before) = ns.ended(view) else { return Vec::new() };
        let wake = ns.change_secret(Some(&before), None);
        ns.buried.insert(view.name.clone(), Buried::of(view));
        ns.keys(wake)
    }

    fn namespace(&mut self, name: &str) -> &mut NamespaceIndex {
        let name = self.namespaces.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Name::clone(name));
        self.namespaces.entry(name).or_insert_with_key(|name| NamespaceIndex::new(Name::clone(name)))
    }

    /// Namespaces come and go; what is left of one is nothing. What a watch on its sources has listed stays until that
    /// watch ends, for it will not list again.
    fn drop_if_empty(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(NamespaceIndex::is_empty) {
            self.namespaces.remove(namespace);
        }
    }

    /// Packs an object that a list shows, for [`Index::replace_objects`]. Where it is as it was known, that memory is
    /// shared, so that a new list of what is known already takes little.
    #[must_use]
    pub(crate) fn pack_object(&self, own: Own) -> Packed<Own> {
        let own = own.kept();
        let packed = Packed::new(&own);
        let known = self.namespaces.get(&*own.namespace).and_then(|ns| ns.objects.get(&*own.name));
        known.map(|known| &known.packed).filter(|known| **known == packed).cloned().unwrap_or(packed)
    }

    /// Packs a Secret that a list shows, for [`Index::replace_secrets`].
    #[must_use]
    pub(crate) fn pack_secret(&self, namespace: &str, view: SecretView) -> Packed<SecretView> {
        let view = view.kept();
        let packed = Packed::new(&view);
        let known = self.namespaces.get(namespace).and_then(|ns| ns.secrets.get(&*view.name));
        known.map(|known| &known.packed).filter(|known| **known == packed).cloned().unwrap_or(packed)
    }

    /// A list of objects is complete: what it shows replaces all that was known, also newer versions, for a list after
    /// a restore of etcd shows older ones. Returns those that are new or changed, or whom a vanished one concerns.
    pub(crate) fn replace_objects(&mut self, namespace: Option<&str>, listed: Vec<Packed<Own>>) -> Vec<Key> {
        self.calls.listed(Kind::Object, namespace);
        let mut gone: HashSet<Key> =
            self.keys().filter(|key| namespace.is_none_or(|namespace| *namespace == *key.namespace)).collect();
        let mut wake = Vec::new();
        for packed in listed {
            let own = packed.get();
            let before = self.namespaces.get(&*own.namespace).and_then(|ns| ns.object(&own.name));
            if before.is_some() {
                gone.remove(&Key { namespace: own.namespace.as_str().into(), name: own.name.as_str().into() });
            }
            let same = |before: &Own| before.uid == own.uid && before.resource_version == own.resource_version;
            if !before.as_ref().is_some_and(same) {
                wake.extend(self.set_object(before.as_ref(), &own, packed));
            }
        }
        for key in gone {
            wake.extend(self.remove_object(&key.namespace, &key.name, None));
        }
        wake
    }

    /// A list of labelled Secrets is complete: what it shows replaces all that was known, also newer versions, for a
    /// list after a restore of etcd shows older ones.
    pub(crate) fn replace_secrets(
        &mut self,
        namespace: Option<&str>,
        listed: Vec<(String, Packed<SecretView>)>,
    ) -> Vec<Key> {
        self.calls.listed(Kind::Secret, namespace);
        let mut gone: HashSet<(Name, Name)> = HashSet::new();
        for ns in self.namespaces.values_mut().filter(|ns| namespace.is_none_or(|only| *only == *ns.name)) {
            ns.buried.clear();
            gone.extend(ns.secrets.keys().map(|secret| (Name::clone(&ns.name), Name::clone(secret))));
        }
        let mut wake = Vec::new();
        for (namespace, packed) in listed {
            let view = packed.get();
            let ns = self.namespace(&namespace);
            let before = ns.secret(&view.name);
            if before.is_some() {
                gone.remove(&(Name::clone(&ns.name), ns.name(&view.name)));
            }
            let known = before.as_ref().filter(|before| before.view.uid == view.uid);
            let same = known.is_some_and(|known| known.view.resource_version == view.resource_version);
            let type_ = known.and_then(|known| known.type_.clone());
            let concerned = ns.change_secret(before.as_ref(), Some(Entry::listed(view, packed, type_)));
            if !same {
                wake.extend(ns.keys(concerned));
            }
        }
        for (namespace, secret) in gone {
            let Some(ns) = self.namespaces.get_mut(&namespace) else { continue };
            let before = ns.secret(&secret);
            let concerned = ns.change_secret(before.as_ref(), None);
            wake.extend(ns.keys(concerned));
            self.drop_if_empty(&namespace);
        }
        wake
    }

    /// A source Secret as the watch on its namespace shows it.
    pub fn put_source(&mut self, namespace: &str, name: &str, uid: String, resource_version: String) -> Vec<Key> {
        let ns = self.namespace(namespace);
        let version = (uid, resource_version);
        let before = ns.sources.versions.insert(name.to_owned(), version.clone());
        if before == Some(version) || !ns.sources.synced {
            return Vec::new();
        }
        ns.keys(ns.following(name))
    }

    /// A source Secret is gone.
    pub fn remove_source(&mut self, namespace: &str, name: &str) -> Vec<Key> {
        let Some(ns) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        ns.sources.versions.remove(name);
        ns.keys(ns.following(name))
    }

    /// A list of source Secrets is complete.
    pub fn replace_sources(&mut self, namespace: &str, listed: HashMap<String, (String, String)>) -> Vec<Key> {
        let ns = self.namespace(namespace);
        let first = !std::mem::replace(&mut ns.sources.synced, true);
        let before = std::mem::replace(&mut ns.sources.versions, listed);
        let moved = ns.by_source.iter().filter(|(source, _)| {
            let version_in = |versions: &HashMap<_, _>| versions.get(&***source).cloned();
            first || version_in(&before) != version_in(&ns.sources.versions)
        });
        let objects: BTreeSet<Name> = moved.flat_map(|(_, objects)| objects.iter().map(Name::clone)).collect();
        ns.keys(objects)
    }

    /// The watch on a namespace's sources has ended.
    pub fn forget_sources(&mut self, namespace: &str) {
        if let Some(ns) = self.namespaces.get_mut(namespace) {
            ns.sources = namespace::Sources::default();
        }
        self.drop_if_empty(namespace);
    }
}

/// Versions are comparable numbers since Kubernetes 1.35, and were before, undocumented. Where they are not numbers,
/// whatever comes later is newer.
fn is_newer(new: &str, old: &str) -> bool {
    match (new.parse::<u64>(), old.parse::<u64>()) {
        (Ok(new), Ok(old)) => new > old,
        _ => new != old,
    }
}

/// A number as `new` is greater than `old`.
fn is_surely_newer(new: &str, old: &str) -> bool {
    matches!((new.parse::<u64>(), old.parse::<u64>()), (Ok(new), Ok(old)) if new > old)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
