//! Responses on their way to their callers: the resources that they hold are free once the last octet has left, and
//! those that nobody reads are given up.
//!
//! HTTP/2 lets a client leave a response where it is for as long as it likes, with a window that it does not open, while
//! the connection stays lively. hyper does not look at a body then, and after it has handed the end of one to h2 it forgets
//! about it. So every piece of a body says when it has gone.

use std::{
    any::Any,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use hyper::{
    Response,
    body::{Bytes, Frame, SizeHint},
    rt::Executor,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::counts::Counts;

/// An extension of a response: a value that is kept until the response has left, or never will.
#[derive(Clone)]
pub struct HeldUntilSent(#[allow(dead_code)] Arc<dyn Any + Send + Sync>);

impl HeldUntilSent {
    /// Keeps `what`.
    pub fn new(what: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(what))
    }
}

impl std::fmt::Debug for HeldUntilSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldUntilSent")
    }
}

tokio::task_local! {
    /// Of the task that polls the service.
    static DELIVERY: Arc<Delivery>;
}

/// Runs what answers the requests of one connection, for as long as its answers are read.
#[derive(Clone)]
pub(crate) struct Deliveries {
    /// For a piece of an answer to leave.
    patience: Duration,
    /// Told when the connection has to end.
    hopeless: Arc<Notify>,
    counts: Counts,
}

impl Deliveries {
    pub(crate) fn new(patience: Duration, counts: Counts) -> Self {
        Self { patience, hopeless: Arc::default(), counts }
    }

    /// Waits until a response stays where nothing but the end of the connection removes it.
    pub(crate) async fn hopeless(&self) {
        self.hopeless.notified().await;
    }

    /// Does `work`, which is a connection over HTTP/1 or a stream of HTTP/2. None when its answer is not read: then `work` is
    /// dropped, which resets the stream.
    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let delivery = Arc::<Delivery>::default();
        let outcome = {
            let mut work = pin!(DELIVERY.scope(delivery.clone(), work));
            tokio::select! {
                biased;
                outcome = work.as_mut() => Some(outcome),
                () = delivery.is_stuck(self.patience) => None,
            }
        };
        if outcome.is_none() {
            self.counts.add_unread();
        }
        // h2 may have the rest, and keep it for a window that does not open.
        tokio::select! {
            biased;
            () = delivery.has_left() => {}
            () = delivery.is_stuck(self.patience) => {
                if outcome.is_some() {
                    self.counts.add_unread();
                }
                self.hopeless.notify_one();
            }
        }
        outcome
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Deliveries {
    fn execute(&self, stream: F) {
        let deliveries = self.clone();
        tokio::spawn(async move { deliveries.watch(stream).await });
    }
}

/// The pieces that are under way.
#[derive(Default)]
struct Delivery {
    state: Mutex<Pieces>,
    empty: Notify,
}

#[derive(Default)]
struct Pieces {
    count: usize,
    /// When one left last, or the first one came; none before.
    moved: Option<Instant>,
}

impl Delivery {
    /// Comes back when no piece has left for `patience` though there are some.
    async fn is_stuck(&self, patience: Duration) {
        loop {
            let now = Instant::now();
            let since = {
                let pieces = self.pieces();
                pieces.moved.filter(|_| pieces.count > 0).unwrap_or(now)
            };
            match since.checked_add(patience) {
                Some(deadline) if deadline <= now && since < now => return,
                Some(deadline) => sleep_until(deadline.max(now + SHORTEST)).await,
                None => std::future::pending().await,
            }
        }
    }

    async fn has_left(&self) {
        loop {
            // Before the count is looked at: a piece that leaves meanwhile is noticed.
            let empty = self.empty.notified();
            if self.pieces().count == 0 {
                return;
            }
            empty.await;
        }
    }

    fn pieces(&self) -> std::sync::MutexGuard<'_, Pieces> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response's body in pieces that say when they have left.
pub(crate) struct Sent {
    body: Body,
    /// The rest of the last chunk.
    rest: Bytes,
    delivery: Arc<Delivery>,
    held: Option<HeldUntilSent>,
}

impl Sent {
    /// To be called where the service answers.
    pub(crate) fn response(mut response: Response<Body>) -> Response<Self> {
        let held = response.extensions_mut().remove::<HeldUntilSent>();
        let delivery = DELIVERY.try_with(Clone::clone).unwrap_or_default();
        response.map(|body| Self { body, rest: Bytes::new(), delivery, held })
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(ended) => {
                    self.held = None;
                    return Poll::Ready(ended);
                }
                Poll::Pending => return Poll::Pending,
            };
            match frame.into_data() {
                Ok(chunk) => self.rest = chunk,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE);
        let octets = self.rest.split_to(length);
        let piece = Piece::new(octets, self.delivery.clone(), self.held.clone());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// A part of a body, until the connection has taken all of it.
struct Piece {
    octets: Bytes,
    delivery: Arc<Delivery>,
    _held: Option<HeldUntilSent>,
}

impl Piece {
    fn new(octets: Bytes, delivery: Arc<Delivery>, held: Option<HeldUntilSent>) -> Self {
        let mut pieces = delivery.pieces();
        if pieces.count == 0 {
            pieces.moved = Some(Instant::now());
        }
        pieces.count += 1;
        drop(pieces);
        Self { octets, delivery, _held: held }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut pieces = self.delivery.pieces();
        pieces.count -= 1;
        pieces.moved = Some(Instant::now());
        let is_last = pieces.count == 0;
        drop(pieces);
        if is_last {
            self.delivery.empty.notify_waiters();
        }
    }
}

/// The largest piece: a frame of HTTP/2. A reader has to take so much within the patience.
const PIECE: usize = 16 * 1024;

/// Between two looks.
const SHORTEST: Duration = Duration::from_millis(1);
