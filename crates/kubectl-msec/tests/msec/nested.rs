//! Manifests inside other objects and inside texts: a plain value there is refused, found and never taken for sealed.

use super::{CANARY, Folder, Ran, manifest};

/// A ManagedSecret, each line indented by so many blanks.
fn indented(value: &str, blanks: usize) -> String {
    let text = format!(
        "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata: {{name: db, namespace: shop}}\nspec: \
         {{name: DB, value: {value}}}\n"
    );
    indent(&text, blanks)
}

/// Lines with so many blanks before each.
fn indent(text: &str, blanks: usize) -> String {
    let lines = text.lines().map(|line| " ".repeat(blanks) + line + "\n");
    lines.collect()
}

/// What it is, a document with a ManagedSecret in it, and the field that a finding names.
type Case = (&'static str, String, &'static str);

/// A ManagedSecret in each kind of document.
fn documents(value: &str) -> Vec<Case> {
    let mut all = maps(value);
    all.extend(texts(value));
    all
}

/// As a map.
fn maps(value: &str) -> Vec<Case> {
    let at = |blanks| indented(value, blanks);
    let item = |blanks| at(blanks).replacen(&" ".repeat(blanks), &format!("{}- ", " ".repeat(blanks - 2)), 1);
    let flow =
        format!("{{apiVersion: managedsecrets.dev/v1alpha1, kind: ManagedSecret, spec: {{name: DB, value: {value}}}}}");
    vec![
        (
            "an Object of Crossplane",
            format!(
                "apiVersion: kubernetes.crossplane.io/v1alpha2\nkind: Object\nmetadata: {{name: db}}\nspec:\n  \
                 forProvider:\n    manifest:\n{}",
                at(6)
            ),
            "spec.forProvider.manifest.spec.value",
        ),
        (
            "a Template of OpenShift",
            format!("apiVersion: template.openshift.io/v1\nkind: Template\nobjects:\n{}", item(2)),
            "objects.spec.value",
        ),
        ("a list with a capital", format!("apiVersion: v1\nkind: List\nItems:\n{}", item(2)), "Items.spec.value"),
        ("items without a kind", format!("items:\n{}", item(2)), "items.spec.value"),
        ("a list of objects", item(2), "spec.value"),
        (
            "a rule of Kyverno",
            format!(
                "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec:\n  rules:\n  - generate:\n      apiVersion: \
                 managedsecrets.dev/v1alpha1\n      kind: ManagedSecret\n      name: db\n      data:\n        spec: \
                 {{name: DB, value: {value}}}\n"
            ),
            "spec.rules.generate.data.spec.value",
        ),
        (
            "one of the two words",
            format!(
                "kind: Object\napiVersion: a/v1\nmanifest:\n{}",
                at(2).replace("managedsecrets.dev", "managedsecret.dev")
            ),
            "manifest.spec.value",
        ),
        (
            "the other of the two words",
            format!("kind: Object\napiVersion: a/v1\nmanifest:\n{}", at(2).replace("kind: M", "Kind: M")),
            "manifest.spec.value",
        ),
        (
            "a Secret with a manifest in another field",
            format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\nmanifest: {flow}\n"),
            "manifest.spec.value",
        ),
        (
            "a value given twice",
            format!(
                "kind: Object\napiVersion: a/v1\nmanifest: {{kind: ManagedSecret, spec: {{value: {value}, value: }}}}\n"
            ),
            "manifest.spec.value",
        ),
        (
            "an alias",
            format!(
                "kind: Object\napiVersion: a/v1\nx: &x {{name: DB, value: {value}}}\nmanifest: {{kind: ManagedSecret, \
                 spec: *x}}\n"
            ),
            "manifest.spec.value",
        ),
        (
            "a kind that is merged",
            format!(
                "kind: Object\napiVersion: a/v1\nx: &x {{kind: ManagedSecret}}\nmanifest: {{<<: *x, spec: {{value: \
                 {value}}}}}\n"
            ),
            "manifest.spec.value",
        ),
        (
            "JSON",
            format!(
                r#"{{"kind":"Object","apiVersion":"a/v1","m":{{"kind":"ManagedSecret","spec":{{"value":"{value}"}}}}}}"#
            ),
            "m.spec.value",
        ),
    ]
}

/// As a text.
fn texts(value: &str) -> Vec<Case> {
    let at = |blanks| indented(value, blanks);
    let json = format!(
        r#"{{\"apiVersion\":\"managedsecrets.dev/v1alpha1\",\"kind\":\"ManagedSecret\",\"spec\":{{\"value\":\"{value}\"}}}}"#
    );
    vec![
        (
            "a ConfigMap",
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\ndata:\n  db.yaml: |\n{}", at(4)),
            "data.db.yaml",
        ),
        (
            "a patch in a kustomization",
            format!(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\npatches:\n- target: {{kind: \
                 ManagedSecret}}\n  patch: |-\n{}",
                at(4).replace("apiVersion: managedsecrets.dev/v1alpha1\n", "# a patch\n")
            ),
            "patches.patch",
        ),
        (
            "a merge patch that does not say of what",
            format!(
                "kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\npatches:\n- target: {{kind: \
                 ManagedSecret}}\n  patch: 'spec: {{value: {value}}}'\n"
            ),
            "patches.patch",
        ),
        (
            "a JSON patch",
            format!(
                "kind: Kustomization\napiVersion: kustomize.toolkit.fluxcd.io/v1\nspec:\n  patches:\n  - target: {{group: \
                 managedsecrets.dev}}\n    patch: |-\n      - op: replace\n        path: /spec/value\n        value: {value}\n"
            ),
            "spec.patches.patch",
        ),
        (
            "a text in a text",
            format!(
                "kind: ConfigMap\napiVersion: v1\ndata:\n  a: |\n    kind: ConfigMap\n    apiVersion: v1\n    data:\n      \
                 b: |\n{}",
                at(8)
            ),
            "data.a",
        ),
        (
            "an annotation in JSON",
            format!("kind: X\napiVersion: a/v1\nmetadata: {{annotations: {{a: \"{json}\"}}}}\n"),
            "metadata.annotations.a",
        ),
    ]
}

/// Runs `validate` and `seal` on a file.
fn both(folder: &Folder, text: &str) -> (Ran, Ran) {
    folder.write("x.yaml", text);
    let validated = folder.run(&["validate", "--no-secrets", "--allow-plaintext", "x.yaml"]);
    let sealed = folder.seal(&["-f", "x.yaml"], "");
    for ran in [&validated, &sealed] {
        assert!(!format!("{ran:?}").contains(CANARY), "the output contains a value");
    }
    (validated, sealed)
}

#[test]
fn a_plain_value_inside_another_document_is_refused_and_found() {
    let folder = Folder::new();
    folder.write("good.yaml", &manifest("good", CANARY));
    for (name, text, field) in documents(CANARY) {
        let (validated, sealed) = both(&folder, &text);
        assert_eq!(validated.code, 1, "{name}: {validated:?}");
        let finding = format!(": error: {field}: must ");
        assert!(validated.out.contains(&finding), "{name}: {validated:?}");
        let error = sealed.error(2);
        assert!(error.starts_with("x.yaml:") && error.contains(&format!(": {field}: must ")), "{name}: {error}");
        assert_eq!(folder.read("x.yaml"), text, "{name}");
        // Nothing is written if any file is refused.
        assert_eq!(folder.seal(&["-f", "good.yaml", "-f", "x.yaml"], "").code, 2, "{name}");
        assert_eq!(folder.read("good.yaml"), manifest("good", CANARY), "{name}");
    }
    let found = folder.run(&["validate", "x.yaml", "-o", "json"]);
    assert!(found.out.contains("\"rule\": \"nested\"") && found.out.contains("`kubectl msec seal --name"), "{found:?}");
}

#[test]
fn sealed_text_inside_another_document_is_what_belongs_there() {
    let folder = Folder::new();
    let text = folder.seal(&["--name", "db", "-n", "shop"], "v").ok().trim_end().to_owned();
    folder.publish("other.json", &super::SealingKey::new(super::Zeroizing::new([8; 32])).unwrap());
    for (name, document, field) in documents(&text) {
        let (validated, sealed) = both(&folder, &document);
        assert_eq!((validated.ok(), validated.err.as_str()), ("", ""), "{name}");
        sealed.ok();
        assert_eq!(folder.read("x.yaml"), document, "{name}");
        // A patch that does not say of what is looked at for plain values only.
        if name.ends_with("patch") || name.ends_with("of what") {
            continue;
        }
        let other = folder.run(&["validate", "x.yaml", "--public-key", "other.json"]);
        let finding = format!(": error: {field}: must be sealed for the given public key");
        assert!(other.code == 1 && other.out.contains(&finding), "{name}: {other:?}");
    }
}

#[test]
fn what_refers_to_a_managed_secret_is_no_finding() {
    let folder = Folder::new();
    let crds = std::fs::read_to_string(testkit::root().join("crds/managedsecrets.yaml"));
    for text in [
        crds.as_deref().unwrap(),
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: x}\nrules:\n- apiGroups: \
         [managedsecrets.dev]\n  resources: [managedsecrets]\n  verbs: [get]\n",
        "kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\npatches:\n- target: {group: \
         managedsecrets.dev, version: v1alpha1, kind: ManagedSecret, name: db}\n  patch: |-\n    - op: replace\n      \
         path: /spec/description\n      value: x\n",
        "kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\nvars:\n- name: X\n  objref: {apiVersion: \
         managedsecrets.dev/v1alpha1, kind: ManagedSecret, name: db}\n",
        "nameReference:\n- kind: Secret\n  version: v1\n  fieldSpecs:\n  - {kind: ManagedSecret, group: \
         managedsecrets.dev, path: spec/target/name}\n",
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  ignoreDifferences:\n  - {group: \
         managedsecrets.dev, kind: ManagedSecret, jsonPointers: [/spec/value]}\n",
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nspec:\n  healthChecks:\n  - {apiVersion: \
         managedsecrets.dev/v1alpha1, kind: ManagedSecret, name: db, namespace: shop}\n",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  ownerReferences:\n  - {apiVersion: \
         managedsecrets.dev/v1alpha1, kind: ManagedSecret, name: db, uid: x, controller: true}\n",
        "apiVersion: apiextensions.crossplane.io/v1\nkind: Composition\nspec:\n  compositeTypeRef: {apiVersion: \
         managedsecrets.dev/v1alpha1, kind: ManagedSecret}\n",
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nspec:\n  paramKind: {apiVersion: \
         managedsecrets.dev/v1alpha1, kind: ManagedSecret}\n  validations:\n  - expression: object.kind == \
         'ManagedSecret'\n",
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec:\n  rules:\n  - match: {any: [{resources: {kinds: \
         [ManagedSecret]}}]}\n    generate: {apiVersion: managedsecrets.dev/v1alpha1, kind: ManagedSecret, name: db, \
         data: {spec: {name: DB, generate: {}}}}\n",
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec:\n  rules:\n  - generate: {apiVersion: \
         managedsecrets.dev/v1alpha1, kind: ManagedSecret, data: {spec: {value: '{{ request.object.spec.x }}'}}}\n",
        "apiVersion: v1\nkind: Event\ninvolvedObject: {apiVersion: managedsecrets.dev/v1alpha1, kind: ManagedSecret, \
         name: db}\nmessage: ManagedSecret db is ready\n",
        "apiVersion: v1\nkind: ConfigMap\ndata:\n  db.yaml: |\n    kind: ManagedSecret\n    apiVersion: \
         managedsecrets.dev/v1alpha1\n    spec: {name: DB, generate: {}}\n",
        "apiVersion: v1\nkind: ConfigMap\ndata:\n  note: about every ManagedSecret of managedsecrets.dev\n",
    ] {
        let (validated, sealed) = both(&folder, text);
        assert_eq!((validated.ok(), validated.err.as_str()), ("", ""), "{text}");
        assert_eq!((sealed.ok(), sealed.err.as_str()), ("", ""), "{text}");
        assert_eq!(folder.read("x.yaml"), text);
    }
}

#[test]
fn a_text_that_mentions_a_managed_secret_and_cannot_be_read_is_a_note() {
    let folder = Folder::new();
    let says = "data.a: is a text that mentions a ManagedSecret";
    for text in [
        format!("{{{{- if .x }}}}\nkind: ManagedSecret\nspec: {{value: {CANARY}}}\n{{{{- end }}}}\n"),
        format!("items = [{{\n  kind = \"ManagedSecret\"\n  spec.value = \"{CANARY}\"\n}}]\n"),
        format!("kind: ManagedSecret\nspec: [{CANARY}\n"),
    ] {
        let lines = indent(&text, 4);
        let (validated, sealed) = both(&folder, &format!("apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n{lines}"));
        for ran in [validated, sealed] {
            ran.ok();
            assert_eq!(ran.err.matches("note: x.yaml:").count(), 1, "{ran:?}");
            assert!(ran.err.contains(says), "{ran:?}");
        }
    }
}

#[test]
fn a_secret_inside_another_document_is_found_and_not_taken_for_converted() {
    let folder = Folder::new();
    let secret = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\nstringData: {{a: {CANARY}}}\n");
    let lines = indent(&secret, 2);
    let text = format!(
        "{secret}---\napiVersion: template.openshift.io/v1\nkind: Template\nobjects:\n{}",
        lines.replacen("  a", "- a", 1)
    );
    let (validated, _) = both(&folder, &text);
    assert!(
        validated.out.contains("x.yaml:12:3: error: objects.stringData: must not be in a repository"),
        "{validated:?}"
    );
    folder.run(&["validate", "x.yaml"]).ok();
    let refused = folder.seal(&["--from-secret", "x.yaml", "-n", "shop"], "");
    assert!(refused.error(2).contains("x.yaml:12:3: objects.stringData: must not"), "{refused:?}");
}
