//! Requests to the objects of one resource. The caller decides what it decodes of the answers.

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, GetParams, ListParams, Preconditions};
use kube::core::Request;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::apply::{self, Run};
use super::{CallError, call, call_with};

/// Items of one page of a list.
const PAGE: u32 = 500;

/// The objects of one resource in one namespace, or in all.
#[derive(Clone)]
pub struct ObjectApi {
    client: Client,
    url: String,
}

/// How much of each object of a list the API server sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// The whole object.
    Whole,
    /// Its metadata.
    Metadata,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMeta,
    /// An empty list of metadata comes as `null`.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue", default)]
    next: Option<String>,
}

/// The answer to a deletion: the object or a status, and in any case of some kind. An answer without a kind did not come
/// from an API server, and says nothing about the object.
#[derive(Deserialize)]
struct Deleted {
    #[serde(rename = "kind")]
    _kind: String,
}

impl ObjectApi {
    /// The objects of one namespace.
    #[must_use]
    pub fn namespaced<K>(client: Client, namespace: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self { client, url: K::url_path(&(), Some(namespace)) }
    }

    /// The objects of all namespaces: to list only.
    #[must_use]
    pub(super) fn all<K>(client: Client) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self { client, url: K::url_path(&(), None) }
    }

    /// One object, read live; `None` if it is not found.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CallError> {
        self.get_with(name, |answer| serde_json::from_slice(answer)).await
    }

    /// The same, decoded by `decode`.
    pub async fn get_with<T>(
        &self,
        name: &str,
        decode: impl FnOnce(&[u8]) -> serde_json::Result<T> + Send,
    ) -> Result<Option<T>, CallError> {
        let request = self.request().get(name, &GetParams::default()).map_err(CallError::request)?;
        match call_with(&self.client, request, decode).await {
            Err(CallError::Refused(refusal)) if refusal.is_not_found() => Ok(None),
            result => result.map(Some),
        }
    }

    /// All objects that `params` select, read live in pages; `seen` is told after each page how many there are so far.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        params: ListParams,
        content: Content,
        mut seen: impl FnMut(usize),
    ) -> Result<Vec<T>, CallError> {
        let (mut found, mut params) = (Vec::new(), params.limit(PAGE));
        loop {
            let (items, next) = self.page(&params, content).await?;
            found.extend(items);
            seen(found.len());
            match next {
                Some(next) if !next.is_empty() => params = params.continue_token(&next),
                _ => return Ok(found),
            }
        }
    }

    /// One page, and the token of the next one.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        params: &ListParams,
        content: Content,
    ) -> Result<(Vec<T>, Option<String>), CallError> {
        let request = match content {
            Content::Whole => self.request().list(params),
            Content::Metadata => self.request().list_metadata(params),
        };
        let page: List<T> = call(&self.client, request.map_err(CallError::request)?).await?;
        Ok((page.items.unwrap_or_default(), page.metadata.next))
    }

    /// Writes the whole object by a forced server-side apply of our field manager, or asks what that would store. `body`
    /// has `apiVersion`, `kind` and `metadata.name`; a uid and a resourceVersion in its metadata are preconditions.
    pub async fn apply<T: DeserializeOwned>(
        &self,
        name: &str,
        run: Run,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CallError> {
        self.apply_with(name, run, body, |answer| serde_json::from_slice(answer)).await
    }

    /// The same, its answer decoded by `decode`.
    pub async fn apply_with<T>(
        &self,
        name: &str,
        run: Run,
        body: &(impl Serialize + Sync),
        decode: impl FnOnce(&[u8]) -> serde_json::Result<T> + Send,
    ) -> Result<T, CallError> {
        call_with(&self.client, apply::apply(&self.request(), name, run, body)?, decode).await
    }

    /// Changes what `body` names by a merge patch, or asks what that would store. A uid and a resourceVersion in the metadata
    /// of `body` are preconditions.
    pub async fn merge<T: DeserializeOwned>(
        &self,
        name: &str,
        run: Run,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CallError> {
        call(&self.client, apply::merge(&self.request(), name, run, body)?).await
    }

    /// Applies what is left in an adopted Secret, by a field manager of its own: it stays when ours gives it up.
    pub async fn apply_left<T>(
        &self,
        name: &str,
        body: &(impl Serialize + Sync),
        decode: impl FnOnce(&[u8]) -> serde_json::Result<T> + Send,
    ) -> Result<T, CallError> {
        call_with(&self.client, apply::apply_left(&self.request(), name, body)?, decode).await
    }

    /// Writes the marks on a workload by a forced server-side apply of a field manager of their own. A uid in the metadata of
    /// `body` is a precondition.
    pub async fn apply_marks<T: DeserializeOwned>(
        &self,
        name: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CallError> {
        call(&self.client, apply::apply_marks(&self.request(), name, body)?).await
    }

    /// Writes the status by a forced server-side apply of our field manager. The API server ignores a uid here; a
    /// resourceVersion in the metadata of `body` is a precondition.
    pub async fn apply_status<T: DeserializeOwned>(
        &self,
        name: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CallError> {
        call(&self.client, apply::apply_status(&self.request(), name, body)?).await
    }

    /// Deletes exactly this object at this version; `false` if it is not found.
    pub async fn delete(&self, name: &str, uid: &str, resource_version: &str) -> Result<bool, CallError> {
        let preconditions =
            Preconditions { uid: Some(uid.to_owned()), resource_version: Some(resource_version.to_owned()) };
        let params = DeleteParams::default().preconditions(preconditions);
        let request = self.request().delete(name, &params).map_err(CallError::request)?;
        match call::<Deleted>(&self.client, request).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused(refusal)) if refusal.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn request(&self) -> Request {
        Request::new(&self.url)
    }
}
