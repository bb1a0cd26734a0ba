//! The writes of certman to certstore, and its reads from it.

use std::time::{Duration, Instant};

use certseal_client::{ClientError, StoreClient};
use certseal_issuance::{Answer, Failure, FailureKind, Site};
use certseal_seal::{
    Bundle, BundleError, EnvelopeError, Recipient, Sealed, SignatureError, SigningKey, VerifyingKey, VerifyingKeys,
    accept_ring, ring_issuers, ring_recipient, sha256,
};
use certseal_wire::{
    AcmeAccounts, AuditCheckpoint, AuditQuery, Base64, BundleInfo, Challenge, ChallengeMethod, Change, Checkpoint,
    DnsName, Document, HttpsMode, KeyRing, KeyState, Kind, NameSet, PoolName, ProblemKind, Route, Signed, SignerId,
    Staple, ValidationMethod,
};
use jiff::{SignedDuration, Timestamp};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    journal::{AuditSeen, IssuersSeen, Journal, StoredChange},
    recent::{self, RecentChanges},
    stapling::OcspAnswer,
    witness,
};

pub(crate) struct Certstore {
    store: StoreClient,
    issuer: SigningKey,
    security: VerifyingKey,
    journal: Journal,
    ring: tokio::sync::Mutex<Option<(Instant, KeyRing)>>,
    /// Held while the account list is read and replaced: orders that begin together would undo each other's work.
    accounts: tokio::sync::Mutex<()>,
    /// The newest account of that list, and when it was read.
    listed: tokio::sync::Mutex<Option<(Instant, Option<String>)>>,
}

/// A stored document.
enum Counted<D> {
    /// It counts.
    Document(D),
    /// It is of an issuer that is listed no more: versions up to `standing` stay out.
    Gone { standing: u64 },
}

/// A document that counts its versions.
trait Versioned: Document {
    fn version(&self) -> u64;
}

impl Versioned for AcmeAccounts {
    fn version(&self) -> u64 {
        self.version
    }
}

impl Versioned for Checkpoint {
    fn version(&self) -> u64 {
        self.version
    }
}

impl Versioned for Route {
    fn version(&self) -> u64 {
        self.version
    }
}

impl Versioned for Staple {
    fn version(&self) -> u64 {
        self.version
    }
}

/// The issuer and the validity that a stored certificate names.
pub(crate) struct Certified {
    pub(crate) authority: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Certstore {
    pub(crate) fn new(store: StoreClient, issuer: SigningKey, security: VerifyingKey, journal: Journal) -> Self {
        Self {
            store,
            issuer,
            security,
            journal,
            ring: Default::default(),
            accounts: Default::default(),
            listed: Default::default(),
        }
    }

    pub(crate) fn issuer(&self) -> &SigningKey {
        &self.issuer
    }

    /// The recipients of `pools`, as the security team's newest ring says.
    pub(crate) async fn recipients(&self, pools: &[PoolName]) -> Result<Vec<Recipient>, Failure> {
        let ring = self.ring().await?;
        let recipients = pools.iter().map(|pool| ring_recipient(&ring, pool)).collect::<Result<_, _>>();
        recipients.map_err(unavailable)
    }

    /// Puts the site's route. The same again is no change.
    pub(crate) async fn put_route(&self, site: &Site) -> Result<StoredChange, Failure> {
        let route = Route {
            site: site.site.clone(),
            names: site.names.clone(),
            version: site.route_version,
            pools: site.pools.clone(),
            upstreams: (!site.departed).then(|| site.upstream.clone().into()).into_iter().collect(),
            https: HttpsMode::Redirect,
        };
        match self.store.put_route(&site.site, &self.issuer.sign(&route)).await {
            Ok(_) => {}
            Err(error) if is_conflict(&error) => return Err(outrun("route", self.stored_route(&site.site).await?)),
            Err(error) => return Err(store_failure(error)),
        }
        let change = Change { kind: Kind::Route, name: site.site.to_string(), version: route.version };
        let pools = [site.pools.as_slice(), &site.left].concat();
        Ok(StoredChange { at: Timestamp::now(), pools, change })
    }

    pub(crate) async fn publish(&self, answers: &[&Answer]) -> Result<(), Failure> {
        let expires_at = Timestamp::now() + SignedDuration::from_hours(1);
        for Answer { host, token, key_authorization, method } in answers {
            let challenge = Challenge {
                host: host.clone(),
                token: token.clone(),
                key_authorization: key_authorization.clone(),
                expires_at,
                method: challenge_method(*method),
            };
            let (place, signed) = (challenge.method.place(token), self.issuer.sign(&challenge));
            let is_taken = challenge.method == ChallengeMethod::TlsAlpn
                && self.tls_challenge(host).await?.is_some_and(|found| found.key_authorization != *key_authorization);
            if is_taken {
                let detail = format!("another validation of {host} over TLS is under way: a host has one at a time");
                return Err(Failure::new(FailureKind::Throttled(PLACE_TAKEN_SECONDS), detail));
            }
            self.store.put_challenge(host, place, &signed).await.map_err(store_failure)?;
        }
        Ok(())
    }

    /// The challenge over TLS that stands for a host: it has one place for these, and a site's companion validates the same names.
    async fn tls_challenge(&self, host: &DnsName) -> Result<Option<Challenge>, Failure> {
        let Some(signed) = self.store.challenge(host, Challenge::TLS_ALPN).await.map_err(store_failure)? else {
            return Ok(None);
        };
        let trusted = ring_issuers(&*self.ring().await?);
        // What counts for no edge is in nobody's way.
        let found = trusted.verify::<Challenge>(&signed).ok();
        Ok(found.filter(|found| found.expires_at > Timestamp::now()))
    }

    /// Forgets challenges that have served, but for those in whose place one of `standing` is, or another site's: a host has one
    /// place for all that are answered over TLS. A challenge whose deletion fails is left to expire.
    pub(crate) async fn retract(&self, answers: &[&Answer], standing: &[Answer]) {
        for answer in answers {
            let host = &answer.host;
            if standing.iter().any(|other| other.host == *host && place(other) == place(answer)) {
                continue;
            }
            if answer.method == ValidationMethod::TlsAlpn {
                let stands = self.tls_challenge(host).await.ok().flatten();
                if stands.is_none_or(|found| found.key_authorization != answer.key_authorization) {
                    continue;
                }
            }
            if let Err(error) = self.store.delete_challenge(host, place(answer)).await {
                tracing::debug!(%host, %error, "challenge left to expire");
            }
        }
    }

    /// Puts an account's thumbprint into the signed list, unless it is there.
    pub(crate) async fn vouch_for_account(&self, thumbprint: &str) -> Result<(), Failure> {
        self.change_accounts(|listed| {
            if listed.iter().all(|known| known != thumbprint) {
                listed.push(thumbprint.to_owned());
            }
        })
        .await
    }

    /// The thumbprint of the newest account that edges answer for, as the list said a minute ago at most.
    pub(crate) async fn listed_account(&self) -> Result<Option<String>, Failure> {
        let mut listed = self.listed.lock().await;
        if let Some((at, account)) = &*listed
            && at.elapsed() < LISTED_FRESH
        {
            return Ok(account.clone());
        }
        let account = self.listed_accounts().await?.pop();
        *listed = Some((Instant::now(), account.clone()));
        Ok(account)
    }

    /// Takes accounts out of the signed list, by their thumbprints.
    pub(crate) async fn dismiss_accounts(&self, thumbprints: &[String]) -> Result<(), Failure> {
        self.change_accounts(|listed| listed.retain(|known| !thumbprints.contains(known))).await
    }

    /// The thumbprints in the signed list.
    pub(crate) async fn listed_accounts(&self) -> Result<Vec<String>, Failure> {
        let signed = self.store.accounts().await.map_err(store_failure)?;
        self.counted_accounts(signed.as_ref()).await.map(|accounts| accounts.thumbprints)
    }

    /// Signs the list of accounts as `change` makes it, unless we signed it so before.
    async fn change_accounts(&self, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Failure> {
        let _alone = self.accounts.lock().await;
        let signed = self.store.accounts().await.map_err(store_failure)?;
        let is_ours = signed.as_ref().is_none_or(|signed| signed.signer == self.issuer.verifying_key().id());
        let mut accounts = self.counted_accounts(signed.as_ref()).await?;
        let before = accounts.thumbprints.clone();
        change(&mut accounts.thumbprints);
        if is_ours && accounts.thumbprints == before {
            return Ok(());
        }
        accounts.version = accounts.version.checked_add(1).ok_or_else(versions_used_up)?;
        // A list that somebody else replaced meanwhile is read again by the next attempt.
        let put = self.store.put_accounts(&self.issuer.sign(&accounts)).await;
        put.map(drop).map_err(|error| unavailable(format!("certstore: {error}")))
    }

    /// The list of accounts, as far as it counts.
    async fn counted_accounts(&self, signed: Option<&Signed>) -> Result<AcmeAccounts, Failure> {
        let Some(signed) = signed else { return Ok(AcmeAccounts { version: 0, thumbprints: Vec::new() }) };
        Ok(match self.counted(signed).await? {
            Counted::Document(accounts) => accounts,
            // A holder of that issuer's key could have listed any account.
            Counted::Gone { standing } => AcmeAccounts { version: standing, thumbprints: Vec::new() },
        })
    }

    /// Joins chain and sealed key to the site's next bundle and stores it. The same parts again are no change.
    pub(crate) async fn put_bundle(
        &self,
        site: &Site,
        sealed: &[u8],
        chain: Vec<Vec<u8>>,
    ) -> Result<(Certified, StoredChange), Failure> {
        let sealed = Sealed::parse(sealed).map_err(rejected)?;
        let leaf = chain.first().ok_or_else(|| rejected("the CA's chain is empty"))?;
        let certified = certified(leaf, &site.names)?;
        let (version, pools) = match &sealed {
            Sealed::Envelope(envelope) => {
                let mut pools: Vec<_> = envelope.stanzas().iter().map(|stanza| stanza.pool.clone()).collect();
                pools.dedup();
                (envelope.header().key_version, pools)
            }
            Sealed::Legacy(_) => (site.bundle_version.checked_add(1).ok_or_else(versions_used_up)?, site.pools.clone()),
        };
        let info = BundleInfo {
            site: site.site.clone(),
            names: site.names.clone(),
            version,
            pools,
            chain: Bundle::chain_digest(&chain),
            envelope: sealed.digest(),
            not_before: certified.not_before,
            not_after: certified.not_after,
            authority: certified.authority.clone(),
        };
        let bundle = Bundle::new(self.issuer.sign(&info), chain, sealed);
        // A CA that certified another key is caught here, before an edge sees it.
        bundle.verify(&VerifyingKeys::from_iter([self.issuer.verifying_key()])).map_err(rejected)?;
        let bytes = bundle.to_bytes().map_err(rejected)?;
        match self.store.put_bundle(&site.site, bytes).await {
            Ok(_) => {}
            Err(error) if is_conflict(&error) => {
                let stored = self.stored_bundle(&site.site).await?;
                let (_, stored) =
                    stored.ok_or_else(|| unavailable("certstore refuses the bundle and has none that counts"))?;
                return Err(outrun("bundle", stored.version));
            }
            Err(error) if is_unverified(&error) && !self.can_be_sealed_to(bundle.sealed()).await? => {
                let detail =
                    format!("{error}: an unseal key was retired during the order, so that it takes another one");
                return Err(rejected(detail));
            }
            Err(error) => return Err(store_failure(error)),
        }
        let change = Change { kind: Kind::Bundle, name: site.site.to_string(), version: info.version };
        Ok((certified, StoredChange { at: Timestamp::now(), pools: info.pools, change }))
    }

    /// Puts an OCSP answer for a site's certificate, which is `leaf` as DER. No checkpoint lists it: an edge that it is kept
    /// from sends none, and the answer itself says how long it would hold.
    pub(crate) async fn put_staple(
        &self,
        site: &Site,
        version: u64,
        leaf: &[u8],
        answer: OcspAnswer,
    ) -> Result<(), Failure> {
        let OcspAnswer { response, this_update, next_update } = answer;
        let staple = Staple {
            site: site.site.clone(),
            version,
            pools: site.pools.clone(),
            certificate: sha256(leaf),
            response: Base64(response),
            this_update,
            next_update,
        };
        match self.store.put_staple(&site.site, &self.issuer.sign(&staple)).await {
            Ok(_) => Ok(()),
            Err(error) if is_conflict(&error) => {
                Err(outrun("OCSP answer", self.stored_staple(&site.site).await?.unwrap_or(version)))
            }
            Err(error) => Err(store_failure(error)),
        }
    }

    /// The version of the stored OCSP answer, if it is genuine; none where certstore says that it has none: one that ran out
    /// leaves nothing but its version there.
    async fn stored_staple(&self, site: &DnsName) -> Result<Option<u64>, Failure> {
        let Some(signed) = self.store.staple(site).await.map_err(store_failure)? else { return Ok(None) };
        match self.counted::<Staple>(&signed).await? {
            Counted::Document(staple) if staple.site != *site => {
                Err(unavailable(format!("certstore has the OCSP answer of {} for {site}", staple.site)))
            }
            Counted::Document(staple) => Ok(Some(staple.version)),
            Counted::Gone { standing } => Ok(Some(standing)),
        }
    }

    /// The stored bundle, if it is genuine: only then it can have come from us.
    pub(crate) async fn stored_bundle(&self, site: &DnsName) -> Result<Option<(Bundle, BundleInfo)>, Failure> {
        let Some(bytes) = self.store.bundle(site).await.map_err(store_failure)? else { return Ok(None) };
        let trusted = ring_issuers(&*self.ring().await?);
        let genuine = |bundle: Bundle| bundle.verify(&trusted).map(|info| (bundle, info));
        let (bundle, info) = match Bundle::parse(&bytes).and_then(genuine) {
            Ok(found) => found,
            // Nobody acts on it any more.
            Err(BundleError::Signature(SignatureError::UnknownSigner(signer)))
            | Err(BundleError::Envelope(EnvelopeError::Signature(SignatureError::UnknownSigner(signer)))) => {
                tracing::debug!(%site, %signer, "certstore has a bundle of an issuer that is listed no more");
                return Ok(None);
            }
            Err(error) => return Err(unavailable(error)),
        };
        if info.site != *site {
            return Err(unavailable(format!("certstore has the bundle of {} for {site}", info.site)));
        }
        Ok(Some((bundle, info)))
    }

    /// Whether the newest ring still lists every key that `sealed` is sealed to, unretired.
    async fn can_be_sealed_to(&self, sealed: &Sealed) -> Result<bool, Failure> {
        self.forget_ring().await;
        let ring = self.ring().await?;
        let stanzas = sealed.envelope().map(|envelope| envelope.stanzas()).unwrap_or_default();
        Ok(stanzas.iter().all(|stanza| {
            ring.keys.iter().any(|entry| {
                entry.pool == stanza.pool && entry.key_id == stanza.key_id && entry.state != KeyState::Retired
            })
        }))
    }

    /// Has the key ring read again before it is used next.
    pub(crate) async fn forget_ring(&self) {
        *self.ring.lock().await = None;
    }

    /// The version of the stored route, if it is genuine.
    async fn stored_route(&self, site: &DnsName) -> Result<u64, Failure> {
        let signed = self.store.route(site).await.map_err(store_failure)?;
        let signed = signed.ok_or_else(|| unavailable("certstore refuses the route and has none"))?;
        match self.counted::<Route>(&signed).await? {
            Counted::Document(route) if route.site != *site => {
                Err(unavailable(format!("certstore has the route of {} for {site}", route.site)))
            }
            Counted::Document(route) => Ok(route.version),
            Counted::Gone { standing } => Ok(standing),
        }
    }

    /// The version of the key ring, and the pools that have an active key in it.
    pub(crate) async fn active_pools(&self) -> Result<(u64, Vec<PoolName>), Failure> {
        let ring = self.ring().await?;
        let active = ring.keys.iter().filter(|entry| entry.state == KeyState::Active);
        Ok((ring.version, active.map(|entry| entry.pool.clone()).collect()))
    }

    /// Puts the checkpoint of `pool` with what is `recent`, after version `last`, or after the stored one when that is not
    /// known. Answers its version.
    pub(crate) async fn put_checkpoint(
        &self,
        pool: &PoolName,
        recent: &mut RecentChanges,
        ring: u64,
        last: Option<u64>,
    ) -> Result<u64, Failure> {
        let last = match last {
            Some(last) => last,
            None => self.stored_checkpoint(pool).await?,
        };
        let version = last.checked_add(1).ok_or_else(versions_used_up)?;
        let checkpoint = recent.checkpoint(pool, version, ring, Timestamp::now());
        self.store.put_checkpoint(pool, &self.issuer.sign(&checkpoint)).await.map_err(store_failure)?;
        Ok(checkpoint.version)
    }

    /// Signs what certstore's audit log has now, after a look whether it still has what was seen before.
    pub(crate) async fn witness_audit(&self) -> Result<(), Failure> {
        let seen = self.journaled(Journal::audit_seen).await?;
        let before = seen.as_ref().map_or(0, |seen| seen.head.number.saturating_sub(1));
        let page =
            self.store.audit(&AuditQuery { after: Some(before), limit: Some(1) }).await.map_err(store_failure)?;
        if let Some(seen) = seen {
            if seen.epoch != page.feed.epoch {
                self.doubt_all().await?;
            }
            if let Err(detail) = witness::still_has(&page, &seen) {
                tracing::error!(
                    detail,
                    "the audit log of certstore is not what it was: somebody may have tampered with it"
                );
                return Err(rejected(detail));
            }
            if seen.epoch == page.feed.epoch && seen.head == page.head {
                return Ok(());
            }
        }
        let seen = AuditSeen { epoch: page.feed.epoch, head: page.head };
        let checkpoint = AuditCheckpoint { head: page.head, at: Timestamp::now() };
        self.store.put_audit_checkpoint(&self.issuer.sign(&checkpoint)).await.map_err(store_failure)?;
        self.journaled(move |journal| journal.see_audit(&seen)).await
    }

    /// Has every site looked at again: certstore lost its data, and came back from a backup.
    async fn doubt_all(&self) -> Result<(), Failure> {
        // Before it has one, its records are not back yet. While it takes them it answers nobody.
        if self.store.ring().await.map_err(store_failure)?.is_none() {
            return Err(unavailable("certstore is empty: it waits for `certctl backup restore`"));
        }
        let sites = self.journaled(|journal| journal.change_all(Site::unconfirmed)).await?;
        tracing::warn!(sites, "certstore came back from a backup: looking what it lacks");
        Ok(())
    }

    /// The version of the stored checkpoint; 0 before the first.
    async fn stored_checkpoint(&self, pool: &PoolName) -> Result<u64, Failure> {
        let Some(signed) = self.store.checkpoint(pool).await.map_err(store_failure)? else { return Ok(0) };
        match self.counted::<Checkpoint>(&signed).await? {
            Counted::Document(checkpoint) if checkpoint.pool != *pool => {
                Err(unavailable(format!("certstore has a checkpoint of pool {} for {pool}", checkpoint.pool)))
            }
            Counted::Document(checkpoint) => Ok(checkpoint.version),
            Counted::Gone { standing } => Ok(standing),
        }
    }

    /// Has everything signed anew, or looked at again, when our issuer key is another one than before or an issuer is
    /// listed no more. Interrupted, it begins anew.
    ///
    /// # Errors
    /// While the ring does not list our issuer key: its signatures count for nobody.
    pub(crate) async fn follow_issuers(&self) -> Result<(), Failure> {
        let own = self.issuer.verifying_key().id();
        let (listed, floor) = {
            let ring = self.ring().await?;
            let listed: Vec<SignerId> = ring.issuers.iter().map(|entry| entry.id).collect();
            (listed, ring.version_floor)
        };
        if !listed.contains(&own) {
            return Err(unavailable(format!(
                "the key ring does not list our issuer key {own}, so that nobody acts on what it signs: \
                 `certctl keys issuers add` or `replace` lists it"
            )));
        }
        let now = IssuersSeen { own, listed };
        let seen = self.journaled(Journal::issuers_seen).await?;
        if seen.as_ref() == Some(&now) {
            return Ok(());
        }
        // Edges answer challenges by it, also before the next order looks at it.
        self.change_accounts(|_| {}).await?;
        let followed = self.journaled(move |journal| {
            if let Some(seen) = seen {
                let has_left = seen.listed.iter().any(|before| !now.listed.contains(before));
                if seen.own != own {
                    let sites = journal.change_all(|site| site.signed_anew(floor))?;
                    tracing::warn!(sites, from = %seen.own, to = %own, "another issuer key: signing everything anew");
                } else if has_left {
                    let sites = journal.change_all(Site::after_issuer_left)?;
                    tracing::warn!(sites, "an issuer is listed no more: looking what is missing now");
                }
            }
            journal.see_issuers(&now)
        });
        followed.await
    }

    /// The document, if we signed it, or another issuer while the ring lists it. An issuer that is listed no more
    /// leaves only the version that the security team's floor allows.
    async fn counted<D: Versioned>(&self, signed: &Signed) -> Result<Counted<D>, Failure> {
        let ours = VerifyingKeys::from_iter([self.issuer.verifying_key()]);
        let ring = self.ring().await?;
        match ring_issuers(&ring).verify(signed).or_else(|_| ours.verify(signed)) {
            Ok(document) => Ok(Counted::Document(document)),
            Err(SignatureError::UnknownSigner(signer)) => {
                // Nothing of it is believed but this: versions up to the floor may have been used.
                let claimed =
                    serde_json::from_slice::<D>(&signed.payload.0).map_or(u64::MAX, |claimed| claimed.version());
                Ok(Counted::Gone { standing: ring.standing(signer, claimed) })
            }
            Err(error) => Err(unavailable(error)),
        }
    }

    /// The changes that certstore took lately, as the journal has them.
    pub(crate) async fn recent_changes(&self) -> Result<RecentChanges, Failure> {
        let since = Timestamp::now() - recent::WINDOW;
        let (changes, complete_since) = self.journaled(move |journal| journal.changes(since)).await?;
        self.journaled(move |journal| journal.forget_changes(since)).await?;
        Ok(RecentChanges::of(&changes, complete_since))
    }

    /// Reads or writes the journal away from the reactor.
    async fn journaled<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || work(&journal)).await.map_err(unavailable)?.map_err(unavailable)
    }

    async fn ring(&self) -> Result<impl std::ops::Deref<Target = KeyRing> + '_, Failure> {
        let mut cached = self.ring.lock().await;
        if cached.as_ref().is_none_or(|(read, _)| read.elapsed() > RING_FRESH) {
            let signed = self.store.ring().await.map_err(store_failure)?;
            let signed = signed.ok_or_else(|| unavailable("there is no key ring yet: run `certctl keys generate`"))?;
            let seen = self.journaled(Journal::ring_seen).await?;
            let ring = accept_ring(&signed, &self.security, seen).map_err(unavailable)?;
            let accepted = ring.clone();
            self.journaled(move |journal| journal.see_ring(&accepted, &signed)).await?;
            *cached = Some((Instant::now(), ring));
        }
        let guard = tokio::sync::MutexGuard::try_map(cached, |cached| cached.as_mut().map(|(_, ring)| ring));
        guard.map_err(|_| unavailable("there is no key ring"))
    }
}

/// The validity and the CA's name in a certificate, if it is for all of `names`.
pub(crate) fn certified(leaf: &[u8], names: &NameSet) -> Result<Certified, Failure> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(rejected)?;
    let alternatives = leaf.subject_alternative_name().map_err(rejected)?;
    let certifies = |name: &DnsName| {
        let found = alternatives.iter().flat_map(|names| &names.value.general_names);
        found
            .into_iter()
            .any(|found| matches!(found, GeneralName::DNSName(dns) if dns.eq_ignore_ascii_case(name.as_str())))
    };
    if let Some(name) = names.iter().find(|name| !certifies(name)) {
        return Err(rejected(format!("the certificate is not for {name}")));
    }
    let instant = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(rejected);
    let name = leaf.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(Certified {
        authority: name.unwrap_or("unnamed").chars().take(100).collect(),
        not_before: instant(leaf.validity().not_before)?,
        not_after: instant(leaf.validity().not_after)?,
    })
}

/// The pause after which the place of a challenge over TLS is looked at again: a validation takes some seconds.
const PLACE_TAKEN_SECONDS: u64 = 10;

/// What names an answer among those for its host at certstore.
fn place(answer: &Answer) -> &str {
    challenge_method(answer.method).place(&answer.token)
}

/// How an edge gives an answer. One that is in the DNS comes to no edge.
fn challenge_method(method: ValidationMethod) -> ChallengeMethod {
    match method {
        ValidationMethod::TlsAlpn => ChallengeMethod::TlsAlpn,
        ValidationMethod::Http | ValidationMethod::Dns | ValidationMethod::DnsPersist => ChallengeMethod::Http,
    }
}

fn store_failure(error: ClientError) -> Failure {
    unavailable(format!("certstore: {error}"))
}

fn is_conflict(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(problem) if problem.kind == ProblemKind::Conflict)
}

fn is_unverified(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(problem) if problem.kind == ProblemKind::Unverified)
}

fn outrun(what: &str, version: u64) -> Failure {
    Failure::new(FailureKind::Outrun(version), format!("certstore has version {version} of the {what} already"))
}

fn unavailable(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Unavailable, detail)
}

fn rejected(detail: impl ToString) -> Failure {
    Failure::new(FailureKind::Rejected, detail)
}

/// The failure that no honest certman comes to.
pub(crate) fn versions_used_up() -> Failure {
    let detail = "the highest version is signed already: others have the issuer key; \
                  `certctl keys issuers replace --compromised` brings another one";
    Failure::new(FailureKind::Hopeless, detail)
}

/// How long a key ring is used before it is read again.
const RING_FRESH: Duration = Duration::from_secs(5);

/// For how long the newest account is taken to be what it was.
const LISTED_FRESH: Duration = Duration::from_secs(60);

#[cfg(test)]
mod adversary;
