//! Credentials that end while the operator runs: by a credential plugin, and in a token file.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, PostParams},
};
use managed_secrets_api::keys;
use serde_json::{Value, json};
use testkit::{Operator, poll};

use super::{
    installation::{self, OPERATOR_NAMESPACE},
    objects::Site,
    operator::PATIENCE,
    program::PROGRAM,
};

const V1: &str = "client.authentication.k8s.io/v1";

/// A token of the operator that holds as long as a Secret exists.
struct Token {
    text: String,
    secret: String,
}

impl Token {
    async fn new() -> Self {
        let client = installation::admin().await;
        let object = json!({"metadata": {"generateName": "token-"}});
        let secrets = Api::<Secret>::namespaced(client.clone(), OPERATOR_NAMESPACE);
        let secret = secrets.create(&PostParams::default(), &installation::object(object)).await.unwrap().metadata;
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            name: secret.name.clone(),
            uid: secret.uid,
        };
        let spec = TokenRequestSpec { bound_object_ref: Some(bound), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts = Api::<ServiceAccount>::namespaced(client, OPERATOR_NAMESPACE);
        let answer =
            accounts.create_token_request(keys::OPERATOR_NAME, &PostParams::default(), &request).await.unwrap();
        Self { text: answer.status.unwrap().token.unwrap(), secret: secret.name.unwrap() }
    }

    /// Waits until the API server refuses it: it remembers for 10 seconds that a token is good.
    async fn revoke(self) {
        let access = installation::control_plane().await.access();
        let secrets = Api::<Secret>::namespaced(installation::admin().await, OPERATOR_NAMESPACE);
        secrets.delete(&self.secret, &DeleteParams::default()).await.unwrap();
        let mut config = access.config().await.unwrap();
        config.auth_info = kube::config::AuthInfo { token: Some(self.text.into()), ..Default::default() };
        let client = Client::try_from(config).unwrap();
        poll("the token to be refused", PATIENCE, || async {
            let answer = client.apiserver_version().await;
            Ok(matches!(answer, Err(Error::Api(status)) if status.code == 401).then_some(()))
        })
        .await
        .unwrap();
    }
}

/// A folder for what a kubeconfig names; it ends with the control plane.
async fn folder() -> PathBuf {
    let access = installation::control_plane().await.access();
    let name = format!("credentials-{}", uuid::Uuid::new_v4().simple());
    let folder = access.kubeconfig_path().parent().unwrap().join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

/// Starts the operator with a kubeconfig in this folder whose user is this.
async fn start(site: &Site, folder: &Path, user: Value) -> Operator {
    let control_plane = installation::control_plane().await;
    let text = fs::read_to_string(control_plane.access().kubeconfig_path()).unwrap();
    // JSON, as the harness writes it.
    let mut kubeconfig: Value = serde_json::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"] = user;
    let path = folder.join("config");
    fs::write(&path, kubeconfig.to_string()).unwrap();
    Operator::start(control_plane, PROGRAM, &path, &["--namespace", &site.namespace]).await.unwrap()
}

async fn serve(site: &Site, name: &str) {
    site.apply(name, json!({"name": name.to_uppercase(), "generate": {}})).await;
    site.served(name).await;
}

/// A plugin whose n-th run prints `answer-n`.
fn plugin(folder: &Path) -> Value {
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\" && echo run >> runs && exec cat \"answer-$(grep -c run runs)\"\n";
    let path = folder.join("login.sh");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    json!({"exec": {"apiVersion": V1, "command": "./login.sh", "interactiveMode": "Never"}})
}

fn answer(folder: &Path, number: usize, token: &Token, until: Timestamp) {
    let status = json!({"token": token.text, "expirationTimestamp": until.to_string()});
    let answer = json!({"kind": "ExecCredential", "apiVersion": V1, "status": status});
    fs::write(folder.join(format!("answer-{number}")), answer.to_string()).unwrap();
}

fn runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs")).unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_runs_again_when_its_answer_is_refused_or_has_expired_and_only_then() {
    let (site, folder) = (Site::new("plugin").await, folder().await);
    let tokens = [Token::new().await, Token::new().await, Token::new().await];
    let later = Timestamp::now() + 1.hour();
    for (number, (token, until)) in tokens.iter().zip([later, Timestamp::UNIX_EPOCH, later]).enumerate() {
        answer(&folder, number + 1, token, until);
    }
    let operator = start(&site, &folder, plugin(&folder)).await;
    for name in ["a", "b"] {
        serve(&site, name).await;
    }
    assert_eq!(runs(&folder), 1, "an answer is used until it ends");
    let [first, second, third] = tokens;
    first.revoke().await;
    serve(&site, "c").await;
    // The second answer had expired before it was given: it was used for one request.
    assert_eq!(runs(&folder), 3);
    second.revoke().await;
    serve(&site, "d").await;
    assert_eq!(runs(&folder), 3);
    let log = operator.log().unwrap();
    assert!(!log.contains(&third.text), "the log holds a token");
    operator.kill().await.unwrap();
}

/// A call gives up waiting for the plugin, which ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_is_given_up_and_run_again() {
    let (site, folder) = (Site::new("hanging").await, folder().await);
    let (first, second) = (Token::new().await, Token::new().await);
    let later = Timestamp::now() + 1.hour();
    answer(&folder, 1, &first, later);
    // Reading it waits for a writer that never comes.
    assert!(Command::new("mkfifo").arg(folder.join("answer-2")).status().unwrap().success());
    answer(&folder, 3, &second, later);
    let operator = start(&site, &folder, plugin(&folder)).await;
    serve(&site, "a").await;
    first.revoke().await;
    site.apply("b", json!({"name": "B", "generate": {}})).await;
    // As long as a call may take.
    poll("the plugin to run again", PATIENCE * 2, || async { Ok((runs(&folder) == 3).then_some(())) }).await.unwrap();
    site.served("b").await;
    assert_eq!(runs(&folder), 3);
    operator.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_may_change_while_the_operator_runs() {
    let (site, folder) = (Site::new("token-file").await, folder().await);
    let (first, second) = (Token::new().await, Token::new().await);
    let file = folder.join("token");
    fs::write(&file, format!("{}\n", first.text)).unwrap();
    let operator = start(&site, &folder, json!({"tokenFile": "token"})).await;
    serve(&site, "a").await;
    // As Kubernetes and most programs do: never half of a token.
    let fresh = folder.join(".token");
    fs::write(&fresh, &second.text).unwrap();
    fs::rename(&fresh, &file).unwrap();
    first.revoke().await;
    serve(&site, "b").await;
    operator.kill().await.unwrap();
}
