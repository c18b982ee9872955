//! `delete` and `describe`: Gateways and their relatives, which can use a Secret of another namespace. The cluster serves them
//! in several versions or not at all, so these tests have a control plane of their own.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use testkit::{ControlPlane, poll};

use super::{delete::create, may};
use crate::integration::{
    installation::{OPERATOR_NAMESPACE, install, options},
    msec::{Plugin, user_with},
    objects::Site,
    operator::{PATIENCE, Running, Setup},
};

const GROUP: &str = "gateway.networking.k8s.io";
const GATEWAY: (&str, &str, &str, &str) = (GROUP, "v1beta1", "Gateway", "gateways");

/// A cluster with a secret that is delivered as the Secret `db`.
struct Cluster {
    plane: ControlPlane,
    site: Site,
    operator: Running,
}

impl Cluster {
    async fn new() -> Self {
        let plane = install(&options(), &[]).await.unwrap();
        let site = Site::on(&plane, "gateways").await;
        let kubeconfig = plane.access().kubeconfig_for(OPERATOR_NAMESPACE, "managed-secrets").await.unwrap();
        let setup = Setup::of(&site.namespace);
        let operator = setup.start_with(testkit::access::config_of(&kubeconfig).await.unwrap());
        site.apply("db", json!({"name": "DB", "generate": {}})).await;
        site.served("db").await;
        Self { plane, site, operator }
    }

    /// Installs a kind of Gateway API, or changes in which versions the cluster serves it.
    async fn serves(&self, group: &str, kind: &str, plural: &str, served: &[&str]) {
        let name = format!("{plural}.{group}");
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let versions = ["v1", "v1beta1", "v1alpha1", "v9"].map(|version| {
            json!({"name": version, "served": served.contains(&version), "storage": version == "v9", "schema": schema})
        });
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
            "spec": {"group": group, "scope": "Namespaced", "versions": versions, "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
            }},
        });
        let crds = Api::<CustomResourceDefinition>::all(self.site.client.clone());
        crds.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(crd)).await.unwrap();
        let list = async |version: &str| {
            let url = format!("/apis/{group}/{version}/{plural}");
            self.site.client.request_text(http::Request::get(url).body(Vec::new()).unwrap()).await.is_ok()
        };
        poll("the versions to be served", PATIENCE, || async {
            for version in ["v1", "v1beta1", "v1alpha1", "v9"] {
                if list(version).await != served.contains(&version) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
        .unwrap();
    }

    /// What standard error of `delete` says, which the user does not confirm.
    async fn warns(&self, plugin: &Plugin) -> String {
        let refused = plugin.run(&["delete", "DB"]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        refused.err
    }
}

/// A spec with a listener that uses a certificate.
fn listens(reference: &Value) -> Value {
    json!({"spec": {"listeners": [{"name": "https", "tls": {"certificateRefs": [reference]}}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_looked_at_in_each_version_and_namespace_or_unknown() {
    let cluster = Cluster::new().await;
    let (site, plugin) = (&cluster.site, Plugin::on(&cluster.plane, &cluster.site));
    let own = &site.namespace;
    let dry = plugin.run(&["delete", "DB", "--dry-run=client"]).await;
    assert_eq!((dry.code, dry.err.as_str()), (0, ""), "a cluster without Gateway API has no Gateway: {dry:?}");

    cluster.serves(GROUP, "Gateway", "gateways", &["v1beta1", "v9"]).await;
    create(site, GATEWAY, "edge", listens(&json!({"name": "db"}))).await;
    let local = "warning: Secret db is used by gateway/edge (listener https)\n";
    let warned = cluster.warns(&plugin).await;
    assert!(warned.starts_with(&format!("{local}error: ")), "{warned}");

    // In another namespace: the reference names the Secret's.
    let edge = Site::on(&cluster.plane, "edge").await;
    create(&edge, GATEWAY, "shared", listens(&json!({"name": "db", "namespace": own}))).await;
    create(&edge, GATEWAY, "unrelated", listens(&json!({"name": "db"}))).await;
    let client = json!({"spec": {"tls": {"backend": {"clientCertificateRef": {"name": "db", "namespace": own}}}}});
    create(&edge, GATEWAY, "client", client).await;
    cluster.serves(GROUP, "ListenerSet", "listenersets", &["v1"]).await;
    let set = (GROUP, "v1", "ListenerSet", "listenersets");
    create(&edge, set, "more", listens(&json!({"name": "db", "namespace": own}))).await;
    cluster.serves("gateway.networking.x-k8s.io", "XListenerSet", "xlistenersets", &["v1alpha1"]).await;
    let experimental = ("gateway.networking.x-k8s.io", "v1alpha1", "XListenerSet", "xlistenersets");
    create(&edge, experimental, "early", listens(&json!({"name": "db", "namespace": own}))).await;
    cluster.serves(GROUP, "BackendTLSPolicy", "backendtlspolicies", &["v1"]).await;
    let policy =
        json!({"spec": {"validation": {"caCertificateRefs": [{"kind": "Secret", "group": "", "name": "db"}]}}});
    create(site, (GROUP, "v1", "BackendTLSPolicy", "backendtlspolicies"), "trust", policy).await;
    let at = format!("in the namespace {}", edge.namespace);
    let all = [
        "backendtlspolicy/trust (spec.validation.caCertificateRefs)".to_owned(),
        "gateway/edge (listener https)".to_owned(),
        format!("gateway/client {at} (spec.tls.backend.clientCertificateRef)"),
        format!("gateway/shared {at} (listener https)"),
        format!("listenerset/more {at} (listener https)"),
        format!("xlistenerset/early {at} (listener https)"),
    ];
    let warned = cluster.warns(&plugin).await;
    let warnings = all.each_ref().map(|user| format!("warning: Secret db is used by {user}\n")).concat();
    assert!(warned.starts_with(&format!("{warnings}error: ")), "{warned}");
    let described = plugin.run(&["describe", "DB"]).await.ok();
    assert!(described.contains(&format!("Used by:\n  {}\nEvents:", all.join("\n  "))), "{described}");

    refused(&cluster, &plugin, local).await;

    cluster.serves(GROUP, "Gateway", "gateways", &["v9"]).await;
    let warned = cluster.warns(&plugin).await;
    let unknown = "warning: it is unknown whether Secret db is used by gateways.gateway.networking.k8s.io: the cluster \
                   serves them as gateway.networking.k8s.io/v9, which is not known here\n";
    assert!(warned.contains(unknown) && !warned.contains("gateway/"), "{warned}");
    cluster.operator.stop().await;
}

/// Users who may not list them, in all namespaces or in any: unknown, with the permission that is missing.
async fn refused(cluster: &Cluster, plugin: &Plugin, local: &str) {
    let site = &cluster.site;
    let kinds = "gateways.gateway.networking.k8s.io, listenersets.gateway.networking.k8s.io, \
                 xlistenersets.gateway.networking.x-k8s.io";
    let others = format!(
        "{kinds} in all namespaces: permission denied: check `kubectl auth can-i list gateways.gateway.networking.k8s.io \
         -A`, and likewise for the others\n"
    );
    let delete = may(&["get", "list", "delete"]);
    let user = user_with(site, &[delete]).await;
    let warned = cluster.warns(&plugin.impersonating(&user)).await;
    let policies = "ingresses.networking.k8s.io, backendtlspolicies.gateway.networking.k8s.io: permission denied";
    assert!(warned.contains(policies) && warned.contains(&format!("is used by {others}")), "{warned}");

    // A user of one namespace sees what is in it.
    let user = user_with(site, &[delete]).await;
    let rules = json!([{"apiGroups": [GROUP, "gateway.networking.x-k8s.io"], "resources": ["*"], "verbs": ["list"]}]);
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user});
    let rbac = |kind: &'static str, plural| ("rbac.authorization.k8s.io", "v1", kind, plural);
    create(site, rbac("Role", "roles"), &user, json!({"rules": rules})).await;
    create(site, rbac("RoleBinding", "rolebindings"), &user, json!({"roleRef": role, "subjects": [subject]})).await;
    let plugin = plugin.impersonating(&user);
    poll("the role to be effective", PATIENCE, || async {
        let may = ["auth", "can-i", "list", "gateways.gateway.networking.k8s.io", "-n", &site.namespace, "--as", &user];
        Ok((plugin.kubectl(&may, b"").await.code == 0).then_some(()))
    })
    .await
    .unwrap();
    let warned = cluster.warns(&plugin).await;
    let others = others.replace("in all namespaces", "in other namespaces");
    assert!(warned.contains(local) && warned.contains(&format!("is used by {others}")), "{warned}");
    assert!(!warned.contains("gateway/shared") && warned.contains("backendtlspolicy/trust"), "{warned}");

    // The CRDs go, so that the next test of this cluster would find none; no user is told of kinds that do not exist.
    let crds = Api::<CustomResourceDefinition>::all(site.client.clone());
    for name in ["listenersets.gateway.networking.k8s.io", "xlistenersets.gateway.networking.x-k8s.io"] {
        crds.delete(name, &DeleteParams::default()).await.unwrap();
    }
    poll("the kinds to be absent", PATIENCE, || async {
        let warned = cluster.warns(&plugin).await;
        Ok((!warned.contains("listenersets")).then_some(()))
    })
    .await
    .unwrap();
}
