//! The rules of a pass, one row each: from what is known to the next step.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use managed_secrets_api::{
    Reason,
    keys::{ANNO_PREVIOUS, CONDITION_READY},
    names::record_name,
    record::{History, KeptVersion},
    types::DeletionPolicy,
    validate::{FieldReason, Violation},
};
use managed_secrets_crypto::{
    Seed,
    mse1::{self, Place},
};
use serde_json::{Value, json};

use super::{
    super::{
        facts::{Confirmed, Content, Facts, Freshness, Held, Holds, Incoming, Known, Seen, SourceSeen},
        plan::{Contents, Problem, Read, Slot, Step, Write},
        record::{Authenticity, Delivered, RecordMeta, Source},
        seeds::receipts::Receipt,
        view::SecretView,
    },
    decide,
    testing::{ID, delivered, facts, facts_of, owned_by, plaintext, valid},
};

/// A pass of a new object: nothing is there.
fn new() -> Facts {
    facts(&json!({}))
}

/// A pass of an object whose record, target and status are all as they should be.
fn in_step() -> Facts {
    in_step_as(&json!({}), |_| {})
}

/// The same with these fields of the spec besides, and what the record says of them.
fn in_step_as(spec: &Value, change: impl FnOnce(&mut RecordMeta)) -> Facts {
    let status = json!({
        "record": {"name": record_name("DB"), "uid": "uid-record", "resourceVersion": "1"},
        "target": {"name": "db", "key": "value", "uid": "uid-target", "resourceVersion": "2"},
        "observedGeneration": 1, "version": 1, "id": ID, "name": "DB",
    });
    let mut facts = facts_of(spec, &status);
    put_record(&mut facts, "DB", change);
    put(&mut facts, delivered(), Authenticity::NotARecord);
    hold(&mut facts);
    let Step::Write(write) = decide(&facts) else { panic!("the conditions are missing") };
    let Write::Status(status) = *write else { panic!("everything else is there") };
    facts.snapshot.own.status = status;
    facts
}

pub(super) fn put(facts: &mut Facts, view: SecretView, authenticity: Authenticity) {
    let seen = Seen { view, authenticity, live: false };
    facts.snapshot.secrets.insert(seen.view.name.clone(), Known::Present(Box::new(seen)));
}

/// Puts in the record of a name, as the operator writes it for `db`, changed.
pub(super) fn put_record(facts: &mut Facts, name: &str, change: impl FnOnce(&mut RecordMeta)) {
    let mut view = SecretView {
        name: record_name(name),
        uid: if name == "DB" { "uid-record".to_owned() } else { format!("uid-record-{name}") },
        resource_version: "1".to_owned(),
        ..owned_by("db", "uid-db")
    };
    view.ours.owner_uids.insert("uid-db".to_owned());
    let authenticity = valid(|meta| {
        meta.deletion_policy = DeletionPolicy::Delete;
        meta.name = name.to_owned();
        change(meta);
    });
    put(facts, view, authenticity);
}

/// Record and target are what status says.
fn hold(facts: &mut Facts) {
    let (uid, resource_version) = ("uid-target".to_owned(), "2".to_owned());
    facts.written.holds = Some(Holds { uid, resource_version, version: 1 });
}

/// The record was read live in this pass.
pub(super) fn read_record(facts: &mut Facts) {
    let (value, seed) = (plaintext("value"), Seed::generate().unwrap());
    let place = Place { namespace: "shop", object: "db" };
    let bytes = Arc::new(mse1::seal(&seed, &place, "uid-db", 1, &value).unwrap());
    let versions = [(1, Arc::clone(&bytes))].into();
    let contents = Ok(Contents { bytes, value });
    facts.learned.record = Some(Confirmed {
        uid: "uid-record".to_owned(),
        commitment: [0; 32],
        contents,
        versions,
        opened: [].into(),
        strays: [].into(),
    });
}

fn generated(facts: &mut Facts) {
    facts.learned.incoming =
        Some(Incoming { source: Source::Generate { revision: None }, value: Ok(plaintext("new")) });
}

/// The source is another Secret, and gives another value than the record holds.
fn new_value(facts: &mut Facts) {
    let followed = followed();
    (facts.snapshot.own.spec, facts.snapshot.source) = (followed.snapshot.own.spec, followed.snapshot.source);
    facts.learned.incoming = Some(Incoming { source: upstream(), value: Ok(plaintext("new")) });
    read_record(facts);
}

/// Seconds in an hour.
const HOUR: i64 = 3600;

/// A value that rotates every hour. It was generated when the time began; the id is no UUID, so nothing is spread.
fn hourly() -> Facts {
    in_step_as(&json!({"generate": {"rotateEvery": "1h"}}), |meta| {
        meta.value_updated = Timestamp::UNIX_EPOCH.to_string();
    })
}

/// A value that stays beside the next one for an hour, and did so until the time began.
fn overlapped() -> Facts {
    let created = Timestamp::from_second(-HOUR).unwrap().to_string();
    in_step_as(&json!({"target": {"previousKey": "old"}, "overlap": "1h"}), |meta| {
        let source = managed_secrets_api::types::SourceKind::Generate;
        meta.history =
            History::new(vec![KeptVersion { version: 0, commitment: [1; 32], created: created.clone(), source }]);
        meta.value_updated = created;
    })
}

/// The last write gave the target the previous value.
fn has_previous(facts: &mut Facts) {
    let mut view = delivered();
    view.annotations.insert(ANNO_PREVIOUS.to_owned(), "0:old".to_owned());
    view.ours.annotations.insert(ANNO_PREVIOUS.to_owned());
    view.ours.data.insert("old".to_owned());
    put(facts, view, Authenticity::NotARecord);
}

/// A value that was generated for the revision `a`.
fn revised() -> Facts {
    let source = Source::Generate { revision: Some("a".to_owned()) };
    in_step_as(&json!({"generate": {"revision": "a"}}), |meta| meta.source = source)
}

fn clock(facts: &mut Facts, seconds: i64) {
    facts.snapshot.now = Timestamp::from_second(seconds).unwrap();
}

/// The spec was edited to this revision, and a value was generated for it.
fn revise(facts: &mut Facts, revision: Option<&str>) {
    edited(facts);
    let revision = revision.map(str::to_owned);
    facts.snapshot.own.spec.generate.as_mut().unwrap().revision.clone_from(&revision);
    facts.learned.incoming = Some(Incoming { source: Source::Generate { revision }, value: Ok(plaintext("new")) });
    read_record(facts);
}

/// The spec was edited.
fn edited(facts: &mut Facts) {
    facts.snapshot.own.generation = 2;
}

/// Another ManagedSecret, which lives, holds the name.
fn taken(facts: &mut Facts, name: &str) {
    put_record(facts, name, |meta| (meta.owner, meta.uid) = ("other".to_owned(), "uid-other".to_owned()));
    facts.snapshot.peers.living.insert("uid-other".to_owned());
}

/// The target was deleted, which the watch shows.
fn without_target(facts: &mut Facts) {
    facts.snapshot.secrets.remove("db");
    facts.written.holds = None;
}

/// The target was deleted once more, after several repairs.
fn contested(facts: &mut Facts) {
    without_target(facts);
    read_record(facts);
    facts.snapshot.waits.repair = Some(Duration::from_secs(8));
}

/// The status that the next step writes was written.
fn written_status(facts: &mut Facts) {
    let Step::Write(write) = decide(facts) else { panic!("nothing is written") };
    let Write::Status(status) = *write else { panic!("it is not the status") };
    facts.snapshot.own.status = status;
}

/// The record was deleted: a live read has found nothing.
fn without_record(facts: &mut Facts) {
    facts.snapshot.secrets.insert(record_name("DB"), Known::Absent);
    facts.written.holds = None;
}

/// An interrupted rename has left the record of an older name.
fn renamed(facts: &mut Facts) {
    put_record(facts, "OLD", |meta| meta.generation = 0);
}

/// The status says something else than it should.
fn outdated_status(facts: &mut Facts) {
    facts.snapshot.own.status.updated_date = None;
}

/// The record has moved the target to `there`, where it stands; the old one is still there, and in status.
fn moved(facts: &mut Facts) {
    let spec = json!({"generate": {}, "target": {"name": "there"}});
    facts.snapshot.own.spec = facts_of(&spec, &json!({})).snapshot.own.spec;
    let there = || Delivered::Own { name: "there".to_owned(), key: "value".to_owned() };
    put_record(facts, "DB", |meta| meta.target = there());
    let view = SecretView { name: "there".to_owned(), uid: "uid-there".to_owned(), ..delivered() };
    put(facts, view, Authenticity::NotARecord);
    let (uid, resource_version) = ("uid-there".to_owned(), "2".to_owned());
    facts.written.holds = Some(Holds { uid, resource_version, version: 1 });
}

/// A step, in words.
pub(super) fn outcome(step: &Step) -> String {
    let secret = |name: &str| if name.starts_with("msec-") { "record".to_owned() } else { format!("Secret {name}") };
    let slot = |slot: &Slot| if *slot == Slot::Free { "create" } else { "write" };
    match step {
        Step::Read(Read::Secret(name)) => format!("look at {}", secret(name)),
        Step::Read(read) => format!("read {read:?}"),
        Step::Finish(finish) if finish.retry => "retry".to_owned(),
        Step::Finish(finish) => finish.after.map_or("done", |_| "wait").to_owned(),
        Step::Write(write) => match &**write {
            Write::Record(record, why) => {
                let then = record.then.as_ref().map(|target| format!(", then {}", secret(&target.name)));
                format!("{} record: {why:?}{}", slot(&record.slot), then.unwrap_or_default())
            }
            Write::Target(target, why) => format!("{} {}: {why:?}", slot(&target.slot), secret(&target.name)),
            Write::Release(view) => format!("release {}", view.name),
            Write::Delete(view, why) => format!("delete {}: {why:?}", secret(&view.name)),
            Write::Retype(view, _) => format!("delete {} for another type", secret(&view.name)),
            Write::Status(status) => {
                let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == CONDITION_READY);
                format!("status: {}", ready.map_or("", |ready| &ready.reason))
            }
        },
    }
}

/// The rule, what differs from a pass of a new object or of one that is in step, and the next step.
type Row = (&'static str, fn() -> Facts, fn(&mut Facts), &'static str);

/// A re-wrap is this process' own write, over what the status names: only the status has to say the new version.
#[test]
fn a_record_that_was_rewrapped_outside_a_pass_costs_a_status_and_any_other_is_written_again() {
    let receipt = |before: &str, after: &str, uid: &str| Receipt {
        uid: uid.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    let moved = |receipt: Receipt| {
        let mut facts = in_step();
        let Some(Known::Present(seen)) = facts.snapshot.secrets.get_mut(&record_name("DB")) else {
            panic!("no record")
        };
        seen.view.resource_version = "5".to_owned();
        facts.written.holds = None;
        facts.was_rewrapped(receipt);
        decide(&facts)
    };
    let Step::Write(write) = moved(receipt("1", "5", "uid-record")) else { panic!("nothing is written") };
    let Write::Status(status) = *write else { panic!("more than the status is written") };
    assert_eq!(status.record.unwrap().resource_version, "5");
    // Another program wrote after the re-wrap, or before it, or it was another record.
    for other in [receipt("1", "4", "uid-record"), receipt("0", "5", "uid-record"), receipt("1", "5", "uid-other")] {
        assert!(matches!(moved(other.clone()), Step::Read(_)), "{other:?}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a row for each rule")]
fn each_rule_of_a_pass() {
    let rows: Vec<Row> = vec![
        ("all as it should be: no read and no write", in_step, |_| {}, "done"),
        // What gets no writes.
        (
            "a deletionTimestamp: no more writes",
            in_step,
            |it| (it.snapshot.own.deleting, it.snapshot.own.generation) = (true, 2),
            "done",
        ),
        ("it was deleted meanwhile", in_step, |it| it.learned.own = Freshness::Gone, "done"),
        (
            "its name has changed: peers are known of the old one",
            in_step,
            |it| it.learned.own = Freshness::Renamed,
            "retry",
        ),
        (
            "the operator's own namespace",
            new,
            |it| it.snapshot.own.namespace = "operator".to_owned(),
            "status: NamespaceNotServed",
        ),
        (
            "suspended: no write to record or target",
            in_step,
            |it| {
                without_target(it);
                it.snapshot.own.spec.suspend = Some(true);
            },
            "status: Suspended",
        ),
        (
            "an invalid spec",
            in_step,
            |it| {
                let (path, message) = ("spec.name".to_owned(), "must be valid".to_owned());
                it.snapshot.own.violation = Some(Violation { path, message, reason: FieldReason::Invalid });
            },
            "status: InvalidSpec",
        ),
        // A new secret.
        ("new: a value is generated", new, |_| {}, "read Generate"),
        ("new: the record comes first, by a create-only write", new, generated, "create record: New"),
        ("new: another one holds the name", new, |it| taken(it, "DB"), "status: NameInUse"),
        (
            "new: the name is reserved",
            new,
            |it| it.snapshot.peers.reserved_for = Some("other".to_owned()),
            "status: NameInUse",
        ),
        (
            "a record that no ManagedSecret is known for: only a look tells",
            new,
            |it| {
                taken(it, "DB");
                it.snapshot.peers.living.clear();
            },
            "look at record",
        ),
        // Sources.
        ("the source does not exist", followed, |it| it.snapshot.source = SourceSeen::Absent, "status: SourceNotFound"),
        ("the sources are not listed yet", followed, |it| it.snapshot.source = SourceSeen::Unsynced, "retry"),
        ("the source is there: it is read", followed, |_| {}, "read Source"),
        (
            "the source is a member of a ring",
            followed,
            |it| it.snapshot.peers.ring = vec!["db".to_owned()],
            "status: SourceRing",
        ),
        (
            "the source has an invalid value",
            followed,
            |it| {
                let problem = Problem::new(Reason::InvalidValue, "must be shorter");
                it.learned.incoming = Some(Incoming { source: upstream(), value: Err(problem) });
            },
            "status: InvalidValue",
        ),
        (
            "a new value: the write of the target is known with that of the record",
            in_step,
            new_value,
            "write record: NewValue, then Secret db",
        ),
        (
            "a new value, and no target: there is nothing to ask about",
            in_step,
            |it| {
                without_target(it);
                new_value(it);
            },
            "write record: NewValue",
        ),
        // Rotations.
        ("a schedule: its time has not come", hourly, |it| clock(it, HOUR - 1), "wait"),
        ("a schedule: its time has come", hourly, |it| clock(it, HOUR), "read Generate"),
        (
            "a schedule: its time has come, and a value is generated",
            hourly,
            |it| {
                clock(it, HOUR);
                generated(it);
            },
            "look at record",
        ),
        (
            "a schedule: the record was read, because it keeps the value before the new one",
            hourly,
            |it| {
                clock(it, HOUR);
                generated(it);
                read_record(it);
            },
            "write record: NewValue, then Secret db",
        ),
        ("an overlap that is over", overlapped, |_| {}, "done"),
        (
            "an overlap, and a clock that was set back: the values are read",
            overlapped,
            |it| clock(it, -1),
            "look at record",
        ),
        ("an overlap ends: the value is read", overlapped, has_previous, "look at record"),
        (
            "an overlap ends: no other program changed the target",
            overlapped,
            |it| {
                has_previous(it);
                read_record(it);
            },
            "write Secret db: OverlapEnded",
        ),
        ("a schedule, and a clock that was set back by a day", hourly, |it| clock(it, -24 * HOUR), "wait"),
        (
            "a schedule, and a value that is not delivered: delivery comes first",
            hourly,
            |it| {
                clock(it, HOUR);
                it.snapshot.own.status.target.as_mut().unwrap().resource_version.clear();
                it.written.holds = None;
            },
            "look at record",
        ),
        (
            "a schedule, and a target whose last write failed: it has the value before",
            hourly,
            |it| {
                clock(it, HOUR);
                put_record(it, "DB", |meta| {
                    meta.value_updated = Timestamp::UNIX_EPOCH.to_string();
                    meta.version = 2;
                });
                it.written.holds = None;
            },
            "look at record",
        ),
        (
            "a schedule, suspended",
            hourly,
            |it| {
                clock(it, HOUR);
                it.snapshot.own.spec.suspend = Some(true);
            },
            "status: Suspended",
        ),
        (
            "a schedule, and a record of an earlier object: it is taken over first",
            hourly,
            |it| {
                clock(it, HOUR);
                put_record(it, "DB", |meta| {
                    meta.value_updated = Timestamp::UNIX_EPOCH.to_string();
                    meta.uid = "uid-before".to_owned();
                });
                it.snapshot.secrets.get_mut(&record_name("DB")).into_iter().for_each(|known| {
                    let Known::Present(seen) = known else { return };
                    seen.view.owners.clear();
                });
                read_record(it);
            },
            "write record: TakenOver",
        ),
        ("a revision: the value is of it", revised, |_| {}, "done"),
        (
            "another revision: a new value",
            revised,
            |it| revise(it, Some("b")),
            "write record: NewValue, then Secret db",
        ),
        (
            "a revision where there was none: a new value",
            in_step,
            |it| revise(it, Some("a")),
            "write record: NewValue, then Secret db",
        ),
        (
            "no revision where there was one: the same value",
            revised,
            |it| revise(it, None),
            "write record: SpecChanged",
        ),
        // Edits.
        ("edited: the record is read before it is written", in_step, edited, "look at record"),
        (
            "edited: the record comes first, with the new generation",
            in_step,
            |it| {
                edited(it);
                read_record(it);
            },
            "write record: SpecChanged",
        ),
        (
            "the record is of a newer generation: the cache is behind",
            in_step,
            |it| put_record(it, "DB", |meta| meta.generation = 2),
            "retry",
        ),
        (
            "renamed: the record is created under the new name",
            in_step,
            |it| {
                edited(it);
                read_record(it);
                it.snapshot.own.spec.name = "NEW".to_owned();
            },
            "create record: Rename",
        ),
        (
            "renamed to a name that is taken: only the name waits",
            in_step,
            |it| {
                edited(it);
                read_record(it);
                it.snapshot.own.spec.name = "NEW".to_owned();
                taken(it, "NEW");
            },
            "write record: SpecChanged",
        ),
        // The target.
        ("the target was deleted: the record is read first", in_step, without_target, "look at record"),
        (
            "the target was deleted: it is created again",
            in_step,
            |it| {
                without_target(it);
                read_record(it);
            },
            "create Secret db: Drift",
        ),
        (
            "the target was changed: it is written again",
            in_step,
            |it| {
                put(it, SecretView { resource_version: "3".to_owned(), ..delivered() }, Authenticity::NotARecord);
                read_record(it);
            },
            "write Secret db: Drift",
        ),
        (
            "the target was repaired a moment ago",
            in_step,
            |it| {
                without_target(it);
                read_record(it);
                it.snapshot.waits.repair = Some(Duration::from_secs(1));
            },
            "wait",
        ),
        (
            "the target was repaired several times: the status says that it waits",
            in_step,
            contested,
            "status: RepairDelayed",
        ),
        (
            "the status says that the repair waits",
            in_step,
            |it| {
                contested(it);
                written_status(it);
            },
            "wait",
        ),
        (
            "the status says that the repair waits, and the spec is edited: nothing waits",
            in_step,
            |it| {
                contested(it);
                written_status(it);
                edited(it);
            },
            "write record: SpecChanged",
        ),
        (
            "of a target that was repaired several times, only the version moved: it may be right",
            in_step,
            |it| {
                contested(it);
                put(it, SecretView { resource_version: "3".to_owned(), ..delivered() }, Authenticity::NotARecord);
            },
            "wait",
        ),
        (
            "a target that was repaired several times has another manager's value",
            in_step,
            |it| {
                contested(it);
                let mut view = SecretView { resource_version: "3".to_owned(), ..delivered() };
                view.ours.data.clear();
                put(it, view, Authenticity::NotARecord);
            },
            "status: RepairDelayed",
        ),
        (
            "the target has moved: the old one goes once the new one stands",
            in_step,
            |it| {
                moved(it);
                read_record(it);
            },
            "delete Secret db: Moved",
        ),
        (
            "the target moves, after a crash: the old one stays until the new one stands",
            in_step,
            |it| {
                moved(it);
                read_record(it);
                it.snapshot.secrets.insert("there".to_owned(), Known::Absent);
            },
            "create Secret there: OutOfStep",
        ),
        // What an interrupted rename left.
        ("two records: the record is read before one is deleted", in_step, renamed, "look at record"),
        (
            "two records: the one of an earlier object goes, whatever its generation",
            in_step,
            |it| {
                put_record(it, "OLD", |meta| (meta.uid, meta.generation) = ("uid-before".to_owned(), 9));
                it.snapshot.secrets.get_mut(&record_name("OLD")).into_iter().for_each(|known| {
                    let Known::Present(seen) = known else { return };
                    seen.view.owners.clear();
                });
                read_record(it);
            },
            "delete record: Leftover",
        ),
        (
            "two records: the older generation goes",
            in_step,
            |it| {
                renamed(it);
                read_record(it);
            },
            "delete record: Leftover",
        ),
        (
            "two records: the status is written first",
            in_step,
            |it| {
                renamed(it);
                read_record(it);
                outdated_status(it);
            },
            "status: Served",
        ),
        // A status that admission changes.
        (
            "the status was changed a moment ago: it waits",
            in_step,
            |it| {
                outdated_status(it);
                it.snapshot.waits.status = Some(Duration::from_secs(1));
            },
            "wait",
        ),
        (
            "two records, and the status waits: the older one stays",
            in_step,
            |it| {
                renamed(it);
                read_record(it);
                outdated_status(it);
                it.snapshot.waits.status = Some(Duration::from_secs(1));
            },
            "wait",
        ),
        (
            "the status was stored otherwise: the next pass looks",
            in_step,
            |it| it.written.status_altered = true,
            "wait",
        ),
        // A lost record.
        (
            "the record is in no cache: it may have lost its label",
            in_step,
            |it| drop(it.snapshot.secrets.remove(&record_name("DB"))),
            "look at record",
        ),
        ("the record was deleted: perhaps it was renamed", in_step, without_record, "read Spec"),
        (
            "the record was deleted: the target may have the value",
            in_step,
            |it| {
                without_record(it);
                it.learned.own = Freshness::Live;
            },
            "look at Secret db",
        ),
        (
            "the record was deleted: it is rebuilt from the target",
            in_step,
            |it| {
                without_record(it);
                it.learned.own = Freshness::Live;
                let values = [("value".to_owned(), Held::Value(plaintext("value")))].into();
                it.learned.content = Some(Content { uid: "uid-target".to_owned(), values });
            },
            "create record: Rebuilt",
        ),
        (
            "the record was deleted, and the target holds an earlier version",
            in_step,
            |it| {
                without_record(it);
                it.learned.own = Freshness::Live;
                (it.snapshot.own.status.version, it.snapshot.own.status.delivered) = (Some(2), Some(1));
                let values = [("value".to_owned(), Held::Value(plaintext("value")))].into();
                it.learned.content = Some(Content { uid: "uid-target".to_owned(), values });
            },
            "status: RecordLost",
        ),
        (
            "the record was deleted, and the target is another one",
            in_step,
            |it| {
                without_record(it);
                it.learned.own = Freshness::Live;
                put(it, SecretView { resource_version: "3".to_owned(), ..delivered() }, Authenticity::NotARecord);
            },
            "status: RecordLost",
        ),
        (
            "the record is older than status: only a look tells",
            in_step,
            |it| it.snapshot.own.status.version = Some(2),
            "look at record",
        ),
        (
            "the record is older than status",
            in_step,
            |it| {
                it.snapshot.own.status.version = Some(2);
                read_record(it);
            },
            "status: RecordRolledBack",
        ),
    ];
    for (rule, base, change, expected) in rows {
        let mut facts = base();
        change(&mut facts);
        assert_eq!(outcome(&decide(&facts)), expected, "{rule}");
    }
}

/// A pass of a new object with `valueFrom`, whose source exists.
fn followed() -> Facts {
    let spec = json!({"valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}}});
    let mut facts = facts_of(&spec, &json!({}));
    facts.snapshot.source = SourceSeen::Present { uid: "uid-upstream".to_owned(), resource_version: "4".to_owned() };
    facts
}

fn upstream() -> Source {
    let (uid, resource_version, key) = ("uid-upstream".to_owned(), "4".to_owned(), "key".to_owned());
    Source::Secret { uid, resource_version, key }
}
