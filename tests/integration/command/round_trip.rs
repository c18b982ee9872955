//! `seal | apply` with the real program and the real kubectl.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};

use crate::integration::{
    installation::control_plane,
    objects::{Site, message},
    operator::{Setup, public_key},
    program::run,
};

fn manifest(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": name},
        "spec": {"name": name.to_uppercase(), "value": value},
    })
}

/// Applies a manifest with kubectl; what it says where it fails.
async fn apply(site: &Site, manifest: &Value) -> Result<(), String> {
    let arguments = ["--namespace", &site.namespace, "apply", "-f", "-"];
    let output = control_plane().await.access().kubectl_with_input(&arguments, &manifest.to_string()).await.unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

async fn seal(flags: &[&str], value: &str) -> String {
    let kubeconfig = control_plane().await.access().kubeconfig_path();
    let ran = run(&[&["seal"], flags].concat(), Some(kubeconfig), &[], value.as_bytes()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.out.strip_suffix('\n').unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_scope_what_is_sealed_is_what_is_delivered() {
    let site = Site::new("scopes").await;
    let operator = Setup { allow_cluster_scope: true, ..Setup::of(&site.namespace) }.start().await;
    public_key(&site.client).await;
    let value = "-----BEGIN \"KEY\"-----\n\tgrüße 🔑 \\n\n\n";
    for (name, flags) in [
        ("strict", &["--name", "strict", "--namespace", &site.namespace][..]),
        ("namespaced", &["--scope", "namespace", "--namespace", &site.namespace]),
        ("clusterwide", &["--scope", "cluster"]),
    ] {
        let sealed = seal(flags, value).await;
        apply(&site, &manifest(name, &sealed)).await.unwrap();
        site.served(name).await;
        assert_eq!(site.value(name, "value").await.as_deref(), Some(value), "{name}");
    }
    operator.stop().await;

    // Without that flag, the same text is refused, and what is served stays.
    let operator = Setup::of(&site.namespace).start().await;
    let sealed = seal(&["--scope", "cluster"], "other").await;
    apply(&site, &manifest("clusterwide", &sealed)).await.unwrap();
    let refused = site.reports("clusterwide", "False", "SealedScopeNotAllowed").await;
    assert!(message(&refused).contains("--allow-cluster-scope"));
    assert_eq!(site.value("clusterwide", "value").await.as_deref(), Some(value));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_operator_stopped_sealed_text_is_stored_and_plaintext_refused() {
    let site = Site::new("stopped").await;
    let operator = Setup::of(&site.namespace).start().await;
    public_key(&site.client).await;
    operator.stop().await;
    let sealed = seal(&["--name", "sealed", "--namespace", &site.namespace], "hunter2").await;
    apply(&site, &manifest("sealed", &sealed)).await.unwrap();
    let said = apply(&site, &manifest("plain", "hunter2")).await.unwrap_err();
    assert!(said.contains("managed-secrets seal") && said.contains("spec.value"), "{said}");
    assert!(!said.contains("hunter"), "{said}");
    assert!(site.objects().get_opt("plain").await.unwrap().is_none());
    // It also says that nobody has looked at it yet.
    assert!(message(&site.get("sealed").await).contains("waiting"));

    let operator = Setup::of(&site.namespace).start().await;
    site.served("sealed").await;
    assert_eq!(site.value("sealed", "value").await.as_deref(), Some("hunter2"));
    operator.stop().await;
}
