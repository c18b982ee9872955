//! Reads and writes of Secrets: preconditions hold, and neither logs nor errors repeat what was sent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_client::{CallError, Created, RefusalKind, SecretApi, SecretBytes, SecretObject};
use testkit::shared::TestNamespace;

const CANARY: &str = "canary-7c1e5b90";

fn object(name: &str, value: &str) -> SecretObject {
    SecretObject {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: [("value".to_owned(), SecretBytes::copy_of(value.as_bytes()))].into(),
        ..SecretObject::default()
    }
}

fn refusal(error: &CallError) -> &managed_secrets_client::Refusal {
    match error {
        CallError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn objects_are_created_once_and_changed_only_as_they_were_seen() {
    let (namespace, client) = TestNamespace::shared("secret-api").await.unwrap();
    let secrets = SecretApi::namespaced(client, &namespace.name);
    assert_eq!(secrets.get("db").await.unwrap(), None);
    let Created::Yes(first) = secrets.create(object("db", "one")).await.unwrap() else { panic!("exists") };
    assert_eq!(secrets.create(object("db", "two")).await.unwrap(), Created::Exists);
    let read = secrets.get("db").await.unwrap().unwrap();
    assert_eq!(read.data["value"].as_slice(), b"one");
    assert_eq!((&read.metadata.uid, read.type_.as_deref()), (&first.uid, Some("Opaque")));

    let mut update = object("db", "two");
    update.metadata.uid.clone_from(&first.uid);
    update.metadata.resource_version.clone_from(&first.resource_version);
    let second = secrets.apply(&update).await.unwrap();
    assert!(refusal(&secrets.apply(&update).await.unwrap_err()).is_conflict(), "a stale resourceVersion");
    update.metadata.resource_version.clone_from(&second.resource_version);
    update.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    assert!(refusal(&secrets.apply(&update).await.unwrap_err()).is_conflict(), "another uid");

    let (uid, old, new) = (first.uid.unwrap(), first.resource_version.unwrap(), second.resource_version.unwrap());
    assert!(refusal(&secrets.delete("db", &uid, &old).await.unwrap_err()).is_conflict());
    assert!(secrets.delete("db", &uid, &new).await.unwrap());
    assert!(!secrets.delete("db", &uid, &new).await.unwrap());
}

#[tokio::test]
async fn a_list_is_read_to_its_end() {
    let (namespace, client) = TestNamespace::shared("secret-api").await.unwrap();
    let secrets = SecretApi::namespaced(client, &namespace.name);
    // More than one page holds.
    for start in (0..520).step_by(52) {
        let made = (start..start + 52).map(|number| secrets.create(object(&format!("s{number}"), "x")));
        for made in futures::future::join_all(made).await {
            assert_ne!(made.unwrap(), Created::Exists);
        }
    }
    assert_eq!(secrets.list("type=Opaque").await.unwrap().len(), 520);
}

#[tokio::test]
async fn neither_logs_nor_errors_repeat_a_value() {
    let (namespace, client) = TestNamespace::shared("secret-api").await.unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // The runtime of this test has one thread, so this catches what the client's own tasks log too.
    let guard = tracing::subscriber::set_default(subscriber);
    let secrets = SecretApi::namespaced(client.clone(), &namespace.name);
    // A place that logs is registered when it is first reached. Where another test's thread reached it just before our
    // subscriber stood, it counts as wanted by no object until all are asked again.
    secrets.get("db").await.unwrap();
    tracing::callsite::rebuild_interest_cache();

    // The server quotes this value in its answer.
    let mut bad = object("docker", CANARY);
    bad.type_ = Some("kubernetes.io/dockerconfigjson".to_owned());
    bad.data = [(".dockerconfigjson".to_owned(), SecretBytes::copy_of(format!("{{\"{CANARY}").as_bytes()))].into();
    let refused = secrets.create(bad).await.unwrap_err();
    assert_eq!(refusal(&refused).kind, RefusalKind::Other);
    assert!(refused.to_string().contains("data[.dockerconfigjson]"), "{refused}");

    // An answer that does not decode: a Secret where a ConfigMap list is asked for would do; here, a wrong shape.
    secrets.create(object("db", CANARY)).await.unwrap();
    let url = format!("/api/v1/namespaces/{}/secrets/db", namespace.name);
    let request = http::Request::get(url).body(Vec::new()).unwrap();
    let malformed = managed_secrets_client::call::<Vec<u8>>(&client, request).await.unwrap_err();
    assert_eq!(malformed, CallError::Malformed);
    let read = secrets.get("db").await.unwrap().unwrap();
    let shown = format!("{refused:?} {refused} {malformed:?} {read:?}");
    drop(guard);

    let logged = log.text();
    assert!(logged.contains("secrets/db"), "the log was caught");
    for canary in [CANARY.to_owned(), base64_of(CANARY)] {
        assert!(!shown.contains(&canary), "{shown}");
        assert!(!logged.contains(&canary), "{logged}");
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD_NO_PAD.encode(text)
}

/// A log that a test can read.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
