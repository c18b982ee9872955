//! `/metrics` with TLS, for callers who may read it.
//!
//! In: a port, the certificate of the webhooks, and bearer tokens. Out: the metrics, for a caller whose token the API server
//! knows (TokenReview) and who has the permission `get` on the path `/metrics` (SubjectAccessReview). Kubernetes' own
//! components protect their metrics in the same way, so one role and one token of Prometheus are enough for all of them.

use std::{io, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use kube::Client;
use managed_secrets_engine::watch::Watcher;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{METRICS, metrics::Metrics, trust};
use crate::{
    access::{Action, Caller, ReviewError, Reviewer},
    port::Port,
    webhook::certificates::Served,
};

/// Starts to serve the metrics, and to publish which authorities to trust, as tasks of the watcher's supervisor; they end
/// with its `shutdown`. `namespace` is the operator's own.
pub fn start(
    port: Port,
    served: &Arc<Served>,
    metrics: &Arc<Metrics>,
    client: &Client,
    namespace: String,
    watcher: &Watcher,
) {
    let router = router(metrics, Reviewer::new(client.clone()));
    let serving = serve(port, Arc::clone(served), router);
    let publishing = trust::publish(client.clone(), namespace, Arc::clone(served));
    let Watcher { spawner, shutdown, .. } = watcher;
    spawner.spawn("metrics", shutdown.clone(), until(shutdown.clone(), serving));
    spawner.spawn("metrics authorities", shutdown.clone(), until(shutdown.clone(), publishing));
}

async fn until(shutdown: CancellationToken, task: impl Future<Output = ()>) {
    // Whether it was cancelled makes no difference.
    let _ = shutdown.run_until_cancelled(task).await;
}

/// Returns the route. Each request needs a bearer token.
fn router(metrics: &Arc<Metrics>, reviewer: Reviewer) -> Router {
    super::scrapes(metrics).layer(from_fn_with_state(Arc::new(reviewer), authorize))
}

/// Serves with this certificate until it is dropped. Without a certificate, handshakes fail. It ends only if the port
/// cannot be served.
async fn serve(port: Port, certificate: Arc<Served>, router: Router) {
    let (listener, config) = match (port.open(), config(certificate)) {
        (Ok(listener), Ok(config)) => (listener, config),
        (Err(error), _) | (_, Err(error)) => return error!(%error, "cannot serve the metrics with TLS"),
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "serving the metrics with TLS");
    }
    match super::serve_by(listener, Some(TlsAcceptor::from(Arc::new(config))), router).await {}
}

fn config(certificate: Arc<Served>) -> io::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions.map_err(io::Error::other)?.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn authorize(State(reviewer): State<Arc<Reviewer>>, request: Request, next: Next) -> Response {
    match permission(&reviewer, request.headers()).await {
        Ok(Permission::Granted) => next.run(request).await,
        Ok(Permission::Unauthenticated) => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a valid bearer token is required\n")
                .into_response()
        }
        Ok(Permission::Forbidden(caller)) => {
            let text = format!("{:?} cannot get the path {METRICS}\n", caller.username);
            (StatusCode::FORBIDDEN, text).into_response()
        }
        Err(error) => {
            warn!(%error, "cannot check who scrapes the metrics");
            (StatusCode::SERVICE_UNAVAILABLE, "the token could not be checked\n").into_response()
        }
    }
}

enum Permission {
    Granted,
    Unauthenticated,
    Forbidden(Caller),
}

async fn permission(reviewer: &Reviewer, headers: &HeaderMap) -> Result<Permission, ReviewError> {
    let Some(token) = bearer(headers) else { return Ok(Permission::Unauthenticated) };
    let Some(caller) = reviewer.authenticate(token, None).await? else { return Ok(Permission::Unauthenticated) };
    let action = Action::Path { verb: "get".to_owned(), path: METRICS.to_owned() };
    let granted = reviewer.may(&caller, &action).await?;
    Ok(if granted { Permission::Granted } else { Permission::Forbidden(caller) })
}

/// The token of the header `Authorization`. The scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::body::Body;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[test]
    fn a_token_comes_from_one_header_of_the_right_scheme() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer  abc "]).as_deref(), Some("abc"));
        for values in [&[][..], &["abc"], &["Basic abc"], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }

    /// No answer is no permission.
    #[tokio::test]
    async fn without_an_answer_of_the_api_server_nothing_is_shown() {
        let failing = service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("down"))
        });
        let reviewer = Reviewer::new(Client::new(failing, "default"));
        let router = router(&Arc::new(Metrics::new(Arc::default())), reviewer);
        let request = |token: Option<&str>| {
            let request = http::Request::get(METRICS);
            let request = match token {
                Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
                None => request,
            };
            request.body(Body::empty()).unwrap()
        };
        let status = async |token| router.clone().oneshot(request(token)).await.unwrap().status();
        assert_eq!(status(Some("token")).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(None).await, StatusCode::UNAUTHORIZED);
    }
}
