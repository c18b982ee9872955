//! Requests to change the keyring: checked, stored, and waited for.
//!
//! The operator checks a request as well, and drops one that it cannot carry out. The checks here give the reason at once.

use std::io::IsTerminal as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use managed_secrets_api::keyring_request::{Kind, Request, Requests};
use managed_secrets_api::keys::{ANNO_KEYRING_REQUEST, KEYRING_NAME, TYPE_KEYRING};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};
use managed_secrets_client::SecretApi;
use managed_secrets_crypto::keyring::{Document, Entry, Purpose, State};
use serde_json::json;

use super::usage::{self, Counts};
use super::{PlaceArgs, WaitArgs};
use crate::archive::StoredKeyring;
use crate::change::FIELD_MANAGER;
use crate::session::Session;
use crate::wait::Clock;

/// How often a request is stored if another writer changes the keyring first.
const ATTEMPTS: usize = 5;

/// The operator's own keyring, and what is asked of it.
#[derive(Clone, Debug)]
struct Own {
    document: Document,
    requests: Requests,
    resource_version: Option<String>,
}

/// Asks the operator for a change, and waits for it.
pub(super) async fn ask(
    session: &Session,
    request: &Request,
    place: &PlaceArgs,
    wait: &WaitArgs,
    yes: bool,
) -> Result<(), CliError> {
    let own = place.operator_namespace.as_str();
    let before = read(session, own).await?;
    let values = match request {
        Request::Revoke(_) | Request::Retire(_) => usage::values(session).await,
        _ => Ok(std::collections::BTreeMap::new()),
    };
    if let Some(done) = already(&before.document, request) {
        return say::print_line(done);
    }
    check(&before.document, request, &values, Timestamp::now()).map_err(CliError::Failed)?;
    if let Request::Revoke(id) = request {
        confirm(id, &before.document, &values, yes)?;
    }
    store(session, own, request, before.clone()).await?;
    if !wait.wait {
        return say::print_line(format_args!(
            "asked the operator to {request}; run kubectl msec keys list to see the keys"
        ));
    }
    let done = until(session, own, request, &before.document, wait).await?;
    say::print_line(done)
}

async fn read(session: &Session, own: &str) -> Result<Own, CliError> {
    let permission = Permission::to("get", "secrets").named(KEYRING_NAME).within(own);
    let found = SecretApi::namespaced(session.client.clone(), own).get(KEYRING_NAME).await;
    let secret = found.map_err(|error| permission.explain_call("cannot read the keyring", &error))?;
    let stored = secret.as_ref().filter(|secret| secret.type_.as_deref() == Some(TYPE_KEYRING));
    let (Some(secret), Some(keyring)) = (stored, stored.and_then(StoredKeyring::of)) else {
        return Err(CliError::Failed(format!(
            "keyring {own}/{KEYRING_NAME} not found; if the operator runs in another namespace, use --operator-namespace; \
             otherwise run kubectl msec doctor"
        )));
    };
    Ok(Own {
        document: keyring.document,
        requests: keyring.requests,
        resource_version: secret.metadata.resource_version.clone(),
    })
}

fn sealing<'d>(document: &'d Document, id: &str) -> Option<&'d Entry> {
    document.sealing_keys().find(|entry| entry.id == id)
}

fn active_seed(document: &Document, at: Timestamp) -> Option<&Entry> {
    let active = document.active_key(Purpose::Record, at)?;
    document.seeds().find(|entry| entry.id == *active)
}

/// What to say where there is nothing to do.
fn already(document: &Document, request: &Request) -> Option<String> {
    let entry = |id: &str| sealing(document, id);
    match request {
        Request::Revoke(id) if entry(id).is_some_and(|it| it.state == State::Revoked && !it.is_retired()) => {
            Some(format!("key {id} is revoked already"))
        }
        Request::Retire(id) if entry(id).is_some_and(Entry::is_retired) => Some(format!("key {id} is retired already")),
        Request::Reinstate(id) if entry(id).is_some_and(|it| it.state != State::Revoked) => {
            Some(format!("key {id} is not retired: it opens"))
        }
        _ => None,
    }
}

/// Why the operator would not do it.
fn check(document: &Document, request: &Request, values: &Counts, now: Timestamp) -> Result<(), String> {
    let (Request::Revoke(id) | Request::Retire(id) | Request::Reinstate(id)) = request else { return Ok(()) };
    let Some(entry) = sealing(document, id) else {
        return Err(if document.seeds().any(|entry| entry.id == *id) {
            format!(
                "key {id} is a seed: records have no other copy, so it is neither revoked nor retired; replace it with \
                 kubectl msec keys rotate --seed, and change the values that others may have read"
            )
        } else {
            format!("key {id} not found in the operator's own keyring; run kubectl msec keys list to see the keys")
        });
    };
    match request {
        Request::Retire(_)
            if document.active_key(Purpose::Sealing, now) == Some(id) || entry.state == State::Active =>
        {
            Err(format!("key {id} is the active sealing key; run kubectl msec keys rotate first"))
        }
        Request::Retire(_) if entry.state == State::Pending => Err(format!("key {id} is new and will become active")),
        Request::Retire(_) if entry.state == State::Revoked => {
            Err(format!("key {id} is revoked, and opens nothing already"))
        }
        Request::Retire(_) => match values {
            Ok(values) => match values.get(id) {
                None | Some(0) => Ok(()),
                Some(count) => Err(format!(
                    "key {id} is used by sealed values: {count}; seal them again with kubectl msec reseal, or set new values, \
                     before you retire the key"
                )),
            },
            Err(why) => Err(format!("it is unknown whether sealed values use the key {id}: {why}")),
        },
        Request::Reinstate(_) if !entry.is_retired() => Err(format!(
            "key {id} was revoked because others know it, so it does not come back; seal the values again with the current \
             key: kubectl msec reseal"
        )),
        _ => Ok(()),
    }
}

/// Says what a revocation does, and asks on a terminal; refuses without one.
fn confirm(id: &str, document: &Document, values: &Counts, yes: bool) -> Result<(), CliError> {
    let used = match values {
        Ok(values) => match values.get(id).copied().unwrap_or_default() {
            0 => "no sealed value in the cluster uses it".to_owned(),
            1 => {
                "1 sealed value in the cluster uses it: what is delivered stays, and it must be sealed again".to_owned()
            }
            many => {
                format!(
                    "{many} sealed values in the cluster use it: what is delivered stays, and they must be sealed again"
                )
            }
        },
        Err(why) => format!("it is unknown whether sealed values use it: {why}"),
    };
    say::tell(format_args!("warning: key {id} will open nothing any more, and a revocation cannot be undone; {used}"));
    if document.active_key(Purpose::Sealing, Timestamp::now()) == Some(id) {
        say::tell("note: it is the active key, so the operator replaces it first, which takes some minutes");
    }
    if yes {
        return Ok(());
    }
    let refused = |text: &str| Err(CliError::Failed(format!("key {id} is not revoked: {text}")));
    if !say::can_ask() {
        return refused("no terminal to ask for confirmation; read the warning and use --yes");
    }
    if say::ask(format_args!("Revoke the key {id}?"))? { Ok(()) } else { refused("the answer was no") }
}

/// Adds a request to those that are there, over the keyring as it was read.
async fn store(session: &Session, own: &str, request: &Request, mut now: Own) -> Result<(), CliError> {
    let secrets = Api::<Secret>::namespaced(session.client.clone(), own);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let permission = Permission::to("patch", "secrets").named(KEYRING_NAME).within(own);
    for _ in 0..ATTEMPTS {
        let mut requests = now.requests.clone();
        requests.add(request.clone());
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {
            "resourceVersion": now.resource_version, "annotations": {ANNO_KEYRING_REQUEST: requests.to_string()},
        }});
        // Only metadata comes back.
        let patched: kube::Result<PartialObjectMeta<Secret>> =
            secrets.patch_metadata(KEYRING_NAME, &params, &Patch::Merge(&body)).await;
        match patched {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => now = read(session, own).await?,
            Err(error) => return Err(permission.explain("cannot ask the operator", &error)),
        }
    }
    Err(CliError::Failed("the keyring keeps changing; nothing was asked; try again".to_owned()))
}

/// Waits until the operator has answered, and says what it did.
async fn until(
    session: &Session,
    own: &str,
    request: &Request,
    before: &Document,
    wait: &WaitArgs,
) -> Result<String, CliError> {
    let mut clock = Clock::new(wait.timeout);
    let mut told = None;
    loop {
        let state = match read(session, own).await {
            Ok(now) => progress(&now, request, before, Timestamp::now()),
            Err(error @ CliError::Unreachable(_)) => Progress::Waits(error.to_string()),
            Err(error) => return Err(error),
        };
        let waits = match state {
            Progress::Done(text) => return Ok(text),
            Progress::Refused => {
                return Err(CliError::Failed(format!(
                    "the operator did not {request}: its log says why (kubectl -n {own} logs deployment/{})",
                    managed_secrets_api::keys::OPERATOR_NAME
                )));
            }
            Progress::Waits(waits) => waits,
        };
        if told.as_ref() != Some(&waits) && std::io::stderr().is_terminal() {
            say::tell(format_args!("waiting: {waits}"));
        }
        if !clock.pause().await {
            return Err(CliError::Failed(format!(
                "waited for {:?}: {waits}; the request stays, and kubectl msec keys list shows the keys (run kubectl msec \
                 doctor to check the operator)",
                wait.timeout
            )));
        }
        told = Some(waits);
    }
}

/// Where a request stands.
#[derive(Debug, Eq, PartialEq)]
enum Progress {
    Done(String),
    /// It was dropped.
    Refused,
    Waits(String),
}

fn progress(now: &Own, request: &Request, before: &Document, at: Timestamp) -> Progress {
    let is_asked = now.requests.iter().any(|it| it == request);
    let pending = |purpose| now.document.entries.iter().find(|it| it.purpose == purpose && it.state == State::Pending);
    let unanswered = || Progress::Waits("the operator has not answered yet".to_owned());
    match request {
        Request::Rotate(Kind::Kek) => match active_seed(&now.document, at) {
            _ if is_asked => unanswered(),
            Some(seed) if before.entries.iter().all(|it| it.wrapped != seed.wrapped) => Progress::Done(format!(
                "the keys are encrypted with {} {}; kubectl msec doctor names the key-encryption keys that no keyring needs",
                seed.wrapped.provider, seed.wrapped.key_id
            )),
            _ => Progress::Refused,
        },
        Request::Rotate(kind @ (Kind::Seed | Kind::Sealing)) => {
            let purpose = if *kind == Kind::Seed { Purpose::Record } else { Purpose::Sealing };
            let (old, new) = (before.active_key(purpose, at), now.document.active_key(purpose, at));
            match (new, pending(purpose)) {
                (Some(new), _) if Some(new) != old => Progress::Done(match purpose {
                    Purpose::Sealing => format!("key {new} is the active sealing key; earlier keys still open"),
                    Purpose::Record => format!(
                        "seed {new} is active; the operator moves records to it (kubectl msec keys list shows how far it is)"
                    ),
                }),
                (_, Some(pending)) => {
                    Progress::Waits(format!("key {} is pending until every replica has it", pending.id))
                }
                _ if is_asked => unanswered(),
                _ => Progress::Refused,
            }
        }
        Request::Revoke(id) | Request::Retire(id) | Request::Reinstate(id) => {
            if let Some(entry) = sealing(&now.document, id) {
                match request {
                    Request::Revoke(_) if entry.state == State::Revoked && !entry.is_retired() => {
                        return Progress::Done(format!("revoked key {id}"));
                    }
                    Request::Retire(_) if entry.is_retired() => {
                        return Progress::Done(format!(
                            "retired key {id}; kubectl msec keys reinstate {id} lets it open again"
                        ));
                    }
                    Request::Reinstate(_) if entry.state != State::Revoked => {
                        return Progress::Done(format!("reinstated key {id}"));
                    }
                    _ => {}
                }
            }
            match pending(Purpose::Sealing) {
                _ if !is_asked => Progress::Refused,
                Some(pending) => Progress::Waits(format!("key {} is pending until every replica has it", pending.id)),
                None => unanswered(),
            }
        }
        Request::Unknown(_) => Progress::Refused,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    const NOW: &str = "2026-11-28T08:00:00Z";

    fn document(keys: &[(&str, &str, &str)]) -> Document {
        let entry = |(day, (id, purpose, state)): (usize, &(&str, &str, &str))| {
            let mut entry = json!({
                "id": id, "purpose": purpose, "state": state, "created": format!("2026-11-{:02}T08:00:00Z", day + 1),
                "wrapped": {"provider": "local", "keyId": "k", "ciphertext": ""},
            });
            if *state == "retired" {
                entry["state"] = "revoked".into();
                entry["retired"] = NOW.into();
            }
            entry
        };
        let entries: Vec<Value> = keys.iter().enumerate().map(entry).collect();
        serde_json::from_value(json!({"format": "MSK1", "entries": entries})).unwrap()
    }

    fn keys() -> Document {
        document(&[
            ("s", "record", "active"),
            ("r", "sealing", "revoked"),
            ("t", "sealing", "retired"),
            ("o", "sealing", "open-only"),
            ("a", "sealing", "active"),
            ("p", "sealing", "pending"),
        ])
    }

    #[test]
    fn what_the_operator_would_refuse_is_refused_with_a_reason() {
        let values = Ok([("o".to_owned(), 2)].into());
        let why = |request: Request, values: &Counts| check(&keys(), &request, values, NOW.parse().unwrap());
        let of = str::to_owned;
        for (request, says) in [
            (Request::Revoke(of("s")), "is a seed"),
            (Request::Retire(of("s")), "rotate --seed"),
            (Request::Retire(of("x")), "not found"),
            (Request::Retire(of("a")), "is the active sealing key"),
            (Request::Retire(of("p")), "will become active"),
            (Request::Retire(of("r")), "is revoked"),
            (Request::Retire(of("o")), "used by sealed values: 2"),
            (Request::Reinstate(of("r")), "does not come back"),
        ] {
            let error = why(request.clone(), &values).unwrap_err();
            assert!(error.contains(says), "{request}: {error}");
        }
        let unknown = Err("permission denied".to_owned());
        assert!(why(Request::Retire(of("o")), &unknown).unwrap_err().contains("permission denied"));
        let none = Ok(std::collections::BTreeMap::new());
        for request in [Request::Retire(of("o")), Request::Revoke(of("a")), Request::Reinstate(of("t"))] {
            assert_eq!(why(request, &none), Ok(()));
        }
        for (request, says) in [
            (Request::Revoke(of("r")), "revoked already"),
            (Request::Retire(of("t")), "retired already"),
            (Request::Reinstate(of("o")), "not retired"),
        ] {
            assert!(already(&keys(), &request).unwrap().contains(says), "{request}");
        }
        assert_eq!(already(&keys(), &Request::Revoke(of("t"))), None, "a retired key can leak");
    }

    #[test]
    fn a_request_is_done_when_the_keyring_shows_it_and_refused_when_it_is_gone() {
        let before = document(&[("s", "record", "active"), ("a", "sealing", "active")]);
        let after = |keys: &[(&str, &str, &str)], asked: &str| Own {
            document: document(keys),
            requests: Requests::parse(asked),
            resource_version: None,
        };
        let rotate = Request::Rotate(Kind::Sealing);
        let stands = |now: &Own, request: &Request| progress(now, request, &before, NOW.parse().unwrap());
        let asked = after(&[("s", "record", "active"), ("a", "sealing", "active")], "rotate sealing");
        assert!(matches!(stands(&asked, &rotate), Progress::Waits(why) if why.contains("not answered")));
        let pending = after(&[("a", "sealing", "active"), ("b", "sealing", "pending")], "");
        assert!(matches!(stands(&pending, &rotate), Progress::Waits(why) if why.contains("b is pending")));
        let done = after(&[("a", "sealing", "open-only"), ("b", "sealing", "active")], "");
        assert!(matches!(stands(&done, &rotate), Progress::Done(text) if text.contains("key b is the active")));
        let dropped = after(&[("a", "sealing", "active")], "");
        assert_eq!(stands(&dropped, &rotate), Progress::Refused);
        let kek = Request::Rotate(Kind::Kek);
        let asked = after(&[("s", "record", "active"), ("a", "sealing", "active")], "rotate kek");
        assert!(matches!(stands(&asked, &kek), Progress::Waits(why) if why.contains("not answered")));
        let mut under_another = after(&[("s", "record", "active"), ("a", "sealing", "active")], "");
        assert_eq!(stands(&under_another, &kek), Progress::Refused, "a file is not replaced on request");
        for entry in &mut under_another.document.entries {
            entry.wrapped.key_id = "another".to_owned();
        }
        assert!(matches!(stands(&under_another, &kek), Progress::Done(text) if text.contains("with local another;")));
        let revoke = Request::Revoke("a".to_owned());
        assert_eq!(stands(&dropped, &revoke), Progress::Refused);
        let revoked = after(&[("a", "sealing", "revoked"), ("b", "sealing", "active")], "");
        assert_eq!(stands(&revoked, &revoke), Progress::Done("revoked key a".to_owned()));
    }
}
