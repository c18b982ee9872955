//! Admission policies of others that change what the operator writes: the condition names the field, the operator tries
//! again with growing waits, and all heals when the policy ends. What such a policy would spoil is not written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams},
};
use managed_secrets_api::{keys, names::record_name};
use serde_json::{Value, json};
use testkit::{binaries::kubernetes_minor, poll};

use super::{
    objects::{Site, conditions, id, message},
    operator::{PATIENCE, Running, Setup, Tap},
};

mod keyring;
mod status;

/// A Secret that every policy here applies to.
const PROBE: &str = "probe";
/// A label that every policy here adds, so that its effect can be waited for.
const MARK: &str = "altered";

/// A `MutatingAdmissionPolicy` that is not the operator's, for one Secret of one namespace.
struct Policy<'a> {
    site: &'a Site,
    name: String,
}

impl<'a> Policy<'a> {
    /// Changes the Secret `secret` by one operation of a JSON patch, in CEL.
    async fn new(site: &'a Site, secret: &str, operation: &str) -> Self {
        let name = format!("alters-{}", site.namespace);
        let policy = Self { site, name };
        let mark = format!("JSONPatch{{op: \"add\", path: \"/metadata/labels/{MARK}\", value: \"yes\"}}");
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE", "UPDATE"]});
        let names = format!("object.metadata.name in ['{secret}', '{PROBE}']");
        policy.create(&rule, &names, &format!("[{mark}, JSONPatch{{{operation}}}]")).await;
        policy.until(true).await;
        policy
    }

    /// Creates it and its binding: what of the namespace fits `rule` and `condition` is changed by `patch`.
    async fn create(&self, rule: &Value, condition: &str, patch: &str) {
        let create = async |kind: &str, spec: Value| {
            let (api, resource) = api(&self.site.client, kind);
            let object = json!({
                "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": self.name}, "spec": spec,
            });
            api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        };
        let spec = json!({
            "matchConstraints": {"resourceRules": [rule]},
            "matchConditions": [{"name": "one", "expression": condition}],
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        });
        create("MutatingAdmissionPolicy", spec).await;
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": self.site.namespace}});
        let binding = json!({"policyName": self.name, "matchResources": {"namespaceSelector": selector}});
        create("MutatingAdmissionPolicyBinding", binding).await;
    }

    /// Deletes it and its binding, which the API server notices later.
    async fn delete(&self) {
        for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
            api(&self.site.client, kind).0.delete(&self.name, &DeleteParams::default()).await.unwrap();
        }
    }

    async fn lift(self) {
        self.delete().await;
        self.until(false).await;
    }

    /// Waits until the API server applies it, or does no longer.
    async fn until(&self, effective: bool) {
        let labels = json!({(keys::LABEL_ROLE): "target", "team": "none"});
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "none"});
        let probe: Secret = serde_json::from_value(json!({
            "metadata": {"name": PROBE, "labels": labels, "annotations": {"team": "none"}, "ownerReferences": [owner]},
            "data": {"value": "eA=="},
        }))
        .unwrap();
        let restorer = self.site.as_restorer().await;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        poll("the policy's effect", PATIENCE, || async {
            let made = restorer.secrets().create(&dry, &probe).await?;
            Ok((made.labels().contains_key(MARK) == effective).then_some(()))
        })
        .await
        .unwrap();
    }
}

fn api(client: &Client, kind: &str) -> (Api<DynamicObject>, ApiResource) {
    let version = if kubernetes_minor().unwrap() == "1.34" { "v1beta1" } else { "v1" };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", version, kind));
    (Api::all_with(client.clone(), &resource), resource)
}

/// As many writes may change nothing in a test: waits of 1, 2, 4, … s fit a few times into the longest that it may take.
const MAX_IDLE_WRITES: u64 = 16;

/// What a policy does, and the field that the condition names.
struct Case {
    name: &'static str,
    on_record: bool,
    operation: String,
    field: String,
}

fn cases() -> Vec<Case> {
    let add = |path: &str, value: &str| format!("op: \"add\", path: \"{path}\", value: {value}");
    let remove = |path: &str| format!("op: \"remove\", path: \"{path}\"");
    let ours = |place: &str, key: &str| format!("/metadata/{place}/{}", key.replace('/', "~1"));
    let case = |name, on_record, operation, field: &str| Case { name, on_record, operation, field: field.to_owned() };
    let role = format!("metadata.labels[{}]", keys::LABEL_ROLE);
    let description = format!("metadata.annotations[{}]", keys::ANNO_DESCRIPTION);
    vec![
        case("label", false, add("/metadata/labels/team", "\"platform\""), "metadata.labels[team]"),
        case("annotation", false, add("/metadata/annotations/team", "\"platform\""), "metadata.annotations[team]"),
        case("role", false, remove(&ours("labels", keys::LABEL_ROLE)), &role),
        case("data", false, add("/data/value", "\"cGxhdGZvcm0=\""), "data[value]"),
        case("owner", false, remove("/metadata/ownerReferences"), "metadata.ownerReferences"),
        case(
            "record-annotation",
            true,
            add(&ours("annotations", keys::ANNO_DESCRIPTION), "\"platform\""),
            &description,
        ),
        case("record-role", true, remove(&ours("labels", keys::LABEL_ROLE)), &role),
        case("record-data", true, add("/data/value", "\"cGxhdGZvcm0=\""), "data[value]"),
        case("record-owner", true, remove("/metadata/ownerReferences"), "metadata.ownerReferences"),
        case("record-immutable", true, add("/immutable", "true"), "immutable"),
    ]
}

impl Case {
    fn secret(&self) -> String {
        if self.on_record { record_name("NAME") } else { "db".to_owned() }
    }

    /// Whether a new value reaches the target although the policy holds: both Secrets keep their content. Without its role,
    /// the operator's own policy admits no new target, but knows one that exists by its annotation.
    fn delivers(&self, exists: bool) -> bool {
        matches!(self.name, "label" | "annotation" | "owner" | "record-owner") || (self.name == "role" && exists)
    }

    /// Whether the policy spoils the record: what it held before must stay.
    fn spoils_record(&self) -> bool {
        self.on_record && self.name != "record-owner"
    }

    /// When the operator tried to write the Secret.
    fn tries(&self, tap: &Tap) -> Vec<Instant> {
        let tries = tap.tries(&format!("/secrets/{}?", self.secret()));
        tries.iter().filter(|seen| matches!(seen.code, 200 | 201 | 422)).map(|seen| seen.at).collect()
    }

    /// Waits until the operator has tried so often.
    async fn tried(&self, tap: &Tap, times: usize) {
        let waited = poll("tries", PATIENCE, || async { Ok((self.tries(tap).len() >= times).then_some(())) }).await;
        assert!(waited.is_ok(), "{}: it is not tried again", self.name);
    }

    /// Waits until the operator has tried some times, and checks that it waits ever longer between.
    async fn tries_at_leisure(&self, tap: &Tap) {
        let before = self.tries(tap).len() - 1;
        self.tried(tap, before + 4).await;
        let tries = self.tries(tap)[before..].to_vec();
        for (number, pair) in tries.windows(2).enumerate() {
            // 1, 2, 4 s, less a fifth and what the line adds to the first of two.
            let least = Duration::from_millis(700) * (1 << number);
            assert!(pair[1] - pair[0] >= least, "{}: try {number} after {:?}", self.name, pair[1] - pair[0]);
        }
    }

    /// Checks that few writes changed nothing.
    fn writes_little(&self, operator: &Running) {
        let idle = operator.stats().idle_writes.get();
        assert!(idle <= MAX_IDLE_WRITES, "{}: {idle} writes changed nothing", self.name);
        if self.name == "label" {
            assert!(idle > 0, "a label that is changed back each time leaves nothing to change");
        }
    }

    async fn is_named(&self, site: &Site) {
        let object = site.reports("db", "False", "AlteredByAdmission").await;
        let text = message(&object);
        assert_eq!(conditions(&object), ["Ready", "Stalled"], "{}", self.name);
        let named = text.contains(&format!("changes {} of", self.field)) && text.contains(&self.secret());
        assert!(named && !text.contains("platform"), "{}: {text}", self.name);
    }
}

fn spec(extra: &str) -> Value {
    json!({
        "name": "NAME", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}},
        "target": {"labels": {"team": "shop"}, "annotations": {"team": "shop", "extra": extra}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admission_changes_of_a_first_write_is_named_and_heals() {
    let cases = cases();
    join_all(cases.iter().map(|case| async move {
        let site = Site::new(&format!("new-{}", case.name)).await;
        let tap = Tap::recording();
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        site.source("source", "one").await;
        let policy = Policy::new(&site, &case.secret(), &case.operation).await;
        site.apply("db", spec("")).await;
        case.is_named(&site).await;
        case.tries_at_leisure(&tap).await;
        case.is_named(&site).await;
        site.source("source", "two").await;
        if case.delivers(false) {
            site.delivers("db", "value", "two").await;
            case.is_named(&site).await;
        }
        policy.lift().await;
        site.in_step("db").await;
        site.delivers("db", "value", "two").await;
        assert_eq!(site.secret("db").await.unwrap().labels()["team"], "shop", "{}", case.name);
        case.writes_little(&operator);
        operator.stop().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admission_changes_of_a_later_write_is_named_and_what_is_delivered_stays() {
    let cases = cases();
    join_all(cases.iter().map(|case| async move {
        let site = Site::new(&format!("old-{}", case.name)).await;
        let tap = Tap::recording();
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        site.source("source", "one").await;
        site.apply("db", spec("")).await;
        let before = site.in_step("db").await;
        let record = site.record("NAME").await.unwrap();
        let policy = Policy::new(&site, &case.secret(), &case.operation).await;
        site.apply("db", spec("changed")).await;
        case.is_named(&site).await;
        assert_eq!(site.value("db", "value").await.as_deref(), Some("one"), "{}", case.name);
        case.tries_at_leisure(&tap).await;
        let tries = case.tries(&tap).len();
        site.source("source", "two").await;
        if case.delivers(true) {
            site.delivers("db", "value", "two").await;
        } else {
            case.tried(&tap, tries + 1).await;
            assert_eq!(site.value("db", "value").await.as_deref(), Some("one"), "{}", case.name);
        }
        case.is_named(&site).await;
        if case.spoils_record() {
            assert_eq!(site.record("NAME").await.unwrap(), record, "{}: the record was touched", case.name);
        }
        policy.lift().await;
        let after = site.in_step("db").await;
        assert_eq!(id(&after), id(&before), "{}", case.name);
        assert_eq!(site.secret("db").await.unwrap().annotations()["extra"], "changed", "{}", case.name);
        site.delivers("db", "value", "two").await;
        case.writes_little(&operator);
        operator.stop().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_into_a_record_that_admission_spoils_keeps_the_old_one() {
    let site = Site::new("renamed").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "one").await;
    let named = |name: &str| {
        let mut spec = spec("");
        spec["name"] = json!(name);
        spec
    };
    site.apply("db", named("OLD")).await;
    let before = site.in_step("db").await;
    let record = site.record("OLD").await.unwrap();
    let operation = "op: \"add\", path: \"/data/value\", value: \"cGxhdGZvcm0=\"";
    let policy = Policy::new(&site, &record_name("NEW"), operation).await;
    site.apply("db", named("NEW")).await;
    let object = site.reports("db", "False", "AlteredByAdmission").await;
    assert!(message(&object).contains(&record_name("NEW")), "{}", message(&object));
    assert_eq!(site.record("OLD").await.unwrap(), record);
    assert_eq!(site.value("db", "value").await.as_deref(), Some("one"));
    policy.lift().await;
    let after = site.in_step("db").await;
    assert_eq!(id(&after), id(&before));
    site.gone(&record_name("OLD")).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_record_that_admission_spoils_is_not_taken_over() {
    let site = Site::new("retained").await;
    let operator = Setup::of(&site.namespace).start().await;
    let retained = json!({"name": "NAME", "generate": {}, "deletionPolicy": "Retain"});
    site.apply("db", retained.clone()).await;
    let before = site.in_step("db").await;
    let value = site.value("db", "value").await;
    site.delete("db").await;
    let record = site.record("NAME").await.unwrap();
    let operation = "op: \"add\", path: \"/data/value\", value: \"cGxhdGZvcm0=\"";
    let policy = Policy::new(&site, &record_name("NAME"), operation).await;
    site.apply("db", retained).await;
    site.reports("db", "False", "AlteredByAdmission").await;
    assert_eq!(site.record("NAME").await.unwrap(), record);
    policy.lift().await;
    let after = site.in_step("db").await;
    assert_eq!((id(&after), site.value("db", "value").await), (id(&before), value));
    operator.stop().await;
}
