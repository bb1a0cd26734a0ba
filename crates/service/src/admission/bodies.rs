//! Request bodies: counted before they are read, and in good time.
//!
//! A body that is announced costs its caller as many octets from then on until the request is answered; one of unknown
//! length costs what came of it. Handlers refuse a role that may not send one before they read it, and give its octets
//! back with that.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use certseal_wire::{Caller, ProblemKind};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{Lack, Share, Shares};
use crate::problem::Refusal;

/// The limits of request bodies.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Octets of one body; a handler may allow less.
    pub largest: usize,
    /// Octets of all bodies whose requests are not answered yet.
    pub in_all: usize,
    /// Of them, of one caller.
    pub of_a_caller: usize,
    /// How long a body may take, besides what its length takes at the slowest rate.
    pub patience: Duration,
    /// The slowest rate, in octets a second.
    pub slowest: usize,
}

impl BodyLimits {
    /// The usual limits, with bodies of at most `largest` octets.
    pub fn new(largest: usize) -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            largest,
            in_all: 128 * MIB,
            of_a_caller: 32 * MIB,
            patience: Duration::from_secs(10),
            slowest: 256 * 1024,
        }
    }

    fn time_for(&self, octets: usize) -> Duration {
        self.patience + Duration::from_secs_f64(octets as f64 / self.slowest.max(1) as f64)
    }
}

/// The budget that a daemon has for request bodies.
#[derive(Debug, Clone)]
pub struct Bodies {
    limits: Arc<BodyLimits>,
    octets: Shares,
}

impl Bodies {
    /// A budget within `limits`.
    pub fn new(limits: BodyLimits) -> Self {
        Self { octets: Shares::new(limits.in_all, limits.of_a_caller), limits: Arc::new(limits) }
    }

    fn refusal(&self, caller: &Caller, lack: Lack) -> Refusal {
        Refusal::busy(match lack {
            Lack::OfCaller => format!(
                "expected request bodies of {caller} of at most {} octets at one time: wait until one is answered",
                self.limits.of_a_caller
            ),
            Lack::InAll => "too many request bodies are under way: come back later".to_owned(),
        })
    }
}

/// Middleware for requests with a [`Caller`]: within the budget the handler reads the body, and beyond it the caller is
/// refused.
pub async fn within_budget(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return Refusal::internal("a request without a caller").into_response();
    };
    // A size that does not fit into a usize is too large, too.
    let announced = request.body().size_hint().exact().map(|octets| usize::try_from(octets).unwrap_or(usize::MAX));
    if announced.is_some_and(|octets| octets > bodies.limits.largest) {
        return too_large(bodies.limits.largest).into_response();
    }
    let charged = announced.unwrap_or(0).max(SMALLEST);
    let share = match bodies.octets.take(&caller, charged) {
        Ok(share) => share,
        Err(lack) => {
            discard(request.into_body()).await;
            return bodies.refusal(&caller, lack).into_response();
        }
    };
    let account = Arc::new(Mutex::new(Account { share, refusal: None, unread: None }));
    let own = account.clone();
    let request = request.map(|body| {
        let due = Instant::now() + bodies.limits.time_for(announced.unwrap_or(0));
        let alarm = Box::pin(sleep_until(due));
        Body::new(Counted { body, bodies, caller, account: own, charged, received: 0, alarm })
    });
    let response = next.run(request).await;
    let (refusal, unread) = {
        let mut account = lock(&account);
        (account.refusal.take(), account.unread.take())
    };
    if let Some(unread) = unread {
        discard(unread).await;
    }
    // The handler says that the body broke off, and does not know why.
    refusal.map_or(response, IntoResponse::into_response)
}

/// Reads a small body that nobody wants: over HTTP/1 a client that is still sending finds the connection closed
/// otherwise, and no answer.
async fn discard(mut body: Body) {
    if body.size_hint().lower() > SMALL as u64 {
        return;
    }
    let all = async {
        let mut octets = 0;
        while octets <= SMALL
            && let Some(Ok(frame)) = body.frame().await
        {
            octets += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = timeout(BRIEFLY, all).await;
}

/// The cost of a body, until its request is answered.
struct Account {
    share: Share,
    /// Why it was not read to its end.
    refusal: Option<Refusal>,
    /// The body, if nobody read it.
    unread: Option<Body>,
}

/// A body that ends with an error when it takes too much, or too long.
struct Counted {
    body: Body,
    bodies: Bodies,
    caller: Caller,
    account: Arc<Mutex<Account>>,
    charged: usize,
    received: usize,
    alarm: Pin<Box<Sleep>>,
}

impl Counted {
    fn count(&mut self, octets: usize) -> Result<(), Refusal> {
        self.received = self.received.saturating_add(octets);
        let limits = &self.bodies.limits;
        if self.received > limits.largest {
            return Err(too_large(limits.largest));
        }
        if self.received > self.charged {
            let more = self.received - self.charged;
            lock(&self.account).share.grow(more).map_err(|lack| self.bodies.refusal(&self.caller, lack))?;
            self.charged = self.received;
            // Nobody said that it would be so long.
            let due = self.alarm.deadline() + (limits.time_for(more) - limits.patience);
            self.alarm.as_mut().reset(due);
        }
        Ok(())
    }

    fn refuse(&self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let error = axum::Error::new(std::io::Error::other(refusal.0.to_string()));
        lock(&self.account).refusal = Some(refusal);
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            lock(&self.account).unread = Some(std::mem::take(&mut self.body));
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.alarm.as_mut().poll(context).is_ready() {
            return self.refuse(Refusal::new(
                ProblemKind::TimedOut,
                format!("the body took too long: {} octets came; send it faster, or in smaller parts", self.received),
            ));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match self.count(frame.data_ref().map_or(0, Bytes::len)) {
                Ok(()) => Poll::Ready(Some(Ok(frame))),
                Err(refusal) => self.refuse(refusal),
            },
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_large(largest: usize) -> Refusal {
    Refusal::new(ProblemKind::TooLarge, format!("expected a body of at most {largest} octets"))
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The least cost of a body, for all that is kept of a request besides its octets.
const SMALLEST: usize = 4 * 1024;

/// Octets of a body that is read though nobody wants it.
const SMALL: usize = 64 * 1024;

/// How long that may take.
const BRIEFLY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
