//! kustomize, as kubectl embeds it: what its transformers do to sealed text, and what they cannot do.

use kube::ResourceExt as _;
use managed_secrets_crypto::mss1::Scope;
use serde_json::{Value, json};

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
    let built = bench.kubectl(&["kustomize", "."], "").await.ok();
    assert!(built.contains(&entry.sealed) && built.contains("team: blue"), "{built}");
    // Its generators are for ConfigMaps and Secrets: their options reach nothing else.
    let ours = built.split("---\n").find(|part| part.contains("kind: ManagedSecret")).unwrap();
    assert!(!ours.contains("from: generator") && !ours.contains("by-kustomize"), "{ours}");

    bench.kubectl(&["apply", "-k", "."], "").await.ok();
    let made = site.in_step("weather").await;
    assert_eq!(site.value("weather", "value").await.as_deref(), Some("the value"));
    let again = bench.kubectl(&["apply", "-k", "."], "").await.ok();
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
    bench.kubectl(&["apply", "-k", "."], "").await.ok();
    let object = site.reports("staging-weather", "False", "SealedForAnotherPlace").await;
    assert_eq!(conditions(&object), ["Ready", "Stalled"]);
    assert!(message(&object).contains(&format!("{}/weather", site.namespace)), "{}", message(&object));
    assert!(site.secret("staging-weather").await.is_none());

    bench.kustomization(&strict, &format!("namespace: {}\n", elsewhere.namespace));
    let ran = bench.plugin.kubectl(&["apply", "-k", "."], b"").await;
    ran.ok();
    let object = elsewhere.reports("weather", "False", "SealedForAnotherPlace").await;
    assert!(message(&object).contains(&format!("{}/weather", site.namespace)), "{}", message(&object));
    assert!(elsewhere.secret("weather").await.is_none());

    site.delete("staging-weather").await;
    let scope = Scope::Namespace { namespace: site.namespace.clone() };
    let sealed = sealed(&public_key(&site.client).await, &scope, "the value");
    bench.kustomization(&Entry { sealed, ..strict }, "namePrefix: staging-\n");
    bench.kubectl(&["apply", "-k", "."], "").await.ok();
    let object = site.in_step("staging-weather").await;
    assert_eq!(object.name_any(), "staging-weather");
    assert_eq!(site.value("staging-weather", "value").await.as_deref(), Some("the value"));
    operator.stop().await;
}

/// What the repository ships for renamed ManagedSecrets.
const CONFIGURATION: &str = include_str!("../../../../deploy/kustomize/managed-secrets.yaml");

/// Fields of the paths below that are lists; `tls` is one in an Ingress, and a map in a Gateway.
const LISTS: [&str; 12] = [
    "certificateRefs",
    "containers",
    "env",
    "envFrom",
    "ephemeralContainers",
    "imagePullSecrets",
    "initContainers",
    "listeners",
    "rules",
    "secrets",
    "sources",
    "volumes",
];

/// A value at the end of a path of a field specification, where `/` is written `\/` within a key.
fn at(path: &str, kind: &str, value: Value) -> Value {
    let escaped = path.replace("\\/", "\u{0}");
    escaped.rsplit('/').fold(value, |inner, key| {
        let is_list = LISTS.contains(&key) || key == "resourceNames" || key == "tls" && kind == "Ingress";
        let inner = if is_list { json!([inner]) } else { inner };
        json!({ key.replace('\u{0}', "/"): inner })
    })
}

/// An object for each field of the configuration that may name what `kind` makes: it names `db` there.
fn references(kind: &str) -> Vec<Value> {
    let configuration: Value = serde_saphyr::from_str(CONFIGURATION).unwrap();
    let all = configuration["nameReference"].as_array().unwrap();
    let fields = all.iter().find(|it| it["kind"] == kind).unwrap()["fieldSpecs"].as_array().unwrap();
    let object = |(number, field): (usize, &Value)| {
        let kind = field["kind"].as_str().unwrap();
        let group = field["group"].as_str().map_or_else(String::new, |group| format!("{group}/"));
        let mut object = at(field["path"].as_str().unwrap(), kind, json!("db"));
        object["apiVersion"] = json!(format!("{group}v1"));
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(format!("user-{number}"));
        object
    };
    fields.iter().enumerate().map(object).collect()
}

impl Bench {
    /// What kustomize renders: `resources` with this text, and the shipped configuration or none.
    async fn rendered(&self, resources: &[Value], text: &str, configured: bool) -> Vec<Value> {
        self.plugin
            .folder
            .file("all.json", json!({"apiVersion": "v1", "kind": "List", "items": resources}).to_string());
        self.plugin.folder.file("managed-secrets.yaml", CONFIGURATION);
        let configurations = if configured { "configurations: [managed-secrets.yaml]\n" } else { "" };
        self.plugin.folder.file("kustomization.yaml", format!("resources: [all.json]\n{configurations}{text}"));
        let text = self.kubectl(&["kustomize", "."], "").await.ok();
        serde_saphyr::from_multiple(&text).unwrap()
    }
}

fn generated(name: &str, change: &Value) -> Value {
    let mut spec = json!({"name": name.to_uppercase(), "generate": {}});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn references_to_a_renamed_managed_secret_are_renamed_by_the_shipped_configuration() {
    let bench = Bench::new("renamed").await;
    let users = references("ManagedSecret");
    assert!(users.len() > 100, "{}", users.len());
    let resources = [&[generated("db", &json!({}))], users.as_slice()].concat();
    let text = "namePrefix: staging-\nnameSuffix: -blue\n";
    let named = |objects: &[Value], name: &str| {
        let says = format!("\"{name}\"");
        objects.iter().filter(|it| it["metadata"]["name"] != json!(name) && it.to_string().contains(&says)).count()
    };
    let plain = bench.rendered(&resources, text, false).await;
    assert_eq!((named(&plain, "db"), named(&plain, "staging-db-blue")), (users.len(), 0), "without the configuration");
    let configured = bench.rendered(&resources, text, true).await;
    assert_eq!(configured.len(), resources.len());
    let kept: Vec<_> = configured.iter().filter(|it| !it.to_string().contains("\"staging-db-blue\"")).collect();
    assert!(kept.is_empty(), "not renamed: {kept:?}");
    assert_eq!(named(&configured, "db"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_secret_follows_the_names_of_generated_secrets_and_keeps_a_target_of_its_own() {
    let bench = Bench::new("generated-names").await;
    let source = json!({"name": "SOURCE", "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "token"}}});
    let follower = json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "follower"}, "spec": source});
    let resources = [
        follower,
        generated("adopter", &json!({"target": {"name": "upstream", "adoption": "IfUnowned"}})),
        generated("elsewhere", &json!({"target": {"name": "login"}})),
    ];
    let text = "namePrefix: staging-\nsecretGenerator: [{name: upstream, literals: [token=x]}]\n";
    let rendered = bench.rendered(&resources, text, true).await;
    let of = |name: &str| rendered.iter().find(|it| it["metadata"]["name"] == name).unwrap();
    let secret = rendered.iter().find(|it| it["kind"] == "Secret").unwrap()["metadata"]["name"].clone();
    assert!(secret.as_str().unwrap().starts_with("staging-upstream-"), "{secret}");
    assert_eq!(of("staging-follower")["spec"]["valueFrom"]["secretKeyRef"]["name"], secret);
    assert_eq!(of("staging-adopter")["spec"]["target"]["name"], secret);
    // No resource is named so: kustomize has nothing to rename it by.
    assert_eq!(of("staging-elsewhere")["spec"]["target"]["name"], "login");
}
