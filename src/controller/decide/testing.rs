//! Facts for the rule tables of [`claim`](super::claim), [`target`](super::target) and [`decide`](super::decide). Only tests.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use managed_secrets_api::{
    keys::{ANNO_OWNER, LABEL_ID, LABEL_ROLE, ROLE_TARGET},
    record::{Delivered, History},
    types::DeletionPolicy,
};
use managed_secrets_crypto::{Plaintext, SeedId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::{
    facts::{Facts, Learned, Peers, Settings, Snapshot, SourceSeen, Waits, Written},
    record::{Authenticity, RecordMeta, Source},
    view::{
        Own, OwnerRef, SecretView,
        shape::{MetadataText, Shape, TargetMetadata},
    },
};

/// The id of the ManagedSecret `db`.
pub(super) const ID: &str = "id-1";

/// The ManagedSecret `db`, with `spec.name` `DB`, a generated value, the uid `uid-db` and this status.
pub(super) fn facts(status: &Value) -> Facts {
    facts_of(&json!({}), status)
}

/// The same, with these fields of the spec besides.
pub(super) fn facts_of(spec: &Value, status: &Value) -> Facts {
    let mut object = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "db", "namespace": "shop", "uid": "uid-db", "resourceVersion": "9", "generation": 1},
        "spec": {"name": "DB"},
        "status": status,
    });
    let fields = object["spec"].as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    if !fields.contains_key("valueFrom") {
        fields.entry("generate").or_insert_with(|| json!({}));
    }
    let snapshot = Snapshot {
        now: Timestamp::UNIX_EPOCH,
        settings: Settings { operator_namespace: "operator".to_owned(), allow_cluster_scope: false, restarts: false },
        own: Own::new(serde_json::from_value(object).unwrap()),
        secrets: BTreeMap::new(),
        types: BTreeMap::new(),
        source: SourceSeen::NotWanted,
        peers: Peers::default(),
        fresh_id: ID.to_owned(),
        waits: Waits::default(),
        failures: 0,
        rejected: None,
        rewrapped: None,
        restarting: crate::controller::restarts::condition::Restarting::default(),
    };
    Facts { snapshot, learned: Learned::default(), written: Written::default() }
}

/// The record of `db`, changed.
pub(super) fn valid(change: impl FnOnce(&mut RecordMeta)) -> Authenticity {
    let mut meta = RecordMeta {
        id: ID.to_owned(),
        owner: "db".to_owned(),
        uid: "uid-db".to_owned(),
        name: "DB".to_owned(),
        description: String::new(),
        created: String::new(),
        updated: String::new(),
        value_updated: String::new(),
        version: 1,
        generation: 1,
        deletion_policy: DeletionPolicy::Retain,
        source: Source::Generate { revision: None },
        target: own_place(),
        history: History::default(),
    };
    change(&mut meta);
    Authenticity::Valid { meta: Box::new(meta), commitment: [0; 32] }
}

/// What the record of `db` says about a target that the operator created.
pub(super) fn own_place() -> Delivered {
    Delivered::Own { name: "db".to_owned(), key: "value".to_owned() }
}

/// What it says about a target that the operator adopted.
pub(super) fn adopted(uid: &str) -> Delivered {
    Delivered::Adopted { uid: uid.to_owned(), name: "db".to_owned(), key: "value".to_owned() }
}

pub(super) fn forged(claimed_uid: Option<&str>) -> Authenticity {
    Authenticity::Forged { claimed_uid: claimed_uid.map(str::to_owned) }
}

pub(super) fn unknown_seed(claimed_uid: &str) -> Authenticity {
    Authenticity::SeedUnknown { seed: SeedId([0; 8]), claimed_uid: claimed_uid.to_owned() }
}

/// A Secret with an owner reference to this ManagedSecret.
pub(super) fn owned_by(name: &str, uid: &str) -> SecretView {
    let owner = OwnerRef { is_managed_secret: true, name: name.to_owned(), uid: uid.to_owned(), controller: false };
    SecretView { owners: vec![owner], ..SecretView::default() }
}

pub(super) fn of_type(type_: &str) -> SecretView {
    SecretView { type_: Some(type_.to_owned()), ..SecretView::default() }
}

/// The Secret `db`, that the operator does not manage.
pub(super) fn unmanaged() -> SecretView {
    SecretView {
        name: "db".to_owned(),
        uid: "uid-target".to_owned(),
        resource_version: "2".to_owned(),
        ..of_type("Opaque")
    }
}

/// The Secret `db` with the labels of a target, and with this id and owner.
pub(super) fn labelled(id: &str, owner: &str) -> SecretView {
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    let text = MetadataText {
        labels: map(&[(LABEL_ROLE, ROLE_TARGET), (LABEL_ID, id)]),
        annotations: map(&[(ANNO_OWNER, owner)]),
    };
    let shape = Shape::of(&text, &TargetMetadata::new(MetadataText::default()));
    SecretView { labels: text.labels, annotations: text.annotations, shape, ..unmanaged() }
}

/// The Secret `db` as the operator creates it under `deletionPolicy: Retain`: without an owner reference.
pub(super) fn retained() -> SecretView {
    let mut view = labelled(ID, "db");
    view.ours.labels.extend([LABEL_ROLE.to_owned(), LABEL_ID.to_owned()]);
    view.ours.data.insert("value".to_owned());
    view.ours.type_ = true;
    view
}

/// The Secret `db` as the operator creates it.
pub(super) fn delivered() -> SecretView {
    let mut view = retained();
    view.owners = owned_by("db", "uid-db").owners;
    view.ours.owner_uids.insert("uid-db".to_owned());
    view
}

pub(super) fn plaintext(text: &str) -> Arc<Plaintext> {
    Arc::new(Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap())
}
