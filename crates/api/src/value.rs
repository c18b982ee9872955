//! The value API: a second API group, by which a value is read by the secret's name or id.
//!
//! The operator answers it, and stores nothing of it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{limits::NAME_MAX, rules::text::is_secret_friendly_name, validate::is_namespace_name};

/// API group of the value API.
pub const GROUP: &str = "values.managedsecrets.dev";
/// Version of the value API.
pub const VERSION: &str = "v1alpha1";
/// Kind of what it answers with.
pub const KIND: &str = "SecretValue";
/// Plural of that kind: the resource that permissions name.
pub const PLURAL: &str = "secretvalues";
/// Singular of that kind.
pub const SINGULAR: &str = "secretvalue";
/// The only verb of the resource.
pub const VERB: &str = "get";
/// The resource as kubectl writes it: PLURAL.GROUP.
pub const RESOURCE: &str = "secretvalues.values.managedsecrets.dev";
/// Subresource of ManagedSecrets that stood for the permission to read a value before this API existed. For one release,
/// policies and the webhook still accept `get` on it.
pub const FORMER_SUBRESOURCE: &str = "value";
/// Name of the APIService that sends the group to the operator.
pub const API_SERVICE: &str = "v1alpha1.values.managedsecrets.dev";
/// Audience of a token for a request that does not go through the API server. The API server refuses such a token, so it
/// cannot be used there.
pub const TOKEN_AUDIENCE: &str = "managedsecrets.dev";
/// Query parameter that asks for one version of a value.
pub const VERSION_PARAMETER: &str = "version";

/// Name of the ClusterRole that lets the operator serve the API. It owns the APIService, so that Kubernetes deletes the
/// APIService with it: a registered API without a server stops the deletion of every namespace.
pub const CLUSTER_ROLE: &str = "managed-secrets-value-api";

/// Returns the name of the Service to which the API server sends requests of the API, for an installation whose webhooks have
/// the Service `webhooks`. It is a Service of its own, because it also names replicas that are not ready: while a registered
/// API does not answer, the API server deletes no namespace, and a replica answers discovery before it is ready.
#[must_use]
pub fn service_name(webhooks: &str) -> String {
    format!("{webhooks}-values")
}

/// How a request names a secret.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Handle<'a> {
    /// By its id.
    Id(&'a str),
    /// By its name.
    Name(&'a str),
}

impl<'a> Handle<'a> {
    /// Reads a name or an id; `None` if the text is neither. A lower-case UUID is always an id.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if is_id(text) {
            return Some(Self::Id(text));
        }
        let is_name = !text.is_empty() && text.chars().count() <= NAME_MAX && is_secret_friendly_name(text);
        is_name.then_some(Self::Name(text))
    }

    /// Returns the text as it was given. Permissions are asked for this text.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Id(text) | Self::Name(text) => text,
        }
    }
}

/// Whether a text is an id: a UUID with lower-case digits, in the form that the operator writes.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

/// Returns the path of a value, as both the API server and the operator serve it. `None` if the namespace is not valid.
#[must_use]
pub fn path(namespace: &str, handle: Handle<'_>) -> Option<String> {
    is_namespace_name(namespace).then(|| {
        // Of all characters of a name, only this one has a meaning in a URL.
        let name = handle.as_str().replace('#', "%23");
        format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}")
    })
}

/// A value with what describes it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretValue {
    /// `values.managedsecrets.dev/v1alpha1`.
    pub api_version: String,
    /// `SecretValue`.
    pub kind: String,
    /// Which secret it is.
    pub metadata: SecretValueMetadata,
    /// The value.
    pub status: SecretValueStatus,
}

/// Which secret a [`SecretValue`] is of. It has no resourceVersion: it cannot be watched.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SecretValueMetadata {
    /// The secret's name, also if the request names its id.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its id.
    pub uid: String,
}

/// A value and its version.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretValueStatus {
    /// The secret's id (UUID).
    pub id: String,
    /// The secret's name.
    pub name: String,
    /// Counts the values of the secret, from 1.
    pub version: u64,
    /// When name, description or value last changed, RFC 3339.
    pub updated_date: String,
    /// When the value last changed, RFC 3339.
    pub value_updated_time: String,
    /// The value.
    pub value: ValueText,
}

impl SecretValue {
    /// Builds an answer.
    #[must_use]
    pub fn new(namespace: &str, status: SecretValueStatus) -> Self {
        Self {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: KIND.to_owned(),
            metadata: SecretValueMetadata {
                name: status.name.clone(),
                namespace: namespace.to_owned(),
                uid: status.id.clone(),
            },
            status,
        }
    }
}

/// The text of a value. Zeroized on drop; its `Debug` shows nothing.
#[derive(Clone, Eq, PartialEq)]
pub struct ValueText(Zeroizing<String>);

impl ValueText {
    /// Copies a value.
    #[must_use]
    pub fn copy_of(value: &str) -> Self {
        Self(Zeroizing::new(value.to_owned()))
    }

    /// Returns the value. The caller must not log it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ValueText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ValueText(…)")
    }
}

impl Serialize for ValueText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ValueText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";

    #[test]
    fn a_lower_case_uuid_is_an_id_and_every_other_name_is_a_name() {
        assert_eq!(Handle::parse(ID), Some(Handle::Id(ID)));
        let upper = ID.to_uppercase();
        let braced = format!("{}_", &ID[..35]);
        for name in ["WEATHER_API_KEY", "a", "#", "_+=-@#$", &"n".repeat(NAME_MAX), &upper, &braced] {
            assert_eq!(Handle::parse(name), Some(Handle::Name(name)));
        }
        for wrong in ["", "a b", "a/b", "a%b", "..", "ä", "a\0", &"n".repeat(NAME_MAX + 1)] {
            assert_eq!(Handle::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_path_encodes_what_a_url_would_cut_off() {
        let path = |name| path("shop", Handle::parse(name).unwrap());
        let front = "/apis/values.managedsecrets.dev/v1alpha1/namespaces/shop/secretvalues/";
        assert_eq!(path("A#b").unwrap(), format!("{front}A%23b"));
        assert_eq!(path("_+=-@$").unwrap(), format!("{front}_+=-@$"));
        assert_eq!(super::path("a/b", Handle::Name("x")), None);
    }

    #[test]
    fn an_answer_is_read_as_it_was_written_and_shows_no_value() {
        let status = SecretValueStatus {
            id: ID.to_owned(),
            name: "DB".to_owned(),
            version: 3,
            updated_date: "2026-11-23T09:00:00Z".to_owned(),
            value_updated_time: "2026-11-23T08:00:00Z".to_owned(),
            value: ValueText::copy_of("hunter2"),
        };
        let answer = SecretValue::new("shop", status);
        assert!(!format!("{answer:?}").contains("hunter2"));
        let json = serde_json::to_value(&answer).unwrap();
        let expected = json!({
            "apiVersion": "values.managedsecrets.dev/v1alpha1", "kind": "SecretValue",
            "metadata": {"name": "DB", "namespace": "shop", "uid": ID},
            "status": {
                "id": ID, "name": "DB", "version": 3, "updatedDate": "2026-11-23T09:00:00Z",
                "valueUpdatedTime": "2026-11-23T08:00:00Z", "value": "hunter2",
            },
        });
        assert_eq!(json, expected);
        let read: SecretValue = serde_json::from_value(json).unwrap();
        assert_eq!(read.status.value.as_str(), "hunter2");
        assert_eq!(API_SERVICE, format!("{VERSION}.{GROUP}"));
        assert_eq!(RESOURCE, format!("{PLURAL}.{GROUP}"));
    }
}
