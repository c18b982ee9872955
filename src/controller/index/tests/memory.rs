//! What the cache keeps for each object, in bytes and blocks of memory, counted.

use allocation_counter::{AllocationInfo, measure};
use managed_secrets_api::{
    keys::{ANNO_HISTORY, ANNOTATIONS, LABELS, ROLE_TARGET},
    record::{Delivered, History, KeptVersion, RecordMeta, Source},
    types::{DeletionPolicy, EarlierVersion, SourceKind},
};
use managed_secrets_crypto::Seed;
use managed_secrets_engine::{
    backoff::Jitter,
    queue::{Core, Next, Priority, Workers},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;
use crate::controller::{
    timing::OBJECT_BYTES,
    view::watched::{WatchedObject, WatchedSecret},
};

/// ManagedSecrets, each with a record and a target.
const OBJECTS: usize = 1000;
const TIME: &str = "2026-11-28T11:30:00Z";

/// An id that looks random, as those of the API server do.
fn id(kind: u128, number: usize) -> String {
    let mixed = (kind << 64 | number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Uuid::from_u128(mixed).to_string()
}

fn version(number: usize) -> String {
    (1_000_000 + number).to_string()
}

fn served(number: usize) -> Own {
    let (name, id_of) = (format!("secret-{number}"), |kind| id(kind, number));
    let (wanted, shown) = (format!("SECRET_{number}"), version(number));
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Served", "observedGeneration": 1, "lastTransitionTime": TIME,
        "message": format!(
            "delivered as key value of Secret {name}; generated once: a changed length or alphabet applies to the next \
             generated value"
        ),
    });
    let object = json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": id_of(1), "resourceVersion": shown, "generation": 1,
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {"f:name": {}}}}],
        },
        "spec": {"name": wanted, "description": "OpenWeather, production plan", "generate": {}},
        "status": {
            "id": id_of(4), "name": wanted, "createdDate": TIME, "updatedDate": TIME, "valueUpdatedTime": TIME,
            "version": 1, "observedGeneration": 1, "deletionPolicy": "Delete", "conditions": [condition],
            "record": {"name": record_name(&wanted), "uid": id_of(2), "resourceVersion": shown},
            "target": {"name": name, "key": "value", "uid": id_of(3), "resourceVersion": shown},
        },
    });
    serde_json::from_value::<WatchedObject>(object).unwrap().kept.unwrap()
}

/// A Secret that the operator wrote, with these labels and annotations.
fn written(number: usize, name: &str, kind: u128, labels: &Value, annotations: &Value) -> SecretView {
    let owner = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "name": format!("secret-{number}"),
        "uid": id(1, number),
    });
    let keys = |map: &Value| -> Value {
        map.as_object()
            .unwrap()
            .keys()
            .map(|key| (format!("f:{key}"), json!({})))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let owner_key = format!("k:{{\"uid\":\"{}\"}}", id(1, number));
    let secret = json!({"metadata": {
        "name": name, "namespace": NAMESPACE, "uid": id(kind, number), "resourceVersion": version(number),
        "labels": labels, "annotations": annotations, "ownerReferences": [owner],
        "managedFields": [{
            "manager": "managed-secrets", "operation": "Apply", "time": TIME,
            "fieldsV1": {
                "f:type": {}, "f:data": {"f:value": {}},
                "f:metadata": {
                    "f:labels": keys(labels), "f:annotations": keys(annotations),
                    "f:ownerReferences": {owner_key: {}},
                },
            },
        }],
    }});
    serde_json::from_value::<WatchedSecret>(secret).unwrap().kept
}

fn stored_record(number: usize) -> SecretView {
    let meta = RecordMeta {
        id: id(4, number),
        owner: format!("secret-{number}"),
        uid: id(1, number),
        name: format!("SECRET_{number}"),
        description: "OpenWeather, production plan".to_owned(),
        created: TIME.to_owned(),
        updated: TIME.to_owned(),
        value_updated: TIME.to_owned(),
        version: 1,
        generation: 1,
        deletion_policy: DeletionPolicy::Delete,
        source: Source::Generate { revision: None },
        target: Delivered::Own { name: format!("secret-{number}"), key: "value".to_owned() },
        history: History::default(),
    };
    let annotations = meta.annotations(NAMESPACE, &Seed::new(Zeroizing::new([7; 32])), &[9; 32]).unwrap();
    let view = written(number, &meta.object_name(), 2, &json!(meta.labels()), &json!(annotations));
    assert_eq!((view.labels.len(), view.annotations.len()), (LABELS.len(), ANNOTATIONS.len() - 4));
    view
}

fn delivered(number: usize) -> SecretView {
    let name = format!("secret-{number}");
    let labels = json!({(LABEL_ROLE): ROLE_TARGET, (LABEL_ID): id(4, number)});
    written(number, &name, 3, &labels, &json!({(ANNO_OWNER): name}))
}

type Listed = (Vec<Packed<Own>>, Vec<(String, Packed<SecretView>)>);

/// Lists of all of them.
fn lists(index: &Index) -> Listed {
    let objects = (0..OBJECTS).map(|number| index.pack_object(served(number))).collect();
    let secrets = (0..OBJECTS).flat_map(|number| [stored_record(number), delivered(number)]);
    let secrets = secrets.map(|view| (String::new(), index.pack_secret(NAMESPACE, view)));
    (objects, secrets.map(|(_, packed)| (NAMESPACE.to_owned(), packed)).collect())
}

fn replace(index: &mut Index, (objects, secrets): Listed) {
    index.replace_objects(None, objects);
    index.replace_secrets(None, secrets);
}

/// Bytes and blocks for each object that are still there.
fn each(info: &AllocationInfo) -> (i64, i64) {
    let objects = i64::try_from(OBJECTS).unwrap();
    (info.bytes_current / objects, info.count_current / objects)
}

/// A field or a map that takes more is seen here. `docs/performance.md` has these figures.
#[test]
#[allow(clippy::print_stdout, reason = "docs/performance.md has the figure")]
fn an_object_takes_under_three_kilobytes_of_the_cache_and_the_queue() {
    let mut index = Index::default();
    let cached = measure(|| replace(&mut index, lists(&Index::default())));
    let mut queue = Core::default();
    let queued = measure(|| {
        for key in index.keys() {
            queue.add(key, Priority::Resync, Instant::now());
        }
        while let Some(key) = queue.pop(Instant::now(), Workers { all: OBJECTS, reserved: 0 }) {
            queue.finish(&key, Next::After(Duration::from_secs(3600)), Instant::now(), Jitter::NONE);
        }
    });
    let again = measure(|| {
        let listed = lists(&index);
        replace(&mut index, listed);
    });
    let packed = |info: AllocationInfo| info.bytes_current;
    let mut views = (None, None, None);
    let object = packed(measure(|| views.0 = Some(index.pack_object(served(OBJECTS)))));
    let record = packed(measure(|| views.1 = Some(index.pack_secret(NAMESPACE, stored_record(OBJECTS)))));
    let target = packed(measure(|| views.2 = Some(index.pack_secret(NAMESPACE, delivered(OBJECTS)))));
    assert_eq!([object, record, target], [392, 424, 192], "bytes of ManagedSecret, record and target");
    let rotated = || {
        let mut own = served(OBJECTS);
        own.spec.generate.as_mut().unwrap().rotate_every = Some("720h".to_owned());
        own.status.next_rotation = Some(TIME.to_owned());
        own
    };
    let mut view = None;
    let scheduled = packed(measure(|| view = Some(index.pack_object(rotated()))));
    assert!(scheduled <= object + 16, "{scheduled} bytes with a schedule, {object} without");
    // One earlier value: what names it, twice.
    let created = || TIME.to_owned();
    let described = || {
        let mut own = served(OBJECTS);
        let source = SourceKind::Generate;
        own.status.history =
            Some(vec![EarlierVersion { version: 1, created: created(), source, delivered_until: None }]);
        own
    };
    let stored = || {
        let mut record = stored_record(OBJECTS);
        let source = SourceKind::Generate;
        let history = History::new(vec![KeptVersion { version: 1, commitment: [9; 32], created: created(), source }]);
        record.annotations.insert(ANNO_HISTORY.to_owned(), history.to_string());
        record.ours.annotations.insert(ANNO_HISTORY.to_owned());
        record.ours.data.insert("value.1".to_owned());
        record
    };
    let mut views = (None, None);
    let object = packed(measure(|| views.0 = Some(index.pack_object(described()))));
    let record = packed(measure(|| views.1 = Some(index.pack_secret(NAMESPACE, stored()))));
    assert_eq!([object, record], [400, 512], "bytes with one earlier value");
    let ((bytes, blocks), (queued_bytes, queued_blocks)) = (each(&cached), each(&queued));
    // The three views, the names of object and record, and the list of the two Secrets that it owns.
    assert_eq!(blocks, 6);
    // The names are those of the cache.
    assert_eq!(queued_blocks, 0);
    let (together, at_most) = (bytes + queued_bytes, i64::from(OBJECT_BYTES));
    println!("{bytes} bytes in the cache, {queued_bytes} in the queue, {blocks} blocks");
    // Not much less either: the benchmark predicts with it.
    assert!((at_most - 100..=at_most).contains(&together), "{bytes} bytes in the cache, {queued_bytes} in the queue");
    // What is as it was shares its memory.
    assert_eq!(again.bytes_current, 0);
    assert!(again.bytes_max < 300 * OBJECTS as u64, "{} bytes more while it lists again", again.bytes_max);
}

/// Every object has an entry, for the next look at it: a rotation that is due earlier, or another day, is the same entry.
#[test]
fn a_schedule_takes_no_more_of_the_queue_than_the_entry_that_every_object_has() {
    const MANY: usize = 10_000;
    let workers = Workers { all: MANY, reserved: 0 };
    let key = |number| Key { namespace: NAMESPACE.into(), name: format!("secret-{number}").as_str().into() };
    let keys: Vec<Key> = (0..MANY).map(key).collect();
    let now = Instant::now();
    // Each time, all objects are looked at, and get a timer by their number.
    let looks = |queue: &mut Core<Key>, times: usize, seconds: &dyn Fn(usize) -> u64| {
        for time in 0..times {
            for key in &keys {
                queue.add(key.clone(), Priority::Woken, now);
            }
            let mut number = 0;
            while let Some(key) = queue.pop(now, workers) {
                let after = Duration::from_secs(seconds(number + time));
                queue.finish(&key, Next::After(after), now, Jitter::NONE);
                number += 1;
            }
            assert_eq!(number, MANY);
        }
    };
    let resync = |number: usize| 3600 + u64::try_from(number % 1440).unwrap();
    let scheduled = |number: usize| 60 + u64::try_from(number.wrapping_mul(7919) % 3540).unwrap();
    let taken = |times: usize, seconds: &dyn Fn(usize) -> u64| {
        let mut queue = Core::default();
        let info = measure(|| looks(&mut queue, times, seconds));
        assert_eq!(queue.depth().waiting, MANY);
        info.bytes_current / i64::try_from(MANY).unwrap()
    };
    let (without, with, moved) = (taken(1, &resync), taken(1, &scheduled), taken(20, &scheduled));
    // How full the nodes of a tree are depends on the order in which they were filled.
    let entry = without + without / 4;
    assert!(with <= entry, "{with} bytes in the queue with a schedule, {without} without");
    // A table that had many removals may have doubled, once.
    assert!(moved <= 2 * without, "{moved} bytes after twenty looks, {without} after one without a schedule");
}

/// A user can make a chain of sources that is no ring, of any length.
#[test]
fn a_step_of_a_walk_along_sources_unpacks_nothing() {
    const CHAIN: usize = 200;
    let mut index = Index::default();
    for number in 0..CHAIN {
        let (name, upstream) = (format!("o-{number}"), format!("o-{}", number + 1));
        index.put_object(follows(&name, 1, &upstream));
        index.put_secret(NAMESPACE, target(&name, &name, 1), None);
    }
    let blocks = |name: String| measure(|| assert!(peers(&index, &name).ring.is_empty())).count_total;
    let (first, last) = (blocks("o-0".to_owned()), blocks(format!("o-{}", CHAIN - 1)));
    // The list of members grows.
    assert!(first < last + 16, "{first} blocks of memory for a long walk, {last} for a short one");
    assert!(!index.put_object(follows(&format!("o-{}", CHAIN - 1), 2, "o-0")).is_empty());
    assert_eq!(peers(&index, "o-0").ring.len(), CHAIN);
}
