//! What must hold once everything has come to rest.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use managed_secrets_api::{
    Reason,
    expiry::Expiry,
    keys::{CONDITION_EXPIRING, CONDITION_RESTART_BLOCKED, FIELD_MANAGER, LABEL_ID, LABEL_ROLE, ROLE_TARGET},
    names::record_name,
    overlap::Overlap,
    restarts::Mark,
    types::{DeletionPolicy, Delivery},
};

use super::{
    oracle::OpenRecord,
    play::{NOTE, PREVIOUS},
    server::{Server, is_labelled},
    store::{Object, Stored},
    templates,
};
use crate::controller::{
    model::store::{Field, Maker},
    record::{Delivered, Source},
};

/// Says what is wrong with a state of rest.
pub(super) fn check(server: &Server, now: Timestamp) -> Result<(), String> {
    for object in server.objects.values() {
        let (status, reason) = object.ready();
        let name = &object.name;
        if object.status.as_ref().and_then(|status| status["observedGeneration"].as_i64()) != Some(object.generation) {
            return Err(format!("{name} is at rest with an older generation observed"));
        }
        let expiring = object.condition(CONDITION_EXPIRING).map(|(_, reason)| reason);
        let expected = Expiry::of(&object.spec).and_then(|expiry| expiry.reason(now)).map(|reason| reason.to_string());
        // Passes that fail have no timer, and the model ends them after some tries.
        if expiring != expected && !server.has_a_frozen_record() {
            return Err(format!("{name} says of its expiry {expiring:?}, and not {expected:?}"));
        }
        if status == "True" && reason == Reason::Served.as_str() {
            served(server, object, now).map_err(|wrong| format!("{name} is served, but {wrong}"))?;
            restarted(server, object).map_err(|wrong| format!("{name} is served, but {wrong}"))?;
        } else if delivered(object).is_none() && object.condition(CONDITION_RESTART_BLOCKED).is_some() {
            return Err(format!("{name} delivers nothing, and says that its workload cannot be restarted"));
        } else if reason == Reason::Suspended.as_str() {
            if object.spec.suspend != Some(true) {
                return Err(format!("{name} is not suspended"));
            }
        } else if !explained(server, object, &reason) {
            return Err(format!("{name} is Ready={status}, {reason}, for no reason: {}", object.wire()["status"]));
        }
    }
    Ok(())
}

fn records<'s>(server: &'s Server, object: &Object) -> Vec<(&'s Stored, OpenRecord)> {
    let all = server.secrets.values().filter_map(|secret| Some((secret, server.oracle.open(secret)?)));
    all.filter(|(_, record)| record.meta.uid == object.uid).collect()
}

fn served(server: &Server, object: &Object, now: Timestamp) -> Result<(), String> {
    let mut records = records(server, object);
    // Where a loss is excused, an older record may be left without its label, and the operator cannot find it.
    records.sort_by_key(|(secret, _)| is_labelled(secret));
    let Some((secret, record)) = records.pop() else { return Err("has no record".to_owned()) };
    if !records.is_empty() && !server.oracle.is_excused(&object.uid) {
        return Err("has two records".to_owned());
    }
    let meta = &record.meta;
    let version = meta.version.to_string();
    let status = object.status.clone().unwrap_or_default();
    let said_version = status["version"].as_u64().map(|version| version.to_string());
    for (what, said, is) in [
        ("id", object.status_text("/id"), meta.id.as_str()),
        ("name", object.status_text("/name"), meta.name.as_str()),
        ("createdDate", object.status_text("/createdDate"), meta.created.as_str()),
        ("updatedDate", object.status_text("/updatedDate"), meta.updated.as_str()),
        ("valueUpdatedTime", object.status_text("/valueUpdatedTime"), meta.value_updated.as_str()),
        ("version", said_version.as_deref(), version.as_str()),
        ("record", object.status_text("/record/name"), secret.name.as_str()),
        ("record.uid", object.status_text("/record/uid"), secret.uid.as_str()),
        ("record.resourceVersion", object.status_text("/record/resourceVersion"), &secret.revision.to_string()),
        ("the spec's name", Some(object.spec.name.as_str()), meta.name.as_str()),
        ("the spec's description", Some(object.spec.description()), meta.description.as_str()),
    ] {
        if said != Some(is) {
            return Err(format!("{what} is {is}, and {said:?} is said"));
        }
    }
    if meta.generation != object.generation {
        return Err("its record is of another generation".to_owned());
    }
    let retained = object.spec.deletion_policy() == DeletionPolicy::Retain;
    if secret.owner_uids().contains(&&object.uid) == retained {
        return Err("its record has not the owner that the deletion policy says".to_owned());
    }
    let said: Vec<_> = status["history"].as_array().into_iter().flatten().map(|kept| kept["version"].clone()).collect();
    let kept: Vec<_> = meta.history.iter().map(|kept| kept.version).collect();
    if said != kept {
        return Err(format!("its record keeps the versions {kept:?}, and {said:?} is said"));
    }
    let pinned = object.spec.pinned();
    let beside = usize::from(meta.history.replaced().is_some());
    if kept.len() > object.spec.history().max(usize::from(pinned.is_some()) + beside) {
        return Err(format!("its record keeps {} versions", kept.len()));
    }
    let delivered = pinned.filter(|version| *version != meta.version);
    if status["delivered"].as_u64() != delivered {
        return Err(format!("version {delivered:?} is wanted, and {} is said", status["delivered"]));
    }
    target(server, object, &record, now)?;
    value(server, object, &record, now)
}

fn target(server: &Server, object: &Object, record: &OpenRecord, now: Timestamp) -> Result<(), String> {
    let strays = server.secrets.values().filter(|secret| {
        let owned = |cell: &super::store::Cell| cell.managers.contains(FIELD_MANAGER);
        secret.label(LABEL_ROLE) == Some(ROLE_TARGET)
            && secret.label(LABEL_ID) == Some(&record.meta.id)
            && secret.fields.get(&Field::Owner(object.uid.clone())).is_some_and(owned)
            && Some(secret.name.as_str()) != object.status_text("/target/name")
    });
    if let Some(stray) = strays.into_iter().next() {
        return Err(format!("the target {} was left behind", stray.name));
    }
    if object.spec.delivery() == Delivery::None {
        return if object.status_text("/target/name").is_none() { Ok(()) } else { Err("a target is said".to_owned()) };
    }
    let name = object.spec.target_name(&object.name);
    let Some(secret) = server.secrets.get(name) else { return Err("its target does not exist".to_owned()) };
    let value = match object.spec.pinned().filter(|version| *version != record.meta.version) {
        Some(version) => record.kept.get(&version).cloned().flatten().ok_or("its version is not kept")?,
        None => record.value.clone(),
    };
    let texts = object.spec.template().cloned().unwrap_or_default();
    let mut wanted = templates::data(object.spec.target_key(), &value, &texts);
    let pinned = object.spec.pinned().unwrap_or(record.meta.version);
    let is_newest = pinned == record.meta.version;
    if let Some((kept, since)) = record.meta.history.previous(record.meta.version, &record.meta.value_updated)
        && (is_newest || record.meta.history.replaced().is_some() && kept.version < pinned)
        && Overlap::of(&object.spec, since, now) != Overlap::None
        && let Some(previous) = record.kept.get(&kept.version)
    {
        wanted.insert(PREVIOUS.to_owned(), previous.clone().ok_or("its previous version is not kept")?);
    }
    if wanted.iter().any(|(key, bytes)| secret.data(key) != Some(&BASE64_STANDARD.encode(bytes))) {
        return Err("its target holds another value".to_owned());
    }
    let ours = secret.fields.iter().filter(|(_, cell)| cell.managers.contains(FIELD_MANAGER));
    let keys = ours.filter_map(|(field, _)| if let Field::Data(key) = field { Some(key) } else { None });
    if !keys.eq(wanted.keys()) {
        return Err("the keys of its target are others".to_owned());
    }
    if secret.type_() != object.spec.target_type() {
        return Err("its target has another type".to_owned());
    }
    let said = (object.status_text("/target/uid"), object.status_text("/target/resourceVersion"));
    if said != (Some(&secret.uid), Some(&secret.revision.to_string())) {
        return Err("another state of its target is said".to_owned());
    }
    let adopted = matches!(record.meta.target, Delivered::Adopted { .. });
    if secret.maker == Maker::User && !adopted {
        return Err("its target was made by a user, and counts as its own".to_owned());
    }
    let wanted = !adopted && object.spec.deletion_policy() == DeletionPolicy::Delete;
    if secret.owner_uids().contains(&&object.uid) != wanted {
        return Err("its target has not the owner that it should have".to_owned());
    }
    if secret.label("team")
        != object.spec.target.as_ref().and_then(|target| Some(target.labels.as_ref()?["team"].as_str()))
    {
        return Err("its target has other labels".to_owned());
    }
    let note = object.spec.target.as_ref().and_then(|target| target.annotations.as_ref()?.get(NOTE));
    if secret.annotation(NOTE) != note.map(String::as_str) {
        return Err("its target has other annotations".to_owned());
    }
    Ok(())
}

/// What its status says that it has delivered.
fn delivered(object: &Object) -> Option<Mark> {
    let status = serde_json::from_value(object.status.clone().unwrap_or_default()).unwrap();
    Mark::delivered(&object.spec, &status)
}

/// The workload that it names has its mark, and pods with its value; of one that does not exist, the status says so.
fn restarted(server: &Server, object: &Object) -> Result<(), String> {
    let names = object.spec.target.as_ref().is_some_and(|target| target.restart.is_some());
    let names = names && object.spec.delivery() == Delivery::Secret;
    let blocked = object.condition(CONDITION_RESTART_BLOCKED).map(|(_, reason)| reason);
    let missing = (names && !server.workload.exists()).then(|| Reason::WorkloadNotFound.as_str().to_owned());
    if blocked != missing {
        return Err(format!("it says of the restart of its workload {blocked:?}, and not {missing:?}"));
    }
    if !names || server.oracle.is_excused(&object.uid) {
        return Ok(());
    }
    let delivered = delivered(object).ok_or("does not say what it has delivered")?;
    server.workload.at_rest(&object.name, &delivered.to_string())
}

/// What is served is what the source gives.
fn value(server: &Server, object: &Object, record: &OpenRecord, now: Timestamp) -> Result<(), String> {
    if let Some(generate) = &object.spec.generate {
        if record.meta.source != (Source::Generate { revision: generate.revision.clone() }) {
            return Err(format!("its record names the source {}", record.meta.source));
        }
        let next: Option<Timestamp> = object.status_text("/nextRotation").and_then(|date| date.parse().ok());
        // While a version is named, one that is due waits.
        let is_waited_for = |next: Timestamp| next > now || object.spec.pinned().is_some();
        if generate.rotate_every.is_some() != next.is_some_and(is_waited_for) {
            return Err(format!("its next rotation is not said, is due, or there is none: {next:?}"));
        }
    }
    let Some(from) = &object.spec.value_from else { return Ok(()) };
    let reference = &from.secret_key_ref;
    let source = server.secrets.get(&reference.name).and_then(|source| source.data(&reference.key));
    if source == Some(&BASE64_STANDARD.encode(&record.value)) {
        Ok(())
    } else {
        Err("it is not its source's value".to_owned())
    }
}

/// Whether the value of an object comes from its own target in the end.
fn is_in_a_ring(server: &Server, object: &Object) -> bool {
    let upstream = |object: &Object| {
        let from = &object.spec.value_from.as_ref()?.secret_key_ref;
        server.objects.values().find(|peer| peer.spec.target_name(&peer.name) == from.name)
    };
    let mut members = std::iter::successors(upstream(object), |member| upstream(member)).take(server.objects.len());
    members.any(|member| member.name == object.name)
}

/// Whether the world explains why an object is not ready.
fn explained(server: &Server, object: &Object, reason: &str) -> bool {
    let Some(reason) = Reason::ALL.iter().find(|known| known.as_str() == reason) else { return false };
    let at_target = server.secrets.get(object.spec.target_name(&object.name));
    let source = object.spec.value_from.as_ref().map(|from| &from.secret_key_ref);
    match reason {
        Reason::NameInUse => {
            let ours = |secret: &Stored| server.oracle.open(secret).is_some_and(|record| record.meta.uid == object.uid);
            let held = server.secrets.get(&record_name(&object.spec.name)).is_some_and(|holder| !ours(holder));
            // One that has lost its record, or waits for something else itself, keeps the name for later.
            let kept = server.objects.values().any(|peer| {
                peer.name != object.name && peer.spec.name == object.spec.name && peer.status_text("/id").is_some()
            });
            held || kept
        }
        Reason::SourceNotFound => source.is_some_and(|source| !server.secrets.contains_key(&source.name)),
        Reason::SourceKeyNotFound => source.is_some_and(|source| {
            server.secrets.get(&source.name).is_some_and(|secret| secret.data(&source.key).is_none())
        }),
        Reason::SourceRing => is_in_a_ring(server, object),
        Reason::TargetNotOwned | Reason::TargetInUse => at_target.is_some_and(|target| {
            let ours = target.maker == Maker::Operator(object.name.clone())
                && target.label(LABEL_ID) == object.status_text("/id");
            !ours
        }),
        Reason::TargetImmutable => at_target.is_some_and(|target| target.fields.contains_key(&Field::Immutable)),
        Reason::RecordLost => records(server, object).is_empty() && object.spec.generate.is_some(),
        Reason::VersionNotKept => records(server, object).iter().all(|(_, record)| {
            object
                .spec
                .pinned()
                .is_some_and(|pinned| pinned != record.meta.version && !record.kept.contains_key(&pinned))
        }),
        // A user made the record itself immutable.
        Reason::WriteRefused => server.has_a_frozen_record(),
        _ => server.oracle.is_excused(&object.uid),
    }
}
