//! Who sends a request, and what they may do, as the API server says it.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    authorization::v1::ResourceAttributes,
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use managed_secrets::access::{Action, Caller, ReviewError, Reviewer};
use serde_json::{Value, json};
use testkit::poll;

use super::{
    installation::{self, admin, object},
    objects::Site,
    operator::PATIENCE,
};

/// A token of a service account, for these audiences; for the API server if there are none.
pub(crate) async fn token_of(client: &Client, namespace: &str, name: &str, audiences: &[&str]) -> String {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let audiences = Some(audiences.iter().map(ToString::to_string).collect());
    let spec = Some(TokenRequestSpec { audiences, expiration_seconds: Some(3600), ..TokenRequestSpec::default() });
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token.unwrap()
}

/// A new service account.
pub(crate) async fn service_account(client: &Client, namespace: &str, name: &str) {
    let account: ServiceAccount = object(json!({"metadata": {"name": name}}));
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &account).await.unwrap();
}

const AUDIENCE: &str = "reader.example.com";

#[tokio::test]
async fn a_token_is_valid_for_its_audience_and_while_its_owner_exists() {
    let site = Site::new("callers").await;
    let (client, namespace) = (&site.client, site.namespace.as_str());
    service_account(client, namespace, "web").await;
    let (plain, bound) =
        (token_of(client, namespace, "web", &[]).await, token_of(client, namespace, "web", &[AUDIENCE]).await);
    let reviewer = Reviewer::new(admin().await);
    let name = format!("system:serviceaccount:{namespace}:web");
    for (token, audience) in [(&plain, None), (&bound, Some(AUDIENCE))] {
        let caller = reviewer.authenticate(token, audience).await.unwrap().unwrap();
        assert_eq!(caller.username, name);
        assert!(caller.groups.contains(&format!("system:serviceaccounts:{namespace}")), "{caller:?}");
        assert!(!caller.uid.is_empty());
    }
    // The signature of another token.
    let forged = format!("{}.{}", bound.rsplit_once('.').unwrap().0, plain.rsplit_once('.').unwrap().1);
    for (token, audience) in [
        (plain.as_str(), Some(AUDIENCE)),
        (&bound, None),
        (&bound, Some("other.example.com")),
        (&forged, Some(AUDIENCE)),
        ("no-token", None),
        ("", None),
    ] {
        assert_eq!(reviewer.authenticate(token, audience).await.unwrap(), None, "{audience:?}");
    }
    Api::<ServiceAccount>::namespaced(client.clone(), namespace).delete("web", &DeleteParams::default()).await.unwrap();
    poll("the token to be refused", PATIENCE, || async {
        let known = reviewer.authenticate(&bound, Some(AUDIENCE)).await.unwrap();
        Ok(known.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_permission_is_granted_and_taken_by_rbac() {
    let site = Site::new("permissions").await;
    let reviewer = Reviewer::new(admin().await);
    let caller = Caller { username: format!("ann-{}", site.namespace), ..Caller::default() };
    let metrics = Action::Path { verb: "get".to_owned(), path: "/metrics".to_owned() };
    let secret = |name: &str| {
        Action::Resource(Box::new(ResourceAttributes {
            namespace: Some(site.namespace.clone()),
            verb: Some("get".to_owned()),
            resource: Some("secrets".to_owned()),
            name: Some(name.to_owned()),
            ..ResourceAttributes::default()
        }))
    };
    for action in [&metrics, &secret("db")] {
        assert!(!reviewer.may(&caller, action).await.unwrap(), "{action:?}");
    }
    let subject = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": caller.username});
    let role = |kind: &str, rules: &Value| {
        let metadata = json!({"name": site.namespace});
        let role = json!({"metadata": metadata, "rules": rules});
        let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": site.namespace});
        (role, json!({"metadata": metadata, "roleRef": of, "subjects": [subject]}))
    };
    let client = site.client.clone();
    let (params, namespace) = (PostParams::default(), &site.namespace);
    let (cluster_role, cluster_binding) =
        role("ClusterRole", &json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]));
    let (local_role, binding) = role(
        "Role",
        &json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"], "verbs": ["get"]}]),
    );
    let cluster_roles = Api::<ClusterRole>::all(client.clone());
    let cluster_bindings = Api::<ClusterRoleBinding>::all(client.clone());
    cluster_roles.create(&params, &object(cluster_role)).await.unwrap();
    cluster_bindings.create(&params, &object(cluster_binding)).await.unwrap();
    Api::<Role>::namespaced(client.clone(), namespace).create(&params, &object(local_role)).await.unwrap();
    Api::<RoleBinding>::namespaced(client, namespace).create(&params, &object(binding)).await.unwrap();
    for action in [&metrics, &secret("db")] {
        poll("the permission", PATIENCE, || async { Ok(reviewer.may(&caller, action).await.unwrap().then_some(())) })
            .await
            .unwrap();
    }
    let other = Caller { username: "bob".to_owned(), ..caller.clone() };
    assert!(!reviewer.may(&caller, &secret("other")).await.unwrap());
    assert!(!reviewer.may(&other, &metrics).await.unwrap());
    cluster_bindings.delete(namespace, &DeleteParams::default()).await.unwrap();
    cluster_roles.delete(namespace, &DeleteParams::default()).await.unwrap();
    poll("the permission to end", PATIENCE, || async {
        Ok((!reviewer.may(&caller, &metrics).await.unwrap()).then_some(()))
    })
    .await
    .unwrap();
}

/// A client that may not ask gets an error, which is not a refusal.
#[tokio::test]
async fn without_the_permission_to_ask_there_is_no_answer() {
    let control_plane = installation::control_plane().await;
    let reviewer = Reviewer::new(control_plane.access().client_as("stranger", &[]).await.unwrap());
    let refused =
        |error: ReviewError| matches!(error, ReviewError::Call(kube::Error::Api(status)) if status.code == 403);
    assert!(refused(reviewer.authenticate("token", None).await.unwrap_err()));
    let action = Action::Path { verb: "get".to_owned(), path: "/metrics".to_owned() };
    assert!(refused(reviewer.may(&Caller::default(), &action).await.unwrap_err()));
}
