//! `kubectl msec keys list`.

use jiff::Timestamp;
use managed_secrets_api::keyring_request::Requests;
use managed_secrets_api::keys::{KEYRING_NAME, TYPE_KEYRING};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};
use managed_secrets_client::SecretApi;
use managed_secrets_crypto::keyring::{Entry, Purpose, State};
use serde::Serialize;
use serde_json::json;

use super::ListArgs;
use super::usage::{self, Counts, Usage};
use crate::archive::StoredKeyring;
use crate::output::ReportFormat;
use crate::session::Session;
use crate::table::{Layout, Table, age};

/// One key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    id: String,
    /// `sealing` or `seed`.
    purpose: &'static str,
    /// `active`, `pending`, `open-only`, `retired` or `revoked`.
    state: &'static str,
    created: String,
    /// Sealed values or records that use it; `None` if that is not known.
    used_by: Option<usize>,
    /// Since when nothing uses it, if that was noticed and confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    unused_since: Option<String>,
    /// The Secret of its keyring.
    keyring: String,
    /// Who holds the key-encryption key, and which one it is.
    provider: String,
    kek: String,
}

/// What there is.
#[derive(Debug)]
struct Listed {
    keys: Vec<Key>,
    requests: Vec<String>,
    notes: Vec<String>,
}

/// Lists the keys.
pub(super) async fn list(session: &Session, args: &ListArgs) -> Result<(), CliError> {
    let own = args.place.operator_namespace.as_str();
    let stored = SecretApi::namespaced(session.client.clone(), own).list(&format!("type={TYPE_KEYRING}")).await;
    let permission = Permission::to("list", "secrets").within(own);
    let stored = stored.map_err(|error| permission.explain_call("cannot read the keyring", &error))?;
    let mut keyrings: Vec<StoredKeyring> = stored.iter().filter_map(StoredKeyring::of).collect();
    keyrings.sort_by_key(|keyring| (keyring.name != KEYRING_NAME, keyring.name.clone()));
    let Some(requests) = keyrings.iter().find(|it| it.name == KEYRING_NAME).map(|it| it.requests.clone()) else {
        return Err(CliError::Failed(format!(
            "keyring {own}/{KEYRING_NAME} not found; if the operator runs in another namespace, use --operator-namespace; \
             otherwise run kubectl msec doctor"
        )));
    };
    let now = Timestamp::now();
    let listed = listed(&keyrings, &requests, &usage::read(session).await, now);
    match args.output {
        ReportFormat::Json => say::print_json(&json!({
            "operatorNamespace": own, "keys": listed.keys, "requests": listed.requests,
        }))?,
        ReportFormat::Text => {
            say::print_document(&table(&listed.keys, now).render(Layout::of_standard_output(false)))?;
        }
    }
    listed.notes.iter().for_each(say::tell);
    Ok(())
}

/// The operator's own keys first, of each purpose the newest first. Of a key in two keyrings, the operator's own decides.
fn listed(keyrings: &[StoredKeyring], requests: &Requests, usage: &Usage, now: Timestamp) -> Listed {
    let mut keys: Vec<Key> = Vec::new();
    let mut notes = Vec::new();
    for keyring in keyrings {
        let is_own = keyring.name == KEYRING_NAME;
        let mut entries: Vec<&Entry> = keyring.document.entries.iter().collect();
        entries.sort_by_key(|entry| (entry.purpose == Purpose::Record, std::cmp::Reverse(entry.created_at())));
        for entry in entries {
            if keys.iter().any(|key| key.id == entry.id) {
                continue;
            }
            let active = is_own && keyring.document.active_key(entry.purpose, now) == Some(&entry.id);
            let (purpose, counts) = match entry.purpose {
                Purpose::Sealing => ("sealing", &usage.values),
                Purpose::Record => ("seed", &usage.records),
            };
            let used_by = counts.as_ref().ok().map(|counts| counts.get(&entry.id).copied().unwrap_or_default());
            let is_over = entry.purpose == Purpose::Sealing || entry.is_confirmed_unused();
            let unused = entry.unused.as_ref().filter(|_| is_over && used_by == Some(0));
            keys.push(Key {
                id: entry.id.clone(),
                purpose,
                state: state(entry, active, is_own),
                created: entry.created.clone(),
                used_by,
                unused_since: unused.map(|unused| unused.since.clone()),
                keyring: keyring.name.clone(),
                provider: entry.wrapped.provider.clone(),
                kek: entry.wrapped.key_id.clone(),
            });
            if is_own && entry.purpose == Purpose::Sealing && entry.state == State::OpenOnly && used_by == Some(0) {
                notes.push(format!(
                    "note: no sealed value in the cluster uses the key {0}; if Git holds none either, run kubectl msec keys retire {0}",
                    entry.id
                ));
            }
        }
        if is_own {
            notes.extend(rewrap(keyring, &usage.records, now));
        }
    }
    for (counts, what) in [(&usage.values, "sealed values"), (&usage.records, "records")] {
        if let Err(why) = counts {
            notes.push(format!("note: it is unknown which keys {what} use: {why}"));
        }
    }
    notes.extend(unknown(&keys, &usage.values));
    let requests: Vec<_> = requests.iter().map(ToString::to_string).collect();
    if !requests.is_empty() {
        notes.push(format!("note: the operator was asked to: {}", requests.join(", ")));
    }
    Listed { keys, requests, notes }
}

/// What the key does.
fn state(entry: &Entry, is_active: bool, is_own: bool) -> &'static str {
    match entry.state {
        _ if entry.is_retired() => "retired",
        State::Revoked if entry.purpose == Purpose::Sealing => "revoked",
        State::Pending if is_own => "pending",
        State::Active if is_active => "active",
        State::Active | State::Pending | State::OpenOnly | State::Revoked => "open-only",
    }
}

/// How far the records have moved to a new seed.
fn rewrap(keyring: &StoredKeyring, records: &Counts, now: Timestamp) -> Option<String> {
    let in_use: Vec<_> = keyring.document.superseded_seeds(now).filter(|entry| !entry.is_confirmed_unused()).collect();
    if in_use.is_empty() {
        return None;
    }
    let counts = records.as_ref().ok()?;
    let all: usize = counts.values().sum();
    let left: usize = in_use.iter().filter_map(|entry| counts.get(&entry.id)).sum();
    Some(if left == 0 {
        "note: all records are under the active seed; the operator confirms that in an hour".to_owned()
    } else {
        format!("note: the operator moves records to the active seed: {} of {all}", all - left)
    })
}

/// Values that were sealed with a key that no keyring has.
fn unknown(keys: &[Key], values: &Counts) -> Option<String> {
    let strangers = values.as_ref().ok()?.iter().filter(|(id, _)| !keys.iter().any(|key| key.id == **id));
    let (count, ids): (Vec<_>, Vec<_>) = strangers.map(|(id, count)| (*count, id.as_str())).unzip();
    let total: usize = count.iter().sum();
    (total > 0).then(|| {
        format!("note: sealed values with keys that no keyring of the operator has: {total} ({})", ids.join(", "))
    })
}

fn table(keys: &[Key], now: Timestamp) -> Table {
    let columns = ["ID", "PURPOSE", "STATE", "AGE", "USED BY", "KEK"].map(str::to_owned).to_vec();
    let rows = keys.iter().map(|key| {
        let created = key.created.parse().map_or_else(|_| "unknown".to_owned(), |created| age(created, now));
        let what = |count: usize| match (key.purpose, count) {
            ("sealing", 1) => "1 sealed value".to_owned(),
            ("sealing", count) => format!("{count} sealed values"),
            (_, 1) => "1 record".to_owned(),
            (_, count) => format!("{count} records"),
        };
        let used = key.used_by.map_or_else(|| "unknown".to_owned(), what);
        let kek = format!("{} {}", key.provider, key.kek);
        vec![key.id.clone(), key.purpose.to_owned(), key.state.to_owned(), created, used, kek]
    });
    Table { rows: rows.collect(), columns }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    fn keyring(name: &str, entries: &Value) -> StoredKeyring {
        let document = json!({"format": "MSK1", "entries": entries});
        StoredKeyring {
            name: name.to_owned(),
            document: serde_json::from_value(document).unwrap(),
            fingerprint: String::new(),
            requests: Requests::default(),
        }
    }

    fn entry(id: &str, purpose: &str, state: &str, day: u8, more: &Value) -> Value {
        let mut entry = json!({
            "id": id, "purpose": purpose, "state": state, "created": format!("2026-11-{day:02}T08:00:00Z"),
            "wrapped": {"provider": "local", "keyId": "k", "ciphertext": ""},
        });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    }

    fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
        counts.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect()
    }

    #[test]
    fn each_key_says_what_it_does_and_what_uses_it() {
        let none = json!({});
        let own = keyring(
            KEYRING_NAME,
            &json!([
                entry("a", "record", "open-only", 1, &none),
                entry("b", "record", "active", 2, &none),
                entry("c", "sealing", "revoked", 1, &json!({"retired": "2026-11-20T08:00:00Z"})),
                entry("d", "sealing", "revoked", 2, &none),
                entry("e", "sealing", "open-only", 3, &none),
                entry("f", "sealing", "active", 4, &none),
                entry("g", "sealing", "pending", 5, &none),
            ]),
        );
        let beside = keyring(
            "restored",
            &json!([entry("f", "sealing", "revoked", 4, &none), entry("h", "sealing", "active", 1, &none)]),
        );
        let usage =
            Usage { values: Ok(counts(&[("f", 2), ("d", 1), ("x", 3)])), records: Ok(counts(&[("a", 1), ("b", 3)])) };
        let requests = Requests::parse("rotate kek");
        let now = "2026-11-28T08:00:00Z".parse().unwrap();
        let listed = listed(&[own, beside], &requests, &usage, now);
        let text = table(&listed.keys, now).render(Layout { aligned: true, coloured: false });
        let expected = "\
ID   PURPOSE   STATE       AGE   USED BY           KEK
g    sealing   pending     23d   0 sealed values   local k
f    sealing   active      24d   2 sealed values   local k
e    sealing   open-only   25d   0 sealed values   local k
d    sealing   revoked     26d   1 sealed value    local k
c    sealing   retired     27d   0 sealed values   local k
b    seed      active      26d   3 records         local k
a    seed      open-only   27d   1 record          local k
h    sealing   open-only   27d   0 sealed values   local k
";
        assert_eq!(text, expected);
        let notes = listed.notes.join("\n");
        for says in ["keys retire e", "3 of 4", "has: 3 (x)", "asked to: rotate kek"] {
            assert!(notes.contains(says), "{says}: {notes}");
        }
        assert_eq!(listed.notes.len(), 4, "{notes}");
    }

    #[test]
    fn what_may_not_be_listed_is_unknown_and_offers_nothing() {
        let own = keyring(
            KEYRING_NAME,
            &json!([entry("b", "record", "active", 2, &json!({})), entry("e", "sealing", "open-only", 3, &json!({}))]),
        );
        let usage = Usage { values: Err("no".to_owned()), records: Err("no".to_owned()) };
        let listed = listed(&[own], &Requests::default(), &usage, "2026-11-28T08:00:00Z".parse().unwrap());
        assert!(listed.keys.iter().all(|key| key.used_by.is_none()));
        assert_eq!(listed.notes.len(), 2, "{:?}", listed.notes);
    }
}
