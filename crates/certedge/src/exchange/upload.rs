//! Uploads show that they move, so that a slow one is not taken for an upstream that is silent. Their trailers stay here.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::exchange::admission::{OfAddress, OfSite};

/// A request's body on its way to the upstream.
pub(crate) struct Upload {
    body: Incoming,
    moved: Progress,
    /// Until there is no more of it.
    _memory: Option<Memory>,
}

/// The memory for requests that the body may take.
pub(crate) type Memory = (OfAddress, OfSite);

/// When a part of an upload moved last.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

impl Upload {
    pub(crate) fn new(body: Incoming, memory: Option<Memory>) -> (Self, Progress) {
        let moved = Progress(Arc::new(Mutex::new(Instant::now())));
        (Self { body, moved: moved.clone(), _memory: memory }, moved)
    }
}

impl Progress {
    /// The result of `answer`, unless neither it nor the upload moves for `patience`.
    pub(crate) async fn wait_for<T>(&self, patience: Duration, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let deadline = self.last() + patience;
            match tokio::time::timeout_at(deadline, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.last() + patience > deadline => continue,
                Err(_) => return None,
            }
        }
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            *self.moved.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        match frame {
            // They end the body. An upstream may take them for header fields, and would be told in them what the header
            // was freed from; few look at them otherwise, and we need not pass them on (RFC 9110, 6.5.1).
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Poll::Ready(None),
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
