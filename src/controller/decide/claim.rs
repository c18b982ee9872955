//! Whose a record is.
//!
//! A record is ours if its metadata is authentic and was made for our uid; or, without owner references, for our name
//! with our id; or by take-over. Everything else is somebody else's, or forged, and is never written.

use managed_secrets_api::{Reason, keys::TYPE_RECORD, types::Delivery};

use super::super::{
    facts::{Facts, Seen},
    plan::Problem,
    record::{Authenticity, Delivered},
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
    Foreign(Problem),
    /// It claims to be ours and is not authentic.
    Refused(Problem),
}

/// Where the spec wants the value delivered, as a record would say it of a Secret of our own.
pub(super) fn wanted_place(facts: &Facts) -> Delivered {
    let own = &facts.snapshot.own;
    match own.spec.delivery() {
        Delivery::None => Delivered::None,
        Delivery::Secret => {
            Delivered::Own { name: own.spec.target_name(&own.name).to_owned(), key: own.spec.target_key().to_owned() }
        }
    }
}

/// Judges a Secret at a record's place.
pub(super) fn claim(facts: &Facts, seen: &Seen) -> Claim {
    let own = &facts.snapshot.own;
    let view = &seen.view;
    // By name, not by uid: a record that was put back from elsewhere is another object in the same place.
    let in_status = own.status.record.as_ref().is_some_and(|record| record.name == view.name);
    let in_use = |message: String| Claim::Foreign(Problem::new(Reason::NameInUse, message));
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
                Claim::Foreign(problem)
            };
        }
        Authenticity::Valid { .. } if view.type_.as_deref().is_some_and(|type_| type_ != TYPE_RECORD) => {
            let message = format!(
                "record {} was copied into a Secret of another type: delete it, or restore it from a backup",
                view.name
            );
            let problem = Problem::new(Reason::RecordTampered, message);
            return if in_status { Claim::Refused(problem) } else { Claim::Foreign(problem) };
        }
        Authenticity::Valid { meta, .. } => meta,
    };
    if meta.owner != own.name {
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
    if meta.name != own.spec.name {
        return retained("under another spec.name: apply that name again");
    }
    if !meta.target.same_place(&wanted_place(facts)) {
        return retained("with another target: apply its target again to take it over");
    }
    Claim::TakeOver
}
