//! Publishes the sealing public key in a `ConfigMap`, and with it which keyring was seen.
//!
//! The `ConfigMap` is not part of a backup, so it tells an operator that restarts whether its keyring is older than the one
//! that it had before.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use managed_secrets_api::keys::{ANNO_KEYRING_SEEN, PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY};
use managed_secrets_client::{CallError, ObjectApi, Run};
use managed_secrets_crypto::{Keyring, keyring::Seen};

use crate::keyring::KeyringError;

/// What a `ConfigMap` says.
#[derive(Debug, Default)]
pub struct Published {
    /// Its uid; `None` if there is none.
    uid: Option<String>,
    json: Option<String>,
    seen: Option<String>,
}

impl Published {
    /// Whether there is no `ConfigMap`: at the first start, or because an administrator has deleted it, and so accepts that
    /// keys are lost. One that says nothing, or nothing that can be read, accepts nothing.
    #[must_use]
    pub fn accepts_loss(&self) -> bool {
        self.uid.is_none()
    }

    /// The uid of the `ConfigMap`: one that was deleted and created again has another.
    pub(super) fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// The newest keyring that an operator has seen; `None` if nothing is said about it, or nothing that can be read.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        Seen::parse(self.seen.as_deref()?)
    }

    /// Whether it says the keyring's current public key, and that this was seen. Without an active sealing key there is
    /// nothing to publish, so it returns true.
    pub fn stands(&self, keyring: &Keyring, seen: Option<&Seen>) -> Result<bool, KeyringError> {
        let Some(json) = document(keyring)? else { return Ok(true) };
        Ok(self.json.as_ref() == Some(&json) && (seen.is_none() || self.seen == text(seen)?))
    }
}

/// Reads the `ConfigMap` in `namespace`.
pub async fn published(client: &Client, namespace: &str) -> Result<Published, KeyringError> {
    let found = maps(client, namespace).get::<ConfigMap>(PUBLIC_KEY_CONFIGMAP).await;
    let found = found.map_err(failed("read the published sealing key"))?;
    let (metadata, data) = found.map(|map| (map.metadata, map.data)).unwrap_or_default();
    Ok(Published {
        uid: metadata.uid,
        json: data.and_then(|mut data| data.remove(PUBLIC_KEY_DATA_KEY)),
        seen: metadata.annotations.and_then(|mut annotations| annotations.remove(ANNO_KEYRING_SEEN)),
    })
}

/// Writes the keyring's current public key into the `ConfigMap` in `namespace`, and what was seen of the keyring, if
/// `published` differs. Returns whether it was written. It is an error if that `ConfigMap` was deleted meanwhile: that
/// accepts a loss, and must be seen before it is created again. Call it at the start, after each reload, and whenever the
/// `ConfigMap` changes.
pub async fn publish(
    client: &Client,
    namespace: &str,
    published: &Published,
    keyring: &Keyring,
    seen: Option<&Seen>,
) -> Result<bool, KeyringError> {
    if published.stands(keyring, seen)? {
        return Ok(false);
    }
    let Some(json) = document(keyring)? else { return Ok(false) };
    let annotations = text(seen)?.map(|text| serde_json::json!({ANNO_KEYRING_SEEN: text}));
    let mut object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": PUBLIC_KEY_CONFIGMAP, "annotations": annotations},
        "data": {PUBLIC_KEY_DATA_KEY: json},
    });
    if let Some(uid) = published.uid() {
        object["metadata"]["uid"] = uid.into();
    }
    let written = maps(client, namespace).apply::<ConfigMap>(PUBLIC_KEY_CONFIGMAP, Run::Real, &object).await;
    written.map_err(failed("publish the sealing key"))?;
    if let Some(published) = keyring.current_public_key() {
        tracing::info!(namespace, configmap = PUBLIC_KEY_CONFIGMAP, key = %published.key.key_id(), "published the sealing key");
    }
    Ok(true)
}

fn maps(client: &Client, namespace: &str) -> ObjectApi {
    ObjectApi::namespaced::<ConfigMap>(client.clone(), namespace)
}

/// What there is to publish, if anything.
fn document(keyring: &Keyring) -> Result<Option<String>, KeyringError> {
    let json = keyring.current_public_key().map(|published| published.to_json()).transpose();
    json.map_err(|error| KeyringError::Generate(error.to_string()))
}

fn text(seen: Option<&Seen>) -> Result<Option<String>, KeyringError> {
    seen.map(Seen::text).transpose().map_err(|error| KeyringError::Generate(error.to_string()))
}

fn failed(what: &'static str) -> impl FnOnce(CallError) -> KeyringError {
    move |source| KeyringError::Api { what, source }
}
