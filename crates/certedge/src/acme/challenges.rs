//! Answers to challenges for http-01 (RFC 8555, 8.3) and tls-alpn-01 (RFC 8737): only for the platform's own ACME accounts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use certseal_client::{ClientError, StoreClient};
use certseal_resolver::Mirror;
use certseal_seal::SignatureError;
use certseal_wire::{AcmeAccounts, Challenge, ChallengeMethod, DnsName};
use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;

use super::certificate::certificate;

/// Looks challenges up in certstore when a CA asks for them.
pub(crate) struct Challenges {
    mirror: Arc<Mirror>,
    store: StoreClient,
    lookups: Semaphore,
}

/// Why a challenge is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// There is none, or none that counts.
    Unknown,
    /// certstore cannot be asked now.
    Unavailable,
}

impl Challenges {
    pub(crate) fn new(mirror: Arc<Mirror>, store: StoreClient) -> Self {
        Self { mirror, store, lookups: Semaphore::new(LOOKUPS) }
    }

    /// The key authorization for `token`, by http-01.
    pub(crate) async fn answer(&self, host: &DnsName, token: &str) -> Result<String, Unanswered> {
        // No CA's token, and what stands there would be logged for everybody who asks for it.
        if token == Challenge::TLS_ALPN {
            return Err(Unanswered::Unknown);
        }
        self.key_authorization(host, ChallengeMethod::Http, token).await
    }

    /// The answer to a probe of certman ([`Challenge::probe`]), by whichever host: certstore is not asked. Whoever asks names an
    /// account, and learns whether it is one of the platform's, as from any answer to a CA.
    pub(crate) fn probed(&self, token: &str) -> Option<String> {
        probed(token, self.mirror.accounts().as_deref())
    }

    /// The certificate that answers for `host` by tls-alpn-01.
    pub(crate) async fn certificate(&self, host: &DnsName) -> Result<Arc<CertifiedKey>, Unanswered> {
        let key_authorization = self.key_authorization(host, ChallengeMethod::TlsAlpn, Challenge::TLS_ALPN).await?;
        certificate(host, &key_authorization).map_err(|error| {
            tracing::error!(%host, %error, "cannot make a certificate that answers a challenge");
            Unanswered::Unavailable
        })
    }

    /// What certstore has in `place`, if it counts, once `host` has a route here: certstore may have the challenge of a new
    /// site a moment before the mirror has the site.
    async fn key_authorization(
        &self,
        host: &DnsName,
        method: ChallengeMethod,
        place: &str,
    ) -> Result<String, Unanswered> {
        let lookup = async {
            // Closing the semaphore is not done, so acquiring does not fail.
            let _slot = self.lookups.acquire().await;
            self.store.challenge(host, place).await
        };
        let signed = match tokio::time::timeout(PATIENCE, lookup).await {
            Ok(Ok(Some(signed))) => signed,
            Ok(Ok(None)) => {
                // Anyone can ask for any token, and by any name.
                tracing::debug!(%host, "certstore has no such challenge");
                return Err(Unanswered::Unknown);
            }
            Ok(Err(ClientError::Refused(problem))) => {
                tracing::warn!(%host, %problem, "certstore does not hand out a challenge");
                return Err(Unanswered::Unavailable);
            }
            Ok(Err(error)) => {
                tracing::warn!(%host, %error, "cannot look a challenge up");
                return Err(Unanswered::Unavailable);
            }
            Err(_) => {
                tracing::warn!(%host, seconds = PATIENCE.as_secs(), "looking a challenge up took too long");
                return Err(Unanswered::Unavailable);
            }
        };
        let refused = |rejection: Rejection| {
            tracing::warn!(%host, %rejection, "a challenge is not answered");
            Unanswered::Unknown
        };
        let challenge = self.mirror.issuers().verify(&signed).map_err(Rejection::Signature).map_err(refused)?;
        let until = Instant::now() + BEHIND;
        loop {
            match self.judge(&challenge, host, method, place) {
                Err(Rejection::NoRoute | Rejection::StrangeAccount) if Instant::now() < until => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                judged => return judged.map_err(refused),
            }
        }
    }

    fn judge(
        &self,
        challenge: &Challenge,
        host: &DnsName,
        method: ChallengeMethod,
        place: &str,
    ) -> Result<String, Rejection> {
        let accounts = self.mirror.accounts();
        let answer = judge(challenge, host, method, place, accounts.as_deref(), Timestamp::now())?;
        self.mirror.route(host).map(|_| answer).ok_or(Rejection::NoRoute)
    }
}

/// Why a challenge does not count.
#[derive(Debug, PartialEq, Eq)]
enum Rejection {
    Signature(SignatureError),
    OtherHost(DnsName),
    OtherMethod,
    OtherToken,
    Expired(Timestamp),
    NoThumbprint,
    StrangeAccount,
    NoRoute,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signature(error) => error.fmt(f),
            Self::OtherHost(host) => write!(f, "it is for {host}: it was put in the place of another"),
            Self::OtherMethod => f.write_str("it is to be answered in another way: it was put in the place of another"),
            Self::OtherToken => f.write_str("it is for another token: it was put in the place of another"),
            Self::Expired(at) => write!(f, "it expired at {at}"),
            Self::NoThumbprint => f.write_str("its key authorization does not begin with its token"),
            Self::StrangeAccount => f.write_str("its ACME account is none of the platform's: see the account list"),
            Self::NoRoute => f.write_str("its host is not served here"),
        }
    }
}

/// The key authorization of a challenge whose signature counts, if it is what was asked for and for one of `accounts`.
fn judge(
    challenge: &Challenge,
    host: &DnsName,
    method: ChallengeMethod,
    place: &str,
    accounts: Option<&AcmeAccounts>,
    now: Timestamp,
) -> Result<String, Rejection> {
    if challenge.host != *host {
        return Err(Rejection::OtherHost(challenge.host.clone()));
    }
    if challenge.method != method {
        return Err(Rejection::OtherMethod);
    }
    if method.place(&challenge.token) != place {
        return Err(Rejection::OtherToken);
    }
    if challenge.expires_at <= now {
        return Err(Rejection::Expired(challenge.expires_at));
    }
    let thumbprint = challenge.thumbprint().ok_or(Rejection::NoThumbprint)?;
    if !accounts.is_some_and(|accounts| accounts.thumbprints.iter().any(|known| known == thumbprint)) {
        return Err(Rejection::StrangeAccount);
    }
    Ok(challenge.key_authorization.clone())
}

/// The answer to a probe that names one of `accounts`.
fn probed(token: &str, accounts: Option<&AcmeAccounts>) -> Option<String> {
    let thumbprint = Challenge::probed(token)?;
    let is_ours = accounts.is_some_and(|accounts| accounts.thumbprints.iter().any(|known| known == thumbprint));
    is_ours.then(|| format!("{token}.{thumbprint}"))
}

/// Lookups in certstore at one time.
const LOOKUPS: usize = 64;

/// How far the mirror may be behind certstore when a challenge is asked for. Only for one that an issuer signed for this host:
/// nobody else can have an edge wait.
const BEHIND: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// For a place among the lookups and for certstore's answer together. CAs wait about ten seconds.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_answered_for_our_own_accounts_only() {
        let accounts = AcmeAccounts { version: 1, thumbprints: vec![String::new(), "print".into()] };
        let answer = |token: &str| probed(token, Some(&accounts));
        let ours = Challenge::probe(7, "print");
        assert_eq!(answer(&ours), Some(format!("{ours}.print")));
        for other in [Challenge::probe(7, "strange"), Challenge::probe(7, ""), "tok".to_owned()] {
            assert_eq!(answer(&other), None, "{other}");
        }
        assert_eq!(probed(&ours, None), None);
    }

    #[test]
    fn a_challenge_is_answered_only_as_asked_in_time_and_for_our_own_account() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let accounts = AcmeAccounts { version: 1, thumbprints: vec!["other".into(), "print".into()] };
        let host = |text: &str| text.parse::<DnsName>().unwrap();
        let good = Challenge {
            host: host("a.example"),
            token: "tok".into(),
            key_authorization: "tok.print".into(),
            expires_at: "2026-11-01T00:00:01Z".parse().unwrap(),
            method: ChallengeMethod::Http,
        };
        let (http, tls) = (ChallengeMethod::Http, ChallengeMethod::TlsAlpn);
        let asked = |challenge: &Challenge, method: ChallengeMethod, place: &str| {
            judge(challenge, &host("a.example"), method, place, Some(&accounts), now)
        };
        let judged = |challenge: Challenge| asked(&challenge, http, "tok");
        let with = |alter: fn(&mut Challenge)| {
            let mut challenge = good.clone();
            alter(&mut challenge);
            judged(challenge)
        };
        assert_eq!(judged(good.clone()), Ok("tok.print".to_owned()));
        assert!(matches!(with(|c| c.host = "b.example".parse().unwrap()), Err(Rejection::OtherHost(_))));
        assert_eq!(with(|c| c.token = "tik".into()), Err(Rejection::OtherToken));
        assert!(matches!(with(|c| c.expires_at = "2026-11-01T00:00:00Z".parse().unwrap()), Err(Rejection::Expired(_))));
        assert_eq!(with(|c| c.key_authorization = "tik.print".into()), Err(Rejection::NoThumbprint));
        assert_eq!(with(|c| c.key_authorization = "tok.strange".into()), Err(Rejection::StrangeAccount));
        assert_eq!(with(|c| c.key_authorization = "tok.".into()), Err(Rejection::StrangeAccount));
        assert_eq!(judge(&good, &host("a.example"), http, "tok", None, now), Err(Rejection::StrangeAccount));

        // An answer for one way is none for the other, wherever certstore has put it.
        assert_eq!(asked(&good, tls, Challenge::TLS_ALPN), Err(Rejection::OtherMethod));
        let over_tls = Challenge { method: tls, ..good };
        assert_eq!(asked(&over_tls, tls, Challenge::TLS_ALPN), Ok("tok.print".to_owned()));
        assert_eq!(asked(&over_tls, http, "tok"), Err(Rejection::OtherMethod));
        assert_eq!(asked(&over_tls, http, Challenge::TLS_ALPN), Err(Rejection::OtherMethod));
    }
}
