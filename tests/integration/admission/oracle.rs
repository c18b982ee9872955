//! Nobody learns from the webhook whether a guess is the stored value, unless he may read it.
//!
//! [`Guesser`] is a user who may write ManagedSecrets, and reads what these tests give him. Each of his requests is made
//! with a right guess and with a wrong one; all that he sees of the answers must be the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    process::Output,
    time::{Duration, Instant},
};

use http::Request;
use k8s_openapi::api::{
    events::v1::Event,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    client::Body,
};
use managed_secrets_api::{
    ManagedSecret,
    keys::{GROUP, LAST_APPLIED, PLURAL, VERSION},
    value,
};
use serde_json::{Value, json};
use testkit::poll;

use super::Premises;
use crate::integration::{
    objects::{status, version},
    operator::PATIENCE,
};

/// The stored value.
const RIGHT: &str = "pin-code-4711";
/// Another of its length.
const WRONG: &str = "pin-code-4712";
/// A delivered value.
const PIN: &str = "pin";
/// A value that is not delivered.
const HIDDEN: &str = "hidden";

/// To get a Secret, or a value: group, resource and name.
type Reads<'a> = (&'a str, &'a str, &'a str);

/// Who may read both.
const READER: [Reads<'_>; 2] = [("", "secrets", PIN), (value::GROUP, value::PLURAL, "HIDDEN")];
/// The same by the permission that was asked for before there was a value API.
const FORMER_READER: [Reads<'_>; 2] = [("", "secrets", PIN), (GROUP, "managedsecrets/value", HIDDEN)];
/// Who may read what happens to have the names, and not the values.
const CONFUSED: [Reads<'_>; 5] = [
    ("", "secrets", HIDDEN),
    (value::GROUP, value::PLURAL, "PIN"),
    (value::GROUP, value::PLURAL, HIDDEN),
    (GROUP, "managedsecrets/value", PIN),
    ("", "secrets", "mine"),
];

/// How a value is written.
#[derive(Clone, Copy, Debug)]
enum Way {
    Merge,
    Json,
    ClientSide,
    ServerSide,
    Put,
    /// With a target that the user may read.
    Moved,
}

const WAYS: [Way; 6] = [Way::Merge, Way::Json, Way::ClientSide, Way::ServerSide, Way::Put, Way::Moved];

/// All that a user sees of an answer, except sealed text and dates.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    code: u16,
    headers: Vec<(String, String)>,
    body: Value,
}

/// An answer: what is compared, and the sealed text in it.
struct Answer {
    seen: Seen,
    length: usize,
    value: String,
}

struct Guesser<'p> {
    premises: &'p Premises,
    user: String,
    client: Client,
}

impl<'p> Guesser<'p> {
    /// A new user who may write ManagedSecrets in the namespace, and get these.
    async fn new(premises: &'p Premises, reads: &[Reads<'_>]) -> Self {
        let user = format!("guesser-{}", uuid::Uuid::new_v4().simple());
        let mut rules = vec![json!({
            "apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["get", "list", "create", "update", "patch"],
        })];
        rules.extend(reads.iter().map(|(group, resource, name)| {
            json!({"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": ["get"]})
        }));
        let role: Role = serde_json::from_value(json!({"metadata": {"name": user}, "rules": rules})).unwrap();
        let group = "rbac.authorization.k8s.io";
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }))
        .unwrap();
        let (admin, namespace) = (premises.site.client.clone(), &premises.site.namespace);
        Api::namespaced(admin.clone(), namespace).create(&PostParams::default(), &role).await.unwrap();
        Api::namespaced(admin, namespace).create(&PostParams::default(), &binding).await.unwrap();
        let client = premises.access().await.client_as(&user, &[]).await.unwrap();
        let objects = Api::<ManagedSecret>::namespaced(client.clone(), namespace);
        poll("the rights to be in force", PATIENCE, || async {
            Ok(objects.list(&ListParams::default()).await.is_ok().then_some(()))
        })
        .await
        .unwrap();
        Self { premises, user, client }
    }

    /// Takes away what shows that he may read; he may still write.
    async fn blind(&self) {
        let site = &self.premises.site;
        let roles = Api::<Role>::namespaced(site.client.clone(), &site.namespace);
        let mut role = roles.get(&self.user).await.unwrap();
        role.rules.as_mut().unwrap().truncate(1);
        roles.replace(&self.user, &PostParams::default(), &role).await.unwrap();
    }

    /// Writes a value to `stored`; a dry run unless `really`.
    async fn write(&self, way: Way, stored: &ManagedSecret, guess: &str, really: bool) -> Answer {
        let name = stored.metadata.name.as_deref().unwrap();
        let mut object = serde_json::to_value(stored).unwrap();
        let manifest = |spec: Value| self.premises.manifest(name, &spec);
        let mut spec = object["spec"].clone();
        spec["value"] = json!(guess);
        let (method, type_, body) = match way {
            Way::Merge => ("PATCH", "merge-patch+json", json!({"spec": {"value": guess}})),
            Way::Moved => {
                let spec = json!({"value": guess, "target": {"name": "mine"}, "delivery": null});
                ("PATCH", "merge-patch+json", json!({"spec": spec}))
            }
            Way::Json => {
                ("PATCH", "json-patch+json", json!([{"op": "replace", "path": "/spec/value", "value": guess}]))
            }
            Way::ClientSide => {
                let annotations = json!({LAST_APPLIED: manifest(spec)});
                let body = json!({"metadata": {"annotations": annotations}, "spec": {"value": guess}});
                ("PATCH", "merge-patch+json", body)
            }
            Way::ServerSide => ("PATCH", "apply-patch+yaml", serde_json::from_str(&manifest(spec)).unwrap()),
            Way::Put => {
                object["spec"] = spec;
                ("PUT", "json", object)
            }
        };
        let site = &self.premises.site;
        let dry = if really { "" } else { "&dryRun=All" };
        let force = if matches!(way, Way::ServerSide) { "&force=true" } else { "" };
        let uri = format!(
            "/apis/{GROUP}/{VERSION}/namespaces/{}/{PLURAL}/{name}?fieldManager=guesser{dry}{force}",
            site.namespace
        );
        let request = Request::builder().method(method).uri(uri).header("content-type", format!("application/{type_}"));
        let request = request.body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in response.headers() {
            // These are of the request or of the moment.
            let varies = ["date", "audit-id"].contains(&name.as_str());
            let value = if varies { "" } else { value.to_str().unwrap() };
            headers.push((name.to_string(), value.to_owned()));
        }
        headers.sort();
        let body = response.into_body().collect_bytes().await.unwrap();
        let length = body.len();
        let mut json: Value = serde_json::from_slice(&body).unwrap();
        assert!(!String::from_utf8_lossy(&body).contains(guess), "{way:?}: a guess is not repeated");
        let value = json.pointer("/spec/value").and_then(Value::as_str).unwrap_or_default().to_owned();
        for entry in json.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            entry["time"] = json!("");
        }
        let body = if value.is_empty() {
            json
        } else {
            serde_json::from_str(&json.to_string().replace(&value, &"x".repeat(value.len()))).unwrap()
        };
        Answer { seen: Seen { code, headers, body }, length, value }
    }

    /// kubectl, as this user.
    async fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        self.premises.kubectl(&[&["--as", &self.user], arguments].concat(), input).await
    }
}

/// Both objects, served, as the administrator's plaintext made them.
async fn stored(premises: &Premises) -> [ManagedSecret; 2] {
    premises.site.apply(PIN, json!({"name": "PIN", "value": RIGHT})).await;
    premises.site.apply(HIDDEN, json!({"name": "HIDDEN", "value": RIGHT, "delivery": "None"})).await;
    // Only the status reports a first delivery, so every event that comes later is about a guess.
    [premises.site.in_step(PIN).await, premises.site.in_step(HIDDEN).await]
}

fn sealed(object: &ManagedSecret) -> String {
    object.spec.value.clone().unwrap().0
}

/// How often something was said about an object.
async fn events(premises: &Premises, name: &str) -> i32 {
    let api = Api::<Event>::namespaced(premises.site.client.clone(), &premises.site.namespace);
    let list = api.list(&ListParams::default()).await.unwrap();
    let about = |event: &&Event| event.regarding.as_ref().is_some_and(|it| it.name.as_deref() == Some(name));
    list.items.iter().filter(about).map(|event| event.series.as_ref().map_or(1, |series| series.count)).sum()
}

/// The changed lines of a diff, without sealed text and dates.
fn changes(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let changed = |line: &&str| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---");
    let blank = |word: &str| match word {
        _ if word.contains("mss1.") => "SEALED".to_owned(),
        _ if word.starts_with("\"20") => "DATE".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(blank).collect::<Vec<_>>().join(" ");
    text.lines().filter(changed).map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_every_guess_is_answered_alike_and_nothing_moves() {
    let premises = Premises::new("oracle").await;
    let operator = premises.start(premises.setup()).await;
    let objects = stored(&premises).await;
    let said = [events(&premises, PIN).await, events(&premises, HIDDEN).await];
    for reads in [&[][..], &CONFUSED] {
        let guesser = Guesser::new(&premises, reads).await;
        for object in &objects {
            for way in WAYS {
                let right = guesser.write(way, object, RIGHT, false).await;
                let wrong = guesser.write(way, object, WRONG, false).await;
                assert_eq!(right.seen, wrong.seen, "{way:?}");
                assert_eq!(right.length, wrong.length, "{way:?}");
                if matches!(way, Way::Moved) {
                    assert_eq!(right.seen.code, 422, "{:?}", right.seen);
                    continue;
                }
                assert_eq!(right.seen.code, 200, "{way:?}: {:?}", right.seen);
                let warned =
                    right.seen.headers.iter().any(|(name, text)| name == "warning" && text.contains("re-encrypted"));
                assert!(warned, "{way:?}: {:?}", right.seen.headers);
                assert!(right.value != sealed(object) && wrong.value != sealed(object), "{way:?}");
                let generation = right.seen.body["metadata"]["generation"].as_i64();
                assert_eq!(generation, object.metadata.generation.map(|it| it + 1), "{way:?}: as any new value");
            }
            let name = object.metadata.name.as_deref().unwrap();
            for way in [&["diff", "-f", "-"][..], &["diff", "--server-side", "--force-conflicts", "-f", "-"]] {
                let diff = async |guess: &str| {
                    let mut spec = serde_json::to_value(&object.spec).unwrap();
                    spec["value"] = json!(guess);
                    guesser.kubectl(way, &premises.manifest(name, &spec)).await
                };
                let (right, wrong) = (diff(RIGHT).await, diff(WRONG).await);
                assert_eq!((right.status.code(), wrong.status.code()), (Some(1), Some(1)), "{right:?}");
                assert_eq!(changes(&right), changes(&wrong));
                assert!(changes(&right).iter().any(|line| line.contains("SEALED")), "{right:?}");
                assert_eq!(right.stderr, wrong.stderr);
            }
        }
    }
    for (object, said) in objects.iter().zip(said) {
        let name = object.metadata.name.as_deref().unwrap();
        let now = premises.site.get(name).await;
        assert_eq!(
            serde_json::to_value(&now).unwrap(),
            serde_json::to_value(object).unwrap(),
            "nothing is left behind"
        );
        assert_eq!(events(&premises, name).await, said);
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_right_unchanged_text_is_kept_and_the_right_ends_within_half_a_minute() {
    let premises = Premises::new("reader").await;
    let operator = premises.start(premises.setup()).await;
    let objects = stored(&premises).await;
    let reader = Guesser::new(&premises, &READER).await;
    for object in &objects {
        for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Moved)) {
            let right = reader.write(way, object, RIGHT, false).await;
            assert_eq!(right.value, sealed(object), "{way:?}: {:?}", right.seen);
            assert_eq!(right.seen.body["metadata"]["generation"].as_i64(), object.metadata.generation, "{way:?}");
            assert!(!right.seen.headers.iter().any(|(name, _)| name == "warning"), "{way:?}");
        }
        let wrong = reader.write(Way::Merge, object, WRONG, false).await;
        assert_ne!(wrong.value, sealed(object));
        // The first real write of a manager's notes who manages the value; from the second on nothing moves.
        let name = object.metadata.name.as_deref().unwrap();
        reader.write(Way::Merge, object, RIGHT, true).await;
        let first = premises.site.get(name).await;
        assert_eq!((sealed(&first), first.metadata.generation), (sealed(object), object.metadata.generation));
        reader.write(Way::Merge, object, RIGHT, true).await;
        assert_eq!(version(&premises.site.get(name).await), version(&first));
    }

    let [pin, hidden] = &objects;
    let id = status(hidden).id.unwrap();
    for reads in [&FORMER_READER[..], &[(value::GROUP, value::PLURAL, &id)]] {
        let reader = Guesser::new(&premises, reads).await;
        let right = reader.write(Way::Merge, hidden, RIGHT, false).await;
        assert_eq!(right.value, sealed(hidden), "{reads:?}: {:?}", right.seen);
    }

    reader.blind().await;
    let began = Instant::now();
    poll("the right to end", PATIENCE, || async {
        // Asked often: that must not lengthen what is remembered.
        let right = reader.write(Way::Merge, pin, RIGHT, false).await;
        Ok((right.seen.code == 200 && right.value != sealed(pin)).then_some(()))
    })
    .await
    .unwrap();
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_that_is_really_written_shows_in_the_version_and_a_wrong_one_in_an_event() {
    let premises = Premises::new("written").await;
    let operator = premises.start(premises.setup()).await;
    let [pin, _] = stored(&premises).await;
    let guesser = Guesser::new(&premises, &[]).await;
    let said = events(&premises, PIN).await;
    let mut before = pin.clone();
    for _ in 0..2 {
        let answer = guesser.write(Way::Merge, &before, RIGHT, true).await;
        assert_eq!(answer.seen.code, 200, "{:?}", answer.seen);
        let after = premises.site.in_step(PIN).await;
        assert_eq!(after.metadata.generation, before.metadata.generation.map(|it| it + 1));
        assert_eq!(status(&after).version, status(&pin).version, "the value is the same");
        assert_eq!(status(&after).value_updated_time, status(&pin).value_updated_time);
        before = after;
    }
    assert_eq!(events(&premises, PIN).await, said);
    for (round, guess) in (1_i32..).zip([WRONG, "pin-code-4713"]) {
        guesser.write(Way::Merge, &before, guess, true).await;
        let after = premises.site.in_step(PIN).await;
        assert_eq!(status(&after).version, status(&before).version.map(|it| it + 1), "each is a new version");
        poll("the event", PATIENCE, || async { Ok((events(&premises, PIN).await >= said + round).then_some(())) })
            .await
            .unwrap();
        before = after;
    }
    operator.stop().await;
}

/// How often a right guess took longer than a wrong one. They are made by turns, so what slows a machine hits both.
#[derive(Default)]
struct Pairs {
    slower: u64,
    all: u64,
}

impl Pairs {
    /// Whether the times tell one from the other: a fair coin's falls do so by 5 sigma in one of a million cases.
    fn tell(&self, sigma: u64) -> bool {
        self.all.abs_diff(2 * self.slower).pow(2) > sigma.pow(2) * self.all
    }
}

/// What a reader's guesses must show, and far more than [`STRANGER_SIGMA`]: so what shows there, shows here.
const READER_SIGMA: u64 = 8;
/// What a stranger's must not.
const STRANGER_SIGMA: u64 = 5;

/// What takes longer is a coin's fall, in as many tries as show a difference for a reader, whose right guess is not
/// sealed again. On a machine so busy that none of its tries shows that, what a stranger sees has to be a coin's fall all
/// the same, but proves less. What is computed is counted, and timed without a network, in the webhook's own tests.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_answers_take_as_long_for_a_right_guess_as_for_a_wrong_one() {
    const MOST: u64 = 3000;
    let premises = Premises::new("times").await;
    let operator = premises.start(premises.setup()).await;
    let [pin, _] = stored(&premises).await;
    let users = [Guesser::new(&premises, &READER).await, Guesser::new(&premises, &[]).await];
    let time = async |user: &Guesser<'_>, guess: &str| {
        let began = Instant::now();
        assert_eq!(user.write(Way::Merge, &pin, guess, false).await.seen.code, 200);
        began.elapsed()
    };
    let mut pairs = [Pairs::default(), Pairs::default()];
    while pairs[0].all < 200 || (!pairs[0].tell(READER_SIGMA) && pairs[0].all < MOST) {
        for (pairs, user) in pairs.iter_mut().zip(&users) {
            let (right, wrong) = if pairs.all % 2 == 0 {
                let right = time(user, RIGHT).await;
                (right, time(user, WRONG).await)
            } else {
                let wrong = time(user, WRONG).await;
                (time(user, RIGHT).await, wrong)
            };
            pairs.slower += u64::from(right > wrong);
            pairs.all += 1;
        }
    }
    let [reader, stranger] = pairs;
    if !reader.tell(READER_SIGMA) {
        eprintln!("a busy machine: a reader's right guess was slower {} times of {}", reader.slower, reader.all);
    }
    assert!(!stranger.tell(STRANGER_SIGMA), "the right guess was slower {} times of {}", stranger.slower, stranger.all);
    operator.stop().await;
}
