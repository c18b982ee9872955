//! Ways into a cluster: clients, kubeconfigs and kubectl, as an administrator or as another user.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::control_plane::{blocking, kubeconfig_text, pem};
use super::error::{Context, Error, Result};
use super::program::root;

/// How to reach one cluster.
#[derive(Clone, Debug)]
pub struct Access {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    folder: PathBuf,
}

impl Access {
    pub(super) fn new(kubeconfig: PathBuf, kubectl: PathBuf, folder: &Path) -> Self {
        Self { kubeconfig, kubectl, folder: folder.to_owned() }
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl of the cluster's version.
    #[must_use]
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// The administrator's configuration: address, certificate, token.
    pub async fn config(&self) -> Result<Config> {
        config_of(&self.kubeconfig).await
    }

    /// A client as administrator. Each test makes its own: a client lives and dies with its runtime.
    pub async fn admin_client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// The configuration of `user` in `groups` (and `system:authenticated`), by impersonation.
    pub async fn config_as(&self, user: &str, groups: &[&str]) -> Result<Config> {
        let mut config = self.config().await?;
        let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(groups);
        Ok(config)
    }

    /// A client with it.
    pub async fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        Ok(Client::try_from(self.config_as(user, groups).await?)?)
    }

    /// A kubeconfig that speaks as a service account, with a token of one day. It ends with the control plane's folder.
    pub async fn kubeconfig_for(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let config = self.config().await?;
        let accounts = Api::<ServiceAccount>::namespaced(self.admin_client().await?, namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(service_account, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|status| status.token).ok_or_else(|| Error::Format {
            what: "the answer to a token request".to_owned(),
            why: "there is no token in it".to_owned(),
        })?;
        let certificates = config.root_cert.unwrap_or_default();
        let certificates: String = certificates.iter().map(|der| pem("CERTIFICATE", der)).collect();
        let server = config.cluster_url.to_string();
        let text = kubeconfig_text(server.trim_end_matches('/'), certificates.as_bytes(), &token);
        let path = self.folder.join(format!("{namespace}.{service_account}.kubeconfig"));
        // A program that reads it meanwhile sees the old file or this one, and both are valid.
        let fresh = self.folder.join(format!(".{}.kubeconfig", uuid::Uuid::new_v4().simple()));
        fs::write(&fresh, text).context("write", &fresh)?;
        fs::rename(&fresh, &path).context("replace", &path)?;
        Ok(path)
    }

    /// A client that speaks as a service account.
    pub async fn client_of(&self, namespace: &str, service_account: &str) -> Result<Client> {
        let path = self.kubeconfig_for(namespace, service_account).await?;
        Ok(Client::try_from(config_of(&path).await?)?)
    }

    /// Runs kubectl as administrator.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.kubectl_with_input(arguments, "").await
    }

    /// Runs kubectl as administrator, with `input` on its standard input.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<Output> {
        self.kubectl_with(&[], arguments, input).await
    }

    /// The same, with these environment variables besides.
    pub async fn kubectl_with(&self, env: &[(&str, &str)], arguments: &[&str], input: &str) -> Result<Output> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let env: Vec<_> = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (this, input) = (self.clone(), input.to_owned());
        blocking(move || this.run_kubectl(&env, &arguments, &input)).await
    }

    /// Runs kubectl, which must succeed; returns what it printed.
    pub async fn kubectl_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl(arguments).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Format {
            what: format!("kubectl {}", arguments.join(" ")),
            why: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    fn run_kubectl(&self, env: &[(String, String)], arguments: &[OsString], input: &str) -> Result<Output> {
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.folder.join("kubectl-cache"))
            .args(arguments)
            .current_dir(root())
            // No settings of the person who runs the tests.
            .env("KUBERC", "off")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start", &self.kubectl)?;
        if let Some(mut stdin) = child.stdin.take() {
            // kubectl may end without reading it.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().context("wait for", &self.kubectl)
    }
}

/// A client configuration from a kubeconfig file, and from nothing else.
pub async fn config_of(kubeconfig: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
