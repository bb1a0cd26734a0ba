//! Who waits, and who is asked to come back later, so that a fleet that starts at one time neither drowns the daemon nor
//! keeps writers out.
//!
//! Writes pass freely: the storage takes them in groups. What reads much, pages that leave slowly, and single callers
//! that ask for too much have limits, and get 429 with a time to come back that is not the same for all. Few large answers
//! are sent at one time, so that a write does not wait behind many of them for the processor.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use certseal_service::{
    admission::{Lack, Share, Shares},
    problem::Refusal,
};
use certseal_wire::Caller;
use http_body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::timeout,
};

pub(crate) struct Admission {
    heavy: Arc<Semaphore>,
    heavy_of_callers: Shares,
    /// In octets.
    pages: Shares,
}

/// Leave to read much; given back when it is dropped.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// Leave to keep a page; given back when it is dropped.
pub(crate) struct PagePermit {
    _share: Option<Share>,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            heavy: Arc::new(Semaphore::new(HEAVY)),
            heavy_of_callers: Shares::new(usize::MAX, HEAVY_OF_A_CALLER),
            pages: Shares::new(PAGES, PAGES_OF_A_CALLER),
        }
    }

    /// Leave to read much.
    pub(crate) async fn heavy(&self, caller: &Caller) -> Result<Turn, Refusal> {
        let share = self.heavy_of_callers.take(caller, 1).map_err(|_| {
            Refusal::busy(format!(
                "{caller} has {HEAVY_OF_A_CALLER} large requests under way: wait until one of them ends"
            ))
        })?;
        match timeout(PATIENCE, self.heavy.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, _share: share }),
            _ => Err(Refusal::busy(format!("{HEAVY} large requests are under way: come back later"))),
        }
    }

    /// Leave to keep so many octets until they are sent. Small answers need none.
    pub(crate) fn page(&self, caller: &Caller, octets: usize) -> Result<PagePermit, Refusal> {
        if octets <= SMALL {
            return Ok(PagePermit { _share: None });
        }
        match self.pages.take(caller, octets) {
            Ok(share) => Ok(PagePermit { _share: Some(share) }),
            Err(Lack::OfCaller) => Err(Refusal::busy(format!("too many answers wait for {caller} to read them"))),
            Err(Lack::InAll) => Err(Refusal::busy("too many answers wait for readers that are slow: come back later")),
        }
    }
}

/// A body that keeps its permit for a page until it is sent. It leaves in parts, so that a reader that stops holds nothing
/// more than what the permit counts.
pub(crate) fn held(data: Bytes, page: PagePermit) -> Body {
    Body::new(Held { data, _page: page, turn: None })
}

/// A body that also keeps its turn among the large requests until it is sent, but not for long: readers that are slow
/// must not keep others out.
pub(crate) fn held_in_turn(data: Bytes, page: PagePermit, turn: Turn) -> Body {
    let turn = tokio::spawn(async move {
        tokio::time::sleep(LONGEST_TURN).await;
        drop(turn);
    });
    Body::new(Held { data, _page: page, turn: Some(turn) })
}

struct Held {
    data: Bytes,
    _page: PagePermit,
    turn: Option<JoinHandle<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            turn.abort();
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.data.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.data.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.data.split_to(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.data.len() as u64)
    }
}

/// Large requests at one time.
const HEAVY: usize = 8;
/// Large requests of one caller at one time.
const HEAVY_OF_A_CALLER: usize = 4;
/// Octets of pages that wait to be sent.
const PAGES: usize = 256 * 1024 * 1024;
/// Of them, of one caller.
const PAGES_OF_A_CALLER: usize = 32 * 1024 * 1024;
/// Octets of an answer that is not counted: it fits into what a connection holds anyway.
const SMALL: usize = 16 * 1024;
/// How long a large request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer that is being sent keeps its turn.
const LONGEST_TURN: Duration = Duration::from_secs(1);
/// Octets of a part of a body.
const PART: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use certseal_wire::ProblemKind;

    use super::*;

    fn caller(name: &str) -> Caller {
        Caller { role: "edge/eu".parse().unwrap(), name: name.into() }
    }

    #[tokio::test]
    async fn one_caller_has_few_places_and_all_together_have_more() {
        let admission = Admission::new();
        let mut permits = Vec::new();
        for _ in 0..HEAVY_OF_A_CALLER {
            permits.push(admission.heavy(&caller("a")).await.unwrap());
        }
        let refused = admission.heavy(&caller("a")).await.err().unwrap();
        assert_eq!(refused.0.kind, ProblemKind::Busy);
        assert!((1..=5).contains(&refused.0.retry_after.unwrap()));
        let other = admission.heavy(&caller("b")).await.unwrap();
        permits.pop();
        permits.push(admission.heavy(&caller("a")).await.unwrap());
        drop((permits, other));
        assert_eq!(admission.heavy_of_callers.taken(), 0);
    }

    #[test]
    fn one_caller_that_does_not_read_leaves_room_for_others() {
        let admission = Admission::new();
        let mut held = Vec::new();
        while let Ok(permit) = admission.page(&caller("slow"), 1024 * 1024) {
            held.push(permit);
        }
        assert_eq!(held.len() * 1024 * 1024, PAGES_OF_A_CALLER);
        admission.page(&caller("slow"), SMALL).unwrap();
        admission.page(&caller("other"), 1024 * 1024).unwrap();
        drop(held);
        admission.page(&caller("slow"), 1024 * 1024).unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_stops_gives_its_turn_to_others_and_its_octets_stay_counted() {
        let admission = Admission::new();
        let data = Bytes::from(vec![0; 1024 * 1024]);
        let mut stopped = Vec::new();
        for n in 0..HEAVY {
            let turn = admission.heavy(&caller(&n.to_string())).await.unwrap();
            stopped.push(held_in_turn(
                data.clone(),
                admission.page(&caller(&n.to_string()), data.len()).unwrap(),
                turn,
            ));
        }
        let began = Instant::now();
        admission.heavy(&caller("next")).await.unwrap();
        assert!(began.elapsed() < 2 * LONGEST_TURN, "it waited for readers that do not read");
        assert_eq!(admission.pages.taken(), HEAVY * 1024 * 1024);
        drop(stopped);
        assert_eq!(admission.pages.taken(), 0);
    }
}
