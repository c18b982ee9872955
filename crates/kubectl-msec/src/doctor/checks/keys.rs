//! Keyring, key-encryption keys, and the published sealing key.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::keyring_request::Request;
use managed_secrets_api::keys::{
    ANNO_KEYRING_REQUEST, ANNO_KEYRING_SEEN, KEK_PREFIX, KEYRING_NAME, PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY,
};
use managed_secrets_api::record::StoredRecord;
use managed_secrets_crypto::keyring::{Origin, Part, Purpose, Seen};
use managed_secrets_crypto::mss1::{PublishedKey, Sealed};
use managed_secrets_crypto::provider::Provider;

use super::super::facts::Facts;
use super::super::finding::{Finding, Level};
use crate::archive::StoredKeyring;

/// What the key-encryption key protects against, by its provider.
pub(super) fn protection(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let keyrings = facts.keyrings.known(check)?;
    let wrapped = keyrings.iter().filter_map(|(_, keyring)| keyring.as_ref()).flat_map(StoredKeyring::wrapped_by);
    let providers: BTreeSet<_> = wrapped.map(|(provider, _)| provider).collect();
    Ok(providers
        .into_iter()
        .map(|provider| {
            if provider == Provider::LOCAL {
                Finding::new(
                    Level::Note,
                    check,
                    format!(
                        "the key-encryption key is a Secret in {}: it protects against people and backups that see only \
                         other namespaces, and not against someone who has a full copy of an unencrypted etcd",
                        facts.own
                    ),
                    "encrypt etcd, or move the key to a KMS (--kms) or a file (--kek-file)",
                )
            } else {
                let held = format!("the provider \"{provider}\" keeps the key-encryption key outside etcd");
                Finding::ok(check, held)
            }
        })
        .collect())
}

/// The keyring, and a key-encryption key for each of its entries.
pub(super) fn keyring(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let (keyrings, own) = (facts.keyrings.known(check)?, &facts.own);
    if !keyrings.iter().any(|(name, _)| name == KEYRING_NAME) {
        let what = if keyrings.is_empty() {
            format!("keyring not found in the namespace {own}")
        } else {
            format!(
                "keyring {own}/{KEYRING_NAME} not found: the keys of the other keyrings open values, but the operator \
                 encrypts nothing new with them"
            )
        };
        return Ok(vec![Finding::new(
            Level::Problem,
            check,
            what,
            "the operator creates it at its first start; if records exist, restore it: kubectl msec restore BACKUP",
        )]);
    }
    let mut findings = Vec::new();
    for (name, keyring) in keyrings {
        if keyring.is_none() {
            let what = format!(
                "Secret {own}/{name} has the type of keyrings but does not contain one: the operator does not start"
            );
            findings.push(Finding::new(
                Level::Problem,
                check,
                what,
                "restore it, or delete it if it was never a keyring",
            ));
        }
    }
    let stored: Vec<_> = keyrings.iter().filter_map(|(_, keyring)| keyring.as_ref()).collect();
    if !stored.is_empty() && active(&stored, Purpose::Record, facts.now).is_none() {
        let what = "the keyring has no active key for records: the operator cannot encrypt";
        findings.push(Finding::new(Level::Problem, check, what, "restore the keyring: kubectl msec restore BACKUP"));
    }
    let published = facts.public_key.known(check).ok().and_then(Option::as_ref);
    let seen = published.and_then(|map| map.metadata.annotations.as_ref()?.get(ANNO_KEYRING_SEEN));
    if let Some(rollback) = seen.and_then(|text| Seen::parse(text)).and_then(|seen| seen.lost_in(parts(&stored))) {
        let todo = format!(
            "restore a later backup of the keyring beside it: kubectl msec restore BACKUP. If these keys are permanently lost, \
             delete ConfigMap {own}/{PUBLIC_KEY_CONFIGMAP}: the operator creates it again"
        );
        findings.push(Finding::new(Level::Problem, check, rollback.to_string(), todo));
    }
    let ahead: BTreeSet<_> = stored.iter().flat_map(|it| it.ahead_of(facts.now)).map(|it| it.id.as_str()).collect();
    if !ahead.is_empty() {
        let ids: Vec<_> = ahead.into_iter().collect();
        findings.push(Finding::new(
            Level::Warning,
            check,
            format!("keys have a creation date in the future: {}", ids.join(", ")),
            "check the clocks; these keys open values, and the operator prefers other keys for new values",
        ));
    }
    let records = facts.records.known(check).map(Vec::as_slice).unwrap_or_default();
    findings.extend(rotation(check, &stored, records, facts.now));
    findings.extend(requests(check, &stored));
    let wrapped: BTreeSet<_> = stored.iter().flat_map(|it| it.wrapped_by()).collect();
    let local = wrapped.iter().filter(|(provider, _)| *provider == Provider::LOCAL).map(|(_, id)| *id);
    let missing: Vec<_> = match facts.keks.known(check) {
        Ok(keks) => local.filter(|id| !keks.contains(*id)).collect(),
        Err(unknown) => {
            findings.push(unknown);
            Vec::new()
        }
    };
    for id in missing {
        findings.push(Finding::new(
            Level::Problem,
            check,
            format!("key-encryption key Secret {own}/{KEK_PREFIX}{id} not found: the operator cannot start again"),
            "restore it from a backup that contains it (backup --with-kek): kubectl msec restore BACKUP",
        ));
    }
    findings.extend(not_needed(check, facts, &wrapped));
    let plugins: BTreeSet<_> =
        wrapped.iter().filter_map(|(provider, _)| provider.strip_prefix(Provider::KMS)).collect();
    for name in plugins {
        let what = format!("the keyring needs the KMS plugin {name}");
        let todo = "do not delete its key in the KMS, and keep a recovery key: kubectl msec recovery-key generate";
        findings.push(Finding::new(Level::Note, check, what, todo));
    }
    for (_, id) in wrapped.iter().filter(|(provider, _)| *provider == Provider::FILE) {
        let what = format!("the keyring needs the KEK file with the id {id}");
        findings.push(Finding::new(Level::Note, check, what, "keep a copy of the file in a safe place"));
    }
    if !findings.iter().any(|it| it.level != Level::Note) {
        let (entries, secrets) = (stored.iter().map(|it| it.document.entries.len()).sum::<usize>(), stored.len());
        let beside = if secrets > 1 { format!(" in {secrets} keyrings") } else { String::new() };
        let fingerprints: Vec<_> = stored.iter().map(|it| format!("{} {}", it.name, it.fingerprint)).collect();
        findings.push(Finding::ok(
            check,
            format!(
                "{entries} keys{beside}, each with its key-encryption key; SHA-256 fingerprint: {}",
                fingerprints.join(", ")
            ),
        ));
    }
    Ok(findings)
}

/// The local key-encryption keys that no keyring needs any more.
fn not_needed(check: &'static str, facts: &Facts, wrapped: &BTreeSet<(&str, &str)>) -> Option<Finding> {
    let keks = facts.keks.known(check).ok()?;
    let is_needed = |id: &str| wrapped.contains(&(Provider::LOCAL, id));
    let names: Vec<_> = keks.iter().filter(|id| !is_needed(id)).map(|id| format!("{KEK_PREFIX}{id}")).collect();
    (!names.is_empty()).then(|| {
        Finding::new(
            Level::Note,
            check,
            format!("no keyring in {} needs these key-encryption keys: {}", facts.own, names.join(", ")),
            "backups from before they were replaced need them: make a new backup, keep or discard the old ones, then delete them",
        )
    })
}

/// Records that are named.
const SHOWN: usize = 3;

fn qualified(metadata: &ObjectMeta) -> String {
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// How long a rotation of a seed takes that is not stuck.
const ROTATION: SignedDuration = SignedDuration::from_hours(24);

/// A seed that is being replaced: what is not over yet.
fn rotation(
    check: &'static str,
    keyrings: &[&StoredKeyring],
    records: &[ObjectMeta],
    now: Timestamp,
) -> Option<Finding> {
    let document = &keyrings.iter().find(|it| it.name == KEYRING_NAME)?.document;
    let in_use: Vec<_> = document.superseded_seeds(now).filter(|it| !it.is_confirmed_unused()).collect();
    let began = match document.pending_seed() {
        Some(pending) => pending.created_at()?,
        None if in_use.is_empty() => return None,
        None => document.newest_seed()?,
    };
    let what = if in_use.is_empty() {
        "a new seed is pending: new values are encrypted under it soon".to_owned()
    } else {
        let ids: Vec<_> = in_use.iter().map(|it| it.id.as_str()).collect();
        let under = |metadata: &&ObjectMeta| {
            let seed = StoredRecord::of(metadata).map(|record| record.seed.to_string());
            seed.is_some_and(|seed| ids.contains(&seed.as_str()))
        };
        let found: Vec<_> = records.iter().filter(under).map(qualified).collect();
        let shown = found.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let named = match found.len() {
            0 => String::new(),
            1..=SHOWN => format!(" ({shown})"),
            all => format!(" ({shown} and {} more)", all - SHOWN),
        };
        format!(
            "records may still be under seeds that were replaced: {}{named}; the operator moves them",
            ids.join(", ")
        )
    };
    let level = if now.duration_since(began) > ROTATION { Level::Warning } else { Level::Note };
    let advice = "the log of the leader says what holds it up, if it takes longer than a day";
    Some(Finding::new(level, check, format!("{what}, since {began}"), advice))
}

/// What is asked of the operator and not done.
fn requests(check: &'static str, keyrings: &[&StoredKeyring]) -> Vec<Finding> {
    let Some(own) = keyrings.iter().find(|it| it.name == KEYRING_NAME) else { return Vec::new() };
    let named = |unknown: bool| {
        let requests = own.requests.iter().filter(|it| matches!(it, Request::Unknown(_)) == unknown);
        let shown: Vec<_> = requests.map(Request::shown).collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    };
    let waiting = named(false).map(|shown| {
        let what = format!("the operator was asked for this, and has not done it: {shown}");
        let advice = "if it stays, see the log of the leader, and whether this version of the operator does it";
        Finding::new(Level::Note, check, what, advice)
    });
    let unknown = named(true).map(|shown| {
        let what = format!("the operator is asked for something that this version does not know: {shown}");
        let advice = format!("correct the annotation {ANNO_KEYRING_REQUEST} of {KEYRING_NAME}: nothing is done for it");
        Finding::new(Level::Warning, check, what, advice)
    });
    waiting.into_iter().chain(unknown).collect()
}

/// Keyrings as they are compared with what was seen before.
fn parts<'a>(keyrings: &[&'a StoredKeyring]) -> impl Iterator<Item = Part<'a>> {
    keyrings.iter().map(|keyring| {
        let origin = if keyring.name == KEYRING_NAME { Origin::Own } else { Origin::Joined };
        Part { document: &keyring.document, origin }
    })
}

/// Id of the key that the operator uses for new values.
fn active<'a>(keyrings: &[&'a StoredKeyring], purpose: Purpose, now: Timestamp) -> Option<&'a str> {
    keyrings.iter().find(|it| it.name == KEYRING_NAME)?.document.active_key(purpose, now)
}

/// The published key: it exists, is the keyring's newest, and is not too old.
pub(super) fn sealing_key(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let place = format!("ConfigMap {}/{PUBLIC_KEY_CONFIGMAP}", facts.own);
    let repaired = "the operator publishes and corrects the key while it runs: check that it runs";
    let found = facts.public_key.known(check)?.as_ref();
    let Some(document) = found.and_then(|it| it.data.as_ref()).and_then(|it| it.get(PUBLIC_KEY_DATA_KEY)) else {
        return Ok(vec![Finding::new(Level::Problem, check, format!("{place} contains no public key"), repaired)]);
    };
    let Ok(published) = PublishedKey::parse(document) else {
        return Ok(vec![Finding::new(
            Level::Problem,
            check,
            format!("the public key in {place} is invalid"),
            repaired,
        )]);
    };
    let mut findings = Vec::new();
    let id = published.key.key_id().to_string();
    match facts.keyrings.known(check) {
        Ok(keyrings) => {
            let stored: Vec<_> = keyrings.iter().filter_map(|(_, keyring)| keyring.as_ref()).collect();
            match active(&stored, Purpose::Sealing, facts.now) {
                Some(active) if active == id => {}
                Some(active) => findings.push(Finding::new(
                    Level::Problem,
                    check,
                    format!("{place} contains the public key {id}, but the keyring's newest key is {active}"),
                    repaired,
                )),
                None => findings.push(Finding::new(
                    Level::Problem,
                    check,
                    format!("{place} contains the public key {id}, which is not in the keyring"),
                    "restore the keyring: kubectl msec restore BACKUP. Until then, values that are sealed for this key do not open",
                )),
            }
        }
        Err(unknown) => findings.push(unknown),
    }
    if published.not_after < facts.now {
        findings.push(Finding::new(
            Level::Warning,
            check,
            format!("the public key should have been replaced by {}", published.not_after),
            "the operator replaces it by itself (run --sealing-key-period); values that are sealed for it still open. If it \
             stays, the log of the leader says what holds it up",
        ));
    }
    if findings.is_empty() {
        let until = published.replaced_by().map(|date| format!(", until {date}")).unwrap_or_default();
        findings.push(Finding::ok(check, format!("public key {id} is published{until}")));
    }
    findings.extend(used_sealing_keys(check, facts));
    Ok(findings)
}

/// How many sealed values use keys that are not the active one.
fn used_sealing_keys(check: &'static str, facts: &Facts) -> Option<Finding> {
    let (keyrings, objects) = (facts.keyrings.known(check).ok()?, facts.objects.known(check).ok()?);
    let stored: Vec<_> = keyrings.iter().filter_map(|(_, keyring)| keyring.as_ref()).collect();
    let active = active(&stored, Purpose::Sealing, facts.now)?;
    let mut others = BTreeMap::<String, usize>::new();
    for sealed in objects.iter().filter_map(|object| object.spec.value.as_ref()) {
        if let Some(id) = Sealed::key_named(&sealed.0).map(|id| id.to_string()).filter(|id| *id != active) {
            *others.entry(id).or_default() += 1;
        }
    }
    let values: usize = others.values().sum();
    let keys: Vec<_> = others.iter().map(|(id, count)| format!("{id} ({count})")).collect();
    (values > 0).then(|| {
        let what =
            format!("sealed values that use another key than the active one: {values}; by key: {}", keys.join(", "));
        Finding::new(Level::Note, check, what, "to move them, seal them again where they are kept: kubectl msec reseal")
    })
}
