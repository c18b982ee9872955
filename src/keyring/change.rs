//! Changes the operator's own keyring: the one way to write it after it was created.
//!
//! ```text
//!  Secret ──read live──▶ OwnKeyring ──edit (pure)──▶ OwnKeyring ──opens?──▶ dry run ──▶ write
//!    ▲                                                              resourceVersion as precondition │
//!    └───────────────────────────────── on a conflict, again ◀──────────────────────────────────────┘
//! ```
//!
//! Guarantees: the write replaces the very document that the edit has seen, or nothing. A document that does not open is not
//! written. Fields and requests that this version does not know stay; a document with a purpose or a state that it does not
//! know, or one that is older than one seen before ([`super::rollback`]), is not changed at all. Keyrings beside the
//! operator's own stay as they are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use managed_secrets_api::{
    keyring_request::Requests,
    keys::{ANNO_KEYRING_REQUEST, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEYRING},
};
use managed_secrets_client::{CallError, Run, SecretApi, SecretBytes, SecretObject};
use managed_secrets_crypto::keyring::Document;
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
        mut edit: impl FnMut(&mut OwnKeyring) -> Result<T, E>,
    ) -> Result<T, E> {
        for _ in 0..ROUNDS {
            let (metadata, before) = self.own().await?;
            let mut after = before.clone();
            let done = edit(&mut after)?;
            if after.document != before.document {
                self.refuse_if_older().await?;
                after.document.generation += 1;
                self.redeem(&mut after.document).await?;
            }
            if after == before || self.write(writer, &metadata, &before, &after).await? {
                return Ok(done);
            }
        }
        Err(KeyringError::Contended.into())
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
            self.open_own(&after.document).await?;
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
