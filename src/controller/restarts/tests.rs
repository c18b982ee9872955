//! Restarts as a whole, against a model: a workload whose pods have the value of the time at which they were started.

use std::collections::BTreeMap;

use jiff::Timestamp;
use managed_secrets_api::types::WorkloadKind;
use managed_secrets_engine::queue::{Next, Workers};
use proptest::{collection::vec, prelude::*};
use serde_json::json;
use tokio::time::{advance, timeout};

use super::{
    condition::{Restarting, follow},
    judge::{Marks, Seen, due, judge, without_restarts},
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

/// The same object, whose target does not hold the value.
fn undelivered(mut own: Own) -> Own {
    own.status.target.as_mut().unwrap().resource_version.clear();
    own
}

/// A workload without marks.
fn unmarked() -> Seen {
    Seen { template: BTreeMap::new(), metadata: BTreeMap::new() }
}

/// Looks at a workload as the operator does once it has waited for more values. Returns for how many objects it was restarted,
/// if there was a write.
fn look(restarts: &Restarts, seen: &mut Seen) -> Option<usize> {
    restarts.looked_at(&place(), Outcome::Marked);
    if is_pending_first(restarts) {
        first_look(restarts, seen);
    }
    write(restarts, seen, |seen, objects| (judge(seen, objects), Vec::new()))
}

/// Whether a look restarts nothing, but says on the workload that a restart is due.
fn is_pending_first(restarts: &Restarts) -> bool {
    restarts.objects(&place()).values().any(|known| known.again)
}

/// A look whose answers are lost: the workload has the marks, and the operator does not know that.
fn lost_look(restarts: &Restarts, seen: &mut Seen) {
    let objects = restarts.objects(&place());
    let marks = if is_pending_first(restarts) { without_restarts(seen, &objects).0 } else { judge(seen, &objects) };
    if let Some(Marks { template, metadata, .. }) = marks {
        (seen.template, seen.metadata) = (template, metadata);
    }
}

/// The same with a cache that is behind: what it shows is not delivered.
fn look_behind(restarts: &Restarts, seen: &mut Seen) -> Option<usize> {
    write(restarts, seen, |seen, objects| {
        let mut objects = objects.clone();
        for name in due(seen, &objects) {
            objects.remove(&name);
        }
        (judge(seen, &objects), Vec::new())
    })
}

/// Looks at a workload as the operator does as soon as a value is delivered. Returns whether there was a write.
fn first_look(restarts: &Restarts, seen: &mut Seen) -> bool {
    let restarted = write(restarts, seen, without_restarts);
    assert!(restarted.is_none_or(|restarted| restarted == 0), "it waits for other values");
    restarted.is_some()
}

fn write(
    restarts: &Restarts,
    seen: &mut Seen,
    marks: impl Fn(&Seen, &BTreeMap<Name, Delivered>) -> (Option<Marks>, Vec<Name>),
) -> Option<usize> {
    let objects = restarts.objects(&place());
    let (marks, due) = marks(seen, &objects);
    restarts.settled(&place(), &objects, &due);
    let Marks { template, metadata, restarts } = marks?;
    (seen.template, seen.metadata) = (template, metadata);
    Some(restarts.len())
}

fn place() -> Place {
    let workload = serde_json::from_value(json!({"kind": "Deployment", "name": "shop"})).unwrap();
    Place { namespace: "shop".into(), workload }
}

#[test]
fn naming_a_workload_restarts_nothing_and_the_next_version_restarts_it_once() {
    let mut seen = unmarked();
    let restarts = Restarts::default();
    let (fourth, fifth) = (own("one", 4, 10, true), own("one", 5, 20, true));
    note(&restarts, &own("one", 4, 10, false), &fourth);
    assert_eq!(look(&restarts, &mut seen), Some(0));
    assert!(seen.template.is_empty());
    assert_eq!(seen.metadata["restarts.managedsecrets.dev/one"], format!("{ID}/4"));
    note(&restarts, &fourth, &fifth);
    assert_eq!(look(&restarts, &mut seen), Some(1));
    assert_eq!(seen.template["restarts.managedsecrets.dev/one"], format!("{ID}/5"));
    assert_eq!(seen.metadata, seen.template);
    // Once: also after a restart of the operator, or by a cache that is behind.
    for again in [&fourth, &fifth] {
        let restarts = Restarts::default();
        note(&restarts, again, again);
        assert_eq!(look_behind(&restarts, &mut seen), None);
    }
    // A crash between delivery and mark loses nothing.
    let restarts = Restarts::default();
    let sixth = own("one", 6, 30, true);
    note(&restarts, &sixth, &sixth);
    assert_eq!(look(&restarts, &mut seen), Some(1));
}

#[test]
fn an_earlier_version_that_is_delivered_again_restarts_a_workload_once() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    let (fourth, mut back) = (own("one", 4, 10, true), own("one", 5, 20, true));
    note(&restarts, &fourth, &back.clone());
    assert_eq!(look(&restarts, &mut seen), Some(1));
    let fifth = back.clone();
    back.status.delivered = Some(4);
    note(&restarts, &fifth, &back);
    assert_eq!(due(&seen, &restarts.objects(&place())).len(), 1, "it is read live");
    assert_eq!(look(&restarts, &mut seen), Some(1));
    assert_eq!(seen.template["restarts.managedsecrets.dev/one"], format!("{ID}/4"));
    // Not again: by another look, after a restart of the operator, or by a newer value that is not delivered.
    let mut sixth = own("one", 6, 30, true);
    sixth.status.delivered = Some(4);
    note(&restarts, &back, &sixth);
    assert_eq!(look(&restarts, &mut seen), None);
    let restarts = Restarts::default();
    note(&restarts, &sixth, &sixth);
    assert_eq!(look(&restarts, &mut seen), None);
    // The newest is delivered again.
    note(&restarts, &sixth, &own("one", 6, 30, true));
    assert_eq!(look(&restarts, &mut seen), Some(1));
    assert_eq!(seen.template["restarts.managedsecrets.dev/one"], format!("{ID}/6"));
}

#[test]
fn a_mark_that_another_program_removes_is_no_second_restart() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    note(&restarts, &own("one", 4, 10, true), &own("one", 5, 20, true));
    assert_eq!(look(&restarts, &mut seen), Some(1));
    (seen.template, seen.metadata) = Default::default();
    // It is looked at for another object.
    note(&restarts, &own("two", 1, 10, true), &own("two", 1, 10, true));
    assert_eq!(look(&restarts, &mut seen), Some(0));
    assert_eq!(seen.metadata["restarts.managedsecrets.dev/one"], format!("{ID}/5"));
    // The next version restarts it.
    note(&restarts, &own("one", 5, 20, true), &own("one", 6, 30, true));
    assert_eq!(look(&restarts, &mut seen), Some(1));
}

#[test]
fn a_pod_template_that_goes_back_is_no_second_restart() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    note(&restarts, &own("one", 4, 10, true), &own("one", 5, 20, true));
    let earlier = seen.template.clone();
    assert_eq!(look(&restarts, &mut seen), Some(1));
    for template in [earlier, BTreeMap::from([("restarts.managedsecrets.dev/one".to_owned(), format!("{ID}/3"))])] {
        // `kubectl rollout undo` starts the pods, and the operator is restarted.
        seen.template = template;
        let restarts = Restarts::default();
        note(&restarts, &own("one", 5, 20, true), &own("one", 5, 20, true));
        assert_eq!(look(&restarts, &mut seen), None);
    }
    note(&restarts, &own("one", 5, 20, true), &own("one", 6, 30, true));
    assert_eq!(look(&restarts, &mut seen), Some(1));
    // Undone, and then the secret goes back as well: to the version that the template names already.
    seen.template = BTreeMap::from([("restarts.managedsecrets.dev/one".to_owned(), format!("{ID}/5"))]);
    let undone = seen.template.clone();
    note(&restarts, &own("one", 6, 30, true), &own("one", 5, 40, true));
    assert_eq!(look(&restarts, &mut seen), Some(1));
    assert_ne!(seen.template, undone, "pods restart only if their template changes");
    assert_eq!(seen.metadata["restarts.managedsecrets.dev/one"], format!("{ID}/5"));
    note(&restarts, &own("one", 5, 40, true), &own("one", 6, 50, true));
    assert_eq!(look(&restarts, &mut seen), Some(1));
    // A workload that an earlier version of the operator marked on the template alone.
    seen.metadata.clear();
    assert_eq!(look(&restarts, &mut seen), None);
}

#[test]
fn a_value_that_waited_for_its_target_restarts_a_workload_without_a_mark() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    let (first, second) = (own("one", 1, 10, true), own("one", 2, 20, true));
    note(&restarts, &first, &first);
    let waits = undelivered(second.clone());
    note(&restarts, &first, &waits);
    note(&restarts, &waits, &second);
    assert_eq!(look(&restarts, &mut seen), Some(1));
    // An object that no longer names the workload is not known any more, also while it is not delivered.
    note(&restarts, &second, &undelivered(own("one", 3, 30, false)));
    assert!(restarts.objects(&place()).is_empty());
}

/// The first use of the field: a commit names the workload and has a new value.
#[test]
fn a_crash_loses_no_restart_of_a_workload_without_a_mark() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    let fifth = own("one", 5, 20, true);
    note(&restarts, &own("one", 4, 10, false), &fifth);
    assert!(first_look(&restarts, &mut seen));
    assert!(seen.template.is_empty());
    assert_eq!(seen.metadata["restarts.managedsecrets.dev/one"], format!("{ID}/4"));
    let restarts = Restarts::default();
    note(&restarts, &fifth, &fifth);
    assert!(!first_look(&restarts, &mut seen));
    assert_eq!(look(&restarts, &mut seen), Some(1));
    assert_eq!(seen.template["restarts.managedsecrets.dev/one"], format!("{ID}/5"));
}

/// Whether pods are older than a value is decided by the first look, and by no clock.
#[test]
fn a_workload_that_did_not_exist_when_the_value_was_delivered_is_not_restarted() {
    for existed in [true, false] {
        let (mut seen, restarts) = (unmarked(), Restarts::default());
        note(&restarts, &own("one", 4, 10, true), &own("one", 5, 20, true));
        if !existed {
            restarts.settled(&place(), &restarts.objects(&place()), &[]);
            restarts.looked_at(&place(), Outcome::Missing);
        }
        assert_eq!(look(&restarts, &mut seen), Some(usize::from(existed)));
    }
}

#[test]
fn a_version_that_is_taken_back_before_its_restart_leaves_no_pods_with_it() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    let (fourth, fifth) = (own("one", 4, 10, true), own("one", 5, 20, true));
    note(&restarts, &fourth, &fourth);
    look(&restarts, &mut seen);
    note(&restarts, &fourth, &fifth);
    assert!(!first_look(&restarts, &mut seen));
    // Now pods may start, with the fifth.
    let mut back = fifth.clone();
    back.status.delivered = Some(4);
    note(&restarts, &fifth, &back);
    // A crash from here on loses nothing, whichever version is delivered then. Nor does a lost answer.
    lost_look(&restarts, &mut seen);
    assert_eq!(seen.metadata["restarts.managedsecrets.dev/one"], format!("{ID}/4/pending"));
    for delivered in [&fourth, &fifth] {
        let (mut seen, restarts) = (seen.clone(), Restarts::default());
        note(&restarts, delivered, delivered);
        assert_eq!(look(&restarts, &mut seen), Some(1));
        assert_eq!(look(&restarts, &mut seen), None);
    }
    first_look(&restarts, &mut seen);
    lost_look(&restarts, &mut seen);
    assert_eq!(seen.template["restarts.managedsecrets.dev/one"], format!("{ID}/4"));
    assert_eq!(look(&restarts, &mut seen), None, "a lost answer is no second restart");
}

#[test]
fn a_version_that_is_taken_back_before_any_look_leaves_no_pods_with_it() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    let fourth = own("one", 4, 10, true);
    note(&restarts, &fourth, &fourth);
    look(&restarts, &mut seen);
    let mut before = fourth.clone();
    for delivered in [5, 4, 6, 4] {
        let mut after = own("one", 6, 20, true);
        after.status.delivered = Some(delivered);
        note(&restarts, &before, &after);
        before = after;
    }
    assert_eq!(look(&restarts, &mut seen), Some(1));
    assert_eq!(look(&restarts, &mut seen), None);
}

/// After a change of the leader in an incident: version 5 was taken back, and the cache still shows it.
#[test]
fn a_cache_that_is_behind_restarts_nothing_for_a_version_that_was_taken_back() {
    let (mut seen, restarts) = (unmarked(), Restarts::default());
    seen.metadata.insert("restarts.managedsecrets.dev/one".to_owned(), format!("{ID}/4"));
    let (behind, mut back) = (own("one", 5, 20, true), own("one", 5, 20, true));
    note(&restarts, &behind, &behind);
    assert_eq!(due(&seen, &restarts.objects(&place())).len(), 1, "it is read live");
    assert_eq!(look_behind(&restarts, &mut seen), None);
    back.status.delivered = Some(4);
    note(&restarts, &behind, &back);
    assert_eq!(look(&restarts, &mut seen), None);
}

const WORKERS: Workers = Workers { all: 1, reserved: 0 };

#[tokio::test(start_paused = true)]
async fn the_first_look_comes_at_once_and_a_restart_waits_ten_seconds() {
    let restarts = Restarts::default();
    let second = Duration::from_secs(1);
    let look_is_due = async |within: Duration| {
        let due = timeout(within, restarts.queue.next(WORKERS)).await.is_ok();
        if due {
            restarts.queue.finish(&place(), Next::Done);
        }
        due
    };
    // After a start: a version came that the workload was not restarted for. Another object has no mark there yet.
    let mut seen = unmarked();
    let [one, two] = NAMES.map(|name| own(name, 5, 20, true));
    seen.template.insert("restarts.managedsecrets.dev/one".to_owned(), format!("{ID}/4"));
    for object in [&one, &two] {
        note(&restarts, object, object);
    }
    assert!(look_is_due(Duration::ZERO).await);
    assert_eq!(restarts.collects_for(&place()), TOGETHER);
    let (marks, due) = without_restarts(&seen, &restarts.objects(&place()));
    let marks = marks.unwrap();
    assert!(due == ["one".into()] && marks.restarts.is_empty());
    assert_eq!(marks.template, seen.template);
    assert_eq!(marks.metadata["restarts.managedsecrets.dev/two"], format!("{ID}/5"));
    // More passes of the same objects ask for no more looks.
    note(&restarts, &one, &one);
    assert_eq!(restarts.queue.depth().waiting, 0);
    advance(TOGETHER).await;
    assert!(restarts.collects_for(&place()).is_zero());
    assert_eq!(look(&restarts, &mut seen), Some(1));
    assert_eq!(without_restarts(&seen, &restarts.objects(&place())), (None, Vec::new()));

    for object in [&one, &two] {
        note(&restarts, object, &own(&object.name, 6, 30, true));
        assert!(look_is_due(Duration::ZERO).await);
        advance(second).await;
    }
    assert_eq!(restarts.collects_for(&place()), 8 * second, "one restart for both");
}

/// Another object may have learned that the workload does not exist.
#[test]
fn nothing_is_said_of_a_restart_for_a_value_that_is_not_delivered() {
    let workload = Workload { kind: WorkloadKind::Deployment, name: "shop".to_owned() };
    let restarting = Restarting { on: true, outcomes: vec![(workload, Some(Outcome::Missing))] };
    let own = own("one", 1, 0, true);
    let said = |own: &Own| follow(own, &own.status, &restarting, at(1)).map(|condition| condition.reason);
    assert_eq!(said(&own).as_deref(), Some("WorkloadNotFound"));
    assert_eq!(said(&undelivered(own)), None);
}

#[test]
fn what_is_not_delivered_asks_for_no_look() {
    let due = |restarts: &Restarts| restarts.queue.depth().waiting;
    let undelivered = undelivered(own("one", 3, 9, true));
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
    /// The operator delivers another version and ends before it restarts the workload.
    ValueAndCrash(usize),
    /// The operator is restarted.
    Restart,
    /// The workload is created again.
    Recreate,
    /// Another program writes a workload that is marked, without our marks.
    Strip,
    /// The same, and then a version is delivered and the operator ends before it restarts the workload.
    StripValueAndCrash(usize),
    /// `kubectl rollout undo`.
    Undo,
    /// An earlier version is delivered again.
    Back(usize, i64),
    /// The operator delivers another version, and its look fails.
    Unseen(usize),
    /// The operator looks at the workload.
    Look,
    /// The same, and the answers to its writes are lost.
    LostLook,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..2usize).prop_map(Event::Value),
        2 => (0..2usize).prop_map(Event::ValueAndCrash),
        1 => Just(Event::Restart),
        1 => Just(Event::Recreate),
        1 => Just(Event::Strip),
        1 => (0..2usize).prop_map(Event::StripValueAndCrash),
        2 => Just(Event::Undo),
        2 => (0..2usize, 0..40i64).prop_map(|(which, version)| Event::Back(which, version)),
        1 => (0..2usize).prop_map(Event::Unseen),
        4 => Just(Event::Look),
        1 => Just(Event::LostLook),
    ]
}

/// The model: what pods were started with.
struct Model {
    now: i64,
    versions: [(i64, i64); 2],
    newest: [i64; 2],
    seen: Seen,
    /// The pod template before the present one.
    earlier: Option<BTreeMap<String, String>>,
    /// Versions with which the pods were started.
    pods: [i64; 2],
    restarts: Restarts,
    /// How often the pods were restarted, and for how many versions that was due.
    restarted: usize,
    /// Whether the operator ended between a delivery and the next look: then it does not know of a version that is taken back.
    ended: bool,
}

impl Model {
    fn new() -> Self {
        let (seen, restarts) = (unmarked(), Restarts::default());
        let (versions, newest, pods) = ([(1, 0); 2], [1; 2], [1; 2]);
        let model = Self { now: 0, versions, newest, seen, earlier: None, pods, restarts, restarted: 0, ended: false };
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
        self.newest[which] += 1;
        self.deliver(which, self.newest[which]);
    }

    fn deliver(&mut self, which: usize, version: i64) {
        self.deliver_unseen(which, version);
        first_look(&self.restarts, &mut self.seen);
    }

    fn deliver_unseen(&mut self, which: usize, version: i64) {
        let before = self.own(which);
        self.versions[which] = (version, self.now);
        note(&self.restarts, &before, &self.own(which));
    }

    fn end(&mut self) {
        // Without it, the operator does not know that the pods of a workload without a mark are older.
        first_look(&self.restarts, &mut self.seen);
        self.restarts = Restarts::default();
        self.start();
        self.ended = true;
    }

    fn look(&mut self) {
        self.ended = false;
        let template = self.seen.template.clone();
        let restarts = look(&self.restarts, &mut self.seen);
        let is_restarted = self.pods_start_if_it_differs_from(template);
        assert_eq!(restarts.is_some_and(|restarts| restarts > 0), is_restarted, "what is said of a restart");
    }

    fn pods_start_if_it_differs_from(&mut self, template: BTreeMap<String, String>) -> bool {
        let is_restarted = template != self.seen.template;
        if is_restarted {
            self.earlier = Some(template);
            self.pods = self.versions.map(|(version, _)| version);
            self.restarted += 1;
        }
        is_restarted
    }

    fn strip(&mut self) {
        self.look();
        (self.seen.template, self.seen.metadata) = Default::default();
    }

    fn play(&mut self, event: Event) {
        self.now += 10;
        match event {
            Event::Value(which) => self.value(which),
            Event::ValueAndCrash(which) => {
                self.value(which);
                self.end();
            }
            Event::Restart => self.end(),
            Event::Recreate => {
                (self.seen, self.earlier) = (unmarked(), None);
                self.pods = self.versions.map(|(version, _)| version);
            }
            Event::Strip => {
                self.strip();
                // The next look comes for another object, or with the next value.
                self.look();
            }
            Event::StripValueAndCrash(which) => {
                self.strip();
                self.play(Event::ValueAndCrash(which));
            }
            Event::Undo => {
                if let Some(earlier) = &mut self.earlier {
                    std::mem::swap(earlier, &mut self.seen.template);
                    // The pods start.
                    self.pods = self.versions.map(|(version, _)| version);
                }
            }
            Event::Back(which, version) => {
                if self.ended {
                    self.look();
                }
                self.deliver(which, version % self.newest[which] + 1);
            }
            Event::Unseen(which) => {
                self.newest[which] += 1;
                self.deliver_unseen(which, self.newest[which]);
            }
            Event::Look => self.look(),
            Event::LostLook => {
                let template = self.seen.template.clone();
                lost_look(&self.restarts, &mut self.seen);
                self.pods_start_if_it_differs_from(template);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pods_get_what_is_delivered_and_are_restarted_once_for_it(events in vec(event(), 0..40)) {
        let mut model = Model::new();
        // The first look comes at once.
        model.look();
        let mut values = 0;
        for event in events {
            model.play(event);
            let is_quiet = matches!(
                event,
                Event::Restart | Event::Recreate | Event::Strip | Event::Undo | Event::Look | Event::LostLook
            );
            values += usize::from(!is_quiet);
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
