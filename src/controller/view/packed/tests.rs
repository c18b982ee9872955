//! What is packed comes back, whatever it is, and takes little.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use managed_secrets_api::{
    Reason,
    keys::{ANNOTATIONS, CONDITION_READY, LABELS},
};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

use super::*;
use crate::controller::view::{
    shape::{MetadataText, Shape, TEXT_KEPT_BYTES, TargetMetadata},
    template::TargetTemplate,
};

/// Texts of every form, and such as resemble one.
fn text() -> BoxedStrategy<String> {
    let digits = any::<[u8; 16]>();
    prop_oneof![
        any::<String>(),
        "[a-z0-9-]{1,40}",
        "[0-9]{1,22}",
        "[0-9a-f]{14,70}",
        "[0-9A-Za-z+/]{16,44}={0,2}",
        "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z",
        digits.prop_map(|digits| uuid::Uuid::from_bytes(digits).to_string()),
        digits.prop_map(|digits| uuid::Uuid::from_bytes(digits).to_string().to_uppercase()),
        select(Reason::ALL).prop_map(|reason| reason.as_str().to_owned()),
        select(&ANNOTATIONS[..]).prop_map(str::to_owned),
    ]
    .boxed()
}

fn texts() -> BoxedStrategy<BTreeMap<String, String>> {
    btree_map(prop_oneof![select(&ANNOTATIONS[..]).prop_map(str::to_owned), text()], text(), 0..8).boxed()
}

fn time() -> BoxedStrategy<Time> {
    (-4_000_000_000..4_000_000_000i64, prop_oneof![Just(0), 0..1_000_000_000i32])
        .prop_map(|(second, part)| Time(Timestamp::new(second, if second < 0 { -part } else { part }).unwrap()))
        .boxed()
}

fn condition() -> BoxedStrategy<Condition> {
    (time(), text(), option::of(any::<i64>()), text(), text(), prop_oneof![Just(CONDITION_READY.to_owned()), text()])
        .prop_map(|(last_transition_time, message, observed_generation, reason, status, type_)| Condition {
            last_transition_time,
            message,
            observed_generation,
            reason,
            status,
            type_,
        })
        .boxed()
}

fn workload() -> BoxedStrategy<Workload> {
    (select(&WorkloadKind::ALL[..]), text()).prop_map(|(kind, name)| Workload { kind, name }).boxed()
}

fn spec() -> BoxedStrategy<ManagedSecretSpec> {
    let alphabets =
        [Alphabet::Alphanumeric, Alphabet::AlphanumericSymbols, Alphabet::Hex, Alphabet::Base64Url].to_vec();
    let target = (
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(select(vec![Adoption::Never, Adoption::IfUnowned])),
        option::of(vec(workload(), 0..4)),
        option::of(text()),
    );
    let target = target.prop_map(|(name, key, type_, adoption, restart, previous_key)| Target {
        name,
        key,
        type_,
        labels: None,
        annotations: None,
        template: None,
        previous_key,
        adoption,
        restart,
    });
    let generate = (option::of(any::<i32>()), option::of(select(alphabets)), option::of(text()), option::of(text()))
        .prop_map(|(length, alphabet, rotate_every, revision)| Generate { length, alphabet, rotate_every, revision });
    (
        text(),
        option::of(text()),
        option::of((text(), text())),
        option::of(generate),
        option::of(select(vec![Delivery::Secret, Delivery::None])),
        option::of(target),
        option::of(select(vec![DeletionPolicy::Delete, DeletionPolicy::Retain])),
        option::of(any::<bool>()),
        (option::of(text()), option::of(text())),
        (option::of(any::<i32>()), option::of(any::<i64>()), option::of(text())),
    )
        .prop_map(
            |(
                name,
                description,
                from,
                generate,
                delivery,
                target,
                deletion_policy,
                suspend,
                expiry,
                (history, version, overlap),
            )| {
                ManagedSecretSpec {
                    name,
                    description,
                    value: None,
                    value_from: from.map(|(name, key)| ValueFrom { secret_key_ref: SecretKeyRef { name, key } }),
                    generate,
                    delivery,
                    target,
                    deletion_policy,
                    history,
                    version,
                    overlap,
                    suspend,
                    expires: expiry.0,
                    expiry_warning: expiry.1,
                }
            },
        )
        .boxed()
}

const KINDS: [SourceKind; 3] = [SourceKind::Value, SourceKind::ValueFrom, SourceKind::Generate];

fn status() -> BoxedStrategy<ManagedSecretStatus> {
    let dates = (option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let secrets = (option::of((text(), text(), text())), option::of((text(), text(), text(), text())));
    let rest = (
        option::of(any::<i64>()),
        (option::of(any::<i64>()), option::of(any::<i64>()), option::of(text())),
        option::of(select(vec![DeletionPolicy::Delete, DeletionPolicy::Retain])),
        option::of(vec(condition(), 0..4)),
        option::of(vec((any::<i64>(), text(), select(KINDS.to_vec()), option::of(text())), 0..4)),
    );
    (option::of(text()), option::of(text()), dates, secrets, rest)
        .prop_map(|(id, name, dates, secrets, rest)| {
            let (created_date, updated_date, value_updated_time, next_rotation) = dates;
            let (version, (observed_generation, delivered, revision), deletion_policy, conditions, history) = rest;
            let earlier = |(version, created, source, delivered_until)| EarlierVersion {
                version,
                created,
                source,
                delivered_until,
            };
            ManagedSecretStatus {
                id,
                name,
                created_date,
                updated_date,
                value_updated_time,
                next_rotation,
                revision,
                version,
                delivered,
                observed_generation,
                deletion_policy,
                record: secrets.0.map(|(name, uid, resource_version)| RecordRef { name, uid, resource_version }),
                target: secrets.1.map(|(name, key, uid, resource_version)| TargetRef {
                    name,
                    key,
                    uid,
                    resource_version,
                }),
                conditions,
                history: history.map(|history: Vec<_>| history.into_iter().map(earlier).collect()),
            }
        })
        .boxed()
}

fn own() -> BoxedStrategy<Own> {
    let reasons = [
        FieldReason::Required,
        FieldReason::TypeInvalid,
        FieldReason::TooLong,
        FieldReason::TooMany,
        FieldReason::NotSupported,
        FieldReason::Invalid,
        FieldReason::Forbidden,
    ];
    let head = (text(), text(), text(), text(), any::<i64>(), any::<bool>());
    let violation = (text(), text(), select(reasons.to_vec()));
    let long = any::<bool>().prop_map(|long| if long { "x".repeat(TEXT_KEPT_BYTES) } else { String::new() });
    let template = (texts(), long).prop_map(|(mut texts, long)| {
        texts.entry("url".to_owned()).or_default().push_str(&long);
        Box::new(TargetTemplate::Texts(texts))
    });
    let texts = (texts(), texts(), option::of(template));
    (head, spec(), option::of(text()), texts, status(), option::of(violation))
        .prop_map(
            |(
                (namespace, name, uid, resource_version, generation, deleting),
                spec,
                sealed_sha256,
                texts,
                status,
                wrong,
            )| {
                let (labels, annotations, template) = texts;
                Own {
                    namespace,
                    name,
                    uid,
                    resource_version,
                    generation,
                    deleting,
                    spec,
                    sealed_for: sealed_sha256
                        .as_ref()
                        .map(|sha256| KeyId([u8::try_from(sha256.len() % 256).unwrap(); 8])),
                    sealed_sha256,
                    target_metadata: TargetMetadata::new(MetadataText { labels, annotations }),
                    template,
                    status,
                    violation: wrong.map(|(path, message, reason)| Violation { path, message, reason }),
                }
            },
        )
        .boxed()
}

fn secret() -> BoxedStrategy<SecretView> {
    let head = (text(), text(), text(), any::<bool>());
    let labels = btree_map(prop_oneof![select(&LABELS[..]).prop_map(str::to_owned), text()], text(), 0..4);
    let owner = (any::<bool>(), text(), text(), any::<bool>());
    let owner = owner.prop_map(|(is_managed_secret, name, uid, controller)| OwnerRef {
        is_managed_secret,
        name,
        uid,
        controller,
    });
    let set = || btree_set(prop_oneof![select(&ANNOTATIONS[..]).prop_map(str::to_owned), text()], 0..6);
    let ours = (set(), set(), set(), set(), any::<bool>());
    let rest = (option::of(text()), option::of(text()), any::<bool>());
    (head, labels, texts(), vec(owner, 0..3), ours, rest)
        .prop_map(|((name, uid, resource_version, deleting), labels, annotations, owners, ours, rest)| {
            let (other_manager, type_, immutable) = rest;
            let (owned_labels, owned_annotations, data, owner_uids, owns_type) = ours;
            SecretView {
                shape: Shape::of_owned(&labels, &owned_labels, &annotations, &owned_annotations),
                name,
                uid,
                resource_version,
                deleting,
                labels,
                annotations,
                owners,
                ours: OwnedFields {
                    labels: owned_labels,
                    annotations: owned_annotations,
                    data,
                    owner_uids,
                    type_: owns_type,
                },
                other_manager,
                type_,
                immutable,
                ..SecretView::default()
            }
        })
        .boxed()
}

proptest! {
    // No file remembers a failure: one that matters becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_object_that_is_kept_comes_back(own in own()) {
        let kept = own.kept();
        prop_assert_eq!(Packed::new(&kept).get(), kept);
    }

    #[test]
    fn a_secret_that_is_kept_comes_back(view in secret()) {
        let kept = view.kept();
        prop_assert_eq!(Packed::new(&kept).get(), kept);
    }

    /// Where the bytes end early, or are others, there is no panic, and no memory is taken that they do not have.
    #[test]
    fn other_bytes_give_some_view(bytes in vec(any::<u8>(), 0..200)) {
        Own::unpack(&mut Reader::new(&bytes));
        SecretView::unpack(&mut Reader::new(&bytes));
    }
}

#[test]
fn numbers_of_any_size_come_back() {
    for number in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN] {
        let mut to = Writer::default();
        number.pack(&mut to);
        let bytes = to.bytes();
        assert_eq!(i64::unpack(&mut Reader::new(&bytes)), number);
    }
}

#[test]
fn sealed_text_is_never_packed() {
    let mut own: Own = Own::unpack(&mut Reader::new(&[]));
    let packed = Packed::new(&own);
    own.spec.value = Some(managed_secrets_api::types::SealedValue("mss1.x".to_owned()));
    assert!(Packed::new(&own) == packed);
    assert_eq!(packed.get().spec.value, None);
}

#[test]
fn equal_views_are_packed_alike() {
    let view = |annotation: &str| SecretView {
        annotations: BTreeMap::from([("a".to_owned(), annotation.to_owned())]),
        ours: OwnedFields { data: BTreeSet::from(["value".to_owned()]), ..OwnedFields::default() },
        ..SecretView::default()
    };
    assert!(Packed::new(&view("x")) == Packed::new(&view("x")));
    assert!(Packed::new(&view("x")) != Packed::new(&view("y")));
}
