//! Events that the receiver of webhooks refuses: how long each waits, and when it is put aside. The time is passed in.
//!
//! An event that is refused holds up its own site. It is put aside only once the receiver took others meanwhile: one that refuses
//! everything is broken, or has another secret, and everything waits until it is mended.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use certseal_wire::DnsName;
use http::StatusCode;

/// The events that were refused: of each site the next one.
#[derive(Default)]
pub(super) struct Refusals {
    sites: HashMap<DnsName, Refused>,
    /// Refusals since the receiver took something.
    in_a_row: u32,
    taken_at: Option<Instant>,
}

struct Refused {
    event: Vec<u8>,
    answers: u32,
    first: Instant,
    until: Instant,
}

/// What becomes of an event that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is sent again later, and the site's later ones wait for it.
    Waits,
    /// Nobody sends it again unless somebody asks for it.
    PutAside,
}

/// Whether a status is about the event. Others say that the receiver, or something in front of it, takes nothing now.
pub(super) fn is_about_the_event(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 408 | 425 | 429 | 502 | 503 | 504)
}

impl Refusals {
    /// Whether the site's next event is not to be sent yet.
    pub(super) fn holds(&self, site: &DnsName, now: Instant) -> bool {
        self.sites.get(site).is_some_and(|refused| now < refused.until)
    }

    pub(super) fn taken(&mut self, site: &DnsName, now: Instant) {
        self.sites.remove(site);
        (self.in_a_row, self.taken_at) = (0, Some(now));
    }

    pub(super) fn refused(&mut self, site: &DnsName, event: &[u8], status: StatusCode, now: Instant) -> Fate {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let refused = self.sites.entry(site.clone()).or_insert_with(|| Refused::new(event, now));
        if refused.event != event {
            *refused = Refused::new(event, now);
        }
        let wait = Duration::from_secs(1 << refused.answers.min(16)).min(LONGEST);
        refused.answers = refused.answers.saturating_add(1);
        refused.until = now + wait;
        let age = now.saturating_duration_since(refused.first);
        let (answers, after) = if status.is_server_error() { FAILED } else { REFUSED };
        let takes_others = self.taken_at.is_some_and(|at| at > refused.first);
        let is_unwanted = takes_others && refused.answers >= answers && age >= after;
        if !is_unwanted && age < AT_LAST {
            return Fate::Waits;
        }
        self.sites.remove(site);
        Fate::PutAside
    }

    /// Whether the receiver refuses one event after the other, of whatever site.
    pub(super) fn refuses_all(&self) -> bool {
        self.in_a_row >= ALL
    }

    /// Forgets events that nobody has sent for long: they are gone, or another process sends them.
    pub(super) fn prune(&mut self, now: Instant) {
        self.sites.retain(|_, refused| now < refused.until + FORGOTTEN);
    }
}

impl Refused {
    fn new(event: &[u8], now: Instant) -> Self {
        Self { event: event.to_vec(), answers: 0, first: now, until: now }
    }
}

/// The longest wait of an event.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often, and for how long, an event is refused before it is put aside.
const REFUSED: (u32, Duration) = (8, Duration::from_secs(600));
/// The same, where the receiver says that the failure is its own.
const FAILED: (u32, Duration) = (12, Duration::from_secs(4 * 3600));
/// An event is put aside after this time in any case, so that a receiver with one site hears of later ones.
const AT_LAST: Duration = Duration::from_secs(48 * 3600);
/// Refusals in a row after which the receiver itself gets pauses.
const ALL: u32 = 10;
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> DnsName {
        name.parse().unwrap()
    }

    /// Refuses an event whenever it is sent, and takes another one in between, if it takes others. Answers when and after how many
    /// answers it is put aside.
    fn put_aside(status: StatusCode, takes_others: bool) -> (Duration, u32) {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let (shop, other) = (site("shop.example"), site("other.example"));
        let (mut now, mut answers) = (start, 0);
        loop {
            answers += 1;
            if refusals.refused(&shop, b"event", status, now) == Fate::PutAside {
                return (now - start, answers);
            }
            assert!(refusals.holds(&shop, now) && !refusals.holds(&other, now));
            while refusals.holds(&shop, now) {
                now += Duration::from_secs(1);
            }
            if takes_others {
                refusals.taken(&other, now);
            }
        }
    }

    #[test]
    fn an_event_that_is_refused_again_and_again_while_others_are_taken_is_put_aside() {
        let (after, answers) = put_aside(StatusCode::NOT_FOUND, true);
        assert!(after >= REFUSED.1 && after < REFUSED.1 * 2 && answers >= REFUSED.0, "{after:?} {answers}");
        let (after, answers) = put_aside(StatusCode::INTERNAL_SERVER_ERROR, true);
        assert!(after >= FAILED.1 && after < FAILED.1 + LONGEST && answers >= FAILED.0, "{after:?} {answers}");
    }

    #[test]
    fn a_receiver_that_refuses_everything_loses_nothing_for_two_days() {
        for status in [StatusCode::UNAUTHORIZED, StatusCode::INTERNAL_SERVER_ERROR] {
            let (after, _) = put_aside(status, false);
            assert!(after >= AT_LAST && after < AT_LAST + LONGEST, "{after:?}");
        }
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for number in 1..ALL {
            refusals.refused(&site(&format!("{number}.example")), b"event", StatusCode::UNAUTHORIZED, now);
            assert!(!refusals.refuses_all());
        }
        refusals.refused(&site("last.example"), b"event", StatusCode::UNAUTHORIZED, now);
        assert!(refusals.refuses_all());
        refusals.taken(&site("other.example"), now);
        assert!(!refusals.refuses_all());
    }

    #[test]
    fn the_next_event_of_a_site_is_counted_by_itself() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let shop = site("shop.example");
        refusals.refused(&shop, b"first", StatusCode::NOT_FOUND, start);
        refusals.taken(&site("other.example"), start + Duration::from_secs(1));
        let later = start + AT_LAST;
        assert_eq!(refusals.refused(&shop, b"second", StatusCode::NOT_FOUND, later), Fate::Waits);
        assert!(!refusals.holds(&shop, later + Duration::from_secs(1)), "a short wait again");
    }

    #[test]
    fn what_nobody_sends_any_more_is_forgotten() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        refusals.refused(&site("shop.example"), b"event", StatusCode::NOT_FOUND, start);
        refusals.prune(start + FORGOTTEN);
        assert_eq!(refusals.sites.len(), 1);
        refusals.prune(start + FORGOTTEN + Duration::from_secs(1));
        assert!(refusals.sites.is_empty());
    }

    #[test]
    fn a_status_is_about_the_event_or_about_the_receiver() {
        let is = |status: u16| is_about_the_event(StatusCode::from_u16(status).unwrap());
        assert!([301, 400, 401, 404, 409, 410, 413, 422, 500, 501].map(is).iter().all(|is| *is));
        assert!([408, 425, 429, 502, 503, 504].map(is).iter().all(|is| !is));
    }
}
