//! `kubectl msec` on files: what it writes, says and leaves alone. No cluster is needed, and none is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "msec/convert.rs"]
mod convert;
#[path = "msec/hook.rs"]
mod hook;
#[path = "msec/names.rs"]
mod names;
#[path = "msec/nested.rs"]
mod nested;
#[path = "msec/prompt.rs"]
mod prompt;
#[path = "msec/recover.rs"]
mod recover;
#[path = "msec/remarks.rs"]
mod remarks;
#[path = "msec/seal.rs"]
mod seal;
#[path = "msec/validate.rs"]
mod validate;
#[path = "msec/visible.rs"]
mod visible;

use std::{
    env, fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use jiff::Timestamp;
use managed_secrets_crypto::mss1::{PublishedKey, Sealed, SealingKey};
use serde_json::Value;
use tempfile::TempDir;
use zeroize::Zeroizing;

/// The plugin that was built with these tests.
const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-msec");
/// What no output may hold.
const CANARY: &str = "k4n4ry-plaintext";

/// A folder to work in, with a public key; removed in the end.
struct Folder {
    folder: TempDir,
    key: SealingKey,
}

/// What came of a run.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// What must have succeeded: what it printed.
    #[track_caller]
    fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.out
    }

    /// What must have failed: the one line that says why, without a value.
    #[track_caller]
    fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!format!("{self:?}").contains(CANARY), "the output contains a value");
        let mut errors = self.err.lines().filter_map(|line| line.strip_prefix("error: "));
        let error = errors.next().expect("an error line");
        assert!(errors.next().is_none(), "{self:?}");
        error
    }
}

impl Folder {
    fn new() -> Self {
        let this =
            Self { folder: tempfile::tempdir().unwrap(), key: SealingKey::new(Zeroizing::new([7; 32])).unwrap() };
        this.publish("key.json", &this.key);
        this
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn publish(&self, name: &str, key: &SealingKey) {
        let document = PublishedKey::new(key.public().clone(), Timestamp::now()).to_json().unwrap();
        self.write(name, &document);
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path().join(name).parent().unwrap()).unwrap();
        fs::write(self.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        // Git sets its variables for hooks, and they name a repository whatever the folder: tests that are run by a hook
        // would commit to the one that they are of.
        let ours = |name: &str| name.starts_with("MANAGED_SECRETS_") || name.starts_with("GIT_");
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
            command.env_remove(name);
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env_remove("COLUMNS")
            .env("KUBECONFIG", "/nonexistent/kubeconfig");
        command.env("HOME", self.path()).current_dir(self.path()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        finish(self.command(PLUGIN, arguments), input)
    }

    /// `seal` with the folder's key.
    fn seal(&self, arguments: &[&str], input: &str) -> Ran {
        self.run_with(&[&["seal", "--public-key", "key.json"], arguments].concat(), input)
    }

    /// What a sealed text opens to.
    #[track_caller]
    fn open(&self, text: &str, namespace: &str, name: &str) -> String {
        let sealed = Sealed::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let value = sealed.open(&self.key, namespace, name).unwrap();
        String::from_utf8(value.as_bytes().to_vec()).unwrap()
    }
}

#[track_caller]
fn finish(mut command: Command, input: &str) -> Ran {
    let spawned = command.spawn();
    let mut child =
        spawned.unwrap_or_else(|error| panic!("{}: {error}: is it installed?", command.get_program().display()));
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // It may end without reading it.
    let write = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    write.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A manifest of an object in `shop`; the value is written as it is given.
fn manifest(name: &str, value: &str) -> String {
    format!(
        "# {name}: ask Ann\napiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata:\n  namespace: shop\n  \
         name: {name} # the handle\nspec:\n  value: {value} # why\n  name: {}\n",
        name.to_uppercase().replace('-', "_")
    )
}

/// The documents of a stream, by a parser of its own.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}
