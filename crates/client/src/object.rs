//! A Secret as we read and write it; its data shows in no `Debug`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A Secret. `data` left empty is left out: applied like that, it deletes the data that stands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SecretObject {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its type; never absent in what the server sends.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Whether its data can never change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Its data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, SecretBytes>,
}

/// Bytes of a Secret's data. Zeroized on drop; shows nothing.
#[derive(Clone, Default, PartialEq)]
pub struct SecretBytes(pub Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// A copy of these bytes.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(self.as_slice())))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A null is an empty value: the server's own types have it so.
        let text = Zeroizing::new(Option::<String>::deserialize(deserializer)?.unwrap_or_default());
        let bytes = BASE64_STANDARD.decode(text.as_bytes());
        bytes.map(|bytes| Self(Zeroizing::new(bytes))).map_err(|_| serde::de::Error::custom("must be base64"))
    }
}

/// An object as a server-side apply wants it, and as a file holds it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest<'a> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    object: &'a SecretObject,
}

impl<'a> From<&'a SecretObject> for Manifest<'a> {
    fn from(object: &'a SecretObject) -> Self {
        Self { api_version: "v1", kind: "Secret", object }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_back_as_it_was_and_shows_no_data() {
        let object = SecretObject {
            metadata: ObjectMeta { name: Some("db".to_owned()), ..ObjectMeta::default() },
            type_: Some("Opaque".to_owned()),
            data: [("value".to_owned(), SecretBytes::copy_of(b"hunter2"))].into(),
            ..SecretObject::default()
        };
        let json = serde_json::to_value(Manifest::from(&object)).unwrap();
        let expected = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "type": "Opaque",
            "data": {"value": "aHVudGVyMg=="},
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<SecretObject>(json).unwrap(), object);
        let shown = format!("{object:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("104") && !shown.contains("aHVu"), "{shown}");
    }

    #[test]
    fn items_of_a_list_have_no_kind_and_data_may_be_null() {
        let object: SecretObject =
            serde_json::from_value(serde_json::json!({"metadata": {}, "data": {"a": null}})).unwrap();
        assert_eq!(object.data["a"].as_slice(), b"");
        let wrong = serde_json::json!({"metadata": {}, "data": {"a": "hunter2!"}});
        let error = serde_json::from_value::<SecretObject>(wrong).unwrap_err().to_string();
        assert_eq!(error, "must be base64");
    }
}
