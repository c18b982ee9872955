use managed_secrets_api::keys::*;
use managed_secrets_api::record::{Delivered, RecordMeta};
use managed_secrets_client::SecretBytes;
use serde_json::json;

use super::testing::{adopted, meta, own};
use super::*;

/// A record of `meta` as a server has it.
fn record(meta: &RecordMeta) -> Value {
    let mut record = json!({
        "apiVersion": "v1", "kind": "Secret", "type": TYPE_RECORD, "data": {"value": "TVNFMQ=="},
        "metadata": testing::metadata("shop", meta),
    });
    let of_the_server = json!({
        "uid": "x", "resourceVersion": "7", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
        "managedFields": [{"manager": "m"}], "creationTimestamp": "2026-11-23T08:00:00Z",
    });
    record["metadata"].as_object_mut().unwrap().extend(of_the_server.as_object().unwrap().clone());
    record
}

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": spec, "status": {"id": "x"},
        "metadata": {"name": name, "namespace": "shop", "uid": "u", "generation": 4, "finalizers": ["a/b"]},
    })
}

#[test]
fn what_a_server_sets_is_left_out_and_a_stream_reads_back() {
    let mut intake = Intake::default();
    let list = json!({"kind": "List", "apiVersion": "v1", "items": [
        record(&meta()), object("db", &json!({"name": "DB", "generate": {}, "newer": [1]})),
    ]});
    intake.add(&list.to_string()).unwrap();
    let archive = intake.archive;
    let text = archive.text().unwrap();
    for word in
        [" uid:", "ownerReferences", "resourceVersion", "managedFields", "status", "creationTimestamp", "finalizers"]
    {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert!(text.contains("newer"), "what later versions know is kept");
    let mut again = Intake::default();
    again.add(&text).unwrap();
    again.add(&text).unwrap();
    assert_eq!(again.archive, archive);
    assert_eq!(archive.counts(), "1 ManagedSecret, 1 record, 0 keyrings, 0 key-encryption keys");
}

#[test]
fn what_was_asked_of_the_operator_is_not_asked_again_by_a_restore() {
    let document = SecretBytes::copy_of(br#"{"format": "MSK1", "entries": []}"#);
    let keyring = |annotations: Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": TYPE_KEYRING, "data": {KEYRING_DATA_KEY: document},
            "metadata": {"name": KEYRING_NAME, "namespace": "system", "annotations": annotations},
        })
    };
    let request = "rotate seed, revoke efa4292736dc4550";
    for (annotations, kept) in [
        (json!({ANNO_KEYRING_REQUEST: request, "example.com/team": "a"}), json!({"example.com/team": "a"})),
        (json!({ANNO_KEYRING_REQUEST: request}), Value::Null),
        (Value::Null, Value::Null),
    ] {
        // As `backup` reads it from the cluster, and as `restore` reads a file that has the request.
        let live: SecretObject = serde_json::from_value(keyring(annotations.clone())).unwrap();
        let mut intake = Intake::default();
        intake.add(&keyring(annotations).to_string()).unwrap();
        for secret in [stripped(live), intake.archive.keyrings.remove(0)] {
            assert_eq!(json!(secret.metadata.annotations), kept);
            assert!(StoredKeyring::of(&secret).unwrap().requests.is_empty());
            assert!(!Archive { keyrings: vec![secret], ..Archive::default() }.text().unwrap().contains(request));
        }
    }
}

#[test]
fn nothing_else_is_accepted_and_nothing_is_quoted() {
    let target = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"value": "aHVudGVyMg=="},
        "metadata": {"name": "db", "namespace": "shop", "labels": {LABEL_ROLE: ROLE_TARGET}},
    });
    let mut intake = Intake::default();
    intake.add(&target.to_string()).unwrap();
    assert_eq!((intake.targets, intake.archive.len()), (1, 0));
    let mut foreign = target;
    foreign["metadata"]["labels"] = Value::Null;
    let mut misnamed = record(&meta());
    misnamed["metadata"]["name"] = json!("msec-other");
    let mut bytes = foreign.clone();
    bytes["data"]["value"] = json!("hunter2!");
    let kek = json!({
        "apiVersion": "v1", "kind": "Secret", "type": TYPE_KEK, "data": {"kek": "aHVudGVyMg=="},
        "metadata": {"name": "managed-secrets-kek-0011223344556677", "namespace": "shop"},
    });
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}});
    for wrong in [foreign, misnamed, bytes, kek, pod, json!({"kind": "Secret"}), json!([1])] {
        let error = intake.add(&wrong.to_string()).unwrap_err();
        assert!(!error.contains("hunter") && !error.contains("aHVu"), "{error}");
    }
    let one = record(&meta());
    intake.add(&one.to_string()).unwrap();
    let mut other = one;
    other["data"]["value"] = json!("TVNFMg==");
    assert!(intake.add(&other.to_string()).unwrap_err().contains("twice"));
}

#[test]
fn a_record_is_taken_over_by_name_and_place() {
    let of = |spec: Value| Object::parse(object("db", &spec)).unwrap();
    let to = |target| RecordMeta { target, ..meta() };
    let plain = of(json!({"name": "DB", "generate": {}}));
    assert_eq!(plain.fits(&to(own("db", "value"))), Ok(()));
    assert_eq!(plain.fits(&to(adopted("some-uid", "db", "value"))), Ok(()));
    assert_eq!(plain.fits(&to(own("db", "key"))), Err("its target".to_owned()));
    assert_eq!(plain.fits(&to(Delivered::None)), Err("its target".to_owned()));
    assert_eq!(of(json!({"name": "DB", "generate": {}, "delivery": "None"})).fits(&to(Delivered::None)), Ok(()));
    assert_eq!(of(json!({"name": "NEW", "generate": {}})).fits(&to(own("db", "value"))), Err("spec.name".to_owned()));
}

#[test]
fn a_key_encryption_key_is_known_by_its_name() {
    let kek = managed_secrets_crypto::Kek::new(&[1; 32]).unwrap();
    let secret = SecretObject {
        metadata: ObjectMeta { name: Some(format!("{KEK_PREFIX}{}", kek.key_id())), ..ObjectMeta::default() },
        type_: Some(TYPE_KEK.to_owned()),
        immutable: Some(true),
        data: [(KEK_DATA_KEY.to_owned(), SecretBytes::copy_of(kek.as_bytes()))].into(),
    };
    assert_eq!(kek_id(&secret), Some(kek.key_id().to_string()));
    let other = SecretObject { data: [(KEK_DATA_KEY.to_owned(), SecretBytes::copy_of(&[2; 32]))].into(), ..secret };
    assert_eq!(kek_id(&other), None);
}

#[test]
fn keys_of_two_operators_never_get_one_name() {
    let keyring = |namespace: &str, content: &str| {
        let mut secret = SecretObject {
            data: [(KEYRING_DATA_KEY.to_owned(), SecretBytes::copy_of(content.as_bytes()))].into(),
            ..SecretObject::default()
        };
        (secret.metadata.namespace, secret.metadata.name) = (Some(namespace.to_owned()), Some(KEYRING_NAME.to_owned()));
        secret
    };
    let archive = |keyrings: &[SecretObject]| Archive { keyrings: keyrings.to_vec(), ..Archive::default() };
    let (one, other) = (keyring("one", "a"), keyring("two", "b"));

    let (_, own) = Archive::default().of_operator(None).unwrap();
    assert_eq!(own, DEFAULT_OPERATOR_NAMESPACE);
    let (kept, own) = archive(std::slice::from_ref(&one)).of_operator(None).unwrap();
    assert_eq!((kept.keyrings, own.as_str()), (vec![one.clone()], "one"));
    let error = archive(&[one.clone(), other.clone()]).of_operator(None).unwrap_err();
    assert!(error.contains("in the namespaces one, two; restore one backup at a time"), "{error}");

    // Two would be the operator's own, and only one of them confirmed by the user.
    let error = archive(&[one.clone(), other]).of_operator(Some("here")).unwrap_err();
    assert_eq!(
        error,
        format!(
            "the Secrets one/{KEYRING_NAME} and two/{KEYRING_NAME} would both be restored as here/{KEYRING_NAME}; restore \
             one backup at a time"
        )
    );
    let (kept, _) = archive(&[one, keyring("two", "a")]).of_operator(Some("here")).unwrap();
    assert_eq!(kept.keyrings, [keyring("here", "a")]);
}
