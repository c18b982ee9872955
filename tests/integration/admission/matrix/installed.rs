//! One installation of everything, for the whole cluster, with the program as a process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{ops::Sub, process::Output};

use managed_secrets::{install::manifests, keyring::KeyringStore};
use managed_secrets_api::{
    crd,
    keys::{self, SEAL_WEBHOOK, WARN_WEBHOOK},
};
use managed_secrets_crypto::{
    Keyring,
    keyring::SealingKeyStatus,
    mss1::{PublicKey, Sealed},
    provider::Provider,
};
use serde_json::json;
use testkit::root;
use testkit::{ControlPlane, Operator, control_plane::quiet_address, poll};

use super::manifest;
use crate::integration::{
    admission::Scratch,
    installation::RESTORER,
    objects::{Site, sealed},
    operator::{PATIENCE, public_key_of},
    program::PROGRAM,
};

const OPERATOR_NAMESPACE: &str = keys::DEFAULT_OPERATOR_NAMESPACE;

/// How often the two webhooks were called.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Calls {
    pub(super) sealing: u64,
    pub(super) warning: u64,
}

impl Calls {
    pub(super) const fn total(self) -> u64 {
        self.sealing + self.warning
    }
}

impl Sub for Calls {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { sealing: self.sealing - before.sealing, warning: self.warning - before.warning }
    }
}

/// What kubectl came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Done,
    /// Only of `kubectl diff`.
    Differs,
    Refused,
}

impl Outcome {
    pub(super) fn remark(self) -> &'static str {
        if self == Self::Refused { "; refused" } else { "" }
    }

    pub(super) fn printed(self) -> &'static str {
        match self {
            Self::Done => "nothing",
            Self::Differs => "a difference",
            Self::Refused => "a refusal",
        }
    }
}

pub(super) struct Installed {
    pub(super) control_plane: ControlPlane,
    pub(super) operator: Operator,
    pub(super) site: Site,
    /// What terminals showed, and of which command.
    pub(super) shown: Vec<(String, Vec<u8>)>,
    keyring: Keyring,
}

impl Installed {
    pub(super) async fn new() -> Self {
        let options = manifests::Options { restorers: vec![RESTORER.to_owned()], ..manifests::Options::default() };
        let crd = Scratch::new("crd.yaml", &serde_json::to_string(&crd::crd()).unwrap());
        let all = Scratch::new("manifests.yaml", &manifests::print(&options).unwrap());
        let options = testkit::Options {
            manifests: vec![crd.path.clone(), all.path.clone()],
            audit_policy: Some(audit_policy()),
            ..testkit::Options::default()
        };
        let control_plane = ControlPlane::start_own(&options).await.unwrap();
        let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
        let address = quiet_address().unwrap().to_string();
        let url = format!("https://{address}");
        let arguments = ["--log-level=trace", "--webhook-listen", &address, "--webhook-url", &url];
        let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &arguments).await.unwrap();
        let site = Site::on(&control_plane, "matrix").await;
        public_key_of(&site.client, OPERATOR_NAMESPACE).await;
        let store = KeyringStore::new(site.client.clone(), OPERATOR_NAMESPACE, Provider::Local);
        let keyring = store.load().await.unwrap();
        let mut this = Self { control_plane, operator, site, shown: Vec::new(), keyring };
        this.webhooks_are_called().await;
        this
    }

    async fn webhooks_are_called(&mut self) {
        let (access, namespace) = (self.control_plane.access(), &self.site.namespace);
        let arguments = ["-n", namespace, "create", "--dry-run=server", "-f", "-"];
        let probe = manifest("probe", &json!({"value": "probe"})).to_string();
        poll("both webhooks to be called", PATIENCE, || async {
            let done = access.kubectl_with_input(&arguments, &probe).await?.status.success();
            Ok((done && self.calls().await.warning > 0).then_some(()))
        })
        .await
        .unwrap();
    }

    /// The public key that values are sealed with.
    pub(super) async fn public_key(&self) -> PublicKey {
        public_key_of(&self.site.client, OPERATOR_NAMESPACE).await
    }

    /// What sealed text of an object of the site holds.
    pub(super) fn open(&self, text: &str, name: &str) -> String {
        let sealed = Sealed::parse(text).unwrap();
        assert_eq!(*sealed.scope(), self.site.strict(name), "sealed for this object and no other");
        let SealingKeyStatus::Usable(key) = self.keyring.sealing_key(sealed.key_id()) else { panic!("no such key") };
        let value = sealed.open(key, &self.site.namespace, name).unwrap();
        String::from_utf8(value.as_bytes().to_vec()).unwrap()
    }

    /// Calls until now, as the API server counts them: also those that failed.
    pub(super) async fn calls(&self) -> Calls {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let metrics = self.site.client.request_text(request).await.unwrap();
        let of = |webhook: &str| {
            let label = format!("name=\"{webhook}\"");
            let lines = metrics.lines().filter(|line| line.starts_with("apiserver_admission_webhook_request_total{"));
            lines
                .filter(|line| line.contains(&label))
                .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
                .sum()
        };
        Calls { sealing: of(SEAL_WEBHOOK), warning: of(WARN_WEBHOOK) }
    }

    /// kubectl in the site, as administrator.
    pub(super) async fn kubectl(&mut self, env: &[(&str, &str)], arguments: &[&str], input: &str) -> Output {
        let all = [&["--namespace", &self.site.namespace], arguments].concat();
        let output = self.control_plane.access().kubectl_with(env, &all, input).await.unwrap();
        // A patch is an argument, and would be found.
        let what = arguments.iter().copied().take_while(|argument| *argument != "-p").collect::<Vec<_>>().join(" ");
        self.shown.push((what, [&output.stdout[..], &output.stderr].concat()));
        output
    }

    /// The same, which must succeed; what it printed.
    pub(super) async fn ok(&mut self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl(&[], arguments, input).await;
        assert!(output.status.success(), "{}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, which may be refused for having two sources, and for nothing else.
    pub(super) async fn tried(&mut self, env: &[(&str, &str)], arguments: &[&str], input: &str) -> (Outcome, String) {
        let output = self.kubectl(env, arguments, input).await;
        let differs = arguments[0] == "diff" && output.status.code() == Some(1) && !output.stdout.is_empty();
        let outcome = if output.status.success() {
            Outcome::Done
        } else if differs {
            Outcome::Differs
        } else {
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(message.contains("must have exactly one of"), "{}: {message}", arguments.join(" "));
            Outcome::Refused
        };
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(!(arguments[0] == "diff" && outcome == Outcome::Done) || printed.is_empty(), "{printed}");
        (outcome, printed)
    }

    /// What `kubectl diff` says of a manifest.
    pub(super) async fn diff(&mut self, arguments: &[&str], input: &str) -> &'static str {
        self.tried(&[], arguments, input).await.0.printed()
    }
}

impl Site {
    /// Seals a value for an object of this namespace under a key.
    pub(super) fn seal_with(&self, key: &PublicKey, name: &str, value: &str) -> String {
        sealed(key, &self.strict(name), value)
    }
}

/// The shipped policy, and behind its rule the most that an administrator can log of everything else.
fn audit_policy() -> String {
    std::fs::read_to_string(root().join("deploy/audit-policy.yaml")).unwrap() + "- level: RequestResponse\n"
}
