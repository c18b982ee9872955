//! One case per finding: something is broken, and it is the check for it that says so.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use managed_secrets_api::{crd, keys, names::record_name};
use serde_json::{Value, json};

use super::Clinic;
use crate::integration::{
    installation::{OPERATOR_NAMESPACE, RESTORER},
    objects::Site,
};

impl Clinic {
    /// The operator's namespace, as a restorer.
    async fn own(&self) -> Site {
        let client = self.plane.access().client_as(RESTORER, &["system:masters"]).await.unwrap();
        Site { namespace: OPERATOR_NAMESPACE.to_owned(), client }
    }

    /// A merge patch of anything.
    async fn patch(&self, object: &[&str], patch: &Value) {
        self.kubectl(&[&["patch", "--type=merge", "-p", &patch.to_string()], object].concat(), "").await;
    }

    /// Puts a Secret back as it was.
    async fn put_back(&self, secret: &Secret) {
        let mut secret = secret.clone();
        secret.metadata.managed_fields = None;
        (secret.metadata.uid, secret.metadata.resource_version) = (None, None);
        self.own().await.secrets().create(&PostParams::default(), &secret).await.unwrap();
    }

    async fn take(&self, name: &str) -> Secret {
        let own = self.own().await;
        let secret = own.secret(name).await.unwrap();
        own.secrets().delete(name, &DeleteParams::default()).await.unwrap();
        secret
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_what_is_installed_is_found() {
    let clinic = Clinic::new().await;
    let own = ["-n", OPERATOR_NAMESPACE];
    // Never run: no keys, no certificates, nobody to call.
    clinic.finds("problem", "operator", "none of 2 replicas is available").await;
    clinic.finds("problem", "keyring", "keyring not found in the namespace").await;
    clinic.finds("problem", "sealing key", "contains no public key").await;
    clinic.finds("problem", "webhooks", "has no CA bundle").await;
    clinic.finds("problem", "endpoints", "has no ready endpoint: the API server refuses plain values").await;
    clinic.finds("warning", "certificates", "with a certificate authority not found").await;
    clinic.finds("ok", "policies", "").await;
    clinic.compare("doctor-problem", &clinic.plugin.run(&["doctor"]).await.out);

    // A namespace that is served and does not exist, then without the RoleBinding.
    let deployment = ["deployment", keys::OPERATOR_NAME, own[0], own[1]];
    let arguments = "/spec/template/spec/containers/0/args/-";
    let add = json!([{"op": "add", "path": arguments, "value": "--namespace=left-out"}]).to_string();
    clinic.kubectl(&[&["patch", "--type=json", "-p", &add][..], &deployment[..]].concat(), "").await;
    clinic.finds("problem", "namespaces", "does not watch namespace left-out: namespace not found").await;
    clinic.kubectl(&["create", "namespace", "left-out"], "").await;
    clinic.finds("problem", "namespaces", "RoleBinding left-out/managed-secrets").await;
    let bind = ["create", "rolebinding", keys::OPERATOR_NAME, "--clusterrole=view", "-n", "left-out"];
    clinic.kubectl(&[&bind[..], &["--group=left-out"][..]].concat(), "").await;
    clinic.finds("ok", "namespaces", "the operator watches left-out").await;

    // The CRD: a rule less, a property more, gone.
    let name = "managedsecrets.managedsecrets.dev";
    let rule = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/name/x-kubernetes-validations";
    let less = json!([{"op": "remove", "path": rule}]).to_string();
    clinic.kubectl(&["patch", "crd", name, "--type=json", "-p", &less], "").await;
    clinic.finds("problem", "resource", "properties.spec.properties.name.x-kubernetes-validations").await;
    let whole = serde_json::to_string(&crd::crd()).unwrap();
    clinic.kubectl(&["replace", "-f", "-"], &whole).await;
    clinic.finds("ok", "resource", "is that of this version").await;
    let property = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/later";
    let more = json!([{"op": "add", "path": property, "value": {"type": "string"}}]).to_string();
    clinic.kubectl(&["patch", "crd", name, "--type=json", "-p", &more], "").await;
    clinic.finds("problem", "resource", "properties.spec.properties.later").await;
    clinic.kubectl(&["delete", "crd", name], "").await;
    clinic.finds("problem", "resource", "not found").await;
    clinic.finds("unknown", "secrets", "not installed").await;
    clinic.kubectl(&["create", "-f", "-"], &whole).await;

    // The policies.
    clinic.kubectl(&["delete", "validatingadmissionpolicybinding", keys::POLICY_USER_RIGHTS], "").await;
    clinic.finds("problem", "policies", "refuses nothing: it has no binding with the action Deny").await;
    clinic.kubectl(&["delete", "validatingadmissionpolicy", keys::POLICY_USER_RIGHTS], "").await;
    clinic.finds("warning", "policies", &format!("policy {} not found", keys::POLICY_USER_RIGHTS)).await;
    clinic
        .patch(
            &["validatingadmissionpolicy", keys::POLICY_OPERATOR_WRITES],
            &json!({"spec": {"failurePolicy": "Ignore"}}),
        )
        .await;
    clinic.finds("problem", "policies", "its failurePolicy is not Fail").await;

    // Deployment and service account.
    let deployment = ["deployment", keys::OPERATOR_NAME, own[0], own[1]];
    let image = |image: &str| {
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]).to_string()
    };
    clinic
        .kubectl(
            &[&["patch", "--type=json", "-p", &image("example.com/managed-secrets:9.8.7")], deployment.as_slice()]
                .concat(),
            "",
        )
        .await;
    clinic.finds("note", "operator", "the operator runs example.com/managed-secrets:9.8.7").await;
    clinic.patch(&deployment, &json!({"spec": {"replicas": 0}})).await;
    clinic.finds("problem", "operator", "its Deployment has 0 replicas").await;
    clinic.patch(&deployment, &json!({"spec": {"replicas": 2}})).await;
    let status = json!({"status": {"replicas": 2, "readyReplicas": 1, "availableReplicas": 1}});
    clinic.patch(&[&deployment[..], &["--subresource=status"]].concat(), &status).await;
    clinic.finds("warning", "operator", "1 of 2 replicas are available").await;
    clinic.kubectl(&["delete", "serviceaccount", keys::OPERATOR_NAME, own[0], own[1]], "").await;
    clinic.finds("problem", "operator", "ServiceAccount").await;
    let off =
        json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--webhook-listen=off"}])
            .to_string();
    clinic.kubectl(&[&["patch", "--type=json", "-p", &off], deployment.as_slice()].concat(), "").await;
    clinic.finds("note", "webhooks", "the webhooks are off").await;
    clinic.kubectl(&[&["delete"], deployment.as_slice()].concat(), "").await;
    clinic.finds("warning", "operator", "Deployment").await;

    // The webhooks' configurations, and one that is called before.
    let early = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "0-early"}, "webhooks": [{
        "name": "early.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
        "clientConfig": {"url": "https://127.0.0.1:1/"}, "timeoutSeconds": 1,
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*"]}],
    }]});
    clinic.kubectl(&["create", "-f", "-"], &early.to_string()).await;
    clinic.finds("warning", "webhooks", "calls MutatingWebhookConfiguration 0-early before the operator").await;
    clinic.kubectl(&["delete", "mutatingwebhookconfiguration", "0-early"], "").await;
    let url = json!([{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://127.0.0.1:1/secret-path"}}]);
    clinic
        .kubectl(
            &["patch", "mutatingwebhookconfiguration", keys::SEAL_CONFIGURATION, "--type=json", "-p", &url.to_string()],
            "",
        )
        .await;
    clinic.finds("note", "endpoints", "have a URL").await;
    assert!(!clinic.plugin.run(&["doctor"]).await.out.contains("secret-path"));
    let none = json!([{"op": "replace", "path": "/webhooks", "value": []}]).to_string();
    clinic
        .kubectl(&["patch", "validatingwebhookconfiguration", keys::WARN_CONFIGURATION, "--type=json", "-p", &none], "")
        .await;
    clinic.finds("warning", "webhooks", "does not contain the operator's webhook").await;
    clinic.kubectl(&["delete", "mutatingwebhookconfiguration", keys::SEAL_CONFIGURATION], "").await;
    clinic.finds("problem", "webhooks", "0-managed-secrets-seal not found").await;
    clinic.plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_keys_and_secrets_is_found() {
    let (clinic, operator) = Clinic::healthy().await;
    let (own, site) = (clinic.own().await, &clinic.site);
    site.apply("taken", json!({"name": "DB", "generate": {}})).await;
    clinic.finds("warning", "secrets", "not delivered yet: NameInUse: 1").await;
    let sealed = site.seal("elsewhere", "canary").await;
    site.apply("misplaced", json!({"name": "MISPLACED", "value": sealed})).await;
    clinic.finds("problem", "secrets", "stuck until you act: SealedForAnotherPlace: 1").await;
    site.apply("kept", json!({"name": "KEPT", "generate": {}, "deletionPolicy": "Retain"})).await;
    site.served("kept").await;
    site.delete("kept").await;
    clinic.finds("note", "records", "are retained").await;
    assert_eq!(operator.stop().await.unwrap(), 0);

    // A record put back without its ManagedSecret, and one that lost its metadata.
    let restorer = Site { client: own.client.clone(), ..site.clone() };
    let mut record = site.record("DB").await.unwrap();
    (record.metadata.owner_references, record.metadata.managed_fields) = (None, None);
    (record.metadata.uid, record.metadata.resource_version) = (None, None);
    site.delete("db").await;
    site.gone(&record_name("DB")).await;
    restorer.secrets().create(&PostParams::default(), &record).await.unwrap();
    clinic.finds("warning", "records", "have no ManagedSecret").await;
    let broken = json!({"metadata": {"annotations": {keys::ANNO_MAC: null}}});
    restorer.secrets().patch(&record_name("DB"), &PatchParams::default(), &Patch::Merge(broken)).await.unwrap();
    clinic.finds("problem", "records", "lack required metadata").await;

    // The published key: another one, an old one, none at all.
    let maps = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(own.client.clone(), OPERATOR_NAMESPACE);
    let published = maps.get(keys::PUBLIC_KEY_CONFIGMAP).await.unwrap();
    let document = published.data.unwrap()[keys::PUBLIC_KEY_DATA_KEY].clone();
    let write = async |document: &str| {
        let data = json!({"data": {keys::PUBLIC_KEY_DATA_KEY: document}});
        maps.patch(keys::PUBLIC_KEY_CONFIGMAP, &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
    };
    let mut old: Value = serde_json::from_str(&document).unwrap();
    old["notAfter"] = json!("2020-01-01T00:00:00Z");
    write(&old.to_string()).await;
    clinic.finds("warning", "sealing key", "should have been replaced by 2020-01-01").await;
    let other = managed_secrets_crypto::mss1::SealingKey::new(zeroize::Zeroizing::new([7; 32])).unwrap();
    let other = managed_secrets_crypto::mss1::PublishedKey::new(other.public().clone(), jiff::Timestamp::now());
    write(&other.to_json().unwrap()).await;
    clinic.finds("problem", "sealing key", "but the keyring's newest key is").await;
    write("{}").await;
    clinic.finds("problem", "sealing key", "is invalid").await;
    write(&document).await;

    // Certificates: what stands in their Secret are dates, besides keys that are never said.
    let webhook = own.secret(keys::WEBHOOK_SECRET).await.unwrap();
    let bytes = webhook.data.clone().unwrap().remove(keys::WEBHOOK_DATA_KEY).unwrap();
    let mut authorities: Value = serde_json::from_slice(&bytes.0).unwrap();
    for (created, level, says) in [
        ("2020-01-01T00:00:00Z", "problem", "expired at 2020-12-31"),
        ("old", "warning", "should have been renewed at"),
    ] {
        let ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 300);
        authorities["authorities"][0]["created"] =
            json!(if created == "old" { ago.to_string() } else { created.to_owned() });
        let data = json!({"stringData": {keys::WEBHOOK_DATA_KEY: authorities.to_string()}});
        own.secrets().patch(keys::WEBHOOK_SECRET, &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
        clinic.finds(level, "certificates", says).await;
    }

    // Keys: a key-encryption key, then the keyring; another beside it; something that is none.
    let list = own.secrets().list(&ListParams::default().fields(&format!("type={}", keys::TYPE_KEK))).await.unwrap();
    let kek = clinic.take(list.items[0].metadata.name.as_deref().unwrap()).await;
    clinic.finds("problem", "keyring", "not found: the operator cannot start again").await;
    clinic.put_back(&kek).await;
    let keyring = clinic.take(keys::KEYRING_NAME).await;
    clinic.finds("problem", "keyring", "not found").await;
    clinic.finds("problem", "records", "were encrypted with a seed that is not in the keyring").await;
    clinic.finds("problem", "sealing key", "which is not in the keyring").await;
    clinic.put_back(&keyring).await;
    let wrong = json!({"metadata": {"name": "wrong"}, "type": keys::TYPE_KEYRING, "stringData": {"x": "y"}});
    own.secrets().create(&PostParams::default(), &serde_json::from_value(wrong).unwrap()).await.unwrap();
    clinic.finds("problem", "keyring", "does not contain one: the operator does not start").await;
    own.secrets().delete("wrong", &DeleteParams::default()).await.unwrap();
    let bytes = keyring.data.unwrap().remove(keys::KEYRING_DATA_KEY).unwrap();
    let mut file: Value = serde_json::from_slice(&bytes.0).unwrap();
    for entry in file["entries"].as_array_mut().unwrap() {
        entry["wrapped"]["provider"] = json!("file");
    }
    let beside = json!({"metadata": {"name": "beside"}, "type": keys::TYPE_KEYRING,
        "stringData": {keys::KEYRING_DATA_KEY: file.to_string()}});
    own.secrets().create(&PostParams::default(), &serde_json::from_value(beside).unwrap()).await.unwrap();
    clinic.finds("note", "keyring", "needs the KEK file with the id").await;
    clinic.finds("ok", "protection", "the provider \"file\" keeps the key-encryption key").await;
    clinic.plane.stop().await.unwrap();
}
