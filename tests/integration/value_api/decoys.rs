//! Secrets that users label like records: none of them stops a read, or hides a record.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use managed_secrets_api::keys::{LABEL_ID, LABEL_ROLE, ROLE_RECORD};
use serde_json::json;
use testkit::control_plane::poll;

use super::{Estate, client::Identity, hidden, path};
use crate::integration::operator::PATIENCE;

/// More than the Secrets that a read looks at.
const DECOYS: usize = 8;

#[tokio::test]
async fn a_secret_that_is_labelled_as_a_record_stops_no_read() {
    let estate = Estate::shared().await;
    let site = estate.site("decoys").await;
    let id = hidden(&site, "db", "DB", "hunter2").await;
    let token = estate.reader(&site, "web", &["DB", &id]).await;
    let sealed = site.seal("sign", "delivered").await;
    site.apply("sign", json!({"name": "SIGN", "value": sealed})).await;
    site.in_step("sign").await;
    // Their names sort before the record's and after it.
    for n in 0..DECOYS {
        for name in [format!("a{n}"), format!("z{n}")] {
            let decoy: Secret = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {LABEL_ROLE: ROLE_RECORD, LABEL_ID: id}},
            }))
            .unwrap();
            site.secrets().create(&PostParams::default(), &decoy).await.unwrap();
        }
    }
    // The operator's watch shows the deletion after the decoys: once it has restored this Secret, it knows them.
    let deleted = site.secret("sign").await.unwrap().metadata.uid;
    site.secrets().delete("sign", &DeleteParams::default()).await.unwrap();
    poll("the Secret to be restored", PATIENCE, || async {
        Ok(site.secret("sign").await.filter(|secret| secret.metadata.uid != deleted).map(drop))
    })
    .await
    .unwrap();
    for handle in [&*id, "DB"] {
        let answer = estate.direct(&Identity::Token(&token), &path(&site.namespace, handle), &[]).await;
        assert_eq!((answer.code, &*answer.value()), (200, "hunter2"), "{handle}: {}", answer.message());
    }
    // An id that only decoys have is that of no secret.
    let other = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
    let labels = json!({"metadata": {"labels": {LABEL_ID: other}}});
    site.intrude("a0", labels).await;
    assert_eq!(estate.aggregated("", &path(&site.namespace, other), &[]).await.code, 404);
}
