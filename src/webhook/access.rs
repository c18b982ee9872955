//! Checks whether a caller may read a stored value.
//!
//! In: the caller, and the permission that reading needs. Out: the API server's verdict (LocalSubjectAccessReview), cached
//! for a short time. No answer in time counts as a denial: then the webhook encrypts the value again, and the caller learns
//! nothing.

use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{LocalSubjectAccessReview, ResourceAttributes, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::warn;

use super::{review::UserInfo, seal::Permission};
use crate::access::cache::{Cache, digest};

/// How long a verdict is cached.
const CACHED_FOR: Duration = Duration::from_secs(30);
/// Limit of cached verdicts.
const MAX_VERDICTS: usize = 1024;
/// How long the API server may take to answer: less than the webhook's own timeout (5 s), but not much less, because
/// without an answer an unchanged value becomes a new generation.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the API server and caches its verdicts.
pub struct Access {
    client: Client,
    verdicts: Mutex<Cache<bool>>,
}

/// Everything that a verdict depends on.
#[derive(Clone, Debug)]
struct Question {
    user: UserInfo,
    namespace: String,
    permission: Permission,
}

impl Access {
    /// Uses this client, which needs permission to create LocalSubjectAccessReviews.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, verdicts: Mutex::new(Cache::new(MAX_VERDICTS)) }
    }

    /// Whether `user` has `permission` in `namespace`.
    pub(super) async fn has(&self, user: &UserInfo, namespace: &str, permission: &Permission) -> bool {
        let question = Question { user: user.clone(), namespace: namespace.to_owned(), permission: permission.clone() };
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

impl Question {
    fn review(&self) -> LocalSubjectAccessReview {
        let Self { user, namespace, permission } = self;
        let (group, resource, subresource, name) = permission.parts();
        LocalSubjectAccessReview {
            metadata: kube::api::ObjectMeta { namespace: Some(namespace.clone()), ..kube::api::ObjectMeta::default() },
            spec: SubjectAccessReviewSpec {
                user: Some(user.username.clone()),
                uid: Some(user.uid.clone()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.clone()),
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
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn question(user: &str, permission: Permission) -> Question {
        let user = UserInfo { username: user.to_owned(), ..UserInfo::default() };
        Question { user, namespace: "shop".to_owned(), permission }
    }

    #[test]
    fn a_verdict_is_for_one_question() {
        let of = |question: &Question| digest(&question.review()).unwrap();
        let asked = question("ann", Permission::Secret("db".to_owned()));
        let mut grouped = asked.clone();
        grouped.user.groups.push("readers".to_owned());
        let mut known = asked.clone();
        known.user.extra.insert("scopes".to_owned(), vec!["x".to_owned()]);
        let elsewhere = Question { namespace: "prod".to_owned(), ..asked.clone() };
        for other in [
            question("bob", Permission::Secret("db".to_owned())),
            question("ann", Permission::Value("db".to_owned())),
            grouped,
            known,
            elsewhere,
        ] {
            assert_ne!(of(&asked), of(&other), "{other:?}");
        }
    }

    #[test]
    fn the_review_names_the_caller_and_the_permission() {
        let review = question("ann", Permission::Value("db".to_owned())).review();
        let attributes = review.spec.resource_attributes.unwrap();
        assert_eq!(review.spec.user.as_deref(), Some("ann"));
        assert_eq!(attributes.group.as_deref(), Some("managedsecrets.dev"));
        assert_eq!(attributes.resource.as_deref(), Some("managedsecrets"));
        assert_eq!(attributes.subresource.as_deref(), Some("value"));
        assert_eq!(attributes.name.as_deref(), Some("db"));
    }
}
