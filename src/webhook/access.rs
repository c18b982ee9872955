//! Checks whether a caller may read a stored value.
//!
//! In: the caller, and the permission that reading needs. Out: the API server's verdict (LocalSubjectAccessReview), cached
//! for a short time. No answer in time counts as a denial: then the webhook encrypts the value again, and the caller learns
//! nothing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::authorization::v1::{LocalSubjectAccessReview, ResourceAttributes, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tracing::warn;

use super::{review::UserInfo, seal::Permission};

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
    verdicts: Mutex<Verdicts>,
}

/// Everything that a verdict depends on.
#[derive(Clone, Debug)]
struct Question {
    user: UserInfo,
    namespace: String,
    permission: Permission,
}

/// SHA-256 of a question: users can have long lists of groups.
type Digest = [u8; 32];

/// The verdicts, and when they were given.
#[derive(Default)]
struct Verdicts(HashMap<Digest, (bool, Instant)>);

impl Access {
    /// Uses this client, which needs permission to create LocalSubjectAccessReviews.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, verdicts: Mutex::default() }
    }

    /// Whether `user` has `permission` in `namespace`.
    pub(super) async fn has(&self, user: &UserInfo, namespace: &str, permission: &Permission) -> bool {
        let question = Question { user: user.clone(), namespace: namespace.to_owned(), permission: permission.clone() };
        let review = question.review();
        let Some(digest) = digest(&review) else { return false };
        if let Some(known) = self.verdicts().get(&digest, Instant::now()) {
            return known;
        }
        let api = Api::<LocalSubjectAccessReview>::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        match timeout(PATIENCE, api.create(&params, &review)).await {
            Ok(Ok(answer)) => {
                let allowed = answer.status.is_some_and(|status| status.allowed);
                self.verdicts().put(digest, allowed, Instant::now());
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

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock()
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

/// Returns the digest of the whole review.
fn digest(review: &LocalSubjectAccessReview) -> Option<Digest> {
    serde_json::to_vec(review).ok().map(|json| Sha256::digest(json).into())
}

impl Verdicts {
    fn get(&self, question: &Digest, now: Instant) -> Option<bool> {
        let (allowed, at) = self.0.get(question)?;
        (now.duration_since(*at) < CACHED_FOR).then_some(*allowed)
    }

    fn put(&mut self, question: Digest, allowed: bool, now: Instant) {
        if self.0.len() >= MAX_VERDICTS {
            self.0.retain(|_, (_, at)| now.duration_since(*at) < CACHED_FOR);
        }
        if self.0.len() >= MAX_VERDICTS {
            // Too many callers in a short time: start again rather than grow.
            self.0.clear();
        }
        self.0.insert(question, (allowed, now));
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
    fn a_verdict_is_cached_for_a_time_and_for_one_question() {
        let mut verdicts = Verdicts::default();
        let now = Instant::now();
        let of = |question: &Question| digest(&question.review()).unwrap();
        let asked = question("ann", Permission::Secret("db".to_owned()));
        verdicts.put(of(&asked), true, now);
        assert_eq!(verdicts.get(&of(&asked), now + Duration::from_secs(29)), Some(true));
        assert_eq!(verdicts.get(&of(&asked), now + Duration::from_secs(30)), None);
        for other in
            [question("bob", Permission::Secret("db".to_owned())), question("ann", Permission::Value("db".to_owned()))]
        {
            assert_eq!(verdicts.get(&of(&other), now), None);
        }
        let mut grouped = asked.clone();
        grouped.user.groups.push("readers".to_owned());
        let mut known = asked.clone();
        known.user.extra.insert("scopes".to_owned(), vec!["x".to_owned()]);
        let elsewhere = Question { namespace: "prod".to_owned(), ..asked };
        for other in [grouped, known, elsewhere] {
            assert_eq!(verdicts.get(&of(&other), now), None);
        }
    }

    #[test]
    fn the_number_of_cached_verdicts_is_limited() {
        let mut verdicts = Verdicts::default();
        let now = Instant::now();
        for number in 0..3 * MAX_VERDICTS {
            let question = question(&number.to_string(), Permission::Value("db".to_owned()));
            verdicts.put(digest(&question.review()).unwrap(), true, now);
            assert!(verdicts.0.len() <= MAX_VERDICTS);
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
