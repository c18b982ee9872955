//! Whose a record is.
//!
//! A record is ours if its metadata is authentic and was made for our uid; or, without owner references, for our name
//! with our id; or by take-over. Everything else belongs to another object, or is forged, and is never written.

use managed_secrets_api::{Reason, keys::TYPE_RECORD, record::Misfit};

use super::super::{
    facts::{Facts, Seen},
    plan::Problem,
    record::Authenticity,
};

/// Whose a record is.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Claim {
    /// Made for our uid.
    Ours,
    /// Made for our name and id under another uid, without owner: restored from a backup. Sealed again when written.
    Restored,
    /// Retained by a deleted ManagedSecret of our name, with the same name and target: taken over, sealed again.
    TakeOver,
    /// Its owner is gone and Kubernetes collects it.
    Dying,
    /// Not ours; the problem says whose, and how to go on.
    NotOurs(Problem),
    /// It claims to be ours and is not authentic.
    Refused(Problem),
}

/// Judges a Secret at a record's place.
#[allow(clippy::too_many_lines, reason = "one arm for each rule, in their order")]
pub(super) fn claim(facts: &Facts, seen: &Seen) -> Claim {
    let own = &facts.snapshot.own;
    let view = &seen.view;
    // By name, not by uid: a record that was put back from elsewhere is another object in the same place.
    let in_status = own.status.record.as_ref().is_some_and(|record| record.name == view.name);
    let in_use = |message: String| Claim::NotOurs(Problem::new(Reason::NameInUse, message));
    let meta = match &seen.authenticity {
        Authenticity::NotARecord if in_status && view.type_.as_deref() == Some(TYPE_RECORD) => {
            let message = format!(
                "record {} does not have its metadata any more: restore it from a backup, or delete it",
                view.name
            );
            return Claim::Refused(Problem::new(Reason::RecordTampered, message));
        }
        Authenticity::NotARecord => {
            return in_use(format!(
                "Secret {} has the name that the record of spec.name needs, and is not a record: delete it",
                view.name
            ));
        }
        Authenticity::Forged { claimed_uid } if claimed_uid.as_ref() == Some(&own.uid) => {
            let message = format!(
                "record {} has metadata that the operator did not write: restore it from a backup, or delete it",
                view.name
            );
            return Claim::Refused(Problem::new(Reason::RecordTampered, message));
        }
        Authenticity::Forged { claimed_uid } if in_status => {
            let (reason, what) = match claimed_uid {
                Some(_) => (Reason::RecordMoved, "belongs to another object"),
                None => (Reason::RecordTampered, "does not have its metadata any more"),
            };
            let message = format!("record {} {what}: restore it from a backup, or delete it", view.name);
            return Claim::Refused(Problem::new(reason, message));
        }
        Authenticity::Forged { .. } => {
            return in_use(format!(
                "Secret {} holds the name, and its metadata cannot be verified: delete it if you do not need it",
                view.name
            ));
        }
        Authenticity::SeedUnknown { seed, claimed_uid } => {
            let message = format!(
                "record {} is encrypted with seed {seed}, which the keyring does not have: restore that keyring, or, if it \
                 is permanently lost, delete the record (kubectl -n {} delete secret {})",
                view.name, own.namespace, view.name
            );
            let problem = Problem::new(Reason::SeedUnknown, message);
            return if in_status || *claimed_uid == own.uid {
                Claim::Refused(problem)
            } else {
                Claim::NotOurs(problem)
            };
        }
        Authenticity::Valid { .. } if view.type_.as_deref().is_some_and(|type_| type_ != TYPE_RECORD) => {
            let message = format!(
                "record {} was copied into a Secret of another type: delete it, or restore it from a backup",
                view.name
            );
            let problem = Problem::new(Reason::RecordTampered, message);
            return if in_status { Claim::Refused(problem) } else { Claim::NotOurs(problem) };
        }
        Authenticity::Valid { meta, .. } => meta,
    };
    let fits = meta.fits(&own.name, &own.spec);
    if fits == Err(Misfit::Owner) {
        return in_use(if view.owners.is_empty() && !facts.snapshot.peers.living.contains(&meta.uid) {
            format!(
                "the name {} is held by Secret {}, retained from ManagedSecret {}: apply that ManagedSecret again, or delete the Secret",
                meta.name, view.name, meta.owner
            )
        } else {
            format!("the name {} is held by ManagedSecret {}", meta.name, meta.owner)
        });
    }
    if view.is_dying(&own.name, &own.uid) {
        return Claim::Dying;
    }
    let tampered =
        |what: &str| Claim::Refused(Problem::new(Reason::RecordTampered, format!("record {} {what}", view.name)));
    let other_id = own.status.id.as_ref().is_some_and(|id| *id != meta.id);
    if meta.uid == own.uid {
        return if other_id { tampered("has an id that differs from status.id") } else { Claim::Ours };
    }
    if !view.owners.is_empty() {
        return tampered("was written for a uid that is not its owner's");
    }
    if own.status.id.as_ref() == Some(&meta.id) {
        return Claim::Restored;
    }
    let retained = |why: &str| {
        in_use(format!(
            "the name {} is held by Secret {}, retained from an earlier ManagedSecret of this name {why}, or delete the Secret",
            meta.name, view.name
        ))
    };
    if own.status.id.is_some() {
        return retained("with another id: rename this ManagedSecret");
    }
    match fits {
        Ok(()) => Claim::TakeOver,
        Err(Misfit::Target) => retained("with another target: apply its target again to take it over"),
        Err(Misfit::Name | Misfit::Owner) => retained("under another spec.name: apply that name again"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::record::Delivered;
    use serde_json::{Value, json};

    use super::{
        super::{
            super::{record::RecordMeta, view::SecretView},
            testing::{adopted, facts, forged, of_type, owned_by, unknown_seed, valid},
        },
        *,
    };

    /// The rule, the status, what the record proves, how it looks, the claim, and the reason where it is a problem.
    type Row = (&'static str, Value, Authenticity, SecretView, &'static str, Option<Reason>);

    #[test]
    #[allow(clippy::too_many_lines, reason = "a row for each rule")]
    fn each_rule_of_who_owns_a_record() {
        let nothing = || json!({});
        let has_id = |id: &str| json!({"id": id});
        let names_it = || json!({"record": {"name": "msec-db", "uid": "uid-record", "resourceVersion": "1"}});
        let plain = SecretView::default;
        let earlier = |meta: &mut RecordMeta| meta.uid = "uid-earlier".to_owned();
        let (in_use, tampered) = (Reason::NameInUse, Reason::RecordTampered);
        let rows: Vec<Row> = vec![
            ("ours: authentic, with our uid", nothing(), valid(|_| {}), owned_by("db", "uid-db"), "Ours", None),
            ("ours: retained ones have no owner reference", has_id("id-1"), valid(|_| {}), plain(), "Ours", None),
            ("status has another id", has_id("id-2"), valid(|_| {}), plain(), "Refused", Some(tampered)),
            ("restored: our id, an earlier uid, no owner", has_id("id-1"), valid(earlier), plain(), "Restored", None),
            ("taken over: our name and target, no owner", nothing(), valid(earlier), plain(), "TakeOver", None),
            (
                "taken over: it was delivered into an adopted Secret at the same place",
                nothing(),
                valid(|meta| {
                    earlier(meta);
                    meta.target = adopted("uid-secret");
                }),
                plain(),
                "TakeOver",
                None,
            ),
            (
                "not taken over: another target",
                nothing(),
                valid(|meta| {
                    earlier(meta);
                    meta.target = Delivered::Own { name: "elsewhere".to_owned(), key: "value".to_owned() };
                }),
                plain(),
                "NotOurs",
                Some(in_use),
            ),
            (
                "not taken over: another spec.name",
                nothing(),
                valid(|meta| {
                    earlier(meta);
                    meta.name = "OTHER".to_owned();
                }),
                plain(),
                "NotOurs",
                Some(in_use),
            ),
            ("not taken over: we have an id", has_id("id-2"), valid(earlier), plain(), "NotOurs", Some(in_use)),
            (
                "dying: its owner has our name and another uid",
                nothing(),
                valid(earlier),
                owned_by("db", "uid-earlier"),
                "Dying",
                None,
            ),
            (
                "another uid than its owner's",
                nothing(),
                valid(earlier),
                owned_by("x", "uid-x"),
                "Refused",
                Some(tampered),
            ),
            (
                "another ManagedSecret's",
                nothing(),
                valid(|meta| meta.owner = "other".to_owned()),
                plain(),
                "NotOurs",
                Some(in_use),
            ),
            ("ours, not authentic", nothing(), forged(Some("uid-db")), plain(), "Refused", Some(tampered)),
            (
                "in status, and another's",
                names_it(),
                forged(Some("uid-x")),
                plain(),
                "Refused",
                Some(Reason::RecordMoved),
            ),
            ("in status, without metadata", names_it(), forged(None), plain(), "Refused", Some(tampered)),
            ("not authentic, and not ours", nothing(), forged(Some("uid-x")), plain(), "NotOurs", Some(in_use)),
            (
                "ours, under an unknown seed",
                nothing(),
                unknown_seed("uid-db"),
                plain(),
                "Refused",
                Some(Reason::SeedUnknown),
            ),
            (
                "in status, under an unknown seed",
                names_it(),
                unknown_seed("uid-x"),
                plain(),
                "Refused",
                Some(Reason::SeedUnknown),
            ),
            (
                "another's, under an unknown seed",
                nothing(),
                unknown_seed("uid-x"),
                plain(),
                "NotOurs",
                Some(Reason::SeedUnknown),
            ),
            ("no record", nothing(), Authenticity::NotARecord, plain(), "NotOurs", Some(in_use)),
            (
                "in status, of a record's type, no metadata",
                names_it(),
                Authenticity::NotARecord,
                of_type(TYPE_RECORD),
                "Refused",
                Some(tampered),
            ),
            (
                "in status, no record, of another type",
                names_it(),
                Authenticity::NotARecord,
                of_type("Opaque"),
                "NotOurs",
                Some(in_use),
            ),
            ("a copy of another type", nothing(), valid(|_| {}), of_type("Opaque"), "NotOurs", Some(tampered)),
            (
                "in status, a copy of another type",
                names_it(),
                valid(|_| {}),
                of_type("Opaque"),
                "Refused",
                Some(tampered),
            ),
        ];
        for (rule, status, authenticity, view, expected, reason) in rows {
            let seen = Seen { view: SecretView { name: "msec-db".to_owned(), ..view }, authenticity, live: false };
            let (kind, problem) = match claim(&facts(&status), &seen) {
                Claim::Ours => ("Ours", None),
                Claim::Restored => ("Restored", None),
                Claim::TakeOver => ("TakeOver", None),
                Claim::Dying => ("Dying", None),
                Claim::NotOurs(problem) => ("NotOurs", Some(problem.reason)),
                Claim::Refused(problem) => ("Refused", Some(problem.reason)),
            };
            assert_eq!((kind, problem), (expected, reason), "{rule}");
        }
    }
}
