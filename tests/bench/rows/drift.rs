//! A drift storm: all targets of a namespace are deleted at once, until all exist again, against a bare client that makes the
//! same writes.

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    time::Instant,
};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use managed_secrets_api::{ManagedSecret, keys};
use testkit::{Result, control_plane::poll};

use super::{Found, Size, burst, ceiling, fastest, progress};
use crate::{
    bare::{Bare, Template},
    ground::{Ground, PATIENCE, Requests, format_error},
    load::{self, Deliveries, Source},
    report::{Comparison, Figure, Goal},
    stats::float,
};

const ROW: &str = "drift";
const SOURCE: Source = Source::Generate;
/// Objects that are created at once, before they are measured.
const CREATED_AT_ONCE: usize = 16;

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    let mut found = Found::default();
    let size = Size { objects: (size.objects / 2).max(1), ..size };
    let template = burst::sample(ground, SOURCE).await?;
    let count = (size.objects / 2).max(1);
    let rate = async |at_once| {
        progress(&format!("drift storm: the bare client with {at_once} targets at once"));
        run_bare(ground, &template, count, at_once).await
    };
    let (at_once, curve) = fastest(size, rate).await?;
    found.figures.push(Figure::new(ROW, "best targets at once", "", vec![float(at_once)]));
    found.plots.push(ceiling("ceiling-drift".to_owned(), "A bare client restores targets".to_owned(), curve));
    let (mut ceiling, mut rates, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 1..=size.repetitions {
        progress(&format!("drift storm: repetition {repetition} of {}", size.repetitions));
        ceiling.push(run_bare(ground, &template, size.objects, at_once).await?);
        let (rate, asked) = run_operator(ground, size.objects).await?;
        rates.push(rate);
        requests.push(asked);
    }
    let against = Comparison::Ratio { to: "bare client", baseline: ceiling };
    let figure = Figure::new(ROW, "targets restored", "/s", rates).against(against);
    found.figures.push(figure.goal(Goal::AtLeast(0.9)));
    for (kind, exactly) in [2.0, 0.0, 1.0, 1.0].into_iter().enumerate() {
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
    bare.deliver_all(&users, &specs, CREATED_AT_ONCE).await?;
    let objects = users.list(&ListParams::default()).await?.items;
    let objects: HashMap<_, _> = objects.into_iter().map(|object| (object.name_any(), object)).collect();
    let mut ends = pin!(ends(ground, namespace));
    while !matches!(ends.try_next().await, Ok(Some(watcher::Event::InitDone))) {}
    // As the operator does: each as soon as its end is seen, while others are still being deleted.
    let restore = async {
        let ended = ends.filter_map(async |event| match event {
            Ok(watcher::Event::Delete(secret)) => objects.get(&secret.name_any()),
            _ => None,
        });
        let writes = ended.take(count).map(|object| bare.restore(object)).buffer_unordered(at_once);
        writes.try_collect::<Vec<()>>().await.map(drop)
    };
    let rate = storm(ground, namespace, count, restore).await?;
    ground.empty_namespace(namespace).await?;
    Ok(rate)
}

/// The operator restores the targets. Returns targets per second, and its requests.
async fn run_operator(ground: &Ground, count: usize) -> Result<(f64, Requests)> {
    let namespace = "drift";
    ground.create_namespace(namespace).await?;
    let replica = ground.operator(&[]).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, namespace, SOURCE, &key.key, count).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), namespace);
    load::apply_all(&Api::namespaced(ground.admin.clone(), namespace), &specs, CREATED_AT_ONCE).await?;
    deliveries.until_count(count).await?;
    let mark = ground.control_plane.audit_mark().await?;
    let rate = storm(ground, namespace, count, async { Ok(()) }).await?;
    // The last request of each object follows its target.
    poll("each status to name its target", PATIENCE, || statuses_name_targets(ground, namespace)).await?;
    replica.stop().await?;
    let requests = ground.requests(namespace, mark).await?;
    ground.empty_namespace(namespace).await?;
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
    let targets = targets();
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
        Ok(())
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
    let ((), (), at) = tokio::try_join!(delete, restore, see)?;
    Ok(float(count) / at.saturating_duration_since(began).as_secs_f64())
}

/// The label selector of targets.
fn targets() -> String {
    format!("{}={}", keys::LABEL_ROLE, keys::ROLE_TARGET)
}

/// What a watch shows of the targets, the ends of those that are there among it.
fn ends(
    ground: &Ground,
    namespace: &str,
) -> impl Stream<Item = watcher::Result<watcher::Event<PartialObjectMeta<Secret>>>> {
    let metadata = Api::<PartialObjectMeta<Secret>>::namespaced(ground.bare.clone(), namespace);
    watcher(metadata, watcher::Config::default().labels(&targets())).default_backoff()
}

/// `Some` when each status names the uid and the version of its target as it is.
async fn statuses_name_targets(ground: &Ground, namespace: &str) -> Result<Option<()>> {
    let secrets = Api::<Secret>::namespaced(ground.admin.clone(), namespace);
    let secrets = secrets.list_metadata(&ListParams::default().labels(&targets())).await?;
    let mut found: HashMap<_, _> = secrets.items.into_iter().map(|it| (it.name_any(), it.metadata)).collect();
    let objects = Api::<ManagedSecret>::namespaced(ground.admin.clone(), namespace);
    let objects = objects.list(&ListParams::default()).await?.items;
    let is_named = |object: ManagedSecret| {
        let target = object.status.and_then(|status| status.target);
        target.is_some_and(|target| {
            found.remove(&target.name).is_some_and(|secret| {
                secret.uid.as_ref() == Some(&target.uid)
                    && secret.resource_version.as_ref() == Some(&target.resource_version)
            })
        })
    };
    Ok(objects.into_iter().all(is_named).then_some(()))
}
