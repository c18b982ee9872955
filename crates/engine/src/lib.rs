//! The controller engine: watches, queue, workers, clients, supervision.
//!
//! It knows the API machinery of Kubernetes and nothing about secrets: another operator could use it unchanged. It uses the
//! stable parts of kube (`Client`, `watcher`) instead of kube's `Controller`, which has one backoff for all its watches,
//! ends when one reconcile panics, and has neither a deadline nor a backoff per object.
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
//! | [`client`] | two clients, one for watches and one for calls, and a [`client::Tap`] that sees each request |
//! | [`watch`] | one supervised task per watch, with its own backoff, that recovers from every failure of the server |
//! | [`queue`] | chooses the next key |
//! | [`limit`] | how many run at the same time: as many as the API server answers quickly |
//! | [`run`] | the workers: every reconcile has a deadline and cannot end the process by a panic |
//! | [`lease`] | leader election: one replica at a time changes the cluster |
//! | [`supervise`] | tasks that must not end |
//! | [`shutdown`] | signals to one token |
//! | [`backoff`] | how long to wait after the n-th failure |
//! | [`rounds`] | work that is done again whenever there is news, paced, and repeated until it goes well |
//! | [`health`] | named checks, and what they say together |
//! | [`waiting`] | logs why the process waits, without repetition |
//! | [`requests`] | counts requests to the API server |
//! | [`stats`] | counters of all of the above |

pub mod backoff;
pub mod client;
pub mod health;
pub mod lease;
pub mod limit;
pub mod queue;
pub mod requests;
pub mod rounds;
pub mod run;
pub mod shutdown;
pub mod stats;
pub mod supervise;
#[cfg(test)]
pub(crate) mod testing;
pub mod waiting;
pub mod watch;
