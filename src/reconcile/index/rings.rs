//! Rings of values: objects of which each takes its value from the target of the next, and the last from the first's.
//!
//! In such a ring every value is passed on for ever. So no member of one follows its source, until the ring is broken.

use std::collections::BTreeSet;

use super::Site;
use crate::{
    api::{keys::ANNO_OWNER, types::Delivery},
    reconcile::view::Own,
};

/// Members after which a ring is not looked for any further. A longer one is not found; it turns slowly, for new values
/// from a source are paced.
const MAX_RING: usize = 256;

impl Site {
    /// The ring that an object is a member of, beginning with it; empty where there is none. Each takes its value from
    /// the target of the one that follows.
    pub(super) fn ring(&self, own: &Own) -> Vec<String> {
        let mut ring = vec![own.name.clone()];
        let mut member = own;
        while ring.len() <= MAX_RING {
            match self.upstream(member) {
                Some(upstream) if upstream.name == own.name => return ring,
                Some(upstream) => {
                    ring.push(upstream.name.clone());
                    member = upstream;
                }
                None => break,
            }
        }
        Vec::new()
    }

    /// Members of rings that objects of these names are in.
    pub(super) fn rings(&self, names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let members = names.into_iter().filter_map(|name| self.objects.get(&name)).flat_map(|own| self.ring(own));
        members.collect()
    }

    /// The object that delivers what this one takes its value from.
    fn upstream(&self, own: &Own) -> Option<&Own> {
        let reference = &own.spec.value_from.as_ref()?.secret_key_ref;
        let delivers = |name: &String| {
            let peer = self.objects.get(name)?;
            let spec = &peer.spec;
            let there = spec.delivery() == Delivery::Secret
                && spec.target_name(&peer.name) == reference.name
                && spec.target_key() == reference.key;
            // One that writes nothing passes nothing on.
            (there && !peer.deleting && !spec.suspended() && peer.violations.is_empty()).then_some(peer)
        };
        if let Some(entry) = self.secrets.get(&reference.name) {
            return entry.view.annotation(ANNO_OWNER).map(str::to_owned).as_ref().and_then(delivers);
        }
        // A Secret that exists and is not ours is nobody's target. One that does not exist yet will be somebody's.
        let absent = self.sources.synced && !self.sources.versions.contains_key(&reference.name);
        if absent { self.wanting(&reference.name).find_map(delivers) } else { None }
    }
}
