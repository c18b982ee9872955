//! What a pass starts from: old events, own writes, lists; and who is woken, waits, or has a name kept.

use std::collections::BTreeMap;

use managed_secrets_api::keys::{GROUP, KIND, LABEL_ROLE, ROLE_RECORD, VERSION};
use serde_json::{Value, json};

use super::super::*;

const NS: &str = "shop";

fn key(name: &str) -> Key {
    Key { namespace: NS.into(), name: name.into() }
}

/// An object called `name` that wants the name `wants`, with that status.
fn object(name: &str, version: u64, wants: &str, status: &Value) -> Own {
    let object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
        "metadata": { "name": name, "namespace": NS, "uid": format!("uid-{name}"), "resourceVersion": version.to_string(), "generation": 1 },
        "spec": { "name": wants, "generate": {} },
        "status": status,
    });
    Own::new(serde_json::from_value(object).unwrap())
}

fn waiting(name: &str, version: u64, wants: &str) -> Own {
    object(name, version, wants, &Value::Null)
}

/// The status of an object that is served under `name`.
fn served(name: &str) -> Value {
    json!({ "id": "id", "name": name, "record": { "name": record_name(name), "uid": "r", "resourceVersion": "1" } })
}

fn secret(name: &str, uid: &str, version: u64, owner: &str) -> SecretView {
    SecretView {
        name: name.to_owned(),
        uid: uid.to_owned(),
        resource_version: version.to_string(),
        labels: BTreeMap::from([(LABEL_ROLE.to_owned(), ROLE_RECORD.to_owned())]),
        annotations: BTreeMap::from([(ANNO_OWNER.to_owned(), owner.to_owned())]),
        ..SecretView::default()
    }
}

fn record(of: &str, version: u64, owner: &str) -> SecretView {
    secret(&record_name(of), "r", version, owner)
}

/// The version of a Secret that a pass of `of` would start from.
fn seen(index: &Index, of: &str, name: &str, at: Instant) -> Option<String> {
    let snapshot = index.snapshot(&key(of), at)?;
    snapshot.secrets.into_iter().find(|view| view.name == name).map(|view| view.resource_version)
}

/// As a list shows them.
fn listed<const N: usize>(objects: [Own; N]) -> Vec<Packed<Own>> {
    objects.map(|own| Index::default().pack_object(own)).to_vec()
}

fn listed_secrets<const N: usize>(views: [SecretView; N]) -> Vec<(String, Packed<SecretView>)> {
    views.map(|view| (NS.to_owned(), Index::default().pack_secret(NS, view))).to_vec()
}

fn names(keys: Vec<Key>) -> Vec<String> {
    keys.into_iter().map(|key| key.name.to_string()).collect()
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing_and_wakes_no_object() {
    let mut index = Index::default();
    let now = Instant::now();
    assert_eq!(names(index.put_object(waiting("a", 9, "ONE"))), ["a"]);
    assert_eq!(names(index.put_object(waiting("a", 9, "ONE"))), [""; 0]);
    // Compared as numbers: 10 is newer than 9.
    assert_eq!(names(index.put_object(waiting("a", 10, "ONE"))), ["a"]);
    assert_eq!(names(index.put_object(waiting("a", 9, "TWO"))), [""; 0]);
    assert_eq!(index.snapshot(&key("a"), now).unwrap().own.spec.name, "ONE");

    index.put_secret(NS, secret("a", "u1", 20, "a"), None);
    assert_eq!(names(index.put_secret(NS, secret("a", "u1", 19, "a"), None)), [""; 0]);
    // Also of an earlier Secret of that name, whose event comes late.
    assert_eq!(names(index.put_secret(NS, secret("a", "u0", 18, "a"), None)), [""; 0]);
    assert_eq!(seen(&index, "a", "a", now).as_deref(), Some("20"));
    // The end of another Secret of that name is not the end of this one.
    index.remove_secret(NS, &secret("a", "u0", 19, "a"));
    assert_eq!(seen(&index, "a", "a", now).as_deref(), Some("20"));
    index.remove_object(NS, "a", Some("uid-of-an-earlier-one"));
    assert!(index.snapshot(&key("a"), now).is_some());
}

#[test]
fn our_own_write_is_believed_until_a_watch_shows_it_or_5_s_are_over() {
    let mut index = Index::default();
    let (now, later) = (Instant::now(), Instant::now() + UNCONFIRMED_FOR);
    index.put_object(waiting("a", 1, "ONE"));
    assert_eq!(names(index.put_secret(NS, secret("a", "u", 20, "a"), Some(now))), [""; 0], "who writes knows");
    assert_eq!(seen(&index, "a", "a", now).as_deref(), Some("20"));
    assert_eq!(seen(&index, "a", "a", later), None, "then a live read decides");
    index.put_secret(NS, secret("a", "u", 19, "a"), None);
    assert_eq!(seen(&index, "a", "a", later), None, "an older event confirms nothing");
    index.put_secret(NS, secret("a", "u", 20, "a"), None);
    assert_eq!(seen(&index, "a", "a", later).as_deref(), Some("20"));
}

#[test]
fn what_we_deleted_is_not_brought_back_by_an_event_from_before() {
    let mut index = Index::default();
    let now = Instant::now();
    index.put_object(waiting("a", 1, "ONE"));
    index.put_secret(NS, secret("a", "u1", 20, "a"), None);
    index.bury(NS, &secret("a", "u1", 20, "a"));
    index.put_secret(NS, secret("a", "u1", 20, "a"), None);
    assert_eq!(seen(&index, "a", "a", now), None);
    index.put_secret(NS, secret("a", "u2", 22, "a"), None);
    assert_eq!(seen(&index, "a", "a", now).as_deref(), Some("22"), "a new one is another matter");
}

#[test]
fn a_list_replaces_what_was_known_also_by_older_versions() {
    let mut index = Index::default();
    let now = Instant::now();
    for name in ["a", "b", "c"] {
        index.put_object(waiting(name, 50, "ONE"));
        index.put_secret(NS, secret(name, name, 60, name), None);
    }
    // After a restore of etcd: `a` as it was, `b` older, `c` never made.
    let woken = index.replace_objects(Some(NS), listed([waiting("a", 50, "ONE"), waiting("b", 40, "TWO")]));
    let woken: BTreeSet<String> = names(woken).into_iter().collect();
    assert!(woken.contains("b") && woken.contains("c"), "{woken:?}");
    assert_eq!(index.snapshot(&key("b"), now).unwrap().own.spec.name, "TWO");
    assert!(index.snapshot(&key("c"), now).is_none());

    let shown = listed_secrets([secret("a", "a", 60, "a"), secret("b", "b", 55, "b")]);
    let woken = index.replace_secrets(Some(NS), shown);
    assert_eq!(names(woken), ["b"], "of those who are there, one has seen something new");
    assert_eq!(seen(&index, "a", "a", now).as_deref(), Some("60"));
    assert_eq!(seen(&index, "b", "b", now).as_deref(), Some("55"));
    // Another namespace's list says nothing about this one.
    index.replace_objects(Some("elsewhere"), Vec::new());
    assert_eq!(index.keys().count(), 2);
}

/// After a restore of etcd, what this process wrote and deleted in the lost history stands in nothing's way.
#[test]
fn a_list_from_before_our_own_writes_is_believed_and_what_follows_it() {
    let mut index = Index::default();
    let now = Instant::now();
    index.put_object(waiting("a", 90, "ONE"));
    index.put_secret(NS, secret("a", "u", 50, "a"), None);
    index.put_secret(NS, secret("a", "u", 80, "a"), Some(now));
    index.put_secret(NS, secret("gone", "g", 81, "a"), None);
    index.bury(NS, &secret("gone", "g", 81, "a"));
    index.put_source(NS, "upstream", "s".to_owned(), "85".to_owned());

    index.replace_objects(None, listed([waiting("a", 40, "ONE")]));
    let shown = [secret("a", "u", 50, "a"), secret("gone", "g", 45, "a")];
    let woken = index.replace_secrets(None, listed_secrets(shown));
    assert!(names(woken).contains(&"a".to_owned()));
    index.replace_sources(NS, HashMap::from([("upstream".to_owned(), ("s".to_owned(), "30".to_owned()))]));
    let seen = |index: &Index, name: &str| seen(index, "a", name, now);
    assert_eq!((seen(&index, "a").as_deref(), seen(&index, "gone").as_deref()), (Some("50"), Some("45")));

    // Versions that are low count as new now.
    assert_eq!(names(index.put_object(waiting("a", 60, "TWO"))), ["a"]);
    assert_eq!(names(index.put_secret(NS, secret("a", "u", 61, "a"), None)), ["a"]);
    assert_eq!(names(index.put_secret(NS, secret("gone", "g", 62, "a"), None)), ["a"]);
    assert_eq!((seen(&index, "a").as_deref(), seen(&index, "gone").as_deref()), (Some("61"), Some("62")));
}

#[test]
fn an_event_wakes_only_the_objects_that_it_concerns() {
    let mut index = Index::default();
    for (version, (name, wants)) in [("a", "ONE"), ("b", "ONE"), ("c", "TWO")].into_iter().enumerate() {
        index.put_object(waiting(name, version as u64 + 1, wants));
    }
    // The owner, and those who want the name.
    assert_eq!(names(index.put_secret(NS, record("ONE", 10, "a"), None)), ["a", "b"]);
    assert_eq!(names(index.put_secret(NS, secret("c", "t", 11, "c"), None)), ["c"]);
    assert_eq!(names(index.put_secret(NS, secret("unknown", "x", 12, "no-owner"), None)), [""; 0]);
    // A name that becomes free wakes who waits for it: when its record goes, ...
    assert_eq!(names(index.remove_secret(NS, &record("ONE", 13, "a"))), ["a", "b"]);
    // ... when the one that it was kept for wants another, ...
    index.put_object(object("a", 20, "ONE", &served("ONE")));
    assert_eq!(names(index.put_object(object("a", 21, "THREE", &served("ONE")))), ["a", "b"]);
    // ... or goes.
    index.put_object(object("a", 22, "ONE", &served("ONE")));
    assert_eq!(names(index.remove_object(NS, "a", Some("uid-a"))), ["a", "b"]);
}

#[test]
fn a_free_name_is_kept_for_who_lost_it_then_for_who_moves_there() {
    let mut index = Index::default();
    let reserved = |index: &Index, of: &str| index.snapshot(&key(of), Instant::now()).unwrap().peers.reserved_for;
    index.put_object(waiting("new", 1, "ONE"));
    index.put_object(waiting("newer", 2, "ONE"));
    assert_eq!(reserved(&index, "new"), None, "first come, first served");
    index.put_object(object("mover", 3, "ONE", &served("TWO")));
    assert_eq!(reserved(&index, "new").as_deref(), Some("mover"));
    assert_eq!(reserved(&index, "mover"), None);
    index.put_object(object("loser", 4, "ONE", &served("ONE")));
    assert_eq!(reserved(&index, "mover").as_deref(), Some("loser"));
    assert_eq!(reserved(&index, "loser"), None);
    // It wants another name now, and keeps none.
    index.put_object(object("loser", 5, "FIVE", &served("ONE")));
    assert_eq!(reserved(&index, "mover"), None);
    // For whom nothing is written, nothing is kept.
    let mut suspended = object("mover", 6, "ONE", &served("TWO"));
    suspended.spec.suspend = Some(true);
    index.put_object(suspended);
    assert_eq!(reserved(&index, "new"), None);
}

#[test]
fn a_cycle_of_renames_is_seen_and_a_chain_is_none() {
    let cycle = |index: &Index, of: &str| index.snapshot(&key(of), Instant::now()).unwrap().peers.cycle;
    let mut index = Index::default();
    for (version, (name, held, wants)) in
        [("a", "ONE", "TWO"), ("b", "TWO", "THREE"), ("c", "THREE", "THREE"), ("d", "FOUR", "ONE")]
            .into_iter()
            .enumerate()
    {
        index.put_object(object(name, version as u64 + 1, wants, &served(held)));
        index.put_secret(NS, secret(&record_name(held), name, version as u64 + 10, name), None);
    }
    for name in ["a", "b", "c", "d"] {
        assert!(!cycle(&index, name), "{name} is in a chain that ends");
    }
    index.put_object(object("c", 20, "ONE", &served("THREE")));
    for name in ["a", "b", "c"] {
        assert!(cycle(&index, name), "{name} waits for itself");
    }
    assert!(!cycle(&index, "d"), "it waits for a cycle, and is not in it");
}

/// Thousands that want one name: what concerns the holder alone costs nothing for them, and one of them is woken when it
/// is free.
#[test]
fn of_many_that_wait_for_a_name_one_at_a_time_is_woken() {
    const WAITERS: usize = 2000;
    let mut index = Index::default();
    index.put_object(object("holder", 1, "ONE", &served("ONE")));
    index.put_secret(NS, record("ONE", 2, "holder"), None);
    for n in 0..WAITERS {
        // All want the target of the first, too.
        let mut own = waiting(&format!("w{n:04}"), 10 + n as u64, "ONE");
        own.spec.target =
            Some(managed_secrets_api::types::Target { name: Some("holder".to_owned()), ..Default::default() });
        assert_eq!(index.put_object(own).len(), 1);
    }
    index.put_secret(NS, secret("holder", "t", 3, "holder"), None);
    for version in 10_000..10_010 {
        assert_eq!(names(index.put_secret(NS, record("ONE", version, "holder"), None)), ["holder"]);
        assert_eq!(names(index.put_secret(NS, secret("holder", "t", version, "holder"), None)), ["holder"]);
        let edited = object("holder", version, "ONE", &served("ONE"));
        assert_eq!(names(index.put_object(edited)), ["holder"]);
    }
    assert!(index.snapshot(&key("w0000"), Instant::now()).unwrap().peers.living.len() <= 1);

    // The holder goes. The turn goes through the line, one at a time, until one takes the name.
    let mut woken = index.remove_object(NS, "holder", None);
    woken.extend(index.remove_secret(NS, &record("ONE", 20_000, "holder")));
    let woken: BTreeSet<String> = names(woken).into_iter().collect();
    // The first has the turn for the name, the second for the target.
    assert_eq!(woken, BTreeSet::from(["holder", "w0000", "w0001"].map(str::to_owned)));
    assert_eq!(names(index.pass_on(&key("w0005"))), [""; 0], "it has no turn");
    assert_eq!(names(index.pass_on(&key("w0000"))), ["w0001"]);
    // The one that has the turn goes, or is suspended meanwhile.
    assert_eq!(names(index.remove_object(NS, "w0001", None)), ["w0001", "w0002"]);
    let mut suspended = waiting("w0002", 30_000, "ONE");
    suspended.spec.suspend = Some(true);
    index.put_object(suspended);
    assert_eq!(names(index.pass_on(&key("w0002"))), ["w0003"]);
    // It takes the name: those that wait are told, one after the other.
    let now = Instant::now();
    assert_eq!(names(index.put_secret(NS, record("ONE", 30_001, "w0003"), Some(now))), ["w0000"]);
    let mut told = BTreeSet::from(["w0000".to_owned()]);
    let mut last = "w0000".to_owned();
    while let [next] = &names(index.pass_on(&key(&last)))[..] {
        assert!(told.insert(next.clone()), "{next} is told twice");
        last.clone_from(next);
    }
    assert_eq!(told.len(), WAITERS - 2);
}

/// An answer may be older than what the watch has shown since the call was sent.
#[test]
fn an_answer_does_not_outlive_a_later_event() {
    let now = Instant::now();
    let later = now + UNCONFIRMED_FOR;
    for read in [true, false] {
        let mut index = Index::default();
        index.put_object(waiting("a", 1, "ONE"));
        index.put_secret(NS, secret("a", "u1", 20, "a"), None);
        let answer = |index: &mut Index, uid: &str, version: u64, meanwhile: &dyn Fn(&mut Index)| {
            let sent = index.send(NS, "a");
            meanwhile(index);
            let view = secret("a", uid, version, "a");
            if read {
                index.learn(NS, "a", Some(view), &sent);
            } else {
                index.put_written(NS, view, &sent, now);
            }
            index.answered(sent);
        };
        // The watch shows its end before the answer is here.
        answer(&mut index, "u1", 20, &|index| drop(index.remove_secret(NS, &secret("a", "u1", 22, "a"))));
        assert_eq!(seen(&index, "a", "a", now), None, "read: {read}");
        answer(&mut index, "u1", 23, &|index| {
            index.put_secret(NS, secret("a", "u1", 23, "a"), None);
            index.remove_secret(NS, &secret("a", "u1", 24, "a"));
        });
        assert_eq!(seen(&index, "a", "a", now), None, "read: {read}");
        // A list shows it no more; or shows, after a restore, an older state.
        answer(&mut index, "u1", 23, &|index| drop(index.replace_secrets(None, Vec::new())));
        assert_eq!(seen(&index, "a", "a", now), None, "read: {read}");
        let restored = || listed_secrets([secret("a", "u1", 7, "a")]);
        answer(&mut index, "u1", 23, &|index| drop(index.replace_secrets(Some(NS), restored())));
        assert_eq!(seen(&index, "a", "a", later).as_deref(), Some("7"), "read: {read}");
        // Made again since that end: that is news, whether the watch has shown it or not.
        answer(&mut index, "u2", 30, &|index| drop(index.remove_secret(NS, &secret("a", "u1", 25, "a"))));
        assert_eq!(seen(&index, "a", "a", now).as_deref(), Some("30"), "read: {read}");
        // An older Secret's end that comes late ends nothing.
        index.remove_secret(NS, &secret("a", "u1", 25, "a"));
        // Nor does an older state of this one.
        index.remove_secret(NS, &secret("a", "u2", 29, "a"));
        assert_eq!(seen(&index, "a", "a", now).as_deref(), Some("30"), "read: {read}");
    }
}

#[test]
fn the_answer_to_a_status_does_not_bring_a_deleted_object_back() {
    let mut index = Index::default();
    index.put_object(waiting("a", 1, "ONE"));
    let sent = index.send(NS, "a");
    index.remove_object(NS, "a", Some("uid-a"));
    assert_eq!(names(index.put_described(object("a", 2, "ONE", &served("ONE")), &sent)), [""; 0]);
    index.answered(sent);
    assert_eq!(index.keys().count(), 0);
    let sent = index.send(NS, "a");
    assert_eq!(names(index.put_described(waiting("a", 3, "ONE"), &sent)), ["a"]);
    index.answered(sent);
}

/// What only the cache shows goes with the first live read that finds nothing, and those that waited for it are woken.
#[test]
fn a_live_read_that_finds_nothing_takes_out_what_the_cache_showed() {
    let mut index = Index::default();
    let now = Instant::now();
    index.put_object(waiting("a", 1, "ONE"));
    index.put_object(waiting("b", 2, "ONE"));
    index.put_secret(NS, record("ONE", 20, "gone"), None);
    let of = record_name("ONE");
    // What came after the read had begun stays.
    let sent = index.send(NS, &of);
    index.put_secret(NS, record("ONE", 21, "gone"), None);
    assert_eq!(names(index.learn(NS, &of, None, &sent)), [""; 0]);
    index.answered(sent);
    assert_eq!(seen(&index, "a", &of, now).as_deref(), Some("21"));
    let sent = index.send(NS, &of);
    assert_eq!(names(index.learn(NS, &of, None, &sent)), ["a"]);
    index.answered(sent);
    assert_eq!(seen(&index, "a", &of, now), None);
}
