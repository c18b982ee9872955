//! Publishes which authorities to trust for the metrics with TLS.
//!
//! In: the authorities that the rotator of the webhooks' certificate trusts. Out: a `ConfigMap` of the operator's namespace, which
//! Prometheus reads. All replicas know the same authorities, so each of them may write it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use managed_secrets_api::keys::{CA_CONFIGMAP, CA_DATA_KEY};
use managed_secrets_client::{CallError, ObjectApi, Run};
use managed_secrets_engine::backoff::{Backoff, Retries};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::webhook::certificates::Served;

/// The delay after a write that failed.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
/// How often the `ConfigMap` is compared: another client may have changed it.
const LOOK: Duration = Duration::from_secs(60);

/// Publishes until it is dropped. Without authorities of its own, because another program creates the certificate and tells
/// no authority, it publishes nothing.
pub(super) async fn publish(client: Client, namespace: String, served: Arc<Served>) {
    let maps = ObjectApi::namespaced::<ConfigMap>(client, &namespace);
    let mut news = served.bundles();
    let mut retries = Retries::new(RETRY);
    loop {
        let bundle = news.borrow_and_update().clone();
        match put_right(&maps, bundle.as_deref()).await {
            Ok(written) => {
                retries.succeeded();
                if written {
                    info!(configmap = CA_CONFIGMAP, "published the authorities of the metrics' certificate");
                }
                // The sender is part of `served`, so it is not dropped.
                let _ = timeout(LOOK, news.changed()).await;
            }
            Err(error) => {
                warn!(%error, configmap = CA_CONFIGMAP, "could not publish the authorities of the metrics' certificate; will retry");
                sleep(retries.failed()).await;
            }
        }
    }
}

/// Makes the `ConfigMap` say this. Returns whether it was written.
async fn put_right(maps: &ObjectApi, bundle: Option<&str>) -> Result<bool, CallError> {
    let Some(bundle) = bundle else { return Ok(false) };
    let stored: Option<ConfigMap> = maps.get(CA_CONFIGMAP).await?;
    let data = stored.as_ref().and_then(|map| map.data.as_ref());
    if data.and_then(|data| data.get(CA_DATA_KEY)).is_some_and(|text| text == bundle) {
        return Ok(false);
    }
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CA_CONFIGMAP},
        "data": {CA_DATA_KEY: bundle},
    });
    maps.apply::<ConfigMap>(CA_CONFIGMAP, Run::Real, &map).await?;
    Ok(true)
}
