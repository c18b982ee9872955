//! Checks whether a caller may read a stored value.
//!
//! In: the caller, and the permission that reading needs. Out: the API server's verdict (LocalSubjectAccessReview), cached
//! for a short time. No answer in time counts as a denial: then the webhook encrypts the value again, and the caller learns
//! nothing.

use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{LocalSubjectAccessReview, ResourceAttributes, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::warn;

use super::{
    review::UserInfo,
    seal::{Permission, Resource},
};
use crate::access::cache::{Cache, digest};

/// How long a verdict is cached.
const CACHED_FOR: Duration = Duration::from_secs(30);
/// Limit of cached verdicts.
const MAX_VERDICTS: usize = 1024;
/// How long the API server may take to answer: less than the webhook has for a request (8 s), but not much less, because
/// without an answer an unchanged value becomes a new generation.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the API server and caches its verdicts.
pub struct Access {
    client: Client,
    verdicts: Mutex<Cache<bool>>,
}

/// Everything that a verdict depends on.
#[derive(Clone, Debug)]
struct Question<'a> {
    user: &'a UserInfo,
    namespace: &'a str,
    resource: Resource<'a>,
}

impl Access {
    /// Uses this client, which needs permission to create LocalSubjectAccessReviews.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, verdicts: Mutex::new(Cache::new(MAX_VERDICTS)) }
    }

    /// Whether `user` has `permission` in `namespace`. The ways to it are checked at the same time.
    pub(super) async fn has(&self, user: &UserInfo, namespace: &str, permission: &Permission) -> bool {
        let all_of = async |way: Vec<Resource<'_>>| {
            let answers = way.into_iter().map(|resource| self.answer(Question { user, namespace, resource }));
            join_all(answers).await.into_iter().all(|allowed| allowed)
        };
        join_all(permission.ways().into_iter().map(all_of)).await.into_iter().any(|allowed| allowed)
    }

    async fn answer(&self, question: Question<'_>) -> bool {
        let namespace = question.namespace;
        let review = question.review();
        let Some(digest) = digest(&review) else { return false };
        if let Some(known) = self.verdicts.lock().get(&digest, Instant::now()) {
            return known;
        }
        let api = Api::<LocalSubjectAccessReview>::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        match timeout(PATIENCE, api.create(&params, &review)).await {
            Ok(Ok(answer)) => {
                let allowed = answer.status.is_some_and(|status| status.allowed);
                self.verdicts.lock().put(digest, allowed, CACHED_FOR, Instant::now());
                allowed
            }
            Ok(Err(error)) => {
                warn!(namespace, %error, "could not check a caller's permission; encrypting the value again");
                false
            }
            Err(_) => {
                warn!(namespace, "could not check a caller's permission in time; encrypting the value again");
                false
            }
        }
    }
}

impl Question<'_> {
    fn review(&self) -> LocalSubjectAccessReview {
        let Self { user, namespace, resource: (group, resource, subresource, name) } = *self;
        let namespace = namespace.to_owned();
        LocalSubjectAccessReview {
            metadata: kube::api::ObjectMeta { namespace: Some(namespace.clone()), ..kube::api::ObjectMeta::default() },
            spec: SubjectAccessReviewSpec {
                user: Some(user.username.clone()),
                uid: Some(user.uid.clone()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace),
                    verb: Some("get".to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(name.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use managed_secrets_api::value;

    use super::*;

    const SECRET: Resource<'static> = ("", "secrets", "", "db");
    const VALUE: Resource<'static> = (value::GROUP, value::PLURAL, "", "db");

    fn user(name: &str) -> UserInfo {
        UserInfo { username: name.to_owned(), ..UserInfo::default() }
    }

    #[test]
    fn a_verdict_is_for_one_question() {
        let of = |user: &UserInfo, namespace, resource| digest(&Question { user, namespace, resource }.review());
        let ann = user("ann");
        let grouped = UserInfo { groups: vec!["readers".to_owned()], ..ann.clone() };
        let known = UserInfo { extra: [("scopes".to_owned(), vec!["x".to_owned()])].into(), ..ann.clone() };
        let asked = of(&ann, "shop", SECRET);
        assert!(asked.is_some());
        for (user, namespace, resource) in [
            (&user("bob"), "shop", SECRET),
            (&ann, "shop", VALUE),
            (&ann, "prod", SECRET),
            (&grouped, "shop", SECRET),
            (&known, "shop", SECRET),
        ] {
            assert_ne!(of(user, namespace, resource), asked, "{user:?} {namespace} {resource:?}");
        }
    }

    #[test]
    fn the_review_names_the_caller_and_the_permission() {
        let review = Question { user: &user("ann"), namespace: "shop", resource: VALUE }.review();
        let attributes = review.spec.resource_attributes.unwrap_or_default();
        assert_eq!(review.spec.user.as_deref(), Some("ann"));
        assert_eq!(attributes.group.as_deref(), Some("values.managedsecrets.dev"));
        assert_eq!(attributes.resource.as_deref(), Some("secretvalues"));
        assert_eq!(attributes.name.as_deref(), Some("db"));
    }
}
