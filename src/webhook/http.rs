//! Handles an HTTP request: checks the secret path, limits the cost, and routes to a webhook.
//!
//! In: requests of one connection. Out: an AdmissionReview, or a status with one sentence. The answer repeats nothing of
//! the request. A caller that does not know a secret path gets 404 before its body is read, whatever it sends: so it cannot
//! send its own `oldObject` and have guesses compared.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request as HttpRequest, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::FutureExt as _;
use http::{StatusCode, header};
use managed_secrets_api::{Violation, value};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tracing::warn;

use super::{
    Operator, Stats,
    access::Access,
    certificates::Served,
    review::{Answer, Malformed, Request},
    seal::{Failure, Findings, Permission},
    server::Limits,
    warn,
};

/// Last segment of the sealing webhook's path.
pub const SEAL: &str = "seal";
/// Last segment of the warning webhook's path.
pub const WARN: &str = "warn";

/// What a webhook can answer, for metrics: it sealed a value; it admitted the request, without or with a warning; it refused
/// it; the API server sent something that is no review; the request was refused before its body was read to the end; or the
/// answer took too long or the handler panicked.
pub const VERDICTS: &[&str] = &["sealed", "admitted", "warned", "refused", "malformed", UNREAD, FAILED];
const UNREAD: &str = "unread";
const FAILED: &str = "failed";

/// What both webhooks share.
pub struct Webhooks {
    /// The secret paths.
    pub served: Arc<Served>,
    /// Checks who may read a value.
    pub access: Access,
    /// Keys and cache.
    pub operator: Arc<dyn Operator>,
    /// Whether a stored value of cluster scope may be kept.
    pub allow_cluster_scope: bool,
    /// Counts calls.
    pub stats: Arc<Stats>,
}

/// Set once a connection has named a secret path, or once its caller is known: other connections are closed.
#[derive(Clone, Debug, Default)]
pub struct Proven(Arc<Proof>);

#[derive(Debug, Default)]
struct Proof {
    is_proven: AtomicBool,
    /// The place that a connection of a known caller has.
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Proven {
    /// Whether the connection has named a secret path.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.is_proven.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.is_proven.store(true, Ordering::Relaxed);
    }

    /// Whether the connection of a known caller is kept open.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.place.lock().is_some()
    }

    /// Keeps the connection of a known caller open, if there is a place for it: many callers must leave connections for the
    /// API server. Returns whether it is kept.
    pub(crate) fn keep(&self, places: &Arc<Semaphore>) -> bool {
        let mut place = self.0.place.lock();
        if place.is_none() {
            *place = Arc::clone(places).try_acquire_owned().ok();
        }
        let is_kept = place.is_some();
        if is_kept {
            self.set();
        }
        is_kept
    }
}

struct Gate {
    webhooks: Arc<Webhooks>,
    limits: Limits,
    at_once: Semaphore,
}

/// Returns the routes. Each request needs a [`Proven`] in its extensions.
pub fn router(webhooks: Arc<Webhooks>, limits: Limits) -> Router {
    let at_once = Semaphore::new(limits.requests);
    let gate = Arc::new(Gate { webhooks: Arc::clone(&webhooks), limits, at_once });
    Router::new()
        .route(&format!("/{{secret}}/{SEAL}"), post(seal))
        .route(&format!("/{{secret}}/{WARN}"), post(warn_about))
        .method_not_allowed_fallback(|| async { StatusCode::METHOD_NOT_ALLOWED })
        .fallback(|| async { StatusCode::NOT_FOUND })
        .with_state(webhooks)
        // `admit` has already read the body, within its own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(gate, admit))
}

/// Checks the path, then everything that does not need the body, then reads the body within its limits.
async fn admit(
    State(gate): State<Arc<Gate>>,
    Extension(proven): Extension<Proven>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let secret = request.uri().path().split('/').nth(1).unwrap_or_default();
    if !gate.webhooks.served.knows(secret) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let began = Instant::now();
    let webhook = webhook(request.uri().path());
    proven.set();
    let handled = AssertUnwindSafe(gate.handle(request, next)).catch_unwind();
    let response = match timeout(gate.limits.request, handled).await {
        Ok(Ok(response)) => response,
        // The log says where it panicked; see `engine::run::log_panics`.
        Ok(Err(_)) => (StatusCode::INTERNAL_SERVER_ERROR, "the request was not handled\n").into_response(),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    };
    if let (Some(webhook), Some(verdict)) = (webhook, undecided(response.status())) {
        gate.webhooks.observe(webhook, verdict, began);
    }
    response
}

/// The webhook that a path names.
fn webhook(path: &str) -> Option<&'static str> {
    let last = path.rsplit('/').next();
    [SEAL, WARN].into_iter().find(|webhook| last == Some(webhook))
}

/// The verdict of an answer that no webhook has given; the webhooks count their own.
fn undecided(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::PAYLOAD_TOO_LARGE => {
            Some(UNREAD)
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => {
            Some(FAILED)
        }
        _ => None,
    }
}

impl Gate {
    async fn handle(&self, request: HttpRequest, next: Next) -> Response {
        // Bodies and the objects decoded from them need memory, so the number of requests at once is limited.
        let Ok(_permit) = self.at_once.acquire().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let (head, body) = request.into_parts();
        if head.method == http::Method::POST && !is_json(&head.headers) {
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json\n").into_response();
        }
        match axum::body::to_bytes(body, self.limits.body).await {
            Ok(body) => next.run(HttpRequest::from_parts(head, Body::from(body))).await,
            Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, "the body is incomplete or too large\n").into_response(),
        }
    }
}

fn is_json(headers: &http::HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

async fn seal(State(webhooks): State<Arc<Webhooks>>, body: Bytes) -> Response {
    webhooks.stats.seal.increment();
    respond(webhooks.answer_seal(&body).await)
}

async fn warn_about(State(webhooks): State<Arc<Webhooks>>, body: Bytes) -> Response {
    webhooks.stats.warn.increment();
    respond(webhooks.answer_warn(&body).await)
}

fn respond(answer: Result<Vec<u8>, Malformed>) -> Response {
    match answer {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(malformed) => {
            warn!(%malformed, "the API server sent an invalid review");
            (StatusCode::BAD_REQUEST, format!("{malformed}\n")).into_response()
        }
    }
}

impl Webhooks {
    /// Runs the sealing webhook: takes a request body and returns a response body.
    pub async fn answer_seal(&self, body: &[u8]) -> Result<Vec<u8>, Malformed> {
        let began = Instant::now();
        let request = Request::decode(body).inspect_err(|_| self.observe(SEAL, "malformed", began))?;
        let answer = self.seal(&request).await;
        self.observe(SEAL, verdict(&answer), began);
        Ok(answer.encode(&request))
    }

    /// Runs the warning webhook, likewise.
    pub async fn answer_warn(&self, body: &[u8]) -> Result<Vec<u8>, Malformed> {
        let began = Instant::now();
        let request = Request::decode(body).inspect_err(|_| self.observe(WARN, "malformed", began))?;
        let answer = self.warn(&request).await;
        self.observe(WARN, verdict(&answer), began);
        Ok(answer.encode(&request))
    }

    fn observe(&self, webhook: &'static str, verdict: &'static str, began: Instant) {
        self.stats.durations.observe([("webhook", webhook), ("verdict", verdict)], began.elapsed());
    }

    async fn seal(&self, request: &Request) -> Answer {
        let refuse = |violation: Violation| Answer { refusal: Some(violation), ..Answer::default() };
        let found = Findings::of(&request.namespace, &request.object, request.stored(), self.allow_cluster_scope);
        let findings = match found {
            Ok(Some(findings)) => findings,
            Ok(None) => return Answer::default(),
            Err(refusal) => return refuse(refusal.into()),
        };
        if findings.lacks_a_key(&self.operator.keyring()) {
            self.operator.look_again().await;
        }
        let may_read = match findings.permission() {
            Some(permission) => self.access.has(&request.user_info, &request.namespace, permission).await,
            None => false,
        };
        let remark = findings.remark();
        let sealed = findings.seal(&self.operator.keyring(), may_read).and_then(|outcome| {
            match self.operator.refuses_new().filter(|_| outcome.is_new(request.stored())) {
                Some(why) => Err(Failure::Refused(why)),
                None => Ok(outcome),
            }
        });
        match sealed {
            Ok(outcome) => {
                let warnings = outcome.unread.iter().map(reencrypted).chain(remark).collect();
                let replace = outcome.unmoved(&request.object, request.stored()).replace;
                Answer { replace, warnings, refusal: None }
            }
            Err(failure) => {
                warn!(%failure, "could not seal a value");
                refuse(failure.into())
            }
        }
    }

    async fn warn(&self, request: &Request) -> Answer {
        let Request { namespace, object, .. } = request;
        let source_is_missing = match warn::source(object) {
            // Only a caller who may read a Secret may know whether it exists. The permission is checked first and for
            // every caller: if it were checked only for missing Secrets, the response time would tell which ones exist.
            Some(source) => {
                self.access.has(&request.user_info, namespace, &Permission::Secret(source.to_owned())).await
                    && self.operator.lacks_source(namespace, source)
            }
            None => false,
        };
        let operator = self.operator.as_ref();
        let warnings = warn::warnings(namespace, object, operator, self.allow_cluster_scope, source_is_missing);
        Answer { warnings, ..Answer::default() }
    }
}

/// One of [`VERDICTS`].
fn verdict(answer: &Answer) -> &'static str {
    match answer {
        Answer { refusal: Some(_), .. } => "refused",
        Answer { replace, .. } if !replace.is_empty() => "sealed",
        Answer { warnings, .. } if !warnings.is_empty() => "warned",
        Answer { .. } => "admitted",
    }
}

/// Returns the warning that a value was not compared. It is the same for every value, so it tells nothing about the value.
fn reencrypted(permission: &Permission) -> String {
    let what = match permission {
        Permission::Secret(name) => format!("secret {name:?}"),
        Permission::Value(handles) => format!("{} {:?}", value::RESOURCE, handles.name()),
    };
    format!(
        "spec.value: re-encrypted: you may not read {what}, so the values could not be compared; apply a sealed value \
         instead"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
