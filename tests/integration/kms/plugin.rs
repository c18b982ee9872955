//! A KMS plugin as a process of its own (`tests/kms`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use managed_secrets_kms::{Plugin as Client, Socket};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{binaries, control_plane::blocking, poll};

/// The variable with the address of a third-party plugin that runs, such as `unix:///run/kms/plugin.sock`.
const GIVEN: &str = "KMS_SOCKET";

/// A plugin that runs, with its keys, until it is dropped.
pub(crate) struct Plugin {
    folder: TempDir,
    program: PathBuf,
    child: Option<Child>,
}

/// The address of the plugin to try: the one of [`GIVEN`] instead of one of this project.
pub(crate) fn given() -> Option<Socket> {
    Some(std::env::var(GIVEN).ok()?.parse().unwrap())
}

impl Plugin {
    /// Starts one, with a key of its own whose id is `1`.
    pub(crate) async fn start() -> Self {
        let program = blocking(binaries::kms_plugin).await.unwrap();
        // The path of a socket is short, so not in the folder of the build.
        let folder = tempfile::Builder::new().prefix("kms").tempdir_in("/tmp").unwrap();
        let mut plugin = Self { folder, program, child: None };
        plugin.run().await;
        plugin
    }

    /// Starts it again after [`stop`](Self::stop).
    pub(crate) async fn run(&mut self) {
        let mut command = Command::new(&self.program);
        for (flag, file) in [("-socket", "kms.sock"), ("-keys", "keys"), ("-faults", "faults"), ("-calls", "calls")] {
            command.arg(flag).arg(self.path(file));
        }
        self.child = Some(command.stdin(Stdio::null()).spawn().unwrap());
        let client = Client::new(&self.socket(), Duration::from_secs(20));
        poll("the KMS plugin to listen", Duration::from_secs(60), || async {
            Ok(std::os::unix::net::UnixStream::connect(client.socket().path()).ok())
        })
        .await
        .unwrap();
    }

    /// Ends the process; the socket's file is removed.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let _ = fs::remove_file(self.path("kms.sock"));
    }

    /// Its address.
    pub(crate) fn socket(&self) -> Socket {
        format!("unix://{}", self.path("kms.sock").display()).parse().unwrap()
    }

    /// What it does wrong from now on; `{}` for nothing.
    pub(crate) fn faults(&self, faults: &Value) {
        self.replace("faults", faults);
    }

    /// Gives it a new key, which encrypts from now on. The older keys decrypt.
    pub(crate) fn rotate(&self, id: &str) {
        let mut keys = self.keys();
        let mut key = [0_u8; 32];
        getrandom::fill(&mut key).unwrap();
        keys["keys"][id] = json!(base64(&key));
        keys["current"] = json!(id);
        self.replace("keys", &keys);
    }

    /// Gives it these keys instead of its own.
    pub(crate) fn hold(&self, keys: &Value) {
        self.replace("keys", keys);
    }

    /// Takes a key from it.
    pub(crate) fn forget(&self, id: &str) {
        let mut keys = self.keys();
        keys["keys"].as_object_mut().unwrap().remove(id).unwrap();
        self.replace("keys", &keys);
    }

    /// The calls so far, by name, each with the id of its key.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn keys(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("keys")).unwrap()).unwrap()
    }

    /// Replaces a file at once, so that no call sees a part of it.
    fn replace(&self, name: &str, content: &Value) {
        let partial = self.path("partial");
        fs::write(&partial, content.to_string()).unwrap();
        fs::rename(partial, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.stop();
    }
}
