//! Rings of values: objects of which each takes its value from the target of the next, and the last from the first's.
//!
//! In such a ring every value is passed on for ever. So no member of one follows its source, until the ring is broken.

use std::collections::BTreeSet;

use managed_secrets_api::types::Delivery;

use super::{
    Name,
    namespace::{NamespaceIndex, Place},
};
use crate::controller::view::Own;

/// Members after which a ring is not looked for any further. A longer one is not found; it turns slowly, for new values
/// from a source are paced.
const MAX_RING: usize = 256;

impl NamespaceIndex {
    /// The ring that an object is a member of, beginning with it; empty where there is none. Each takes its value from
    /// the target of the one that follows.
    pub(super) fn ring(&self, own: &Own) -> Vec<String> {
        let mut ring = vec![own.name.clone()];
        let mut upstream = self.upstream(own);
        while let Some(member) = upstream.filter(|_| ring.len() <= MAX_RING) {
            if member.name == own.name {
                return ring;
            }
            upstream = self.upstream(&member);
            ring.push(member.name);
        }
        Vec::new()
    }

    /// Members of rings that objects of these names are in.
    pub(super) fn rings(&self, names: impl IntoIterator<Item = Name>) -> BTreeSet<Name> {
        let members = names.into_iter().filter_map(|name| self.object(&name)).flat_map(|own| self.ring(&own));
        members.map(|name| self.name(&name)).collect()
    }

    /// The object that delivers what this one takes its value from.
    fn upstream(&self, own: &Own) -> Option<Own> {
        let reference = &own.spec.value_from.as_ref()?.secret_key_ref;
        let place = Place::new(Name::from(&*reference.name), &reference.key);
        if self.secrets.contains_key(&*reference.name) {
            let owner = self.owner_of(&reference.name)?;
            return delivery(&owner)
                .is_some_and(|delivered| delivered == (&*reference.name, &*reference.key))
                .then_some(owner);
        }
        // A Secret that exists and is not ours is not a target. One that does not exist yet will be the target of the
        // first object that delivers there.
        let absent = self.sources.synced && !self.sources.versions.contains_key(&reference.name);
        let first = self.by_delivery.get(&place).filter(|_| absent)?.iter().next()?;
        self.object(&first.object)
    }
}

/// The Secret and the key that an object delivers its value under; nothing where it writes nothing, for then it passes
/// nothing on.
pub(super) fn delivery(own: &Own) -> Option<(&str, &str)> {
    let spec = &own.spec;
    let delivers = spec.delivery() == Delivery::Secret && !own.deleting && !spec.suspended() && own.violation.is_none();
    delivers.then(|| (spec.target_name(&own.name), spec.target_key()))
}
