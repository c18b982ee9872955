//! Writes `clientConfig` of both webhook configurations.
//!
//! In: the certificates to trust and the path to call. Out: one JSON patch for each configuration that differs, with its
//! resourceVersion as precondition. The administrator owns everything else in the configurations.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{
    Client, Resource,
    api::{GetParams, Patch, PatchParams},
    core::Request,
};
use managed_secrets_api::keys::{FIELD_MANAGER, SEAL_WEBHOOK, WARN_WEBHOOK};
use managed_secrets_client::{CallError, call};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::Reached;
use crate::webhook::http::{SEAL, WARN};

/// One webhook in one configuration.
#[derive(Clone, Debug)]
pub struct Registration {
    url: String,
    /// Name of the configuration.
    pub configuration: String,
    webhook: &'static str,
    segment: &'static str,
}

/// The parts of a configuration that the operator reads.
#[derive(Deserialize)]
struct Configuration {
    metadata: Metadata,
    #[serde(default)]
    webhooks: Vec<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    name: String,
    #[serde(default)]
    client_config: Value,
}

impl Registration {
    /// The sealing webhook in the configuration of this name.
    #[must_use]
    pub fn sealing(configuration: String) -> Self {
        let url = MutatingWebhookConfiguration::url_path(&(), None);
        Self { url, configuration, webhook: SEAL_WEBHOOK, segment: SEAL }
    }

    /// The warning webhook in the configuration of this name.
    #[must_use]
    pub fn warning(configuration: String) -> Self {
        let url = ValidatingWebhookConfiguration::url_path(&(), None);
        Self { url, configuration, webhook: WARN_WEBHOOK, segment: WARN }
    }

    /// Writes the operator's address and the bundle to trust into the configuration. `trust` takes the present bundle and
    /// returns the wanted one; `None` if the source of the certificate also writes the bundle. A configuration that does not
    /// exist, or does not have the webhook, is not changed: an administrator has turned it off.
    pub async fn inject(
        &self,
        client: &Client,
        reached: &Reached,
        path: &str,
        trust: impl FnOnce(&str) -> Option<String>,
    ) -> Result<(), CallError> {
        let request = Request::new(&self.url);
        let get = request.get(&self.configuration, &GetParams::default()).map_err(CallError::request)?;
        let found: Configuration = match call(client, get).await {
            Err(CallError::Refused(refusal)) if refusal.is_not_found() => return Ok(()),
            found => found?,
        };
        let Some(operations) = self.operations(&found, reached, path, trust) else { return Ok(()) };
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let operations = Patch::<()>::Json(serde_json::from_value(operations).map_err(|_| CallError::Malformed)?);
        let write = request.patch(&self.configuration, &params, &operations).map_err(CallError::request)?;
        call::<serde::de::IgnoredAny>(client, write).await?;
        info!(configuration = self.configuration, "updated the webhook configuration");
        Ok(())
    }

    /// Returns JSON patch operations; `None` if nothing has to change.
    fn operations(
        &self,
        found: &Configuration,
        reached: &Reached,
        path: &str,
        trust: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Value> {
        let index = found.webhooks.iter().position(|webhook| webhook.name == self.webhook)?;
        let present = &found.webhooks.get(index)?.client_config;
        let mut wanted = reached.client_config(&format!("{path}/{}", self.segment));
        let bundle =
            present["caBundle"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
        wanted["caBundle"] = match trust(&String::from_utf8_lossy(&bundle)) {
            Some(bundle) => json!(BASE64_STANDARD.encode(bundle)),
            None => present["caBundle"].clone(),
        };
        let same = ["caBundle", "service", "url"].iter().all(|key| wanted[key] == present[key]);
        (!same).then(|| {
            json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": found.metadata.resource_version},
                {"op": "test", "path": format!("/webhooks/{index}/name"), "value": self.webhook},
                {"op": "replace", "path": format!("/webhooks/{index}/clientConfig"), "value": wanted},
            ])
        })
    }
}
