//! The program itself, run as a user runs it: arguments, standard input and environment in; status and output out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    io::{Read, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread::JoinHandle,
};

use testkit::{control_plane::blocking, poll};

use super::operator::PATIENCE;

/// The program that was built with these tests.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_managed-secrets");

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit status.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    /// What it printed; it must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out.clone()
    }

    /// The one line that an error is.
    #[track_caller]
    pub(crate) fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        let mut errors = self.err.lines().filter_map(|line| line.strip_prefix("error: "));
        let error = errors.next().expect("an error is said");
        assert!(errors.next().is_none() && self.err.ends_with(&format!("error: {error}\n")), "{self:?}");
        error
    }
}

/// Runs the program to its end. Of the environment, only what is given here is of the product.
pub(crate) async fn run(arguments: &[&str], kubeconfig: Option<&Path>, env: &[(&str, &str)], input: &[u8]) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    clean(&mut command);
    command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/nonexistent/kubeconfig")));
    command.envs(env.iter().copied());
    finish(command, input).await
}

/// Takes from a command's environment what is of the product, or of the person who runs the tests.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MANAGED_SECRETS_") {
            command.env_remove(name);
        }
    }
    // Where nothing is, so that no cluster of the person who runs the tests is found.
    command.env("HOME", "/nonexistent").env_remove("KUBERNETES_SERVICE_HOST").env_remove("COLUMNS");
}

/// Runs a command to its end, however much it reads and writes.
pub(crate) async fn finish(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // It may end without reading it.
    let write = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = read(child.stdout.take().unwrap());
    let err = read(child.stderr.take().unwrap());
    let ended = poll("the program to end", PATIENCE, || {
        let status = child.try_wait().unwrap();
        async move { Ok(status) }
    })
    .await;
    if ended.is_err() {
        child.kill().unwrap();
    }
    let (status, out, err) = blocking(move || {
        write.join().unwrap();
        Ok((child.wait().unwrap(), out.join().unwrap(), err.join().unwrap()))
    })
    .await
    .unwrap();
    assert!(ended.is_ok(), "{command:?} does not end: {err}");
    Ran { code: status.code().unwrap_or(-1), out, err }
}

fn read(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}
