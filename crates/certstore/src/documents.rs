//! The documents that others sign, and the checks before one of them is stored.

use std::fmt::Display;

use certseal_seal::{Bundle, MAX_STANZAS, RingMark, VerifyingKeys, accept_ring, sha256};
use certseal_service::problem::Refusal;
use certseal_wire::{
    AcmeAccounts, Challenge, ChallengeMethod, Checkpoint, DnsName, Epoch, Event, KeyRing, KeyState, Kind, PoolName,
    Route, Signed, Staple, UnsealEntry,
};

use crate::{
    clock::seconds,
    refusal::{malformed, unverified},
};

/// A checked record, ready to be stored.
pub(crate) struct Checked {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) pools: Vec<PoolName>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) lasts: Lasts,
    /// The unseal keys that a bundle is sealed to.
    sealed_to: Vec<(PoolName, Epoch)>,
}

/// How long a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// Until it is replaced.
    ForEver,
    /// Until some time after its certificate expires, or what a CA said of that runs out; that end in seconds since 1970.
    Until(u64),
    /// Until nobody needs to hear any more that the site has left, which this route says.
    UntilDeparted,
}

impl Checked {
    /// `ring` says which unseal keys a bundle may be sealed to.
    pub(crate) fn bundle(
        site: &DnsName,
        bytes: Vec<u8>,
        issuers: &VerifyingKeys,
        ring: &KeyRing,
    ) -> Result<Self, Refusal> {
        let bundle = Bundle::parse(&bytes).map_err(malformed)?;
        let info = bundle.verify(issuers).map_err(unverified)?;
        belongs("site", site, &info.site)?;
        if info.pools.is_empty() || !info.pools.iter().all(|pool| bundle.sealed().is_for(pool)) {
            return Err(unverified("expected a bundle for one pool or more, each of which its envelope is sealed to"));
        }
        let stanzas = bundle.sealed().envelope().map(|envelope| envelope.stanzas()).unwrap_or_default();
        for stanza in stanzas {
            let is_it = |entry: &&UnsealEntry| entry.pool == stanza.pool && entry.key_id == stanza.key_id;
            match ring.keys.iter().find(is_it) {
                Some(entry) if entry.epoch == stanza.epoch && entry.state != KeyState::Retired => {}
                _ => {
                    return Err(unverified(format!(
                        "epoch {} of pool {} is not, or not any more, a key to seal to: seal to the key ring's active one",
                        stanza.epoch, stanza.pool
                    )));
                }
            }
        }
        let sealed_to = stanzas.iter().map(|stanza| (stanza.pool.clone(), stanza.epoch)).collect();
        let lasts = Lasts::Until(seconds(info.not_after));
        let checked = Self::new(Kind::Bundle, site.to_string(), info.version, info.pools, bytes);
        Ok(Self { lasts, sealed_to, ..checked })
    }

    pub(crate) fn route(site: &DnsName, bytes: Vec<u8>, issuers: &VerifyingKeys) -> Result<Self, Refusal> {
        let route: Route = issuers.verify(&signed(&bytes)?).map_err(unverified)?;
        belongs("site", site, &route.site)?;
        if route.pools.len() > MAX_STANZAS {
            return Err(unverified(format!("expected a route for at most {MAX_STANZAS} pools")));
        }
        let lasts = if route.has_left() { Lasts::UntilDeparted } else { Lasts::ForEver };
        Ok(Self { lasts, ..Self::new(Kind::Route, site.to_string(), route.version, route.pools, bytes) })
    }

    pub(crate) fn accounts(bytes: Vec<u8>, issuers: &VerifyingKeys) -> Result<Self, Refusal> {
        let accounts: AcmeAccounts = issuers.verify(&signed(&bytes)?).map_err(unverified)?;
        Ok(Self::new(Kind::Accounts, String::new(), accounts.version, Vec::new(), bytes))
    }

    pub(crate) fn checkpoint(pool: &PoolName, bytes: Vec<u8>, issuers: &VerifyingKeys) -> Result<Self, Refusal> {
        let checkpoint: Checkpoint = issuers.verify(&signed(&bytes)?).map_err(unverified)?;
        belongs("pool", pool, &checkpoint.pool)?;
        let (name, version, pools) = (pool.to_string(), checkpoint.version, vec![checkpoint.pool]);
        Ok(Self::new(Kind::Checkpoint, name, version, pools, bytes))
    }

    /// What the response says is for certman and for clients to verify: nobody here knows the certificate's CA.
    pub(crate) fn staple(site: &DnsName, bytes: Vec<u8>, issuers: &VerifyingKeys) -> Result<Self, Refusal> {
        let staple: Staple = issuers.verify(&signed(&bytes)?).map_err(unverified)?;
        belongs("site", site, &staple.site)?;
        if staple.pools.is_empty() || staple.pools.len() > MAX_STANZAS {
            return Err(unverified(format!("expected an OCSP answer for one pool or more, at most {MAX_STANZAS}")));
        }
        let lasts = Lasts::Until(seconds(staple.next_update));
        Ok(Self { lasts, ..Self::new(Kind::Staple, site.to_string(), staple.version, staple.pools, bytes) })
    }

    /// The ring, as a record and parsed.
    pub(crate) fn ring(bytes: Vec<u8>, security: &certseal_seal::VerifyingKey) -> Result<(Self, KeyRing), Refusal> {
        let ring = accept_ring(&signed(&bytes)?, security, RingMark::default()).map_err(unverified)?;
        Ok((Self::new(Kind::Ring, String::new(), ring.version, Vec::new(), bytes), ring))
    }

    pub(crate) fn new(kind: Kind, name: String, version: u64, pools: Vec<PoolName>, bytes: Vec<u8>) -> Self {
        Self { kind, name, version, pools, bytes, lasts: Lasts::ForEver, sealed_to: Vec::new() }
    }

    /// Whether it is sealed to a key that is on its way out: a rotation that looked at all bundles has not seen it.
    pub(crate) fn is_sealed_late(&self, ring: &KeyRing) -> bool {
        self.sealed_to.iter().any(|(pool, epoch)| {
            let entry = ring.keys.iter().find(|entry| entry.pool == *pool && entry.epoch == *epoch);
            entry.is_none_or(|entry| entry.state != KeyState::Active)
        })
    }

    pub(crate) fn event(&self) -> Event {
        Event {
            kind: self.kind,
            name: self.name.clone(),
            version: self.version,
            digest: sha256(&self.bytes),
            pools: self.pools.clone(),
            body: None,
            deleted: false,
        }
    }
}

/// A checked challenge: when it expires, in seconds since 1970. `place` is its token, or [`Challenge::TLS_ALPN`].
pub(crate) fn challenge_expiry(
    host: &DnsName,
    place: &str,
    bytes: &[u8],
    issuers: &VerifyingKeys,
) -> Result<u64, Refusal> {
    let challenge: Challenge = issuers.verify(&signed(bytes)?).map_err(unverified)?;
    belongs("host", host, &challenge.host)?;
    // An edge that is asked by tls-alpn-01 looks there, whatever the token.
    let is_for_tls = place == Challenge::TLS_ALPN;
    if (challenge.method == ChallengeMethod::TlsAlpn) != is_for_tls {
        return Err(unverified(format!(
            "expected a challenge for tls-alpn-01 under {}, and no other",
            Challenge::TLS_ALPN
        )));
    }
    let is_in_place = challenge.method.place(&challenge.token) == place;
    if !is_in_place || !Challenge::is_token(&challenge.token) || challenge.thumbprint().is_none() {
        return Err(unverified("the challenge's token and key authorization do not fit the path"));
    }
    let left = challenge.expires_at.duration_since(jiff::Timestamp::now());
    if left.is_negative() || left > jiff::SignedDuration::from_hours(MAX_CHALLENGE_HOURS) {
        return Err(unverified(format!(
            "expected a challenge that expires within {MAX_CHALLENGE_HOURS} hours from now"
        )));
    }
    // It lies in the future, so it is not negative.
    Ok(challenge.expires_at.as_second().unsigned_abs())
}

pub(crate) fn signed(bytes: &[u8]) -> Result<Signed, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| malformed(format!("expected a signed document: {e}")))
}

fn belongs<T: PartialEq + Display>(what: &str, path: &T, document: &T) -> Result<(), Refusal> {
    if path == document {
        return Ok(());
    }
    Err(unverified(format!("the document is for {what} {document}, the path for {path}")))
}

/// The longest that a challenge may live: Let's Encrypt keeps pending authorizations for 7 days, orders need minutes.
const MAX_CHALLENGE_HOURS: i64 = 24;

#[cfg(test)]
mod tests {
    use certseal_seal::SigningKey;

    use super::*;

    #[test]
    fn a_challenge_for_tls_alpn_01_has_its_own_place_and_no_other_one_has_it() {
        let issuer = SigningKey::generate().unwrap();
        let issuers = VerifyingKeys::from_iter([issuer.verifying_key()]);
        let host: DnsName = "a.example".parse().unwrap();
        let is_taken = |method: ChallengeMethod, token: &str, place: &str| {
            let challenge = Challenge {
                host: host.clone(),
                token: token.to_owned(),
                key_authorization: format!("{token}.print"),
                expires_at: jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1),
                method,
            };
            let bytes = serde_json::to_vec(&issuer.sign(&challenge)).unwrap();
            challenge_expiry(&host, place, &bytes, &issuers).is_ok()
        };
        assert!(is_taken(ChallengeMethod::Http, "tok", "tok"));
        assert!(!is_taken(ChallengeMethod::Http, "tok", "other"));
        assert!(!is_taken(ChallengeMethod::Http, "tok", Challenge::TLS_ALPN));
        assert!(!is_taken(ChallengeMethod::Http, Challenge::TLS_ALPN, Challenge::TLS_ALPN));
        assert!(is_taken(ChallengeMethod::TlsAlpn, "tok", Challenge::TLS_ALPN));
        assert!(!is_taken(ChallengeMethod::TlsAlpn, "tok", "tok"));
        assert!(!is_taken(ChallengeMethod::TlsAlpn, "no token", Challenge::TLS_ALPN));
    }

    #[test]
    fn an_ocsp_answer_is_for_its_site_and_some_pools_and_lasts_until_its_end() {
        let issuer = SigningKey::generate().unwrap();
        let issuers = VerifyingKeys::from_iter([issuer.verifying_key()]);
        let site: DnsName = "a.example".parse().unwrap();
        let this_update = jiff::Timestamp::UNIX_EPOCH;
        let staple = Staple {
            site: site.clone(),
            version: 3,
            pools: vec!["eu".parse().unwrap()],
            certificate: certseal_wire::Digest([1; 32]),
            response: certseal_wire::Base64(vec![1]),
            this_update,
            next_update: this_update + jiff::SignedDuration::from_secs(60),
        };
        let check = |key: &SigningKey, staple: &Staple| {
            Checked::staple(&site, serde_json::to_vec(&key.sign(staple)).unwrap(), &issuers)
        };
        let checked = check(&issuer, &staple).unwrap();
        assert_eq!((checked.kind, checked.version, checked.lasts), (Kind::Staple, 3, Lasts::Until(60)));
        let pools = |count: usize| (0..count).map(|n| format!("p{n}").parse().unwrap()).collect();
        for bad in [
            Staple { site: "b.example".parse().unwrap(), ..staple.clone() },
            Staple { pools: Vec::new(), ..staple.clone() },
            Staple { pools: pools(MAX_STANZAS + 1), ..staple.clone() },
            Staple { next_update: this_update, ..staple.clone() },
        ] {
            assert!(check(&issuer, &bad).is_err(), "{bad:?}");
        }
        assert!(check(&SigningKey::generate().unwrap(), &staple).is_err());
    }
}
