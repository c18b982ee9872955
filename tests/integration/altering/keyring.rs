//! Admission control of others that would change the keyring.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use managed_secrets::keyring::{KeyringError, KeyringStore, Unreadable};
use managed_secrets_api::keys::{KEYRING_DATA_KEY, KEYRING_NAME};
use managed_secrets_crypto::provider::Provider;

use super::*;

/// What cannot be read again is not written: the keyring has no other copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_that_admission_would_change_is_not_written() {
    let site = Site::new("altered-keyring").await;
    let writer = site.as_restorer().await.client.clone();
    let store = KeyringStore::new(writer.clone(), &site.namespace, Provider::Local);
    let served = std::slice::from_ref(&site.namespace);
    store.load_or_create(Timestamp::now(), served, Unreadable::Refuse).await.unwrap();
    let before = site.secret(KEYRING_NAME).await.unwrap();
    let change = async || {
        let mark = |own: &mut managed_secrets::keyring::OwnKeyring| {
            own.document.unknown.insert("ours".to_owned(), true.into());
            Ok::<_, KeyringError>(())
        };
        store.change(&writer, mark).await
    };
    // The policy's mark needs labels to add itself to.
    let labelled = Patch::Merge(json!({"metadata": {"labels": {"team": "keys"}}}));
    let secrets = site.as_restorer().await.secrets();
    secrets.patch(KEYRING_NAME, &PatchParams::default(), &labelled).await.unwrap();
    let operation = format!("op: \"replace\", path: \"/data/{KEYRING_DATA_KEY}\", value: \"e30=\"");
    let policy = Policy::new(&site, KEYRING_NAME, &operation).await;
    let error = change().await.unwrap_err();
    assert!(matches!(error, KeyringError::Altered { .. }) && !error.is_retryable(), "{error}");
    assert!(error.to_string().contains("policy or webhook"), "{error}");
    assert_eq!(site.secret(KEYRING_NAME).await.unwrap().data, before.data);
    policy.lift().await;
    change().await.unwrap();
    assert_ne!(site.secret(KEYRING_NAME).await.unwrap().data, before.data);
}
