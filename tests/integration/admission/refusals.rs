//! What a terminal shows of a write that is refused: the rule, and nothing of the value. kubectl prints the patch that it
//! sent after most errors; it does not after those that are made as the API server's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Output;

use managed_secrets_api::{keys, names::record_name};
use serde_json::{Value, json};
use testkit::poll;

use super::{Premises, Scratch};
use crate::integration::{installation::object, objects::Site, operator::PATIENCE};

/// What is searched for: as text, in base64 as a Secret's data holds it, and as a number.
const CANARY: &str = "PLAINTEXT";
const IN_BASE64: &str = "UExBSU5URVhU";
const NUMBER: &str = "4711471147114711";

/// One manifest that is refused.
struct Case {
    /// What the refusal says.
    says: &'static str,
    /// Flags of kubectl.
    flags: Vec<String>,
    manifest: Value,
}

impl Case {
    fn of(says: &'static str, manifest: Value) -> Self {
        Self { says, flags: Vec::new(), manifest }
    }

    fn by(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self
    }

    /// Sends it in every way in which an object that exists is written.
    async fn is_refused_in_silence(&self, premises: &Premises) {
        let input = self.manifest.to_string();
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let (kind, name) = (&self.manifest["kind"], self.manifest["metadata"]["name"].as_str().unwrap());
        let target = format!("{}/{name}", kind.as_str().unwrap().to_lowercase());
        let change = self.change().to_string();
        let ways: [(&[&str], &str); 8] = [
            (&["apply", "-f", "-"], &input),
            (&["apply", "--validate=ignore", "-f", "-"], &input),
            (&["apply", "--dry-run=server", "-f", "-"], &input),
            (&["apply", "--server-side", "--force-conflicts", "-f", "-"], &input),
            (&["replace", "-f", "-"], &input),
            (&["patch", &target, "--type=merge", "--patch-file=/dev/stdin"], &change),
            (&["diff", "-f", "-"], &input),
            (&["diff", "--server-side", "--force-conflicts", "-f", "-"], &input),
        ];
        for (way, input) in ways {
            let output = premises.kubectl(&[&flags, way].concat(), input).await;
            is_silent(&format!("{way:?}"), &output, self.says);
        }
        // Why it is refused stands in the editor, which opens again.
        is_silent("edit", &self.edit(premises, &flags, &target).await, "no valid changes were saved");
    }

    /// What the manifest changes.
    fn change(&self) -> Value {
        let mut change = json!({});
        for field in ["spec", "stringData"] {
            if let Some(content) = self.manifest.get(field) {
                change[field] = content.clone();
            }
        }
        if let Some(annotations) = self.manifest["metadata"].get("annotations") {
            change["metadata"] = json!({"annotations": annotations});
        }
        change
    }

    /// `kubectl edit`, with an editor that makes the same changes. kubectl keeps a refused edit in a file.
    async fn edit(&self, premises: &Premises, flags: &[&str], target: &str) -> Output {
        let shown = Premises::ok(&premises.kubectl(&["get", target, "-o=json"], "").await);
        let mut edited: Value = serde_json::from_str(&shown).unwrap();
        let mut change = self.change();
        if let Some(Value::Object(metadata)) = change.as_object_mut().unwrap().remove("metadata") {
            edited["metadata"].as_object_mut().unwrap().extend(metadata);
        }
        edited.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let edited = Scratch::new("edited.json", &edited.to_string());
        let script = Scratch::new("editor.sh", &format!("#!/bin/sh\ncat '{}' > \"$1\"\n", edited.path.display()));
        let editor = format!("sh {}", script.path.display());
        let folder = edited.path.parent().unwrap().display().to_string();
        let arguments = [&["--namespace", &premises.site.namespace], flags, &["edit", target, "-o=json"]].concat();
        let env = [("KUBE_EDITOR", editor.as_str()), ("TMPDIR", &folder)];
        premises.access().await.kubectl_with(&env, &arguments, "").await.unwrap()
    }
}

#[track_caller]
fn is_silent(way: &str, output: &Output, says: &str) {
    let message = Premises::refused(output);
    for canary in [CANARY, IN_BASE64, NUMBER] {
        assert!(!message.contains(canary), "{way}: {canary} in {message}");
    }
    assert!(message.contains(says), "{way}: {message}");
}

impl Premises {
    fn object(&self, spec: &Value) -> Value {
        serde_json::from_str(&self.manifest("db", spec)).unwrap()
    }

    fn secret(&self, name: &str, type_: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": {"name": name, "namespace": self.site.namespace},
            "stringData": {"value": CANARY},
        })
    }
}

/// Someone who may write ManagedSecrets and has no other permission.
const EDITOR: &str = "--as=refusals-editor";

async fn let_the_editor_in(site: &Site) {
    let reference =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let binding = json!({
        "metadata": {"name": "editor"}, "roleRef": reference("ClusterRole", "managedsecret-editor"),
        "subjects": [reference("User", EDITOR.trim_start_matches("--as="))],
    });
    let bindings =
        kube::Api::<k8s_openapi::api::rbac::v1::RoleBinding>::namespaced(site.client.clone(), &site.namespace);
    bindings.create(&kube::api::PostParams::default(), &object(binding)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_refusal_has_kubectl_print_the_value() {
    let premises = Premises::new("refusals").await;
    let operator = premises.start(premises.setup()).await;
    let first = premises.object(&json!({"name": "DB", "value": "first"})).to_string();
    Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &first).await);
    let record = record_name("DB");
    premises.site.served("db").await;
    premises.site.foreign_secret("theirs", &[("value", "theirs")]).await;
    let_the_editor_in(&premises.site).await;
    poll("the editor's permission", PATIENCE, || async {
        let asked = ["auth", "can-i", "patch", "managedsecrets.managedsecrets.dev", EDITOR];
        Ok(premises.kubectl(&asked, "").await.status.success().then_some(()))
    })
    .await
    .unwrap();

    let value = |value: Value| premises.object(&json!({"name": "DB", "value": value}));
    let mut copied = value(json!(CANARY));
    copied["metadata"]["annotations"] = json!({"example.com/copy": copied.to_string()});
    let operator_user = format!("--as=system:serviceaccount:{}:{}", premises.operator_namespace, keys::OPERATOR_NAME);
    for case in [
        // The sealing webhook.
        Case::of("spec.value: must have at most 3500 characters", value(json!(CANARY.repeat(400)))),
        Case::of("spec.value: must be a quoted string", value(json!(4_711_471_147_114_711_i64))),
        Case::of("spec.value: must be a quoted string", value(json!({"a": CANARY}))),
        Case::of("spec.value: must be a quoted string", value(json!([CANARY]))),
        Case::of("spec.value: sealed value must be complete", value(json!(format!("mss1.{CANARY}")))),
        // The CRD's rules.
        Case::of(
            "spec.description",
            premises.object(&json!({"name": "DB", "value": CANARY, "description": "d".repeat(201)})),
        ),
        Case::of(
            "must have exactly one of",
            premises.object(&json!({"name": "DB", "value": CANARY, "generate": {"length": 8}})),
        ),
        // The policies.
        Case::of("annotation \"example.com/copy\"", copied),
        Case::of(
            "cannot get resource \"secrets\"",
            premises.object(&json!({"name": "DB", "value": CANARY, "target": {"name": "elsewhere"}})),
        )
        .by(&[EDITOR]),
        Case::of("cannot write resource \"secrets\"", premises.secret(&record, keys::TYPE_RECORD)),
        // By its policy, or by RBAC where it takes another verb than the operator's.
        Case::of("\"theirs\"", premises.secret("theirs", keys::DEFAULT_TARGET_TYPE)).by(&[&operator_user]),
    ] {
        case.is_refused_in_silence(&premises).await;
    }

    // Without the webhook, the CRD's rule is what refuses.
    operator.stop().await;
    Case::of("managed-secrets seal", value(json!(CANARY))).is_refused_in_silence(&premises).await;
}
