//! Who sends a request, and through which door.

use std::sync::Arc;

use http::{HeaderMap, header};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use managed_secrets_api::value::{GROUP, PLURAL, TOKEN_AUDIENCE, VERB, VERSION};
use tracing::warn;

use super::{
    answer::{Outcome, Refusal},
    front_proxy::{Followed, FrontProxy, Problem},
};
use crate::{
    access::{Action, Caller, ReviewError, Reviewer},
    webhook::server::Peer,
};

/// Seconds after which a caller may try again when the API server does not answer.
const RETRY_SECONDS: u64 = 2;

/// The way that a request takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    /// Through the API server.
    Aggregated,
    /// From the caller.
    Direct,
}

/// The doors as metrics name them.
pub(crate) const DOORS: &[&str] = &["aggregated", "direct"];

impl Door {
    pub(super) fn name(self) -> &'static str {
        DOORS[self as usize]
    }
}

/// Finds out who sends a request, and what they may do.
pub(super) struct Doors {
    pub(super) front_proxy: Arc<Followed>,
    pub(super) reviewer: Reviewer,
}

impl Doors {
    /// Which door a connection came through. The API server's front proxy is known by its certificate alone: headers that
    /// anyone can send do not matter.
    pub(super) fn door(&self, peer: &Peer) -> (Door, Result<Arc<FrontProxy>, Problem>) {
        let proxy = self.front_proxy.get();
        let is_it = proxy.as_ref().is_ok_and(|proxy| proxy.is_it(peer.certificates(), Timestamp::now()));
        (if is_it { Door::Aggregated } else { Door::Direct }, proxy)
    }

    /// Returns the caller.
    pub(super) async fn caller(
        &self,
        door: Door,
        proxy: Result<Arc<FrontProxy>, Problem>,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let unknown = |message: &str| Refusal::new(Outcome::Unauthenticated, message);
        if let (Door::Aggregated, Ok(proxy)) = (door, &proxy) {
            return proxy.caller(headers).ok_or_else(|| unknown("the API server named no user"));
        }
        let Some(token) = bearer(headers) else {
            let why = match proxy {
                Ok(_) => "the request has neither a bearer token nor the certificate of the API server's front proxy"
                    .to_owned(),
                Err(problem) => {
                    format!("the request has no bearer token, and cannot come through the API server: {problem}")
                }
            };
            return Err(unknown(&why));
        };
        match self.reviewer.authenticate(token, Some(TOKEN_AUDIENCE)).await {
            Ok(Some(caller)) => Ok(caller),
            Ok(None) => Err(unknown(&format!(
                "the bearer token is not valid: it must be issued for the audience {TOKEN_AUDIENCE}, and not be expired"
            ))),
            Err(ReviewError::Busy) => {
                Err(Refusal::for_a_time(Outcome::Limited, ReviewError::Busy.to_string(), RETRY_SECONDS))
            }
            Err(error) => {
                warn!(%error, "could not check a bearer token");
                Err(Refusal::for_a_time(Outcome::Unavailable, "the token could not be checked", RETRY_SECONDS))
            }
        }
    }

    /// Checks the permission to read the value under the name or id that the request gives.
    pub(super) async fn authorize(&self, caller: &Caller, namespace: &str, name: &str) -> Result<(), Refusal> {
        let text = |text: &str| Some(text.to_owned());
        let attributes = ResourceAttributes {
            namespace: text(namespace),
            verb: text(VERB),
            group: text(GROUP),
            version: text(VERSION),
            resource: text(PLURAL),
            name: text(name),
            ..ResourceAttributes::default()
        };
        match self.reviewer.may(caller, &Action::Resource(Box::new(attributes))).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::new(
                Outcome::Forbidden,
                format!(
                    "{PLURAL}.{GROUP} {name:?} is forbidden: User {:?} cannot {VERB} resource {PLURAL:?} in API group {GROUP:?} \
                     in the namespace {namespace:?}",
                    caller.username
                ),
            )),
            Err(error) => {
                warn!(%error, "could not check a permission");
                Err(Refusal::for_a_time(Outcome::Unavailable, "the permission could not be checked", RETRY_SECONDS))
            }
        }
    }
}

/// The token of a request with one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_bearer_token_stands_in_one_header() {
        let of = |values: &[&str]| {
            let values = values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
            bearer(&values.collect()).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer  abc"]).as_deref(), Some("abc"));
        for values in [&[][..], &["Basic abc"], &["Bearer"], &["Bearer "], &["Bearerabc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }
}
