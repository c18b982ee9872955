//! `seal --from-secret`: Secrets become ManagedSecrets.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_api::validate;
use serde_json::json;

use super::{CANARY, Folder, documents};

const SECRETS: &str = r"
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: db-password, namespace: shop, labels: {app: shop}}
  stringData: {password: only-an-example}
- apiVersion: v1
  kind: Secret
  metadata: {name: plain}
  data: {value: b25seS1hbi1leGFtcGxl}
- {apiVersion: v1, kind: Secret, metadata: {name: empty}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: none}, data: {a: b}}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/basic-auth
metadata: {name: login, namespace: shop}
data: {password: b2xk, username: YW5u}
stringData: {password: new}
";

#[test]
fn secrets_become_managed_secrets_that_deliver_the_same() {
    let folder = Folder::new();
    let ran = folder.seal(&["--from-secret", "-", "-n", "test"], SECRETS);
    let objects = documents(ran.ok());
    let expected = [
        ("shop", "db-password", json!({"name": "DB_PASSWORD", "target": {"key": "password"}}), "only-an-example"),
        ("test", "plain", json!({"name": "PLAIN"}), "only-an-example"),
        (
            "shop",
            "login-password",
            json!({"name": "LOGIN_PASSWORD", "target": {"key": "password", "type": "kubernetes.io/basic-auth"}}),
            "new",
        ),
        (
            "shop",
            "login-username",
            json!({"name": "LOGIN_USERNAME", "target": {"key": "username", "type": "kubernetes.io/basic-auth"}}),
            "ann",
        ),
    ];
    assert_eq!(objects.len(), expected.len(), "{objects:#?}");
    for (object, (namespace, name, spec, value)) in objects.iter().zip(expected) {
        assert_eq!(validate(object), []);
        assert_eq!(object["metadata"], json!({"name": name, "namespace": namespace}));
        let mut found = object["spec"].clone();
        let sealed = found.as_object_mut().unwrap().remove("value").unwrap();
        assert_eq!((folder.open(sealed.as_str().unwrap(), namespace, name), found), (value.to_owned(), spec));
    }
    assert!(
        ran.err.contains("Secret shop/db-password: if this Secret exists on the cluster, delete it first"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains(
            "Secret shop/login has several keys: pods that mount it must also mount the Secret login-username"
        )
    );
    assert!(!ran.out.contains("only-an-example"));

    let one = SECRETS.split("---").next().unwrap();
    let ran = folder.seal(&["--from-secret", "-", "-n", "test", "--adopt"], one);
    assert!(documents(ran.ok()).iter().all(|object| object["spec"]["target"]["adoption"] == "IfUnowned"));
    assert!(!ran.err.contains("deleted"), "{}", ran.err);
}

#[test]
fn a_certificate_becomes_the_template_beside_its_private_key() {
    let folder = Folder::new();
    let certificate = "-----BEGIN CERTIFICATE-----\n$(x)\n";
    let authority = "-----BEGIN CERTIFICATE-----\nca\n";
    let text = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "web", "namespace": "shop"},
        "data": {"tls.crt": BASE64_STANDARD.encode(certificate)},
        "stringData": {"tls.key": CANARY, "ca.crt": authority},
    });
    let ran = folder.seal(&["--from-secret", "-", "--adopt"], &text.to_string());
    let objects = documents(ran.ok());
    let [object] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!(validate(object), []);
    let expected = json!({
        "key": "tls.key", "type": "kubernetes.io/tls", "adoption": "IfUnowned",
        "template": {"ca.crt": authority, "tls.crt": certificate.replace("$(", "$$(")},
    });
    assert_eq!(object["spec"]["target"], expected);
    assert_eq!(folder.open(object["spec"]["value"].as_str().unwrap(), "shop", "web"), CANARY);
    assert!(!format!("{ran:?}").contains(CANARY));
}

/// Some servers want the private key in the file of the certificate, and the API server accepts that.
#[test]
fn a_private_key_beside_the_certificate_is_refused() {
    let folder = Folder::new();
    let block = |label: &str| format!("-----BEGIN {label}-----\n{CANARY}\n-----END {label}-----\n");
    let certificate = block("CERTIFICATE");
    for text in [
        certificate.clone() + &block("PRIVATE KEY"),
        block("EC PRIVATE KEY") + &certificate,
        block("PRIVATE KEY"),
        CANARY.to_owned(),
        certificate.clone() + "-----BEGIN",
    ] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "web", "namespace": "shop"}, "stringData": {"tls.crt": text, "tls.key": "key"},
        });
        let ran = folder.seal(&["--from-secret", "-", "--adopt"], &secret.to_string());
        let error = ran.error(2);
        assert!(error.contains("stringData.tls.crt: must be certificates in PEM and nothing else"), "{error}");
    }
}

#[test]
fn what_cannot_be_delivered_is_refused_by_name() {
    let folder = Folder::new();
    let binary = BASE64_STANDARD.encode([0xff, 0xfe]);
    let secret =
        |rest: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: db, namespace: shop}}\n{rest}\n");
    for (text, arguments, says) in [
        (
            secret(&format!("data: {{key: {binary}}}")),
            vec![],
            "data.key: must be valid UTF-8; encode binary data as base64",
        ),
        (secret(&format!("data: {{key: '{CANARY}!'}}")), vec![], "data.key: must be base64"),
        (
            secret(&format!("stringData: {{key: {}}}", CANARY.repeat(400))),
            vec![],
            "keep as a secret, and store the ciphertext elsewhere (Secret shop/db, key key)",
        ),
        (
            secret("stringData: {port: 5432}"),
            vec![],
            "stringData.port: must be a quoted string (Secret shop/db, key port)",
        ),
        (
            secret(&format!("type: kubernetes.io/dockercfg\nstringData: {{.dockercfg: {CANARY}}}")),
            vec![],
            "type: `spec.target.type` must be `Opaque`",
        ),
        (
            secret(&format!("type: kubernetes.io/tls\nstringData: {{tls.key: {CANARY}}}")),
            vec![],
            "data: `spec.target.template` must have the key `tls.crt`",
        ),
        (
            secret(&format!("stringData: {{A_B: {CANARY}, a-b: {CANARY}}}")),
            vec![],
            "Secret shop/db, key A_B (line 1) and Secret shop/db, key a-b (line 1) both give the ManagedSecret db-a-b",
        ),
        (secret("stringData: {a: x, b: z}"), vec!["--adopt"], "must have one key to be taken over"),
        (
            secret("immutable: true\nstringData: {a: x}"),
            vec!["--adopt"],
            "immutable: must not be true to be taken over",
        ),
        (secret("stringData: {a: x, a: z}"), vec![], "stringData.a: must be given once"),
        (secret("stringData: {a: x}").replace(", namespace: shop", ""), vec![], "metadata.namespace: must be given"),
        (
            secret("stringData: {a: x}").replace("name: db", &format!("name: {}", "x".repeat(51))),
            vec![],
            "`spec.name` must have at most 50 characters (Secret shop/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx, \
             key a); give it another name with --names",
        ),
        ("kind: ConfigMap\napiVersion: v1\n".to_owned(), vec![], "no Secret with data found"),
    ] {
        let ran = folder.seal(&[&["--from-secret", "-"][..], &arguments].concat(), &text);
        assert!(ran.error(2).contains(says), "{says}: {ran:?}");
        assert!(ran.out.is_empty());
    }
}

/// Secrets of a file, each `name, stringData`, in `shop`.
fn secrets(secrets: &[(&str, &str)]) -> String {
    let secret = |(name, data): &(&str, &str)| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData: {{{data}}}\n---\n"
        )
    };
    secrets.iter().map(secret).collect()
}

#[test]
fn two_values_never_get_one_name() {
    let folder = Folder::new();
    let managed = "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata: {name: db, namespace: shop}\n\
                   spec: {name: OTHER, generate: {}}\n---\n";
    for (text, one, other, what) in [
        (
            secrets(&[("db", "user: u, password: one"), ("db-password", "value: two")]),
            "Secret shop/db, key password (line 1)",
            "Secret shop/db-password, key value (line 6)",
            "the ManagedSecret db-password",
        ),
        (
            secrets(&[("a.b", "k: one"), ("a-b", "k: two")]),
            "Secret shop/a.b, key k (line 1)",
            "Secret shop/a-b, key k (line 6)",
            "the name A_B",
        ),
        (
            secrets(&[("a", "b: one, c: x"), ("a-b", "k: two")]),
            "Secret shop/a, key b (line 1)",
            "Secret shop/a-b, key k (line 6)",
            "the ManagedSecret a-b",
        ),
        (
            secrets(&[("same", "k: one"), ("same", "k: two")]),
            "Secret shop/same, key k (line 1)",
            "Secret shop/same, key k (line 6)",
            "the ManagedSecret same",
        ),
        (
            format!("{managed}{}", secrets(&[("db", "k: one")])),
            "ManagedSecret shop/db",
            "Secret shop/db, key k (line 6)",
            "the ManagedSecret db",
        ),
    ] {
        let ran = folder.seal(&["--from-secret", "-"], &text);
        let error = ran.error(2);
        assert!(error.contains(&format!("{one} and {other} both give {what}; give")), "{error}");
        assert!(ran.out.is_empty());
    }
    // In another namespace they are others, whatever the values are sealed for.
    let text = secrets(&[("a.b", "k: one")]) + &secrets(&[("a-b", "k: two")]).replace("shop", "test");
    for scope in ["strict", "namespace", "cluster"] {
        let objects = documents(folder.seal(&["--from-secret", "-", "--scope", scope], &text).ok());
        let namespaces: Vec<_> = objects.iter().map(|object| &object["metadata"]["namespace"]).collect();
        assert_eq!(namespaces, ["shop", "test"], "{scope}");
    }
    // A value for the whole cluster needs no namespace: then nothing says that they are applied in two.
    let anywhere = text.replacen(", namespace: shop", "", 1);
    let ran = folder.seal(&["--from-secret", "-", "--scope", "cluster"], &anywhere);
    let says = "Secret a.b, key k (line 1) and Secret test/a-b, key k (line 6) both give the name A_B, and one of them has \
                no namespace, so it can be applied in any: write its namespace, or give one of them another name with \
                --names";
    assert!(ran.error(2).contains(says) && ran.out.is_empty(), "{ran:?}");
    // With -n, it is written.
    let ran = folder.seal(&["--from-secret", "-", "--scope", "cluster", "-n", "shop"], &anywhere);
    assert_eq!(documents(ran.ok()).len(), 2);
}

#[test]
fn a_file_gives_names_where_the_derived_ones_do_not_fit() {
    let folder = Folder::new();
    let long = format!("{}-service", "a".repeat(50));
    let text = secrets(&[("db", "user: u, password: one"), ("db-password", "value: two"), (&long, "token: three")]);
    folder.write(
        "names",
        &format!("\u{feff}# names\nshop/db/password DB_ROOT db-root\n{long}/token SERVICE_TOKEN service\n"),
    );
    let ran = folder.seal(&["--from-secret", "-", "--names", "names"], &text);
    let objects = documents(ran.ok());
    let found: Vec<_> = objects
        .iter()
        .map(|object| {
            assert_eq!(validate(object), []);
            let name = object["metadata"]["name"].as_str().unwrap();
            let value = folder.open(object["spec"]["value"].as_str().unwrap(), "shop", name);
            (name.to_owned(), object["spec"]["name"].as_str().unwrap(), object["spec"]["target"].clone(), value)
        })
        .collect();
    let expected = [
        ("db-root", "DB_ROOT", json!({"key": "password"}), "one"),
        ("db-user", "DB_USER", json!({"key": "user"}), "u"),
        ("db-password", "DB_PASSWORD", json!(null), "two"),
        // The only key is delivered where pods look for it.
        ("service", "SERVICE_TOKEN", json!({"name": long, "key": "token"}), "three"),
    ];
    assert_eq!(
        found,
        expected.map(|(name, secret, target, value)| (name.to_owned(), secret, target, value.to_owned()))
    );

    for (names, says) in [
        ("shop/db/passwort DB_ROOT\n", "--names names:1: no Secret of the input has this key"),
        ("db/password DB_USER db-root\n", "both give the name DB_USER"),
        ("db/password A B c\n", "--names names:1: must be SECRET/KEY NAME [OBJECT]"),
        (&format!("db/password {}\n", "A".repeat(51)), "`spec.name` must have at most 50 characters"),
    ] {
        folder.write("names", names);
        let text = secrets(&[("db", "user: u, password: one")]);
        let ran = folder.seal(&["--from-secret", "-", "--names", "names"], &text);
        assert!(ran.error(2).contains(says), "{says}: {ran:?}");
    }
}
