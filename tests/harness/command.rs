//! A control plane by hand: what `make demo` runs in.
//!
//! ```text
//! controlplane run [--apply PATH]… [--operator] [--keep] -- COMMAND [ARGUMENT]…
//! ```
//!
//! Starts a control plane (or takes the one of `USE_EXISTING_CLUSTER=true`), applies the manifests, installs and starts
//! the operator, and runs the command with `KUBECONFIG` set and kubectl in its `PATH`. `DEMO_FOLDER` is a folder to work
//! in; on a control plane of its own it holds etcd's files, `etcd-data`, and the operator's process id, `operator.pid`.
//! Ends with the command's status, and leaves nothing behind unless told to.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use harness::error::Context;
use harness::supervisor::Process;
use harness::{ControlPlane, Error, Options, Result};
use managed_secrets::api::keys::{DEFAULT_OPERATOR_NAMESPACE, OPERATOR_NAME};
use managed_secrets::cli::manifests;

#[path = "lib.rs"]
mod harness;

#[derive(Parser)]
#[command(name = "controlplane", about = "Runs a command on a control plane of its own")]
enum Arguments {
    /// Runs a command on a control plane that ends with it.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// Manifests (files or folders) to apply first.
    #[arg(long, value_name = "PATH")]
    apply: Vec<PathBuf>,
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
    let options = Options { manifests: arguments.apply, ..Options::default() };
    let control_plane = if ControlPlane::is_given_one() {
        let given = ControlPlane::start(&Options::default()).await?;
        // Nobody's installation is to be disturbed, and in the end removed, by a demo.
        if given.access().kubectl(&["get", "crd", CRD]).await?.status.success() {
            return Err(Error::Occupied(CRD));
        }
        given.apply(&options.manifests).await?;
        given
    } else {
        ControlPlane::start(&options).await?
    };
    let access = control_plane.access().clone();
    let operator = operator_program()?;
    if arguments.operator {
        start_operator(&control_plane, &operator).await?;
    }
    let scratch = control_plane.supervisor().folder().to_owned();
    let kubeconfig = access.kubeconfig_path().to_owned();
    let path = search_path(&[access.kubectl_path(), &operator])?;
    let command = arguments.command;
    let status = harness::control_plane::blocking(move || {
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
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    if arguments.keep {
        let kubeconfig = access.kubeconfig_path().display().to_string();
        let holder = control_plane.leave_running()?;
        println!("\nLeft running. To look around, and to end it:\n\n  export KUBECONFIG={kubeconfig}\n  kill {holder}");
    } else {
        if code != 0 && arguments.operator {
            eprintln!("the end of the operator's log:\n{}", control_plane.supervisor().log_end(OPERATOR));
        }
        control_plane.stop().await?;
    }
    Ok(code)
}

/// The name of our custom resource definition.
const CRD: &str = "managedsecrets.managedsecrets.dev";

/// The name under which the operator is supervised.
const OPERATOR: &str = "operator";

/// Installs all but the Deployment, and runs the operator as its Pod would: as its service account, under its policies.
///
/// The API server of a cluster that was given may be anywhere, and cannot be expected to reach a webhook here. There the
/// operator serves none, and plain values are refused.
async fn start_operator(control_plane: &ControlPlane, program: &Path) -> Result<()> {
    let webhooks = !control_plane.is_given();
    let mut objects = manifests::manifests(&manifests::Options { webhooks, ..manifests::Options::default() });
    objects.retain(|object| object["kind"] != "Deployment");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = control_plane.supervisor().folder().join("manifests.json");
    fs::write(&file, list.to_string()).context("write", &file)?;
    control_plane.apply(&[file]).await?;

    let kubeconfig = control_plane.access().kubeconfig_for(DEFAULT_OPERATOR_NAMESPACE, OPERATOR_NAME).await?;
    let program = program.canonicalize().context("find", program)?;
    let process = Process::new(program)
        .arg("run")
        .env("KUBECONFIG", kubeconfig)
        .env("MANAGED_SECRETS_OPERATOR_NAMESPACE", DEFAULT_OPERATOR_NAMESPACE);
    let process = if webhooks {
        let address = free_address()?;
        process.flag("webhook-listen", &address).flag("webhook-url", format!("https://{address}"))
    } else {
        process.flag("webhook-listen", "off")
    };
    control_plane.supervisor().run(OPERATOR, &process)
}

/// An address that nobody listens on.
fn free_address() -> Result<String> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = address.map_err(|source| Error::Io { what: "find a free port".to_owned(), source })?;
    Ok(address.to_string())
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
