//! The keyring on a real API server: made once, never replaced, and clear about what is missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use managed_secrets::keyring::{KeyringError, KeyringStore, Unreadable, publish, published as published_at};
use managed_secrets_api::keys::{
    KEK_DATA_KEY, KEK_PREFIX, KEYRING_DATA_KEY, KEYRING_NAME, PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY, TYPE_KEK,
    TYPE_KEYRING, TYPE_RECORD,
};
use managed_secrets_crypto::keyring::{Document, KekError, Keyring, SealingKeyStatus, State, Wrapped};
use managed_secrets_crypto::mss1::PublishedKey;
use managed_secrets_crypto::provider::Provider;
use managed_secrets_crypto::{Kek, SeedId};
use serde_json::json;
use testkit::poll;
use testkit::shared::{TestNamespace, control_plane};

use super::secret_api::Log;

mod change;

/// An operator's namespace of its own, and what the tests do there.
struct Operator {
    namespace: TestNamespace,
    client: Client,
    secrets: Api<Secret>,
}

impl Operator {
    async fn new() -> Self {
        let (namespace, client) = TestNamespace::shared("keyring").await.unwrap();
        Self { secrets: Api::namespaced(client.clone(), &namespace.name), namespace, client }
    }

    fn store(&self, provider: Provider) -> KeyringStore {
        KeyringStore::new(self.client.clone(), &self.namespace.name, provider)
    }

    /// A start of the operator that serves its own namespace: other tests' records are none of its business.
    async fn start(&self, provider: Provider) -> Result<Keyring, KeyringError> {
        self.store(provider)
            .load_or_create(Timestamp::now(), std::slice::from_ref(&self.namespace.name), Unreadable::Refuse)
            .await
    }

    async fn of_type(&self, type_: &str) -> Vec<Secret> {
        self.secrets.list(&ListParams::default().fields(&format!("type={type_}"))).await.unwrap().items
    }

    async fn create(&self, name: &str, type_: &str, data: BTreeMap<String, ByteString>) {
        let secret = Secret { type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() };
        let mut secret = secret;
        secret.metadata.name = Some(name.to_owned());
        self.secrets.create(&PostParams::default(), &secret).await.unwrap();
    }

    async fn delete(&self, name: &str) -> Secret {
        let before = self.secrets.get(name).await.unwrap();
        self.secrets.delete(name, &DeleteParams::default()).await.unwrap();
        before
    }

    /// As from a backup: the same object, without what the server gave it.
    async fn restore(&self, mut secret: Secret, name: &str) {
        secret.metadata = kube::core::ObjectMeta { name: Some(name.to_owned()), ..kube::core::ObjectMeta::default() };
        self.secrets.create(&PostParams::default(), &secret).await.unwrap();
    }

    /// The state of every Secret here.
    async fn versions(&self) -> BTreeMap<String, Option<String>> {
        let list = self.secrets.list(&ListParams::default()).await.unwrap();
        list.into_iter().map(|secret| (secret.name_any(), secret.resource_version())).collect()
    }

    /// A start that fails for a person to see to, and leaves everything as it was; what it says.
    async fn refused(&self, provider: Provider) -> String {
        let before = self.versions().await;
        let error = self.start(provider).await.unwrap_err();
        assert!(!error.is_retryable(), "{error}");
        assert_eq!(self.versions().await, before, "{error}");
        error.to_string()
    }
}

fn active(keyring: &Keyring) -> SeedId {
    keyring.active_seed().unwrap().id()
}

fn data(secret: &Secret, key: &str) -> Vec<u8> {
    secret.data.as_ref().unwrap()[key].0.clone()
}

#[tokio::test]
async fn the_first_start_makes_kek_and_keyring_and_the_next_ones_read_them() {
    let operator = Operator::new().await;
    let keyring = operator.start(Provider::Local).await.unwrap();
    let [kek] = operator.of_type(TYPE_KEK).await.try_into().unwrap();
    assert_eq!(kek.immutable, Some(true));
    let key = Kek::new(&data(&kek, KEK_DATA_KEY)).unwrap();
    assert_eq!(kek.name_any(), format!("{KEK_PREFIX}{}", key.key_id()));
    let [stored] = operator.of_type(TYPE_KEYRING).await.try_into().unwrap();
    assert_eq!(stored.name_any(), KEYRING_NAME);
    let json = String::from_utf8(data(&stored, KEYRING_DATA_KEY)).unwrap();
    assert!(!json.contains(&hex::encode(key.as_bytes())) && !json.contains(&BASE64_STANDARD.encode(key.as_bytes())));

    let before = operator.versions().await;
    let again = operator.start(Provider::Local).await.unwrap();
    assert_eq!(active(&again), active(&keyring));
    assert_eq!(active(&operator.store(Provider::Local).load().await.unwrap()), active(&keyring));
    assert_eq!(operator.versions().await, before);
}

#[tokio::test]
async fn replicas_that_start_together_end_with_one_keyring() {
    let operator = Operator::new().await;
    let keyrings = join_all((0..12).map(|_| operator.start(Provider::Local))).await;
    let ids: Vec<_> = keyrings.into_iter().map(|keyring| active(&keyring.unwrap())).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(operator.of_type(TYPE_KEYRING).await.len(), 1);
}

#[tokio::test]
async fn a_kek_without_keyring_and_records_is_gone_on_with() {
    let operator = Operator::new().await;
    let first = operator.start(Provider::Local).await.unwrap();
    operator.delete(KEYRING_NAME).await;
    let second = operator.start(Provider::Local).await.unwrap();
    assert_ne!(active(&first), active(&second));
    assert_eq!(operator.of_type(TYPE_KEK).await.len(), 1);
}

#[tokio::test]
async fn a_keyring_without_its_kek_is_not_replaced() {
    let operator = Operator::new().await;
    let keyring = operator.start(Provider::Local).await.unwrap();
    let name = operator.of_type(TYPE_KEK).await[0].name_any();
    let kek = operator.delete(&name).await;
    let said = operator.refused(Provider::Local).await;
    assert!(said.contains(&format!("restore Secret {}/{name} from a backup", operator.namespace.name)), "{said}");

    // Another key under that name is not it.
    let other = [(KEK_DATA_KEY.to_owned(), ByteString(vec![7; 32]))].into();
    operator.create(&name, TYPE_KEK, other).await;
    let said = operator.refused(Provider::Local).await;
    assert!(said.contains(&format!("{name} is not the key-encryption key that its name says")), "{said}");

    operator.delete(&name).await;
    operator.restore(kek, &name).await;
    assert_eq!(active(&operator.start(Provider::Local).await.unwrap()), active(&keyring));
}

#[tokio::test]
async fn records_without_a_keyring_stop_a_new_one() {
    let operator = Operator::new().await;
    // By its type: a record that has lost its label still is one.
    let record = json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE_RECORD, "metadata": {"name": "msec-x"}});
    let params = PatchParams::apply("test");
    operator.secrets.patch("msec-x", &params, &Patch::Apply(record)).await.unwrap();
    let said = operator.refused(Provider::Local).await;
    assert!(said.contains(&format!("record {}/msec-x exists", operator.namespace.name)), "{said}");
    assert!(said.contains(&format!("restore Secret {}/{KEYRING_NAME}", operator.namespace.name)), "{said}");
    // Served without limit, the operator looks everywhere.
    let error =
        operator.store(Provider::Local).load_or_create(Timestamp::now(), &[], Unreadable::PassOver).await.unwrap_err();
    assert!(matches!(error, KeyringError::RecordsWithoutKeyring { .. }), "{error}");

    // And a label alone makes none, or any tenant could keep the operator from its first start.
    operator.delete("msec-x").await;
    let labelled = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "labelled", "labels": {"managedsecrets.dev/role": "record"}},
    });
    operator.secrets.patch("labelled", &params, &Patch::Apply(labelled)).await.unwrap();
    operator.start(Provider::Local).await.unwrap();
}

/// A client that may do all about Secrets and `ConfigMap`s in one namespace, and nothing in others.
async fn limited_to(namespace: &str) -> Client {
    let client = control_plane().await.unwrap().access().admin_client().await.unwrap();
    let user = format!("operator-of-{namespace}");
    let group = "rbac.authorization.k8s.io";
    let role: Role = from_json(json!({
        "metadata": {"name": "secrets"},
        "rules": [{"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["*"]}],
    }));
    let binding: RoleBinding = from_json(json!({
        "metadata": {"name": "secrets"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "secrets"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }));
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &role).await.unwrap();
    Api::namespaced(client, namespace).create(&PostParams::default(), &binding).await.unwrap();
    control_plane().await.unwrap().access().client_as(&user, &[]).await.unwrap()
}

fn from_json<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// One missing `RoleBinding` does not stop a first start for all; and where nothing can be looked at, nothing is made.
#[tokio::test]
async fn a_namespace_that_cannot_be_read_is_passed_over_if_another_can() {
    let (operator, hidden) = (Operator::new().await, Operator::new().await);
    let (own, hidden) = (operator.namespace.name.clone(), hidden.namespace.name.clone());
    let store = KeyringStore::new(limited_to(&own).await, &own, Provider::Local);
    let load = async |served: &[&String], unreadable| {
        let served: Vec<String> = served.iter().map(|it| (*it).clone()).collect();
        store.load_or_create(Timestamp::now(), &served, unreadable).await
    };
    // A role takes effect a moment after it was made.
    poll("permission in the operator's namespace", Duration::from_secs(30), || async {
        Ok(match load(&[&hidden], Unreadable::PassOver).await.unwrap_err() {
            error @ KeyringError::Unreadable { .. } => Some(error.to_string()),
            _ => None,
        })
    })
    .await
    .unwrap();
    for (served, unreadable) in [
        (vec![&hidden], Unreadable::PassOver),
        (vec![&own, &hidden], Unreadable::Refuse),
        (vec![], Unreadable::PassOver),
    ] {
        let error = load(&served, unreadable).await.unwrap_err();
        assert!(matches!(error, KeyringError::Unreadable { .. }) && error.is_retryable(), "{error}");
        let named = if served.is_empty() { "all namespaces" } else { &hidden };
        assert!(error.to_string().contains(named) && error.to_string().contains("RoleBinding"), "{error}");
        assert!(operator.versions().await.is_empty(), "{served:?}");
    }
    // A record that can be seen stops it.
    operator.create("msec-x", TYPE_RECORD, BTreeMap::new()).await;
    let error = load(&[&own, &hidden], Unreadable::PassOver).await.unwrap_err();
    assert!(matches!(error, KeyringError::RecordsWithoutKeyring { .. }), "{error}");
    operator.delete("msec-x").await;
    let keyring = load(&[&own, &hidden], Unreadable::PassOver).await.unwrap();
    // Made once: from then on nothing is looked for.
    assert_eq!(active(&load(&[&hidden], Unreadable::Refuse).await.unwrap()), active(&keyring));
}

#[tokio::test]
async fn another_secret_in_the_keyrings_place_is_left_alone() {
    let operator = Operator::new().await;
    operator.create(KEYRING_NAME, "Opaque", BTreeMap::new()).await;
    let error = operator.start(Provider::Local).await.unwrap_err();
    assert!(matches!(error, KeyringError::NameTaken { .. }) && !error.is_retryable(), "{error}");
    let other = operator.secrets.get(KEYRING_NAME).await.unwrap();
    assert_eq!((other.type_.as_deref(), other.data), (Some("Opaque"), None));
}

#[tokio::test]
async fn a_damaged_keyring_is_named_and_not_replaced() {
    let operator = Operator::new().await;
    operator.start(Provider::Local).await.unwrap();
    let patch = |text: &str| json!({"data": {KEYRING_DATA_KEY: BASE64_STANDARD.encode(text)}});
    let stored = data(&operator.secrets.get(KEYRING_NAME).await.unwrap(), KEYRING_DATA_KEY);
    let stored = String::from_utf8(stored).unwrap();
    for (text, expected) in [
        ("{".to_owned(), "must hold an MSK1 document"),
        (stored.replace("MSK1", "MSK2"), "must have the format"),
        (stored.replace("\"sealing\"", "\"record\""), "the purpose differs"),
        (stored.replace("\"active\"", "\"revoked\""), "no active key"),
        (stored.replace("\"local\"", "\"vault\""), "the provider \"vault\""),
        (stored.replace("\"local\"", "\"file\""), "start the operator with --kek-file"),
    ] {
        assert_ne!(text, stored);
        operator.secrets.patch(KEYRING_NAME, &PatchParams::default(), &Patch::Merge(patch(&text))).await.unwrap();
        let said = operator.refused(Provider::Local).await;
        assert!(said.contains(expected), "{said}");
    }
    operator.secrets.patch(KEYRING_NAME, &PatchParams::default(), &Patch::Merge(patch(&stored))).await.unwrap();
    operator.start(Provider::Local).await.unwrap();
}

#[tokio::test]
async fn with_a_kek_file_no_kek_is_stored() {
    let operator = Operator::new().await;
    let file = || Provider::File(Kek::new(&[0xfe; 32]).unwrap());
    let keyring = operator.start(file()).await.unwrap();
    assert!(operator.of_type(TYPE_KEK).await.is_empty());
    assert_eq!(active(&operator.start(file()).await.unwrap()), active(&keyring));
    let said = operator.refused(Provider::Local).await;
    assert!(said.contains("start the operator with --kek-file"), "{said}");
    let said = operator.refused(Provider::File(Kek::new(&[0xff; 32]).unwrap())).await;
    let id = Kek::new(&[0xfe; 32]).unwrap().key_id().to_string();
    assert!(said.contains(&id) && said.contains("mount the file that the keyring was created with"), "{said}");
}

#[tokio::test]
async fn a_restored_keyring_joins_the_one_that_was_made_since() {
    let (old, new) = (Operator::new().await, Operator::new().await);
    let file = || Provider::File(Kek::new(&[0xfe; 32]).unwrap());
    let before = old.start(file()).await.unwrap();
    let after = new.start(Provider::Local).await.unwrap();
    new.restore(old.secrets.get(KEYRING_NAME).await.unwrap(), "restored-keyring").await;
    let merged = new.start(file()).await.unwrap();
    for seed in [active(&before), active(&after)] {
        assert!(merged.seed(seed).is_some(), "{seed}");
    }
    assert_eq!(active(&merged), active(&after));
}

/// A keyring from elsewhere, with its KEK, before the operator has one of its own: it opens, and the operator makes its
/// own under a KEK that others do not know.
#[tokio::test]
async fn a_keyring_that_stands_beside_never_becomes_the_own_one() {
    let (theirs, operator) = (Operator::new().await, Operator::new().await);
    let foreign = theirs.start(Provider::Local).await.unwrap();
    let [kek] = theirs.of_type(TYPE_KEK).await.try_into().unwrap();
    let kek_name = kek.name_any();
    operator.restore(kek, &kek_name).await;
    operator.restore(theirs.secrets.get(KEYRING_NAME).await.unwrap(), "restored-keyring").await;
    let keyring = operator.start(Provider::Local).await.unwrap();
    assert_ne!(active(&keyring), active(&foreign));
    assert!(keyring.seed(active(&foreign)).is_some());
    assert_ne!(keyring.current_public_key(), foreign.current_public_key());
    let own = data(&operator.secrets.get(KEYRING_NAME).await.unwrap(), KEYRING_DATA_KEY);
    let foreign_kek = kek_name.strip_prefix(KEK_PREFIX).unwrap();
    assert!(!String::from_utf8(own).unwrap().contains(foreign_kek));
    // The own one lost: the one beside does not take its place.
    operator.delete(KEYRING_NAME).await;
    let error = operator.store(Provider::Local).load().await.unwrap_err().to_string();
    assert!(error.contains(&format!("restore Secret {}/{KEYRING_NAME}", operator.namespace.name)), "{error}");
}

/// A tampered backup: it calls the operator's keys revoked, and brings newer ones with a date in the future.
#[tokio::test]
async fn a_joined_keyring_decides_nothing_about_the_operators_keys_and_that_is_told_once() {
    let operator = Operator::new().await;
    let own = operator.start(Provider::Local).await.unwrap();
    let content = data(&operator.secrets.get(KEYRING_NAME).await.unwrap(), KEYRING_DATA_KEY);
    let kek = Kek::new(&data(&operator.of_type(TYPE_KEK).await[0], KEK_DATA_KEY)).unwrap();
    let mut document: Document = serde_json::from_slice(&content).unwrap();
    let wrapped = document.entries[0].wrapped.clone();
    let wrap = |bytes: &[u8]| Ok::<_, KekError>(Wrapped { ciphertext: kek.wrap(bytes)?, ..wrapped.clone() });
    let made = Keyring::generate_entries(Timestamp::now() + SignedDuration::from_hours(1), wrap).unwrap();
    for entry in &mut document.entries {
        entry.state = State::Revoked;
    }
    let own_sealing = document.entries[1].id.clone();
    let ahead = made.entries[1].id.clone();
    document.entries.extend(made.entries);
    let content = [(KEYRING_DATA_KEY.to_owned(), ByteString(serde_json::to_vec(&document).unwrap()))];
    operator.create("restored-keyring", TYPE_KEYRING, content.into()).await;

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // See the test of the same kind in `secret_api`.
    tracing::callsite::rebuild_interest_cache();
    let store = operator.store(Provider::Local);
    for _ in 0..3 {
        let keyring = store.load().await.unwrap();
        assert_eq!(active(&keyring), active(&own));
        assert_eq!(keyring.current_public_key(), own.current_public_key());
        let id = own.current_public_key().unwrap().key.key_id();
        assert!(matches!(keyring.sealing_key(id), SealingKeyStatus::Usable(_)));
    }
    drop(guard);
    let log = log.text();
    for (key, says) in [(&own_sealing, "so the operator ignores that"), (&ahead, "a creation date in the future")] {
        let told: Vec<_> = log.lines().filter(|line| line.contains(key.as_str()) && line.contains(says)).collect();
        assert!(told.len() == 1 && told[0].contains("restored-keyring"), "{log}");
    }
}

#[tokio::test]
async fn loading_makes_nothing() {
    let operator = Operator::new().await;
    let error = operator.store(Provider::Local).load().await.unwrap_err();
    assert!(matches!(error, KeyringError::Missing { .. }), "{error}");
    assert!(operator.versions().await.is_empty());
}

#[tokio::test]
async fn the_public_key_is_published_and_put_right() {
    let operator = Operator::new().await;
    let keyring = operator.start(Provider::Local).await.unwrap();
    let namespace = &operator.namespace.name;
    let configmaps = Api::<ConfigMap>::namespaced(operator.client.clone(), namespace);
    let publish = async || {
        let found = published_at(&operator.client, namespace).await?;
        publish(&operator.client, namespace, &found, &keyring, None).await
    };
    let published = |map: &ConfigMap| PublishedKey::parse(&map.data.as_ref().unwrap()[PUBLIC_KEY_DATA_KEY]).unwrap();

    assert!(publish().await.unwrap());
    let map = configmaps.get(PUBLIC_KEY_CONFIGMAP).await.unwrap();
    assert_eq!(published(&map), keyring.current_public_key().unwrap());
    assert!(!publish().await.unwrap());
    assert_eq!(configmaps.get(PUBLIC_KEY_CONFIGMAP).await.unwrap().resource_version(), map.resource_version());

    let edit = json!({"data": {PUBLIC_KEY_DATA_KEY: "{}"}});
    configmaps.patch(PUBLIC_KEY_CONFIGMAP, &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    assert!(publish().await.unwrap());
    let map = configmaps.get(PUBLIC_KEY_CONFIGMAP).await.unwrap();
    assert_eq!(published(&map), keyring.current_public_key().unwrap());

    configmaps.delete(PUBLIC_KEY_CONFIGMAP, &DeleteParams::default()).await.unwrap();
    assert!(publish().await.unwrap());
}
