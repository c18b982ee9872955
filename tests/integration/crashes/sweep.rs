//! Runs every scenario once undisturbed, and once for each request at which the operator can die.

use std::{
    collections::BTreeMap,
    future::Future,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use testkit::poll;

use super::{
    super::{
        deaths::{Death, Killer},
        objects::{Site, ready},
        operator::{PATIENCE, Running, Setup, Tap},
        witness::Witness,
    },
    scenarios::{self, Scenario},
    snapshot::{Before, Snapshot},
};

/// Runs side by side.
const WIDTH: usize = 16;
/// More requests than any scenario has: a sweep that gets there goes round in circles.
const MOST: usize = 60;
/// An operator that asks for nothing for so long has done what there was to do.
const QUIET: Duration = Duration::from_millis(400);

/// How a run went.
struct Run {
    end: Snapshot,
    died: bool,
    /// Requests of the operator that lived to the end.
    requests: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_changes_nothing_in_the_end() {
    let began = Instant::now();
    // To look into one: SCENARIO=rename cargo test --test integration crashes -- --nocapture
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let scenarios = scenarios::all().into_iter().filter(|it| it.name.contains(&only));
    let prepared: Vec<_> = side_by_side(scenarios.map(|scenario| async {
        let undisturbed = run(&scenario, None, None).await;
        (Arc::new(scenario), undisturbed)
    }))
    .await;
    let mut failures = Vec::new();
    let mut tails = Vec::new();
    for (scenario, undisturbed) in prepared {
        let undisturbed = match undisturbed {
            Ok(run) => Arc::new(run),
            Err(wrong) => {
                failures.push(format!("{}, undisturbed: {wrong}", scenario.name));
                continue;
            }
        };
        for kind in [Death::Before as fn(usize) -> Death, Death::After] {
            // Another order of events can make a request more: the last one goes on until a run ends without a death.
            for n in 0..=undisturbed.requests {
                let to = if n == undisturbed.requests { MOST } else { n };
                tails.push(sweep(Arc::clone(&scenario), Arc::clone(&undisturbed), kind, n..=to));
            }
        }
    }
    let mut table: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for swept in side_by_side(tails.into_iter()).await {
        let row = table.entry(swept.name).or_default();
        *row = (swept.undisturbed, row.1 + swept.crashes, row.2.max(swept.most));
        failures.extend(swept.wrong);
    }
    for (name, (undisturbed, crashes, most)) in &table {
        println!("{name:<34} {undisturbed:>2} requests; {crashes:>2} crashes; at most {most:>2} requests after one");
    }
    let crashes: usize = table.values().map(|row| row.1).sum();
    println!("{crashes} crashes in {:.0?}", began.elapsed());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs futures as tasks, several at a time.
async fn side_by_side<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks = futures::stream::iter(futures).map(tokio::spawn).buffer_unordered(WIDTH);
    tasks.map(|ended| ended.unwrap()).collect().await
}

/// What a part of a sweep found.
struct Swept {
    name: &'static str,
    /// Requests of the undisturbed run.
    undisturbed: usize,
    /// How often the operator died.
    crashes: usize,
    /// The most requests of the operator after it.
    most: usize,
    /// What was wrong.
    wrong: Vec<String>,
}

/// Lets the operator die at these requests, until it lives to the end.
async fn sweep(
    scenario: Arc<Scenario>,
    undisturbed: Arc<Run>,
    kind: fn(usize) -> Death,
    at: RangeInclusive<usize>,
) -> Swept {
    let name = scenario.name;
    let mut swept = Swept { name, undisturbed: undisturbed.requests, crashes: 0, most: 0, wrong: Vec::new() };
    for n in at {
        match run(&scenario, Some(kind(n)), Some(&undisturbed.end)).await {
            Ok(run) if !run.died => break,
            Ok(run) => swept.most = swept.most.max(run.requests),
            Err(text) => {
                swept.wrong.push(format!("{name}, {:?}: {text}", kind(n)));
                break;
            }
        }
        swept.crashes += 1;
        if n == MOST {
            swept.wrong.push(format!("{name}: no end of requests"));
        }
    }
    swept
}

/// One run of a scenario; an error says what was wrong.
async fn run(scenario: &Scenario, death: Option<Death>, reference: Option<&Snapshot>) -> Result<Run, String> {
    let site = Site::new("crash").await;
    let witness = Witness::of(&site).await;
    let killer = Killer::within(&format!("/namespaces/{}/", site.namespace), death);
    let tap = Arc::clone(&killer.tap);
    let operator = start(&site, &tap).await;
    (scenario.prepare)(site.clone()).await;
    quiet(&tap).await;
    let before = Before::of(&site).await;
    poll("the next second", PATIENCE, || async { Ok(before.is_over().then_some(())) }).await.unwrap();
    let prepared = tap.seen().len();
    killer.arm();
    (scenario.act)(site.clone()).await;

    let requests;
    let end = if settled(&site, scenario, &before, reference, &tap).await {
        requests = tap.seen().len() - prepared;
        operator.stop().await;
        Snapshot::of(&site, &before).await
    } else if tap.is_dead() {
        operator.kill().await;
        let tap = Tap::recording();
        let operator = start(&site, &tap).await;
        settled(&site, scenario, &before, reference, &tap).await;
        requests = tap.seen().iter().filter(|seen| seen.path.contains(&site.namespace)).count();
        operator.stop().await;
        Snapshot::of(&site, &before).await
    } else {
        return Err(format!("did not end: {:?}", Snapshot::of(&site, &before).await));
    };
    if let Some(reference) = reference
        && *reference != end
    {
        return Err(format!("another end (- undisturbed, + this one):\n{}", reference.difference(&end)));
    }
    scenario.allowed.judge(&witness.states().await)?;
    Ok(Run { end, died: tap.is_dead(), requests })
}

async fn start(site: &Site, tap: &Arc<Tap>) -> Running {
    Setup { restarts: true, ..Setup::of(&site.namespace) }.calls(tap).start().await
}

/// Waits until all is as it must be in the end, and stays so; false if the operator died before, or time is over.
async fn settled(
    site: &Site,
    scenario: &Scenario,
    before: &Before,
    reference: Option<&Snapshot>,
    tap: &Arc<Tap>,
) -> bool {
    let done = || async {
        if tap.is_dead() {
            return false;
        }
        let now = Snapshot::of(site, before).await;
        match reference {
            Some(reference) => now == *reference,
            None => {
                now.is_in_step() && now.is_tidy() && (scenario.ended)(&now) && ends_as_it_must(site, scenario).await
            }
        }
    };
    let ended = poll("the end", PATIENCE, || async {
        if !done().await {
            return Ok(tap.is_dead().then_some(false));
        }
        quiet(tap).await;
        Ok(done().await.then_some(true))
    })
    .await;
    ended.unwrap_or(false)
}

async fn ends_as_it_must(site: &Site, scenario: &Scenario) -> bool {
    let objects = site.objects().list(&kube::api::ListParams::default()).await.unwrap().items;
    let ends: BTreeMap<_, _> = objects.iter().map(|it| (it.metadata.name.clone().unwrap(), ready(it))).collect();
    let expected = scenario.ends.iter();
    let expected =
        expected.map(|(name, status, reason)| ((*name).to_owned(), ((*status).to_owned(), (*reason).to_owned())));
    ends == expected.collect()
}

/// Waits until an operator has asked for nothing for a while.
async fn quiet(tap: &Arc<Tap>) {
    let mut last = (tap.seen().len(), Instant::now());
    poll("the operator to be quiet", PATIENCE, || {
        let now = tap.seen().len();
        if now != last.0 {
            last = (now, Instant::now());
        }
        let done = last.1.elapsed() >= QUIET || tap.is_dead();
        async move { Ok(done.then_some(())) }
    })
    .await
    .unwrap();
}
