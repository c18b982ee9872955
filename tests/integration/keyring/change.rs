//! Changes of the keyring: one writer at a time wins, nothing of a newer version is lost, and nothing is written that does
//! not open.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use kube::api::{Patch, PatchParams};
use managed_secrets::keyring::OwnKeyring;
use managed_secrets_api::keyring_request::{Kind, Request};
use managed_secrets_api::keys::ANNO_KEYRING_REQUEST;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::*;

impl Operator {
    async fn change<T>(&self, edit: impl FnMut(&mut OwnKeyring) -> Result<T, KeyringError>) -> Result<T, KeyringError> {
        self.store(Provider::Local).change(&self.client, edit).await
    }

    /// The operator's own document, with every field.
    async fn stored(&self) -> Value {
        serde_json::from_slice(&data(&self.secrets.get(KEYRING_NAME).await.unwrap(), KEYRING_DATA_KEY)).unwrap()
    }

    async fn requests(&self) -> Option<String> {
        self.secrets.get(KEYRING_NAME).await.unwrap().annotations().get(ANNO_KEYRING_REQUEST).cloned()
    }

    /// Another program writes the keyring.
    async fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut document = self.stored().await;
        edit(&mut document);
        let content = BASE64_STANDARD.encode(serde_json::to_vec(&document).unwrap());
        self.patch(json!({"data": {KEYRING_DATA_KEY: content}})).await;
    }

    async fn patch(&self, change: Value) {
        self.secrets.patch(KEYRING_NAME, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// A change that fails and writes nothing; what it says.
    async fn unchanged(&self, edit: impl FnMut(&mut OwnKeyring) -> Result<(), KeyringError>) -> String {
        let before = self.versions().await;
        let error = self.change(edit).await.unwrap_err();
        assert_eq!(self.versions().await, before, "{error}");
        error.to_string()
    }
}

/// Waits for a call from within an edit, which is no async function.
fn wait_for<T>(call: impl Future<Output = T>) -> T {
    block_in_place(|| Handle::current().block_on(call))
}

/// A change that shows in the document.
#[allow(clippy::unnecessary_wraps, reason = "it is the result of an edit")]
fn mark(own: &mut OwnKeyring, name: &str) -> Result<(), KeyringError> {
    own.document.unknown.insert(name.to_owned(), true.into());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_meets_another_one_is_applied_to_what_that_one_wrote() {
    let operator = Operator::new().await;
    let keyring = operator.start(Provider::Local).await.unwrap();
    let calls = AtomicUsize::new(0);
    operator
        .change(|own| {
            if calls.fetch_add(1, SeqCst) == 0 {
                wait_for(operator.edit(|document| document["another"] = 1.into()));
            }
            mark(own, "ours")
        })
        .await
        .unwrap();
    assert_eq!(calls.load(SeqCst), 2, "once for each document that was read");
    let stored = operator.stored().await;
    assert!(stored["another"] == 1 && stored["ours"] == true, "{stored}");
    assert_eq!(active(&operator.start(Provider::Local).await.unwrap()), active(&keyring));

    // Who is always slower gives up, and the caller tries again later.
    let error = operator
        .change(|own| {
            let call = calls.fetch_add(1, SeqCst);
            wait_for(operator.edit(|document| document["another"] = call.into()));
            mark(own, "never")
        })
        .await
        .unwrap_err();
    assert!(matches!(error, KeyringError::Contended) && error.is_retryable(), "{error}");
    assert!(operator.stored().await.get("never").is_none());
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_kept() {
    let operator = Operator::new().await;
    operator.start(Provider::Local).await.unwrap();
    operator
        .edit(|document| {
            document["later"] = json!({"a": [1, null]});
            document["entries"][0]["later"] = "b".into();
            document["entries"][1]["wrapped"]["later"] = json!({"c": 1.5});
        })
        .await;
    let mut expected = operator.stored().await;
    operator.change(|own| mark(own, "ours")).await.unwrap();
    expected["ours"] = true.into();
    expected["generation"] = 1.into();
    assert_eq!(operator.stored().await, expected);
    operator.start(Provider::Local).await.unwrap();
}

#[tokio::test]
async fn a_keyring_with_an_entry_that_this_version_does_not_know_is_not_changed() {
    let operator = Operator::new().await;
    operator.start(Provider::Local).await.unwrap();
    let known = operator.stored().await;
    for (field, value) in [("purpose", "escrow"), ("state", "asleep")] {
        operator.edit(|document| document["entries"][1][field] = value.into()).await;
        let said = operator.unchanged(|own| mark(own, "ours")).await;
        assert!(said.contains("must hold an MSK1 document"), "{said}");
        operator.edit(|document| *document = known.clone()).await;
    }
    operator.change(|own| mark(own, "ours")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_that_vanished_is_not_created_again() {
    let operator = Operator::new().await;
    operator.start(Provider::Local).await.unwrap();
    let error = operator
        .change(|own| {
            wait_for(operator.delete(KEYRING_NAME));
            mark(own, "ours")
        })
        .await
        .unwrap_err();
    assert!(matches!(error, KeyringError::Missing { .. }) && !error.is_retryable(), "{error}");
    let said = operator.unchanged(|own| mark(own, "ours")).await;
    assert!(said.contains(&format!("restore Secret {}/{KEYRING_NAME}", operator.namespace.name)), "{said}");
    assert!(operator.of_type(TYPE_KEYRING).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_keyring_in_its_place_is_changed_only_as_it_is() {
    let (operator, elsewhere) = (Operator::new().await, Operator::new().await);
    let file = || Provider::File(Kek::new(&[0xfe; 32]).unwrap());
    let (first, second) = (operator.start(file()).await.unwrap(), elsewhere.start(file()).await.unwrap());
    let other = elsewhere.secrets.get(KEYRING_NAME).await.unwrap();
    let mut seen = Vec::new();
    operator
        .store(file())
        .change(&operator.client, |own| {
            seen.push(own.document.entries[0].id.clone());
            if seen.len() == 1 {
                wait_for(async {
                    operator.delete(KEYRING_NAME).await;
                    operator.restore(other.clone(), KEYRING_NAME).await;
                });
            }
            mark(own, "ours")
        })
        .await
        .unwrap();
    assert_eq!(seen, [active(&first).to_string(), active(&second).to_string()]);
    let mut expected: Value = serde_json::from_slice(&data(&other, KEYRING_DATA_KEY)).unwrap();
    expected["ours"] = true.into();
    expected["generation"] = 1.into();
    assert_eq!(operator.stored().await, expected);

    // Another Secret of that name is not the keyring.
    operator.delete(KEYRING_NAME).await;
    operator.create(KEYRING_NAME, "Opaque", BTreeMap::new()).await;
    let said = operator.unchanged(|own| mark(own, "ours")).await;
    assert!(said.contains("is not of type"), "{said}");
}

#[tokio::test]
async fn a_keyring_beside_the_operators_own_stays_as_it_is() {
    let (operator, elsewhere) = (Operator::new().await, Operator::new().await);
    operator.start(Provider::Local).await.unwrap();
    elsewhere.start(Provider::File(Kek::new(&[0xfe; 32]).unwrap())).await.unwrap();
    operator.restore(elsewhere.secrets.get(KEYRING_NAME).await.unwrap(), "restored-keyring").await;
    let before = operator.versions().await;
    operator.change(|own| mark(own, "ours")).await.unwrap();
    let after = operator.versions().await;
    assert_eq!(after["restored-keyring"], before["restored-keyring"]);
    assert_ne!(after[KEYRING_NAME], before[KEYRING_NAME]);
}

#[tokio::test]
async fn a_document_that_does_not_open_is_not_written_and_neither_is_what_did_not_change() {
    let operator = Operator::new().await;
    operator.start(Provider::Local).await.unwrap();
    let said = operator
        .unchanged(|own| {
            own.document.entries[0].created = "2026-11-23T08:00:00Z".to_owned();
            Ok(())
        })
        .await;
    assert!(said.contains("the creation date differs"), "{said}");
    let said = operator
        .unchanged(|own| {
            own.document.entries.remove(0);
            Ok(())
        })
        .await;
    assert!(said.contains("no active key"), "{said}");
    let said = operator
        .unchanged(|own| {
            mark(own, "ours")?;
            Err(KeyringError::Contended)
        })
        .await;
    assert!(said.contains("will retry"), "{said}");
    let before = operator.versions().await;
    assert_eq!(operator.change(|own| Ok(own.document.entries.len())).await.unwrap(), 2);
    assert_eq!(operator.versions().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_removed_with_the_change_and_later_ones_stay() {
    let operator = Operator::new().await;
    operator.start(Provider::Local).await.unwrap();
    let ask = |text: &str| json!({"metadata": {"annotations": {ANNO_KEYRING_REQUEST: text, "team": "keys"}}});
    operator.patch(ask("rotate sealing, pause until spring")).await;
    let calls = AtomicUsize::new(0);
    let take = |own: &mut OwnKeyring| {
        if calls.fetch_add(1, SeqCst) == 0 {
            wait_for(operator.patch(ask("rotate sealing, pause until spring, rotate kek")));
        }
        if own.requests.remove(&Request::Rotate(Kind::Sealing)) {
            mark(own, "rotated")?;
        }
        Ok(())
    };
    operator.change(take).await.unwrap();
    assert_eq!(calls.load(SeqCst), 2);
    assert_eq!(operator.requests().await.as_deref(), Some("pause until spring, rotate kek"));
    assert_eq!(operator.stored().await["rotated"], true);
    // A request alone can be removed, and the annotation ends with the last one.
    operator.patch(ask("rotate kek")).await;
    let document = operator.stored().await;
    operator.change(|own| Ok(own.requests.remove(&Request::Rotate(Kind::Kek)))).await.unwrap();
    assert_eq!((operator.requests().await, operator.stored().await), (None, document));
    let secret = operator.secrets.get(KEYRING_NAME).await.unwrap();
    assert_eq!(secret.annotations()["team"], "keys");
}
