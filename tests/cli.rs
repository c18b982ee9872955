//! The command as people call it: what it prints, where, and with which exit code. No cluster is needed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use jiff::Timestamp;
use managed_secrets_crypto::mss1::{PublishedKey, Sealed, SealingKey};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

const VALUE: &str = "Grüße aus dem Kanarienkäfig\n";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_managed-secrets"));
    // No settings, and no cluster, of the person who runs the tests.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MANAGED_SECRETS_")) {
        command.env_remove(name);
    }
    command.env_remove("KUBERNETES_SERVICE_HOST").env("KUBECONFIG", "/nonexistent/kubeconfig").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(mut command: Command, input: &str) -> Output {
    let mut child = command.spawn().unwrap();
    // The command may end without reading it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What ends the operator is a log line as all others: one JSON object, with the exit code.
#[test]
fn with_json_logs_every_line_on_standard_error_is_json() {
    for (arguments, exit, says) in [
        (&["run", "--log-format=json"][..], 3, "kubeconfig"),
        (&["run", "--log-format", "json", "--log-level", "loud=louder"], 2, "--log-level"),
        (&["run", "--log-format=json", "--kek-file", "/nonexistent/kek"], 2, "/nonexistent/kek"),
        (&["run", "--log-format=json", "--webhook-url", "http://a"], 2, "--webhook-url"),
        (&["run", "--log-format=json", "--worker", "8"], 2, "--workers"),
        (&["run", "--log-format=json", "--log-level=off"], 3, "kubeconfig"),
    ] {
        let output = run(command(arguments), "");
        assert_eq!(output.status.code(), Some(exit), "{}", stderr(&output));
        let text = stderr(&output);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = lines.last().unwrap();
        assert!(last["message"].as_str().unwrap().contains(says), "{arguments:?}: {text}");
        assert_eq!((&last["level"], &last["exitCode"]), (&"ERROR".into(), &exit.into()), "{text}");
        assert!(last["timestamp"].is_string() && last["target"].is_string(), "{text}");
    }
    let human = stderr(&run(command(&["run", "--worker", "8"]), ""));
    assert!(human.starts_with("error: "), "{human}");
}

/// A sealing key, and a file with its public half, removed with the folder.
struct Key {
    key: SealingKey,
    file: NamedTempFile,
}

impl Key {
    fn new(seed: u8) -> Self {
        let key = SealingKey::new(Zeroizing::new([seed; 32])).unwrap();
        let file = NamedTempFile::new().unwrap();
        let document = PublishedKey::new(key.public().clone(), Timestamp::now()).to_json().unwrap();
        std::fs::write(&file, document).unwrap();
        Self { key, file }
    }

    fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = run(command(&["--version"]), "");
    assert!(version.status.success());
    assert_eq!(stdout(&version), concat!("managed-secrets ", env!("CARGO_PKG_VERSION"), "\n"));
    for (arguments, part) in [
        (vec!["--help"], "Exit codes:"),
        (vec!["--help"], "Examples:"),
        (vec!["run", "--help"], "MANAGED_SECRETS_NAMESPACE"),
        (vec!["seal", "--help"], "managed-secrets seal --name"),
        (vec!["manifests", "--help"], "--restorer"),
    ] {
        let help = run(command(&arguments), "");
        assert!(help.status.success() && stderr(&help).is_empty());
        assert!(stdout(&help).contains(part), "{arguments:?}");
    }
}

#[test]
fn an_error_is_one_line_and_an_exit_code() {
    let key = Key::new(1);
    for (arguments, input, code, part) in [
        (vec![], "", 2, "requires a subcommand"),
        (vec!["run", "--colour"], "", 2, "unknown option"),
        (vec!["run", "--log-level", "managed_secrets=loud"], "", 2, "--log-level"),
        (vec!["run"], "", 3, "no file that KUBECONFIG names exists"),
        (vec!["seal", "--namespace", "prod"], VALUE, 2, "--name is missing"),
        (vec!["seal", "--name", "db", "--namespace", "prod"], VALUE, 3, "no file that KUBECONFIG names exists"),
        (vec!["seal", "--name", "db", "--namespace", "prod", "--public-key", "/nonexistent"], VALUE, 2, "/nonexistent"),
        (vec!["seal", "--name", "D B", "--namespace", "prod", "--public-key", key.path()], VALUE, 2, "must name"),
        (vec!["seal", "--name", "db", "--namespace", "prod", "--public-key", key.path()], "", 2, "must not be empty"),
        (vec!["seal", "--name", "db", "--namespace", "prod", VALUE], "", 2, "standard input"),
    ] {
        let output = run(command(&arguments), input);
        let text = stderr(&output);
        let errors: Vec<_> = text.lines().filter(|line| !line.starts_with("note: ")).collect();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(errors.len() == 1 && errors[0].starts_with("error: ") && errors[0].contains(part), "{text}");
        assert!(!text.contains("Kanarien"), "the value is in the error");
        assert!(stdout(&output).is_empty());
    }
}

/// A kubeconfig holds credentials, and a file named by mistake may hold anything.
#[test]
fn a_file_that_cannot_be_read_as_expected_is_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let plugin = PathBuf::from(testkit::plugin());
    for content in ["users: [{name: x, user: hunter2}]", "\"hunter2\"", "hunter2: [", "{\"keyId\": [\"hunter2\"]}"] {
        std::fs::write(&file, content).unwrap();
        let path = file.to_str().unwrap();
        let by_environment = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).env("KUBECONFIG", path).env_remove("KUBERNETES_SERVICE_HOST");
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            run(command, VALUE)
        };
        let plugin = plugin.to_str().unwrap();
        for output in [
            by_environment(plugin, &["list"]),
            by_environment(plugin, &["list", "--kubeconfig", path]),
            by_environment(env!("CARGO_BIN_EXE_managed-secrets"), &["run"]),
            by_environment(plugin, &["public-key", "--public-key", path]),
            by_environment(plugin, &["seal", "--name", "db", "-n", "prod", "--public-key", path]),
        ] {
            let text = stderr(&output);
            assert!(!output.status.success() && text.contains("error: "), "{text}");
            assert!(!text.contains("hunter") && stdout(&output).is_empty(), "{text}");
        }
    }
}

#[test]
fn sealed_text_opens_to_the_very_bytes() {
    let key = Key::new(2);
    let output = run(command(&["seal", "--name=db", "--namespace=prod", "--public-key", key.path()]), VALUE);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&key.key.public().fingerprint()));
    let text = stdout(&output);
    let sealed = Sealed::parse(text.strip_suffix('\n').unwrap()).unwrap();
    assert!(sealed.open(&key.key, "prod", "db").unwrap().same_as_bytes(VALUE.as_bytes()));
    assert!(sealed.open(&key.key, "prod", "db2").is_err());
}

#[test]
fn every_scope_can_be_sealed_for() {
    let key = Key::new(3);
    for (scope, places) in [
        (vec!["--scope", "namespace", "--namespace", "prod"], [("prod", "other", true), ("test", "db", false)]),
        (vec!["--scope", "cluster"], [("prod", "other", true), ("test", "db", true)]),
    ] {
        let output = run(command(&[vec!["seal", "--public-key", key.path()], scope].concat()), VALUE);
        let sealed = Sealed::parse(stdout(&output).trim_end()).unwrap();
        for (namespace, name, opens) in places {
            assert_eq!(sealed.open(&key.key, namespace, name).is_ok(), opens, "{namespace}/{name}");
        }
    }
}

#[test]
fn another_key_than_the_pinned_one_is_refused() {
    let (key, other) = (Key::new(4), Key::new(5));
    for (pinned, code) in [(&key, 0), (&other, 1)] {
        let pin = pinned.key.public().fingerprint();
        let arguments = ["seal", "--name=db", "--namespace=prod", "--public-key", key.path(), "--fingerprint", &pin];
        let output = run(command(&arguments), VALUE);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert_eq!(stdout(&output).is_empty(), code != 0);
    }
}

#[test]
fn flags_can_be_given_in_the_environment() {
    let key = Key::new(6);
    let mut command = command(&["seal"]);
    command.env("MANAGED_SECRETS_NAME", "db").env("MANAGED_SECRETS_NAMESPACE", "prod");
    command.env("MANAGED_SECRETS_PUBLIC_KEY", key.path());
    let output = run(command, VALUE);
    let sealed = Sealed::parse(stdout(&output).trim_end()).unwrap();
    assert!(sealed.fits("prod", "db").is_ok());
}

#[test]
fn manifests_follow_their_flags() {
    let arguments = [
        "manifests",
        "--operator-namespace=vault",
        "--image=example.com/x:1",
        "--namespace=shop",
        "--restorer=velero",
        "--kek-file=/kek",
        "--allow-cluster-scope",
        "--without-policy=user-rights",
    ];
    let output = run(command(&arguments), "");
    let text = stdout(&output);
    for part in [
        "namespace: vault",
        "example.com/x:1",
        "--namespace=shop",
        "'velero'",
        "--kek-file=/kek",
        "--allow-cluster-scope",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("managed-secrets-user-rights"));
}

/// `managed-secrets manifests | head -1` must end quietly enough: no panic.
#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = command(&["manifests"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}
