//! Changes the operator's own keyring: the one way to write it after it was created.
//!
//! ```text
//!  Secret ──read live──▶ OwnKeyring ──edit (pure)──▶ OwnKeyring ──opens?──▶ recovery copies ──▶ dry run ──▶ write
//!    ▲                                                              resourceVersion as precondition │
//!    └───────────────────────────────── on a conflict, again ◀──────────────────────────────────────┘
//! ```
//!
//! Guarantees: the write replaces the very document that the edit has seen, or nothing. A document that does not open is not
//! written. Each key of a document that is written is sealed to the recovery keys. Fields and requests that this version does
//! not know stay; a document with a purpose or a state that it does not know, or one that is older than one seen before
//! ([`super::rollback`]), is not changed at all. Keyrings beside the operator's own stay as they are.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use managed_secrets_api::{
    keyring_request::{Kind, Request, Requests},
    keys::{ANNO_KEYRING_REQUEST, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEYRING},
};
use managed_secrets_client::{CallError, Run, SecretApi, SecretBytes, SecretObject};
use managed_secrets_crypto::{
    SeedId,
    keyring::{Document, Purpose},
    recovery,
};
use serde_json::{Value, json};

use super::{KeyringError, KeyringStore, store::failed};

/// Limit of rounds of "write, lose, read again" before a change returns an error.
const ROUNDS: usize = 10;

/// The operator's own keyring as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnKeyring {
    /// Its document.
    pub document: Document,
    /// Which changes were asked for. A change removes the requests that it carries out.
    pub requests: Requests,
}

/// What to do about a document that is older than one seen before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Older {
    /// It is not changed.
    Refuse,
    /// It is written, whether the edit changes it or not.
    Accept,
}

impl KeyringStore {
    /// Applies `edit` to the operator's own keyring and writes the result, if it differs, with `writer`: the client that
    /// writes only while this process is the leader.
    ///
    /// If another writer is faster, `edit` is called again with what that one has written, so it must depend on nothing but
    /// its argument. If it returns an error, nothing is written. Afterwards the watch on keyrings has every replica read the
    /// keyring again.
    pub async fn change<T, E: From<KeyringError>>(
        &self,
        writer: &Client,
        edit: impl FnMut(&mut OwnKeyring) -> Result<T, E>,
    ) -> Result<T, E> {
        self.change_any(writer, Older::Refuse, edit).await
    }

    /// Adds a pending key of this purpose, unless there is one, and removes the request for it. `document` tells which
    /// provider wraps it. Returns the id of the key that was added.
    pub async fn begin(
        &self,
        writer: &Client,
        document: &Document,
        purpose: Purpose,
    ) -> Result<Option<String>, KeyringError> {
        let wrapper = self.wrapper(document).await?;
        let now = Timestamp::now();
        let kind = match purpose {
            Purpose::Record => Kind::Seed,
            Purpose::Sealing => Kind::Sealing,
        };
        self.change(writer, |own| {
            own.requests.remove(&Request::Rotate(kind));
            if own.document.pending(purpose).is_some() {
                return Ok(None);
            }
            let wrap = |bytes: &[u8]| wrapper.wrap(bytes);
            let added = match purpose {
                Purpose::Record => own.document.add_seed(now, wrap).map(|id| id.to_string()),
                Purpose::Sealing => own.document.add_sealing_key(now, wrap).map(|id| id.to_string()),
            };
            added.map(Some).map_err(KeyringError::from)
        })
        .await
    }

    /// Like [`change`](Self::change), also for a document that may be older than one seen before.
    pub(super) async fn change_any<T, E: From<KeyringError>>(
        &self,
        writer: &Client,
        older: Older,
        mut edit: impl FnMut(&mut OwnKeyring) -> Result<T, E>,
    ) -> Result<T, E> {
        for _ in 0..ROUNDS {
            let (metadata, before) = self.own().await?;
            let mut after = before.clone();
            let done = edit(&mut after)?;
            if after.document != before.document || older == Older::Accept {
                if older == Older::Refuse {
                    self.refuse_if_older(&after.document).await?;
                }
                self.redeem(&mut after.document).await?;
                let keyring = self.open_own(&after.document).await?;
                recovery::cover(&mut after.document, &keyring, &self.recipients).map_err(KeyringError::from)?;
                // Above every count that was seen: what this changes was changed on purpose.
                after.document.generation = after.document.generation.max(self.newest_generation()) + 1;
            }
            if after == before || self.write(writer, &metadata, &before, &after).await? {
                return Ok(done);
            }
        }
        Err(KeyringError::Contended.into())
    }

    /// Reads the operator's own keyring, and checks that it is not older than one seen before, and that new values are
    /// encrypted under the seed `active`: what this process is about to write under that seed can be opened by all others.
    ///
    /// # Errors
    /// [`KeyringError::Changed`] if it is another keyring.
    pub async fn check_active(&self, active: SeedId) -> Result<(), KeyringError> {
        let (_, own) = self.own().await?;
        let is_active = own.document.active_key(Purpose::Record, Timestamp::now()) == Some(&active.to_string());
        if is_active && self.lost_in(&own.document).is_none() { Ok(()) } else { Err(KeyringError::Changed) }
    }

    /// Reads the operator's own keyring.
    pub(super) async fn own(&self) -> Result<(ObjectMeta, OwnKeyring), KeyringError> {
        let namespace = || self.namespace().to_owned();
        let found = self.secrets().get(KEYRING_NAME).await.map_err(failed("read the keyring"))?;
        let secret = found.ok_or_else(|| KeyringError::Missing { namespace: namespace() })?;
        if secret.type_.as_deref() != Some(TYPE_KEYRING) {
            return Err(KeyringError::NameTaken { namespace: namespace() });
        }
        let document = self.document(&secret)?;
        let requests = requests(&secret.metadata);
        Ok((secret.metadata, OwnKeyring { document, requests }))
    }

    /// Writes a changed keyring. Returns `false` if the stored one is no longer the one that was read.
    async fn write(
        &self,
        writer: &Client,
        metadata: &ObjectMeta,
        before: &OwnKeyring,
        after: &OwnKeyring,
    ) -> Result<bool, KeyringError> {
        let request = if after.requests.is_empty() { Value::Null } else { after.requests.to_string().into() };
        let mut body = json!({"metadata": {
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
            "annotations": {ANNO_KEYRING_REQUEST: request},
        }});
        let mut expected = None;
        if after.document != before.document {
            let unwritten = |error: serde_json::Error| KeyringError::Generate(error.to_string());
            let json = serde_json::to_vec_pretty(&after.document).map_err(unwritten)?;
            let content = SecretBytes::copy_of(&json);
            body["data"] = json!({KEYRING_DATA_KEY: content});
            expected = Some(content);
        }
        let secrets = SecretApi::namespaced(writer.clone(), self.namespace());
        for run in [Run::Dry, Run::Real] {
            let stored: SecretObject = match secrets.merge(KEYRING_NAME, run, &body).await {
                // Deleted, or deleted and restored: the next round reads what there is now.
                Err(CallError::Refused(refusal)) if refusal.is_conflict() || refusal.is_not_found() => {
                    return Ok(false);
                }
                answer => answer.map_err(failed("change the keyring"))?,
            };
            let is_expected =
                expected.as_ref().is_none_or(|content| stored.data.get(KEYRING_DATA_KEY) == Some(content));
            if !is_expected {
                return Err(KeyringError::Altered { namespace: self.namespace().to_owned() });
            }
        }
        Ok(true)
    }
}

/// Which changes are asked for on a keyring.
pub(super) fn requests(metadata: &ObjectMeta) -> Requests {
    let text = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNO_KEYRING_REQUEST));
    text.map(|text| Requests::parse(text)).unwrap_or_default()
}
