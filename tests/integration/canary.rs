//! No value leaves its way: unique values go through every path, of users who do right and of users who do wrong, with
//! the real program at the most talkative log level; then everything that anybody can read is searched for them.
//!
//! A delivered Secret and the source of `valueFrom` may hold a value, and nothing else: searched are etcd by key and
//! revision, all logs and the audit log, and what terminals showed. A value that is not delivered is nowhere in the raw
//! files of etcd, either. An earlier value is in its Secret no longer than it is delivered there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{ControlPlane, Operator, poll};

use self::search::{Canary, Finder};
use super::{
    installation::{self, OPERATOR_NAMESPACE},
    objects::Site,
    program::{self, PROGRAM},
};

pub(super) mod search;

/// One namespace in which every path is gone once.
struct Story<'a> {
    control_plane: &'a ControlPlane,
    site: Site,
    kubeconfig: PathBuf,
    canaries: Vec<Canary>,
    /// What terminals showed, and of which command.
    shown: Vec<(String, Vec<u8>)>,
}

impl<'a> Story<'a> {
    async fn new(control_plane: &'a ControlPlane, purpose: &str) -> Self {
        Self {
            control_plane,
            site: Site::on(control_plane, purpose).await,
            kubeconfig: control_plane.access().kubeconfig_path().to_owned(),
            canaries: Vec::new(),
            shown: Vec::new(),
        }
    }

    /// A fresh value that may be found in these Secrets.
    fn canary(&mut self, path: &str, homes: &[&str]) -> String {
        let homes: Vec<_> = homes.iter().map(|name| format!("{}/{name}", self.site.namespace)).collect();
        self.canaries.push(Canary::new(path, &homes));
        self.canaries.last().unwrap().value.clone()
    }

    /// An earlier value that is kept and delivered no more.
    fn is_gone(&mut self, value: &str) {
        self.canaries.iter_mut().find(|canary| canary.value == value).unwrap().is_gone = true;
    }

    /// The record of this name, and the Secret, hold one value and nothing else.
    async fn holds_one_value(&self, name: &str, secret: &str) {
        let record = self.site.record(name).await.unwrap();
        for it in [record, self.site.secret(secret).await.unwrap()] {
            let keys: Vec<_> = it.data.unwrap_or_default().into_keys().collect();
            assert_eq!(keys, ["value"], "{:?} holds an earlier value still", it.metadata.name);
        }
    }

    /// A generated value, as it is delivered.
    async fn generated(&mut self, path: &str) -> String {
        let value = self.site.value("generated", "value").await.unwrap();
        let home = format!("{}/generated", self.site.namespace);
        self.canaries.push(Canary::of(path, value.clone(), &[home]));
        value
    }

    async fn program(&mut self, arguments: &[&str], input: &[u8]) -> program::Ran {
        let ran = program::run(arguments, Some(&self.kubeconfig), &[], input).await;
        self.shown.push((arguments.join(" "), [ran.out.as_bytes(), ran.err.as_bytes()].concat()));
        ran
    }

    async fn seal(&mut self, name: &str, value: &str) -> String {
        let namespace = self.site.namespace.clone();
        let ran = self.program(&["seal", "--name", name, "--namespace", &namespace], value.as_bytes()).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out.trim().to_owned()
    }

    async fn kubectl(&mut self, arguments: &[&str], input: &Value) -> bool {
        let all = [&["--namespace", &self.site.namespace], arguments].concat();
        let output = self.control_plane.access().kubectl_with_input(&all, &input.to_string()).await.unwrap();
        self.shown.push((arguments.join(" "), [output.stdout, output.stderr].concat()));
        output.status.success()
    }

    async fn apply(&mut self, name: &str, spec: Value) {
        assert!(self.kubectl(&["apply", "-f", "-"], &object(name, &spec)).await);
    }

    async fn overwrite(&self, secret: &str, key: &str, value: &str) {
        let patch = Patch::Merge(json!({"stringData": {key: value}}));
        self.site.secrets().patch(secret, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Every path but those of one source each: what users should do.
    async fn right(&mut self) {
        let value = self.canary("sealed", &["sealed"]);
        let sealed = self.seal("sealed", &value).await;
        self.apply("sealed", json!({"name": "SEALED", "value": sealed})).await;
        self.site.served("sealed").await;
        let value = self.canary("sealed, a new value", &["sealed"]);
        let sealed = self.seal("sealed", &value).await;
        self.apply("sealed", json!({"name": "SEALED", "value": sealed, "description": "new"})).await;
        self.site.delivers("sealed", "value", &value).await;
        self.apply("sealed", json!({"name": "RENAMED", "value": sealed})).await;
        self.site.served("sealed").await;
        let intruder = self.canary("drift", &["sealed"]);
        self.overwrite("sealed", "value", &intruder).await;
        self.site.delivers("sealed", "value", &value).await;

        let value = self.canary("a template", &["rendered"]);
        let sealed = self.seal("rendered", &value).await;
        let texts =
            json!({"url": "x://$(value | urlencode)", "auth": "$(\"u:\" value | base64 | json)", "v2": "$(value)"});
        let target = json!({"key": "v2", "template": texts});
        self.apply("rendered", json!({"name": "RENDERED", "value": sealed, "target": target})).await;
        self.site.served("rendered").await;
        let value = self.canary("a template, a new value", &["rendered"]);
        let sealed = self.seal("rendered", &value).await;
        self.apply("rendered", json!({"name": "RENDERED", "value": sealed, "target": target})).await;
        self.site.delivers("rendered", "v2", &value).await;
        let intruder = self.canary("drift of a template's key", &["rendered"]);
        self.overwrite("rendered", "url", &intruder).await;
        self.site.delivers("rendered", "v2", &value).await;

        let value = self.canary("not delivered", &[]);
        let sealed = self.seal("hidden", &value).await;
        let hidden = |name: &str, sealed: &str| json!({"name": name, "value": sealed, "delivery": "None"});
        self.apply("hidden", hidden("HIDDEN", &sealed)).await;
        self.site.served("hidden").await;
        let value = self.canary("not delivered, a new value", &[]);
        let sealed = self.seal("hidden", &value).await;
        let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        assert!(self.kubectl(&server_side, &object("hidden", &hidden("HIDDEN", &sealed))).await);
        self.site.until("hidden", "its second version", |it| it.status.as_ref().unwrap().version == Some(2)).await;
        self.apply("hidden", hidden("HIDDEN_TOO", &sealed)).await;
        self.site.served("hidden").await;
        self.apply("hidden", hidden("HIDDEN_TOO", &sealed)).await;

        let value = self.canary("source", &["upstream", "followed"]);
        self.site.foreign_secret("upstream", &[("token", &value)]).await;
        let from = json!({"secretKeyRef": {"name": "upstream", "key": "token"}});
        self.apply("followed", json!({"name": "FOLLOWED", "valueFrom": from})).await;
        self.site.served("followed").await;
        let value = self.canary("source, a new value", &["upstream", "followed"]);
        self.overwrite("upstream", "token", &value).await;
        self.site.delivers("followed", "value", &value).await;

        let value = self.canary("adopted", &["legacy"]);
        self.site.foreign_secret("legacy", &[("password", &value)]).await;
        let sealed = self.seal("adopted", &value).await;
        let target = json!({"name": "legacy", "key": "password", "adoption": "IfUnowned"});
        self.apply("adopted", json!({"name": "ADOPTED", "value": sealed, "target": target})).await;
        self.site.served("adopted").await;

        let value = self.canary("retained and taken over", &["retained"]);
        let sealed = self.seal("retained", &value).await;
        let spec = json!({"name": "RETAINED", "value": sealed, "deletionPolicy": "Retain"});
        self.apply("retained", spec.clone()).await;
        self.site.served("retained").await;
        assert!(self.kubectl(&["delete", "msec", "retained"], &Value::Null).await);
        self.apply("retained", spec).await;
        self.site.served("retained").await;
    }

    /// Earlier values: delivered again, beside their successor, and gone in the end.
    async fn earlier(&mut self) {
        let mut values = Vec::new();
        for name in ["the first of three", "the second of three", "the third of three"] {
            let value = self.canary(name, &["versions"]);
            let sealed = self.seal("versions", &value).await;
            self.apply("versions", json!({"name": "VERSIONS", "value": sealed, "history": 2})).await;
            self.site.delivers("versions", "value", &value).await;
            values.push((value, sealed));
        }
        let newest = &values[2].1;
        self.apply("versions", json!({"name": "VERSIONS", "value": newest, "history": 2, "version": 1})).await;
        self.site.delivers("versions", "value", &values[0].0).await;
        self.apply("versions", json!({"name": "VERSIONS", "value": newest, "history": 0})).await;
        self.site.delivers("versions", "value", &values[2].0).await;
        self.site.in_step("versions").await;
        self.holds_one_value("VERSIONS", "versions").await;
        // Beside its successor, and gone once the overlap is over.
        let next = self.canary("the value after them", &["versions"]);
        let sealed = self.seal("versions", &next).await;
        let beside = |overlap: &str| json!({"name": "VERSIONS", "value": sealed, "target": {"previousKey": "old"}, "overlap": overlap});
        self.apply("versions", beside("24h")).await;
        self.site.delivers("versions", "old", &values[2].0).await;
        self.apply("versions", beside("0s")).await;
        self.site.in_step("versions").await;
        self.apply("versions", json!({"name": "VERSIONS", "value": sealed, "history": 0})).await;
        self.site.in_step("versions").await;
        self.holds_one_value("VERSIONS", "versions").await;
        for (value, _) in &values {
            self.is_gone(value);
        }

        self.apply("generated", json!({"name": "GENERATED", "generate": {"length": 40}})).await;
        self.site.served("generated").await;
        let first = self.generated("generated").await;
        // Rotated: beside its successor until an overlap ends by itself, and kept until the spec keeps nothing.
        let rotated = |overlap: &str| json!({"name": "GENERATED", "generate": {"length": 40, "revision": "a"}, "target": {"previousKey": "old"}, "overlap": overlap});
        self.apply("generated", rotated("24h")).await;
        self.site.delivers("generated", "old", &first).await;
        self.site.in_step("generated").await;
        self.generated("generated, a new value").await;
        let version_1 = json!({"name": "GENERATED", "generate": {"length": 40, "revision": "a"}, "version": 1});
        self.apply("generated", version_1).await;
        self.site.delivers("generated", "value", &first).await;
        self.apply("generated", rotated("2s")).await;
        self.site.in_step("generated").await;
        poll("the overlap to end", super::operator::PATIENCE, || async {
            Ok(self.site.value("generated", "old").await.is_none().then_some(()))
        })
        .await
        .unwrap();
        let none = json!({"name": "GENERATED", "generate": {"length": 40, "revision": "a"}, "history": 0});
        self.apply("generated", none).await;
        self.site.in_step("generated").await;
        self.holds_one_value("GENERATED", "generated").await;
        self.is_gone(&first);
    }

    /// What users should not do, and what others do to them.
    async fn wrong(&mut self) {
        // A Secret that the operator does not manage, in the target's place and not to be adopted.
        let theirs = self.canary("a foreign Secret", &["theirs"]);
        self.site.foreign_secret("theirs", &[("value", &theirs)]).await;
        let value = self.canary("never delivered", &[]);
        let sealed = self.seal("unadopted", &value).await;
        let target = json!({"name": "theirs", "adoption": "IfUnowned"});
        self.apply("unadopted", json!({"name": "UNADOPTED", "value": sealed, "target": target})).await;
        self.site.reports("unadopted", "False", "TargetNotOwned").await;

        // Values that break a rule, at the command and at the source.
        let namespace = self.site.namespace.clone();
        let place = ["seal", "--name", "bad", "--namespace", &namespace];
        let value = self.canary("too long", &["bad"]) + &"x".repeat(3500);
        assert_eq!(self.program(&place, value.as_bytes()).await.code, 2);
        self.site.foreign_secret("bad", &[("long", &value)]).await;
        let from = |key: &str| json!({"secretKeyRef": {"name": "bad", "key": key}});
        self.apply("long", json!({"name": "LONG", "valueFrom": from("long")})).await;
        self.site.reports("long", "False", "InvalidValue").await;
        let value = [self.canary("no text", &["bad"]).as_bytes(), b"\xff"].concat();
        assert_eq!(self.program(&place, &value).await.code, 2);
        let patch: Secret = serde_json::from_value(json!({"data": {"binary": base64(&value)}})).unwrap();
        self.site.secrets().patch("bad", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        self.apply("binary", json!({"name": "BINARY", "valueFrom": from("binary")})).await;
        self.site.reports("binary", "False", "InvalidValue").await;
        let value = self.canary("an argument", &[]);
        assert_eq!(self.program(&[&place[..], &[&value]].concat(), b"").await.code, 2);
        let value = self.canary("an option", &[]);
        assert_eq!(self.program(&[&place[..], &["--value", &value]].concat(), b"").await.code, 2);

        // A value that is no JSON, for a type that must be: the API server quotes what it stumbles over.
        for (name, text) in [("docker", "{\"auths\": "), ("docker-too", "")] {
            let value = self.canary("no dockerconfigjson", &[]);
            let sealed = self.seal(name, &format!("{text}{value}")).await;
            let target = json!({"type": "kubernetes.io/dockerconfigjson", "key": ".dockerconfigjson"});
            let upper = name.to_uppercase().replace('-', "_");
            self.apply(name, json!({"name": upper, "value": sealed, "target": target})).await;
            self.site.reports(name, "False", "WriteRefused").await;
        }

        // Sealed for another object, and sealed text that was damaged.
        let value = self.canary("sealed for another", &[]);
        let sealed = self.seal("another", &value).await;
        self.apply("misplaced", json!({"name": "MISPLACED", "value": sealed})).await;
        self.site.reports("misplaced", "False", "SealedForAnotherPlace").await;
        let sealed = self.seal("damaged", &value).await;
        let damaged = format!("{}AAAA", &sealed[..sealed.len() - 4]);
        self.apply("damaged", json!({"name": "DAMAGED", "value": damaged})).await;
        self.site.reports("damaged", "False", "SealedTampered").await;

        // Plaintext where sealed text belongs, of every JSON type.
        let number = u64::from_str_radix(&uuid::Uuid::new_v4().simple().to_string()[..15], 16).unwrap() + (1 << 60);
        self.canaries.push(Canary::of("a number", number.to_string(), &[]));
        let text = self.canary("plaintext", &[]);
        let stored = object("plain", &json!({"name": "PLAIN", "generate": {}}));
        assert!(self.kubectl(&["apply", "-f", "-"], &stored).await);
        for value in
            [json!(text), json!([text]), json!({ "value": text }), json!(number), json!(format!("mss1.{text}"))]
        {
            let plain = |name: &str| object(name, &json!({"name": "PLAIN_TOO", "value": value}));
            for arguments in [&["create", "-f", "-"][..], &["apply", "-f", "-"], &["apply", "--server-side", "-f", "-"]]
            {
                assert!(!self.kubectl(arguments, &plain("refused")).await);
            }
            assert!(!self.kubectl(&["replace", "-f", "-"], &plain("plain")).await);
        }

        // A policy of others that shouts out what it refuses.
        let mut value = Canary::new("a foreign policy", &[]);
        value.spoiled = Some("audit.log");
        let sealed = self.seal("gated", &value.value).await;
        self.canaries.push(value);
        self.apply("gated", json!({"name": "GATED", "value": sealed})).await;
        self.site.until("gated", "refused", |it| super::objects::message(it).contains("gate")).await;
    }

    /// What a reader of the cluster sees.
    async fn look(&mut self) {
        for arguments in [
            &["get", "msec", "-o", "yaml", "--show-managed-fields"][..],
            &["get", "msec", "-o", "wide"],
            &["describe", "msec"],
            &["get", "events", "-o", "yaml"],
            &["get", "configmaps", "-A", "-o", "yaml"],
            &["describe", "secrets"],
        ] {
            assert!(self.kubectl(arguments, &Value::Null).await);
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

fn object(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": name}, "spec": spec})
}

/// A policy that repeats the value of a Secret called `gated` in its refusal.
async fn gate(control_plane: &ControlPlane) {
    let api_version = "admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "gate"}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["secrets"]},
        ]},
        "matchConditions": [{"name": "gated", "expression": "object.metadata.name == 'gated'"}],
        "validations": [{"expression": "false", "messageExpression": "'not this: ' + string(object.data['value'])"}],
    }});
    let binding = json!({"apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "gate"},
        "spec": {"policyName": "gate", "validationActions": ["Deny"]}});
    let access = control_plane.access();
    for object in [policy, binding] {
        let output = access.kubectl_with_input(&["apply", "-f", "-"], &object.to_string()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let probe = "apiVersion: v1\nkind: Secret\nmetadata: {name: gated, namespace: default}\nstringData: {value: probe}";
    poll("the gate to be closed", installation::PATIENCE, || async {
        let output = access.kubectl_with_input(&["create", "--dry-run=server", "-f", "-"], probe).await?;
        Ok(String::from_utf8_lossy(&output.stderr).contains("not this").then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_leaves_its_way() {
    let control_plane = installation::install(&installation::options(), &[]).await.unwrap();
    gate(&control_plane).await;
    let account = managed_secrets_api::keys::OPERATOR_NAME;
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, account).await.unwrap();
    let (mut canaries, mut shown, mut logs) = (Vec::new(), Vec::new(), Vec::new());
    for format in ["human", "json"] {
        let arguments = ["--log-level", "trace", "--log-format", format];
        let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &arguments).await.unwrap();
        super::operator::public_key(&control_plane.access().admin_client().await.unwrap()).await;
        let mut story = Story::new(&control_plane, format).await;
        story.right().await;
        story.earlier().await;
        story.wrong().await;
        story.look().await;
        canaries.append(&mut story.canaries);
        shown.append(&mut story.shown);
        logs.push(operator.log_path());
        assert_eq!(operator.stop().await.unwrap(), 0);
    }
    // The program was as talkative as it was asked to be, in both formats.
    for log in logs {
        let log = std::fs::read_to_string(log).unwrap();
        for word in ["DEBUG", "reconcile", "record written", "target written", "read live"] {
            assert!(log.contains(word), "no {word} in the log");
        }
    }

    let finder = Finder::new(&canaries);
    let mut leaks = Vec::new();
    for (what, text) in &shown {
        let found = finder.find(text).into_iter();
        leaks.extend(found.map(|canary| format!("{}: on the terminal of {what}", canaries[canary].path)));
    }
    let mut at_home = std::collections::BTreeSet::new();
    // What each key of etcd holds in the end.
    let mut last = std::collections::BTreeMap::new();
    for (key, revision, value) in search::history(&control_plane).await {
        let found = finder.find(&value);
        last.insert(key.clone(), found.clone());
        for canary in found {
            let secret = key.strip_prefix("/registry/secrets/").unwrap_or_default();
            if canaries[canary].homes.iter().any(|home| home == secret) {
                at_home.insert(canary);
            } else {
                leaks.push(format!("{}: in etcd, {key} at revision {revision}", canaries[canary].path));
            }
        }
    }
    for (key, found) in last {
        let stays = found.into_iter().map(|canary| &canaries[canary]).filter(|canary| canary.is_gone);
        leaks.extend(stays.map(|canary| format!("{}: still in etcd, {key}", canary.path)));
    }
    let folder = control_plane.supervisor().folder();
    let etcd = control_plane.etcd_dir().unwrap();
    let mut in_raw_files = std::collections::BTreeSet::new();
    for file in search::files(folder) {
        // kubectl's cache of discovery documents among them, and all logs.
        let Ok(content) = std::fs::read(&file) else { continue };
        for canary in finder.find(&content) {
            let it = &canaries[canary];
            if file.starts_with(&etcd) && !it.homes.is_empty() {
                in_raw_files.insert(canary);
            } else if it.spoiled.is_none_or(|name| !file.ends_with(name)) {
                leaks.push(format!("{}: in the file {}", it.path, file.strip_prefix(folder).unwrap().display()));
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    // The search finds what is there.
    for (index, canary) in canaries.iter().enumerate().filter(|(_, canary)| !canary.homes.is_empty()) {
        assert!(at_home.contains(&index) && in_raw_files.contains(&index), "{}: not even found at home", canary.path);
    }
    control_plane.stop().await.unwrap();
}
