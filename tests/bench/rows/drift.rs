//! A drift storm: all targets of a namespace are deleted at once, until all exist again, against a bare client that makes the
//! same writes.

use std::{collections::BTreeSet, pin::pin, time::Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use managed_secrets_api::{ManagedSecret, keys};
use testkit::Result;

use super::{Found, Size, burst, progress};
use crate::{
    bare::{Bare, Template},
    ground::{Ground, Requests, format_error},
    load::{self, Deliveries, Source},
    report::{Comparison, Figure, Goal},
    stats::float,
};

const ROW: &str = "drift";
const SOURCE: Source = Source::Generate;

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    let mut found = Found::default();
    let size = Size { objects: (size.objects / 2).max(1), ..size };
    let template = burst::sample(ground, SOURCE).await?;
    let at_once = burst::best_at_once(ground, &template, SOURCE, size, &mut Found::default()).await?;
    let (mut ceiling, mut rates, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 1..=size.repetitions {
        progress(&format!("drift storm: repetition {repetition} of {}", size.repetitions));
        ceiling.push(run_bare(ground, &template, size.objects, at_once).await?);
        let (rate, asked) = run_operator(ground, size.objects, at_once).await?;
        rates.push(rate);
        requests.push(asked);
    }
    let against = Comparison::Ratio { to: "bare client", baseline: ceiling };
    let figure = Figure::new(ROW, "targets restored", "/s", rates).against(against);
    found.figures.push(figure.goal(Goal::AtLeast(0.9)));
    for (kind, exactly) in [2.0, 0.0, 1.0].into_iter().enumerate() {
        let (what, _) = Requests::default().kinds()[kind];
        let per_target = requests.iter().map(|it| float(it.kinds()[kind].1) / float(size.objects)).collect();
        let figure = Figure::new(ROW, format!("{what} per target"), "", per_target);
        found.figures.push(figure.goal(Goal::Exactly(exactly)));
    }
    Ok(found)
}

/// The bare client restores the targets; no operator runs. Returns targets per second.
async fn run_bare(ground: &Ground, template: &Template, count: usize, at_once: usize) -> Result<f64> {
    let namespace = "bare";
    ground.create_namespace(namespace).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, namespace, SOURCE, &key.key, count).await?;
    let bare = Bare::new(&ground.bare, namespace, template.clone());
    let users: Api<ManagedSecret> = Api::namespaced(ground.admin.clone(), namespace);
    bare.deliver_all(&users, &specs, at_once).await?;
    let objects = users.list(&ListParams::default()).await?.items;
    let restore = async {
        let writes = stream::iter(&objects).map(|object| bare.restore(object)).buffer_unordered(at_once);
        writes.try_collect::<Vec<()>>().await.map(drop)
    };
    let rate = storm(ground, namespace, count, restore).await?;
    ground.delete_namespace(namespace).await?;
    Ok(rate)
}

/// The operator restores the targets. Returns targets per second, and its requests.
async fn run_operator(ground: &Ground, count: usize, at_once: usize) -> Result<(f64, Requests)> {
    let namespace = "drift";
    ground.create_namespace(namespace).await?;
    let replica = ground.operator(&[]).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, namespace, SOURCE, &key.key, count).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), namespace);
    load::apply_all(&Api::namespaced(ground.admin.clone(), namespace), &specs, at_once).await?;
    deliveries.until_count(count).await?;
    let mark = ground.control_plane.audit_mark().await?;
    let rate = storm(ground, namespace, count, async { Ok(()) }).await?;
    // The last requests of the last object follow its target.
    replica.until_idle().await?;
    replica.stop().await?;
    let requests = ground.requests(namespace, mark).await?;
    ground.delete_namespace(namespace).await?;
    Ok((rate, requests))
}

/// Deletes all targets at once, has them restored, and waits until as many exist. Returns targets per second.
async fn storm(
    ground: &Ground,
    namespace: &str,
    count: usize,
    restore: impl Future<Output = Result<()>>,
) -> Result<f64> {
    let secrets = Api::<Secret>::namespaced(ground.admin.clone(), namespace);
    let targets = format!("{}={}", keys::LABEL_ROLE, keys::ROLE_TARGET);
    let before = secrets.list_metadata(&ListParams::default().labels(&targets)).await?;
    let before: BTreeSet<_> = before.items.into_iter().filter_map(|it| it.metadata.uid).collect();
    let metadata = Api::<PartialObjectMeta<Secret>>::namespaced(ground.admin.clone(), namespace);
    let events = watcher(metadata, watcher::Config::default().labels(&targets));
    let mut events = pin!(events.default_backoff().applied_objects());
    // The list that a watch begins with is the old targets.
    let mut old = before.len();
    while old > 0 {
        events.next().await;
        old -= 1;
    }
    let began = Instant::now();
    let delete = async {
        secrets.delete_collection(&DeleteParams::default(), &ListParams::default().labels(&targets)).await?;
        restore.await
    };
    let see = async {
        let mut restored = BTreeSet::new();
        while restored.len() < count {
            let event = events.next().await.ok_or_else(|| format_error("a watch", &"it ended"))?;
            let uid = event.ok().and_then(|it| it.metadata.uid).filter(|uid| !before.contains(uid));
            restored.extend(uid);
        }
        Ok(Instant::now())
    };
    let (deleted, at) = tokio::join!(delete, see);
    deleted?;
    let at: Result<Instant> = at;
    Ok(float(count) / at?.saturating_duration_since(began).as_secs_f64())
}
