//! The authority of the API server's front proxy is replaced while values are read.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::DeleteParams};
use testkit::{
    control_plane::poll,
    front_proxy::{Authority, FRONT_PROXY},
};

use super::{Estate, FrontProxy, client::Identity, hidden, path};
use crate::integration::installation::PATIENCE;

#[tokio::test]
async fn a_new_authority_of_the_front_proxy_replaces_the_old_one_without_a_restart() {
    let estate = Estate::start(FrontProxy::On).await;
    let site = estate.site("rotation").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let path = path(&site.namespace, "DB");
    let folder = estate.control_plane.supervisor().folder();
    let (old, new) = (&estate.authority, Authority::new("front-proxy-ca-2").unwrap());
    let [of_old, of_new] = [old, &new].map(|authority| authority.issue(FRONT_PROXY).unwrap());
    let named = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
    let is_believed =
        async |certificate| estate.direct(&Identity::Certificate(certificate), &path, &named).await.code == 200;
    let through_the_api_server = async || estate.aggregated("", &path, &[]).await;
    assert!(is_believed(&of_old).await && !is_believed(&of_new).await);

    // Both are trusted, so the API server may use either.
    Authority::publish(&[old, &new], folder).unwrap();
    poll("the new authority to be believed", PATIENCE, || async { Ok(is_believed(&of_new).await.then_some(())) })
        .await
        .unwrap();
    assert!(is_believed(&of_old).await);
    assert_eq!(through_the_api_server().await.value(), "hunter2");

    // The new one alone. The API server adds to the ConfigMap, and removes nothing: an administrator deletes it.
    new.present(folder).unwrap();
    Authority::publish(&[&new], folder).unwrap();
    let maps = Api::<ConfigMap>::namespaced(estate.client().await, "kube-system");
    poll("the old authority to be forgotten", PATIENCE, || async {
        let map = maps.get_opt("extension-apiserver-authentication").await?;
        let published = map.and_then(|map| map.data?.remove("requestheader-client-ca-file")).unwrap_or_default();
        if published.contains(old.certificate.trim()) {
            maps.delete("extension-apiserver-authentication", &DeleteParams::default()).await?;
        }
        Ok((published.trim() == new.certificate.trim() && !is_believed(&of_old).await).then_some(()))
    })
    .await
    .unwrap();
    assert!(is_believed(&of_new).await);
    poll("the API server to use its new certificate", PATIENCE, || async {
        Ok((through_the_api_server().await.value() == "hunter2").then_some(()))
    })
    .await
    .unwrap();
}
