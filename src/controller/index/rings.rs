//! Rings of values: objects of which each takes its value from the target of the next, and the last from the first's.
//!
//! In such a ring every value is passed on for ever. So no member of one follows its source, until the ring is broken.

use std::collections::BTreeSet;

use managed_secrets_api::types::Delivery;

use super::{
    Name,
    line::{Claim, Rank},
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
        let source = self.source(own);
        let Some(others) = self.others_in_ring(&own.name, source.as_ref()) else { return Vec::new() };
        let others = others.into_iter().map(|name| (**name).to_owned());
        [own.name.clone()].into_iter().chain(others).collect()
    }

    /// Members of rings that objects of these names are in.
    pub(super) fn rings(&self, names: impl IntoIterator<Item = Name>) -> BTreeSet<Name> {
        let mut members = BTreeSet::new();
        for name in names {
            let source = self.objects.get(&name).and_then(|kept| kept.source.as_deref());
            if let Some(others) = self.others_in_ring(&name, source) {
                members.extend(others.into_iter().map(Name::clone));
                members.insert(name);
            }
        }
        members
    }

    /// What an object takes its value from.
    pub(super) fn source(&self, own: &Own) -> Option<Place> {
        let reference = &own.spec.value_from.as_ref()?.secret_key_ref;
        Some(Place::new(self.name(&reference.name), &reference.key))
    }

    /// The other members of the ring of an object that takes its value from `source`, if it is in one. A user can make long
    /// chains that are no rings, so a step unpacks nothing.
    fn others_in_ring<'n>(&'n self, name: &str, mut source: Option<&'n Place>) -> Option<Vec<&'n Name>> {
        let mut others = Vec::new();
        while others.len() < MAX_RING {
            let member = self.upstream(source?)?;
            if **member == *name {
                return Some(others);
            }
            others.push(member);
            source = self.objects.get(member).and_then(|kept| kept.source.as_deref());
        }
        None
    }

    /// The object that delivers at this place.
    fn upstream(&self, place: &Place) -> Option<&Name> {
        if let Some(secret) = self.secrets.get(&place.secret) {
            let (owner, _) = self.objects.get_key_value(secret.owner.as_ref()?)?;
            return self.delivers(owner, place).then_some(owner);
        }
        // A Secret that exists and is not ours is not a target. One that does not exist yet will be the target of the
        // first object that delivers there.
        let absent = self.sources.synced && !self.sources.versions.contains_key(&*place.secret);
        let first = self.by_delivery.get(place).filter(|_| absent)?.iter().next()?;
        self.objects.get_key_value(&first.object).map(|(name, _)| name)
    }

    fn delivers(&self, object: &Name, place: &Place) -> bool {
        let Some(claims) = self.by_delivery.get(place) else { return false };
        let claims_as = |rank| claims.contains(&Claim { rank, object: Name::clone(object) });
        claims_as(Rank::Holds) || claims_as(Rank::Wants)
    }
}

/// The Secret that an object delivers its value in, and the keys, those of its template too; nothing where it writes
/// nothing, for then it passes nothing on.
pub(super) fn delivery(own: &Own) -> Option<(&str, BTreeSet<&str>)> {
    let spec = &own.spec;
    let delivers = spec.delivery() == Delivery::Secret && !own.deleting && !spec.suspended() && own.violation.is_none();
    delivers.then(|| (spec.target_name(&own.name), own.data_keys()))
}
