//! What uses each key: the sealed values and the records of the cluster, as far as the caller may list them.

use std::collections::BTreeMap;

use kube::Api;
use kube::api::ListParams;
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::keys::{ANNO_MAC, TYPE_RECORD};
use managed_secrets_cli::permission::Permission;
use managed_secrets_client::SecretApi;
use managed_secrets_crypto::mac;
use managed_secrets_crypto::mss1::Sealed;

use crate::session::Session;

/// Objects of one page. With their sealed text, a page is a few MB at most.
const PAGE: u32 = 250;

/// How many things use each key, by the key's id; or why that is not known.
pub(super) type Counts = Result<BTreeMap<String, usize>, String>;

/// What uses the keys of a cluster.
#[derive(Debug)]
pub(super) struct Usage {
    /// Sealed values in ManagedSecrets, by the sealing key that their header names. Nothing is opened.
    pub(super) values: Counts,
    /// Records, by the seed that their MAC names.
    pub(super) records: Counts,
}

/// Lists ManagedSecrets and the metadata of records, of all namespaces.
pub(super) async fn read(session: &Session) -> Usage {
    let (values, records) = futures::join!(values(session), records(session));
    Usage { values, records }
}

/// How many sealed values of the cluster use each sealing key.
pub(super) async fn values(session: &Session) -> Counts {
    let objects = Api::<ManagedSecret>::all(session.client.clone());
    let (mut counts, mut params) = (BTreeMap::new(), ListParams::default().limit(PAGE));
    loop {
        let page = objects.list(&params).await.map_err(|error| {
            Permission::to_objects("list").explain("cannot list ManagedSecrets", &error).to_string()
        })?;
        let sealed = page.items.iter().filter_map(|object| object.spec.value.as_ref());
        for key in sealed.filter_map(|sealed| Sealed::key_named(&sealed.0)) {
            *counts.entry(key.to_string()).or_default() += 1;
        }
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => params = params.continue_token(&next),
            _ => return Ok(counts),
        }
    }
}

async fn records(session: &Session) -> Counts {
    let listed = SecretApi::all(session.client.clone()).list_metadata(&format!("type={TYPE_RECORD}")).await;
    let listed = listed
        .map_err(|error| Permission::to("list", "secrets").explain_call("cannot list records", &error).to_string())?;
    let mut counts = BTreeMap::new();
    for metadata in listed {
        let mac = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNO_MAC));
        if let Some(seed) = mac.and_then(|mac| mac::seed_named(mac)) {
            *counts.entry(seed.to_string()).or_default() += 1;
        }
    }
    Ok(counts)
}
