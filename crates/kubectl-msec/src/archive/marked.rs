//! Secrets with the labels of a delivered Secret that no record delivers: copies, and what a restore or a deletion has
//! left behind. Pure.
//!
//! Backup tools, Kyverno, Capsule and people copy Secrets with labels and annotations. Such a Secret looks delivered,
//! but no backup contains its value, and the operator does not keep it up to date.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::keys::{GROUP, KIND, LABEL_ID};
use managed_secrets_api::record::{RecordMeta, StoredRecord};

use super::{Place, place};

/// Why a Secret that looks delivered is not what a record delivers.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stray {
    /// No record has its id: it may hold the only copy of its value.
    Recordless,
    /// A record has its id, and delivers into this Secret.
    CopyOf(Place),
    /// A ManagedSecret owns it that is not in its namespace: Kubernetes deletes it within seconds.
    Collected,
}

/// Which of `targets` (Secrets that look delivered) no record delivers into, each with why. `records` are those of the
/// same namespaces, or of all.
pub(crate) fn strays(targets: &[ObjectMeta], records: &[ObjectMeta]) -> Vec<(Place, Stray)> {
    let mut by_id = BTreeMap::<String, Vec<(String, RecordMeta)>>::new();
    for record in records {
        if let Some(StoredRecord { meta, .. }) = StoredRecord::of(record) {
            by_id.entry(meta.id.clone()).or_default().push((place(record).0, meta));
        }
    }
    let mut strays = Vec::new();
    for target in targets {
        let here = place(target);
        let id = target.labels.as_ref().and_then(|labels| labels.get(LABEL_ID));
        let known = id.and_then(|id| by_id.get(id)).map(Vec::as_slice).unwrap_or_default();
        let delivers = |(namespace, meta): &(String, RecordMeta)| {
            meta.target
                .place()
                .is_some_and(|(name, _)| (namespace.as_str(), name) == (here.0.as_str(), here.1.as_str()))
        };
        if known.iter().any(delivers) {
            continue;
        }
        // A record in the same namespace: the Secret is on its way to another place, or from there. Only elsewhere is a
        // copy certain.
        let is_owned = target.owner_references.iter().flatten().any(|owner| {
            owner.kind == KIND && owner.api_version.split_once('/').is_some_and(|(group, _)| group == GROUP)
        });
        let is_here = known.iter().any(|(namespace, _)| *namespace == here.0);
        let stray = match known.first() {
            _ if is_owned && is_here => continue,
            _ if is_owned => Stray::Collected,
            Some((namespace, meta)) => {
                let name = meta.target.place().map_or_else(|| meta.owner.clone(), |(name, _)| name.to_owned());
                Stray::CopyOf((namespace.clone(), name))
            }
            None => Stray::Recordless,
        };
        strays.push((here, stray));
    }
    strays
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::keys::*;
    use managed_secrets_api::record::Delivered;
    use serde_json::{Value, json};

    use super::*;
    use crate::archive::testing::{self, adopted, own};

    fn metadata(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    fn record(namespace: &str, id: &str, target: Delivered) -> ObjectMeta {
        testing::metadata(namespace, &RecordMeta { id: id.to_owned(), target, ..testing::meta() })
    }

    fn target(namespace: &str, name: &str, id: &str) -> ObjectMeta {
        metadata(json!({"name": name, "namespace": namespace, "labels": {LABEL_ROLE: ROLE_TARGET, LABEL_ID: id}}))
    }

    fn owned(mut target: ObjectMeta) -> ObjectMeta {
        let owner = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "name": "db", "uid": "gone"});
        target.owner_references = Some(vec![serde_json::from_value(owner).unwrap()]);
        target
    }

    #[test]
    fn a_copy_and_a_target_without_record_are_told_apart() {
        let records =
            [record("shop", "1", own("db", "value")), record("prod", "2", adopted("uid", "theirs", "password"))];
        let at = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        for (target, expected) in [
            (target("shop", "db", "1"), None),
            (target("prod", "theirs", "2"), None),
            // Its owner is elsewhere by the time that it moves.
            (owned(target("shop", "moving", "1")), None),
            (target("shop", "db-copy", "1"), Some(Stray::CopyOf(at("shop", "db")))),
            (target("test", "db", "1"), Some(Stray::CopyOf(at("shop", "db")))),
            (target("shop", "db", "3"), Some(Stray::Recordless)),
            (owned(target("test", "db", "1")), Some(Stray::Collected)),
            (owned(target("shop", "db", "3")), Some(Stray::Collected)),
            (metadata(json!({"name": "x", "namespace": "shop"})), Some(Stray::Recordless)),
        ] {
            let here = place(&target);
            let found = strays(&[target], &records);
            assert_eq!(found, expected.map(|stray| (here, stray)).into_iter().collect::<Vec<_>>());
        }
    }
}
