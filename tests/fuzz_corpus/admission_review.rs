//! Any bytes as the body of a review: through both webhooks, from decoding to the answer, with a real keyring.
//!
//! Twice: as they are, and, where they decode, with a canary in each place where a value can stand.

use std::{convert::Infallible, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::{BoxFuture, ready};
use kube::{Client, client::Body};
use managed_secrets::webhook::{Operator, access::Access, http::Webhooks};
use managed_secrets_crypto::{Keyring, keyring::SealingKeyStatus, mss1::Sealed};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::service_fn;

/// A value that nobody may see again; parts of this length count.
const CANARY: &str = "xQ9-zVj3_wKp7";
const PART: usize = 4;
const COPY: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What users called so may read, all others may not.
const READER: &str = "reader";

/// The target.
pub(crate) struct Target {
    runtime: Runtime,
    webhooks: Webhooks,
    keyring: Arc<Keyring>,
}

/// A webhook's answer that was checked for its form.
struct Answer {
    text: String,
    response: Value,
    patch: Vec<Value>,
}

impl Target {
    /// With the frozen keyring, and an API server that knows two kinds of users.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let keyring = Arc::new(super::keyring());
        let client = runtime.block_on(async { Client::new(service_fn(rights), "default") });
        let webhooks = Webhooks {
            served: Arc::default(),
            access: Access::new(client),
            operator: Arc::new(Crowded(Arc::clone(&keyring))),
            allow_cluster_scope: false,
            stats: Arc::default(),
        };
        Self { runtime, webhooks, keyring }
    }

    /// One input.
    pub(crate) fn run(&self, body: &[u8]) {
        self.check(body);
        let Ok(review) = serde_json::from_slice::<Value>(body) else { return };
        let visible = decoded_text(&review);
        if parts().any(|part| visible.contains(part)) {
            return;
        }
        for planted in planted(&review) {
            let body = planted.to_string();
            let seen = self.check(body.as_bytes());
            assert!(!parts().any(|part| seen.contains(part)), "a part of the value was repeated");
        }
    }

    /// Asks both webhooks, and returns all that they said, patches decoded.
    fn check(&self, body: &[u8]) -> String {
        let (sealing, warning) = self
            .runtime
            .block_on(async { (self.webhooks.answer_seal(body).await, self.webhooks.answer_warn(body).await) });
        match (sealing, warning) {
            (Err(one), Err(other)) => {
                assert_eq!(one, other);
                one.to_string()
            }
            (Ok(sealing), Ok(warning)) => {
                // A decoder does not look into fields that it ignores; a parser of the whole may refuse them.
                let Ok(review) = serde_json::from_slice::<Value>(body) else { return String::new() };
                let request = &review["request"];
                let (sealing, warning) = (Answer::read(&sealing, request, body), Answer::read(&warning, request, body));
                self.sealed(request, &sealing);
                assert!(warning.response["allowed"] == true && warning.patch.is_empty(), "it only ever warns");
                sealing.text + &warning.text
            }
            _ => panic!("one webhook reads what the other does not"),
        }
    }

    /// What was admitted holds no plaintext, and what was plaintext can be opened; what was not, tells little.
    fn sealed(&self, request: &Value, answer: &Answer) {
        if answer.response["allowed"] == false {
            let message = answer.response["status"]["message"].as_str().expect("a message");
            assert!((1..400).contains(&message.len()) && answer.patch.is_empty(), "{message}");
            return;
        }
        let before = &request["object"];
        let mut after = before.clone();
        for operation in &answer.patch {
            assert_eq!(operation["op"], "replace");
            let pointer = operation["path"].as_str().expect("a path");
            *after.pointer_mut(pointer).expect("a place that is there") = operation["value"].clone();
        }
        let name = before.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let namespace = request["namespace"].as_str().unwrap_or_default();
        let value = |object: &Value| object.pointer("/spec/value").cloned().unwrap_or_default();
        let (given, stored) = (value(before), value(&after));
        if given != stored {
            let sealed = Sealed::parse(stored.as_str().expect("text")).expect("sealed text");
            if let Ok(()) = sealed.fits(namespace, name)
                && let SealingKeyStatus::Usable(key) = self.keyring.sealing_key(sealed.key_id())
            {
                let opened = sealed.open(key, namespace, name).expect("it opens");
                assert!(opened.same_as_bytes(given.as_str().expect("text").as_bytes()), "another value was sealed");
            } else {
                panic!("sealed for nobody");
            }
            let may_read = request["userInfo"]["username"].as_str().is_some_and(|user| user.starts_with(READER));
            assert!(may_read || stored != value(&request["oldObject"]), "what may not be read was compared");
        }
        assert_no_plaintext(&stored);
        let copy = after.pointer("/metadata/annotations").and_then(|annotations| annotations[COPY].as_str());
        if let Some(Ok(copy)) = copy.map(serde_json::from_str::<Value>) {
            let text = value(&copy);
            assert!(
                text.is_null() || text.as_str().is_some_and(|text| text.starts_with("mss1.")),
                "plaintext in a copy"
            );
        }
    }
}

impl Answer {
    fn read(answer: &[u8], request: &Value, body: &[u8]) -> Self {
        assert!(answer.len() <= 8 * body.len() + 128 * 1024, "{} bytes from {}", answer.len(), body.len());
        let review: Value = serde_json::from_slice(answer).expect("JSON");
        let response = review["response"].clone();
        assert_eq!(response["uid"], request["uid"], "the answer to another question");
        let patch = match response["patch"].as_str() {
            Some(patch) => BASE64_STANDARD.decode(patch).expect("base64"),
            None => b"[]".to_vec(),
        };
        let patch: Vec<Value> = serde_json::from_slice(&patch).expect("a list");
        let mut shown = response.clone();
        shown["patch"] = Value::from(patch.clone());
        Self { text: decoded_text(&shown), response, patch }
    }
}

fn assert_no_plaintext(value: &Value) {
    let is_sealed = |text| Sealed::parse(text).is_ok();
    assert!(value.is_null() || value.as_str().is_some_and(is_sealed), "plaintext was admitted");
}

fn parts() -> impl Iterator<Item = &'static str> {
    (0..=CANARY.len() - PART).map(|at| &CANARY[at..at + PART])
}

/// Every string and key, escapes undone, also those of JSON within strings; sealed text, which is chance, left out.
fn decoded_text(value: &Value) -> String {
    match value {
        Value::String(text) if Sealed::parse(text).is_ok() => String::new(),
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner) if inner.is_object() => decoded_text(&inner),
            _ => format!("{text}\n"),
        },
        Value::Array(items) => items.iter().map(decoded_text).collect(),
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| [key.clone(), "\n".to_owned(), decoded_text(value)]).collect()
        }
        other => format!("{other}\n"),
    }
}

/// The review with the canary as its value, and in its copy, in every form.
fn planted(review: &Value) -> Vec<Value> {
    let with = |pointer: &str, key: &str, value: Value| {
        let mut review = review.clone();
        review.pointer_mut(pointer)?.as_object_mut()?.insert(key.to_owned(), value);
        Some(review)
    };
    let mut planted = Vec::new();
    for value in [
        json!(CANARY),
        json!([CANARY]),
        json!({CANARY: {"value": CANARY}}),
        json!(format!("mss1.{CANARY}")),
        json!(CANARY.repeat(300)),
    ] {
        planted.extend(with("/request/object/spec", "value", value));
    }
    for copy in [
        format!(r#"{{"spec":{{"value":"{CANARY}","value":"{CANARY}"}}}}"#),
        format!(r#" {{ "spec": {{ "x": [], "value" :["{CANARY}"] }} }}"#),
    ] {
        planted.extend(with("/request/object/metadata/annotations", COPY, Value::from(copy)));
    }
    planted
}

/// Answers reviews of rights.
async fn rights(request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
    let body = request.into_body().collect_bytes().await.unwrap_or_default();
    let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let allowed = review["spec"]["user"].as_str().is_some_and(|user| user.starts_with(READER));
    review["status"] = json!({"allowed": allowed});
    Ok(http::Response::new(Body::from(review.to_string().into_bytes())))
}

/// An operator where every name is taken and every source missing.
struct Crowded(Arc<Keyring>);

impl Operator for Crowded {
    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.0)
    }

    fn look_again(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn holder_of_name(&self, _: &str, _: &str, _: &str) -> Option<String> {
        Some("ManagedSecret \"other\"".to_owned())
    }

    fn holder_of_target(&self, _: &str, _: &str, _: &str) -> Option<String> {
        Some("ManagedSecret \"other\"".to_owned())
    }

    fn restarts(&self) -> bool {
        true
    }

    fn lacks_source(&self, _: &str, _: &str) -> bool {
        true
    }
}
