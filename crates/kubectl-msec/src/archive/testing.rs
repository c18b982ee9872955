//! Records for tests.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::record::{Delivered, History, RecordMeta, Source};
use managed_secrets_api::types::DeletionPolicy;
use managed_secrets_crypto::Seed;
use zeroize::Zeroizing;

/// Id of the seed of every record made here.
pub(crate) const SEED: &str = "a365ef1c79e11b4e";

/// Delivered to a Secret that the operator created.
pub(crate) fn own(name: &str, key: &str) -> Delivered {
    Delivered::Own { name: name.to_owned(), key: key.to_owned() }
}

/// Delivered to a Secret that existed before.
pub(crate) fn adopted(uid: &str, name: &str, key: &str) -> Delivered {
    Delivered::Adopted { uid: uid.to_owned(), name: name.to_owned(), key: key.to_owned() }
}

/// What the record of the secret `DB` of the ManagedSecret `db` says.
pub(crate) fn meta() -> RecordMeta {
    RecordMeta {
        id: "the-id".to_owned(),
        owner: "db".to_owned(),
        uid: "u".to_owned(),
        name: "DB".to_owned(),
        description: String::new(),
        created: "2026-11-23T08:00:00Z".to_owned(),
        updated: "2026-11-23T09:00:00Z".to_owned(),
        value_updated: "2026-11-23T08:30:00Z".to_owned(),
        version: 3,
        generation: 4,
        deletion_policy: DeletionPolicy::Delete,
        source: Source::Generate { revision: None },
        target: own("db", "value"),
        history: History::default(),
    }
}

/// The metadata of a record in a namespace, as the operator writes it.
pub(crate) fn metadata(namespace: &str, meta: &RecordMeta) -> ObjectMeta {
    let seed = Seed::new(Zeroizing::new([0x11; 32]));
    ObjectMeta {
        name: Some(meta.object_name()),
        namespace: Some(namespace.to_owned()),
        labels: Some(meta.labels()),
        annotations: meta.annotations(namespace, &seed, &[7; 32]).ok(),
        ..ObjectMeta::default()
    }
}
