//! Bounds how much of the answers to calls is in memory at once.
//!
//! Users choose how large an object is: one Secret can be an answer of several megabytes, and every worker may wait for
//! one. So large answers take turns: what exceeds [`LARGE_BYTES`] is read, and decoded, by few calls at a time. The others
//! leave it in their connections meanwhile. Each call has a connection of its own (HTTP/1.1), so waiting blocks no other.

use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::CallError;

/// Bytes of an answer that are read without a turn: more than most objects have.
const LARGE_BYTES: usize = 256 * 1024;
/// Large answers that are read and decoded at the same time in the whole process.
const LARGE_AT_ONCE: usize = 2;

static TURNS: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);

/// The body of an answer. A large one holds its turn until it is dropped.
pub(crate) struct Answer<'t> {
    bytes: Vec<u8>,
    _turn: Option<SemaphorePermit<'t>>,
}

impl Answer<'_> {
    /// Reads a body to its end, if it is large in its turn.
    pub(crate) async fn read(body: Body) -> Result<Self, CallError> {
        Answer::read_in(body, &TURNS).await
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'t> Answer<'t> {
    async fn read_in(mut body: Body, turns: &'t Semaphore) -> Result<Self, CallError> {
        let (mut bytes, mut turn) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            // Trailers say nothing here.
            let Ok(data) = frame.map_err(CallError::transport)?.into_data() else { continue };
            if turn.is_none() && bytes.len() + data.len() > LARGE_BYTES {
                // An error would mean that the semaphore is closed, which it never is.
                turn = turns.acquire().await.ok();
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Self { bytes, _turn: turn })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{pin::pin, task::Poll};

    use super::*;

    #[tokio::test]
    async fn large_answers_take_turns_and_small_ones_never_wait() {
        let turns = Semaphore::new(1);
        let body = |bytes: usize| Body::from(vec![b'x'; bytes]);
        let first = Answer::read_in(body(LARGE_BYTES + 1), &turns).await.unwrap();
        assert_eq!(first.bytes().len(), LARGE_BYTES + 1);
        let mut second = pin!(Answer::read_in(body(LARGE_BYTES + 2), &turns));
        assert!(matches!(poll_once(second.as_mut()).await, Poll::Pending), "it waits for the first");
        let small = Answer::read_in(body(LARGE_BYTES), &turns).await.unwrap();
        assert_eq!(small.bytes().len(), LARGE_BYTES);
        drop(first);
        assert_eq!(second.await.unwrap().bytes().len(), LARGE_BYTES + 2);
        assert_eq!(turns.available_permits(), 1, "a turn ends with its answer");
    }

    /// Polls a future once.
    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }
}
