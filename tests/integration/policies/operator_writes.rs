//! The operator itself writes no Secrets but records, targets and its own keys.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use managed_secrets_api::keys;
use serde_json::{Value, json};
use testkit::shared::TestNamespace;

use crate::integration::installation::{OPERATOR_NAMESPACE, admin, control_plane, dry_run, expect, object, operator};

const REFUSED: &str = "the operator may write only records, targets and its own keys";
const RECORD: &str = "msec-ayjtvytngnu4vqtp6gvulissfxwnndnb";

fn secret(name: &str, secret_type: &str, role: Option<&str>) -> Secret {
    let labels = role.map(|role| json!({keys::LABEL_ROLE: role}));
    object(json!({"metadata": {"name": name, "labels": labels}, "type": secret_type, "data": data(secret_type)}))
}

/// What Kubernetes asks of Secrets of its own types.
fn data(secret_type: &str) -> Value {
    match secret_type {
        "kubernetes.io/basic-auth" => json!({"password": "YQ=="}),
        "kubernetes.io/ssh-auth" => json!({"ssh-privatekey": "YQ=="}),
        "kubernetes.io/tls" => json!({"tls.crt": "", "tls.key": ""}),
        "kubernetes.io/dockerconfigjson" => json!({".dockerconfigjson": "e30="}),
        "kubernetes.io/dockercfg" => json!({".dockercfg": "e30="}),
        _ => json!({"value": "YQ=="}),
    }
}

#[tokio::test]
async fn only_records_and_targets_are_written_where_managed_secrets_live() {
    let namespace = TestNamespace::create(control_plane().await, "writes").await.unwrap();
    let secrets = Api::<Secret>::namespaced(operator().await, &namespace.name);
    let record = Some(keys::ROLE_RECORD);
    let target = Some(keys::ROLE_TARGET);
    for (name, secret_type, role, admitted) in [
        (RECORD, keys::TYPE_RECORD, record, true),
        ("db", "Opaque", target, true),
        ("db", "kubernetes.io/basic-auth", target, true),
        ("db", "kubernetes.io/ssh-auth", target, true),
        ("db", "kubernetes.io/dockerconfigjson", target, true),
        ("db", "kubernetes.io/tls", target, true),
        ("db", "example.com/token", target, true),
        ("db", "custom", target, true),
        ("db", "Opaque", None, false),
        ("db", "Opaque", record, false),
        (RECORD, "Opaque", target, false),
        (RECORD, keys::TYPE_RECORD, target, false),
        (RECORD, keys::TYPE_RECORD, None, false),
        ("db", keys::TYPE_RECORD, record, false),
        ("db", keys::TYPE_RECORD, target, false),
        ("db", keys::TYPE_KEYRING, target, false),
        (keys::KEYRING_NAME, keys::TYPE_KEYRING, None, false),
        ("managed-secrets-kek-0123456789abcdef", keys::TYPE_KEK, None, false),
        ("db", "kubernetes.io/dockercfg", target, false),
        ("db", "bootstrap.kubernetes.io/token", target, false),
        ("db", "x.k8s.io/y", target, false),
        ("db", "helm.sh/release.v1", target, false),
    ] {
        let case = format!("{name} of type {secret_type} as {role:?}");
        let refusal = (!admitted).then_some(REFUSED);
        let apply = PatchParams { dry_run: true, ..PatchParams::apply(keys::FIELD_MANAGER).force() };
        let applied = Patch::Apply(secret(name, secret_type, role));
        expect(&case, secrets.patch(name, &apply, &applied).await, refusal);
    }
}

/// The token of every service account would be one write away.
#[tokio::test]
async fn no_service_account_token_is_minted() {
    let namespace = TestNamespace::create(control_plane().await, "writes").await.unwrap();
    let secrets = Api::<Secret>::namespaced(operator().await, &namespace.name);
    let mut token = secret("db", "kubernetes.io/service-account-token", Some(keys::ROLE_TARGET));
    token.metadata.annotations = Some([("kubernetes.io/service-account.name".to_owned(), "default".to_owned())].into());
    token.data = None;
    expect("token", secrets.create(&dry_run(), &token).await, Some(REFUSED));
}

#[tokio::test]
async fn only_keys_are_written_in_the_operators_namespace() {
    let secrets = Api::<Secret>::namespaced(operator().await, OPERATOR_NAMESPACE);
    let kek = "managed-secrets-kek-0123456789abcdef";
    for (name, secret_type, role, admitted) in [
        (keys::KEYRING_NAME, keys::TYPE_KEYRING, None, true),
        (kek, keys::TYPE_KEK, None, true),
        ("other", keys::TYPE_KEYRING, None, false),
        (kek, keys::TYPE_KEYRING, None, false),
        (kek, "Opaque", None, false),
        (RECORD, keys::TYPE_RECORD, Some(keys::ROLE_RECORD), false),
        ("db", "Opaque", Some(keys::ROLE_TARGET), false),
    ] {
        let refusal = (!admitted).then_some(REFUSED);
        // Applied, as an operator of another test may have made its keyring already.
        let apply = PatchParams { dry_run: true, ..PatchParams::apply(keys::FIELD_MANAGER).force() };
        let applied = Patch::Apply(secret(name, secret_type, role));
        expect(&format!("{name} of type {secret_type}"), secrets.patch(name, &apply, &applied).await, refusal);
    }
    // Its rights in the whole cluster include deleting here; the policy takes them back.
    let by_admin = Api::<Secret>::namespaced(admin().await, OPERATOR_NAMESPACE);
    by_admin.create(&PostParams::default(), &secret("bystander", "Opaque", None)).await.unwrap();
    expect("deleting", secrets.delete("bystander", &DeleteParams::default()).await, Some(REFUSED));
}

#[tokio::test]
async fn adopting_and_letting_go_are_no_foreign_writes() {
    let namespace = TestNamespace::create(control_plane().await, "adopt").await.unwrap();
    let by_admin = Api::<Secret>::namespaced(admin().await, &namespace.name);
    let by_operator = Api::<Secret>::namespaced(operator().await, &namespace.name);
    by_admin.create(&PostParams::default(), &secret("theirs", "Opaque", None)).await.unwrap();
    let params = PatchParams::default();
    let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {keys::LABEL_ROLE: value}}}));
    let foreign = Patch::Merge(json!({"data": {"more": "YQ=="}}));
    expect("foreign", by_operator.patch("theirs", &params, &foreign).await, Some(REFUSED));
    expect("adopting", by_operator.patch("theirs", &params, &label(json!(keys::ROLE_TARGET))).await, None);
    expect("letting go", by_operator.patch("theirs", &params, &label(Value::Null)).await, None);
    expect("after it", by_operator.patch("theirs", &params, &foreign).await, Some(REFUSED));
    // Where somebody removed our label, the annotation still tells that it was a target.
    let owner = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_OWNER: "db"}}}));
    by_admin.patch("theirs", &params, &owner).await.unwrap();
    expect("without our label", by_operator.patch("theirs", &params, &foreign).await, None);
}

#[tokio::test]
async fn deleting_is_confined_to_records_and_targets() {
    let namespace = TestNamespace::create(control_plane().await, "delete").await.unwrap();
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let by_admin = Api::<Secret>::namespaced(admin().await, &namespace.name);
    let by_operator = Api::<Secret>::namespaced(operator().await, &namespace.name);
    let target = Some(keys::ROLE_TARGET);
    for (name, secret_type, role, refusal) in [
        ("opaque", "Opaque", None, Some(REFUSED)),
        ("labelled-as-record", "Opaque", Some(keys::ROLE_RECORD), Some(REFUSED)),
        ("dockercfg", "kubernetes.io/dockercfg", target, Some(REFUSED)),
        ("helm", "helm.sh/release.v1", target, Some(REFUSED)),
        ("tls", "kubernetes.io/tls", target, None),
        ("target", "Opaque", target, None),
    ] {
        by_admin.create(&PostParams::default(), &secret(name, secret_type, role)).await.unwrap();
        expect(name, by_operator.delete(name, &dry).await, refusal);
    }
    // Where somebody removed our label, the annotation still tells that it is a target.
    let owner = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_OWNER: "db"}}}));
    by_admin.patch("opaque", &PatchParams::default(), &owner).await.unwrap();
    expect("without our label", by_operator.delete("opaque", &dry).await, None);
    let record = secret(RECORD, keys::TYPE_RECORD, Some(keys::ROLE_RECORD));
    by_operator.create(&PostParams::default(), &record).await.unwrap();
    expect("record", by_operator.delete(RECORD, &dry).await, None);
}
