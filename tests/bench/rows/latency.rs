//! From an edit to its delivery: a new sealed value, until the status of its generation is written, which comes last. While
//! nothing else happens, during a burst of new objects, and while many objects follow one changed source.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use kube::Api;
use managed_secrets_api::ManagedSecret;
use managed_secrets_crypto::mss1::PublicKey;
use serde_json::json;
use testkit::Result;

use super::{Found, Size, progress};
use crate::{
    bare::{self, Bare, Template},
    ground::Ground,
    load::{self, Deliveries, Source, milliseconds},
    plot::Plot,
    report::{Comparison, Figure, Goal},
    stats::{float, quantile},
};

const ROW: &str = "latency";
const QUIET: &str = "quiet";
const BARE: &str = "bare";
const CROWD: &str = "crowd";
/// The source that many objects follow.
const UPSTREAM: &str = "upstream";
/// Objects that are applied at once.
const AT_ONCE: usize = 16;
/// The pause after which the operator follows a source at once.
const SOURCE_PAUSE: Duration = Duration::from_secs(61);
/// The quantiles that are reported.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// One object that is edited again and again, or a new object each time.
pub(super) struct Edited {
    namespace: &'static str,
    objects: Api<ManagedSecret>,
    deliveries: Deliveries,
    key: PublicKey,
    edits: usize,
    is_new: bool,
}

impl Edited {
    /// Creates it, and waits until it is delivered.
    pub(super) async fn create(ground: &Ground, namespace: &'static str, key: &PublicKey) -> Result<Self> {
        let objects = Api::namespaced(ground.admin.clone(), namespace);
        let deliveries = Deliveries::watch(ground.admin.clone(), namespace);
        let mut this = Self { namespace, objects, deliveries, key: key.clone(), edits: 0, is_new: false };
        this.edit().await?;
        Ok(this)
    }

    /// From now on, each edit creates another object.
    pub(super) fn create_new_ones(self) -> Self {
        Self { is_new: true, ..self }
    }

    /// Edits it again and again until `storm` has ended. Returns the latency of each edit, also of the last one, which outlasts
    /// the storm.
    pub(super) async fn edits_during<T>(&mut self, storm: impl Future<Output = Result<T>>) -> Result<Vec<f64>> {
        let (mut storm, mut latencies, mut over) = (pin!(storm), Vec::new(), false);
        while !over {
            let mut edit = pin!(self.edit());
            let latency = loop {
                tokio::select! {
                    ended = &mut storm, if !over => {
                        ended?;
                        over = true;
                    }
                    latency = &mut edit => break latency?,
                }
            };
            latencies.push(latency);
        }
        Ok(latencies)
    }

    /// Edits it so many times, one after the other. Returns the latency of each edit.
    pub(super) async fn edits(&mut self, count: usize) -> Result<Vec<f64>> {
        let mut latencies = Vec::new();
        for _ in 0..count {
            latencies.push(self.edit().await?);
        }
        Ok(latencies)
    }

    /// Gives it another value. Returns the milliseconds from the request to its delivery.
    async fn edit(&mut self) -> Result<f64> {
        self.edits += 1;
        let number = if self.is_new { self.edits } else { 0 };
        let (name, mut spec) = (load::name(number), load::spec(number));
        let value = format!("value-{:08}", self.edits);
        spec[Source::Value.field()] = json!(load::sealed(&self.key, self.namespace, &name, &value)?);
        let began = Instant::now();
        let generation = load::apply(&self.objects, &name, &spec).await?.metadata.generation.unwrap_or_default();
        let at = self.deliveries.until_generation(&name, generation).await?;
        Ok(milliseconds(at.saturating_duration_since(began)))
    }
}

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    let mut found = Found::default();
    let (bares, idle) = idle(ground, size, &mut found).await?;
    let burst = beside_a_burst(ground, size).await?;
    let followers = beside_followers(ground, size).await?;
    let during = [("during a burst", &burst), ("behind one changed source", &followers)];
    for (what, latencies) in during {
        for (quantile, share) in QUANTILES {
            let baseline = quantiles(&bares, share);
            let figure = Figure::new(ROW, format!("{what}: {quantile}"), "ms", quantiles(latencies, share));
            found.figures.push(match quantile {
                "p99" => figure.goal(Goal::AtMost(2000.0)),
                _ => figure.against(Comparison::Ratio { to: "bare client, idle", baseline }),
            });
        }
    }
    let lines = [("bare client, idle", &bares), ("operator, idle", &idle)].into_iter().chain(during);
    found.plots.push(Plot {
        file: "latency".to_owned(),
        title: "From an edit to its delivery".to_owned(),
        x: "share of edits, %",
        y: "milliseconds",
        lines: lines.map(|(name, latencies)| curve(name, &latencies.concat())).collect(),
    });
    Ok(found)
}

/// Edits while nothing else happens, in turn with a bare client. Returns the latencies of the bare client and of the operator,
/// by repetition.
async fn idle(ground: &Ground, size: Size, found: &mut Found) -> Result<(Vec<Vec<f64>>, Vec<Vec<f64>>)> {
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
    for (quantile, share) in QUANTILES {
        let against = Comparison::Ratio { to: "bare client", baseline: quantiles(&bares, share) };
        let figure = Figure::new(ROW, format!("idle: {quantile}"), "ms", quantiles(&operators, share)).against(against);
        found.figures.push(figure.goal(if quantile == "p50" { Goal::AtMost(1.5) } else { Goal::None }));
    }
    let edits = float(size.repetitions * size.samples);
    for ((what, count), exactly) in requests.kinds().into_iter().zip([3.0, 2.0, 2.0, 1.0]) {
        let figure = Figure::new(ROW, format!("idle: {what} per edit"), "", vec![float(count) / edits]);
        found.figures.push(figure.goal(Goal::Exactly(exactly)));
    }
    for namespace in [QUIET, BARE] {
        ground.empty_namespace(namespace).await?;
    }
    Ok((bares, operators))
}

/// Edits while a burst of new objects is delivered in another namespace.
async fn beside_a_burst(ground: &Ground, size: Size) -> Result<Vec<Vec<f64>>> {
    let key = ground.public_key().await?.key.clone();
    let mut all = Vec::new();
    for repetition in 1..=size.repetitions {
        progress(&format!("latency, during a burst: repetition {repetition} of {}", size.repetitions));
        for namespace in [QUIET, CROWD] {
            ground.create_namespace(namespace).await?;
        }
        let replica = ground.operator(&[]).await?;
        let mut quiet = Edited::create(ground, QUIET, &key).await?;
        let specs = load::specs(&ground.admin, CROWD, Source::Generate, &key, size.objects).await?;
        let mut deliveries = Deliveries::watch(ground.admin.clone(), CROWD);
        let objects = Api::namespaced(ground.admin.clone(), CROWD);
        let storm = async {
            load::apply_all(&objects, &specs, AT_ONCE).await?;
            deliveries.until_count(specs.len()).await
        };
        all.push(quiet.edits_during(storm).await?);
        replica.stop().await?;
        for namespace in [QUIET, CROWD] {
            ground.empty_namespace(namespace).await?;
        }
    }
    Ok(all)
}

/// Edits while many objects in another namespace follow one changed source.
async fn beside_followers(ground: &Ground, size: Size) -> Result<Vec<Vec<f64>>> {
    for namespace in [QUIET, CROWD] {
        ground.create_namespace(namespace).await?;
    }
    let replica = ground.operator(&[]).await?;
    let key = ground.public_key().await?.key.clone();
    let mut quiet = Edited::create(ground, QUIET, &key).await?;
    let secrets = Api::namespaced(ground.admin.clone(), CROWD);
    load::apply_source(&secrets, UPSTREAM, "value-0").await?;
    progress(&format!("latency: create {} objects with one source", size.many));
    let specs: Vec<_> = (0..size.many)
        .map(|number| {
            let mut spec = load::spec(number);
            spec[Source::ValueFrom.field()] = load::from_source(UPSTREAM);
            (load::name(number), spec)
        })
        .collect();
    let mut deliveries = Deliveries::watch(ground.admin.clone(), CROWD);
    load::apply_all(&Api::namespaced(ground.admin.clone(), CROWD), &specs, AT_ONCE).await?;
    deliveries.until_count(size.many).await?;
    let mut all = Vec::new();
    for repetition in 1..=size.repetitions {
        progress(&format!("latency, behind one changed source: repetition {repetition} of {}", size.repetitions));
        if repetition > 1 {
            // The operator lets new values of one source wait that come within a minute of each other.
            tokio::time::sleep(SOURCE_PAUSE).await;
        }
        load::apply_source(&secrets, UPSTREAM, &format!("value-{repetition}")).await?;
        let version = i64::try_from(repetition).unwrap_or_default() + 1;
        all.push(quiet.edits_during(deliveries.until_version(version, size.many)).await?);
    }
    replica.stop().await?;
    for namespace in [QUIET, CROWD] {
        ground.empty_namespace(namespace).await?;
    }
    Ok(all)
}

fn quantiles(repetitions: &[Vec<f64>], share: f64) -> Vec<f64> {
    repetitions.iter().map(|latencies| quantile(latencies, share)).collect()
}

/// How many percent of the edits took at most how long.
fn curve(name: &str, latencies: &[f64]) -> (String, Vec<(f64, f64)>) {
    let points = (0..=100).map(|percent| (f64::from(percent), quantile(latencies, f64::from(percent) / 100.0)));
    (name.to_owned(), points.collect())
}
