//! The controller engine: watches, queue, workers, clients, supervision.
//!
//! Knows Kubernetes' API machinery and nothing of secrets: it could serve another operator unchanged. It is assembled
//! from the stable parts of kube (`Client`, `watcher`) instead of kube's `Controller`, which puts one backoff over
//! all its watches, ends with a panic of one reconcile, and has neither a deadline nor a backoff per object.
//!
//! ```text
//!   API server
//!       │ lists, watches                         ▲ calls
//!       ▼ (Clients::watch)                       │ (Clients::call)
//!     watch ──events──▶ Sink ──add──▶ queue ──▶ run ──▶ Reconciler
//!       │              (yours)          ▲        │       (yours)
//!       │                               └─ Next ─┘
//!       └───────── every task is supervised; `shutdown` cancels one token that all of them hold
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`client`] | two clients, one for watches and one for calls, and a [`client::Tap`] on what goes over the wire |
//! | [`watch`] | one supervised task a watch, its own backoff, recovery from everything a server can do |
//! | [`queue`] | which key is worked on next |
//! | [`run`] | the workers: a deadline and a fence against panics round every reconcile |
//! | [`supervise`] | tasks that must not end |
//! | [`shutdown`] | signals to one token |
//! | [`backoff`] | how long to wait after the n-th failure |
//! | [`rounds`] | work that is done again whenever there is news, paced, and repeated until it goes well |
//! | [`waiting`] | what to say while something is not there yet, and how rarely |
//! | [`stats`] | counters of all of the above |

pub mod backoff;
pub mod client;
pub mod queue;
pub mod rounds;
pub mod run;
pub mod shutdown;
pub mod stats;
pub mod supervise;
#[cfg(test)]
pub(crate) mod testing;
pub mod waiting;
pub mod watch;
