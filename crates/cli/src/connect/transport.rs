//! A kube client for a configuration, through the proxy that it names.
//!
//! | proxy | server | how |
//! |---|---|---|
//! | none | any | kube |
//! | `http`, `https` | `https` | kube: a tunnel, by CONNECT |
//! | `http`, `https` | `http` | requests to the proxy, with the whole URL (RFC 9112, section 3.2.2) |
//! | `socks5` | any | SOCKS5, with the user and the password that the proxy's URL may have (RFC 1928, RFC 1929) |
//!
//! kube opens a tunnel for `http` servers too, and to port 443 if the URL has no port. Its SOCKS5 drops the user and the
//! password. So the last two rows have a connector of their own, below the layers of kube.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Uri, header::PROXY_AUTHORIZATION, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _, retry::RetryPolicy},
};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _, retry::RetryLayer, service_fn};

use super::{login::Login, proxy::SOCKS5};

/// Makes a client. The URL of the proxy is one that [`parse`](super::proxy::parse) returned.
pub(super) fn client(config: Config) -> kube::Result<Client> {
    let Some(proxy) = config.proxy_url.clone() else { return Client::try_from(config) };
    let login = Login::of(&proxy).map_err(|error| kube::Error::Service(error.into()))?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    if proxy.scheme_str() == Some(SOCKS5) {
        let socks = service_fn(move |server| through_socks(tcp.clone(), proxy.clone(), login.clone(), server));
        return client_over(config, socks, |request| request);
    }
    if config.cluster_url.scheme() != Some(&Scheme::HTTP) {
        return Client::try_from(config);
    }
    let header = login.map(|login| login.basic()).transpose().map_err(|error| kube::Error::Service(error.into()))?;
    let to_proxy = config.rustls_https_connector_with_connector(tcp)?;
    let forward = service_fn(move |_: Uri| {
        let connecting = to_proxy.clone().oneshot(proxy.clone());
        async move { connecting.await.map(ToProxy) }
    });
    client_over(config, forward, move |mut request: Request<Body>| {
        if let Some(header) = &header {
            request.headers_mut().insert(PROXY_AUTHORIZATION, header.clone());
        }
        request
    })
}

/// kube's client with another connector: the same layers, without those for credentials and traces.
fn client_over<C, F>(config: Config, connector: C, adapt: F) -> kube::Result<Client>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError> + Send,
    F: Fn(Request<Body>) -> Request<Body> + Clone + Send + 'static,
{
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .map_request(adapt)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}

/// A connection to the server through a SOCKS5 proxy, which resolves the name of the server. As Go does, it offers the
/// proxy both ways, with and without a login, if there is a login.
async fn through_socks(
    tcp: HttpConnector,
    proxy: Uri,
    login: Option<Login>,
    server: Uri,
) -> Result<TokioIo<TcpStream>, BoxError> {
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let default_port = if server.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    let target = (host, server.port_u16().unwrap_or(default_port));
    let socket = tcp.oneshot(proxy).await?.into_inner();
    let stream = match &login {
        Some(Login { user, password }) => {
            Socks5Stream::connect_with_password_and_socket(socket, target, user, password).await
        }
        None => Socks5Stream::connect_with_socket(socket, target).await,
    };
    Ok(TokioIo::new(stream?.into_inner()))
}

/// A connection to an HTTP proxy: hyper writes the whole URL into each request that it sends here.
struct ToProxy<T>(T);

impl<T: Connection> Connection for ToProxy<T> {
    fn connected(&self) -> Connected {
        self.0.connected().proxy(true)
    }
}

impl<T: Read + Unpin> Read for ToProxy<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<T: Write + Unpin> Write for ToProxy<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
