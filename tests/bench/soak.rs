//! A soak: users create, edit, rename and delete objects and damage targets, at half the rate that the operator reaches, with
//! two replicas. In the first half of the time, replicas are stopped and killed; in the second half, memory and latency are
//! judged. A checker looks at every event from outside.

mod actor;
mod balancer;
mod checker;
mod late;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Args;
use futures::future::try_join_all;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Secret};
use kube::{Api, api::ListParams};
use managed_secrets_api::{
    keys::{self, DEFAULT_OPERATOR_NAMESPACE as OPERATOR_NAMESPACE},
    names::record_name,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use testkit::{Result, control_plane::quiet_address, poll};

use self::{
    actor::{Actor, DEADLINE, Operation},
    balancer::Balancer,
    checker::Violation,
    late::Scene,
    seen::Seen,
};
use crate::{
    ground::{Ground, Replica, format_error},
    load::milliseconds,
    report::{Comparison, Figure, Goal},
    rows::progress,
    stats::{float, quantile, slope},
};

const ROW: &str = "soak";
const NAMESPACE: &str = "soak";
/// Users at the same time.
const USERS: usize = 16;
/// How long the highest rate is measured.
const CALIBRATION: Duration = Duration::from_secs(20);
/// Bytes of memory that an operation may cost for ever.
const MAX_LEAK: f64 = 32.0;
/// MiB by which the memory of both replicas may grow without a leak: the number of objects changes, and the allocator keeps
/// pages.
const MAX_GROWTH: f64 = 1.0;
const MIB: f64 = 1_048_576.0;
/// Between two memory figures.
const SAMPLE: Duration = Duration::from_secs(2);

/// The arguments of a soak.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How long it takes, without the measurement of the highest rate.
    #[arg(long, default_value_t = 20.0)]
    minutes: f64,
    /// What the users do follows from it; random when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Objects of all users.
    #[arg(long, default_value_t = 320)]
    objects: usize,
}

/// An operation that is done.
struct Done {
    operation: Operation,
    at: Instant,
    took: Duration,
}

/// Runs it. Returns the figures, or an error if a rule was broken.
pub(crate) async fn run(ground: &Ground, arguments: &Arguments) -> Result<Vec<Figure>> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    progress(&format!("soak: seed {seed}"));
    ground.create_namespace(NAMESPACE).await?;
    let balancer = Balancer::start().await?;
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(start(ground, &balancer).await?);
    }
    let key = ground.public_key().await?.key.clone();
    let watched = Seen::new();
    let tasks = watched.follow(&ground.admin, NAMESPACE);
    let objects = (arguments.objects / USERS).max(1);
    let logs = ground.control_plane.supervisor().folder().to_owned();
    let scene = Arc::new(Scene::new(&ground.admin, NAMESPACE, logs));
    let mut users: Vec<Actor> = (0..USERS)
        .map(|number| Actor::new(&watched, &scene, &ground.admin, NAMESPACE, &key, (seed, number, objects)))
        .collect();

    progress("soak: measure the highest rate");
    let done = work(&mut users, CALIBRATION, Duration::ZERO, &watched).await?;
    let rate = float(done.len()) / CALIBRATION.as_secs_f64();
    let pause = Duration::from_secs_f64(2.0 * float(USERS) / rate.max(0.1));
    let half = Duration::from_secs_f64(arguments.minutes * 30.0);

    progress(&format!("soak: {:.0} operations per second, while replicas end", rate / 2.0));
    let over = AtomicBool::new(false);
    let worked = async {
        let done = work(&mut users, half, pause, &watched).await;
        over.store(true, Relaxed);
        done
    };
    let (disturbed, ended) = tokio::join!(worked, disturb(ground, &balancer, &mut replicas, seed, &over));
    let (disturbed, ended) = (disturbed?, ended?);
    // Each user does one more thing, which outlasts the wait for the next leader.
    work(&mut users, Duration::from_millis(1), Duration::ZERO, &watched).await?;
    let leases = Api::<Lease>::namespaced(ground.admin.clone(), OPERATOR_NAMESPACE);
    let changes = leases.get(keys::OPERATOR_NAME).await?.spec.and_then(|spec| spec.lease_transitions);

    progress("soak: the same, while all replicas run");
    let began = Instant::now();
    over.store(false, Relaxed);
    let worked = async {
        let done = work(&mut users, half, pause, &watched).await;
        over.store(true, Relaxed);
        done
    };
    let (quiet, memory) = tokio::join!(worked, sample_memory(&replicas, began, &over));
    let (quiet, memory) = (quiet?, memory?);
    sweep(ground, &users, &watched, &scene).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let violations = std::mem::take(&mut watched.state.lock().violations);
    for (name, violation) in violations.iter().filter(|(_, violation)| !violation.is_lost()) {
        progress(&format!("soak: {name}: {violation}\n{}", scene.describe(name).await));
    }
    for replica in replicas {
        replica.stop().await?;
    }
    if !violations.is_empty() {
        let lines: Vec<String> =
            violations.iter().map(|(object, violation)| format!("seed {seed}, {object}: {violation}")).collect();
        return Err(format_error("the soak", &lines.join("\n")));
    }
    Ok(figures(rate, &disturbed, ended, changes.unwrap_or_default(), &quiet, began, &memory))
}

async fn start(ground: &Ground, balancer: &Balancer) -> Result<Replica> {
    let (address, url) = (quiet_address()?, format!("https://{}", balancer.address));
    let flags = [
        "--leader-elect".to_owned(),
        format!("--webhook-listen={address}"),
        format!("--webhook-url={url}"),
        // What is late is explained from it.
        "--log-level=info".to_owned(),
        "--log-format=json".to_owned(),
    ];
    let replica = ground.operator(&flags).await?;
    balancer.add(address);
    Ok(replica)
}

/// Has all users work for some time, each of them one operation in every `pause`. Ends early if a rule is broken.
async fn work(users: &mut [Actor], time: Duration, pause: Duration, watched: &Arc<Seen>) -> Result<Vec<Done>> {
    let until = Instant::now() + time;
    let user = async |user: &mut Actor| {
        let (mut done, mut next) = (Vec::new(), Instant::now());
        while Instant::now() < until && watched.state.lock().violations.is_empty() {
            let (operation, took) = user.act().await?;
            done.push(Done { operation, at: Instant::now(), took });
            // Operations that took longer than the pause are not made up for.
            next = (next + pause).max(Instant::now());
            tokio::time::sleep_until(next.min(until).into()).await;
        }
        Ok::<_, testkit::Error>(done)
    };
    Ok(try_join_all(users.iter_mut().map(user)).await?.into_iter().flatten().collect())
}

/// Ends replicas, with notice and without, mostly the leader, and starts others. Returns how many it ended. Fails if one ends
/// by itself.
async fn disturb(
    ground: &Ground,
    balancer: &Balancer,
    replicas: &mut Vec<Replica>,
    seed: u64,
    over: &AtomicBool,
) -> Result<usize> {
    let (mut random, mut ended) = (StdRng::seed_from_u64(seed), 0);
    while !over.load(Relaxed) {
        tokio::time::sleep(Duration::from_secs(random.random_range(3..20))).await;
        replicas.iter().try_for_each(Replica::check)?;
        // The oldest one leads: it was there when the one before it ended.
        let leader = random.random_ratio(3, 4);
        let replica = replicas.remove(if leader { 0 } else { replicas.len() - 1 });
        if random.random() {
            replica.kill().await?;
        } else {
            replica.stop().await?;
        }
        replicas.push(start(ground, balancer).await?);
        ended += 1;
    }
    Ok(ended)
}

/// The memory of all replicas, in MiB, by seconds.
async fn sample_memory(replicas: &[Replica], began: Instant, over: &AtomicBool) -> Result<Vec<(f64, f64)>> {
    let mut samples = Vec::new();
    while !over.load(Relaxed) {
        replicas.iter().try_for_each(Replica::check)?;
        let memory: Result<Vec<f64>> = replicas.iter().map(|replica| Ok(replica.memory()?[0])).collect();
        samples.push((began.elapsed().as_secs_f64(), memory?.into_iter().sum()));
        tokio::time::sleep(SAMPLE).await;
    }
    Ok(samples)
}

/// Compares everything with what it must be, once all users have finished.
async fn sweep(ground: &Ground, users: &[Actor], watched: &Seen, scene: &Scene) {
    let present: BTreeMap<&str, &str> = users.iter().flat_map(Actor::present).collect();
    let expected: BTreeSet<String> = present.values().map(|secret| record_name(secret)).collect();
    let secrets = Api::<Secret>::namespaced(ground.admin.clone(), NAMESPACE);
    let records = ListParams::default().labels(&format!("{}={}", keys::LABEL_ROLE, keys::ROLE_RECORD));
    // The record of an earlier name is deleted after the status is written, and those of deleted objects by Kubernetes.
    let compared = poll("the records to be those of the objects", DEADLINE, || async {
        let found = secrets.list_metadata(&records).await?.items;
        let found: BTreeSet<String> = found.into_iter().filter_map(|record| record.metadata.name).collect();
        Ok((found == expected).then_some(()))
    });
    let compared = compared.await;
    let mut found = watched.state.lock().sweep(&present);
    for (name, violation) in &found {
        progress(&format!("soak: {name}: {violation}\n{}", scene.describe(name).await));
    }
    if compared.is_err() {
        let what = "exactly one record for each object".to_owned();
        found.push(("records".to_owned(), Violation::Lost { what }));
    }
    watched.state.lock().violations.extend(found);
}

fn figures(
    rate: f64,
    disturbed: &[Done],
    ended: usize,
    changes: i32,
    quiet: &[Done],
    began: Instant,
    memory: &[(f64, f64)],
) -> Vec<Figure> {
    let one = |what: &str, unit, value: f64| Figure::new(ROW, what, unit, vec![value]);
    let latency = |done: &[&Done], share| {
        let edits = done.iter().filter(|done| done.operation == Operation::Edit);
        quantile(&edits.map(|done| milliseconds(done.took)).collect::<Vec<f64>>(), share)
    };
    let end = quiet.iter().map(|done| done.at).max().unwrap_or(began);
    let third = end.saturating_duration_since(began) / 3;
    let (first, last): (Vec<&Done>, Vec<&Done>) = (
        quiet.iter().filter(|it| it.at < began + third).collect(),
        quiet.iter().filter(|it| it.at >= began + third * 2).collect(),
    );

    // The first samples are those of a process that still fills its caches.
    let settled = &memory[memory.len() / 5..];
    let mean = settled.iter().map(|(_, mib)| mib).sum::<f64>() / float(settled.len()).max(1.0);
    let (per_second, seconds) =
        (slope(settled), settled.last().map_or(0.0, |last| last.0) - settled.first().map_or(0.0, |first| first.0));
    let disturbed_all: Vec<&Done> = disturbed.iter().collect();
    vec![
        one("highest rate", "operations/s", rate),
        one("operations while replicas end", "", float(disturbed.len())),
        one("replicas ended", "", float(ended)),
        one("changes of leader", "", f64::from(changes)),
        one("latency of an edit while replicas end: p50", "ms", latency(&disturbed_all, 0.5)),
        one("latency of an edit while replicas end: p99", "ms", latency(&disturbed_all, 0.99)),
        one("operations while all run", "", float(quiet.len())),
        one("latency of an edit, last third: p50", "ms", latency(&last, 0.5))
            .against(Comparison::Ratio { to: "first third", baseline: vec![latency(&first, 0.5)] })
            .goal(Goal::AtMost(1.5)),
        one("latency of an edit, last third: p99", "ms", latency(&last, 0.99))
            .against(Comparison::Ratio { to: "first third", baseline: vec![latency(&first, 0.99)] }),
        one("memory of both replicas", "MiB", mean),
        one("memory slope", "MiB/h", per_second * 3600.0),
        one("memory gained while all run", "MiB", per_second * seconds)
            .goal(Goal::AtMost(float(quiet.len()).mul_add(MAX_LEAK / MIB, MAX_GROWTH))),
    ]
}
