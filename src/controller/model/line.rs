//! The line between one pass and the API server: counts requests, breaks where it is told to, and lets something happen
//! just before a request arrives, or while its answer is on its way.

use std::{convert::Infallible, sync::Arc};

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::{Client, client::Body};
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio_util::bytes::Bytes;
use tower::{BoxError, service_fn};

use super::{
    server::{Server, is_dry_run},
    store::NAMESPACE,
    versions::Pass,
};

/// How a line breaks at a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// The operator dies before the request is sent.
    DieBefore,
    /// The operator dies after the request is carried out, before it sees the answer.
    DieAfter,
    /// The request is lost.
    CutBefore,
    /// The answer is lost.
    CutAfter,
    /// The server answers 500 and does nothing.
    Error,
}

/// When something happens, as seen from a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum When {
    /// Just before it arrives.
    Before,
    /// After it was carried out, before its answer arrives.
    After,
}

/// What happens on a line, by the number of the request in the pass.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) fault: Option<(usize, Fault)>,
    pub(super) meanwhile: Option<(usize, When, BoxFuture<'static, ()>)>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    requests: usize,
    writes: usize,
    dead: bool,
}

/// A line of one pass.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Mutex<State>>);

impl Line {
    pub(super) fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(State { plan, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Whether the operator died in this pass.
    pub(super) fn dead(&self) -> bool {
        self.state().dead
    }

    /// Writes that were not refused, also those that changed nothing.
    pub(super) fn writes(&self) -> usize {
        self.state().writes
    }

    /// What never came to its turn, for the pass made fewer requests.
    pub(super) fn rest(&self) -> Option<BoxFuture<'static, ()>> {
        self.state().plan.meanwhile.take().map(|(_, _, run)| run)
    }

    /// A client whose requests go over this line, in this pass.
    pub(super) fn client(&self, server: Arc<Mutex<Server>>, pass: Pass) -> Client {
        let line = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let (line, server, pass) = (line.clone(), Arc::clone(&server), pass.clone());
            async move { line.exchange(&server, &pass, request).await }
        });
        Client::new(service, NAMESPACE)
    }

    async fn exchange(
        &self,
        server: &Mutex<Server>,
        pass: &Pass,
        request: Request<Body>,
    ) -> Result<Response<Full<Bytes>>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (fault, meanwhile) = {
            let mut state = self.state();
            if state.dead {
                return Err("the operator is dead".into());
            }
            let number = state.requests;
            state.requests += 1;
            let due = state.plan.meanwhile.as_ref().is_some_and(|(at, ..)| *at == number);
            let meanwhile = if due { state.plan.meanwhile.take() } else { None };
            (state.plan.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault), meanwhile)
        };
        let late = match meanwhile {
            Some((_, When::Before, run)) => {
                run.await;
                None
            }
            Some((_, When::After, run)) => Some(run),
            None => None,
        };
        let answer = match fault {
            Some(Fault::DieBefore) => {
                self.state().dead = true;
                return Err("died".into());
            }
            Some(Fault::CutBefore) => return Err("cut".into()),
            Some(Fault::Error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "reason": "InternalError", "message": "",
                }),
            ),
            Some(Fault::DieAfter | Fault::CutAfter) | None => {
                let answer = {
                    let mut server = server.lock();
                    let path = parts.uri.path_and_query().map_or(parts.uri.path(), |path| path.as_str());
                    server.answer(pass, &parts.method, path, &body)
                };
                let dry = parts.uri.query().is_some_and(is_dry_run);
                if parts.method != Method::GET && !dry && answer.0.is_success() {
                    self.state().writes += 1;
                }
                answer
            }
        };
        if let Some(late) = late {
            late.await;
        }
        match fault {
            Some(Fault::DieAfter) => {
                self.state().dead = true;
                Err("died".into())
            }
            Some(Fault::CutAfter) => Err("cut".into()),
            _ => {
                let body = Full::new(Bytes::from(answer.1.to_string())).map_err(|never: Infallible| match never {});
                let body = body.collect().await.unwrap_or_else(|never: Infallible| match never {}).to_bytes();
                Ok(Response::builder().status(answer.0).body(Full::new(body))?)
            }
        }
    }
}
