//! What others put in the way of a write: quotas, policies, the end of a namespace. Said without our data, tried again
//! with growing waits, and served once it is gone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Instant;

use futures::future::join_all;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Namespace, ResourceQuota},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use testkit::poll;

use super::{
    installation::object,
    objects::{Site, conditions, id, message, ready, status},
    operator::{PATIENCE, Setup, Tap},
};

/// A policy that is not the operator's, in one namespace.
struct Policy {
    name: String,
    policies: Api<ValidatingAdmissionPolicy>,
    bindings: Api<ValidatingAdmissionPolicyBinding>,
}

impl Policy {
    /// Refuses `operations` on `resource` of the API groups `groups` where `refuses` holds, quoting the object.
    async fn new(site: &Site, operations: &[&str], group: &str, resource: &str, refuses: &str) -> Self {
        let name = format!("gate-{}", site.namespace);
        let rule =
            json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": operations});
        let policy: ValidatingAdmissionPolicy = object(json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{
                    "expression": format!("!({refuses})"),
                    "messageExpression": "'not this: ' + (object == null ? '' : string(object.?data['value'].orValue('')))",
                }],
            },
        }));
        let binding: ValidatingAdmissionPolicyBinding = object(json!({
            "metadata": {"name": name},
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": site.namespace}}},
            },
        }));
        let (policies, bindings) = (Api::all(site.client.clone()), Api::all(site.client.clone()));
        policies.create(&PostParams::default(), &policy).await.unwrap();
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        Self { name, policies, bindings }
    }

    async fn lift(self) {
        self.bindings.delete(&self.name, &DeleteParams::default()).await.unwrap();
        self.policies.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }
}

/// Writes of a Secret that were answered with this code.
fn refused(tap: &Tap, code: u16) -> usize {
    tap.seen()
        .iter()
        .filter(|seen| seen.method == "PATCH" && seen.path.contains("/secrets/") && seen.code == code)
        .count()
}

/// Waits for six refused tries and checks that they came with growing waits: of 100, 200, 400, 800 and 1600 ms, less a
/// fifth of jitter.
async fn backs_off(tap: &Tap, code: u16, began: Instant) {
    poll("six tries", PATIENCE, || async { Ok((refused(tap, code) >= 6).then_some(())) }).await.unwrap();
    assert!(began.elapsed().as_millis() > 2000, "six tries in {:?}", began.elapsed());
}

/// Allows so many Secrets in a namespace that has two, and waits until they are counted. Returns the quotas; this one is `few`.
async fn allow_secrets(site: &Site, number: u8) -> Api<ResourceQuota> {
    let quotas = Api::<ResourceQuota>::namespaced(site.client.clone(), &site.namespace);
    let hard = json!({"count/secrets": number.to_string()});
    let quota: ResourceQuota = object(json!({"metadata": {"name": "few"}, "spec": {"hard": hard}}));
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    poll("the quota to be counted", PATIENCE, || async {
        let used = quotas.get("few").await?.status.and_then(|status| status.used).unwrap_or_default();
        Ok(used.get("count/secrets").is_some_and(|used| used.0 == "2").then_some(()))
    })
    .await
    .unwrap();
    quotas
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_named_and_tried_again_until_it_is_lifted() {
    let site = Site::new("quota").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.apply("served", json!({"name": "SERVED", "generate": {}})).await;
    let first = site.served("served").await;
    let quotas = allow_secrets(&site, 0).await;

    let began = Instant::now();
    site.apply("db", json!({"name": "NAME", "generate": {}})).await;
    let refusal = site.reports("db", "Unknown", "QuotaExceeded").await;
    assert_eq!((conditions(&refusal), status(&refusal).id), (vec!["Ready".into(), "Reconciling".into()], None));
    backs_off(&tap, 403, began).await;

    // What is served stays served, also where its target cannot be made again.
    site.secrets().delete("served", &DeleteParams::default()).await.unwrap();
    let object = site.until("served", "says so", |o| ready(o).1 == "QuotaExceeded").await;
    assert_eq!((ready(&object).0.as_str(), id(&object)), ("True", id(&first)));
    quotas.delete("few", &DeleteParams::default()).await.unwrap();
    site.served("db").await;
    let object = site.until("served", "put right", |o| status(o).target != status(&first).target).await;
    assert_eq!(id(&object), id(&first));
    assert_eq!(conditions(&site.served("served").await), ["Ready"]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_policy_is_named_without_what_it_says() {
    join_all(["record", "target"].map(|role| async move {
        let site = Site::new("policy").await;
        let tap = Tap::recording();
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        let refuses = format!("object.metadata.?labels['managedsecrets.dev/role'].orValue('') == '{role}'");
        let policy = Policy::new(&site, &["CREATE", "UPDATE"], "", "secrets", &refuses).await;
        let probe = json!({"metadata": {"name": "probe", "labels": {"managedsecrets.dev/role": role}}});
        poll("the policy to be effective", PATIENCE, || async {
            let answer = site.secrets().create(&super::installation::dry_run(), &object(probe.clone())).await;
            Ok(answer.is_err_and(|error| error.to_string().contains("not this")).then_some(()))
        })
        .await
        .unwrap();
        let value = "a value that a policy quotes";
        let sealed = site.seal("db", value).await;
        let began = Instant::now();
        site.apply("db", json!({"name": "NAME", "value": sealed})).await;
        let object = site.reports("db", "Unknown", "WriteRefused").await;
        let said = message(&object);
        assert!(said.contains(&policy.name), "{said}");
        assert!(!said.contains("not this") && !said.contains(value), "{said}");
        backs_off(&tap, 422, began).await;
        policy.lift().await;
        let object = site.served("db").await;
        assert_eq!((status(&object).version, conditions(&object)), (Some(1), vec!["Ready".to_owned()]));
        site.delivers("db", "value", value).await;
        operator.stop().await;
    }))
    .await;
}

/// The Secret of the old type is deleted only once the one of the new type would be admitted.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_a_policy_or_a_quota_refuses_leaves_what_is_delivered() {
    let site = Site::new("refused-type").await;
    let operator = Setup::of(&site.namespace).start().await;
    let typed = |type_: &str| json!({"name": "NAME", "generate": {}, "target": {"type": type_}});
    site.apply("db", json!({"name": "NAME", "generate": {}})).await;
    site.in_step("db").await;
    let before = site.secret("db").await.unwrap();
    let policy =
        Policy::new(&site, &["CREATE"], "", "secrets", "object.?type.orValue('') == 'example.com/refused'").await;
    let probe = json!({"metadata": {"name": "probe"}, "type": "example.com/refused"});
    poll("the policy to be effective", PATIENCE, || async {
        let answer = site.secrets().create(&super::installation::dry_run(), &object(probe.clone())).await;
        Ok(answer.is_err_and(|error| error.to_string().contains("not this")).then_some(()))
    })
    .await
    .unwrap();
    site.apply("db", typed("example.com/refused")).await;
    let refusal = site.until("db", "refused", |object| ready(object).1 == "WriteRefused").await;
    assert!(message(&refusal).contains(&policy.name), "{}", message(&refusal));
    assert_eq!(site.secret("db").await.unwrap(), before);
    policy.lift().await;
    let served = site.in_step("db").await;
    assert_eq!(id(&served), id(&refusal));
    let before = site.secret("db").await.unwrap();
    assert_eq!(before.type_.as_deref(), Some("example.com/refused"));

    let quotas = allow_secrets(&site, 2).await;
    site.apply("db", typed("example.com/other")).await;
    site.until("db", "refused", |object| ready(object).1 == "QuotaExceeded").await;
    assert_eq!(site.secret("db").await.unwrap(), before);
    quotas.delete("few", &DeleteParams::default()).await.unwrap();
    site.in_step("db").await;
    assert_eq!(site.secret("db").await.unwrap().type_.as_deref(), Some("example.com/other"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tried_again_in_a_namespace_that_is_going() {
    let site = Site::new("going").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    let sealed = site.seal("db", "a value that can be recorded again").await;
    site.apply("db", json!({"name": "NAME", "value": sealed})).await;
    site.served("db").await;
    // Keeps the namespace, and the object in it, between living and gone.
    let policy = Policy::new(&site, &["DELETE"], "managedsecrets.dev", "managedsecrets", "true").await;
    let params = DeleteParams { dry_run: true, ..DeleteParams::default() };
    poll("the policy to be effective", PATIENCE, || async {
        Ok(site.objects().delete("db", &params).await.is_err().then_some(()))
    })
    .await
    .unwrap();
    let namespaces = Api::<Namespace>::all(site.client.clone());
    namespaces.delete(&site.namespace, &DeleteParams::default()).await.unwrap();
    let object = site.until("db", "says so", |o| ready(o).1 == "NamespaceTerminating").await;
    assert!(message(&object).contains("the namespace is being deleted"), "{}", message(&object));

    // One try for each of the two Secrets whose end is seen, and none besides: with a backoff there would be five by now.
    let began = Instant::now();
    poll("two seconds", PATIENCE, || async { Ok((began.elapsed().as_secs() >= 2).then_some(())) }).await.unwrap();
    let tries = refused(&tap, 403);
    assert!((1..=3).contains(&tries), "{tries} tries");

    policy.lift().await;
    poll("the namespace to be gone", PATIENCE, || async {
        Ok(namespaces.get_opt(&site.namespace).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    operator.stop().await;
}
