//! The program itself, run as a user runs it: arguments, standard input and environment in; status and output out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::harness::{control_plane::blocking, poll};

/// The program that was built with these tests.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_managed-secrets");

/// Where a program that is about to be started can listen. Not a port that the system would give: those it also gives to
/// others, in the second until the program listens.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        // The system's begin at 32768, where nobody has changed that.
        let port = 10_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 20_000).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The longest that a command may take that ends by itself: it waits 10 s for a cluster that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

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
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MANAGED_SECRETS_") {
            command.env_remove(name);
        }
    }
    // Where nothing is, so that no cluster of the person who runs the tests is found.
    command.env("HOME", "/nonexistent").env_remove("KUBERNETES_SERVICE_HOST").env_remove("COLUMNS");
    command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/nonexistent/kubeconfig")));
    command.envs(env.iter().copied());
    let mut child = command.spawn().unwrap();
    // It may end without reading it.
    let _ = child.stdin.take().unwrap().write_all(input);
    let ended = poll("the program to end", PATIENCE, || {
        let status = child.try_wait().unwrap();
        async move { Ok(status) }
    })
    .await;
    if ended.is_err() {
        child.kill().unwrap();
    }
    let output = blocking(move || Ok(child.wait_with_output().unwrap())).await.unwrap();
    assert!(ended.is_ok(), "{arguments:?} does not end: {}", String::from_utf8_lossy(&output.stderr));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
