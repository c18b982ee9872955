//! A large population: restarts with everything in step, and memory.
//!
//! This row is the last one: its namespaces stay, because their deletion would take longer than the row.
//!
//! The memory of 5 times as many objects is predicted from that of the first population, and from the bytes for each object
//! that a unit test counts.

use std::time::Instant;

use futures::{TryStreamExt as _, stream};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use managed_secrets::controller::timing::OBJECT_BYTES;
use managed_secrets_api::keys;
use serde::Deserialize;
use testkit::Result;

use super::{Found, Size, progress};
use crate::{
    ground::{Ground, Requests, format_error},
    load::{self, Deliveries, Source},
    plot::Plot,
    report::{Comparison, Figure, Goal},
    stats::{Spread, float},
};

const ROW: &str = "many";
const NAMESPACE: &str = "many";
/// The namespace of the objects that are new at a restart.
const FRESH: &str = "fresh";
const FOREIGN: &str = "foreign";
/// Objects that are applied at once.
const AT_ONCE: usize = 32;
/// The second population is that much larger than the first one.
const TIMES: usize = 5;
/// Bytes of a Secret that the operator does not manage.
const FOREIGN_BYTES: usize = 100_000;
/// The number of objects to which the goal of memory belongs.
const GOAL_OBJECTS: usize = 10_000;

/// One restart.
struct Restart {
    /// Seconds until the first new object is delivered, and those of a bare client for the same lists.
    seconds: [f64; 2],
    /// CPU seconds until it is idle.
    cpu: f64,
    /// MiB when it is idle, and at most.
    memory: [f64; 2],
    /// For the objects in step.
    requests: Requests,
}

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    for namespace in [NAMESPACE, FRESH, FOREIGN] {
        ground.create_namespace(namespace).await?;
    }
    let mut found = Found::default();
    // A first run creates keyring and public key.
    ground.operator(&[]).await?.stop().await?;
    let (mut present, mut fresh) = (0, 0);
    let mut rest = Vec::new();
    for count in [0, size.many, size.many * TIMES] {
        if count > present {
            let [rest, most] = grow(ground, present, count).await?;
            let new = count - present;
            present = count;
            found.figures.extend(memory_figures(
                &format!("{count} objects, {new} of them new"),
                count,
                vec![rest],
                vec![most],
            ));
        }
        let restarts = restarts(ground, size, &format!("{count} objects"), &mut fresh).await?;
        restart_figures(count, &restarts, &mut found);
        let idle = idle_cpu(ground, size).await?;
        found.figures.push(Figure::new(ROW, format!("{count} objects: CPU while idle"), "cores", vec![idle]));
        rest.push(column(&restarts, |it| it.memory[0]));
    }
    let [none, first, second] = [0, 1, 2].map(|step| Spread::of(&rest[step]).map_or(f64::NAN, |it| it.median));
    let more = float(size.many * (TIMES - 1));
    let per_object = (second - first) / more;
    let figure = Figure::new(ROW, "memory of one object more", "KiB", vec![per_object * 1024.0]);
    found.figures.push(figure.goal(Goal::AtMost(4.0)));
    let predicted = first + f64::from(OBJECT_BYTES) / f64::from(1 << 20) * more;
    let figure = Figure::new(ROW, format!("{} objects: memory, predicted", size.many * TIMES), "MiB", vec![predicted]);
    let against = Comparison::Ratio { to: "measured", baseline: vec![second] };
    found.figures.push(figure.against(against).goal(Goal::Within(0.15)));

    progress(&format!("many: create {} foreign Secrets", size.many));
    create_foreign(ground, size.many).await?;
    let restarts = restarts(ground, size, "foreign Secrets", &mut fresh).await?;
    let figure = Figure::new(
        ROW,
        format!("{} foreign Secrets of 100 KB beside them: memory", size.many),
        "MiB",
        column(&restarts, |it| it.memory[0]),
    );
    let against = Comparison::Added { to: "without them", baseline: rest[2].clone() };
    // Two starts of the same program differ by so much.
    found.figures.push(figure.against(against).goal(Goal::AtMost(1.0)));
    found.plots.push(Plot {
        file: "memory".to_owned(),
        title: "Memory of the operator at rest".to_owned(),
        x: "objects",
        y: "MiB",
        lines: vec![
            ("measured".to_owned(), vec![(0.0, none), (float(size.many), first), (float(size.many * TIMES), second)]),
            ("predicted".to_owned(), vec![(float(size.many), first), (float(size.many * TIMES), predicted)]),
        ],
    });
    Ok(found)
}

/// Has the operator deliver objects until there are so many. Returns the MiB that it holds then, and has held at most.
async fn grow(ground: &Ground, from: usize, to: usize) -> Result<[f64; 2]> {
    progress(&format!("many: grow from {from} to {to} objects"));
    let replica = ground.operator(&[]).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), NAMESPACE);
    let specs: Vec<_> = (from..to)
        .map(|number| {
            let mut spec = load::spec(number);
            spec[Source::Generate.field()] = serde_json::json!({});
            (load::name(number), spec)
        })
        .collect();
    let objects = Api::namespaced(ground.admin.clone(), NAMESPACE);
    let (applied, delivered) = tokio::join!(load::apply_all(&objects, &specs, AT_ONCE), deliveries.until_count(to));
    applied?;
    delivered?;
    replica.until_idle().await?;
    let memory = replica.memory()?;
    replica.stop().await?;
    Ok(memory)
}

/// The share of a core that the operator uses while nothing happens.
async fn idle_cpu(ground: &Ground, size: Size) -> Result<f64> {
    progress("many: CPU while idle");
    let replica = ground.operator(&[]).await?;
    replica.until_idle().await?;
    let before = replica.cpu()?;
    tokio::time::sleep(size.idle).await;
    let used = replica.cpu()? - before;
    replica.stop().await?;
    Ok(used / size.idle.as_secs_f64())
}

async fn restarts(ground: &Ground, size: Size, what: &str, fresh: &mut usize) -> Result<Vec<Restart>> {
    let mut restarts = Vec::new();
    for repetition in 1..=size.repetitions {
        progress(&format!("many, {what}: restart {repetition} of {}", size.repetitions));
        *fresh += 1;
        restarts.push(restart(ground, *fresh).await?);
    }
    Ok(restarts)
}

async fn restart(ground: &Ground, fresh: usize) -> Result<Restart> {
    let began = Instant::now();
    lists(&ground.bare).await?;
    let bare = began.elapsed().as_secs_f64();

    let mut spec = load::spec(fresh);
    spec[Source::Generate.field()] = serde_json::json!({});
    load::apply(&Api::namespaced(ground.admin.clone(), FRESH), &load::name(fresh), &spec).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), FRESH);
    let mark = ground.control_plane.audit_mark().await?;
    let began = Instant::now();
    let replica = ground.spawn_operator(&[]).await?;
    deliveries.until_count(fresh).await?;
    let seconds = [began.elapsed().as_secs_f64(), bare];
    replica.until_started().await?;
    replica.until_idle().await?;
    let (cpu, memory) = (replica.cpu()?, replica.memory()?);
    replica.stop().await?;
    let requests = ground.requests(NAMESPACE, mark).await?;
    Ok(Restart { seconds, cpu, memory, requests })
}

/// The operator's lists: all ManagedSecrets, and the metadata of records and targets.
async fn lists(client: &Client) -> Result<()> {
    let objects = format!("/apis/{}/{}/managedsecrets?limit=500", keys::GROUP, keys::VERSION);
    let secrets = format!("/api/v1/secrets?limit=500&labelSelector={}", keys::LABEL_ROLE);
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    tokio::try_join!(pages(client, &objects, "application/json"), pages(client, &secrets, metadata)).map(drop)
}

/// A page of a list: what is needed to request the next one.
#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

async fn pages(client: &Client, path: &str, accept: &str) -> Result<()> {
    let mut next = String::new();
    loop {
        let path = if next.is_empty() { path.to_owned() } else { format!("{path}&continue={next}") };
        let request = http::Request::get(path).header("Accept", accept).body(Vec::new());
        let request = request.map_err(|error| format_error("a list", &error))?;
        let page = client.request_text(request).await?;
        let page: Page = serde_json::from_str(&page).map_err(|error| format_error("a list", &error))?;
        next = page.metadata.next;
        if next.is_empty() {
            return Ok(());
        }
    }
}

async fn create_foreign(ground: &Ground, count: usize) -> Result<()> {
    use futures::StreamExt as _;
    let secrets = Api::<Secret>::namespaced(ground.admin.clone(), FOREIGN);
    let create = |number: usize| {
        let secrets = secrets.clone();
        async move {
            let metadata = ObjectMeta { name: Some(format!("foreign-{number}")), ..ObjectMeta::default() };
            let data = Some([("data".to_owned(), ByteString(vec![b'x'; FOREIGN_BYTES]))].into());
            let secret = Secret { metadata, data, ..Secret::default() };
            secrets.create(&PostParams::default(), &secret).await.map(drop)
        }
    };
    Ok(stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)?)
}

fn column(restarts: &[Restart], of: impl Fn(&Restart) -> f64) -> Vec<f64> {
    restarts.iter().map(of).collect()
}

fn restart_figures(count: usize, restarts: &[Restart], found: &mut Found) {
    let mut figure = |what: &str, unit, of: &dyn Fn(&Restart) -> f64, comparison, goal| {
        let figure = Figure::new(ROW, format!("{count} objects: {what}"), unit, column(restarts, of));
        found.figures.push(figure.against(comparison).goal(goal));
    };
    if count > 0 {
        let lists = Comparison::Ratio { to: "bare client, same lists", baseline: column(restarts, |it| it.seconds[1]) };
        figure("seconds to the first new object", "s", &|it| it.seconds[0], lists, Goal::AtMost(1.5));
        figure("CPU of a restart", "s", &|it| it.cpu, Comparison::None, Goal::None);
        figure("writes of a restart", "", &|it| float(it.requests.writes), Comparison::None, Goal::Exactly(0.0));
        let others = |it: &Restart| float(it.requests.reads + it.requests.dry_runs + it.requests.events);
        figure("other requests of a restart", "", &others, Comparison::None, Goal::Exactly(0.0));
    }
    let [rest, most] = [0, 1].map(|which| column(restarts, |it| it.memory[which]));
    found.figures.extend(memory_figures(&format!("{count} objects, after a start"), count, rest, most));
}

/// What a process holds when it is idle, and has held at most: one that has delivered the objects, and one that found them.
fn memory_figures(what: &str, count: usize, rest: Vec<f64>, most: Vec<f64>) -> [Figure; 2] {
    let goal = if count == GOAL_OBJECTS { Goal::AtMost(60.0) } else { Goal::None };
    let at_rest = Comparison::Ratio { to: "at rest", baseline: rest.clone() };
    [
        Figure::new(ROW, format!("{what}: memory at rest"), "MiB", rest).goal(goal),
        Figure::new(ROW, format!("{what}: most memory"), "MiB", most).against(at_rest).goal(Goal::AtMost(1.3)),
    ]
}
