//! The API server and the Rust validator judge a corpus of objects generated around every limit, and agree: on the
//! verdict, on the fields that are wrong and on the reason. And no refusal shows a value.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lifecycle;
mod no_echo;
mod objects;
mod source;
mod target;
mod template;

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use http::{Method, Request};
use kube::client::Body;
use kube::core::Status;
use kube::{Client, Error};
use managed_secrets_api::validate;
use serde_json::Value;
use testkit::shared::TestNamespace;

/// Where the collection of ManagedSecrets of a namespace is.
fn collection(namespace: &str) -> String {
    format!("/apis/managedsecrets.dev/v1alpha1/namespaces/{namespace}/managedsecrets")
}

/// One object of the corpus.
struct Case {
    /// What it tries.
    what: String,
    /// The whole object.
    object: Value,
    /// The fields that are wrong, where the case says so: the corpus' own opinion, so that server and validator cannot
    /// agree on nonsense.
    wrong: Option<Vec<&'static str>>,
}

impl Case {
    fn new(what: impl Into<String>, object: Value, wrong: &[&'static str]) -> Self {
        Self { what: what.into(), object, wrong: Some(wrong.to_vec()) }
    }
}

/// A field and a reason.
type Fault = (String, String);

#[tokio::test]
async fn the_server_and_the_validator_agree() {
    let (namespace, client) = TestNamespace::shared("corpus").await.unwrap();
    let cases = objects::all();
    assert!(cases.len() >= 300, "a corpus of {} objects is too small", cases.len());
    assert!(cases.iter().any(|case| case.wrong.as_ref().is_some_and(Vec::is_empty)));

    let complaints: Vec<_> = stream::iter(&cases)
        .map(|case| judge(&client, &namespace.name, case))
        .buffer_unordered(8)
        .filter_map(|complaint| async { complaint })
        .collect()
        .await;
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

/// Says how the judges differ, if they do.
async fn judge(client: &Client, namespace: &str, case: &Case) -> Option<String> {
    let ours: BTreeSet<Fault> = validate(&case.object)
        .into_iter()
        .map(|violation| (violation.path, violation.reason.as_str().to_owned()))
        .collect();
    let theirs = server_verdict(client, namespace, &case.object).await;
    // Of a wrong type the server may have several things to say, of which the validator says the first.
    if !ours.is_subset(&theirs) || fields(&ours) != fields(&theirs) {
        return Some(format!("{}: the server says {theirs:?}, the validator {ours:?}", case.what));
    }
    let expected: BTreeSet<_> = case.wrong.as_ref()?.iter().copied().collect();
    (fields(&ours) != expected).then(|| format!("{}: both say {ours:?} instead of {expected:?}", case.what))
}

fn fields(faults: &BTreeSet<Fault>) -> BTreeSet<&str> {
    faults.iter().map(|(field, _)| field.as_str()).collect()
}

async fn server_verdict(client: &Client, namespace: &str, object: &Value) -> BTreeSet<Fault> {
    let uri = format!("{}?dryRun=All", collection(namespace));
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    match client.request_text(request).await {
        Ok(_) => BTreeSet::new(),
        Err(Error::Api(status)) => faults(&status),
        Err(error) => panic!("{error}"),
    }
}

fn faults(status: &Status) -> BTreeSet<Fault> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let faults: BTreeSet<_> = causes
        // Remarks on no field: that rules were left unchecked, or that a number does not fit its format.
        .filter(|cause| cause.field != "<nil>")
        .map(|cause| (cause.field.clone(), cause.reason.clone()))
        .collect();
    assert!(!faults.is_empty(), "refused for no field: {} {}", status.code, status.reason);
    faults
}

/// The answer to a request as it came over the wire, warnings included; and its code.
async fn answer(client: &Client, method: Method, uri: &str, content: &str, body: &Value) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", content)
        .body(Body::from(body.to_string().into_bytes()))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let headers = format!("{:?}", response.headers());
    let body = response.into_body().collect_bytes().await.unwrap();
    (code, headers + &String::from_utf8_lossy(&body))
}
