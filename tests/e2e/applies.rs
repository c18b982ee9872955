//! A stream of plain applies, which counts those that are refused or lost: `make e2e` runs it while it replaces the
//! operator.
//!
//! ```text
//! applies [--namespace NAME] [--objects NUMBER] [--pause MILLISECONDS]
//! ```
//!
//! Each object receives a new plain value after each pause, until standard input ends. Then the last value that the API
//! server accepted for each object must arrive at its target. Prints the counts, each kind of refusal with the time of its
//! first and last, and the longest answer. Fails if an apply was refused, a value was stored as plaintext, or a value was
//! lost.

#![allow(clippy::disallowed_methods, reason = "it applies as other clients do")]

use std::{
    collections::BTreeMap,
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use managed_secrets_api::ManagedSecret;
use serde_json::json;
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

/// How long the last value may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the API server may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// What sealed text begins with.
const SEALED: &str = "mss1.";

#[derive(Parser)]
#[command(
    name = "applies",
    about = "Applies plain values until standard input ends, and counts what is refused or lost"
)]
struct Arguments {
    /// The namespace, which exists.
    #[arg(long, default_value = "applies")]
    namespace: String,
    /// Objects, each with a stream of its own.
    #[arg(long, default_value_t = 5)]
    objects: usize,
    /// Milliseconds between two applies of one object.
    #[arg(long, default_value_t = 500)]
    pause: u64,
}

/// What happened to the applies of one object.
struct Outcome {
    object: String,
    /// The last value that the API server accepted.
    last: Option<String>,
    accepted: usize,
    /// Seconds from the start, and what the API server answered.
    refused: Vec<(f64, String)>,
    longest: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("applies: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool, kube::Error> {
    let client = Client::try_default().await?;
    let (stop, stopped) = watch::channel(false);
    let input_ends = async {
        // An error of the input is its end as well.
        let _ = spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await;
        stop.send_replace(true);
    };
    let pause = Duration::from_millis(arguments.pause);
    let streams = (0..arguments.objects).map(|number| {
        let objects = Api::namespaced(client.clone(), &arguments.namespace);
        apply_until(objects, format!("applied-{number}"), pause, stopped.clone())
    });
    let (outcomes, ()) = tokio::join!(join_all(streams), input_ends);

    let refused: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.refused).collect();
    let accepted: usize = outcomes.iter().map(|outcome| outcome.accepted).sum();
    let secrets = Api::namespaced(client, &arguments.namespace);
    let arrivals = join_all(outcomes.iter().map(|outcome| arrives(&secrets, outcome))).await;
    let lost = arrivals.iter().filter(|arrived| !**arrived).count();
    let longest = outcomes.iter().map(|outcome| outcome.longest).max().unwrap_or_default();
    println!(
        "{} applies, {} refused, {lost} lost, longest answer {longest:.1?}",
        accepted + refused.len(),
        refused.len()
    );
    for (reason, (count, first, last)) in kinds(&refused) {
        println!("  {count} from {first:.1} s to {last:.1} s: {reason}");
    }
    Ok(accepted > 0 && refused.is_empty() && lost == 0)
}

async fn apply_until(
    objects: Api<ManagedSecret>,
    object: String,
    pause: Duration,
    mut stopped: watch::Receiver<bool>,
) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome { object, last: None, accepted: 0, refused: Vec::new(), longest: Duration::ZERO };
    let mut number = 0;
    while !*stopped.borrow() {
        number += 1;
        let value = format!("plain-{}-{number}", outcome.object);
        let sent = Instant::now();
        let answer = timeout(ANSWER, apply(&objects, &outcome.object, &value)).await;
        outcome.longest = outcome.longest.max(sent.elapsed());
        match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(()) => (outcome.accepted, outcome.last) = (outcome.accepted + 1, Some(value)),
            Err(reason) => outcome.refused.push(((sent - began).as_secs_f64(), reason.replace(&outcome.object, "…"))),
        }
        let _ = timeout(pause, stopped.wait_for(|stopped| *stopped)).await;
    }
    outcome
}

/// Applies a plain value. An error says why it was refused, without the value.
async fn apply(objects: &Api<ManagedSecret>, object: &str, value: &str) -> Result<(), String> {
    let name = object.to_uppercase().replace('-', "_");
    let applied = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1",
        "kind": "ManagedSecret",
        "metadata": {"name": object},
        "spec": {"name": name, "value": value},
    });
    let answer = objects.patch(object, &PatchParams::apply("applies").force(), &Patch::Apply(applied)).await;
    let stored = serde_json::to_value(answer.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    match stored["spec"]["value"].as_str() {
        Some(text) if text.starts_with(SEALED) => Ok(()),
        _ => Err("the API server stored a value that is not sealed".to_owned()),
    }
}

/// Whether the last accepted value arrives at the target in time.
async fn arrives(secrets: &Api<Secret>, outcome: &Outcome) -> bool {
    let Some(last) = &outcome.last else { return true };
    let arrived = async {
        loop {
            let delivered = secrets.get(&outcome.object).await.ok().and_then(|secret| secret.data?.remove("value"));
            if delivered.is_some_and(|value| value.0 == last.as_bytes()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, arrived).await.is_ok()
}

/// Each kind of refusal: how many, and the seconds of the first and the last.
fn kinds<'a>(refused: &[&'a (f64, String)]) -> BTreeMap<&'a str, (usize, f64, f64)> {
    let mut kinds = BTreeMap::new();
    for (seconds, reason) in refused {
        let kind = kinds.entry(reason.as_str()).or_insert((0, *seconds, *seconds));
        *kind = (kind.0 + 1, kind.1.min(*seconds), kind.2.max(*seconds));
    }
    kinds
}
