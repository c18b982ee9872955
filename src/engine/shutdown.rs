//! From signals to one token: the first SIGTERM or SIGINT cancels it, and everything that holds it finishes what it
//! has begun; a second signal ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The exit code after a second signal: what a shell reports for a process ended by SIGINT.
pub const IMPATIENT: i32 = 130;

/// The signals that end us, caught from its making on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT. Fails where the runtime has no signal driver or the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `shutdown` with the first signal; with the second, exits the process with [`IMPATIENT`]. Runs as long as
    /// the process; race it against the work, as in `select! { result = work => …, () = signals.run(token) => … }`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let name = self.next().await;
        info!(signal = name, "shutting down: finishing what is in flight");
        shutdown.cancel();
        let name = self.next().await;
        warn!(signal = name, "second signal: exiting at once");
        std::process::exit(IMPATIENT)
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            // Both streams end only with the runtime.
            else => std::future::pending().await,
        }
    }
}
