//! Discovery and `OpenAPI`: what the API server and kubectl read of the value API. Anyone may read it, and it contains
//! nothing of a secret.
//!
//! While the API server cannot read these documents, it deletes no namespace: it cannot know what is in one. So they need
//! neither a certificate nor a key.

use std::sync::LazyLock;

use axum::{body::Bytes, response::Response};
use http::{HeaderMap, header};
use managed_secrets_api::value::{GROUP, KIND, PLURAL, SINGULAR, VERB, VERSION, VERSION_PARAMETER};
use serde_json::{Value, json};

use super::{
    answer::{kind, with_body},
    path::Route,
};

/// The media type of aggregated discovery, which the API server prefers (`/apis` in one document).
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The name of the schema.
const SCHEMA: &str = "dev.managedsecrets.values.v1alpha1.SecretValue";
/// The description of the kind.
const DESCRIPTION: &str = "The value of a secret. It can only be read, by the secret's name or id.";

/// The documents as they are sent. They are built once, so a request for one costs no more than its refusal would.
struct Documents {
    aggregated: Bytes,
    groups: Bytes,
    group: Bytes,
    resources: Bytes,
    openapi_index: Bytes,
    openapi_v3: Bytes,
    openapi_v2: Bytes,
}

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
    let bytes = |document: Value| Bytes::from(document.to_string());
    let index = json!({"paths": {
        format!("apis/{GROUP}/{VERSION}"): {"serverRelativeURL": format!("/openapi/v3/apis/{GROUP}/{VERSION}")},
    }});
    let mut only = group();
    only["kind"] = json!("APIGroup");
    only["apiVersion"] = json!("v1");
    Documents {
        aggregated: bytes(aggregated()),
        groups: bytes(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})),
        group: bytes(only),
        resources: bytes(resources()),
        openapi_index: bytes(index),
        openapi_v3: bytes(openapi(OpenApi::V3)),
        openapi_v2: bytes(openapi(OpenApi::V2)),
    }
});

/// Answers a request for a document; `None` if the route is none.
pub(super) fn answer(route: &Route, headers: &HeaderMap) -> Option<Response> {
    let documents = &*DOCUMENTS;
    let document = match route {
        Route::Health => return Some(with_body("ok", "text/plain; charset=utf-8")),
        Route::Groups if accepts_aggregated(headers) => {
            return Some(with_body(documents.aggregated.clone(), AGGREGATED));
        }
        Route::Groups => &documents.groups,
        Route::Group => &documents.group,
        Route::Resources => &documents.resources,
        Route::OpenApiIndex => &documents.openapi_index,
        Route::OpenApiV3 => &documents.openapi_v3,
        Route::OpenApiV2 => &documents.openapi_v2,
        Route::Collection | Route::Value { .. } => return None,
    };
    Some(with_body(document.clone(), "application/json"))
}

fn accepts_aggregated(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|accept| accept.split(',')).any(|clause| {
        let has = |wanted: &str| clause.split(';').any(|part| part.trim() == wanted);
        has("application/json") && has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [
            {"name": PLURAL, "singularName": SINGULAR, "namespaced": true, "kind": KIND, "verbs": [VERB]},
        ],
    })
}

fn aggregated() -> Value {
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": [{
            "metadata": {"name": GROUP},
            "versions": [{
                "version": VERSION,
                "freshness": "Current",
                "resources": [{
                    "resource": PLURAL,
                    "responseKind": kind(),
                    "scope": "Namespaced",
                    "singularResource": SINGULAR,
                    "verbs": [VERB],
                }],
            }],
        }],
    })
}

fn info() -> Value {
    json!({"title": "managed-secrets: the value API", "version": VERSION})
}

fn path() -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{PLURAL}/{{name}}")
}

fn schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let time = |description: &str| json!({"type": "string", "format": "date-time", "description": description});
    json!({
        "type": "object",
        "description": DESCRIPTION,
        "required": ["metadata", "status"],
        "properties": {
            "apiVersion": text("The version of this schema."),
            "kind": text("The kind of this object."),
            "metadata": {"type": "object", "description": "Name and namespace of the secret; the uid is its id."},
            "status": {
                "type": "object",
                "description": "The value and its version.",
                "required": ["id", "name", "version", "updatedDate", "valueUpdatedTime", "value"],
                "properties": {
                    "id": text("The secret's id (UUID)."),
                    "name": text("The secret's name."),
                    "version": {
                        "type": "integer", "format": "int64", "description": "Counts the values of the secret, from 1.",
                    },
                    "updatedDate": time("When name, description or value last changed."),
                    "valueUpdatedTime": time("When the value last changed."),
                    "value": text("The value."),
                },
            },
        },
        "x-kubernetes-group-version-kind": [kind()],
    })
}

fn operation() -> Value {
    json!({
        "description": "Reads the value of a secret, by its name or id.",
        "operationId": "readValuesManagedsecretsDevV1alpha1NamespacedSecretValue",
        "tags": ["values_v1alpha1"],
        "x-kubernetes-action": VERB,
        "x-kubernetes-group-version-kind": kind(),
    })
}

const NAME: &str = "The secret's name or id.";
const NAMESPACE: &str = "The namespace of the secret.";
const ASKED_VERSION: &str = "The version of the value; the one that is delivered if absent.";

/// The two versions of `OpenAPI` that the API server and kubectl read. They say the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OpenApi {
    V2,
    V3,
}

fn openapi(version: OpenApi) -> Value {
    let parameter = |name: &str, place: &str, type_: &str, description: &str| {
        let mut parameter = json!({"name": name, "in": place, "required": place == "path", "description": description});
        match version {
            OpenApi::V2 => parameter["type"] = json!(type_),
            OpenApi::V3 => parameter["schema"] = json!({"type": type_}),
        }
        parameter
    };
    let mut get = operation();
    get["parameters"] = json!([parameter(VERSION_PARAMETER, "query", "integer", ASKED_VERSION)]);
    let mut document = json!({"info": info()});
    let schemas = json!({SCHEMA: schema()});
    let answer = match version {
        OpenApi::V2 => {
            document["swagger"] = json!("2.0");
            document["definitions"] = schemas;
            get["produces"] = json!(["application/json"]);
            json!({"schema": {"$ref": format!("#/definitions/{SCHEMA}")}})
        }
        OpenApi::V3 => {
            document["openapi"] = json!("3.0.0");
            document["components"] = json!({"schemas": schemas});
            let content = json!({"schema": {"$ref": format!("#/components/schemas/{SCHEMA}")}});
            json!({"content": {"application/json": content}})
        }
    };
    get["responses"] = json!({"200": answer});
    get["responses"]["200"]["description"] = json!("OK");
    let in_path = [parameter("namespace", "path", "string", NAMESPACE), parameter("name", "path", "string", NAME)];
    document["paths"] = json!({path(): {"get": get, "parameters": in_path}});
    document
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn aggregated_discovery_is_given_to_clients_that_ask_for_it() {
        let asks = |accept: &str| {
            accepts_aggregated(&[(header::ACCEPT, HeaderValue::from_str(accept).unwrap())].into_iter().collect())
        };
        assert!(asks(AGGREGATED));
        assert!(asks(&format!("application/json;q=0.1, {}", AGGREGATED.replace(';', "; "))));
        assert!(!asks("application/json"));
        assert!(!asks("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"));
    }

    #[test]
    fn the_only_verb_is_get_in_every_document() {
        assert_eq!(resources()["resources"][0]["verbs"], json!(["get"]));
        assert_eq!(aggregated()["items"][0]["versions"][0]["resources"][0]["verbs"], json!(["get"]));
        for document in [OpenApi::V2, OpenApi::V3].map(openapi) {
            let operations: Vec<_> = document["paths"][path()].as_object().unwrap().keys().collect();
            assert_eq!(operations, ["get", "parameters"]);
        }
    }
}
