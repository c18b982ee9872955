//! Whether a caller may read a stored value.
//!
//! In: who asks, and the right that shows it. Out: the API server's verdict (LocalSubjectAccessReview), remembered for
//! a short while. No answer in time is a no: then a value is sealed afresh, and nothing is learned.

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

use super::{review::UserInfo, seal::Right};

/// How long a verdict counts.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Verdicts that are remembered at once.
const MOST: usize = 1024;
/// How long the API server has to answer: less than it gives us (5 s). Not much less, for without an answer an unchanged
/// value becomes a new generation.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the API server, and remembers.
pub struct Access {
    client: Client,
    verdicts: Mutex<Verdicts>,
}

/// Everything that a verdict depends on.
#[derive(Clone, Debug)]
struct Question {
    user: UserInfo,
    namespace: String,
    right: Right,
}

/// SHA-256 of what is asked: users can have long lists of groups.
type Digest = [u8; 32];

/// What was answered, and when.
#[derive(Default)]
struct Verdicts(HashMap<Digest, (bool, Instant)>);

impl Access {
    /// Asks by this client, which must be allowed to create LocalSubjectAccessReviews.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, verdicts: Mutex::default() }
    }

    /// Whether `user` has `right` in `namespace`.
    pub async fn has(&self, user: &UserInfo, namespace: &str, right: &Right) -> bool {
        let question = Question { user: user.clone(), namespace: namespace.to_owned(), right: right.clone() };
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
                warn!(namespace, %error, "a caller's rights are not known: the value is sealed afresh");
                false
            }
            Err(_) => {
                warn!(namespace, "a caller's rights are not known in time: the value is sealed afresh");
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
        let Self { user, namespace, right } = self;
        let (group, resource, subresource, name) = right.parts();
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

/// The whole question, as it is sent.
fn digest(review: &LocalSubjectAccessReview) -> Option<Digest> {
    serde_json::to_vec(review).ok().map(|json| Sha256::digest(json).into())
}

impl Verdicts {
    fn get(&self, question: &Digest, now: Instant) -> Option<bool> {
        let (allowed, at) = self.0.get(question)?;
        (now.duration_since(*at) < REMEMBERED).then_some(*allowed)
    }

    fn put(&mut self, question: Digest, allowed: bool, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, at)| now.duration_since(*at) < REMEMBERED);
        }
        if self.0.len() >= MOST {
            // So many callers in so short a time: begin anew rather than grow.
            self.0.clear();
        }
        self.0.insert(question, (allowed, now));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn question(user: &str, right: Right) -> Question {
        let user = UserInfo { username: user.to_owned(), ..UserInfo::default() };
        Question { user, namespace: "shop".to_owned(), right }
    }

    #[test]
    fn verdicts_are_remembered_for_a_while_and_for_one_question() {
        let mut verdicts = Verdicts::default();
        let now = Instant::now();
        let of = |question: &Question| digest(&question.review()).unwrap();
        let asked = question("ann", Right::Secret("db".to_owned()));
        verdicts.put(of(&asked), true, now);
        assert_eq!(verdicts.get(&of(&asked), now + Duration::from_secs(29)), Some(true));
        assert_eq!(verdicts.get(&of(&asked), now + Duration::from_secs(30)), None);
        for other in [question("bob", Right::Secret("db".to_owned())), question("ann", Right::Value("db".to_owned()))] {
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
    fn only_so_many_are_remembered() {
        let mut verdicts = Verdicts::default();
        let now = Instant::now();
        for number in 0..3 * MOST {
            let question = question(&number.to_string(), Right::Value("db".to_owned()));
            verdicts.put(digest(&question.review()).unwrap(), true, now);
            assert!(verdicts.0.len() <= MOST);
        }
    }

    #[test]
    fn the_review_asks_for_the_right_as_the_caller() {
        let review = question("ann", Right::Value("db".to_owned())).review();
        let attributes = review.spec.resource_attributes.unwrap();
        assert_eq!(review.spec.user.as_deref(), Some("ann"));
        assert_eq!(attributes.group.as_deref(), Some("managedsecrets.dev"));
        assert_eq!(attributes.resource.as_deref(), Some("managedsecrets"));
        assert_eq!(attributes.subresource.as_deref(), Some("value"));
        assert_eq!(attributes.name.as_deref(), Some("db"));
    }
}
