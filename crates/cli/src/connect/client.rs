//! A kube client with our credentials.
//!
//! ```text
//! request ─▶ Wire: credentials (fetched once, shared) ─▶ header `authorization` ─▶ transport: proxy, TLS, pool
//!                          └─ a certificate from a plugin: part of TLS, so another one needs another client
//! ```
//!
//! kube's own authentication would run a credential plugin for each client and twice for a certificate.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use kube::{Client, Config, client::Body};
use tokio::sync::Mutex;
use tower::{BoxError, Service};

use super::{
    credentials::{Credentials, Fetched, Identity},
    transport,
};

/// A request took longer than `--request-timeout`.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?} (--request-timeout)")]
struct TimedOut(Duration);

/// Sends requests with credentials.
#[derive(Clone)]
struct Wire {
    config: Arc<Config>,
    credentials: Credentials,
    /// The longest that a request may take until its answer begins.
    limit: Option<Duration>,
    /// The last client, and its certificate.
    made: Arc<Mutex<Made>>,
}

struct Made {
    identity: Option<Arc<Identity>>,
    client: Client,
}

/// A client for `config`, which holds no credentials but a client certificate, with these credentials.
pub(super) fn client(config: Config, credentials: Credentials, limit: Option<Duration>) -> kube::Result<Client> {
    let namespace = config.default_namespace.clone();
    let made = Made { identity: None, client: transport::client(config.clone())? };
    let wire = Wire { config: Arc::new(config), credentials, limit, made: Arc::new(Mutex::new(made)) };
    Ok(Client::new(wire, namespace))
}

impl Wire {
    async fn exchange(self, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let fetched = self.credentials.fetch().await?;
        if let Some(header) = &fetched.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let client = self.client_with(&fetched).await?;
        let sent = client.send(request);
        let answer = match self.limit {
            Some(limit) => tokio::time::timeout(limit, sent).await.map_err(|_| TimedOut(limit))??,
            None => sent.await?,
        };
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.credentials.refused(&fetched).await;
        }
        Ok(answer)
    }

    async fn client_with(&self, fetched: &Fetched) -> kube::Result<Client> {
        let mut made = self.made.lock().await;
        if made.identity != fetched.identity {
            let mut config = (*self.config).clone();
            if let Some(identity) = &fetched.identity {
                config.auth_info.client_certificate_data = Some(STANDARD.encode(&identity.certificate));
                config.auth_info.client_key_data = Some(STANDARD.encode(&identity.key).into());
            }
            *made = Made { client: transport::client(config)?, identity: fetched.identity.clone() };
        }
        Ok(made.client.clone())
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(())) // the client within waits for itself
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}
