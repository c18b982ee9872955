//! `export`: what is exported and applied again moves nothing.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::place;
use crate::integration::objects::moved;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_and_applied_again_moves_nothing() {
    let (site, operator, plugin) = place("exported").await;
    plugin.run_with(&["create", "SEALED", "--description", "'x': #, 天気"], b"hunter2").await.ok();
    site.source("upstream", "followed").await;
    let by_kubectl = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "followed", "namespace": site.namespace, "labels": {"app": "shop"},
            "annotations": {"example.com/owner": "team"}},
        "spec": {"name": "FOLLOWED", "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}},
            "target": {"name": "f", "labels": {"app": "true"}}},
    });
    plugin.kubectl(&["apply", "-f", "-"], by_kubectl.to_string().as_bytes()).await.ok();
    site.apply("generated", json!({"name": "GENERATED", "generate": {"length": 8}, "deletionPolicy": "Retain"})).await;
    let names = ["followed", "generated", "sealed"];
    for name in names {
        site.in_step(name).await;
    }

    let exported = plugin.run(&["export"]).await;
    let text = exported.ok();
    assert_eq!(exported.err, "note: another cluster generates other values for: msec/generated\n");
    assert!(!text.contains("hunter2"));
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(manifests.iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    assert_eq!(manifests[0], by_kubectl);
    for manifest in &manifests {
        let keys: Vec<_> = manifest.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["apiVersion", "kind", "metadata", "spec"]);
        assert_eq!(manifest["metadata"]["namespace"], json!(site.namespace));
    }

    for (apply, first_time) in [
        (&["apply", "-f", "-"][..], true),
        (&["apply", "-f", "-"], false),
        (&["apply", "--server-side", "--force-conflicts", "-f", "-"], true),
        (&["apply", "--server-side", "--force-conflicts", "-f", "-"], false),
    ] {
        let mut before = Vec::new();
        for name in names {
            before.push(site.get(name).await);
        }
        plugin.kubectl(apply, text.as_bytes()).await.ok();
        for before in before {
            let after = site.get(&before.name_any()).await;
            assert_eq!(after.metadata.generation, before.metadata.generation, "{apply:?}");
            assert_eq!(moved(&after), moved(&before));
            // The first time, a tool takes note of what it applied: in an annotation, or as a field manager.
            assert!(first_time || after.metadata.resource_version == before.metadata.resource_version, "{apply:?}");
        }
    }
    // The second export is the first.
    assert_eq!(plugin.run(&["export"]).await.ok(), text);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn some_are_exported_by_name_or_label() {
    let (site, operator, plugin) = place("some").await;
    for name in ["a", "b", "c"] {
        site.apply(name, json!({"name": name.to_uppercase(), "generate": {}})).await;
        site.served(name).await;
    }
    plugin.kubectl(&["label", "msec", "b", "app=shop", "-n", &site.namespace], b"").await.ok();
    let names = async |arguments: &[&str]| {
        let text = plugin.run(&[&["export"], arguments].concat()).await.ok();
        let manifests: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        manifests.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["C", "msec/a", "A"]).await, ["a", "c"]);
    assert_eq!(names(&["-l", "app=shop"]).await, ["b"]);
    let everywhere = names(&["-A", "-l", "app=shop"]).await;
    assert!(everywhere.contains(&"b".to_owned()));
    let none = plugin.run(&["export", "-l", "app=none"]).await;
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (0, "", "No secrets found.\n"));
    let absent = plugin.run(&["export", "A", "NOBODY"]).await;
    assert!(absent.error(1).contains("secret \"NOBODY\" not found"), "{absent:?}");
    // A name that is another's, and that an object only waits for.
    operator.stop().await;
    site.apply("c", json!({"name": "D", "generate": {}})).await;
    let wanted = plugin.run(&["export", "D"]).await;
    assert!(wanted.ok().contains("name: c\n"), "{wanted:?}");
    assert!(wanted.err.starts_with("note: msec/c waits for the name D and is still called C\n"), "{wanted:?}");
    assert!(!plugin.run(&["export", "msec/c"]).await.err.contains("wants"));
    let both = plugin.run(&["export", "A", "-l", "app=shop"]).await;
    assert!(both.error(2).contains("cannot be used with"), "{both:?}");
}
