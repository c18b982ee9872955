//! Calls a plugin, and checks its answers as the API server does.

use std::{collections::BTreeMap, error::Error, time::Duration};

use http::{Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    error::{Call, KmsError, Violation},
    limits, proto,
    socket::Socket,
};

/// What a plugin sends as text is shown up to this many characters.
const MAX_TEXT: usize = 300;

/// A plugin at a socket. It connects at the first call, and again whenever the connection is lost.
#[derive(Clone, Debug)]
pub struct Plugin {
    socket: Socket,
    channel: Channel,
    timeout: Duration,
}

/// What a healthy plugin said of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// Id of the key that encrypts now: the authority on it.
    pub key_id: String,
}

/// What a plugin has encrypted; all of it goes back to decrypt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encrypted {
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
    /// Id of the key.
    pub key_id: String,
    /// What the plugin wants back.
    pub annotations: BTreeMap<String, Vec<u8>>,
}

impl Plugin {
    /// The plugin at this socket, which need not exist yet. A call may take `timeout`. Needs a Tokio runtime.
    #[must_use]
    pub fn new(socket: &Socket, timeout: Duration) -> Self {
        let path = socket.path().to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The authority of each request: strict HTTP/2 servers refuse a path as authority (kubernetes/kubernetes#126929).
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(timeout);
        Self { socket: socket.clone(), channel: endpoint.connect_with_connector_lazy(connect), timeout }
    }

    /// Its address.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Asks for the status; an error unless the plugin is healthy.
    pub async fn status(&self) -> Result<Status, KmsError> {
        let answer = self.raw_status().await?;
        let violation = |what| KmsError::Violation { call: Call::Status, what };
        if !limits::VERSIONS.contains(&answer.version.as_str()) {
            return Err(violation(Violation::Version));
        }
        if answer.healthz != limits::HEALTHY {
            return Err(KmsError::Unhealthy { healthz: text(&answer.healthz) });
        }
        check_key_id(&answer.key_id).map_err(violation)?;
        Ok(Status { key_id: answer.key_id })
    }

    /// Encrypts under the key that the last status named; an answer under another key is an error (the next status names
    /// that key).
    pub async fn encrypt(&self, plaintext: &[u8], status: &Status) -> Result<Encrypted, KmsError> {
        let encrypted = self.raw_encrypt(plaintext).await?;
        let violation = |what| KmsError::Violation { call: Call::Encrypt, what };
        check_encrypted(&encrypted, plaintext).map_err(violation)?;
        if encrypted.key_id != status.key_id {
            return Err(violation(Violation::OtherKey));
        }
        Ok(encrypted)
    }

    /// Decrypts. Whether the plaintext is the right one is for the caller to find out.
    pub async fn decrypt(&self, encrypted: &Encrypted) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let request = proto::DecryptRequest {
            ciphertext: encrypted.ciphertext.clone(),
            uid: Uuid::new_v4().to_string(),
            key_id: encrypted.key_id.clone(),
            annotations: encrypted.annotations.clone().into_iter().collect(),
        };
        let mut answer: proto::DecryptResponse = self.call(Call::Decrypt, proto::path::DECRYPT, request).await?;
        Ok(Zeroizing::new(std::mem::take(&mut answer.plaintext)))
    }

    pub(crate) async fn raw_status(&self) -> Result<proto::StatusResponse, KmsError> {
        self.call(Call::Status, proto::path::STATUS, proto::StatusRequest {}).await
    }

    pub(crate) async fn raw_encrypt(&self, plaintext: &[u8]) -> Result<Encrypted, KmsError> {
        let request = proto::EncryptRequest { plaintext: plaintext.to_vec(), uid: Uuid::new_v4().to_string() };
        let answer: proto::EncryptResponse = self.call(Call::Encrypt, proto::path::ENCRYPT, request).await?;
        Ok(Encrypted {
            ciphertext: answer.ciphertext,
            key_id: answer.key_id,
            annotations: answer.annotations.into_iter().collect(),
        })
    }

    async fn call<Q, A>(&self, call: Call, path: &'static str, request: Q) -> Result<A, KmsError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(limits::MAX_MESSAGE);
        let answered = async {
            grpc.ready().await.map_err(|error| self.unreachable(&error))?;
            let path = PathAndQuery::from_static(path);
            let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| self.refused(call, &status))
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(KmsError::Timeout { call, after: self.timeout }),
        }
    }

    fn unreachable(&self, error: &(dyn Error + 'static)) -> KmsError {
        let mut deepest = error;
        while let Some(cause) = deepest.source() {
            deepest = cause;
        }
        KmsError::Connect { socket: self.socket.to_string(), why: text(&deepest.to_string()) }
    }

    fn refused(&self, call: Call, status: &tonic::Status) -> KmsError {
        // An error of this side has a cause: the connection ended, and there was no answer.
        if let Some(cause) = status.source() {
            return self.unreachable(cause);
        }
        let message = match call {
            Call::Encrypt => String::new(),
            Call::Status | Call::Decrypt => format!(": {}", text(status.message())),
        };
        KmsError::Refused { call, code: format!("{:?}", status.code()), message }
    }
}

pub(crate) fn check_key_id(key_id: &str) -> Result<(), Violation> {
    if (1..=limits::MAX_KEY_ID).contains(&key_id.len()) { Ok(()) } else { Err(Violation::KeyId) }
}

/// Checks everything of the answer to an encryption except which key it names.
pub(crate) fn check_encrypted(encrypted: &Encrypted, plaintext: &[u8]) -> Result<(), Violation> {
    check_key_id(&encrypted.key_id)?;
    if !(1..=limits::MAX_CIPHERTEXT).contains(&encrypted.ciphertext.len()) {
        return Err(Violation::Ciphertext);
    }
    check_annotations(&encrypted.annotations)?;
    if shows(&encrypted.ciphertext, plaintext) || encrypted.annotations.values().any(|value| shows(value, plaintext)) {
        return Err(Violation::Plaintext);
    }
    Ok(())
}

pub(crate) fn check_annotations(annotations: &BTreeMap<String, Vec<u8>>) -> Result<(), Violation> {
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > limits::MAX_ANNOTATIONS {
        return Err(Violation::AnnotationsSize);
    }
    if annotations.keys().all(|key| is_domain_name(key)) { Ok(()) } else { Err(Violation::AnnotationKey) }
}

/// Whether the bytes contain the plaintext, unless it is so short that chance may do it.
fn shows(bytes: &[u8], plaintext: &[u8]) -> bool {
    plaintext.len() >= 16 && bytes.windows(plaintext.len()).any(|window| window == plaintext)
}

/// `IsFullyQualifiedDomainName` of `k8s.io/apimachinery`: a DNS subdomain of at least two labels, with or without a dot at
/// its end.
fn is_domain_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}

/// Text of a plugin in one line, of bounded length.
fn text(text: &str) -> String {
    let mut shown: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_TEXT).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn encrypted() -> Encrypted {
        Encrypted { ciphertext: vec![1; 40], key_id: "1".into(), annotations: BTreeMap::new() }
    }

    #[test]
    fn answers_beyond_the_limits_are_refused() {
        let plaintext = [7; 32];
        assert_eq!(check_encrypted(&encrypted(), &plaintext), Ok(()));
        let largest = Encrypted { ciphertext: vec![1; 1024], key_id: "k".repeat(1024), ..encrypted() };
        assert_eq!(check_encrypted(&largest, &plaintext), Ok(()));
        for (ciphertext, key_id, violation) in [
            (vec![], "1".to_owned(), Violation::Ciphertext),
            (vec![1; 1025], "1".to_owned(), Violation::Ciphertext),
            (vec![1], String::new(), Violation::KeyId),
            (vec![1], "k".repeat(1025), Violation::KeyId),
            ([&[0; 3][..], &plaintext].concat(), "1".to_owned(), Violation::Plaintext),
        ] {
            let wrong = Encrypted { ciphertext, key_id, ..encrypted() };
            assert_eq!(check_encrypted(&wrong, &plaintext), Err(violation));
        }
    }

    #[test]
    fn annotations_are_checked_as_the_api_server_does() {
        let with = |key: &str, length| BTreeMap::from([(key.to_owned(), vec![0; length])]);
        assert_eq!(check_annotations(&with("version.encryption.example.com", 8)), Ok(()));
        assert_eq!(check_annotations(&with("a.b.", 8)), Ok(()));
        assert_eq!(check_annotations(&with("a.b", limits::MAX_ANNOTATIONS - 3)), Ok(()));
        assert_eq!(check_annotations(&with("a.b", limits::MAX_ANNOTATIONS - 2)), Err(Violation::AnnotationsSize));
        for key in ["", "a", "A.b", "-a.b", "a..b", "a_b.c", ".", "a.b-"] {
            assert_eq!(check_annotations(&with(key, 1)), Err(Violation::AnnotationKey), "{key:?}");
        }
    }

    #[test]
    fn text_of_a_plugin_is_one_bounded_line() {
        assert_eq!(text("not\nok"), "not ok");
        assert_eq!(text(&"x".repeat(400)).chars().count(), MAX_TEXT + 1);
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket: Socket = format!("unix://{}/none.sock", folder.path().display()).parse().unwrap();
        let error = Plugin::new(&socket, Duration::from_secs(5)).status().await.unwrap_err();
        assert!(matches!(error, KmsError::Connect { .. }), "{error:?}");
        assert!(error.to_string().contains("none.sock: No such file or directory"), "{error}");
    }
}
