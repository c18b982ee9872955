//! A target that tells the id of its object before status does.
//!
//! An operator that takes over can be behind: its watches do not show the record that another one has written a moment ago.
//! If the object was renamed meanwhile, no name tells of that record either, and it gives the object a second id. The target
//! has one name for both, and its owner reference proves which object it was made for: the id that it carries stays. Pure.

use super::super::super::{
    facts::Facts,
    view::{Own, SecretView},
};

/// After so many passes that failed, each with a longer delay before the next, every watch has shown what was written before.
const PASSES_UNTIL_HEARD: u32 = 4;

/// Whether the operator made a Secret for this very object.
pub(super) fn is_made_for(own: &Own, view: &SecretView) -> bool {
    view.owners.iter().any(|owner| owner.uid == own.uid) && view.ours.owner_uids.contains(&own.uid)
}

/// The id that the target carries, if it was made for this very object.
pub(in super::super) fn id(facts: &Facts) -> Option<&str> {
    let own = &facts.snapshot.own;
    facts.present(own.spec.target_name(&own.name)).filter(|seen| is_made_for(own, &seen.view))?.view.id()
}

/// Whether the target tells of a record that the caches do not show yet: it carries another id than `ours`, and status says
/// none. After some passes, that record counts as lost.
pub(super) fn has_record(facts: &Facts, ours: &str) -> bool {
    facts.snapshot.own.status.id.is_none()
        && facts.snapshot.failures < PASSES_UNTIL_HEARD
        && id(facts).is_some_and(|delivered| delivered != ours)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::{
        super::super::{
            super::{
                facts::{Known, Seen},
                plan::Need,
                record::Authenticity,
            },
            testing::{ID, facts, labelled, owned_by},
        },
        super::Wanted,
        *,
    };

    fn target_of(id: &str, uid: &str, made: bool) -> Seen {
        let mut view = labelled(id, "db");
        view.owners = owned_by("db", uid).owners;
        view.ours.owner_uids = if made { [uid.to_owned()].into() } else { [].into() };
        Seen { view, authenticity: Authenticity::NotARecord, live: true }
    }

    #[test]
    fn an_id_that_the_target_tells_is_waited_for_a_few_passes() {
        let decided = |status, seen: Seen, failures| {
            let mut facts = facts(&status);
            facts.snapshot.failures = failures;
            facts.snapshot.secrets.insert("db".to_owned(), Known::Present(Box::new(seen)));
            let wanted = Wanted { previous: None, values: &|| panic!("no value is compared") };
            let decided = super::super::decide(&facts, ID, None, wanted);
            matches!(decided, Err(Need::Retry))
        };
        let none = || json!({});
        assert!(decided(none(), target_of("id-2", "uid-db", true), 0));
        assert!(decided(none(), target_of("id-2", "uid-db", true), PASSES_UNTIL_HEARD - 1));
        assert!(!decided(none(), target_of("id-2", "uid-db", true), PASSES_UNTIL_HEARD), "its record was lost");
        assert!(!decided(none(), target_of(ID, "uid-db", true), 0), "it is our own");
        assert!(!decided(none(), target_of("id-2", "uid-db", false), 0), "a user copied the owner reference");
        assert!(!decided(none(), target_of("id-2", "uid-old", true), 0), "it belongs to a deleted object");
        assert!(!decided(json!({"id": ID}), target_of("id-2", "uid-db", true), 0), "status says the id");
    }
}
