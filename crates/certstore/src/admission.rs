//! Who waits, and who is asked to come back later, so that a fleet that starts at one time neither drowns the daemon nor
//! keeps writers out.
//!
//! Writes pass freely: the storage takes them in groups. What reads much, pages that leave slowly, and single callers
//! that ask for too much have limits, and get 429 with a time to come back that is not the same for all. Few large answers
//! are sent at one time, so that a write does not wait behind many of them for the processor.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use certseal_service::problem::Refusal;
use certseal_wire::{Caller, ProblemKind};
use http_body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::timeout,
};

pub(crate) struct Admission {
    heavy: Arc<Semaphore>,
    /// In kibibytes.
    pages: Arc<Semaphore>,
    callers: Arc<Mutex<HashMap<String, usize>>>,
    /// KiB of pages of each caller.
    waiting: Arc<Mutex<HashMap<String, usize>>>,
}

/// Leave to do something; given back when it is dropped.
pub(crate) struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
    _place: Option<Place>,
}

/// Some of a caller's places.
struct Place {
    callers: Arc<Mutex<HashMap<String, usize>>>,
    caller: String,
    count: usize,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            heavy: Arc::new(Semaphore::new(HEAVY)),
            pages: Arc::new(Semaphore::new(PAGES_KIB)),
            callers: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// Leave to read much.
    pub(crate) async fn heavy(&self, caller: &Caller) -> Result<Permit, Refusal> {
        let place = Place::of(&self.callers, caller, 1, HEAVY_OF_A_CALLER).ok_or_else(|| {
            busy(format!("{caller} has {HEAVY_OF_A_CALLER} large requests under way: wait until one of them ends"))
        })?;
        match timeout(PATIENCE, self.heavy.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit { _permit: Some(permit), _place: Some(place) }),
            _ => Err(busy(format!("{HEAVY} large requests are under way: come back later"))),
        }
    }

    /// Leave to keep so many octets until they are sent. Small answers need none.
    pub(crate) fn page(&self, caller: &Caller, octets: usize) -> Result<Permit, Refusal> {
        if octets <= SMALL {
            return Ok(Permit { _permit: None, _place: None });
        }
        // A page has few megabytes at most.
        let kib = octets.div_ceil(1024).min(PAGES_KIB);
        let place = Place::of(&self.waiting, caller, kib, PAGES_OF_A_CALLER_KIB);
        let place = place.ok_or_else(|| busy(format!("too many answers wait for {caller} to read them")))?;
        match self.pages.clone().try_acquire_many_owned(kib as u32) {
            Ok(permit) => Ok(Permit { _permit: Some(permit), _place: Some(place) }),
            Err(_) => Err(busy("too many answers wait for readers that are slow: come back later")),
        }
    }
}

impl Place {
    /// So many places for `caller`, if it has no more than `most` then.
    fn of(callers: &Arc<Mutex<HashMap<String, usize>>>, caller: &Caller, count: usize, most: usize) -> Option<Self> {
        let caller = caller.to_string();
        let mut taken = callers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = taken.get(&caller).copied().unwrap_or(0);
        if before + count > most {
            return None;
        }
        taken.insert(caller.clone(), before + count);
        Some(Self { callers: callers.clone(), caller, count })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = callers.get_mut(&self.caller) {
            *places -= self.count;
            if *places == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

/// A refusal with a time to come back: 1 to 5 seconds.
pub(crate) fn busy(detail: impl Into<String>) -> Refusal {
    // Without randomness all come back together, which is no reason to fail.
    let spread = getrandom::u32().unwrap_or(0) % 5;
    let mut refusal = Refusal::new(ProblemKind::Busy, detail);
    refusal.0.retry_after = Some(1 + u64::from(spread));
    refusal
}

/// A body that keeps its permit for a page until it is sent. It leaves in parts, so that a reader that stops holds nothing
/// more than what the permit counts.
pub(crate) fn held(data: Bytes, page: Permit) -> Body {
    Body::new(Held { data, _page: page, turn: None })
}

/// A body that also keeps its turn among the large requests until it is sent, but not for long: readers that are slow
/// must not keep others out.
pub(crate) fn held_in_turn(data: Bytes, page: Permit, turn: Permit) -> Body {
    let turn = tokio::spawn(async move {
        tokio::time::sleep(LONGEST_TURN).await;
        drop(turn);
    });
    Body::new(Held { data, _page: page, turn: Some(turn) })
}

struct Held {
    data: Bytes,
    _page: Permit,
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
/// Octets of pages that wait to be sent, in KiB.
const PAGES_KIB: usize = 256 * 1024;
/// Of them, of one caller.
const PAGES_OF_A_CALLER_KIB: usize = 32 * 1024;
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
        assert!(admission.callers.lock().unwrap().is_empty(), "callers that have nothing are forgotten");
    }

    #[test]
    fn one_caller_that_does_not_read_leaves_room_for_others() {
        let admission = Admission::new();
        let mut held = Vec::new();
        while let Ok(permit) = admission.page(&caller("slow"), 1024 * 1024) {
            held.push(permit);
        }
        assert_eq!(held.len() * 1024, PAGES_OF_A_CALLER_KIB);
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
        assert_eq!(admission.pages.available_permits(), PAGES_KIB - HEAVY * 1024);
        drop(stopped);
        assert_eq!(admission.pages.available_permits(), PAGES_KIB);
    }
}
