//! `validate`: each finding with its place, in each form.

use managed_secrets_crypto::mss1::SealingKey;
use zeroize::Zeroizing;

use super::{CANARY, Folder, PLUGIN, Value, finish, manifest};

/// A folder with `good.yaml`, sealed.
fn folder() -> (Folder, String) {
    let folder = Folder::new();
    folder.write("good.yaml", &manifest("good", CANARY));
    folder.seal(&["-f", "good.yaml"], "").ok();
    let good = folder.read("good.yaml");
    (folder, good)
}

#[test]
fn what_is_right_is_passed_in_silence() {
    let (folder, good) = folder();
    folder.write("more.yaml", "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata: {name: more, namespace: shop, labels: {a: b}}\nspec: {name: MORE, generate: {length: 48}, suspend: no, target: {labels: {x: z}}}\n");
    for arguments in [
        &["-f", "good.yaml", "-f", "more.yaml"][..],
        &["good.yaml", "more.yaml", "--no-secrets"],
        &["-R", "."],
        &["good.yaml", "--public-key", "key.json"],
    ] {
        let ran = folder.run(&[&["validate"], arguments].concat());
        assert_eq!((ran.ok(), ran.err.as_str()), ("", ""), "{arguments:?}");
    }
    assert_eq!(folder.run_with(&["validate", "-f", "-"], &good).ok(), "");
    assert!(folder.run(&["validate"]).error(2).contains("-f is missing"));
    assert!(folder.run(&["validate", "none.yaml"]).error(2).contains("none.yaml"));
}

#[test]
fn a_text_of_a_template_that_may_be_a_credential_is_noted_and_no_finding() {
    let (folder, good) = folder();
    let template =
        "name: GOOD\n  target:\n    template:\n      user: shop\n      db-password: hunter2\n      token: $(value)";
    folder.write("x.yaml", &good.replace("name: GOOD", template));
    let ran = folder.run(&["validate", "x.yaml"]);
    assert_eq!(ran.ok(), "");
    let note = "note: x.yaml:13:7: spec.target.template[db-password]: does not use `value`, so this text is stored as plaintext";
    assert!(ran.err.contains(note) && ran.err.lines().count() == 1, "{}", ran.err);
    assert!(!ran.err.contains("hunter2"));
}

#[test]
fn what_is_wrong_with_a_template_has_its_key_and_its_place() {
    let (folder, good) = folder();
    let template = "template:\n      a: x\n      b.c: $(value | b64)";
    for (target, says) in [
        (
            template,
            "x.yaml:13:7: error: spec.target.template[b.c]: unknown filter at character 11; the filters are base64",
        ),
        (
            "template:\n      value: x$(value)",
            "x.yaml:11:5: error: spec.target.template: must not have the key `value`",
        ),
        (
            "key: tls.key\n    type: kubernetes.io/tls",
            "x.yaml:10:3: error: spec.target.template: must have the key `tls.crt`",
        ),
    ] {
        folder.write("x.yaml", &good.replace("name: GOOD", &format!("name: GOOD\n  target:\n    {target}")));
        let ran = folder.run(&["validate", "x.yaml"]);
        assert!(ran.code == 1 && ran.out.contains(says), "{says}: {ran:?}");
    }
}

/// A template is no place for a sealed value: sealing changes nothing of it.
#[test]
fn sealing_leaves_a_template_as_it_is() {
    let folder = Folder::new();
    let template = "  target:\n    key: token\n    template:  # three\n      app.yaml: |\n        db:\n          value: $(value | json)\n      url: 'x://$(value)'\n";
    folder.write("x.yaml", &format!("{}{template}", manifest("x", CANARY)));
    folder.seal(&["-f", "x.yaml"], "").ok();
    assert!(folder.read("x.yaml").ends_with(template), "{}", folder.read("x.yaml"));
    folder.run(&["validate", "--no-secrets", "x.yaml"]).ok();
}

#[test]
fn every_finding_has_a_place_a_field_and_a_rule_and_no_value() {
    let (folder, good) = folder();
    let other = SealingKey::new(Zeroizing::new([8; 32])).unwrap();
    folder.publish("other.json", &other);
    let sealed = good.split("value: ").nth(1).unwrap().split(' ').next().unwrap();
    let plain = manifest("good", CANARY);
    let secret = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\nstringData: {{a: {CANARY}}}\n");
    for (text, arguments, says) in [
        (plain.clone(), &[][..], "x.yaml:8:3: error: spec.value: must be sealed"),
        (
            plain.replace("kind:", "metadat: {}\nkind:"),
            &["--allow-plaintext"],
            "x.yaml:3:1: error: metadat: is not a field",
        ),
        (
            plain.replace(CANARY, &CANARY.repeat(400)),
            &["--allow-plaintext"],
            "x.yaml:8:3: error: spec.value: must have at most 3500",
        ),
        (good.replace("value:", "valu:"), &[], "x.yaml:8:3: error: spec.valu: is not a field"),
        (good.replace("value:", "valu:"), &[], "x.yaml:7:1: error: spec: must have exactly one of"),
        (good.replace("name: GOOD", "name: G D"), &[], "x.yaml:9:3: error: spec.name: must consist of"),
        (
            good.replace("name: GOOD", "name: GOOD\n  suspend: 'x'"),
            &[],
            "x.yaml:10:3: error: spec.suspend: must be `true` or `false`",
        ),
        (
            good.replace("name: GOOD", "name: GOOD\n  target:\n    type: kubernetes.io/dockercfg"),
            &[],
            "x.yaml:11:5: error: spec.target.type: must be",
        ),
        (
            good.replace("name: good", "name: other"),
            &[],
            "x.yaml:8:3: error: spec.value: must be used in the object or namespace that it is sealed for: it is sealed for shop/good, used in shop/other",
        ),
        (good.replace("namespace: shop", "namespace: test"), &[], "sealed for shop/good, used in test/good"),
        (good.replace("  namespace: shop\n", ""), &["-n", "test"], "sealed for shop/good, used in test/good"),
        (good.replace(sealed, &sealed[..900]), &[], "x.yaml:8:10: error: spec.value: sealed value"),
        (good.clone(), &["--public-key", "other.json"], "spec.value: must be sealed for the given public key"),
        (good.replace("v1alpha1", "v1"), &[], "x.yaml:2:1: error: apiVersion: must be managedsecrets.dev/v1alpha1"),
        (
            good.replace("apiVersion:", "# apiVersion:"),
            &[],
            "x.yaml:3:1: error: apiVersion: must be managedsecrets.dev",
        ),
        (plain.replace("managedsecrets", "managedsecret"), &[], "x.yaml:8:3: error: spec.value: must be sealed"),
        (plain.replace("kind: Managed", "kind: managed"), &[], "x.yaml:3:1: error: kind: must be ManagedSecret"),
        (plain.replace("kind: Managed", "kind: managed"), &[], "x.yaml:8:3: error: spec.value: must be sealed"),
        (good.replace("namespace: shop", "namespace: Shop"), &[], "metadata.namespace: must be at most 63 lower-case"),
        (
            good.replace("namespace:", "labels: {a: 1}\n  namespace:"),
            &[],
            "x.yaml:5:3: error: metadata.labels: must be a map of quoted strings",
        ),
        (good.replace("namespace:", "lables: {}\n  namespace:"), &[], "metadata.lables: is not a field"),
        (good.replace("spec:", "metadata: {}\nspec:"), &[], "x.yaml:7:1: error: metadata: must be given once"),
        (format!("{good}---\n{good}"), &[], "x.yaml:16:3: error: metadata.name: must not be the same as at x.yaml:6:3"),
        (
            format!("{plain}---\n{}", plain.replace("name: good", "name: a")),
            &["--allow-plaintext"],
            "x.yaml:19:3: error: spec.name: must not be the same as at x.yaml:9:3",
        ),
        (
            format!("{plain}---\n{}", manifest("a", CANARY) + "  target: {name: good}\n"),
            &["--allow-plaintext"],
            "x.yaml:20:12: error: spec.target.name: must not be the same as at x.yaml:7:1",
        ),
        (secret.clone(), &["--no-secrets"], "x.yaml:4:1: error: stringData: must not be in a repository"),
        (
            secret.replace("stringData", "data"),
            &["--no-secrets"],
            "x.yaml:4:1: error: data: must not be in a repository",
        ),
        (format!("{good}x: [\n"), &[], "error: invalid YAML: "),
        (format!("{{{{- if x }}}}\n{good}"), &[], "x.yaml:1:"),
    ] {
        folder.write("x.yaml", &text);
        let ran = folder.run(&[&["validate", "x.yaml"], arguments].concat());
        assert_eq!(ran.code, 1, "{says}: {ran:?}");
        assert!(ran.out.contains(says), "{says}: {}", ran.out);
        assert!(!ran.out.contains(CANARY) && ran.err.is_empty(), "{ran:?}");
    }
    // Only with the flag, and only what holds data.
    folder.write("x.yaml", &secret);
    folder.run(&["validate", "x.yaml"]).ok();
    folder.write("x.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {}\n");
    folder.run(&["validate", "x.yaml", "--no-secrets"]).ok();
}

#[test]
fn what_is_no_yaml_is_passed_over_unless_it_was_named_or_concerns_secrets() {
    let (folder, _) = folder();
    folder.write("chart/x.yaml", "{{- if .Values.x }}\nkind: ConfigMap\n{{- end }}\n");
    for arguments in [&["chart/x.yaml"][..], &["-R", "."], &["-f", "chart"]] {
        assert_eq!(folder.run(&[&["validate"], arguments].concat()).ok(), "");
    }
    let named = folder.run(&["validate", "-f", "chart/x.yaml"]);
    assert_eq!(named.code, 1);
    assert!(named.out.contains("a template must be rendered first"), "{named:?}");
    folder.write("chart/x.yaml", "{{- if .Values.x }}\nkind: Secret\n{{- end }}\n");
    assert_eq!(folder.run(&["validate", "chart/x.yaml", "--no-secrets"]).code, 1);
}

#[test]
fn what_is_no_text_is_passed_over_unless_it_was_named_or_concerns_secrets() {
    let (folder, _) = folder();
    let write = |text: &[u8]| std::fs::write(folder.path().join("x.yaml"), text).unwrap();
    let check = |arguments: &[&str]| folder.run(&[&["validate", "--no-secrets"], arguments].concat());
    write(b"a: b\nname: M\xfcller\n");
    for arguments in [&["x.yaml"][..], &["-f", "."], &["-R", "."]] {
        assert_eq!(check(arguments).ok(), "", "{arguments:?}");
    }
    let ran =
        finish(folder.command("bash", &["-c", &format!("'{PLUGIN}' validate -f - --stdin-name x.yaml < x.yaml")]), "");
    assert_eq!(ran.ok(), "");
    assert_eq!(folder.seal(&["-f", "."], "").ok(), "");
    let named = check(&["-f", "x.yaml"]);
    assert_eq!((named.code, named.out.as_str()), (1, "x.yaml:2:1: error: must be UTF-8\n"), "{named:?}");
    assert!(folder.seal(&["-f", "x.yaml"], "").error(2).contains("x.yaml:2:1: must be UTF-8"));

    let plain = manifest("x", CANARY);
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(plain.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let latin1 = [plain.as_bytes(), b"# \xfc\n"].concat();
    for text in [latin1, utf16, b"kind: Secret\nstringData: {a: \xfc}\n".to_vec()] {
        write(&text);
        let ran = check(&["x.yaml"]);
        assert!(ran.code == 1 && ran.out.contains(": error: must be UTF-8") && !ran.out.contains(CANARY), "{ran:?}");
    }
}

#[test]
fn only_a_pinned_key_is_checked_against() {
    let (folder, _) = folder();
    let other = SealingKey::new(Zeroizing::new([8; 32])).unwrap();
    folder.publish("other.json", &other);
    let (pin, others) = (folder.key.public().fingerprint(), other.public().fingerprint());
    let check = |arguments: &[&str]| folder.run(&[&["validate", "good.yaml"], arguments].concat());
    check(&["--public-key", "key.json", "--fingerprint", &pin]).ok();
    let both = ["--public-key", "key.json", "--public-key", "other.json", "--fingerprint", &pin];
    check(&[&both[..], &["--fingerprint", &others]].concat()).ok();
    // The key was replaced by another one.
    let refused = check(&["--public-key", "key.json", "--fingerprint", &others]);
    assert!(refused.error(1).contains("but --fingerprint names another one"), "{refused:?}");
    assert_eq!(check(&both).error(1), check(&["--public-key", "other.json", "--fingerprint", &pin]).error(1));
    assert!(check(&["--public-key", "key.json", "--fingerprint", "1"]).error(2).contains("64 hex digits"));
    let by_variable = |pin: &str| {
        let mut command = folder.command(PLUGIN, &["validate", "good.yaml", "--public-key", "key.json"]);
        command.env("MANAGED_SECRETS_FINGERPRINT", pin);
        finish(command, "").code
    };
    assert_eq!((by_variable(&pin), by_variable(&others)), (0, 1));
}

#[test]
fn folders_whose_namespace_is_not_given_share_no_names() {
    let folder = Folder::new();
    let text = manifest("weather", CANARY).replace("  namespace: shop\n", "");
    for place in ["a/x.yaml", "b/x.yaml"] {
        folder.write(place, &text);
    }
    let check = |arguments: &[&str]| folder.run(&[&["validate", "--allow-plaintext", "-R"], arguments].concat());
    check(&["-f", "."]).ok();
    // One namespace for all, or the same folder: then it is one object given twice.
    assert!(
        check(&["-f", ".", "-n", "shop"])
            .out
            .starts_with("./b/x.yaml:5:3: error: metadata.name: must not be the same as at ./a/x.yaml:5:3\n")
    );
    folder.write("a/y.yaml", &text);
    assert_eq!(check(&["-f", "."]).out.lines().count(), 1);
    assert_eq!(check(&["-f", "a/x.yaml", "-f", "./a/../a/y.yaml"]).out.lines().count(), 1);
    for place in ["c/x.yaml", "d/x.yaml"] {
        folder.write(place, &manifest("weather", CANARY));
    }
    assert_eq!(check(&["-f", "c", "-f", "d"]).code, 1);
}

#[test]
fn findings_are_told_to_machines() {
    let (folder, _) = folder();
    folder.write("a b/x.yaml", &manifest("x", CANARY));
    let ran = folder.run(&["validate", "-R", "-f", ".", "-o", "json"]);
    assert_eq!(ran.code, 1);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        found,
        serde_json::json!([{
            "file": "./a b/x.yaml", "line": 8, "column": 3, "rule": "plaintext", "field": "spec.value",
            "message": "must be sealed: `kubectl msec seal -f FILE` seals it in place",
        }])
    );
    let ran = folder.run(&["validate", "-R", "-f", ".", "-o", "sarif"]);
    assert_eq!(ran.code, 1);
    let log: Value = serde_json::from_str(&ran.out).unwrap();
    // What SARIF 2.1.0 requires: version and runs (3.13), tool.driver.name (3.14, 3.18, 3.19), message (3.27).
    assert_eq!((log["version"].as_str(), log["runs"].as_array().map(Vec::len)), (Some("2.1.0"), Some(1)));
    let run = &log["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "kubectl-msec");
    let result = &run["results"][0];
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
    assert!(result["message"]["text"].as_str().unwrap().starts_with("spec.value: "));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20b/x.yaml");
    assert_eq!(place["region"], serde_json::json!({"startLine": 8, "startColumn": 3}));
    assert!(!ran.out.contains(CANARY));
    // With nothing found, both are empty, and there.
    folder.write("a b/x.yaml", "");
    assert_eq!(folder.run(&["validate", "-R", "-f", ".", "-o", "json"]).ok(), "[]\n");
    let log: Value = serde_json::from_str(folder.run(&["validate", "-R", "-f", ".", "-o", "sarif"]).ok()).unwrap();
    assert_eq!(log["runs"][0]["results"], serde_json::json!([]));
}

#[test]
fn every_rule_is_in_the_document() {
    let (folder, _) = folder();
    let log: Value = serde_json::from_str(folder.run(&["validate", "good.yaml", "-o", "sarif"]).ok()).unwrap();
    let document = std::fs::read_to_string(testkit::root().join("docs/git.md")).unwrap();
    for rule in log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap() {
        assert!(document.contains(&format!("`{}`", rule["id"].as_str().unwrap())), "{rule}");
    }
}
