//! Listeners that record each request and refuse it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// The answer to every request: a refusal, which no client repeats.
const REFUSAL: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403}"#;

/// A certificate authority, and what it signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "recorder");
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for servers of these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Certified {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        self.sign(CertificateParams::new(names).unwrap(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a user.
    pub(crate) fn user(&self, name: &str) -> Certified {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The server's side of TLS with this certificate. Certificates of users that this authority signed are asked for and
    /// not required.
    pub(crate) fn acceptor(&self, own: &Certified) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Certified {
        let key = KeyPair::generate().unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Certified { certificate, key: key.serialize_pem() }
    }
}

/// What a server was sent, as far as it tells who called and what for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Recorded {
    /// Which server.
    pub(crate) server: &'static str,
    /// What stands before the API's own path.
    pub(crate) prefix: String,
    pub(crate) namespace: String,
    pub(crate) authorization: Option<String>,
    /// Headers by which a user acts as another one, sorted.
    pub(crate) impersonation: Vec<String>,
    /// The certificate that the client showed.
    pub(crate) certificate: Option<Vec<u8>>,
}

impl Recorded {
    fn parse(server: &'static str, head: &str, certificate: Option<Vec<u8>>) -> Self {
        let mut lines = head.lines();
        let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        // A proxy's form names the server as well.
        let target = target.split_once("://").map_or(target, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
        let path = target.split('?').next().unwrap_or_default();
        let segments: Vec<_> = path.split('/').collect();
        let api = segments.iter().position(|segment| matches!(*segment, "api" | "apis")).unwrap_or(segments.len());
        let at = segments.iter().position(|segment| *segment == "namespaces");
        let mut authorization = None;
        let mut impersonation = Vec::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let name = name.to_ascii_lowercase();
            if name == "authorization" {
                authorization = Some(value.to_owned());
            } else if name.starts_with("impersonate-") {
                impersonation.push(format!("{name}: {value}"));
            }
        }
        impersonation.sort();
        Self {
            server,
            prefix: segments[..api].join("/"),
            namespace: at.and_then(|at| segments.get(at + 1)).map(ToString::to_string).unwrap_or_default(),
            authorization,
            impersonation,
            certificate,
        }
    }
}

/// What all listeners of one test recorded.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<Vec<Recorded>>>);

impl Records {
    /// What was recorded since the last call.
    pub(crate) fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// One listener; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Over TLS; certificates of users that the authority signed are asked for and not required.
    pub(crate) async fn tls(name: &'static str, authority: &Authority, own: &Certified, records: &Records) -> Self {
        Self::start(name, Some(authority.acceptor(own)), records).await
    }

    /// Over plain HTTP.
    pub(crate) async fn plain(name: &'static str, records: &Records) -> Self {
        Self::start(name, None, records).await
    }

    async fn start(name: &'static str, acceptor: Option<TlsAcceptor>, records: &Records) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let records = records.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, records) = (acceptor.clone(), records.clone());
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else { return answer(name, stream, None, &records).await };
                    // A client that does not trust the certificate hangs up.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|it| it.to_vec());
                    answer(name, stream, shown, &records).await;
                });
            }
        });
        Self { address, task }
    }
}

async fn answer(
    name: &'static str,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    certificate: Option<Vec<u8>>,
    records: &Records,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(length @ 1..) => head.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    records.0.lock().unwrap().push(Recorded::parse(name, &String::from_utf8_lossy(&head), certificate));
    let length = REFUSAL.len();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{REFUSAL}"
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
