//! The rights that the manifests give: to the operator, and to people.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use managed_secrets::install::manifests::{self, Options};
use managed_secrets_api::{keys, value};
use serde_json::{Value, json};
use testkit::poll;
use testkit::shared::TestNamespace;

use crate::integration::installation::{
    OPERATOR_NAMESPACE, PATIENCE, Right, admin, control_plane, dry_run, expect, install, may, object, operator, options,
};

const fn right(verb: &'static str, group: &'static str, resource: &'static str) -> Right {
    Right { verb, group, resource, name: None }
}

#[tokio::test]
async fn the_operator_has_the_rights_it_needs_and_no_more() {
    let operator = operator().await;
    let namespace = TestNamespace::create(control_plane().await, "rights").await.unwrap();
    let own = OPERATOR_NAMESPACE;
    let elsewhere = namespace.name.as_str();
    let public_key = |verb| Right { name: Some(keys::PUBLIC_KEY_CONFIGMAP), ..right(verb, "", "configmaps") };
    for verb in ["get", "list", "watch", "create", "patch", "delete"] {
        assert!(may(&operator, elsewhere, &right(verb, "", "secrets")).await, "{verb}");
    }
    for verb in ["get", "list", "watch", "create", "patch"] {
        assert!(may(&operator, own, &public_key(verb)).await, "{verb}");
    }
    for granted in [
        right("list", keys::GROUP, "managedsecrets"),
        right("watch", keys::GROUP, "managedsecrets"),
        right("patch", keys::GROUP, "managedsecrets/status"),
        right("create", "events.k8s.io", "events"),
        right("patch", "events.k8s.io", "events"),
    ] {
        assert!(may(&operator, elsewhere, &granted).await, "{granted:?}");
    }
    let lease = |verb| Right { name: Some(keys::OPERATOR_NAME), ..right(verb, "coordination.k8s.io", "leases") };
    for verb in ["get", "list", "watch", "update"] {
        assert!(may(&operator, own, &lease(verb)).await, "{verb}");
        assert!(!may(&operator, own, &Right { name: Some("other"), ..lease(verb) }).await, "{verb}");
        assert!(!may(&operator, elsewhere, &lease(verb)).await, "{verb}");
    }
    assert!(may(&operator, own, &right("create", "coordination.k8s.io", "leases")).await);
    for withheld in [
        lease("delete"),
        right("update", "", "secrets"),
        right("deletecollection", "", "secrets"),
        right("patch", keys::GROUP, "managedsecrets"),
        right("create", keys::GROUP, "managedsecrets"),
        right("delete", keys::GROUP, "managedsecrets"),
        right("update", keys::GROUP, "managedsecrets/status"),
        right("get", "", "pods"),
        right("create", "", "pods"),
        right("create", "", "serviceaccounts/token"),
        right("impersonate", "", "users"),
        right("create", "rbac.authorization.k8s.io", "rolebindings"),
        right("update", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        public_key("delete"),
    ] {
        assert!(!may(&operator, own, &withheld).await, "{withheld:?}");
    }
    for verb in ["create", "get", "patch"] {
        assert!(!may(&operator, elsewhere, &right(verb, "", "configmaps")).await, "{verb}");
    }
}

/// `create` limited by name works for server-side apply, whose authorization carries the name.
#[tokio::test]
async fn the_operator_may_apply_its_public_key_and_no_other_map() {
    let maps = Api::<ConfigMap>::namespaced(operator().await, OPERATOR_NAMESPACE);
    let apply = PatchParams { dry_run: true, ..PatchParams::apply(keys::FIELD_MANAGER).force() };
    for (name, refusal) in [(keys::PUBLIC_KEY_CONFIGMAP, None), ("other", Some("configmaps \"other\" is forbidden"))] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
        expect(name, maps.patch(name, &apply, &Patch::Apply(map)).await, refusal);
    }
}

#[tokio::test]
async fn any_authenticated_user_may_read_the_public_key_and_nothing_else() {
    let anyone = control_plane().await.access().client_as("anyone", &[]).await.unwrap();
    let get = |name, resource| Right { name: Some(name), ..right("get", "", resource) };
    assert!(may(&anyone, OPERATOR_NAMESPACE, &get(keys::PUBLIC_KEY_CONFIGMAP, "configmaps")).await);
    assert!(!may(&anyone, OPERATOR_NAMESPACE, &get("other", "configmaps")).await);
    assert!(!may(&anyone, OPERATOR_NAMESPACE, &get(keys::KEYRING_NAME, "secrets")).await);
}

#[tokio::test]
async fn built_in_roles_include_ours() {
    let namespace = TestNamespace::create(control_plane().await, "roles").await.unwrap();
    let read = [right("get", keys::GROUP, "managedsecrets"), right("watch", keys::GROUP, "managedsecrets")];
    let write = [right("create", keys::GROUP, "managedsecrets"), right("delete", keys::GROUP, "managedsecrets")];
    let never =
        [right("patch", keys::GROUP, "managedsecrets/status"), right("get", keys::GROUP, "managedsecrets/value")];
    let bindings = Api::<RoleBinding>::namespaced(admin().await, &namespace.name);
    for (role, writes) in [("view", false), ("edit", true), ("admin", true)] {
        let group = "rbac.authorization.k8s.io";
        let binding: RoleBinding = object(json!({
            "metadata": {"name": role},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": format!("{role}-user")}],
        }));
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        let user = control_plane().await.access().client_as(&format!("{role}-user"), &[]).await.unwrap();
        for right in read.iter().chain(write.iter().filter(|_| writes)) {
            poll(&format!("{role} to include {right:?}"), PATIENCE, || async {
                Ok(may(&user, &namespace.name, right).await.then_some(()))
            })
            .await
            .unwrap();
        }
        for right in never.iter().chain(write.iter().filter(|_| !writes)) {
            assert!(!may(&user, &namespace.name, right).await, "{role} must not include {right:?}");
        }
    }
}

/// The pod of the Deployment fits the pod security standard that its namespace enforces.
#[tokio::test]
async fn the_pod_is_admitted() {
    let objects = manifests::manifests(&options());
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let mut pod = deployment["spec"]["template"].clone();
    pod["metadata"]["name"] = json!("probe");
    let pods = Api::<Pod>::namespaced(admin().await, OPERATOR_NAMESPACE);
    poll("the quota of its priority class to be known", PATIENCE, || async {
        let answer = pods.create(&dry_run(), &object(pod.clone())).await;
        Ok((!answer.is_err_and(|error| error.to_string().contains("status unknown for quota"))).then_some(()))
    })
    .await
    .unwrap();
    expect("the pod", pods.create(&dry_run(), &object(pod.clone())).await, None);
    pod["spec"]["containers"][0]["securityContext"] = Value::Null;
    expect("one with more rights", pods.create(&dry_run(), &object(pod)).await, Some("violates PodSecurity"));
}

/// With `--namespace`, the operator's rights end at that namespace, and so do its policies: two operators can stand side
/// by side.
#[tokio::test]
async fn an_operator_of_one_namespace_has_no_rights_in_others() {
    let served = TestNamespace::create(control_plane().await, "served").await.unwrap();
    let other = TestNamespace::create(control_plane().await, "other").await.unwrap();
    let own = TestNamespace::create(control_plane().await, "own").await.unwrap();
    let options =
        Options { operator_namespace: own.name.clone(), namespaces: vec![served.name.clone()], ..Options::default() };
    let access = control_plane().await.access();
    let text = manifests::print(&options).unwrap();
    let output = access.kubectl_with_input(&["apply", "--server-side", "-f", "-"], &text).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let operator = access.client_of(&own.name, keys::OPERATOR_NAME).await.unwrap();
    let rights = [right("list", "", "secrets"), right("patch", keys::GROUP, "managedsecrets/status")];
    for granted in &rights {
        poll("the roles to be effective", PATIENCE, || async {
            Ok(may(&operator, &served.name, granted).await.then_some(()))
        })
        .await
        .unwrap();
        assert!(!may(&operator, &other.name, granted).await, "{granted:?}");
    }
    poll("the role for its keyring to be effective", PATIENCE, || async {
        Ok(may(&operator, &own.name, &right("create", "", "secrets")).await.then_some(()))
    })
    .await
    .unwrap();
    assert!(!may(&operator, &own.name, &right("delete", "", "secrets")).await);

    let record: Secret = object(json!({
        "metadata": {"name": "msec-a", "labels": {keys::LABEL_ROLE: keys::ROLE_RECORD}}, "type": keys::TYPE_RECORD,
    }));
    let first = self::operator().await;
    let in_served = Api::<Secret>::namespaced(first.clone(), &served.name);
    poll("the new operator's policies to be effective", PATIENCE, || async {
        Ok(in_served.create(&dry_run(), &record).await.is_err().then_some(()))
    })
    .await
    .unwrap();
    let elsewhere = Api::<Secret>::namespaced(first, &other.name);
    expect("the first operator, elsewhere", elsewhere.create(&dry_run(), &record).await, None);
}

/// With `--value-api`, on a control plane of its own: while an API without a server is registered, no namespace is deleted.
#[tokio::test]
async fn the_value_api_comes_with_its_permissions_and_ends_with_its_role() {
    let plane = install(&Options { value_api: true, ..options() }, &["shop"]).await.unwrap();
    let operator = plane.access().client_of(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let named = |verb, group, resource, name| Right { name: Some(name), ..right(verb, group, resource) };
    let services = "apiregistration.k8s.io";
    let roles = "rbac.authorization.k8s.io";
    let service = |verb| named(verb, services, "apiservices", value::API_SERVICE);
    let front_proxy = |verb| named(verb, "", "configmaps", "extension-apiserver-authentication");
    for granted in [
        right("create", "authentication.k8s.io", "tokenreviews"),
        right("create", "authorization.k8s.io", "subjectaccessreviews"),
        service("get"),
        service("watch"),
        service("patch"),
        named("get", roles, "clusterroles", value::CLUSTER_ROLE),
        front_proxy("get"),
        front_proxy("watch"),
    ] {
        assert!(may(&operator, "kube-system", &granted).await, "{granted:?}");
    }
    for withheld in [
        service("delete"),
        right("create", services, "apiservices"),
        named("patch", services, "apiservices", "v1.apps"),
        named("patch", roles, "clusterroles", value::CLUSTER_ROLE),
        named("get", "", "configmaps", "kube-root-ca.crt"),
        front_proxy("patch"),
    ] {
        assert!(!may(&operator, "kube-system", &withheld).await, "{withheld:?}");
    }

    // The role for readers is part of no other role.
    let bind = async |role: &str, user: &str| {
        let (role, subject) = (format!("--clusterrole={role}"), format!("--user={user}"));
        plane.access().kubectl_ok(&["create", "rolebinding", user, &role, &subject, "-n", "shop"]).await.unwrap();
    };
    bind("managedsecret-value-reader", "reader").await;
    bind("admin", "other").await;
    let read = right("get", value::GROUP, value::PLURAL);
    let client = async |user: &str| plane.access().client_as(user, &[]).await.unwrap();
    let (reader, other) = (client("reader").await, client("other").await);
    poll("the roles to be effective", PATIENCE, || async {
        let edits = may(&other, "shop", &right("create", keys::GROUP, "managedsecrets")).await;
        Ok((edits && may(&reader, "shop", &read).await).then_some(()))
    })
    .await
    .unwrap();
    assert!(!may(&other, "shop", &read).await && !may(&reader, "default", &read).await);
    for verb in ["list", "watch", "create", "delete"] {
        assert!(!may(&reader, "shop", &right(verb, value::GROUP, value::PLURAL)).await, "{verb}");
    }

    // The operator may make its role the owner. Then the APIService ends with it, whatever else is deleted before.
    let (own, apis) = (Api::<ClusterRole>::all(operator.clone()), Api::<APIService>::all(operator));
    let uid = own.get(value::CLUSTER_ROLE).await.unwrap().metadata.uid;
    let owner =
        json!({"apiVersion": format!("{roles}/v1"), "kind": "ClusterRole", "name": value::CLUSTER_ROLE, "uid": uid});
    let change = json!({"metadata": {"ownerReferences": [owner]}});
    apis.patch(value::API_SERVICE, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let admin = plane.access().admin_client().await.unwrap();
    Api::<Namespace>::all(admin.clone()).delete("shop", &DeleteParams::default()).await.unwrap();
    Api::<ClusterRole>::all(admin.clone()).delete(value::CLUSTER_ROLE, &DeleteParams::default()).await.unwrap();
    poll("the APIService and the namespace to end", PATIENCE, || async {
        let service = Api::<APIService>::all(admin.clone()).get_opt(value::API_SERVICE).await?;
        let shop = Api::<Namespace>::all(admin.clone()).get_opt("shop").await?;
        Ok((service.is_none() && shop.is_none()).then_some(()))
    })
    .await
    .unwrap();
    plane.stop().await.unwrap();
}
