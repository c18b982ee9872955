//! Values that the schema refuses, each with a message that names it.

use serde_json::json;

use super::{Helm, MAJORS, rendered::LABELS};

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
        (json!({"valueApi": {"enable": true}}), "'/valueApi': additional properties 'enable' not allowed"),
        (
            json!({"monitoring": {"secureMetrics": true}, "webhooks": {"enabled": false}}),
            "'/webhooks/enabled': value must be true",
        ),
        (json!({"webhooks": {"drainSeconds": 301}}), "'/webhooks/drainSeconds'"),
        (json!({"podLabels": {"a": true}}), "'/podLabels/a'"),
        (json!({"podLabels": {"app.kubernetes.io/name": "other"}}), "'/podLabels/app.kubernetes.io~1name'"),
    ] {
        for major in MAJORS {
            let ran = Helm::new(major).template(&values).await;
            assert_eq!(ran.code, 1, "{values}: {}", ran.out);
            assert!(ran.err.contains(named), "{values}: {}", ran.err);
        }
    }
}

/// The operator does not start with a flag that is given twice.
#[tokio::test]
async fn flags_that_values_set_are_refused_among_the_extra_arguments() {
    for (flag, is_refused) in [
        ("--webhook-drain=9", true),
        ("--webhook-drain", true),
        ("--log-level=debug", true),
        ("--log-format=human", true),
        ("--admin-listen=off", true),
        ("--metrics-listen=off", true),
        ("--namespace=shop", true),
        ("--kek-file=/run/key", true),
        ("--webhook-listen=off", true),
        ("--allow-cluster-scope", true),
        ("--value-api", true),
        ("--restarts", true),
        ("--leader-elect", true),
        ("--leader-elect-lease-duration=30", false),
        ("--workers=4", false),
        ("--webhook-cert-dir=/run/certificates", false),
    ] {
        for major in MAJORS {
            let ran = Helm::new(major).template(&json!({"extraArgs": ["--allow-new-keyring", flag]})).await;
            assert_eq!(ran.code, i32::from(is_refused), "{flag}: {ran:?}");
            assert_eq!(ran.err.contains("'/extraArgs/1'"), is_refused, "{flag}: {ran:?}");
        }
    }
}

/// A second entry with the same key would make the object unreadable.
#[tokio::test]
async fn labels_that_the_chart_sets_are_refused() {
    for major in MAJORS {
        for key in
            LABELS.map(|(key, _)| key).into_iter().chain(["app.kubernetes.io/name", "app.kubernetes.io/component"])
        {
            let values = json!({"monitoring": {"labels": {key: "other"}}});
            let ran = Helm::new(major).template(&values).await;
            assert_eq!(ran.code, 1, "{values}: {}", ran.out);
            let named = format!("'/monitoring/labels/{}'", key.replace('/', "~1"));
            assert!(ran.err.contains(&named), "{values}: {}", ran.err);
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
