//! New objects, applied in one burst, until all are delivered: for each source, against a bare client that makes the same
//! writes. Also: requests, CPU seconds and events of a new object.

use std::time::Instant;

use kube::Api;
use managed_secrets_api::ManagedSecret;
use testkit::Result;

use super::{Found, Size, ceiling, fastest, progress};
use crate::{
    bare::{Bare, Template},
    ground::{Ground, Requests},
    load::{self, Deliveries, Source, seconds_since},
    plot::Plot,
    report::{Comparison, Figure, Goal},
    stats::float,
};

const ROW: &str = "burst";
const SAMPLES: &str = "samples";

/// One repetition.
struct Run {
    /// Seconds after the beginning at which each object was delivered.
    delivered: Vec<f64>,
    /// CPU seconds of the operator and of the API server.
    cpu: [f64; 2],
    requests: Requests,
}

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    let mut found = Found::default();
    for source in Source::ALL {
        let template = sample(ground, source).await?;
        let at_once = best_at_once(ground, &template, source, size, &mut found).await?;
        let (mut bare, mut runs) = (Vec::new(), Vec::new());
        for repetition in 1..=size.repetitions {
            progress(&format!("burst, {}: repetition {repetition} of {}", source.field(), size.repetitions));
            bare.push(run_bare(ground, &template, source, size.objects, at_once).await?);
            runs.push(run_operator(ground, source, size.objects, at_once).await?);
        }
        figures(source, size, &bare, &runs, &mut found);
        for (what, bytes) in template.bytes() {
            let what = format!("{}: bytes written for the {what}", source.field());
            found.figures.push(Figure::new(ROW, what, "", vec![float(bytes)]));
        }
    }
    Ok(found)
}

/// What the operator writes for one object.
pub(super) async fn sample(ground: &Ground, source: Source) -> Result<Template> {
    ground.create_namespace(SAMPLES).await?;
    let replica = ground.operator(&[]).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, SAMPLES, source, &key.key, 1).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), SAMPLES);
    load::apply_all(&Api::namespaced(ground.admin.clone(), SAMPLES), &specs, 1).await?;
    deliveries.until_count(1).await?;
    let template = Template::copy(ground, SAMPLES).await?;
    replica.stop().await?;
    ground.empty_namespace(SAMPLES).await?;
    Ok(template)
}

/// The number of objects at once with which the bare client is fastest.
async fn best_at_once(
    ground: &Ground,
    template: &Template,
    source: Source,
    size: Size,
    found: &mut Found,
) -> Result<usize> {
    let objects = (size.objects / 2).max(1);
    let rate = async |at_once| {
        progress(&format!("burst, {}: the bare client with {at_once} objects at once", source.field()));
        Ok(float(objects) / last(&run_bare(ground, template, source, objects, at_once).await?))
    };
    let (best, curve) = fastest(size, rate).await?;
    found.figures.push(Figure::new(ROW, format!("{}: best objects at once", source.field()), "", vec![float(best)]));
    found.plots.push(ceiling(
        format!("ceiling-{}", source.field()),
        format!("A bare client makes the writes of new objects ({})", source.field()),
        curve,
    ));
    Ok(best)
}

/// The bare client delivers a burst; no operator runs.
async fn run_bare(
    ground: &Ground,
    template: &Template,
    source: Source,
    objects: usize,
    at_once: usize,
) -> Result<Vec<f64>> {
    let namespace = "bare";
    ground.create_namespace(namespace).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, namespace, source, &key.key, objects).await?;
    let bare = Bare::new(&ground.bare, namespace, template.clone());
    let mut deliveries = Deliveries::watch(ground.admin.clone(), namespace);
    let users: Api<ManagedSecret> = Api::namespaced(ground.admin.clone(), namespace);
    let began = Instant::now();
    let (delivered, moments) = tokio::join!(bare.deliver_all(&users, &specs, at_once), deliveries.until_count(objects));
    delivered?;
    let delivered = seconds_since(began, &moments?);
    ground.empty_namespace(namespace).await?;
    Ok(delivered)
}

/// The operator delivers a burst.
async fn run_operator(ground: &Ground, source: Source, objects: usize, at_once: usize) -> Result<Run> {
    let namespace = "burst";
    ground.create_namespace(namespace).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, namespace, source, &key.key, objects).await?;
    let replica = ground.operator(&[]).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), namespace);
    let users: Api<ManagedSecret> = Api::namespaced(ground.admin.clone(), namespace);
    let mark = ground.control_plane.audit_mark().await?;
    let before = [replica.cpu()?, ground.api_server_cpu()?];
    let began = Instant::now();
    let (applied, moments) = tokio::join!(load::apply_all(&users, &specs, at_once), deliveries.until_count(objects));
    applied?;
    let delivered = seconds_since(began, &moments?);
    let after = [replica.cpu()?, ground.api_server_cpu()?];
    replica.stop().await?;
    let requests = ground.requests(namespace, mark).await?;
    ground.empty_namespace(namespace).await?;
    Ok(Run { delivered, cpu: [after[0] - before[0], after[1] - before[1]], requests })
}

fn figures(source: Source, size: Size, bare: &[Vec<f64>], runs: &[Run], found: &mut Found) {
    let field = source.field();
    let objects = float(size.objects);
    let per_second = |delivered: &Vec<f64>| objects / last(delivered);
    let ceiling = bare.iter().map(per_second).collect();
    let measured: Vec<f64> = runs.iter().map(|run| per_second(&run.delivered)).collect();
    let against = Comparison::Ratio { to: "bare client", baseline: ceiling };
    found.figures.push(
        Figure::new(ROW, format!("{field}: new objects"), "/s", measured).against(against).goal(Goal::AtLeast(0.9)),
    );
    let cpu = |which: usize| runs.iter().map(|run| run.cpu[which] * 1000.0 / objects).collect();
    let against = Comparison::Ratio { to: "API server", baseline: cpu(1) };
    found.figures.push(Figure::new(ROW, format!("{field}: CPU per object"), "ms", cpu(0)).against(against));
    let reads = if source == Source::Generate { 0.0 } else { 1.0 };
    let goals = [Goal::Exactly(3.0), Goal::Exactly(0.0), Goal::Exactly(reads), Goal::Exactly(0.0)];
    for (kind, goal) in goals.into_iter().enumerate() {
        let (what, _) = Requests::default().kinds()[kind];
        let per_object = runs.iter().map(|run| float(run.requests.kinds()[kind].1) / objects).collect();
        found.figures.push(Figure::new(ROW, format!("{field}: {what} per object"), "", per_object).goal(goal));
    }
    let curve = |delivered: &[f64]| delivered.iter().enumerate().map(|(n, at)| (*at, float(n + 1))).collect();
    let lines = bare.last().map(|bare| ("bare client".to_owned(), curve(bare))).into_iter();
    let lines = lines.chain(runs.last().map(|run| ("operator".to_owned(), curve(&run.delivered)))).collect();
    found.plots.push(Plot {
        file: format!("burst-{field}"),
        title: format!("{} new objects in one burst ({field}), the last repetition", size.objects),
        x: "seconds",
        y: "objects delivered",
        lines,
    });
}

/// When the last one was delivered.
fn last(delivered: &[f64]) -> f64 {
    delivered.iter().copied().fold(0.0, f64::max)
}
