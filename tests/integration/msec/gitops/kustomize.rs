//! kustomize, as kubectl embeds it: what its transformers do to sealed text, and what they cannot do.

use kube::ResourceExt as _;
use managed_secrets::crypto::mss1::Scope;

use super::{Bench, Entry};
use crate::integration::{
    objects::{Site, conditions, message, sealed, version},
    operator::{Setup, public_key},
};

impl Bench {
    /// A kustomization over one manifest.
    fn kustomization(&self, entry: &Entry, text: &str) {
        self.plugin.folder.file("weather.json", entry.manifest().to_string());
        self.plugin.folder.file("kustomization.yaml", format!("resources: [weather.json]\n{text}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_annotations_and_generators_leave_sealed_text_alone() {
    let bench = Bench::new("kustomize").await;
    let site = &bench.site;
    let operator = Setup::of(&site.namespace).start().await;
    let entry = Entry::of(site, "weather", "the value").await;
    let text = format!(
        "namespace: {}\nlabels: [{{pairs: {{team: blue}}, includeSelectors: true}}]\ncommonAnnotations: {{example.com/owner: blue}}\n\
         generatorOptions: {{labels: {{from: generator}}, annotations: {{example.com/made: by-kustomize}}}}\n\
         configMapGenerator: [{{name: settings, literals: [city=Wien]}}]\n",
        site.namespace
    );
    bench.kustomization(&entry, &text);
    let built = bench.plugin.ok(&bench.kubectl(&["kustomize", "."], "").await);
    assert!(built.contains(&entry.sealed) && built.contains("team: blue"), "{built}");
    // Its generators are for ConfigMaps and Secrets: their options reach nothing else.
    let ours = built.split("---\n").find(|part| part.contains("kind: ManagedSecret")).unwrap();
    assert!(!ours.contains("from: generator") && !ours.contains("by-kustomize"), "{ours}");

    bench.plugin.ok(&bench.kubectl(&["apply", "-k", "."], "").await);
    let made = site.in_step("weather").await;
    assert_eq!(site.value("weather", "value").await.as_deref(), Some("the value"));
    let again = bench.plugin.ok(&bench.kubectl(&["apply", "-k", "."], "").await);
    assert!(again.contains("weather unchanged"), "{again}");
    assert_eq!(version(&site.get("weather").await), version(&made));
    // Nothing of it is copied to what the operator makes.
    let secret = site.secret("weather").await.unwrap();
    assert!(!secret.labels().contains_key("team") && !secret.annotations().contains_key("example.com/owner"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transformer_that_moves_the_object_is_caught_and_namespace_scope_allows_a_prefix() {
    let bench = Bench::new("kustomize").await;
    let site = &bench.site;
    let elsewhere = Site::new("elsewhere").await;
    let mut setup = Setup::of(&site.namespace);
    setup.namespaces.push(elsewhere.namespace.clone());
    let operator = setup.start().await;
    let strict = Entry::of(site, "weather", "the value").await;

    bench.kustomization(&strict, "namePrefix: staging-\n");
    bench.plugin.ok(&bench.kubectl(&["apply", "-k", "."], "").await);
    let object = site.reports("staging-weather", "False", "SealedForAnotherPlace").await;
    assert_eq!(conditions(&object), ["Ready", "Stalled"]);
    assert!(message(&object).contains(&format!("{}/weather", site.namespace)), "{}", message(&object));
    assert!(site.secret("staging-weather").await.is_none());

    bench.kustomization(&strict, &format!("namespace: {}\n", elsewhere.namespace));
    let ran = bench.plugin.kubectl(&["apply", "-k", "."], b"").await;
    bench.plugin.ok(&ran);
    let object = elsewhere.reports("weather", "False", "SealedForAnotherPlace").await;
    assert!(message(&object).contains(&format!("{}/weather", site.namespace)), "{}", message(&object));
    assert!(elsewhere.secret("weather").await.is_none());

    site.delete("staging-weather").await;
    let scope = Scope::Namespace { namespace: site.namespace.clone() };
    let sealed = sealed(&public_key(&site.client).await, &scope, "the value");
    bench.kustomization(&Entry { sealed, ..strict }, "namePrefix: staging-\n");
    bench.plugin.ok(&bench.kubectl(&["apply", "-k", "."], "").await);
    let object = site.in_step("staging-weather").await;
    assert_eq!(object.name_any(), "staging-weather");
    assert_eq!(site.value("staging-weather", "value").await.as_deref(), Some("the value"));
    operator.stop().await;
}
