//! Limits on large requests, so that a fleet that starts at one time neither drowns the daemon nor keeps writers out: some
//! callers wait, and others are asked to come back later.
//!
//! Writes pass freely: the storage takes them in groups. Requests that read much, pages that leave slowly, and single
//! callers that ask for too much have limits, and get 429 with a time to come back that is not the same for all. Few
//! large answers are sent at one time, so that a write does not wait behind many of them for the processor.

use std::{sync::Arc, time::Duration};

use certseal_service::{
    admission::{Lack, Share, Shares},
    problem::Refusal,
};
use certseal_wire::Caller;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
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

    /// The octets of pages that wait to be sent.
    #[cfg(test)]
    pub(crate) fn octets_waiting(&self) -> usize {
        self.pages.taken()
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

/// Large requests at one time.
pub(crate) const HEAVY: usize = 8;
/// Large requests of one caller at one time.
const HEAVY_OF_A_CALLER: usize = 4;
/// Octets of pages that wait to be sent.
const PAGES: usize = 256 * 1024 * 1024;
/// Of these octets, those of one caller.
const PAGES_OF_A_CALLER: usize = 32 * 1024 * 1024;
/// Octets of an answer that is not counted: it fits into the buffers that a connection has anyway.
const SMALL: usize = 16 * 1024;
/// How long a large request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
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
}
