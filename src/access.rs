//! Asks the API server who sent a request, and what this caller may do.
//!
//! In: a bearer token; or a caller and what they want to do. Out: the API server's answers (TokenReview and
//! SubjectAccessReview), cached for a short time. No answer is an error, so it is never taken for a permission.
//!
//! Anyone who reaches a port can send tokens, so their cost is limited: tokens that are too long are refused without a
//! question, a limited number of tokens is checked at once, and the caches are bounded. Tokens have their own limit, and
//! wrong ones their own cache, so that a flood of them takes nothing from callers who are known. A token is never logged or
//! stored; the caches know its hash.

pub(crate) mod cache;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
    authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use self::cache::{Cache, Digest};

/// How long a caller's identity or permission is cached. A token that is revoked works for this long.
const GRANTED_FOR: Duration = Duration::from_secs(10);
/// How long a refusal is cached. A new permission takes effect after this time.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Limit of cached callers. Each may have a long list of groups.
const MAX_CALLERS: usize = 1024;
/// Limit of cached tokens that are not valid.
const MAX_INVALID: usize = 1024;
/// Limit of cached permissions.
const MAX_VERDICTS: usize = 1024;
/// Limit of questions that are open at once: of those about tokens, and of those about permissions.
const MAX_QUESTIONS: usize = 8;
/// Limit of tokens that are checked or wait to be: as many as the webhooks' port has connections, so that the tokens of many
/// pods that start together wait.
const MAX_TOKENS: usize = 256;
/// How long an answer may take, with the wait for other questions.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limit of a token in bytes. Tokens of service accounts have about 1 KiB, those of identity providers a few.
const MAX_TOKEN: usize = 16 * 1024;

/// Who sent a request, as the API server knows them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Caller {
    /// The user name, such as `system:serviceaccount:shop:web`.
    pub username: String,
    /// What tells users of one name apart, if the API server knows it.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else the authenticator says, for the authorizer.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a caller wants to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A verb (in lower case) on a path that is no resource, such as `/metrics`.
    Path {
        /// The verb.
        verb: String,
        /// The path.
        path: String,
    },
    /// A verb on a resource.
    Resource(Box<ResourceAttributes>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server did not answer in time.
    #[error("the API server did not answer in time")]
    Timeout,
    /// Too many tokens wait to be checked.
    #[error("too many bearer tokens are checked at present")]
    Busy,
    /// The API server did not answer, or refused the question: the operator may lack the permission to ask.
    #[error(transparent)]
    Call(#[from] kube::Error),
    /// The answer has no status.
    #[error("the answer of the API server has no status")]
    Empty,
}

/// Asks the API server, and caches its answers.
pub struct Reviewer {
    client: Client,
    callers: Mutex<Cache<Caller>>,
    invalid: Mutex<Cache<()>>,
    verdicts: Mutex<Cache<bool>>,
    tokens: Semaphore,
    about_tokens: Semaphore,
    about_permissions: Semaphore,
}

impl Reviewer {
    /// Uses this client, which needs permission to create TokenReviews and SubjectAccessReviews.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            callers: Mutex::new(Cache::new(MAX_CALLERS)),
            invalid: Mutex::new(Cache::new(MAX_INVALID)),
            verdicts: Mutex::new(Cache::new(MAX_VERDICTS)),
            tokens: Semaphore::new(MAX_TOKENS),
            about_tokens: Semaphore::new(MAX_QUESTIONS),
            about_permissions: Semaphore::new(MAX_QUESTIONS),
        }
    }

    /// Returns whose token this is; `None` if it is not valid. With an `audience`, the token must be issued for it, and
    /// without one, for the API server.
    pub async fn authenticate(&self, token: &str, audience: Option<&str>) -> Result<Option<Caller>, ReviewError> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let digest = digest_of_token(token, audience);
        if let Some(known) = self.callers.lock().get(&digest, Instant::now()) {
            return Ok(Some(known));
        }
        if self.invalid.lock().get(&digest, Instant::now()).is_some() {
            return Ok(None);
        }
        let _place = self.tokens.try_acquire().map_err(|_| ReviewError::Busy)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: audience.map(|audience| vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let question = async { Api::all(self.client.clone()).create(&PostParams::default(), &review).await };
        let answer = ask(&self.about_tokens, question).await?;
        let caller = caller(answer.status.ok_or(ReviewError::Empty)?, audience);
        match &caller {
            Some(caller) => self.callers.lock().put(digest, caller.clone(), GRANTED_FOR, Instant::now()),
            None => self.invalid.lock().put(digest, (), REFUSED_FOR, Instant::now()),
        }
        Ok(caller)
    }

    /// Whether `caller` has the permission for `action`.
    pub async fn may(&self, caller: &Caller, action: &Action) -> Result<bool, ReviewError> {
        let review = review(caller, action);
        let digest = cache::digest(&review.spec);
        if let Some(known) = digest.and_then(|digest| self.verdicts.lock().get(&digest, Instant::now())) {
            return Ok(known);
        }
        let question = async { Api::all(self.client.clone()).create(&PostParams::default(), &review).await };
        let answer = ask(&self.about_permissions, question).await?;
        let status = answer.status.ok_or(ReviewError::Empty)?;
        let allowed = status.allowed && status.denied != Some(true);
        if let Some(digest) = digest {
            let lifetime = if allowed { GRANTED_FOR } else { REFUSED_FOR };
            self.verdicts.lock().put(digest, allowed, lifetime, Instant::now());
        }
        Ok(allowed)
    }
}

/// Asks when there is a place for the question.
async fn ask<T>(places: &Semaphore, question: impl Future<Output = kube::Result<T>>) -> Result<T, ReviewError> {
    let asked = async {
        // The semaphore is never closed.
        let _permit = places.acquire().await.map_err(|_| ReviewError::Timeout)?;
        Ok(question.await?)
    };
    timeout(PATIENCE, asked).await.unwrap_or(Err(ReviewError::Timeout))
}

/// Returns the caller that the API server names. An authenticator that does not know audiences does not repeat the audience;
/// it may have accepted a token for another one (documentation of `TokenReviewSpec.audiences`).
fn caller(status: TokenReviewStatus, audience: Option<&str>) -> Option<Caller> {
    let heeded = audience.is_none_or(|audience| status.audiences.iter().flatten().any(|known| known == audience));
    let user = status.user.filter(|_| status.authenticated == Some(true) && heeded)?;
    Some(Caller {
        // A caller without a name cannot have permissions of its own.
        username: user.username.filter(|name| !name.is_empty())?,
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

fn review(caller: &Caller, action: &Action) -> SubjectAccessReview {
    let (path, resource) = match action.clone() {
        Action::Path { verb, path } => (Some(NonResourceAttributes { path: Some(path), verb: Some(verb) }), None),
        Action::Resource(attributes) => (None, Some(*attributes)),
    };
    let Caller { username, uid, groups, extra } = caller.clone();
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(username),
            uid: Some(uid),
            groups: Some(groups),
            extra: Some(extra),
            non_resource_attributes: path,
            resource_attributes: resource,
        },
        ..SubjectAccessReview::default()
    }
}

/// The hash of a token and its audience. Neither can contain a zero byte, because both come from text in headers and code.
fn digest_of_token(token: &str, audience: Option<&str>) -> Digest {
    let audience = audience.unwrap_or_default();
    Sha256::new().chain_update(token).chain_update([0]).chain_update(audience).finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// An API server that knows the token `good` and lets its owner read `/metrics`, and counts the questions.
    fn server(silent: Arc<AtomicBool>) -> (Reviewer, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            let silent = silent.load(Ordering::SeqCst);
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                review["status"] = if review["kind"] == "TokenReview" {
                    let user = json!({"username": "ann", "groups": ["readers"]});
                    let is_good = review["spec"]["token"] == "good";
                    json!({"authenticated": is_good, "user": user, "audiences": review["spec"]["audiences"]})
                } else {
                    let spec = &review["spec"];
                    json!({"allowed": spec["nonResourceAttributes"]["path"] == "/metrics" && spec["user"] == "ann"})
                };
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(serde_json::to_vec(&review).unwrap())))
            }
        });
        (Reviewer::new(Client::new(service, "default")), asked)
    }

    fn get(path: &str) -> Action {
        Action::Path { verb: "get".to_owned(), path: path.to_owned() }
    }

    #[tokio::test]
    async fn each_question_is_asked_once_in_a_while() {
        let (reviewer, asked) = server(Arc::default());
        for _ in 0..3 {
            let caller = reviewer.authenticate("good", None).await.unwrap().unwrap();
            assert_eq!(
                (caller.username.as_str(), caller.groups.as_slice()),
                ("ann", ["readers".to_owned()].as_slice())
            );
            assert!(reviewer.may(&caller, &get("/metrics")).await.unwrap());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert!(reviewer.authenticate("good", Some("shop")).await.unwrap().is_some());
        assert!(reviewer.authenticate("bad", None).await.unwrap().is_none());
        let caller = reviewer.authenticate("good", None).await.unwrap().unwrap();
        assert!(!reviewer.may(&caller, &get("/other")).await.unwrap());
        let bob = Caller { username: "bob".to_owned(), ..caller };
        assert!(!reviewer.may(&bob, &get("/metrics")).await.unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), 6, "another audience, token, path or caller is another question");
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_valid_is_no_question() {
        let (reviewer, asked) = server(Arc::default());
        for token in [String::new(), "x".repeat(MAX_TOKEN + 1)] {
            assert!(reviewer.authenticate(&token, None).await.unwrap().is_none());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_an_error_and_is_not_cached() {
        let silent = Arc::new(AtomicBool::new(true));
        let (reviewer, asked) = server(Arc::clone(&silent));
        let many = (0..3 * MAX_QUESTIONS).map(|number| {
            let (token, reviewer) = (format!("token {number}"), &reviewer);
            async move { reviewer.authenticate(&token, None).await }
        });
        for answer in futures::future::join_all(many).await {
            assert!(matches!(answer, Err(ReviewError::Timeout)), "{answer:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), MAX_QUESTIONS, "no more at once");
        let ann = Caller { username: "ann".to_owned(), ..Caller::default() };
        assert!(reviewer.may(&ann, &get("/metrics")).await.is_err());
        silent.store(false, Ordering::SeqCst);
        assert!(reviewer.may(&ann, &get("/metrics")).await.unwrap());
        assert!(reviewer.authenticate("good", None).await.unwrap().is_some());
    }

    /// Anyone can send wrong tokens. They must not make the reviewer forget known callers, or keep it from checking permissions.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_wrong_tokens_takes_nothing_from_known_callers() {
        let silent = Arc::new(AtomicBool::new(false));
        let (reviewer, asked) = server(Arc::clone(&silent));
        let ann = reviewer.authenticate("good", None).await.unwrap().unwrap();
        for number in 0..3 * MAX_INVALID {
            assert!(reviewer.authenticate(&format!("wrong {number}"), None).await.unwrap().is_none());
        }
        let before = asked.load(Ordering::SeqCst);
        assert!(reviewer.authenticate("good", None).await.unwrap().is_some());
        assert_eq!(asked.load(Ordering::SeqCst), before, "the caller is still known");
        // All places for tokens are taken.
        silent.store(true, Ordering::SeqCst);
        let mut many: Vec<_> = (0..MAX_TOKENS)
            .map(|number| {
                let (token, reviewer) = (format!("other {number}"), &reviewer);
                Box::pin(async move { reviewer.authenticate(&token, None).await })
            })
            .collect();
        for one in &mut many {
            assert!(futures::poll!(one).is_pending());
        }
        assert!(matches!(reviewer.authenticate("one more", None).await, Err(ReviewError::Busy)));
        assert!(reviewer.authenticate("good", None).await.unwrap().is_some());
        silent.store(false, Ordering::SeqCst);
        assert!(reviewer.may(&ann, &get("/metrics")).await.unwrap(), "no token holds up a permission");
        drop(many);
        assert!(reviewer.authenticate("one more", None).await.unwrap().is_none(), "the places are free again");
    }

    #[test]
    fn an_answer_that_does_not_heed_the_audience_is_a_refusal() {
        let status = |authenticated: bool, name: &str, audiences: &[&str]| -> TokenReviewStatus {
            let user = json!({"username": name});
            let status = json!({"authenticated": authenticated, "user": user, "audiences": audiences});
            serde_json::from_value(status).unwrap()
        };
        assert!(caller(status(true, "ann", &["a", "b"]), Some("b")).is_some());
        assert!(caller(status(true, "ann", &[]), None).is_some());
        for (status, audience) in [
            (status(true, "ann", &["a"]), Some("b")),
            (status(true, "ann", &[]), Some("b")),
            (status(false, "ann", &["b"]), Some("b")),
            (status(true, "", &["b"]), Some("b")),
            (TokenReviewStatus::default(), None),
        ] {
            assert_eq!(caller(status, audience), None);
        }
    }
}
