//! A new seed: all records move to it, while new objects are created one after the other.

use std::{collections::BTreeSet, pin::pin, time::Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use managed_secrets_api::{ManagedSecret, keys};
use managed_secrets_crypto::{
    Kek, SeedId,
    keyring::{Document, KekError, Wrapped},
    mac,
};
use serde_json::json;
use testkit::{Result, control_plane::poll};

use super::{Found, Size, latency::Edited, progress};
use crate::{
    ground::{Ground, OPERATOR_NAMESPACE, PATIENCE, format_error},
    load::{self, Deliveries, Source},
    report::{Comparison, Figure, Goal},
    stats::{float, quantile},
};

const ROW: &str = "rewrap";
const RECORDS: &str = "rewrap";
const NEW: &str = "rewrap-new";
/// Objects that are created at once, before they are measured.
const CREATED_AT_ONCE: usize = 16;

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    progress(&format!("re-wrap: {} records", size.many));
    for namespace in [RECORDS, NEW] {
        ground.create_namespace(namespace).await?;
    }
    let replica = ground.operator(&[]).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, RECORDS, Source::Generate, &key.key, size.many).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), RECORDS);
    load::apply_all(&Api::namespaced(ground.admin.clone(), RECORDS), &specs, CREATED_AT_ONCE).await?;
    deliveries.until_count(size.many).await?;
    drop(deliveries);
    let mut new_objects = Edited::create(ground, NEW, &key.key).await?.create_new_ones();
    let quiet = new_objects.edits(size.samples).await?;

    let mark = ground.control_plane.audit_mark().await?;
    let began = Instant::now();
    let new = replace_seed(ground).await?;
    let mut took = 0.0;
    let moves = async {
        all_moved(ground, new, size.many).await?;
        took = began.elapsed().as_secs_f64();
        Ok(())
    };
    let busy = new_objects.edits_during(moves).await?;
    poll("each status to name its record", PATIENCE, || statuses_name_records(ground)).await?;
    let requests = ground.requests(RECORDS, mark).await?;
    replica.stop().await?;
    for namespace in [RECORDS, NEW] {
        ground.empty_namespace(namespace).await?;
    }

    let mut figures = vec![Figure::new(ROW, format!("{} records re-wrapped", size.many), "s", vec![took])];
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let baseline = vec![quantile(&quiet, part)];
        let figure =
            Figure::new(ROW, format!("new object to delivery meanwhile: {name}"), "ms", vec![quantile(&busy, part)]);
        figures.push(figure.against(Comparison::Ratio { to: "no other work", baseline }));
    }
    for (kind, exactly) in [2.0, 1.0, 0.0, 0.0].into_iter().enumerate() {
        let (what, count) = requests.kinds()[kind];
        let each = Figure::new(ROW, format!("{what} per record"), "", vec![float(count) / float(size.many)]);
        figures.push(each.goal(Goal::Exactly(exactly)));
    }
    Ok(Found { figures, ..Found::default() })
}

/// Adds a new seed to the keyring, active at once: the time in which it is pending says nothing here.
async fn replace_seed(ground: &Ground) -> Result<SeedId> {
    let secrets = Api::<Secret>::namespaced(ground.bare.clone(), OPERATOR_NAMESPACE);
    let data = async |name: &str, key: &str| {
        let bytes = secrets.get(name).await?.data.and_then(|mut data| data.remove(key));
        bytes.map(|bytes| bytes.0).ok_or_else(|| format_error(name, &"it has no data"))
    };
    let content = data(keys::KEYRING_NAME, keys::KEYRING_DATA_KEY).await?;
    let wrong = |error: &dyn ToString| format_error("the keyring", &error.to_string());
    let mut document: Document = serde_json::from_slice(&content).map_err(|error| wrong(&error))?;
    let Some(Wrapped { provider, key_id, .. }) = document.entries.first().map(|entry| entry.wrapped.clone()) else {
        return Err(wrong(&"it is empty"));
    };
    let kek = data(&format!("{}{key_id}", keys::KEK_PREFIX), keys::KEK_DATA_KEY).await?;
    let kek = Kek::new(&kek).map_err(|error| wrong(&error))?;
    let wrap = |bytes: &[u8]| Ok::<_, KekError>(Wrapped::new(provider, key_id, kek.wrap(bytes)?));
    let new = document.add_seed(jiff::Timestamp::now(), wrap).map_err(|error| wrong(&error))?;
    document.activate_seed(new);
    let content = serde_json::to_vec(&document).map_err(|error| wrong(&error))?;
    let patch = Patch::Merge(json!({"data": {keys::KEYRING_DATA_KEY: BASE64_STANDARD.encode(content)}}));
    secrets.patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await?;
    Ok(new)
}

/// Waits until so many records are under this seed.
async fn all_moved(ground: &Ground, seed: SeedId, count: usize) -> Result<()> {
    let records = Api::<PartialObjectMeta<Secret>>::namespaced(ground.admin.clone(), RECORDS);
    let events = watcher(records, watcher::Config::default().fields(&format!("type={}", keys::TYPE_RECORD)));
    let mut events = pin!(events.default_backoff().applied_objects());
    let mut moved = BTreeSet::new();
    while moved.len() < count {
        let event = events.next().await.ok_or_else(|| format_error("a watch", &"it ended"))?;
        let Ok(record) = event else { continue };
        let mac = record.metadata.annotations.as_ref().and_then(|annotations| annotations.get(keys::ANNO_MAC));
        if mac.and_then(|mac| mac::seed_named(mac)) == Some(seed) {
            moved.extend(record.metadata.name);
        }
    }
    Ok(())
}

/// Whether each status names its record at its present version.
async fn statuses_name_records(ground: &Ground) -> Result<Option<()>> {
    let every = kube::api::ListParams::default();
    let objects = Api::<ManagedSecret>::namespaced(ground.admin.clone(), RECORDS).list(&every).await?;
    let of_type = every.fields(&format!("type={}", keys::TYPE_RECORD));
    let records = Api::<Secret>::namespaced(ground.admin.clone(), RECORDS).list_metadata(&of_type).await?;
    let present: BTreeSet<_> =
        records.items.into_iter().filter_map(|it| it.metadata.uid.zip(it.metadata.resource_version)).collect();
    let named = objects.items.into_iter().filter_map(|object| object.status?.record);
    let in_step =
        named.filter(|record| present.contains(&(record.uid.clone(), record.resource_version.clone()))).count();
    Ok((in_step == present.len()).then_some(()))
}
