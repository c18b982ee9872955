//! A control plane by hand: what `make demo` runs in.
//!
//! ```text
//! controlplane run [--create PATH]… [--namespace NAME]… [--operator] [--keep] -- COMMAND [ARGUMENT]…
//! ```
//!
//! Starts a control plane (or takes the one of `USE_EXISTING_CLUSTER=true`), makes what the manifests hold and the
//! namespaces, installs and starts the operator, and runs the command with `KUBECONFIG` set and kubectl in its `PATH`.
//! `DEMO_FOLDER` is a folder to work in; on a control plane of its own it holds etcd's files, `etcd-data`, and the
//! operator's process id, `operator.pid`. Ends with the command's status, and leaves nothing behind unless told to. A given
//! cluster that holds one of these objects is refused before anything is made there, and in the end only what was made is
//! removed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::Parser;
use managed_secrets::install::manifests;
use managed_secrets_api::keys::{DEFAULT_OPERATOR_NAMESPACE, OPERATOR_NAME};
use testkit::control_plane::quiet_address;
use testkit::error::Context;
use testkit::supervisor::Process;
use testkit::{ControlPlane, Error, Guest, Options, Result};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "controlplane", about = "Runs a command on a control plane of its own")]
enum Arguments {
    /// Runs a command on a control plane that ends with it.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// Manifests (files or folders) of CRDs to create first.
    #[arg(long, value_name = "PATH")]
    create: Vec<PathBuf>,
    /// Namespaces to create.
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// Installs the operator, and starts it before the command: `managed-secrets run`, as it was built beside this one.
    #[arg(long)]
    operator: bool,
    /// Leaves everything running after the command, and says how to reach and how to end it.
    #[arg(long)]
    keep: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments::Run(arguments) = Arguments::parse();
    match run(arguments).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("controlplane: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Run) -> Result<u8> {
    let given = ControlPlane::is_given_one();
    // On one of our own, before its garbage collector looks for resource types.
    let manifests = if given { Vec::new() } else { arguments.create.clone() };
    let control_plane = ControlPlane::start(&Options { manifests, ..Options::default() }).await?;
    let mut guest = Guest::new(control_plane.access());
    // An interrupt ends the command, and then what was made is removed.
    let _interrupted = signal(SignalKind::interrupt())
        .map_err(|source| Error::Io { what: "wait for an interrupt".to_owned(), source })?;
    let outcome = prepare_and_run(&control_plane, &mut guest, &arguments).await;
    if arguments.keep && outcome.is_ok() {
        let kubeconfig = control_plane.access().kubeconfig_path().display().to_string();
        let holder = control_plane.leave_running()?;
        println!("\nLeft running. To look around, and to end it:\n\n  export KUBECONFIG={kubeconfig}\n  kill {holder}");
        return outcome;
    }
    if arguments.operator && !matches!(outcome, Ok(0) | Err(_)) {
        eprintln!("the end of the operator's log:\n{}", control_plane.supervisor().log_end(OPERATOR));
    }
    if given {
        // The operator ends first. An interrupt has ended it already, perhaps together with its supervisor.
        let supervisor = Arc::clone(control_plane.supervisor());
        let _ = testkit::control_plane::blocking(move || supervisor.stop(OPERATOR)).await;
        guest.leave().await?;
    }
    control_plane.stop().await?;
    outcome
}

async fn prepare_and_run(control_plane: &ControlPlane, guest: &mut Guest, arguments: &Run) -> Result<u8> {
    let namespaces: Vec<_> = arguments.namespace.iter().map(|name| vec!["namespace", name.as_str()]).collect();
    let installation = arguments.operator.then(|| installation(control_plane)).transpose()?;
    let installation = installation.map(|file| file.display().to_string());
    let installed: Vec<_> = installation.iter().map(|file| vec!["-f", file.as_str()]).collect();
    if control_plane.is_given() {
        let paths: Vec<_> = arguments.create.iter().map(|path| path.display().to_string()).collect();
        let crds: Vec<_> = paths.iter().map(|path| vec!["-f", path.as_str()]).collect();
        guest.expect_none(&[&crds[..], &namespaces[..], &installed[..]].concat()).await?;
        for crd in &crds {
            guest.create(crd).await?;
            let wait = [&["wait", "--for=condition=Established", "--timeout=60s"], &crd[..]].concat();
            control_plane.access().kubectl_ok(&wait).await?;
        }
    }
    for object in namespaces.iter().chain(&installed) {
        guest.create(object).await?;
    }
    let operator = operator_program()?;
    if arguments.operator {
        start_operator(control_plane, &operator).await?;
    }
    run_command(control_plane, &operator, &arguments.command).await
}

async fn run_command(control_plane: &ControlPlane, operator: &Path, command: &[OsString]) -> Result<u8> {
    let access = control_plane.access();
    let scratch = control_plane.supervisor().folder().to_owned();
    let kubeconfig = access.kubeconfig_path().to_owned();
    let path = search_path(&[access.kubectl_path(), operator])?;
    let command = command.to_owned();
    let status = testkit::control_plane::blocking(move || {
        let program = command.first().cloned().unwrap_or_default();
        Command::new(&program)
            .args(&command[1..])
            .env("KUBECONFIG", kubeconfig)
            .env("KUBERC", "off")
            .env("PATH", path)
            .env("DEMO_FOLDER", scratch)
            .status()
            .map_err(|source| Error::Io { what: format!("start {}", program.display()), source })
    })
    .await?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The name under which the operator is supervised.
const OPERATOR: &str = "operator";

/// The manifests of the operator, all but its Deployment, in a file to create them from.
fn installation(control_plane: &ControlPlane) -> Result<PathBuf> {
    let options = manifests::Options { webhooks: serves_webhooks(control_plane), ..manifests::Options::default() };
    let mut objects = manifests::manifests(&options);
    objects.retain(|object| object["kind"] != "Deployment");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = control_plane.supervisor().folder().join("manifests.json");
    fs::write(&file, list.to_string()).context("write", &file)?;
    Ok(file)
}

/// The API server of a cluster that was given may be anywhere, and cannot be expected to reach a webhook here. There the
/// operator serves none, and plain values are refused.
fn serves_webhooks(control_plane: &ControlPlane) -> bool {
    !control_plane.is_given()
}

/// Runs the operator as its Pod would: as its service account, under its policies.
async fn start_operator(control_plane: &ControlPlane, program: &Path) -> Result<()> {
    let kubeconfig = control_plane.access().kubeconfig_for(DEFAULT_OPERATOR_NAMESPACE, OPERATOR_NAME).await?;
    let program = program.canonicalize().context("find", program)?;
    let process = Process::new(program)
        .arg("run")
        .env("KUBECONFIG", kubeconfig)
        .env("MANAGED_SECRETS_OPERATOR_NAMESPACE", DEFAULT_OPERATOR_NAMESPACE);
    let process = if serves_webhooks(control_plane) {
        let address = quiet_address()?.to_string();
        let process = process.flag("webhook-listen", &address).flag("webhook-url", format!("https://{address}"));
        // No other replica takes over from it.
        process.flag("webhook-drain", "0")
    } else {
        process.flag("webhook-listen", "off")
    };
    control_plane.supervisor().run(OPERATOR, &process)
}

/// `target/debug/managed-secrets`, seen from `target/debug/examples/controlplane`.
fn operator_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("find", Path::new("this program"))?;
    Ok(this.with_file_name("..").join(OPERATOR_NAME))
}

/// Our kubectl and the operator's program before all others of their names.
fn search_path(programs: &[&Path]) -> Result<OsString> {
    let folders = programs.iter().filter_map(|program| program.canonicalize().ok()?.parent().map(Path::to_owned));
    let others = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(folders.chain(std::env::split_paths(&others)))
        .map_err(|error| Error::Format { what: "PATH".to_owned(), why: error.to_string() })
}
