//! Requests a second, as a CA takes them from one address. What it takes not, it answers with 503.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Places for requests; none for a CA of which nothing is known.
pub(super) struct Pace(Vec<(&'static str, DefaultDirectRateLimiter)>);

impl Pace {
    /// The pace that a CA allows, by the host of its directory.
    pub(super) fn of(host: Option<&str>) -> Self {
        let is_known = matches!(host, Some("acme-v02.api.letsencrypt.org" | "acme-staging-v02.api.letsencrypt.org"));
        let rates = LETSENCRYPT.iter().filter(|_| is_known);
        Self(
            rates
                .map(|(path, a_second, at_once)| {
                    let some = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
                    let quota = Quota::per_second(some(*a_second)).allow_burst(some(*at_once));
                    (*path, RateLimiter::direct(quota))
                })
                .collect(),
        )
    }

    /// Waits until there is a place for a request to this path.
    pub(super) async fn place(&self, path: &str) {
        if let Some(rate) = self.rate(path) {
            rate.until_ready().await;
        }
    }

    fn rate(&self, path: &str) -> Option<&DefaultDirectRateLimiter> {
        self.0.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, rate)| rate)
    }
}

/// Beginnings of paths with requests a second and requests at once, the first that fits
/// (letsencrypt.org/docs/rate-limits, "Overall Requests Limit", 2026-08).
const LETSENCRYPT: &[(&str, u32, u32)] = &[
    ("/acme/new-nonce", 20, 10),
    ("/acme/new-acct", 5, 15),
    ("/acme/new-order", 300, 200),
    ("/acme/revoke-cert", 10, 100),
    ("/acme/renewal-info", 1000, 100),
    ("/acme/", 250, 125),
    ("/directory", 40, 40),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_request_has_its_own_pace_and_an_unknown_ca_none() {
        let pace = Pace::of(Some("acme-v02.api.letsencrypt.org"));
        let taken = |path: &str| (0..10_000).filter(|_| pace.rate(path).unwrap().check().is_ok()).count();
        // A burst, and what comes back in the time of this test.
        assert!((10..1_000).contains(&taken("/acme/new-nonce")));
        assert!((200..5_000).contains(&taken("/acme/new-order")));
        assert!((125..5_000).contains(&taken("/acme/authz/1/2")), "whatever has no pace of its own");
        assert!((100..9_000).contains(&taken("/acme/renewal-info/a.b")));
        assert!(pace.rate("/elsewhere").is_none());
        assert!(Pace::of(Some("ca.example")).0.is_empty());
    }
}
