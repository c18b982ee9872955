//! Credential plugins: a program of the kubeconfig (`exec`) that prints credentials.
//!
//! The rules are client-go's (`plugin/pkg/client/auth/exec/exec.go`). A plugin gets standard input only if it is a
//! terminal: otherwise it would read a part of the value that the command is given. kube runs plugins, too, but hands
//! them standard input in any case, once for each client that is made, and drops a token that comes with a certificate.

use std::{io::IsTerminal as _, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::kubeconfig::{Cluster, Exec};
use crate::error::one_line;

/// Tells the plugin what it is asked for.
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";
/// The extension of a cluster that is meant for plugins.
const CLUSTER_EXTENSION: &str = "client.authentication.k8s.io/exec";
/// The kind of question and answer.
const KIND: &str = "ExecCredential";

/// Whether a plugin may talk with the user.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Interaction {
    /// It may use the terminal, if standard input is one, and standard error.
    #[default]
    Allowed,
    /// It may use neither, and is killed with all its children if its answer is no longer wanted: for completion.
    Forbidden,
}

/// Why a plugin gave no credentials. What it printed is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It cannot be started.
    #[error("cannot start the credential plugin {command:?}: {error}{hint}")]
    Start {
        /// Its command.
        command: String,
        /// What the system says.
        error: std::io::Error,
        /// How to install it, behind a separator; empty if the kubeconfig does not say.
        hint: String,
    },
    /// It needs a terminal.
    #[error(
        "the credential plugin {0:?} needs a terminal (interactiveMode: Always) and standard input is not one; give \
         the value with --from-file, or log in first"
    )]
    NoTerminal(String),
    /// It failed.
    #[error("the credential plugin {command:?} failed ({status}); run it directly to see the cause")]
    Failed {
        /// Its command.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// Its answer is not a valid `ExecCredential`.
    #[error("the answer of the credential plugin {command:?} is invalid: {problem}")]
    Answer {
        /// Its command.
        command: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A plugin, as the kubeconfig describes it.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    exec: Exec,
    /// What the plugin is told of the cluster, if the kubeconfig says so.
    cluster: Option<Value>,
    interaction: Interaction,
}

/// What a plugin answers.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Answer {
    /// Bearer token; empty if it is missing.
    #[serde(deserialize_with = "text")]
    pub(super) token: String,
    /// Client certificate and its chain, PEM; empty if it is missing.
    #[serde(deserialize_with = "text")]
    pub(super) client_certificate_data: String,
    /// Its key, PEM.
    #[serde(deserialize_with = "text")]
    pub(super) client_key_data: String,
    /// Until when both may be used; forever if absent.
    pub(super) expiration_timestamp: Option<Timestamp>,
}

impl Plugin {
    /// `authority` is the content of the cluster's CA bundle.
    pub(super) fn new(exec: Exec, cluster: &Cluster, authority: Option<&[u8]>, interaction: Interaction) -> Self {
        let cluster = exec.provide_cluster_info.then(|| about(cluster, authority));
        Self { exec, cluster, interaction }
    }

    /// Runs the plugin. If the future is dropped, the plugin is killed.
    pub(super) async fn run(&self) -> Result<Answer, PluginError> {
        let name = || self.exec.command.clone();
        let is_interactive = self.is_interactive()?;
        let mut command = Command::new(&self.exec.command);
        command.args(&self.exec.args);
        command.envs(self.exec.env.iter().map(|variable| (&variable.name, &variable.value)));
        command.env(EXEC_INFO, self.question(is_interactive).to_string());
        command.stdin(if is_interactive { Stdio::inherit() } else { Stdio::null() }).stdout(Stdio::piped());
        command.kill_on_drop(true);
        if self.interaction == Interaction::Forbidden {
            command.stderr(Stdio::null()).process_group(0);
        }
        let child =
            command.spawn().map_err(|error| PluginError::Start { command: name(), error, hint: self.hint() })?;
        let group = (self.interaction == Interaction::Forbidden).then(|| Group::of(&child)).flatten();
        let output = child.wait_with_output().await.map_err(|error| PluginError::Start {
            command: name(),
            error,
            hint: String::new(),
        })?;
        if let Some(group) = group {
            group.ended();
        }
        if !output.status.success() {
            return Err(PluginError::Failed { command: name(), status: output.status });
        }
        answer(&output.stdout, &self.exec.api_version)
            .map_err(|problem| PluginError::Answer { command: name(), problem })
    }

    fn is_interactive(&self) -> Result<bool, PluginError> {
        let has_terminal = self.interaction == Interaction::Allowed && std::io::stdin().is_terminal();
        match self.exec.interactive_mode.as_str() {
            "Never" => Ok(false),
            "Always" if !has_terminal => Err(PluginError::NoTerminal(self.exec.command.clone())),
            _ => Ok(has_terminal),
        }
    }

    fn question(&self, is_interactive: bool) -> Value {
        let mut spec = json!({"interactive": is_interactive});
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = cluster.clone();
        }
        json!({"kind": KIND, "apiVersion": self.exec.api_version, "spec": spec})
    }

    /// How to install it, in one line and without control characters.
    fn hint(&self) -> String {
        let hint = one_line(&self.exec.install_hint);
        if hint.is_empty() { hint } else { format!("; {hint}") }
    }
}

/// The cluster as `ExecCredentialSpec` describes it
/// (<https://kubernetes.io/docs/reference/config-api/client-authentication.v1/#client-authentication-k8s-io-v1-Cluster>).
fn about(cluster: &Cluster, authority: Option<&[u8]>) -> Value {
    let mut about = json!({"server": cluster.server});
    for (key, text) in [("tls-server-name", &cluster.tls_server_name), ("proxy-url", &cluster.proxy_url)] {
        if !text.is_empty() {
            about[key] = json!(text);
        }
    }
    for (key, is_set) in [
        ("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify),
        ("disable-compression", cluster.disable_compression),
    ] {
        if is_set {
            about[key] = json!(true);
        }
    }
    if let Some(authority) = authority {
        about["certificate-authority-data"] = json!(STANDARD.encode(authority));
    }
    let extension = cluster.extensions.iter().find(|extension| extension.name == CLUSTER_EXTENSION);
    about["config"] = extension.map(|extension| extension.extension.clone()).unwrap_or_default();
    about
}

/// Reads an answer, in JSON or, as client-go does, in YAML.
fn answer(printed: &[u8], version: &str) -> Result<Answer, &'static str> {
    let text = std::str::from_utf8(printed).map_err(|_| "it is not UTF-8")?;
    let document: Value = serde_saphyr::from_str(text).map_err(|_| "it is neither JSON nor YAML")?;
    let field = |key| document.get(key).and_then(Value::as_str).unwrap_or_default();
    if field("kind") != KIND || field("apiVersion") != version {
        return Err("it is not an ExecCredential of the apiVersion that the kubeconfig names");
    }
    let status = document.get("status").filter(|status| !status.is_null()).ok_or("it has no status")?;
    let answer: Answer =
        serde_json::from_value(status.clone()).map_err(|_| "its status has a field whose value has the wrong type")?;
    match (answer.client_certificate_data.is_empty(), answer.client_key_data.is_empty()) {
        (true, true) if answer.token.is_empty() => Err("its status has neither a token nor a certificate with its key"),
        (true, true) | (false, false) => Ok(answer),
        _ => Err("its status must have a certificate and its key, or neither"),
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The processes that a plugin started, which are killed with it.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Option<Self> {
        let id = i32::try_from(child.id()?).ok()?;
        Some(Self(Some(Pid::from_raw(id)?)))
    }

    /// The plugin ended by itself: its number may be another process's by now.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // What has ended already cannot be killed, and need not.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn printed(status: &str) -> Result<Answer, &'static str> {
        answer(format!(r#"{{"kind": "ExecCredential", "apiVersion": "{V1}", "status": {status}}}"#).as_bytes(), V1)
    }

    #[test]
    fn a_token_and_a_certificate_both_count() {
        let both = r#"{"token": "t", "clientCertificateData": "c", "clientKeyData": "k",
            "expirationTimestamp": "2030-01-01T00:00:00Z"}"#;
        let answer = printed(both).unwrap();
        assert_eq!((answer.token.as_str(), answer.client_certificate_data.as_str()), ("t", "c"));
        assert_eq!(answer.expiration_timestamp, Some("2030-01-01T00:00:00Z".parse().unwrap()));
        assert!(printed(r#"{"token": "t"}"#).unwrap().expiration_timestamp.is_none());
        assert!(printed(r#"{"token": null, "clientCertificateData": "c", "clientKeyData": "k"}"#).is_ok());
    }

    #[test]
    fn yaml_is_read_as_well() {
        let text = format!("apiVersion: {V1}\nkind: ExecCredential\nstatus:\n  token: t\n");
        assert_eq!(answer(text.as_bytes(), V1).unwrap().token, "t");
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        for status in
            ["null", "{}", r#"{"token": ""}"#, r#"{"token": 5}"#, r#"{"token": "t", "clientKeyData": "k"}"#, "[]"]
        {
            assert!(printed(status).is_err(), "{status}");
        }
        let beta = r#"{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1beta1", "status": {"token": "t"}}"#;
        for text in ["", "hunter2", "{", beta, "\u{0}"] {
            assert!(answer(text.as_bytes(), V1).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plugin_is_told_of_the_cluster_only_if_asked() {
        let cluster = Cluster { server: "https://a".to_owned(), ..Cluster::default() };
        let exec = Exec { api_version: V1.to_owned(), ..Exec::default() };
        let plugin = |exec| Plugin::new(exec, &cluster, Some(b"ca"), Interaction::Allowed);
        assert_eq!(plugin(exec.clone()).question(false)["spec"], json!({"interactive": false}));
        let told = plugin(Exec { provide_cluster_info: true, ..exec }).question(true);
        let about = json!({"server": "https://a", "certificate-authority-data": "Y2E=", "config": null});
        assert_eq!(told["spec"], json!({"interactive": true, "cluster": about}));
    }
}
