//! From an edit to its delivery: a new sealed value, until the status of its generation is written, which comes last.

use std::time::Instant;

use kube::Api;
use managed_secrets_api::ManagedSecret;
use managed_secrets_crypto::mss1::PublicKey;
use serde_json::json;
use testkit::Result;

use super::{Found, Size, float, progress};
use crate::{
    bare::{self, Bare, Template},
    ground::Ground,
    load::{self, Deliveries, Source, milliseconds},
    plot::Plot,
    report::{Comparison, Figure, Goal},
    stats::quantile,
};

const ROW: &str = "latency";
const QUIET: &str = "quiet";
const BARE: &str = "bare";
/// The quantiles that are reported, and whether the goal is about them.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// One object that is edited again and again.
pub(crate) struct Edited {
    namespace: &'static str,
    objects: Api<ManagedSecret>,
    deliveries: Deliveries,
    key: PublicKey,
    edits: usize,
}

impl Edited {
    /// Creates it, and waits until it is delivered.
    async fn create(ground: &Ground, namespace: &'static str, key: &PublicKey) -> Result<Self> {
        let objects = Api::namespaced(ground.admin.clone(), namespace);
        let deliveries = Deliveries::watch(ground.admin.clone(), namespace);
        let mut this = Self { namespace, objects, deliveries, key: key.clone(), edits: 0 };
        this.edit().await?;
        Ok(this)
    }

    /// Gives it another value. Returns the milliseconds from the request to its delivery.
    async fn edit(&mut self) -> Result<f64> {
        self.edits += 1;
        let name = load::name(0);
        let mut spec = load::spec(0);
        let value = format!("value-{:08}", self.edits);
        spec[Source::Value.field()] = json!(load::sealed(&self.key, self.namespace, &name, &value)?);
        let began = Instant::now();
        let generation = load::apply(&self.objects, &name, &spec).await?.metadata.generation.unwrap_or_default();
        let at = self.deliveries.until_generation(&name, generation).await?;
        Ok(milliseconds(at.saturating_duration_since(began)))
    }
}

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    for namespace in [QUIET, BARE] {
        ground.create_namespace(namespace).await?;
    }
    let replica = ground.operator(&[format!("--namespace={QUIET}")]).await?;
    let key = ground.public_key().await?.key.clone();
    let mut quiet = Edited::create(ground, QUIET, &key).await?;
    let bare = Bare::new(&ground.bare, BARE, Template::copy(ground, QUIET).await?);
    let follower = tokio::spawn(bare::follow(bare, ground.bare.clone(), BARE.to_owned()));
    let mut baseline = Edited::create(ground, BARE, &key).await?;

    let mark = ground.control_plane.audit_mark().await?;
    let (mut operators, mut bares) = (Vec::new(), Vec::new());
    for repetition in 1..=size.repetitions {
        progress(&format!("latency, idle: repetition {repetition} of {}", size.repetitions));
        let (mut operator, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..size.samples {
            bare.push(baseline.edit().await?);
            operator.push(quiet.edit().await?);
        }
        operators.push(operator);
        bares.push(bare);
    }
    follower.abort();
    replica.stop().await?;
    let requests = ground.requests(QUIET, mark).await?;
    let mut found = Found::default();
    for (what, share) in QUANTILES {
        let of = |repetitions: &[Vec<f64>]| repetitions.iter().map(|it| quantile(it, share)).collect::<Vec<f64>>();
        let against = Comparison::Ratio { to: "bare client", baseline: of(&bares) };
        let figure = Figure::new(ROW, format!("idle: {what}"), "ms", of(&operators)).against(against);
        found.figures.push(figure.goal(if share > 0.9 { Goal::None } else { Goal::AtMost(1.5) }));
    }
    let edits = float(size.repetitions * size.samples);
    for (what, count, exactly) in
        [("writes", requests.writes, 3.0), ("dry runs", requests.dry_runs, 2.0), ("reads", requests.reads, 2.0)]
    {
        let figure = Figure::new(ROW, format!("idle: {what} per edit"), "", vec![float(count) / edits]);
        found.figures.push(figure.goal(Goal::Exactly(exactly)));
    }
    found.plots.push(Plot {
        file: "latency".to_owned(),
        title: "From an edit to its delivery".to_owned(),
        x: "share of edits, %",
        y: "milliseconds",
        lines: vec![curve("bare client, idle", &bares.concat()), curve("operator, idle", &operators.concat())],
    });
    for namespace in [QUIET, BARE] {
        ground.delete_namespace(namespace).await?;
    }
    Ok(found)
}

/// How many percent of the edits took at most how long.
fn curve(name: &str, latencies: &[f64]) -> (String, Vec<(f64, f64)>) {
    let points = (0..=100).map(|percent| (f64::from(percent), quantile(latencies, f64::from(percent) / 100.0)));
    (name.to_owned(), points.collect())
}
