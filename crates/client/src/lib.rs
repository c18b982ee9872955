//! Reads and writes of Secrets that leave no trace of their content.
//!
//! kube's own calls log a whole body at WARN when it does not decode, and a refused request's status at DEBUG; the
//! server's message in it can quote a part of the value (kube-client 5.0, `client/mod.rs`). So here requests go through
//! [`kube::Client::send`], which logs neither, and answers are decoded and judged by this module. Of a refusal, only
//! code, reason, causes and field paths survive.

mod answer;
mod apply;
mod error;
mod object;
mod objects;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::ListParams;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::answer::Answer;
pub use self::apply::Run;
pub use self::error::{CallError, Refusal, RefusalKind};
pub use self::object::Manifest;
pub use self::object::{SecretBytes, SecretObject};
use self::objects::Content;
pub use self::objects::ObjectApi;

/// A resourceVersion that no live object has: an apply that carries it creates (201) or is refused (409), and never
/// overwrites. Undocumented; an integration test pins it on every supported server.
pub const CREATE_ONLY: &str = "1";

/// The Secrets of one namespace, or of all.
#[derive(Clone)]
pub struct SecretApi(ObjectApi);

/// What became of a create-only write.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// The object was created; its metadata.
    Yes(Box<ObjectMeta>),
    /// An object of this name exists; it was not touched.
    Exists,
}

/// An object of which only metadata is decoded.
#[derive(Deserialize)]
struct MetadataOnly {
    metadata: ObjectMeta,
}

impl SecretApi {
    /// The Secrets of one namespace.
    #[must_use]
    pub fn namespaced(client: Client, namespace: &str) -> Self {
        Self(ObjectApi::namespaced::<Secret>(client, namespace))
    }

    /// The Secrets of all namespaces: to list only.
    #[must_use]
    pub fn all(client: Client) -> Self {
        Self(ObjectApi::all::<Secret>(client))
    }

    /// One Secret, read live; `None` if it is not found.
    pub async fn get(&self, name: &str) -> Result<Option<SecretObject>, CallError> {
        self.0.get(name).await
    }

    /// All Secrets that a field selector selects, read live.
    pub async fn list(&self, field_selector: &str) -> Result<Vec<SecretObject>, CallError> {
        self.pages(field_selector, |_| ()).await
    }

    /// The same; `seen` is told after each page how many there are so far.
    pub async fn pages(&self, field_selector: &str, seen: impl FnMut(usize)) -> Result<Vec<SecretObject>, CallError> {
        self.0.list(ListParams::default().fields(field_selector), Content::Whole, seen).await
    }

    /// One page of the Secrets that a field selector selects, and the token of the next one; `next` is the token of this one.
    pub async fn page(
        &self,
        field_selector: &str,
        limit: u32,
        next: Option<&str>,
    ) -> Result<(Vec<SecretObject>, Option<String>), CallError> {
        let params = ListParams::default().fields(field_selector).limit(limit);
        let params = match next {
            Some(next) => params.continue_token(next),
            None => params,
        };
        self.0.page(&params, Content::Whole).await
    }

    /// Metadata of all Secrets that a field selector selects: their data is never sent.
    pub async fn list_metadata(&self, field_selector: &str) -> Result<Vec<ObjectMeta>, CallError> {
        self.metadata(ListParams::default().fields(field_selector)).await
    }

    /// Metadata of all Secrets that a label selector selects.
    pub async fn list_labelled(&self, label_selector: &str) -> Result<Vec<ObjectMeta>, CallError> {
        self.metadata(ListParams::default().labels(label_selector)).await
    }

    /// Metadata of all Secrets that both a field selector and a label selector select.
    pub async fn list_selected(&self, fields: &str, labels: &str) -> Result<Vec<ObjectMeta>, CallError> {
        self.metadata(ListParams::default().fields(fields).labels(labels)).await
    }

    async fn metadata(&self, params: ListParams) -> Result<Vec<ObjectMeta>, CallError> {
        let found = self.0.list::<MetadataOnly>(params, Content::Metadata, |_| ()).await?;
        Ok(found.into_iter().map(|object| object.metadata).collect())
    }

    /// Metadata of some Secret that a field selector selects, if there is one.
    pub async fn any(&self, field_selector: &str) -> Result<Option<ObjectMeta>, CallError> {
        let params = ListParams::default().fields(field_selector).limit(1);
        let (items, _) = self.0.page::<MetadataOnly>(&params, Content::Metadata).await?;
        Ok(items.into_iter().next().map(|object| object.metadata))
    }

    /// Writes the whole object by a forced server-side apply; its new metadata. A uid and a resourceVersion in its
    /// metadata are preconditions.
    pub async fn apply(&self, object: &SecretObject) -> Result<ObjectMeta, CallError> {
        self.patch(object, Run::Real).await
    }

    /// Changes what `body` names by a merge patch, or asks what that would store; the whole Secret as it is then. A uid and a
    /// resourceVersion in the metadata of `body` are preconditions.
    pub async fn merge(&self, name: &str, run: Run, body: &(impl Serialize + Sync)) -> Result<SecretObject, CallError> {
        self.0.merge(name, run, body).await
    }

    async fn patch(&self, object: &SecretObject, run: Run) -> Result<ObjectMeta, CallError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let written: MetadataOnly = self.0.apply(name, run, &Manifest::from(object)).await?;
        Ok(written.metadata)
    }

    /// Creates the object unless one of this name exists.
    pub async fn create(&self, object: SecretObject) -> Result<Created, CallError> {
        self.create_only(object, Run::Real).await
    }

    /// Has the API server say what [`SecretApi::create`] would do, and write nothing.
    pub async fn create_dry_run(&self, object: SecretObject) -> Result<Created, CallError> {
        self.create_only(object, Run::Dry).await
    }

    async fn create_only(&self, object: SecretObject, run: Run) -> Result<Created, CallError> {
        let mut object = object;
        object.metadata.resource_version = Some(CREATE_ONLY.to_owned());
        match self.patch(&object, run).await {
            Ok(metadata) => Ok(Created::Yes(Box::new(metadata))),
            Err(CallError::Refused(refusal)) if refusal.is_conflict() => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }

    /// Deletes exactly this object at this version; `false` if it is not found.
    pub async fn delete(&self, name: &str, uid: &str, resource_version: &str) -> Result<bool, CallError> {
        self.0.delete(name, uid, resource_version).await
    }
}

/// Sends a request and decodes the answer. Neither of them is ever logged.
pub async fn call<T: DeserializeOwned>(client: &Client, request: http::Request<Vec<u8>>) -> Result<T, CallError> {
    call_with(client, request, |body| serde_json::from_slice(body)).await
}

/// The same with another way to decode the answer. Large answers are read and decoded a few at a time.
pub async fn call_with<T>(
    client: &Client,
    request: http::Request<Vec<u8>>,
    decode: impl FnOnce(&[u8]) -> serde_json::Result<T>,
) -> Result<T, CallError> {
    let response = client.send(request.map(kube::client::Body::from)).await.map_err(CallError::transport)?;
    let (head, body) = response.into_parts();
    let answer = Answer::read(body).await?;
    if head.status.is_success() {
        decode(answer.bytes()).map_err(|_| CallError::Malformed)
    } else {
        Err(CallError::Refused(Refusal::read(head.status, &head.headers, answer.bytes())))
    }
}
