//! Counts the requests to the API server, by verb, resource and code.
//!
//! Each label has values of a closed list, whatever the requests and the answers contain: [`Requests::new`] is given the
//! resources, and everything else counts as [`OTHER`].

use std::sync::Arc;

use http::{Method, Request};
use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::time::Instant;

use super::stats::{Durations, Labels};

/// A resource or a code that is not in the list.
pub const OTHER: &str = "other";
/// The code of a request without an answer.
pub const NO_ANSWER: &str = "none";
/// The verbs, as audit logs and RBAC name them.
pub const VERBS: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", OTHER];
/// The codes that an API server answers with. A table of text, because labels are text.
pub const CODES: &[(u16, &str)] = &[
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (409, "409"),
    (410, "410"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

/// Counters and durations of requests, each try by itself.
#[derive(Debug)]
pub struct Requests {
    resources: &'static [&'static str],
    count: Family<Labels<3>, Counter>,
    durations: Durations<2>,
}

impl Default for Requests {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Requests {
    /// Counts requests for these resources (in the plural, as in paths) by name.
    #[must_use]
    pub fn new(resources: &'static [&'static str]) -> Self {
        // Calls take milliseconds; a loaded API server takes up to the deadline of 30 s.
        let durations = Durations::new(&[0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0]);
        Self { resources, count: Family::default(), durations }
    }

    /// How many there were, by `verb`, `resource` and `code`.
    #[must_use]
    pub fn count(&self) -> &Family<Labels<3>, Counter> {
        &self.count
    }

    /// How long they took until their answer began, by `verb` and `resource`.
    #[must_use]
    pub fn durations(&self) -> &Durations<2> {
        &self.durations
    }

    /// A request begins. It is counted when what this returns is dropped.
    pub(super) fn begin<B>(self: &Arc<Self>, request: &Request<B>) -> Pending {
        let (verb, resource) = self.classify(request.method(), request.uri().path(), request.uri().query());
        Pending { requests: Arc::clone(self), verb, resource, code: NO_ANSWER, began: Instant::now() }
    }

    fn classify(&self, method: &Method, path: &str, query: Option<&str>) -> (&'static str, &'static str) {
        let mut segments = path.trim_matches('/').split('/').skip_while(|segment| !matches!(*segment, "api" | "apis"));
        // The version; and the group before it.
        let skipped = if segments.next() == Some("apis") { 2 } else { 1 };
        let segments: Vec<&str> = segments.skip(skipped).collect();
        // A namespace is a resource too, and what is in it follows its name.
        let (resource, named) = match segments.as_slice() {
            ["namespaces", _, resource, name @ ..] | [resource, name @ ..] => (Some(*resource), !name.is_empty()),
            [] => (None, false),
        };
        let watches = query.unwrap_or_default().split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
        let verb = match (method.as_str(), named) {
            ("GET", _) if watches => "watch",
            ("GET", true) => "get",
            ("GET", false) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            _ => OTHER,
        };
        let known = self.resources.iter().find(|known| Some(**known) == resource);
        (verb, known.copied().unwrap_or(OTHER))
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Pending {
    requests: Arc<Requests>,
    verb: &'static str,
    resource: &'static str,
    code: &'static str,
    began: Instant,
}

impl Pending {
    /// Its answer has begun.
    pub(super) fn answered(&mut self, code: u16) {
        self.code = CODES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, text)| *text);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (verb, resource) = (("verb", self.verb), ("resource", self.resource));
        self.requests.count.get_or_create(&[verb, resource, ("code", self.code)]).inc();
        self.requests.durations.observe([verb, resource], self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_by_verb_and_known_resource() {
        let requests = Requests::new(&["secrets", "namespaces", "widgets"]);
        for (method, path, query, verb, resource) in [
            (Method::GET, "/api/v1/namespaces/shop/secrets/db", None, "get", "secrets"),
            (Method::GET, "/api/v1/namespaces/shop/secrets", Some("limit=1"), "list", "secrets"),
            (Method::GET, "/api/v1/secrets", Some("limit=1&watch=true"), "watch", "secrets"),
            (Method::GET, "/api/v1/namespaces/shop", None, "get", "namespaces"),
            (Method::GET, "/api/v1/namespaces", None, "list", "namespaces"),
            (Method::PATCH, "/apis/example.com/v1/namespaces/shop/widgets/a/status", None, "patch", "widgets"),
            (Method::POST, "/apis/example.com/v1/namespaces/shop/widgets", None, "create", "widgets"),
            (Method::PUT, "/proxy/apis/example.com/v1/widgets/a", None, "update", "widgets"),
            (Method::DELETE, "/api/v1/namespaces/secrets/pods/a", None, "delete", OTHER),
            (Method::DELETE, "/api/v1/namespaces/shop/secrets", None, "deletecollection", "secrets"),
            (Method::GET, "/version", None, "list", OTHER),
            (Method::OPTIONS, "/", None, OTHER, OTHER),
        ] {
            assert_eq!(requests.classify(&method, path, query), (verb, resource), "{method} {path}");
            assert!(VERBS.contains(&verb));
        }
    }

    #[tokio::test]
    async fn each_request_is_counted_once_answered_or_not() {
        let requests = Arc::new(Requests::new(&["secrets"]));
        let request = Request::get("/api/v1/secrets").body(()).unwrap_or_default();
        let mut pending = requests.begin(&request);
        pending.answered(403);
        drop(pending);
        requests.begin(&request).answered(777);
        drop(requests.begin(&request));
        let count =
            |code| requests.count().get_or_create(&[("verb", "list"), ("resource", "secrets"), ("code", code)]).get();
        assert_eq!([count("403"), count(OTHER), count(NO_ANSWER), count("200")], [1, 1, 1, 0]);
    }
}
