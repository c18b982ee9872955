//! What the operator costs, against the limit of the machine: `make bench`.
//!
//! ```text
//! bench soak [--minutes NUMBER] [--seed NUMBER] [--objects NUMBER]
//! bench [--rows ROW[,ROW…]] [--objects NUMBER] [--many NUMBER] [--repetitions NUMBER] [--samples NUMBER] [--at-once NUMBER] [--small]
//! ```
//!
//! Starts a control plane of its own with the whole installation, and the operator, as it was built beside this one. Each
//! figure is taken several times, in turn with a baseline on the same control plane: what a bare client needs for the same
//! writes, what a plain request takes. It prints a table with the spread, and writes `figures.json` and a plot of each curve
//! into `target/bench`.
//!
//! Numbers of requests are exact: if one is not what the design says, the program fails.
//!
//! `bench soak` is the long run: see [`soak`].

#![allow(clippy::disallowed_methods, reason = "it applies as other clients do")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints its figures")]

mod bare;
mod ground;
mod load;
mod plot;
mod report;
mod rows;
mod soak;
mod stats;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use testkit::{Result, root};

use self::{
    ground::{Ground, History},
    report::Figure,
    rows::{Found, Size, admission, burst, crypto, drift, fairness, latency, many, progress, reads, rewrap},
};

#[derive(Parser)]
#[command(name = "bench", about = "Measures what the operator costs, against the limit of the machine")]
struct Arguments {
    /// What to measure; everything when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Objects of a burst.
    #[arg(long, default_value_t = 2000)]
    objects: usize,
    /// Objects of a large population, and five times as many.
    #[arg(long, default_value_t = 10_000)]
    many: usize,
    /// How often each figure is taken.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Edits, reads or writes of each repetition whose latency is taken.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Objects that are applied at once, and that the bare client delivers at once; when absent, its best number is searched.
    #[arg(long)]
    at_once: Option<usize>,
    /// A small form, for which the figures of time say nothing: checks that the benchmark runs, and the numbers of requests.
    #[arg(long)]
    small: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Mixed work with a checker outside, while replicas end: make soak.
    Soak(soak::Arguments),
}

/// A row of the benchmark, in the order in which they are measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
enum Row {
    /// New objects in one burst, for each source.
    Burst,
    /// From an edit to its delivery: idle, and while there is other work.
    Latency,
    /// Targets that are deleted at once.
    Drift,
    /// What one namespace costs the others.
    Fairness,
    /// What the webhook adds to a write.
    Admission,
    /// Reads through the value API.
    Reads,
    /// Calls that seal, open and decide.
    Crypto,
    /// Restarts and memory with large populations.
    Many,
    /// A new seed, to which all records of a large population move.
    Rewrap,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("bench: this is not what the design says:\n{}", report::table(&wrong));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints, and returns the figures whose exact goal is missed.
async fn run(arguments: Arguments) -> Result<Vec<Figure>> {
    let size = if arguments.small {
        Size { objects: 20, many: 20, repetitions: 1, samples: 10, idle: Duration::from_secs(1), at_once: Some(8) }
    } else {
        let Arguments { objects, many, repetitions, samples, at_once, .. } = arguments;
        Size { objects, many, repetitions, samples, idle: Duration::from_secs(60), at_once }
    };
    let mut rows = arguments.rows;
    if rows.is_empty() {
        rows.extend(Row::value_variants());
    }
    rows.sort_unstable();
    rows.dedup();
    let folder = root().join("target/bench");
    progress("start a control plane");
    if let Some(Command::Soak(arguments)) = &arguments.command {
        let ground = Ground::start(History::Dropped).await?;
        let figures = soak::run(&ground, arguments).await?;
        println!("{}", report::table(&figures));
        report::write(&folder.join("soak"), &figures)?;
        ground.control_plane.stop().await?;
        return Ok(figures.into_iter().filter(|figure| figure.met() == Some(false)).collect());
    }
    let ground = Ground::start(History::Kept).await?;
    let mut figures = Vec::new();
    for row in rows {
        let found: Found = match row {
            Row::Burst => burst::measure(&ground, size).await?,
            Row::Latency => latency::measure(&ground, size).await?,
            Row::Drift => drift::measure(&ground, size).await?,
            Row::Fairness => fairness::measure(&ground, size).await?,
            Row::Admission => admission::measure(&ground, size).await?,
            Row::Crypto => Box::pin(crypto::measure(&ground, size)).await?,
            Row::Many => many::measure(&ground, size).await?,
            Row::Reads => reads::measure(&ground, size).await?,
            Row::Rewrap => rewrap::measure(&ground, size).await?,
        };
        for plot in &found.plots {
            plot.write(&folder)?;
        }
        println!("{}", report::table(&found.figures));
        figures.extend(found.figures);
        report::write(&folder, &figures)?;
    }
    ground.control_plane.stop().await?;
    Ok(figures.into_iter().filter(report::is_wrong).collect())
}
