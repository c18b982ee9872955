//! Values that the schema refuses, each with a message that names it.

use serde_json::json;

use super::{Helm, MAJORS};

#[tokio::test]
async fn wrong_values_are_refused_and_named() {
    let digest = format!("sha256:{}", "0".repeat(63));
    for (values, named) in [
        (json!({"replica": 3}), "'replica' not allowed"),
        (json!({"webhooks": {"enable": false}}), "'/webhooks': additional properties 'enable' not allowed"),
        (json!({"crds": {"keep": false}}), "'/crds': additional properties 'keep' not allowed"),
        (json!({"replicas": "two"}), "'/replicas'"),
        (json!({"replicas": -1}), "'/replicas'"),
        (json!({"namespaces": "shop"}), "'/namespaces'"),
        (json!({"namespaces": ["Shop"]}), "'/namespaces/0'"),
        (json!({"namespaces": ["shop", "shop"]}), "'/namespaces'"),
        (json!({"restorers": ["a', 'system:serviceaccount:shop:thief"]}), "'/restorers/0'"),
        (json!({"image": {"repository": ""}}), "'/image/repository'"),
        (json!({"image": {"digest": digest}}), "'/image/digest'"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "'/image/pullPolicy'"),
        (json!({"kekFile": "relative"}), "'/kekFile'"),
        (json!({"logFormat": "text"}), "'/logFormat'"),
        (json!({"policies": {"protected": "no"}}), "'/policies/protected'"),
        (json!({"extraArgs": [1]}), "'/extraArgs/0'"),
        (json!({"podLabels": {"a": true}}), "'/podLabels/a'"),
    ] {
        for major in MAJORS {
            let ran = Helm::new(major).template(&values).await;
            assert_eq!(ran.code, 1, "{values}: {}", ran.out);
            assert!(ran.err.contains(named), "{values}: {}", ran.err);
        }
    }
}

/// Helm and charts that depend on this one add values of their own.
#[tokio::test]
async fn values_of_a_parent_chart_are_accepted() {
    for major in MAJORS {
        Helm::new(major).template(&json!({"global": {"region": "eu"}, "enabled": true})).await.ok();
    }
}

#[tokio::test]
async fn both_versions_find_nothing_to_complain_about() {
    for major in MAJORS {
        let said =
            Helm::new(major).run(None, &["lint", "--strict", "--kube-version", "1.36.0"], Some(&json!({}))).await.ok();
        assert!(said.contains("0 chart(s) failed") && !said.contains("WARNING"), "{said}");
    }
}
