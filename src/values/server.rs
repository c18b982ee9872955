//! Answers a request: path, verb, caller, permission, record, value, in this order.
//!
//! In: requests of one connection. Out: a value, a document, or a Kubernetes Status. A body is never read.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use kube::Client;
use managed_secrets_api::{record::RecordMeta, value::Handle};
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Limits, Operator, Stats,
    answer::{self, Form, Outcome, Refusal},
    caller::{Door, Doors},
    documents,
    pace::{Pace, Places},
    path::{self, Route, Wrong},
    read::{Found, Reader, Unread},
};
use crate::webhook::{
    http::Proven,
    server::{Peer, Untold},
};

/// Seconds after which a caller may try again.
const RETRY_SECONDS: u64 = 1;

/// What all requests share.
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) doors: Doors,
    pub(super) operator: Arc<OnceLock<Arc<dyn Operator>>>,
    pub(super) aggregated: Gate,
    pub(super) direct: Gate,
    pub(super) pace: Mutex<Pace>,
    pub(super) places: Places,
    pub(super) limits: Limits,
    pub(super) stats: Arc<Stats>,
}

/// What the callers of one door can take at once: a flood through one door leaves the other open.
pub(super) struct Gate {
    at_once: Semaphore,
    kept: Arc<Semaphore>,
}

impl Gate {
    /// Creates one with room for so many requests and kept connections.
    pub(super) fn new(at_once: usize, kept: usize) -> Self {
        Self { at_once: Semaphore::new(at_once), kept: Arc::new(Semaphore::new(kept)) }
    }
}

/// One request for a value.
struct Asked<'a> {
    namespace: &'a str,
    /// The name or id as it was given.
    name: &'a str,
    version: Option<u64>,
    form: Form,
    headers: &'a HeaderMap,
}

/// What is known of a request when it is answered, for the log.
#[derive(Default)]
struct Trace {
    user: Option<String>,
    /// Whether the caller has the permission.
    is_permitted: bool,
    /// The record that was found.
    found: Option<RecordMeta>,
}

/// Returns the routes. Each request needs a [`Proven`] and a [`Peer`] in its extensions.
pub(super) fn router(server: Arc<Server>) -> Router {
    // The path is read as it stands, so no route of axum's is used.
    Router::new().fallback(handle).with_state(server)
}

async fn handle(
    State(server): State<Arc<Server>>,
    Extension(proven): Extension<Proven>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    // The body is not read: a GET has none.
    let (request, _) = request.into_parts();
    server.answer(&proven, &peer, &request).await
}

impl Server {
    async fn answer(&self, proven: &Proven, peer: &Peer, request: &Parts) -> Response {
        let route = match path::parse(request.uri.path()) {
            Ok(route) => route,
            Err(Wrong::Path) => return Refusal::new(Outcome::NotFound, Wrong::Path.to_string()).into_response(),
            Err(wrong) => return Refusal::new(Outcome::Invalid, wrong.to_string()).into_response(),
        };
        if request.method != Method::GET || route == Route::Collection {
            return Refusal::new(Outcome::Verb, "a value can only be read, by the secret's name or id").into_response();
        }
        if let Some(document) = documents::answer(&route, &request.headers) {
            return document;
        }
        let Route::Value { namespace, name } = route else {
            return Refusal::new(Outcome::NotFound, Wrong::Path.to_string()).into_response();
        };
        let began = Instant::now();
        let (door, proxy) = self.doors.door(peer);
        let gate = match door {
            Door::Aggregated => &self.aggregated,
            Door::Direct => &self.direct,
        };
        let mut trace = Trace::default();
        let asked = async {
            let version = path::version(request.uri.query());
            let version = version.map_err(|wrong| Refusal::new(Outcome::Invalid, wrong.to_string()))?;
            let caller = self.doors.caller(door, proxy, &request.headers).await?;
            trace.user = Some(caller.username.clone());
            let _permit = gate.at_once.try_acquire().map_err(|_| {
                Refusal::for_a_time(Outcome::Limited, "too many values are read at present", RETRY_SECONDS)
            })?;
            let _place = self.places.take(&caller.username).ok_or_else(|| {
                Refusal::for_a_time(Outcome::Limited, "you read too many values at once", RETRY_SECONDS)
            })?;
            let paced = self.pace.lock().take(&caller.username, std::time::Instant::now());
            paced.map_err(|wait| {
                let seconds = wait.as_secs() + RETRY_SECONDS;
                Refusal::for_a_time(Outcome::Limited, "you read too many values in a short time", seconds)
            })?;
            self.doors.authorize(&caller, &namespace, &name).await?;
            trace.is_permitted = true;
            let form = Form::asked(&request.headers);
            let form = form.ok_or_else(|| Refusal::new(Outcome::Invalid, "the server answers in application/json"))?;
            let headers = &request.headers;
            self.read(&Asked { namespace: &namespace, name: &name, version, form, headers }, &mut trace).await
        };
        let limit = Duration::from_secs(self.limits.seconds);
        let answered = match timeout(limit, AssertUnwindSafe(asked).catch_unwind()).await {
            Ok(Ok(answered)) => answered,
            // The log says where it panicked; see `engine::run::log_panics`.
            Ok(Err(_)) => Err(Refusal::new(Outcome::Failed, "the request was not handled")),
            Err(_) => Err(Refusal::for_a_time(Outcome::Unavailable, "the request took too long", RETRY_SECONDS)),
        };
        let (outcome, mut response) = match answered {
            Ok(answer) => answer,
            Err(refusal) => (refusal.outcome, refusal.about(&name).into_response()),
        };
        self.stats.durations.observe([("door", door.name()), ("result", outcome.name())], began.elapsed());
        match door {
            // It is never told that this replica ends; and its connections carry the requests of many callers.
            Door::Aggregated => drop(response.extensions_mut().insert(Untold)),
            Door::Direct => audit(&trace, &namespace, &name, outcome),
        }
        let stays = match (door, outcome) {
            // On another connection, the caller may reach a replica that can answer.
            (_, Outcome::Unavailable) => false,
            (Door::Aggregated, _) => trace.user.is_some() && proven.keep(&gate.kept),
            (Door::Direct, Outcome::Limited) => proven.is_kept(),
            // Any service account can have a token: only those with a permission take a place.
            (Door::Direct, _) => trace.is_permitted && proven.keep(&gate.kept),
        };
        if !stays {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn read(&self, asked: &Asked<'_>, trace: &mut Trace) -> Result<(Outcome, Response), Refusal> {
        let Asked { namespace, name, version, .. } = *asked;
        let not_found = |message: String| Refusal::new(Outcome::NotFound, message);
        let Some(operator) = self.operator.get() else {
            let message = "the operator starts, and waits for its keyring or for the ManagedSecret resource";
            return Err(Refusal::for_a_time(Outcome::Unavailable, message, RETRY_SECONDS));
        };
        if !operator.serves(namespace) {
            return Err(not_found(format!("the operator does not serve the namespace {namespace:?}")));
        }
        if !operator.knows(namespace) {
            let message = format!("the operator has not listed the namespace {namespace:?} yet");
            return Err(Refusal::for_a_time(Outcome::Unavailable, message, RETRY_SECONDS));
        }
        let handle = Handle::parse(name).ok_or_else(|| not_found(Wrong::Path.to_string()))?;
        let reader = Reader { client: &self.client, operator: operator.as_ref(), namespace };
        let found = reader.find(handle).await.map_err(|unread| refusal(&unread, namespace, name))?;
        let newest = found.meta.version;
        // What is delivered is what is returned.
        let version = match version {
            Some(version) => version,
            None => reader.delivered(&found).await.map_err(|unread| refusal(&unread, namespace, name))?,
        };
        let found = found.of_version(version).ok_or_else(|| {
            not_found(format!("version {version} of secret {name:?} is not kept; the newest version is {newest}"))
        })?;
        trace.found = Some(found.meta.clone());
        present(&reader, &found, asked)
    }
}

/// The answer about a record that was found, in the form that is asked for.
fn present(reader: &Reader<'_>, found: &Found, asked: &Asked<'_>) -> Result<(Outcome, Response), Refusal> {
    let Asked { namespace, name, form, headers, .. } = *asked;
    match form {
        Form::Table => Ok((Outcome::Described, answer::table(namespace, &found.meta))),
        Form::Metadata => Ok((Outcome::Described, answer::metadata(namespace, &found.meta))),
        Form::Object => {
            let tag = answer::tag(&found.meta);
            if answer::is_known(headers, &tag) {
                return Ok((Outcome::NotModified, answer::not_modified(&tag)));
            }
            let value = reader.open(found).map_err(|unread| refusal(&unread, namespace, name))?;
            Ok((Outcome::Value, answer::value(namespace, &found.meta, &value)))
        }
    }
}

fn refusal(unread: &Unread, namespace: &str, name: &str) -> Refusal {
    let unavailable = |message: String| Refusal::for_a_time(Outcome::Unavailable, message, RETRY_SECONDS);
    match unread {
        Unread::NotFound => {
            return Refusal::new(Outcome::NotFound, format!("secret {name:?} not found in namespace {namespace:?}"));
        }
        Unread::NotKept { .. } | Unread::Unsaid { .. } => {
            return Refusal::new(Outcome::NotFound, format!("secret {name:?} in namespace {namespace:?}: {unread}"));
        }
        // It stays so until an administrator acts, but the secret is not wrong.
        Unread::KeyUnknown => warn!(namespace, secret = name, error = %unread, "could not read a value"),
        Unread::Changed(_) => {
            warn!(namespace, secret = name, error = %unread, "could not read a value");
            return Refusal::new(Outcome::Failed, unread.to_string());
        }
        Unread::Call(error) => {
            warn!(namespace, secret = name, %error, "could not read a value");
            return unavailable("the record could not be read".to_owned());
        }
        Unread::Owner => warn!(namespace, secret = name, error = %unread, "could not read a value"),
    }
    unavailable(unread.to_string())
}

/// The audit log of requests that the API server does not see.
fn audit(trace: &Trace, namespace: &str, name: &str, outcome: Outcome) {
    let (user, result) = (trace.user.as_deref(), outcome.name());
    let (id, version) = trace.found.as_ref().map(|meta| (meta.id.as_str(), meta.version)).unzip();
    if user.is_some() {
        info!(user, namespace, secret = name, id, version, result, "value requested");
    } else {
        // Anyone can send requests with a wrong token; metrics count them.
        debug!(namespace, secret = name, result, "value requested without a valid token");
    }
}
