//! The operator's program as a process of its own, as in a cluster: it ends with the control plane it runs on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::control_plane::{ControlPlane, blocking, poll};
use super::error::{Context, Error, Result};
use super::supervisor::{Process, Signal, Supervisor};

/// One running operator.
#[derive(Debug)]
pub struct Operator {
    supervisor: Arc<Supervisor>,
    name: String,
}

impl Operator {
    /// Starts `PROGRAM run ARGUMENT…` with the rights of `kubeconfig`. Tests know the program as
    /// `env!("CARGO_BIN_EXE_managed-secrets")`. It serves webhooks only where the arguments say where: several run at once,
    /// and there is one default port. It ends at once: no other replica takes over from it.
    pub async fn start(
        control_plane: &ControlPlane,
        program: impl AsRef<Path>,
        kubeconfig: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::start_with(control_plane, program, kubeconfig, arguments, &[]).await
    }

    /// The same, with these environment variables besides.
    pub async fn start_with(
        control_plane: &ControlPlane,
        program: impl AsRef<Path>,
        kubeconfig: &Path,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let mut process = Process::new(program.as_ref())
            .arg("run")
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("MANAGED_SECRETS_WEBHOOK_LISTEN", "off")
            .env("MANAGED_SECRETS_WEBHOOK_DRAIN", "0");
        for (key, value) in env {
            process = process.env(key, value);
        }
        Self::start_as(control_plane, process).await
    }

    /// Starts it by a command of the caller's, which must replace itself by the program.
    pub async fn start_as(control_plane: &ControlPlane, command: Process) -> Result<Self> {
        let supervisor = Arc::clone(control_plane.supervisor());
        let name = format!("operator-{}", uuid::Uuid::new_v4().simple());
        let this = Self { supervisor: Arc::clone(&supervisor), name: name.clone() };
        blocking(move || supervisor.run(&name, &command)).await?;
        Ok(this)
    }

    /// Starts it again after its end, as it was started before: as a kubelet restarts a container.
    pub async fn start_again(&self) -> Result<()> {
        let (supervisor, name) = (Arc::clone(&self.supervisor), self.name.clone());
        blocking(move || supervisor.run_again(&name)).await
    }

    /// Its exit status, if it has ended.
    #[must_use]
    pub fn ended(&self) -> Option<i32> {
        self.supervisor.exit_code(&self.name)
    }

    /// The id of its process.
    pub fn pid(&self) -> Result<i32> {
        let path = self.log_path().with_extension("pid");
        let text = fs::read_to_string(&path).context("read", &path)?;
        text.trim().parse().map_err(|_| Error::Format { what: path.display().to_string(), why: "no number".to_owned() })
    }

    /// The most memory that this process has held, in KiB.
    pub fn peak_memory(&self) -> Result<u64> {
        let path = PathBuf::from(format!("/proc/{}/status", self.pid()?));
        let status = fs::read_to_string(&path).context("read", &path)?;
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.ok_or_else(|| Error::Format { what: path.display().to_string(), why: "no VmHWM".to_owned() })
    }

    /// SIGKILL, and nothing else: another task may start it again.
    pub fn die(&self) -> Result<()> {
        self.supervisor.signal(&self.name, Signal::Kill)
    }

    /// What it has written to standard output and standard error until now.
    pub fn log(&self) -> Result<String> {
        let path = self.log_path();
        Ok(String::from_utf8_lossy(&fs::read(&path).context("read", &path)?).into_owned())
    }

    /// Where that is kept until the control plane ends.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.supervisor.folder().join(format!("{}.log", self.name))
    }

    /// SIGTERM, and SIGKILL if that does not end it. Returns the exit status: 128 and the signal's number, if a signal ended it.
    pub async fn stop(self) -> Result<i32> {
        let (supervisor, name) = (Arc::clone(&self.supervisor), self.name.clone());
        blocking(move || supervisor.stop(&name)).await?;
        self.exit_code().await
    }

    /// SIGKILL: as a node that loses power.
    pub async fn kill(self) -> Result<()> {
        self.die()?;
        self.exit_code().await.map(drop)
    }

    /// Freezes it: another replica that does not know yet that it is out of date.
    pub fn pause(&self) -> Result<()> {
        self.supervisor.signal(&self.name, Signal::Stop)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.supervisor.signal(&self.name, Signal::Continue)
    }

    /// Waits until it ends by itself, and returns its exit status.
    pub async fn exit_code(&self) -> Result<i32> {
        poll("the operator to end", Duration::from_secs(30), || async { Ok(self.supervisor.exit_code(&self.name)) })
            .await
    }
}
