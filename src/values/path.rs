//! Reads the path and the query of a request. Pure.
//!
//! Nothing is normalised: the API server may decode a path in another way, and a value must be read under no other name
//! than the one that the permission is checked for. So a path has an exact number of segments, each is decoded once, and
//! each must follow its rule.

use std::borrow::Cow;

use managed_secrets_api::{
    is_namespace_name,
    limits::{NAME_MAX, NAME_SYMBOLS},
    value::{GROUP, Handle, PLURAL, VERSION, VERSION_PARAMETER},
};
use percent_encoding::percent_decode_str;

/// What a path names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Route {
    /// Whether the server answers.
    Health,
    /// Every API group: the one of the value API.
    Groups,
    /// The API group.
    Group,
    /// The resources of the API group.
    Resources,
    /// The index of `OpenAPI` documents, version 3.
    OpenApiIndex,
    /// The document of the API group, `OpenAPI` version 3.
    OpenApiV3,
    /// The document of the API group, `OpenAPI` version 2.
    OpenApiV2,
    /// All values of one namespace, or of all: they cannot be listed.
    Collection,
    /// One value.
    Value {
        /// Its namespace.
        namespace: String,
        /// The secret's name or id, as it was given.
        name: String,
    },
}

/// Why a path or query names nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Wrong {
    /// The path has another form.
    #[error("the path does not exist")]
    Path,
    /// The namespace is none.
    #[error("the namespace must be a DNS label (RFC 1123)")]
    Namespace,
    /// The name is neither a name nor an id.
    #[error(
        "the name must be an id (a UUID), or have 1 to {NAME_MAX} letters, digits and characters of {NAME_SYMBOLS}"
    )]
    Name,
    /// The version is none.
    #[error("{VERSION_PARAMETER} must be a number from 1, given once")]
    Version,
}

/// First segments of all paths that belong to the value API. The webhooks' secret paths are longer.
const FIRST: [&str; 5] = ["apis", "openapi", "livez", "readyz", "healthz"];

/// Whether a path belongs to the value API.
pub(super) fn is_ours(path: &str) -> bool {
    path.strip_prefix('/').and_then(|path| path.split('/').next()).is_some_and(|first| FIRST.contains(&first))
}

/// Reads a path as it stands in the request.
pub(super) fn parse(path: &str) -> Result<Route, Wrong> {
    let path = path.strip_prefix('/').ok_or(Wrong::Path)?;
    let decoded: Option<Vec<String>> = path.split('/').map(decoded).collect();
    let segments = decoded.ok_or(Wrong::Path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["livez" | "readyz" | "healthz"] => Ok(Route::Health),
        ["apis"] => Ok(Route::Groups),
        ["openapi", "v2"] => Ok(Route::OpenApiV2),
        ["openapi", "v3"] => Ok(Route::OpenApiIndex),
        ["openapi", "v3", "apis", GROUP, VERSION] => Ok(Route::OpenApiV3),
        ["apis", GROUP] => Ok(Route::Group),
        ["apis", GROUP, VERSION] => Ok(Route::Resources),
        ["apis", GROUP, VERSION, PLURAL] => Ok(Route::Collection),
        ["apis", GROUP, VERSION, "namespaces", namespace, PLURAL] => {
            valid_namespace(namespace).map(|_| Route::Collection)
        }
        ["apis", GROUP, VERSION, "namespaces", namespace, PLURAL, name] => {
            let namespace = valid_namespace(namespace)?;
            let handle = Handle::parse(name).ok_or(Wrong::Name)?;
            Ok(Route::Value { namespace: namespace.to_owned(), name: handle.as_str().to_owned() })
        }
        _ => Err(Wrong::Path),
    }
}

/// Reads the version that a query asks for; `None` is the current one. Other parameters of Kubernetes have no meaning here
/// and are ignored, as the API server does.
pub(super) fn version(query: Option<&str>) -> Result<Option<u64>, Wrong> {
    let mut asked = None;
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key).as_deref() != Some(VERSION_PARAMETER) {
            continue;
        }
        let value = decoded(value).ok_or(Wrong::Version)?;
        let number = value.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == value);
        if asked.replace(number.ok_or(Wrong::Version)?).is_some() {
            return Err(Wrong::Version);
        }
    }
    Ok(asked)
}

fn valid_namespace(text: &str) -> Result<&str, Wrong> {
    Some(text).filter(|text| is_namespace_name(text)).ok_or(Wrong::Namespace)
}

/// Decodes a segment once. `None` if an escape is incomplete, or if the bytes are not UTF-8.
fn decoded(segment: &str) -> Option<String> {
    let is_whole = segment
        .split('%')
        .skip(1)
        .all(|after| after.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)));
    if !is_whole {
        return None;
    }
    percent_decode_str(segment).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const FRONT: &str = "/apis/values.managedsecrets.dev/v1alpha1/namespaces/shop/secretvalues";

    fn value(name: &str) -> Result<Route, Wrong> {
        parse(&format!("{FRONT}/{name}"))
    }

    #[test]
    fn a_value_is_read_under_the_name_that_stands_in_the_path() {
        for (given, read) in [
            ("DB", "DB"),
            ("a%23b", "a#b"),
            ("%44B", "DB"),
            ("_+=-@$", "_+=-@$"),
            ("2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11", "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11"),
        ] {
            let expected = Route::Value { namespace: "shop".to_owned(), name: read.to_owned() };
            assert_eq!(value(given), Ok(expected), "{given}");
        }
    }

    #[test]
    fn nothing_is_normalised_and_no_segment_is_decoded_twice() {
        for wrong in
            ["..", ".", "a%2Fb", "a%252Fb", "%2e%2e", "a%", "a%2", "a%zz", "a%ff", "a b", "a%00", "a%0A", "a.b"]
        {
            assert!(value(wrong).is_err(), "{wrong}");
        }
        assert_eq!(value(&"n".repeat(NAME_MAX + 1)), Err(Wrong::Name));
        for wrong in [
            format!("{FRONT}/"),
            format!("{FRONT}/DB/"),
            format!("{FRONT}//DB"),
            format!("/{FRONT}/DB"),
            format!("{FRONT}/DB/status"),
            format!("{FRONT}/./DB"),
            format!("{FRONT}/x/../DB"),
            FRONT.replace("shop", "..") + "/DB",
            FRONT.replace("shop", "Shop") + "/DB",
            FRONT.replace("shop", "shop%2Fx") + "/DB",
            FRONT.replace("shop", "") + "/DB",
            FRONT.replace("v1alpha1", "v1") + "/DB",
            FRONT.replace("values.", "") + "/DB",
            "/apis/".to_owned(),
            "/".to_owned(),
            String::new(),
            "*".to_owned(),
            "/openapi/v3/apis".to_owned(),
        ] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn documents_and_collections_have_their_paths() {
        for (path, route) in [
            ("/readyz", Route::Health),
            ("/apis", Route::Groups),
            ("/apis/values.managedsecrets.dev", Route::Group),
            ("/apis/values.managedsecrets.dev/v1alpha1", Route::Resources),
            ("/apis/values.managedsecrets.dev/v1alpha1/secretvalues", Route::Collection),
            (FRONT, Route::Collection),
            ("/openapi/v2", Route::OpenApiV2),
            ("/openapi/v3", Route::OpenApiIndex),
            ("/openapi/v3/apis/values.managedsecrets.dev/v1alpha1", Route::OpenApiV3),
        ] {
            assert_eq!(parse(path), Ok(route), "{path}");
            assert!(is_ours(path), "{path}");
        }
        for other in ["/", "", "/0123abcd/seal", "/metrics", "//apis"] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn a_version_is_one_number() {
        for (query, expected) in
            [(None, None), (Some(""), None), (Some("pretty=true"), None), (Some("a=b&version=3"), Some(3))]
        {
            assert_eq!(version(query), Ok(expected), "{query:?}");
        }
        for wrong in
            ["version", "version=", "version=0", "version=03", "version=-1", "version=x", "version=1&version=1"]
        {
            assert_eq!(version(Some(wrong)), Err(Wrong::Version), "{wrong}");
        }
    }
}
