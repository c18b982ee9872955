//! The cluster that `kubectl msec` talks to, compared with the real kubectl: which server, user and namespace, through
//! which proxy, or that there is an error. Both programs call listeners that record what they are sent; no cluster is
//! needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "connection/completion.rs"]
mod completion;
#[path = "connection/corpus.rs"]
mod corpus;
#[path = "connection/dashes.rs"]
mod dashes;
#[path = "connection/kubeconfigs.rs"]
mod kubeconfigs;
#[path = "connection/logins.rs"]
mod logins;
#[path = "connection/plugins.rs"]
mod plugins;
#[path = "connection/pod.rs"]
mod pod;
#[path = "connection/proxies.rs"]
mod proxies;
#[path = "connection/recorder.rs"]
mod recorder;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use testkit::{binaries, control_plane::blocking};
use tokio::process::Command;

/// The plugin that was built with these tests.
const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-msec");
/// The longest that a command may take: neither waits for anything but a listener.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that a test works in, removed in the end.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// What came of a run.
#[derive(Debug)]
struct Ran {
    is_ok: bool,
    err: String,
}

/// The real kubectl.
async fn kubectl() -> PathBuf {
    blocking(binaries::find_or_build).await.unwrap().kubectl
}

/// A command in a folder, with nothing of the environment of the person who runs the tests.
fn command(program: impl AsRef<Path>, folder: &Path) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", folder);
    command.env("KUBERC", "off").current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn finish(mut command: Command) -> Ran {
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{command:?} does not end")).unwrap();
    Ran { is_ok: output.status.success(), err: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// kubectl's request that needs to know nothing of the server, and names the namespace.
const KUBECTL_REQUEST: [&str; 3] = ["create", "token", "probe"];
/// Ours.
const PLUGIN_REQUEST: [&str; 1] = ["list"];
