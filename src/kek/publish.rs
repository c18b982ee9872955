//! The `ConfigMap` that publishes the sealing public key.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::Resource as _;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;

use super::KeyringError;
use super::secret_api::{CallError, call};
use crate::api::keys::{FIELD_MANAGER, PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY};
use crate::crypto::Keyring;

/// Makes the `ConfigMap` in `namespace` say the keyring's current public key, whatever it said; whether it had to be
/// written. Call it at the start, after each reload, and whenever the `ConfigMap` changes.
///
/// With no active sealing key there is nothing to publish, and what stands is left.
pub async fn publish(client: &Client, namespace: &str, keyring: &Keyring) -> Result<bool, KeyringError> {
    let Some(published) = keyring.current_public_key() else { return Ok(false) };
    let json = published.to_json().map_err(|error| KeyringError::Generate(error.to_string()))?;
    let request = Request::new(ConfigMap::url_path(&(), Some(namespace)));
    let failed = |what| move |source| KeyringError::Api { what, source };

    let get = request.get(PUBLIC_KEY_CONFIGMAP, &GetParams::default()).map_err(CallError::request);
    let read = "read the published sealing key";
    match call::<ConfigMap>(client, get.map_err(failed(read))?).await {
        Ok(standing) if says(&standing, &json) => return Ok(false),
        Err(CallError::Refused(refusal)) if refusal.is_not_found() => {}
        result => {
            result.map_err(failed(read))?;
        }
    }
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": PUBLIC_KEY_CONFIGMAP},
        "data": {PUBLIC_KEY_DATA_KEY: json},
    });
    let write = "publish the sealing key";
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = request.patch(PUBLIC_KEY_CONFIGMAP, &params, &Patch::Apply(&object)).map_err(CallError::request);
    call::<ConfigMap>(client, patch.map_err(failed(write))?).await.map_err(failed(write))?;
    tracing::info!(namespace, configmap = PUBLIC_KEY_CONFIGMAP, key = %published.key.key_id(), "published the sealing key");
    Ok(true)
}

fn says(configmap: &ConfigMap, json: &str) -> bool {
    configmap.data.as_ref().and_then(|data| data.get(PUBLIC_KEY_DATA_KEY)).is_some_and(|text| text == json)
}
