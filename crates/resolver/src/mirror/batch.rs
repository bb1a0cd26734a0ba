//! The changes of one transaction: every item is verified here before it is kept.

use std::sync::{Arc, atomic::Ordering};

use certseal_seal::{Bundle, RingMark, Stanza, VerifyingKeys, accept_ring, ring_issuers, sha256};
use certseal_wire::{
    AcmeAccounts, Base64, Change, Checkpoint, Digest, DnsName, Epoch, Event, KeyId, KeyRing, Kind, ParseError,
    PoolName, Route, Scheme, Signed, SignerId, Staple, UnknownKind,
};
use jiff::Timestamp;

use super::{
    applied::{Applied, Refused},
    meta,
    refusal::{Failure, Refusal},
    tables::{Mark, Tables},
    terms::Terms,
};
use crate::{MirrorError, key_holder::check_bundle};

/// Takes items into the tables of one write transaction.
pub(super) struct Batch<'a> {
    tables: Tables<'a>,
    terms: &'a Terms,
    issuers: VerifyingKeys,
    ring: Option<Arc<KeyRing>>,
    applied: Applied,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        tables: Tables<'a>,
        terms: &'a Terms,
        issuers: VerifyingKeys,
        ring: Option<Arc<KeyRing>>,
    ) -> Self {
        Self { tables, terms, issuers, ring, applied: Applied::default() }
    }

    /// Takes all items: a ring first, since it says whose signatures count.
    pub(super) fn apply(mut self, events: &[Event]) -> Result<Applied, MirrorError> {
        let (rings, others): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.kind == Kind::Ring);
        for event in rings.into_iter().chain(others) {
            if let Kind::Unknown(kind) = event.kind {
                self.pass_over(kind)?;
                continue;
            }
            let name = match own_name(event) {
                Ok(name) => name,
                Err(error) => {
                    self.refuse_nameless(event, &error);
                    continue;
                }
            };
            if event.deleted {
                match self.deleted(event, &name) {
                    Ok(true) => self.applied.accepted += 1,
                    // An item that is awaited, or was refused, stays so: that something is gone is certstore's word
                    // only.
                    Ok(false) => self.applied.unchanged += 1,
                    Err(Failure::Refused(refusal)) => {
                        tracing::warn!(name, reason = %refusal, "cannot tell whether it is gone")
                    }
                    Err(Failure::Database(error)) => return Err(error.into()),
                    Err(Failure::Unavailable(error)) => return Err(MirrorError::Unavailable(error)),
                }
                continue;
            }
            match self.accept(event, &name) {
                Ok(true) => {
                    self.applied.accepted += 1;
                    self.tables.forgive(event.kind, &name)?;
                }
                Ok(false) => {
                    self.applied.unchanged += 1;
                    self.tables.forgive(event.kind, &name)?;
                }
                Err(Failure::Refused(refusal)) => self.refuse(event, name, &refusal)?,
                Err(Failure::Database(error)) => return Err(error.into()),
                Err(Failure::Unavailable(error)) => return Err(MirrorError::Unavailable(error)),
            }
        }
        Ok(self.applied)
    }

    /// Leaves a record alone that a later release would take, and remembers its kind: such a release reads the feed anew.
    fn pass_over(&mut self, kind: UnknownKind) -> Result<(), redb::Error> {
        self.applied.passed_over += 1;
        let known = self.tables.meta(meta::PASSED_OVER)?;
        let mut kinds = meta::kinds(known.as_deref());
        let kind = Kind::Unknown(kind);
        if kinds.contains(&kind) || kinds.len() >= MAX_PASSED_OVER {
            return Ok(());
        }
        tracing::warn!(%kind, "the feed has records of a kind that this release does not know: they are passed over");
        kinds.push(kind);
        self.tables.meta.insert(meta::PASSED_OVER, meta::lines(&kinds).as_bytes())?;
        Ok(())
    }

    /// Forgets which of the kinds that were passed over are known now, and looks what of them is awaited.
    pub(super) fn meet_new_kinds(mut self) -> Result<Applied, MirrorError> {
        let kinds = meta::kinds(self.tables.meta(meta::PASSED_OVER)?.as_deref());
        let still: Vec<_> = kinds.into_iter().filter(|kind| matches!(kind, Kind::Unknown(_))).collect();
        self.tables.meta.insert(meta::PASSED_OVER, meta::lines(&still).as_bytes()).map_err(redb::Error::from)?;
        self.expect_again()?;
        Ok(self.applied)
    }

    /// Forgets refused items, unless something of the name was accepted before. Of a site that has left no bundle comes, and an
    /// OCSP answer that certstore has no more has run out.
    pub(super) fn forgive_unknown(mut self, items: &[Refused]) -> Result<Applied, MirrorError> {
        for Refused { kind, name, .. } in items {
            let has_gone = *kind == Kind::Staple || (*kind == Kind::Bundle && self.has_left(name)?);
            if has_gone || self.seen(*kind, name)?.is_none() {
                self.tables.forgive(*kind, name)?;
            }
        }
        Ok(self.applied)
    }

    /// Whether the item changed something.
    fn accept(&mut self, event: &Event, name: &str) -> Result<bool, Failure> {
        if self.is_held(event, name)? {
            return Ok(false);
        }
        let Some(Base64(body)) = &event.body else {
            // certstore announces what has left our pool with its site, and does not hand it out.
            let is_expected = matches!(event.kind, Kind::Bundle | Kind::Staple) && self.has_left(name)?;
            return if is_expected { Ok(false) } else { Err(Refusal::Missing.into()) };
        };
        match event.kind {
            Kind::Bundle => self.bundle(name.parse()?, body),
            Kind::Route => self.route(name.parse()?, body),
            Kind::Ring => self.ring(body),
            Kind::Accounts => self.accounts(body),
            Kind::Checkpoint => self.checkpoint(name.parse()?, body),
            Kind::Staple => self.staple(name.parse()?, body),
            // It was passed over before.
            Kind::Unknown(_) => Ok(false),
        }
    }

    /// certstore deleted a record. A bundle or an OCSP answer goes from here too when what certman signed says so: it is past its
    /// end. Nobody takes a site away by saying that it is gone.
    fn deleted(&mut self, event: &Event, name: &str) -> Result<bool, Failure> {
        match event.kind {
            Kind::Bundle => self.bundle_deleted(name),
            Kind::Staple => self.staple_deleted(name),
            _ => Ok(false),
        }
    }

    fn bundle_deleted(&mut self, name: &str) -> Result<bool, Failure> {
        let held = self.tables.bundles.record(name)?;
        let Some(bundle) = held.and_then(|held| Bundle::parse(&held).ok()) else { return Ok(false) };
        let info = bundle.verify(&self.issuers)?;
        if info.not_after > Timestamp::now() {
            tracing::warn!(site = name, "certstore deleted a bundle that is good: it is kept here");
            return Ok(false);
        }
        let site: DnsName = name.parse()?;
        self.tables.bundles.remove(&site)?;
        self.tables.settle(Kind::Bundle, name, info.version)?;
        self.applied.changed.push(site);
        Ok(true)
    }

    fn staple_deleted(&mut self, name: &str) -> Result<bool, Failure> {
        let Some(held) = self.tables.staple(name)? else { return Ok(false) };
        let staple: Staple = self.issuers.verify(&serde_json::from_slice(&held)?)?;
        if staple.next_update > Timestamp::now() {
            tracing::warn!(site = name, "certstore deleted an OCSP answer that is good: it is kept here");
            return Ok(false);
        }
        self.tables.staples.remove(name).map_err(redb::Error::from)?;
        self.tables.settle(Kind::Staple, name, staple.version)?;
        self.applied.changed.push(name.parse()?);
        Ok(true)
    }

    /// Whether the event announces what is held already, so that its body need not be looked at.
    fn is_held(&self, event: &Event, name: &str) -> Result<bool, redb::Error> {
        let Some(mark) = self.tables.mark(event.kind, name)? else { return Ok(false) };
        Ok(mark.version == event.version
            && match event.kind {
                Kind::Bundle => self.tables.bundles.record(name)?.is_some_and(|held| sha256(&held) == event.digest),
                _ => mark.digest == event.digest,
            })
    }

    fn bundle(&mut self, site: DnsName, body: &[u8]) -> Result<bool, Failure> {
        let bundle = Bundle::parse(body)?;
        let held = self.tables.bundles.record(site.as_str())?.and_then(|held| Bundle::parse(&held).ok());
        if let Some(held) = held.as_ref().filter(|held| bundle.is_rewrap_of(held)) {
            return self.rewrapped(site, body, &bundle, held);
        }
        let info = bundle.verify(&self.issuers)?;
        if info.site != site {
            return Err(Refusal::OtherSite(info.site).into());
        }
        let pool = &self.terms.pool;
        if !info.pools.contains(pool) {
            return Err(Refusal::OtherPool(pool.clone()).into());
        }
        if !bundle.sealed().is_for(pool) {
            return Err(Refusal::NotSealedToPool(pool.clone()).into());
        }
        let is_enveloped = bundle.sealed().envelope().is_some();
        // Also when the site has left since, and whoever signed what was here.
        let was_enveloped = self.tables.mark(Kind::Bundle, site.as_str())?.is_some_and(|mark| mark.enveloped)
            || held.is_some_and(|held| held.sealed().envelope().is_some());
        if was_enveloped && !is_enveloped {
            return Err(Refusal::BackToLegacy.into());
        }
        self.stanzas_are_sound(&bundle)?;
        self.opens(&bundle)?;
        let mark = Mark {
            version: info.version,
            // The digest is of what the issuer signed: stanzas may change within a version.
            digest: sha256(&bundle.statement().payload.0),
            left: false,
            signer: Some(bundle.statement().signer),
            enveloped: is_enveloped,
        };
        let news = self.mark(Kind::Bundle, site.as_str(), mark)?;
        let has_nothing_to_do = self.has_left(site.as_str())? || (!news && self.tables.bundles.holds(site.as_str())?);
        if has_nothing_to_do {
            return Ok(news);
        }
        self.tables.bundles.put(&site, &info.names, body)?;
        self.applied.changed.push(site);
        Ok(true)
    }

    /// The bundle that is held, sealed to other unseal keys. All that is signed is the same, and was verified before.
    fn rewrapped(&mut self, site: DnsName, body: &[u8], bundle: &Bundle, held: &Bundle) -> Result<bool, Failure> {
        let pool = &self.terms.pool;
        if !bundle.sealed().is_for(pool) {
            return Err(Refusal::NotSealedToPool(pool.clone()).into());
        }
        self.stanzas_are_sound(bundle)?;
        let loaded = self.terms.key_holder.get().map(|holder| holder.loaded());
        let newest = |bundle: &Bundle| {
            // Only loaded keys count, under the epoch that the ring gives them: the epoch in a stanza is not signed.
            let counts = |stanza: &&Stanza| {
                self.listed_epoch(stanza.key_id) == Some(stanza.epoch)
                    && loaded.as_ref().is_none_or(|ids| ids.contains(&stanza.key_id))
            };
            self.stanzas(bundle).filter(counts).map(|stanza| stanza.epoch).max()
        };
        let (found, seen) = (newest(bundle), newest(held));
        match seen {
            Some(seen) if found < Some(seen) => {
                return Err(Refusal::StanzaRolledBack { found, seen }.into());
            }
            _ if bundle == held => return Ok(false),
            _ => {}
        }
        self.opens(bundle)?;
        self.tables.bundles.replace(&site, body)?;
        self.applied.changed.push(site);
        Ok(true)
    }

    /// The stanzas of a bundle for our pool.
    fn stanzas<'b>(&self, bundle: &'b Bundle) -> impl Iterator<Item = &'b Stanza> {
        let stanzas = bundle.sealed().envelope().map(|envelope| envelope.stanzas()).unwrap_or_default();
        let pool = self.terms.pool.clone();
        stanzas.iter().filter(move |stanza| stanza.pool == pool)
    }

    /// The epoch of one of our pool's unseal keys, as the security team signed it.
    fn listed_epoch(&self, id: KeyId) -> Option<Epoch> {
        let keys = self.ring.iter().flat_map(|ring| &ring.keys);
        keys.filter(|entry| entry.pool == self.terms.pool).find(|entry| entry.key_id == id).map(|entry| entry.epoch)
    }

    /// A stanza that gives one of our keys another epoch than the ring does is forged: it would pass for the newest, and
    /// keep out all that come.
    fn stanzas_are_sound(&self, bundle: &Bundle) -> Result<(), Refusal> {
        for stanza in self.stanzas(bundle) {
            if let Some(listed) = self.listed_epoch(stanza.key_id).filter(|listed| *listed != stanza.epoch) {
                return Err(Refusal::ForgedEpoch { found: stanza.epoch, listed });
            }
        }
        Ok(())
    }

    /// No signature covers the stanzas, and whoever sealed may have sealed another key: a bundle whose key does not open,
    /// or is not the certificate's, is refused before anything of it is kept.
    fn opens(&self, bundle: &Bundle) -> Result<(), Failure> {
        match self.terms.key_holder.get() {
            Some(holder) => check_bundle(&**holder, bundle).map_err(Failure::unopened),
            None => Ok(()),
        }
    }

    /// Whether a signed route said that the site is not served here any more.
    fn has_left(&self, site: &str) -> Result<bool, redb::Error> {
        Ok(self.seen(Kind::Route, site)?.is_some_and(|route| route.left))
    }

    fn route(&mut self, site: DnsName, body: &[u8]) -> Result<bool, Failure> {
        let signed: Signed = serde_json::from_slice(body)?;
        let route: Route = self.issuers.verify(&signed)?;
        if route.site != site {
            return Err(Refusal::OtherSite(route.site).into());
        }
        let record = canonical(&signed);
        if route.upstreams.iter().any(|upstream| upstream.origin.scheme() == Scheme::Https) {
            return Err(Refusal::UpstreamOverTls.into());
        }
        let left = route.has_left() || !route.pools.contains(&self.terms.pool);
        let mark = Mark { left, ..Mark::of(route.version, &record, &signed) };
        if !self.mark(Kind::Route, site.as_str(), mark)? {
            return Ok(false);
        }
        if left {
            self.remember_envelope(&site)?;
            self.tables.routes.remove(&site)?;
            self.tables.bundles.remove(&site)?;
            self.tables.staples.remove(site.as_str()).map_err(redb::Error::from)?;
            for kind in [Kind::Bundle, Kind::Staple] {
                self.tables.forgive(kind, site.as_str())?;
                self.tables.settle(kind, site.as_str(), u64::MAX)?;
            }
        } else {
            self.tables.routes.put(&site, &route.names, &record)?;
            self.miss_bundle(&site)?;
        }
        self.applied.changed.push(site);
        Ok(true)
    }

    /// Notes with its mark that a bundle's key is in an envelope, before the bundle goes. Marks of earlier releases do not
    /// say so.
    fn remember_envelope(&mut self, site: &DnsName) -> Result<(), redb::Error> {
        let held = self.tables.bundles.record(site.as_str())?.and_then(|held| Bundle::parse(&held).ok());
        let is_enveloped = held.is_some_and(|held| held.sealed().envelope().is_some());
        match self.tables.mark(Kind::Bundle, site.as_str())? {
            Some(mark) if is_enveloped && !mark.enveloped => {
                self.tables.set_mark(Kind::Bundle, site.as_str(), &Mark { enveloped: true, ..mark })
            }
            _ => Ok(()),
        }
    }

    /// Asks for the bundle of a site that has come back: certstore sends no event for a bundle that did not change.
    fn miss_bundle(&mut self, site: &DnsName) -> Result<(), redb::Error> {
        let was_dropped =
            !self.tables.bundles.holds(site.as_str())? && self.tables.mark(Kind::Bundle, site.as_str())?.is_some();
        if was_dropped {
            self.tables.miss(site.as_str(), "dropped when the site left, and not fetched again yet")?;
            self.applied.missing.push(site.clone());
        }
        Ok(())
    }

    fn ring(&mut self, body: &[u8]) -> Result<bool, Failure> {
        let signed: Signed = serde_json::from_slice(body)?;
        let seen = self.tables.mark(Kind::Ring, "")?.map_or(0, |mark| mark.version);
        let ring = accept_ring(&signed, &self.terms.security, RingMark::of_version(seen))?;
        let record = canonical(&signed);
        if !self.mark(Kind::Ring, "", Mark::of(ring.version, &record, &signed))? {
            return Ok(false);
        }
        self.tables.meta.insert(meta::RING, record.as_slice()).map_err(redb::Error::from)?;
        self.issuers = ring_issuers(&ring);
        self.tables.forget_awaited(|signer| ring.lists_issuer(signer))?;
        self.ring = Some(Arc::new(ring));
        self.expect_again()?;
        self.applied.ring_changed = true;
        Ok(true)
    }

    fn accounts(&mut self, body: &[u8]) -> Result<bool, Failure> {
        let signed: Signed = serde_json::from_slice(body)?;
        let accounts: AcmeAccounts = self.issuers.verify(&signed)?;
        let record = canonical(&signed);
        if !self.mark(Kind::Accounts, "", Mark::of(accounts.version, &record, &signed))? {
            return Ok(false);
        }
        self.tables.meta.insert(meta::ACCOUNTS, record.as_slice()).map_err(redb::Error::from)?;
        Ok(true)
    }

    /// Takes an OCSP answer. What the CA says in it was verified by certman, and is again by the clients that get it.
    fn staple(&mut self, site: DnsName, body: &[u8]) -> Result<bool, Failure> {
        let signed: Signed = serde_json::from_slice(body)?;
        let staple: Staple = self.issuers.verify(&signed)?;
        if staple.site != site {
            return Err(Refusal::OtherSite(staple.site).into());
        }
        if !staple.pools.contains(&self.terms.pool) {
            return Err(Refusal::OtherPool(self.terms.pool.clone()).into());
        }
        let record = canonical(&signed);
        if !self.mark(Kind::Staple, site.as_str(), Mark::of(staple.version, &record, &signed))? {
            return Ok(false);
        }
        // A site that comes back gets another certificate, and that another answer.
        if !self.has_left(site.as_str())? {
            self.tables.staples.insert(site.as_str(), record.as_slice()).map_err(redb::Error::from)?;
            self.applied.changed.push(site);
        }
        Ok(true)
    }

    /// Keeps a checkpoint's date, and of its list what is not here.
    fn checkpoint(&mut self, pool: PoolName, body: &[u8]) -> Result<bool, Failure> {
        let signed: Signed = serde_json::from_slice(body)?;
        let checkpoint: Checkpoint = self.issuers.verify(&signed)?;
        if checkpoint.pool != self.terms.pool || checkpoint.pool != pool {
            return Err(Refusal::OtherCheckpoint(checkpoint.pool).into());
        }
        let record = canonical(&signed);
        let mark = Mark::of(checkpoint.version, &record, &signed);
        if !self.mark(Kind::Checkpoint, pool.as_str(), mark)? {
            return Ok(false);
        }
        let issued_at = checkpoint.issued_at.to_string();
        let last = self.tables.meta.insert(meta::CHECKPOINT, issued_at.as_bytes()).map_err(redb::Error::from)?;
        let last = last.and_then(|row| meta::timestamp(row.value()));
        note_gap(last, checkpoint.complete_since);
        self.tables.meta.insert(meta::CHECKPOINT_DOCUMENT, record.as_slice()).map_err(redb::Error::from)?;
        self.expect(&checkpoint, signed.signer)?;
        Ok(true)
    }

    /// Looks once more what the newest checkpoint lists: a mark that kept a change from being awaited may count no more.
    fn expect_again(&mut self) -> Result<(), redb::Error> {
        let record = self.tables.meta(meta::CHECKPOINT_DOCUMENT)?;
        let signed = record.and_then(|record| serde_json::from_slice::<Signed>(&record).ok());
        let counted = signed.and_then(|signed| Some((self.issuers.verify(&signed).ok()?, signed.signer)));
        match counted {
            Some((checkpoint, signer)) => self.expect(&checkpoint, signer),
            None => Ok(()),
        }
    }

    /// Has awaited of a checkpoint's list what is not here.
    fn expect(&mut self, checkpoint: &Checkpoint, signer: SignerId) -> Result<(), redb::Error> {
        // Routes first: whether a bundle or an OCSP answer is awaited depends on them.
        let (dependent, others): (Vec<_>, Vec<_>) =
            checkpoint.changes.iter().partition(|change| matches!(change.kind, Kind::Bundle | Kind::Staple));
        for change in others.into_iter().chain(dependent) {
            if self.lacks(change)? {
                self.tables.expect(change, signer)?;
            }
        }
        Ok(())
    }

    /// Whether a change has not come here. Bundle and OCSP answer of a site that has left do not come, unless it is coming back.
    fn lacks(&self, change: &Change) -> Result<bool, redb::Error> {
        let Change { kind, name, version } = change;
        // An item that this release would not take is not withheld.
        if matches!(kind, Kind::Unknown(_)) {
            return Ok(false);
        }
        let is_here = self.seen(*kind, name)?.is_some_and(|mark| mark.version >= *version);
        let goes_with_site = matches!(kind, Kind::Bundle | Kind::Staple);
        let stays_away = goes_with_site && self.has_left(name)? && !self.tables.awaits(Kind::Route, name)?;
        Ok(!is_here && !stays_away)
    }

    /// The mark that counts. The mark of an issuer that is listed no more counts up to the ring's floor only: a holder
    /// of its key could have signed any version.
    fn seen(&self, kind: Kind, name: &str) -> Result<Option<Mark>, redb::Error> {
        let Some(mark) = self.tables.mark(kind, name)? else { return Ok(None) };
        // The ring is signed by the security team, whose key does not change here.
        let (Some(ring), Some(signer)) = (&self.ring, mark.signer.filter(|_| kind != Kind::Ring)) else {
            return Ok(Some(mark));
        };
        Ok(match ring.standing(signer, mark.version) {
            version if version == mark.version => Some(mark),
            0 => None,
            version => Some(Mark { version, digest: Digest([0; 32]), left: false, ..mark }),
        })
    }

    /// Moves the high-water mark up to a verified item; false when it is there already.
    fn mark(&mut self, kind: Kind, name: &str, mark: Mark) -> Result<bool, Failure> {
        let Mark { version, digest, .. } = mark;
        match self.seen(kind, name)? {
            Some(seen) if version < seen.version => {
                return Err(Refusal::RolledBack { found: version, seen: seen.version }.into());
            }
            Some(seen) if version == seen.version && digest != seen.digest => {
                return Err(Refusal::Rewritten(version).into());
            }
            Some(seen) if version == seen.version => return Ok(false),
            _ => {}
        }
        self.tables.set_mark(kind, name, &mark)?;
        self.tables.settle(kind, name, version)?;
        Ok(true)
    }

    /// Counts, logs and remembers an item that is not taken.
    fn refuse(&mut self, event: &Event, name: String, refusal: &Refusal) -> Result<(), redb::Error> {
        let Event { kind, version, .. } = event;
        let reason = refusal.to_string();
        if self.tables.refuse(*kind, &name, &reason)? {
            tracing::warn!(%kind, name, version, reason, "refused an item of the feed");
        } else if !self.terms.refused_overflowed.swap(true, Ordering::Relaxed) {
            tracing::error!(%kind, name, reason, "more items are refused than are remembered; the others are only counted");
        }
        self.applied.refused.push(Refused { kind: *kind, name, reason });
        Ok(())
    }

    /// Counts and logs an item that cannot be asked for again.
    fn refuse_nameless(&mut self, event: &Event, error: &ParseError) {
        let Event { kind, version, .. } = event;
        let (name, reason) = (Shown(&event.name).to_string(), error.to_string());
        tracing::warn!(%kind, name, version, reason, "refused an item of the feed");
        self.applied.refused.push(Refused { kind: *kind, name, reason });
    }
}

/// The one name of an event's item: a site, a pool, or nothing for what there is one of, whatever came.
///
/// # Errors
/// When the name that came is none.
pub(super) fn own_name(event: &Event) -> Result<String, ParseError> {
    Ok(match event.kind {
        Kind::Bundle | Kind::Route | Kind::Staple => event.name.parse::<DnsName>()?.as_str().to_owned(),
        Kind::Checkpoint => event.name.parse::<PoolName>()?.as_str().to_owned(),
        Kind::Ring | Kind::Accounts | Kind::Unknown(_) => String::new(),
    })
}

/// A name as it came, at most as long as a DNS name is.
struct Shown<'a>(&'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().take(253).try_for_each(|c| write!(f, "{}", c.escape_default()))
    }
}

/// Says so when changes came between two checkpoints and neither lists them: certman or this edge was away for long, or
/// very much changed.
fn note_gap(last: Option<Timestamp>, complete_since: Timestamp) {
    if let Some(last) = last.filter(|last| *last < complete_since) {
        tracing::info!(from = %last, to = %complete_since, "no checkpoint covers what changed in this time");
    }
}

/// A signed document's one encoding here: a document inline in the feed and one fetched by name compare equal.
fn canonical(signed: &Signed) -> Vec<u8> {
    // Serialization fails for maps with other than text keys only; this has none.
    serde_json::to_vec(signed).expect("a signed document serializes")
}

/// Kinds that are remembered as passed over: certstore chooses their words.
const MAX_PASSED_OVER: usize = 64;
