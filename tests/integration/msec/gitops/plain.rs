//! Plain values under Argo CD and Flux, by each of their ways of comparing: sealed on the way in, so what is stored is other
//! text than what Git has.

use serde_json::{Value, json};

use super::{HEALTH_CHECK, OWNER, ask};
use crate::integration::admission::Premises;

#[tokio::test(flavor = "multi_thread")]
async fn plain_values_are_the_same_to_a_dry_run_and_differ_to_a_comparison_on_the_client() {
    let premises = Premises::new("gitops-plain").await;
    let operator = premises.start(premises.setup()).await;
    let kubeconfig = premises.access().await.kubeconfig_path();
    for (tool, server_side, at_rest) in [("argocd", false, false), ("argocd", true, false), ("flux", true, true)] {
        let name = format!("{tool}-{server_side}");
        let spec = json!({"name": name.to_uppercase(), "value": "plain-in-git"});
        let object: Value = serde_json::from_str(&premises.manifest(&name, &spec)).unwrap();
        let job = |change: Value| {
            let mut job = json!({
                "kubeconfig": kubeconfig, "namespace": premises.site.namespace, "owner": OWNER,
                "lua": HEALTH_CHECK, "objects": [object], "serverSideApply": server_side,
            });
            job.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            job
        };
        ask::<Value>(tool, &job(json!({"waitSeconds": 60}))).await;
        let before = premises.site.in_step(&name).await;
        assert!(before.spec.value.clone().unwrap().0.starts_with("mss1."), "{name}");
        let found: Value = ask(tool, &job(json!({"compareOnly": true}))).await;
        let differs = |found: &Value| !found.as_array().unwrap().is_empty();
        if at_rest {
            assert!(!differs(&found["outOfSync"]), "{name}: {found}");
        } else {
            assert!(differs(&found["outOfSync"]["default"]), "{name}: {found}");
            assert!(!differs(&found["outOfSync"]["serverSide"]), "{name}: {found}");
        }
        // To apply it again changes nothing that means anything.
        ask::<Value>(tool, &job(json!({"waitSeconds": 60}))).await;
        let after = premises.site.get(&name).await;
        assert_eq!(after.metadata.generation, before.metadata.generation, "{name}");
        assert_eq!(after.spec.value, before.spec.value, "{name}");
    }
    operator.stop().await;
}
