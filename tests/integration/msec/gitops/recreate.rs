//! Ways of applying that delete the object first: a generated value is another one then, unless it is retained.

use serde_json::json;

use super::Bench;
use crate::integration::{
    objects::{id, status},
    operator::Setup,
};

fn manifest(policy: &str) -> String {
    json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "db"},
        "spec": {"name": "DB", "generate": {}, "deletionPolicy": policy},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_deletes_and_creates_generates_another_value_unless_it_is_retained() {
    const REPLACE: &[&[&str]] = &[&["replace", "--force", "-f", "-"]];
    const DELETE_AND_APPLY: &[&[&str]] = &[&["delete", "-f", "-"], &["apply", "-f", "-"]];
    // These change the object in place.
    const IN_PLACE: &[&[&str]] = &[
        &["replace", "-f", "-"],
        &["apply", "-f", "-"],
        &["apply", "--force", "-f", "-"],
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
    ];
    for (policy, ways, stays) in [
        ("Delete", IN_PLACE, true),
        ("Delete", REPLACE, false),
        ("Delete", DELETE_AND_APPLY, false),
        ("Retain", REPLACE, true),
        ("Retain", DELETE_AND_APPLY, true),
    ] {
        let bench = Bench::new("recreate").await;
        let site = &bench.site;
        let operator = Setup::of(&site.namespace).start().await;
        bench.kubectl(&["apply", "-f", "-"], &manifest(policy)).await.ok();
        let before = site.in_step("db").await;
        assert_eq!(format!("{:?}", status(&before).deletion_policy.unwrap()), policy);
        let value = site.value("db", "value").await.unwrap();
        for way in ways {
            bench.kubectl(way, &manifest(policy)).await.ok();
        }
        let after = site.in_step("db").await;
        let is_same = (id(&after) == id(&before), site.value("db", "value").await.unwrap() == value);
        assert_eq!(is_same, (stays, stays), "{policy} {ways:?}");
        operator.stop().await;
    }
}
