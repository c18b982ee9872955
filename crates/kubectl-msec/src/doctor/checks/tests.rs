//! Cases that no cluster here can be made to show; the others are in tests/integration/msec/doctor.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::keys::{GROUP, POLICIES, SEAL_CONFIGURATION};
use managed_secrets_api::record::RecordMeta;
use managed_secrets_api::types::DeletionPolicy;
use serde_json::json;

use super::super::{
    facts::Served,
    finding::{Level, Read},
};
use super::*;
use crate::archive::testing;

fn unknown<T>() -> Read<T> {
    Read::Unknown("needs `x`".to_owned())
}

/// Nothing could be read.
fn blind() -> Facts {
    Facts {
        now: Timestamp::now(),
        own: "system".to_owned(),
        namespace: "shop".to_owned(),
        server: unknown(),
        crd: unknown(),
        deployment: unknown(),
        served: unknown(),
        account: unknown(),
        endpoints: unknown(),
        mutating: unknown(),
        validating: unknown(),
        policies: unknown(),
        bindings: unknown(),
        authorities: unknown(),
        keyrings: unknown(),
        keks: unknown(),
        public_key: unknown(),
        objects: unknown(),
        records: unknown(),
        targets: unknown(),
        permissions: unknown(),
    }
}

fn levels(check: &str, facts: &Facts) -> Vec<Level> {
    let check = CHECKS.iter().find(|it| it.name == check).unwrap();
    check.findings(facts).into_iter().map(|finding| finding.level).collect()
}

#[test]
fn names_are_told_apart_and_what_is_not_read_is_never_a_problem() {
    let names: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), CHECKS.len());
    for check in &CHECKS {
        let findings = check.findings(&blind());
        let known = check.name == "audit log";
        assert!(findings.iter().all(|it| (it.level == Level::Unknown) != known), "{findings:?}");
        assert!(findings.iter().all(|it| known || it.what == "cannot be checked: needs `x`"), "{findings:?}");
        assert_eq!(findings.len(), 1);
    }
}

#[test]
fn a_server_is_supported_by_its_minor_version() {
    for (minor, level) in
        [("34", Level::Ok), ("37+", Level::Ok), ("33", Level::Warning), ("38", Level::Warning), ("x", Level::Warning)]
    {
        let facts = Facts { server: Read::Known(("1".to_owned(), minor.to_owned())), ..blind() };
        assert_eq!(levels("server", &facts), [level], "{minor}");
    }
}

#[test]
fn a_namespace_is_served_where_it_exists_and_the_operator_has_permissions_in_it() {
    let served = |states: &[(bool, bool)]| {
        let of =
            |(exists, bound): &(bool, bool)| Served { namespace: "shop".to_owned(), exists: *exists, bound: *bound };
        Facts { served: Read::Known(states.iter().map(of).collect()), ..blind() }
    };
    assert_eq!(levels("namespaces", &served(&[])), [Level::Ok]);
    assert_eq!(levels("namespaces", &served(&[(true, true)])), [Level::Ok]);
    assert_eq!(levels("namespaces", &served(&[(true, true), (true, false), (false, false)])), [Level::Problem; 2]);
}

#[test]
fn an_object_that_nobody_looks_at_is_stuck_after_a_while() {
    let made = |ago: i64| {
        let created = Timestamp::now() - SignedDuration::from_secs(ago);
        let object: ManagedSecret = serde_json::from_value(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
            "metadata": {"name": "db", "namespace": "shop", "creationTimestamp": created.to_string()},
        }))
        .unwrap();
        Facts { objects: Read::Known(vec![object]), ..blind() }
    };
    assert_eq!(levels("secrets", &made(5)), [Level::Warning]);
    assert_eq!(levels("secrets", &made(500)), [Level::Problem]);
}

#[test]
fn a_record_is_retained_if_its_owner_is_another_secret_by_now() {
    let kept = RecordMeta { deletion_policy: DeletionPolicy::Retain, ..testing::meta() };
    let lost = testing::meta();
    let object = |name: &str, id: Option<&str>| -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": name, "generate": {}},
            "metadata": {"name": "db", "namespace": "shop"}, "status": {"id": id},
        }))
        .unwrap()
    };
    for (case, object, of_kept, of_lost) in [
        ("its own", object("DB", Some("the-id")), Level::Ok, Level::Ok),
        ("its own, in a rename", object("NEW", Some("the-id")), Level::Ok, Level::Ok),
        ("taken over soon", object("DB", None), Level::Ok, Level::Ok),
        ("another secret", object("DB", Some("other")), Level::Note, Level::Warning),
        ("cannot be taken over", object("NEW", None), Level::Note, Level::Warning),
    ] {
        for (meta, level) in [(&kept, of_kept), (&lost, of_lost)] {
            let facts = Facts {
                keyrings: Read::Known(Vec::new()),
                objects: Read::Known(vec![object.clone()]),
                records: Read::Known(vec![testing::metadata("shop", meta)]),
                ..blind()
            };
            let findings = levels("records", &facts);
            // The seed is unknown, which is another finding.
            let others: Vec<_> = findings.into_iter().filter(|it| *it != Level::Problem).collect();
            let expected = if level == Level::Ok { vec![] } else { vec![level] };
            assert_eq!(others, expected, "{case}");
        }
    }
}

#[test]
fn an_installation_for_some_namespaces_has_names_of_its_own() {
    for policy in POLICIES {
        assert!(is_named(Some(&format!("{policy}.team-a")), policy, "team-a"));
        assert!(is_named(Some(&policy.to_owned()), policy, "team-a"));
        assert!(!is_named(Some(&format!("{policy}.team-b")), policy, "team-a"));
    }
    assert!(!is_named(None, SEAL_CONFIGURATION, "x"));
}
