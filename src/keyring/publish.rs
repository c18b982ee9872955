//! Publishes the sealing public key in a `ConfigMap`.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use managed_secrets_api::keys::{PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY};
use managed_secrets_client::{CallError, ObjectApi, Run};
use managed_secrets_crypto::Keyring;

use crate::keyring::KeyringError;

/// Whether the `ConfigMap` in `namespace` has the keyring's current public key.
///
/// Without an active sealing key there is nothing to publish, so it returns true.
pub async fn stands(client: &Client, namespace: &str, keyring: &Keyring) -> Result<bool, KeyringError> {
    let Some(json) = document(keyring)? else { return Ok(true) };
    let published = maps(client, namespace).get(PUBLIC_KEY_CONFIGMAP).await;
    let published = published.map_err(failed("read the published sealing key"))?;
    Ok(published.is_some_and(|published| says(&published, &json)))
}

/// Writes the keyring's current public key into the `ConfigMap` in `namespace`, if it differs. Returns whether it was
/// written. Call it at the start, after each reload, and whenever the `ConfigMap` changes.
pub async fn publish(client: &Client, namespace: &str, keyring: &Keyring) -> Result<bool, KeyringError> {
    if stands(client, namespace, keyring).await? {
        return Ok(false);
    }
    let Some(json) = document(keyring)? else { return Ok(false) };
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": PUBLIC_KEY_CONFIGMAP},
        "data": {PUBLIC_KEY_DATA_KEY: json},
    });
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

fn failed(what: &'static str) -> impl FnOnce(CallError) -> KeyringError {
    move |source| KeyringError::Api { what, source }
}

fn says(configmap: &ConfigMap, json: &str) -> bool {
    configmap.data.as_ref().and_then(|data| data.get(PUBLIC_KEY_DATA_KEY)).is_some_and(|text| text == json)
}
