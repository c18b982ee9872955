//! Names: unique in a namespace under a race, handed over, waited for, kept for their owner.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use managed_secrets_api::{ManagedSecret, keys, names::record_name};
use serde_json::{Value, json};
use testkit::poll;

use super::{
    objects::{Site, conditions, id, message, ready, status},
    operator::{PATIENCE, Setup},
};

fn generated(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

fn is(object: &ManagedSecret, status: &str, reason: &str) -> bool {
    ready(object) == (status.to_owned(), reason.to_owned())
}

impl Site {
    /// Waits until all objects fit; shows those that don't.
    async fn all(&self, what: &str, fits: impl Fn(&[ManagedSecret]) -> bool) -> Vec<ManagedSecret> {
        let objects = self.objects();
        let list = || async { objects.list(&ListParams::default()).await.unwrap().items };
        let waited = poll(what, PATIENCE, || async { Ok(Some(list().await).filter(|list| fits(list))) }).await;
        match waited {
            Ok(list) => list,
            Err(error) => {
                let now: Vec<_> =
                    list().await.iter().map(|o| (o.name_any(), o.spec.name.clone(), ready(o), message(o))).collect();
                panic!("{error}; now: {now:#?}")
            }
        }
    }

    /// Waits until every object is served under its own name.
    async fn all_served(&self) -> Vec<ManagedSecret> {
        let own_name = |object: &ManagedSecret| status(object).name.as_ref() == Some(&object.spec.name);
        self.all("all to be served", |list| list.iter().all(|o| is(o, "True", "Served") && own_name(o))).await
    }

    /// Waits until exactly one of `count` objects is served, and each other names it as the holder of the name.
    async fn one_holds(&self, count: usize) -> String {
        let holder = |list: &[ManagedSecret]| {
            let served: Vec<_> = list.iter().filter(|o| is(o, "True", "Served")).collect();
            if served.len() == 1 { Some(served[0].name_any()) } else { None }
        };
        let list = self
            .all("one to hold the name, and the others to say so", |list| {
                holder(list).is_some_and(|holder| {
                    let loses = |object: &&ManagedSecret| {
                        is(object, "False", "NameInUse")
                            && message(object).ends_with(&format!("is held by ManagedSecret {holder}"))
                    };
                    list.len() == count && list.iter().filter(loses).count() == count - 1
                })
            })
            .await;
        let holder = holder(&list).unwrap();
        // Nothing of a loser's is left.
        let ids: Vec<_> = list.iter().filter_map(|object| status(object).id).collect();
        assert_eq!(ids.len(), 1, "a loser was given an id");
        let selector = format!("{}={}", keys::LABEL_ID, ids[0]);
        let ours = self.secrets().list(&ListParams::default().labels(&selector)).await.unwrap();
        assert_eq!(ours.items.len(), 2);
        holder
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_that_want_a_name_one_is_served_by_two_operators() {
    let site = Site::new("fifty").await;
    let operators = [Setup::of(&site.namespace).start().await, Setup::of(&site.namespace).start().await];
    join_all((0..50).map(|n| {
        let site = site.clone();
        async move { site.apply(&format!("racer-{n}"), generated("WANTED")).await }
    }))
    .await;
    let first = site.one_holds(50).await;
    let loser = (0..50).map(|n| format!("racer-{n}")).find(|name| *name != first).unwrap();
    let object = site.get(&loser).await;
    assert_eq!((conditions(&object), status(&object).record), (vec!["Ready".into(), "Reconciling".into()], None));

    site.delete(&first).await;
    let second = site.one_holds(49).await;
    assert_ne!(first, second);
    site.gone(&first).await;
    assert_eq!(site.labelled().await.len(), 2, "one record, one target");
    for operator in operators {
        operator.stop().await;
    }
}

/// `count` objects `o0`, `o1`, … with the names `N0`, `N1`, …, served.
async fn row(site: &Site, count: usize) -> BTreeMap<String, (String, String)> {
    join_all((0..count).map(|n| {
        let site = site.clone();
        async move { site.apply(&format!("o{n}"), generated(&format!("N{n}"))).await }
    }))
    .await;
    let mut before = BTreeMap::new();
    for object in site.all_served().await {
        let name = object.name_any();
        let value = site.value(&name, "value").await.unwrap();
        before.insert(name, (id(&object), value));
    }
    before
}

/// Every object still is the secret that it was: id, value, first version.
async fn unharmed(site: &Site, before: &BTreeMap<String, (String, String)>) {
    for (name, (was, value)) in before {
        let object = site.get(name).await;
        assert_eq!((&id(&object), status(&object).version), (was, Some(1)), "{name}");
        assert_eq!(site.value(name, "value").await.as_ref(), Some(value), "{name}");
    }
    let selector = format!("{}={}", keys::LABEL_ROLE, keys::ROLE_RECORD);
    poll("one record each", PATIENCE, || async {
        let records = site.secrets().list(&ListParams::default().labels(&selector)).await?;
        Ok((records.items.len() == before.len()).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_renames_resolves_in_any_order() {
    let orders: [[usize; 10]; 4] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        [5, 0, 9, 3, 7, 1, 8, 2, 6, 4],
        [4, 9, 1, 6, 2, 8, 0, 7, 3, 5],
    ];
    join_all(orders.map(|order| async move {
        let site = Site::new("chain").await;
        let operator = Setup::of(&site.namespace).start().await;
        let before = row(&site, 10).await;
        for n in order {
            site.apply(&format!("o{n}"), generated(&format!("N{}", n + 1))).await;
        }
        site.all_served().await;
        unharmed(&site, &before).await;
        site.gone(&record_name("N0")).await;
        assert!(site.record("N10").await.is_some());
        operator.stop().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_applied_while_no_operator_ran_resolves() {
    let site = Site::new("chain").await;
    let operator = Setup::of(&site.namespace).start().await;
    let before = row(&site, 10).await;
    operator.stop().await;
    for n in 0..10 {
        site.apply(&format!("o{n}"), generated(&format!("N{}", n + 1))).await;
    }
    let operator = Setup::of(&site.namespace).start().await;
    site.all_served().await;
    unharmed(&site, &before).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_handed_over_in_any_order() {
    // o0 gives up N0, which a new object and an old one take over; in each order.
    let giver = ("o0", generated("FREE"));
    let mover = ("o1", generated("N0"));
    let heir = ("new", generated("N0"));
    for (commit, takes) in [
        ([giver.clone(), mover.clone()], "o1"),
        ([mover, giver.clone()], "o1"),
        ([giver.clone(), heir.clone()], "new"),
        ([heir, giver], "new"),
    ] {
        let site = Site::new("handover").await;
        let operator = Setup::of(&site.namespace).start().await;
        let before = row(&site, 2).await;
        for (name, spec) in commit {
            site.apply(name, spec).await;
        }
        let after = site.all_served().await;
        let taker = after.iter().find(|object| object.spec.name == "N0").unwrap();
        assert_eq!(taker.name_any(), takes);
        for (name, (id_before, _)) in &before {
            assert_eq!(id(&site.get(name).await), *id_before);
        }
        operator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_a_record_leaves_a_name_to_one_that_moves_there() {
    let site = Site::new("yield").await;
    let operator = Setup::of(&site.namespace).start().await;
    row(&site, 2).await;
    // Three that have nothing yet want it, and then one that has a record.
    for name in ["a", "b", "z"] {
        site.apply(name, generated("N0")).await;
        site.reports(name, "False", "NameInUse").await;
    }
    site.apply("o1", generated("N0")).await;
    site.reports("o1", "False", "NameInUse").await;
    site.apply("o0", generated("FREE")).await;
    site.served("o1").await;
    for name in ["a", "b", "z"] {
        site.until(name, "names the new holder", |o| message(o).ends_with("is held by ManagedSecret o1")).await;
    }
    operator.stop().await;
}

const RENAME_FIRST: &str = "rename one of them to a free name first";

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_is_reported_by_each_and_changes_nothing_served() {
    for length in [2, 3] {
        let site = Site::new("cycle").await;
        let operator = Setup::of(&site.namespace).start().await;
        let before = row(&site, length).await;
        for n in 0..length {
            site.apply(&format!("o{n}"), generated(&format!("N{}", (n + 1) % length))).await;
        }
        let in_a_circle =
            |object: &ManagedSecret| is(object, "False", "NameInUse") && message(object).contains(RENAME_FIRST);
        site.all("each to report the cycle", |list| list.iter().all(in_a_circle)).await;
        unharmed(&site, &before).await;
        for n in 0..length {
            assert_eq!(status(&site.get(&format!("o{n}")).await).name, Some(format!("N{n}")));
        }

        // One goes back: the others wait as before, and no longer in a circle.
        let last = format!("o{}", length - 1);
        site.apply(&last, generated(&format!("N{}", length - 1))).await;
        site.served(&last).await;
        site.all("no message about a cycle", |list| !list.iter().any(in_a_circle)).await;

        // Again in a circle, then one moves to a free name: the rest follows.
        site.apply(&last, generated("N0")).await;
        site.all("each to report the cycle", |list| list.iter().all(in_a_circle)).await;
        site.apply("o0", generated("FREE")).await;
        site.all("the others to follow", |list| list.iter().all(|object| is(object, "True", "Served"))).await;
        unharmed(&site, &before).await;
        operator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_waits_holds_up_nothing_but_the_name() {
    let site = Site::new("waits").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("holder", generated("TAKEN")).await;
    site.served("holder").await;
    let spec = |name: &str, description: &str, value: &str, target: &str| json!({"name": name, "description": description, "value": value, "target": {"name": target}});
    site.apply("db", spec("MINE", "one", &site.seal("db", "first").await, "here")).await;
    let first = site.served("db").await;

    site.apply("db", spec("TAKEN", "two", &site.seal("db", "second").await, "there")).await;
    let object = site.reports("db", "False", "NameInUse").await;
    assert!(message(&object).contains("the name TAKEN is held by ManagedSecret holder"), "{}", message(&object));
    assert_eq!(conditions(&object), ["Ready", "Reconciling"]);
    let now = status(&object);
    assert_eq!((now.name.as_deref(), now.version, id(&object)), (Some("MINE"), Some(2), id(&first)));
    assert_eq!(now.target.unwrap().name, "there");
    assert_eq!(site.value("there", "value").await.as_deref(), Some("second"));
    site.gone("here").await;
    let record = site.record("MINE").await.unwrap();
    assert_eq!(record.annotations()[keys::ANNO_DESCRIPTION], "two");
    assert_eq!(site.value("holder", "value").await.map(|value| value.len()), Some(32));

    // The value goes on while the name waits.
    site.apply("db", spec("TAKEN", "two", &site.seal("db", "third").await, "there")).await;
    site.until("db", "version 3", |o| status(o).version == Some(3) && is(o, "False", "NameInUse")).await;
    site.delivers("there", "value", "third").await;

    // And so does the repair of a lost record, under the current name.
    let lost = status(&site.get("db").await).record.unwrap();
    site.secrets().delete(&lost.name, &DeleteParams::default()).await.unwrap();
    let object = site.until("db", "the record again", |o| status(o).record.is_some_and(|r| r.uid != lost.uid)).await;
    assert_eq!((status(&object).version, status(&object).name.as_deref()), (Some(3), Some("MINE")));
    assert!(is(&object, "False", "NameInUse"), "{:?}", ready(&object));

    site.delete("holder").await;
    let object = site.served("db").await;
    assert_eq!((id(&object), status(&object).version), (id(&first), Some(3)));
    assert!(status(&object).updated_date >= now.updated_date);
    site.gone(&lost.name).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_records_name_is_kept_for_its_owner() {
    let site = Site::new("kept").await;
    let mut operator = Some(Setup::of(&site.namespace).start().await);
    // The owner comes last in every order that a name could give.
    site.apply("owner", generated("NAME")).await;
    let first = site.served("owner").await;
    let value = site.value("owner", "value").await.unwrap();
    let waiters: Vec<String> = ["a", "b", "c", "y", "z"].map(str::to_owned).to_vec();
    for name in &waiters {
        site.apply(name, generated("NAME")).await;
        site.reports(name, "False", "NameInUse").await;
    }
    for running in [true, false, true] {
        if !running {
            operator.take().unwrap().stop().await;
        }
        let lost = status(&site.get("owner").await).record.unwrap();
        site.secrets().delete(&lost.name, &DeleteParams::default()).await.unwrap();
        if operator.is_none() {
            operator = Some(Setup::of(&site.namespace).start().await);
        }
        let object =
            site.until("owner", "the record again", |o| status(o).record.is_some_and(|r| r.uid != lost.uid)).await;
        assert_eq!((id(&object), status(&object).version), (id(&first), Some(1)));
        assert_eq!(site.value("owner", "value").await.as_ref(), Some(&value));
        assert_eq!(site.one_holds(6).await, "owner");
    }

    // Also where the owner cannot rebuild it.
    operator.take().unwrap().stop().await;
    for name in site.labelled().await {
        site.secrets().delete(&name, &DeleteParams::default()).await.unwrap();
    }
    let operator = Setup::of(&site.namespace).start().await;
    site.reports("owner", "False", "RecordLost").await;
    for name in &waiters {
        site.until(name, "waits for the owner", |o| message(o) == "the name NAME is reserved for ManagedSecret owner")
            .await;
    }
    assert!(site.labelled().await.is_empty());

    // Until it wants another name, or goes.
    site.delete("owner").await;
    site.one_holds(5).await;
    operator.stop().await;
}
