//! Turns signals into one cancelled token: after the first SIGTERM or SIGINT, all tasks with the token finish their work; a
//! second signal ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The exit code after a second signal: the code that a shell reports for a process ended by SIGINT.
pub const IMPATIENT: i32 = 130;

/// Catches the signals that end the process, from its creation.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches SIGTERM and SIGINT. Fails if the runtime has no signal driver or the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `shutdown` with the first signal; with the second, exits the process with [`IMPATIENT`]. Runs as long as
    /// the process; race it against the work, as in `select! { result = work => …, () = signals.run(token) => … }`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let name = self.next().await;
        info!(signal = name, "shutting down; finishing the reconciles in flight");
        shutdown.cancel();
        let name = self.next().await;
        warn!(signal = name, "second signal; exiting at once");
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal as Name, getpid, kill_process};
    use testkit::{child, is_child};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_first_signal_cancels_and_does_not_end_the_process() {
        for name in [Name::TERM, Name::INT] {
            let shutdown = CancellationToken::new();
            let signals = tokio::spawn(Signals::catch().unwrap().run(shutdown.clone()));
            kill_process(getpid(), name).unwrap();
            timeout(Duration::from_secs(10), shutdown.cancelled()).await.expect("cancelled by the signal");
            signals.abort();
        }
    }

    #[test]
    fn the_second_signal_ends_the_process_at_once() {
        const NAME: &str = "shutdown::tests::the_second_signal_ends_the_process_at_once";
        if is_child(NAME) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let shutdown = CancellationToken::new();
                let impatient = async {
                    kill_process(getpid(), Name::TERM).unwrap();
                    shutdown.cancelled().await;
                    kill_process(getpid(), Name::INT).unwrap();
                    std::future::pending::<()>().await;
                };
                let signals = Signals::catch().unwrap().run(shutdown.clone());
                let _ = timeout(Duration::from_secs(20), async { tokio::join!(signals, impatient) }).await;
            });
            return;
        }
        assert_eq!(child(NAME).unwrap().status.code(), Some(IMPATIENT));
    }
}
