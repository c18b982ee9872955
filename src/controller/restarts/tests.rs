//! Restarts as a whole, against a model: a workload whose pods have the value of the time at which they were started.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::{
    judge::{Marks, Seen, judge},
    *,
};

const ID: &str = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
const NAMES: [&str; 2] = ["one", "two"];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn own(name: &str, version: i64, second: i64, restart: bool) -> Own {
    let mut target = json!({});
    if restart {
        target["restart"] = json!([{"kind": "Deployment", "name": "shop"}]);
    }
    let object = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
        "spec": {"name": name.to_uppercase(), "generate": {}, "target": target},
        "status": {
            "id": ID, "version": version, "valueUpdatedTime": at(second).to_string(),
            "target": {"name": name, "key": "value", "uid": "u", "resourceVersion": "1"},
        },
    });
    Own::new(serde_json::from_value(object).unwrap())
}

fn key(name: &str) -> Key {
    Key { namespace: "shop".into(), name: name.into() }
}

/// A pass of an object that had delivered `before` and has delivered `after`.
fn note(restarts: &Restarts, before: &Own, after: &Own) {
    restarts.note(&key(&after.name), Mark::delivered(&before.spec, &before.status).as_ref(), after);
}

fn place() -> Place {
    let workload = serde_json::from_value(json!({"kind": "Deployment", "name": "shop"})).unwrap();
    Place { namespace: "shop".into(), workload }
}

#[test]
fn naming_a_workload_restarts_nothing_and_the_next_version_restarts_it_once() {
    let mut seen = Seen { created: at(0), template: BTreeMap::new(), metadata: BTreeMap::new() };
    let restarts = Restarts::default();
    let apply = |restarts: &Restarts, seen: &mut Seen| {
        let marks = judge(seen, &restarts.objects(&place()));
        restarts.looked_at(&place(), Outcome::Marked);
        if let Some(Marks { template, metadata, .. }) = marks.clone() {
            (seen.template, seen.metadata) = (template, metadata);
        }
        marks.map(|marks| marks.restarts.len())
    };
    let (fourth, fifth) = (own("one", 4, 10, true), own("one", 5, 20, true));
    note(&restarts, &own("one", 4, 10, false), &fourth);
    assert_eq!(apply(&restarts, &mut seen), Some(0));
    assert!(seen.template.is_empty());
    assert_eq!(seen.metadata["restarts.managedsecrets.dev/one"], format!("{ID}/4"));
    note(&restarts, &fourth, &fifth);
    assert_eq!(apply(&restarts, &mut seen), Some(1));
    assert_eq!(seen.template["restarts.managedsecrets.dev/one"], format!("{ID}/5"));
    assert!(seen.metadata.is_empty());
    // Once: also after a restart of the operator, or by a cache that is behind.
    for again in [&fourth, &fifth] {
        let restarts = Restarts::default();
        note(&restarts, again, again);
        assert_eq!(apply(&restarts, &mut seen), None);
    }
    // A crash between delivery and mark loses nothing.
    let restarts = Restarts::default();
    let sixth = own("one", 6, 30, true);
    note(&restarts, &sixth, &sixth);
    assert_eq!(apply(&restarts, &mut seen), Some(1));
}

#[test]
fn a_workload_that_is_created_after_the_value_is_not_restarted() {
    for (created, restarted) in [(15, 1), (25, 0)] {
        let seen = Seen { created: at(created), template: BTreeMap::new(), metadata: BTreeMap::new() };
        let restarts = Restarts::default();
        note(&restarts, &own("one", 4, 10, true), &own("one", 5, 20, true));
        assert_eq!(judge(&seen, &restarts.objects(&place())).unwrap().restarts.len(), restarted, "{created}");
    }
}

#[test]
fn changes_within_ten_seconds_are_one_look_and_what_is_not_delivered_none() {
    let restarts = Restarts::default();
    let due = |restarts: &Restarts| restarts.queue.depth().waiting;
    for name in NAMES {
        note(&restarts, &own(name, 1, 0, true), &own(name, 2, 5, true));
    }
    assert_eq!(due(&restarts), 1);
    let mut undelivered = own("one", 3, 9, true);
    undelivered.status.target.as_mut().unwrap().resource_version.clear();
    let restarts = Restarts::default();
    note(&restarts, &own("one", 2, 0, true), &undelivered);
    assert_eq!(due(&restarts), 0, "the target still has the old value");
    note(&restarts, &own("one", 2, 0, true), &own("one", 3, 9, false));
    assert_eq!(due(&restarts), 0);
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The object with this number delivers another version.
    Value(usize),
    /// The operator delivers another version and ends before it looks at the workload.
    ValueAndCrash(usize),
    /// The operator is restarted.
    Restart,
    /// The workload is created again.
    Recreate,
    /// The operator looks at the workload.
    Look,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..2usize).prop_map(Event::Value),
        2 => (0..2usize).prop_map(Event::ValueAndCrash),
        1 => Just(Event::Restart),
        1 => Just(Event::Recreate),
        4 => Just(Event::Look),
    ]
}

/// The model: what pods were started with.
struct Model {
    now: i64,
    versions: [(i64, i64); 2],
    seen: Seen,
    /// Versions with which the pods were started.
    pods: [i64; 2],
    restarts: Restarts,
    /// How often the pods were restarted, and for how many versions that was due.
    restarted: usize,
}

impl Model {
    fn new() -> Self {
        let seen = Seen { created: at(0), template: BTreeMap::new(), metadata: BTreeMap::new() };
        let model =
            Self { now: 0, versions: [(1, 0); 2], seen, pods: [1; 2], restarts: Restarts::default(), restarted: 0 };
        model.start();
        model
    }

    fn own(&self, which: usize) -> Own {
        let (version, second) = self.versions[which];
        own(NAMES[which], version, second, true)
    }

    fn start(&self) {
        (0..2).for_each(|which| note(&self.restarts, &self.own(which), &self.own(which)));
    }

    fn value(&mut self, which: usize) {
        let before = self.own(which);
        self.versions[which] = (self.versions[which].0 + 1, self.now);
        note(&self.restarts, &before, &self.own(which));
    }

    fn look(&mut self) {
        let marks = judge(&self.seen, &self.restarts.objects(&place()));
        self.restarts.looked_at(&place(), Outcome::Marked);
        let Some(marks) = marks else { return };
        if marks.template != self.seen.template {
            assert!(!marks.restarts.is_empty(), "restarted for nothing");
            self.pods = self.versions.map(|(version, _)| version);
            self.restarted += 1;
        }
        (self.seen.template, self.seen.metadata) = (marks.template, marks.metadata);
    }

    fn play(&mut self, event: Event) {
        self.now += 10;
        match event {
            Event::Value(which) => self.value(which),
            Event::ValueAndCrash(which) => {
                self.value(which);
                self.restarts = Restarts::default();
                self.start();
            }
            Event::Restart => {
                self.restarts = Restarts::default();
                self.start();
            }
            Event::Recreate => {
                self.seen = Seen { created: at(self.now), template: BTreeMap::new(), metadata: BTreeMap::new() };
                self.pods = self.versions.map(|(version, _)| version);
                // It is looked at again by the pass of the object, at the latest.
                self.start();
                self.look();
            }
            Event::Look => self.look(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pods_get_each_version_and_are_restarted_once_for_it(events in vec(event(), 0..40)) {
        let mut model = Model::new();
        // The first look comes at once.
        model.look();
        let mut values = 0;
        for event in events {
            model.play(event);
            values += usize::from(matches!(event, Event::Value(_) | Event::ValueAndCrash(_)));
        }
        model.look();
        prop_assert_eq!(model.pods, model.versions.map(|(version, _)| version));
        prop_assert!(model.restarted <= values, "{} restarts for {} values", model.restarted, values);
        let before = model.restarted;
        model.play(Event::Restart);
        model.look();
        prop_assert_eq!(model.restarted, before, "a restart of the operator restarts nothing");
    }
}
