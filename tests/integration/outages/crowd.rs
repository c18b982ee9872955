//! Many ManagedSecrets at once, with the memory that the Deployment gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Instant,
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use managed_secrets_api::{ManagedSecret, keys};
use serde_json::json;

use super::{Length, cluster::Cluster};
use crate::integration::{
    memory::limit,
    objects::{id, ready, sealed},
    operator::public_key,
};

/// Applies at the same time.
const AT_ONCE: usize = 32;
/// Objects a page of a list.
const PAGE: u32 = 500;

/// A cgroup that limits the memory of one replica; removed at the end.
pub(super) struct Limited(PathBuf);

impl Limited {
    /// Limits each of its processes together to so many KiB; `None` where this user may not.
    fn to(kibibytes: u64) -> Option<Self> {
        let name = format!("managed-secrets-{}", uuid::Uuid::new_v4().simple());
        let root = Path::new("/sys/fs/cgroup");
        let bytes = (kibibytes * 1024).to_string();
        // Version 2, and version 1.
        let (folder, limit) = if root.join("cgroup.controllers").exists() {
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(name), "memory.max")
        } else {
            (root.join("memory").join(name), "memory.limit_in_bytes")
        };
        fs::create_dir(&folder).ok()?;
        let this = Self(folder);
        fs::write(this.0.join(limit), bytes).ok()?;
        Some(this)
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// All objects of a kind, page by page.
async fn all<K>(api: &Api<K>, selected: &ListParams) -> Vec<K>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let (mut found, mut params) = (Vec::new(), selected.clone().limit(PAGE));
    loop {
        let page = api.list(&params).await.unwrap();
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return found,
        }
    }
}

fn is_served(object: &ManagedSecret) -> bool {
    ready(object) == ("True".to_owned(), "Served".to_owned())
}

fn value(number: usize) -> String {
    format!("value {number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_at_once_fit_into_the_memory_of_a_replica() {
    // The leader must not change: no replica may end here.
    let length = Length { objects: 8, election: &[], ..Length::asked_for() };
    let limit = limit();
    let limits: Vec<Limited> = (0..2).map_while(|_| Limited::to(limit)).collect();
    if limits.len() < 2 {
        println!("this user may not limit memory with cgroups: the peak is compared with the limit, and nothing ends");
    }
    let folders: Vec<PathBuf> = limits.iter().map(|limited| limited.folder().to_owned()).collect();
    let cluster = Cluster::start_in(length, &folders).await;
    let key = public_key(&cluster.client).await;
    let names: Vec<String> = (0..length.crowd).map(|number| format!("crowd-{number}")).collect();
    let (refused, answered, began) = (AtomicUsize::new(0), cluster.sent().0, Instant::now());
    stream::iter(names.iter().enumerate())
        .for_each_concurrent(AT_ONCE, |(number, name)| {
            let (cluster, refused, key) = (&cluster, &refused, &key);
            async move {
                // Every other one is sealed by the webhook.
                let text = if number % 2 == 0 {
                    value(number)
                } else {
                    sealed(key, &cluster.site.strict(name), &value(number))
                };
                refused.fetch_add(cluster.apply(name, json!({"value": text})).await, SeqCst);
            }
        })
        .await;
    let applied = began.elapsed();
    let objects = cluster.objects();
    let list = async || all(&objects, &ListParams::default()).await;
    cluster
        .until("every object to be served", async || {
            let served = list().await.iter().filter(|object| is_served(object)).count();
            (served == length.crowd + length.objects).then_some(())
        })
        .await;
    let served = began.elapsed();
    let requests = cluster.sent().0 - answered;
    let peaks = |cluster: &Cluster| -> Vec<u64> {
        cluster.pods.iter().map(|pod| pod.operator.peak_memory().unwrap() / 1024).collect()
    };
    let while_running = peaks(&cluster);
    let ids: BTreeSet<String> = list().await.iter().map(id).collect();
    assert_eq!(ids.len(), length.crowd + length.objects);
    let targets = ListParams::default().labels(&format!("{}={}", keys::LABEL_ROLE, keys::ROLE_TARGET));
    let delivered: BTreeMap<String, Secret> =
        all(&cluster.site.secrets(), &targets).await.into_iter().map(|secret| (secret.name_any(), secret)).collect();
    for (number, name) in names.iter().enumerate() {
        let data = delivered[name].data.as_ref().unwrap();
        assert!(data["value"].0 == value(number).as_bytes(), "{name} has another value");
    }
    assert_eq!(cluster.restarts(), 0, "a replica ended");

    // A start lists all of them.
    cluster.restart().await;
    cluster.ready().await;
    let uid = cluster.site.secret("crowd-7").await.unwrap().metadata.uid;
    cluster.site.secrets().delete("crowd-7", &DeleteParams::default()).await.unwrap();
    cluster
        .until("a target to be back", async || {
            cluster.site.secrets().get_opt("crowd-7").await.ok()?.filter(|secret| secret.metadata.uid != uid).map(drop)
        })
        .await;
    let at_start = peaks(&cluster);
    println!(
        "{} objects applied in {applied:.0?}, {} refused at first, all served after {served:.0?}, {:.0} requests a second; \
         peak of each replica {while_running:?} MiB, and {at_start:?} MiB at a start; limit {} MiB",
        length.crowd,
        refused.load(SeqCst),
        requests / served.as_secs_f64(),
        limit / 1024,
    );
    for peak in while_running.iter().chain(&at_start) {
        assert!(*peak < limit / 1024, "{peak} MiB");
    }
    assert_eq!(cluster.restarts(), cluster.pods.len(), "a replica ended");
    cluster.stop().await;
}
