//! What the operator needs: `make bench-sizing`.
//!
//! ```text
//! sizing [--objects NUMBER[,NUMBER…]] [--seconds NUMBER]
//! ```
//!
//! Starts a control plane of its own and the operator, as it was built beside this one. For each number of ManagedSecrets,
//! each with a record and a target, it prints memory and CPU of the operator: while it delivers them, while nothing
//! changes, and at a restart.

#![allow(clippy::disallowed_methods, reason = "it applies as other clients do")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use managed_secrets_api::{ManagedSecret, keys};
use serde_json::{Value, json};
use testkit::{
    ControlPlane, Error, Operator, Options, Result,
    control_plane::{blocking, quiet_address},
    error::Context,
    poll,
    shared::crds,
};

/// The longest that any step may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// The namespace with the ManagedSecrets.
const NAMESPACE: &str = "shop";
/// Applies at the same time.
const AT_ONCE: usize = 16;

#[derive(Parser)]
#[command(name = "sizing", about = "Measures which memory and CPU the operator needs")]
struct Arguments {
    /// Numbers of ManagedSecrets, in ascending order.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1000, 10_000])]
    objects: Vec<usize>,
    /// Seconds for which nothing changes.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sizing: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let control_plane = ControlPlane::start_own(&Options { manifests: crds()?, ..Options::default() }).await?;
    let client = control_plane.access().admin_client().await?;
    for name in [NAMESPACE, keys::DEFAULT_OPERATOR_NAMESPACE] {
        let namespace: Namespace = object(json!({"metadata": {"name": name}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    }
    let mut applied = 0;
    for count in arguments.objects {
        let replica = Replica::start(&control_plane).await?;
        replica.until_delivered(applied).await?;
        let (began, before) = (Instant::now(), replica.cpu()?);
        apply(&client, applied..count).await?;
        replica.until_delivered(count).await?;
        let (took, used) = (began.elapsed(), replica.cpu()?.saturating_sub(before));
        println!("{count} objects, {} of them new: delivered in {took:.1?}, with {used:.1?} of CPU", count - applied);
        applied = count;
        let before = replica.cpu()?;
        tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
        let idle =
            replica.cpu()?.saturating_sub(before).as_secs_f64() / Duration::from_secs(arguments.seconds).as_secs_f64();
        println!(
            "  idle: {} MiB, {idle:.4} of a core; at most {} MiB",
            replica.memory("VmRSS")?,
            replica.memory("VmHWM")?
        );
        replica.operator.stop().await?;

        let began = Instant::now();
        let replica = Replica::start(&control_plane).await?;
        replica.until_started().await?;
        println!("  restart: ready after {:.1?}, at most {} MiB", began.elapsed(), replica.memory("VmHWM")?);
        replica.operator.stop().await?;
    }
    Ok(())
}

/// Applies the ManagedSecrets with these numbers.
async fn apply(client: &Client, numbers: std::ops::Range<usize>) -> Result<()> {
    let objects = Api::<ManagedSecret>::namespaced(client.clone(), NAMESPACE);
    let mut applied = stream::iter(numbers)
        .map(|number| {
            let (objects, name) = (objects.clone(), format!("secret-{number}"));
            async move {
                let object = json!({
                    "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
                    "metadata": {"name": name},
                    "spec": {"name": format!("SECRET_{number}"), "description": "measured", "generate": {}},
                });
                objects.patch(&name, &PatchParams::apply("bench"), &Patch::Apply(&object)).await
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some(done) = applied.next().await {
        done?;
    }
    Ok(())
}

fn object<K: serde::de::DeserializeOwned>(json: Value) -> Result<K> {
    serde_json::from_value(json).map_err(|error| Error::Format { what: "an object".to_owned(), why: error.to_string() })
}

/// One running operator.
struct Replica {
    operator: Operator,
    admin: SocketAddr,
    /// Its folder in `/proc`.
    process: PathBuf,
}

impl Replica {
    async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let here = std::env::current_exe().context("find", Path::new("this program"))?;
        let program = here.ancestors().nth(2).unwrap_or(Path::new(".")).join("managed-secrets");
        let admin = quiet_address()?;
        let listen = format!("--admin-listen={admin}");
        let kubeconfig = control_plane.access().kubeconfig_path();
        let operator = Operator::start(control_plane, program, kubeconfig, &[&listen, "--leader-elect"]).await?;
        let pid = operator.log_path().with_extension("pid");
        let number = fs::read_to_string(&pid).context("read", &pid)?;
        Ok(Self { operator, admin, process: Path::new("/proc").join(number.trim()) })
    }

    /// The answer on a path of its port for probes and metrics; empty if there is none.
    async fn get(&self, path: &str) -> Result<String> {
        let (admin, path) = (self.admin, path.to_owned());
        blocking(move || {
            let mut answer = String::new();
            if let Ok(mut stream) = TcpStream::connect(admin) {
                let asked = write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                if asked.is_err() || stream.read_to_string(&mut answer).is_err() {
                    answer.clear();
                }
            }
            Ok(answer)
        })
        .await
    }

    async fn until_started(&self) -> Result<()> {
        poll("the operator to start", PATIENCE, || async {
            Ok(self.get("/startupz").await?.starts_with("HTTP/1.1 200").then_some(()))
        })
        .await
    }

    async fn until_delivered(&self, count: usize) -> Result<()> {
        self.until_started().await?;
        let wanted = format!("managed_secrets_objects{{reason=\"Served\"}} {count}");
        poll("the values to be delivered", PATIENCE, || async {
            Ok(self.get("/metrics").await?.lines().any(|line| line.trim_end_matches(".0") == wanted).then_some(()))
        })
        .await
    }

    /// CPU time that it has used so far.
    fn cpu(&self) -> Result<Duration> {
        let path = self.process.join("stat");
        let stat = fs::read_to_string(&path).context("read", &path)?;
        // After the name in brackets, user and system time are fields 14 and 15, in hundredths of a second.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// A line of its status, in MiB: `VmRSS`, what it holds now, or `VmHWM`, the most that it has held.
    fn memory(&self, name: &str) -> Result<u64> {
        let path = self.process.join("status");
        let status = fs::read_to_string(&path).context("read", &path)?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let missing = || Error::Format { what: path.display().to_string(), why: format!("no {name}") };
        kib.map(|kib| kib / 1024).ok_or_else(missing)
    }
}
