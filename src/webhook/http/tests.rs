use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use axum::body::to_bytes;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{future::BoxFuture, stream};
use managed_secrets_api::keys::LAST_APPLIED;
use managed_secrets_crypto::{
    Keyring,
    mss1::work::{self, Work},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::webhook::testing::{Alone, document, keyring, object, opened, readers, review, sealed, strict, webhooks};

const CANARY: &str = "c4n4ry-value";

fn request(path: &str, body: Body) -> HttpRequest {
    let request = http::Request::post(path).header(header::CONTENT_TYPE, "application/json");
    request.extension(Proven::default()).body(body).unwrap()
}

async fn send(router: &Router, request: HttpRequest) -> (StatusCode, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A body that nobody may read.
fn untouchable() -> Body {
    Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, std::io::Error>>> {
        panic!("the body was read")
    }))
}

fn alone() -> Alone {
    Alone::new(keyring(&[document(1)]))
}

async fn reviewed(router: &Router, path: &str, review: &Value) -> Value {
    let (status, body) = send(router, request(path, Body::from(review.to_string()))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["response"].take()
}

fn sealed_text(response: &Value) -> String {
    let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&patch).unwrap()[0]["value"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn who_does_not_know_the_path_gets_404_before_his_body_is_read() {
    let (router, secret) = webhooks(alone(), readers().0, Limits::default());
    let almost = format!("{}{}", &secret[..63], if secret.ends_with('0') { '1' } else { '0' });
    for path in [
        "/".to_owned(),
        format!("/{SEAL}"),
        format!("/{almost}/{SEAL}"),
        format!("/{}/{SEAL}", secret.to_uppercase()),
        format!("//{secret}/{SEAL}"),
        format!("/{}/{SEAL}", &secret[..32]),
        format!("/{secret}{secret}/{SEAL}"),
        "/healthz".to_owned(),
    ] {
        for method in ["POST", "GET", "PUT"] {
            let mut request = request(&path, untouchable());
            *request.method_mut() = method.parse().unwrap();
            let (proven, answer) =
                (request.extensions().get::<Proven>().unwrap().clone(), send(&router, request).await);
            assert_eq!(answer, (StatusCode::NOT_FOUND, String::new()), "{method} {path}");
            assert!(!proven.get());
        }
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused_and_not_echoed() {
    let (router, secret) = webhooks(alone(), readers().0, Limits { body: 4096, ..Limits::default() });
    let path = format!("/{secret}/{SEAL}");
    let mut other = review("ann", &object("db", json!({"value": CANARY})), &Value::Null);
    other["request"]["resource"]["resource"] = json!(CANARY);
    let mut old = review("ann", &object("db", json!({"value": CANARY})), &Value::Null);
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    for (body, expected) in [
        (String::new(), StatusCode::BAD_REQUEST),
        (format!("{{\"{CANARY}\""), StatusCode::BAD_REQUEST),
        (json!({"kind": CANARY}).to_string(), StatusCode::BAD_REQUEST),
        (other.to_string(), StatusCode::BAD_REQUEST),
        (old.to_string(), StatusCode::BAD_REQUEST),
        ("[".repeat(4000), StatusCode::BAD_REQUEST),
        (CANARY.repeat(1000), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let (status, text) = send(&router, request(&path, Body::from(body))).await;
        assert_eq!(status, expected, "{text}");
        assert!(!text.contains(CANARY) && !text.is_empty(), "{text}");
    }
    let mut typed = request(&path, untouchable());
    typed.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    assert_eq!(send(&router, typed).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut put = request(&path, Body::empty());
    *put.method_mut() = http::Method::PUT;
    assert_eq!(send(&router, put).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let elsewhere = request(&format!("/{secret}/open"), Body::empty());
    assert_eq!(send(&router, elsewhere).await.0, StatusCode::NOT_FOUND);
}

#[test]
fn a_request_that_no_webhook_decides_counts_too() {
    for (path, named) in [("/x/seal", Some(SEAL)), ("/x/warn", Some(WARN)), ("/x/seal/", None), ("/x/open", None)] {
        assert_eq!(webhook(path), named, "{path}");
    }
    for (status, verdict) in [(415, Some(UNREAD)), (413, Some(UNREAD)), (408, Some(FAILED)), (500, Some(FAILED))] {
        assert_eq!(undecided(StatusCode::from_u16(status).unwrap()), verdict, "{status}");
    }
    // The webhooks count these themselves; the last one names no webhook.
    for status in [200, 400, 404] {
        assert_eq!(undecided(StatusCode::from_u16(status).unwrap()), None, "{status}");
    }
}

/// The text of the metrics of these counters.
fn counted(stats: &Stats) -> String {
    let (mut registry, mut text) = (prometheus_client::registry::Registry::default(), String::new());
    registry.register("answers", "Answers", stats.durations.family().clone());
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test]
async fn what_is_refused_before_it_is_decoded_is_counted() {
    let (served, secret) = crate::webhook::testing::served();
    let stats = Arc::<Stats>::default();
    let webhooks = Webhooks {
        served,
        access: Access::new(readers().0),
        operator: Arc::new(alone()),
        allow_cluster_scope: false,
        stats: Arc::clone(&stats),
    };
    let router = router(Arc::new(webhooks), Limits { body: 4096, ..Limits::default() });
    let unread = |count: u32| format!("answers_count{{webhook=\"seal\",verdict=\"unread\"}} {count}");
    assert!(counted(&stats).contains(&unread(0)), "{}", counted(&stats));
    let path = format!("/{secret}/{SEAL}");
    send(&router, request(&path, Body::from("x".repeat(5000)))).await;
    let mut typed = request(&path, Body::empty());
    typed.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    send(&router, typed).await;
    // Any client can send this.
    send(&router, request(&format!("/{}/{SEAL}", "0".repeat(64)), Body::from("x".repeat(5000)))).await;
    assert!(counted(&stats).contains(&unread(2)), "{}", counted(&stats));
    send(&router, request(&path, Body::from("{}"))).await;
    let text = counted(&stats);
    assert!(
        text.contains("answers_count{webhook=\"seal\",verdict=\"malformed\"} 1") && text.contains(&unread(2)),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let (router, secret) = webhooks(alone(), readers().0, Limits { requests: 1, ..Limits::default() });
    let path = format!("/{secret}/{SEAL}");
    let stuck = || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let (first, second) = tokio::join!(send(&router, request(&path, stuck())), send(&router, request(&path, stuck())));
    assert_eq!(first.0, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(second.0, StatusCode::REQUEST_TIMEOUT, "also while it waits for its turn");
}

#[tokio::test]
async fn plaintext_is_sealed_and_the_right_is_asked_for_only_where_it_matters() {
    let keys = keyring(&[document(1)]);
    let stored_text = sealed(&keys, &strict("db"), CANARY);
    let (client, asked) = readers();
    let (router, secret) = webhooks(Alone::new(keys), client, Limits::default());
    let path = format!("/{secret}/{SEAL}");
    let plain = object("db", json!({"value": CANARY}));

    let created = reviewed(&router, &path, &review("ann", &plain, &Value::Null)).await;
    assert_eq!(created["allowed"], true);
    assert!(created.get("warnings").is_none());
    assert!(!created.to_string().contains(CANARY));
    let stored = object("db", json!({"value": stored_text}));
    let nothing = reviewed(&router, &path, &review("ann", &stored, &stored)).await;
    assert_eq!(nothing, json!({"uid": "u", "allowed": true}));
    assert_eq!(asked.load(SeqCst), 0, "nothing to compare with");

    let kept = reviewed(&router, &path, &review("reader-1", &plain, &stored)).await;
    assert_eq!(sealed_text(&kept), stored_text);
    assert!(kept.get("warnings").is_none());
    let fresh = reviewed(&router, &path, &review("ann", &plain, &stored)).await;
    assert_ne!(sealed_text(&fresh), stored_text);
    let wrong = object("db", json!({"value": "guess"}));
    let guessed = reviewed(&router, &path, &review("ann", &wrong, &stored)).await;
    assert_eq!(guessed["warnings"], fresh["warnings"], "a right guess and a wrong one look the same");
    assert!(fresh["warnings"][0].as_str().unwrap().contains("you may not read secret \"db\""));
    assert_eq!(asked.load(SeqCst), 2, "once for each user");
}

/// A review by `user` of a write of `guess`, also in kubectl's copy if `copied`, where the value is [`CANARY`].
fn guess(keys: &Keyring, user: &str, guess: &str, copied: bool) -> Value {
    let mut wanted = object("db", json!({"name": "DB", "value": guess}));
    if copied {
        let copy = json!({"spec": {"value": guess}}).to_string();
        wanted["metadata"]["annotations"] = json!({LAST_APPLIED: copy});
    }
    let stored = object("db", json!({"name": "DB", "value": sealed(keys, &strict("db"), CANARY)}));
    review(user, &wanted, &stored)
}

/// As long as [`CANARY`].
const MISS: &str = "c4n4ry-valuf";

/// Stored text is opened for readers alone, so for everybody else the same is done whether or not the guess is right.
#[tokio::test]
async fn without_the_right_a_guess_costs_what_any_other_does() {
    let document = document(1);
    let keys = keyring(std::slice::from_ref(&document));
    let (client, asked) = readers();
    let (router, secret) = webhooks(Alone::new(keyring(&[document])), client, Limits::default());
    let path = format!("/{secret}/{SEAL}");
    for (user, tried, expected) in [
        ("ann", CANARY, Work { sealed: 1, opened: 0 }),
        ("ann", MISS, Work { sealed: 1, opened: 0 }),
        ("reader", CANARY, Work { sealed: 0, opened: 1 }),
        ("reader", MISS, Work { sealed: 1, opened: 1 }),
    ] {
        for copied in [false, true] {
            let review = guess(&keys, user, tried, copied);
            let before = asked.load(SeqCst);
            let _ = work::take();
            reviewed(&router, &path, &review).await;
            assert_eq!(work::take(), expected, "{user}, copied: {copied}");
            assert!(asked.load(SeqCst) - before <= usize::from(tried == CANARY && !copied), "asked once for each user");
        }
    }
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

/// What takes longer is a coin's fall, in as many tries as show a difference for a reader: his right guess is opened as
/// the wrong one is, and not sealed again.
#[tokio::test]
async fn without_the_right_a_guess_takes_as_long_as_any_other() {
    const MOST: u64 = 20_000;
    let document = document(1);
    let keys = keyring(std::slice::from_ref(&document));
    let (router, secret) = webhooks(Alone::new(keyring(&[document])), readers().0, Limits::default());
    let path = format!("/{secret}/{SEAL}");
    let users = ["reader", "ann"].map(|user| [CANARY, MISS].map(|tried| guess(&keys, user, tried, false)));
    let mut pairs = [Pairs::default(), Pairs::default()];
    let time = async |review: &Value| {
        let began = Instant::now();
        reviewed(&router, &path, review).await;
        began.elapsed()
    };
    while pairs[0].all < 200 || (!pairs[0].tell(READER_SIGMA) && pairs[0].all < MOST) {
        for (pairs, [right, wrong]) in pairs.iter_mut().zip(&users) {
            let (right, wrong) = if pairs.all % 2 == 0 {
                let right = time(right).await;
                (right, time(wrong).await)
            } else {
                let wrong = time(wrong).await;
                (time(right).await, wrong)
            };
            pairs.slower += u64::from(right > wrong);
            pairs.all += 1;
        }
    }
    let [reader, stranger] = pairs;
    assert!(reader.tell(READER_SIGMA), "the measure is too coarse: {} of {}", reader.slower, reader.all);
    assert!(!stranger.tell(STRANGER_SIGMA), "the right guess was slower {} times of {}", stranger.slower, stranger.all);
}

#[tokio::test]
async fn a_key_that_another_replica_made_is_looked_for() {
    let both = keyring(&[document(1), document(2)]);
    let stored_text = sealed(&both, &strict("db"), CANARY);
    let operator = alone();
    *operator.found.lock().unwrap() = Some(Arc::new(both));
    let (router, secret) = webhooks(operator, readers().0, Limits::default());
    let stored = object("db", json!({"value": stored_text}));
    let plain = object("db", json!({"value": CANARY}));
    let kept = reviewed(&router, &format!("/{secret}/{SEAL}"), &review("reader", &plain, &stored)).await;
    assert_eq!(sealed_text(&kept), stored_text);
}

#[tokio::test]
async fn without_an_answer_about_permissions_a_value_is_encrypted_again() {
    let document = document(1);
    let keys = keyring(std::slice::from_ref(&document));
    let stored = object("db", json!({"value": sealed(&keys, &strict("db"), CANARY)}));
    let failing = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("down"))
    });
    let client = kube::Client::new(failing, "default");
    let (router, secret) = webhooks(Alone::new(keyring(&[document])), client, Limits::default());
    let plain = object("db", json!({"value": CANARY}));
    let _ = work::take();
    let fresh = reviewed(&router, &format!("/{secret}/{SEAL}"), &review("reader", &plain, &stored)).await;
    assert_eq!(work::take(), Work { sealed: 1, opened: 0 });
    assert_ne!(json!(sealed_text(&fresh)), stored["spec"]["value"]);
    assert_eq!(opened(&keys, &sealed_text(&fresh), "db"), CANARY);
}

#[tokio::test]
async fn refusals_are_answers_and_warnings_refuse_nothing() {
    let operator = Alone { held: vec!["DB", "up"], ..alone() };
    let (client, asked) = readers();
    let (router, secret) = webhooks(operator, client, Limits::default());
    let number = object("db", json!({"value": 424_242}));
    let refused = reviewed(&router, &format!("/{secret}/{SEAL}"), &review("ann", &number, &Value::Null)).await;
    assert_eq!(refused["allowed"], false);
    assert_eq!(refused["status"]["message"], "spec.value: must be a quoted string");

    let spec = json!({"name": "DB", "valueFrom": {"secretKeyRef": {"name": "up", "key": "k"}}});
    let path = format!("/{secret}/{WARN}");
    let warned =
        async |user: &str| reviewed(&router, &path, &review(user, &object("db", spec.clone()), &Value::Null)).await;
    let reader = warned("reader").await;
    assert_eq!(reader["allowed"], true);
    assert_eq!(reader["warnings"].as_array().unwrap().len(), 2);
    let other = warned("ann").await;
    assert_eq!(other["warnings"].as_array().unwrap().len(), 1, "not whether a Secret exists that he may not read");
    assert_eq!(asked.load(SeqCst), 2);

    // Nor does the time tell: as much is asked about one that exists.
    let there = object("db", json!({"valueFrom": {"secretKeyRef": {"name": "there", "key": "k"}}}));
    let answer = reviewed(&router, &path, &review("bob", &there, &Value::Null)).await;
    assert!(answer.get("warnings").is_none());
    assert_eq!(asked.load(SeqCst), 3);
}

struct Panicking;

impl Operator for Panicking {
    fn keyring(&self) -> Arc<Keyring> {
        panic!("on purpose")
    }

    fn look_again(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn holder_of_name(&self, _: &str, _: &str, _: &str) -> Option<String> {
        panic!("on purpose")
    }

    fn holder_of_target(&self, _: &str, _: &str, _: &str) -> Option<String> {
        None
    }

    fn restarts(&self) -> bool {
        true
    }

    fn lacks_source(&self, _: &str, _: &str) -> bool {
        false
    }
}

#[tokio::test]
async fn a_panic_is_one_failed_request() {
    let (router, secret) = webhooks(Panicking, readers().0, Limits { requests: 1, ..Limits::default() });
    let review = review("ann", &object("db", json!({"name": "DB", "value": CANARY})), &Value::Null).to_string();
    for path in [format!("/{secret}/{SEAL}"), format!("/{secret}/{WARN}"), format!("/{secret}/{SEAL}")] {
        let (status, text) = send(&router, request(&path, Body::from(review.clone()))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!text.contains(CANARY));
    }
    let (status, _) = tokio::time::timeout(
        Duration::from_secs(5),
        send(&router, request(&format!("/{secret}/{SEAL}"), Body::from("{}"))),
    )
    .await
    .expect("its turn is given back");
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
