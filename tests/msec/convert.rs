//! `seal --from-secret`: Secrets become ManagedSecrets.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets::api::validate;
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
        ran.err.contains("Secret shop/db-password: where this Secret exists, it must be deleted first"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains(
            "Secret shop/login has several keys: pods that mount it must mount the Secret login-username, too"
        )
    );
    assert!(!ran.out.contains("only-an-example"));

    let one = SECRETS.split("---").next().unwrap();
    let ran = folder.seal(&["--from-secret", "-", "-n", "test", "--adopt"], one);
    assert!(documents(ran.ok()).iter().all(|object| object["spec"]["target"]["adoption"] == "IfUnowned"));
    assert!(!ran.err.contains("deleted"), "{}", ran.err);
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
            "data.key: must be valid UTF-8 (Secret shop/db, key key)",
        ),
        (secret(&format!("data: {{key: '{CANARY}!'}}")), vec![], "data.key: must be base64"),
        (
            secret(&format!("stringData: {{key: {}}}", CANARY.repeat(400))),
            vec![],
            "at most 3500 characters (Secret shop/db, key key)",
        ),
        (
            secret("stringData: {port: 5432}"),
            vec![],
            "stringData.port: must be a quoted string (Secret shop/db, key port)",
        ),
        (
            secret(&format!("type: kubernetes.io/tls\nstringData: {{tls.key: {CANARY}}}")),
            vec![],
            "type: `spec.target.type` must be `Opaque`",
        ),
        (secret(&format!("stringData: {{A_B: {CANARY}, a-b: {CANARY}}}")), vec![], "A_B and a-b both give db-a-b"),
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
            "`spec.name` must have at most 50 characters",
        ),
        ("kind: ConfigMap\napiVersion: v1\n".to_owned(), vec![], "there is no Secret with data in it"),
    ] {
        let ran = folder.seal(&[&["--from-secret", "-"][..], &arguments].concat(), &text);
        assert!(ran.error(2).contains(says), "{says}: {ran:?}");
        assert!(ran.out.is_empty());
    }
}
