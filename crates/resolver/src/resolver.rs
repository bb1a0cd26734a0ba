//! From the name in a ClientHello to a certificate whose key is unsealed when a handshake is signed.

use std::sync::{Arc, OnceLock};

use certseal_seal::{KeyKind, sha256};
use certseal_unseal::UnsealKeys;
use certseal_wire::{DnsName, NameSet};
use jiff::Timestamp;
use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    Counts, KeyHolder, LocalKeys, Mirror, MirrorError,
    cache::{Forget, SiteCache, Weigh},
    counts::Counters,
    leaf_key::{ECDSA, LeafKey, RSA_SCHEMES},
    mirror::SEVERAL,
    sealed_key::SealedKey,
};

/// Serves the certificates of a [`Mirror`].
///
/// A name is looked up in the mirror: itself, then the wildcard over it. Its site's chain comes from a cache that is
/// bounded in bytes, or is verified and parsed. The key is unsealed by the first full handshake that signs with it:
/// resumptions, unknown names and handshakes that break off earlier open nothing. With the chain goes the site's OCSP answer,
/// where there is one that holds.
pub struct SealedResolver {
    mirror: Arc<Mirror>,
    holder: Arc<dyn KeyHolder>,
    cache: Arc<SiteCache<Option<Arc<Entry>>>>,
    counters: Arc<Counters>,
}

impl SealedResolver {
    /// A resolver whose cache of chains and unsealed keys holds about `cache_bytes`.
    ///
    /// From now on the mirror refuses bundles that `keys` cannot open: make the resolver before a [`crate::Follower`]
    /// runs.
    ///
    /// # Errors
    /// [`MirrorError::Pool`] when a key is of another pool than the mirror.
    pub fn new(mirror: Arc<Mirror>, keys: UnsealKeys, cache_bytes: u64) -> Result<Arc<Self>, MirrorError> {
        let holder = LocalKeys::new(mirror.pool(), keys)?;
        Ok(Self::with_holder(mirror, holder, cache_bytes))
    }

    /// The same over keys that `holder` opens.
    pub fn with_holder(mirror: Arc<Mirror>, holder: Arc<dyn KeyHolder>, cache_bytes: u64) -> Arc<Self> {
        mirror.open_with(holder.clone());
        let cache = Arc::new(SiteCache::new(cache_bytes, TYPICAL_BYTES));
        let as_cache: Arc<dyn Forget> = cache.clone();
        mirror.keep_fresh(Arc::downgrade(&as_cache));
        Arc::new(Self { mirror, holder, cache, counters: Arc::default() })
    }

    /// Forgets what was opened, and what could not be opened, since other unseal keys are loaded now.
    pub fn keys_changed(&self) {
        self.mirror.forget_everything();
    }

    /// The counts of what was done so far.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// The certificate for `name`, with a key that is unsealed when it signs first: what a client gets that can use any.
    pub fn certificate(&self, name: &DnsName) -> Option<Arc<CertifiedKey>> {
        self.certificate_for(name, ECDSA)
    }

    /// The certificate for `name` that a client of `schemes` can use, if the site has such a one, or else another.
    pub fn certificate_for(&self, name: &DnsName, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let count = |hit| Counters::add(if hit { &self.counters.hits } else { &self.counters.misses });
        self.find(name, schemes, count)
    }

    /// Whether there is a certificate for `name`. Looking does not count as a use of it.
    pub fn has_certificate(&self, name: &DnsName) -> bool {
        self.find(name, ECDSA, |_| {}).is_some()
    }

    /// `count` is told of each entry whether it was in the cache.
    fn find(&self, name: &DnsName, schemes: &[SignatureScheme], count: impl Fn(bool)) -> Option<Arc<CertifiedKey>> {
        let sites = self.mirror.bundle_sites(name)?;
        let entry = |site: &str| {
            let (entry, hit) = self.cache.get_or_load(site, || self.load(site));
            count(hit);
            entry.filter(|entry| entry.names.covers(name))
        };
        let Some(claims) = sites.strip_prefix(SEVERAL) else {
            return entry(&sites).map(|entry| entry.certified_now());
        };
        // The newest claim holds, and the site that makes it may have a companion: a certificate with a key of the other type.
        let (site, first) = claims.lines().find_map(|site| Some((site, entry(site)?)))?;
        if first.is_chosen_by(schemes) {
            return Some(first.certified_now());
        }
        let other = other_of(site).filter(|other| claims.lines().any(|claim| claim == other.as_str()));
        let other = other.and_then(|other| entry(other.as_str())).filter(|other| other.can_be_used_by(schemes));
        Some(other.unwrap_or(first).certified_now())
    }

    /// None, to be remembered like an entry, when the mirror's bundle cannot be used.
    fn load(&self, site: &str) -> Option<Arc<Entry>> {
        let (bundle, info) = self.mirror.bundle(site)?;
        let leaf = bundle.chain().first().and_then(|leaf| Some(X509Certificate::from_der(leaf).ok()?.1));
        let Some(leaf) = leaf.and_then(|leaf| LeafKey::from_spki(leaf.public_key().raw)) else {
            tracing::error!(site, "expected a certificate with an ECDSA P-256 or RSA key, got another");
            return None;
        };
        let kind = leaf.kind();
        let key = SealedKey::new(site, bundle.sealed().clone(), leaf, self.holder.clone(), self.counters.clone());
        let chain = bundle.chain().iter().map(|der| CertificateDer::from(der.clone())).collect();
        let mut certified = CertifiedKey::new(chain, Arc::new(key));
        let staple = self.staple(site, bundle.chain());
        let stapled_until = staple.as_ref().map(|(_, until)| *until);
        certified.ocsp = staple.map(|(response, _)| response);
        let (certified, bare) = (Arc::new(certified), OnceLock::new());
        Some(Arc::new(Entry { names: info.names, certified, stapled_until, bare, kind }))
    }

    /// The OCSP answer for the leaf of `chain` if it holds now, and its end. One for the certificate before is no answer.
    fn staple(&self, site: &str, chain: &[Vec<u8>]) -> Option<(Vec<u8>, Timestamp)> {
        let (staple, leaf) = (self.mirror.staple(site)?, chain.first()?);
        let holds = staple.certificate == sha256(leaf) && Timestamp::now() < staple.next_update;
        holds.then_some((staple.response.0, staple.next_update))
    }
}

impl ResolvesServerCert for SealedResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificate =
            hello.server_name().and_then(|name| self.certificate_for(&name.parse().ok()?, hello.signature_schemes()));
        if certificate.is_none() {
            Counters::add(&self.counters.unknown_names);
        }
        certificate
    }
}

impl std::fmt::Debug for SealedResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedResolver").field("mirror", &self.mirror).finish_non_exhaustive()
    }
}

/// One site's certificate.
struct Entry {
    names: NameSet,
    certified: Arc<CertifiedKey>,
    /// Until when the OCSP answer holds that `certified` has; none without one.
    stapled_until: Option<Timestamp>,
    /// `certified` without the answer, once that has run out.
    bare: OnceLock<Arc<CertifiedKey>>,
    kind: KeyKind,
}

impl Entry {
    /// Whether a client of `schemes` can check a signature of the key.
    fn can_be_used_by(&self, schemes: &[SignatureScheme]) -> bool {
        let own = match self.kind {
            KeyKind::EcdsaP256 => ECDSA,
            KeyKind::Rsa => RSA_SCHEMES,
        };
        own.iter().any(|scheme| schemes.contains(scheme))
    }

    /// Whether a client of `schemes` gets it without a look at the other certificate of its site: ECDSA is cheaper to sign
    /// with.
    fn is_chosen_by(&self, schemes: &[SignatureScheme]) -> bool {
        self.kind == KeyKind::EcdsaP256 && self.can_be_used_by(schemes)
    }

    /// What a handshake gets now: no answer that has run out. The opened key stays whichever it is.
    fn certified_now(&self) -> Arc<CertifiedKey> {
        match self.stapled_until {
            Some(until) if Timestamp::now() >= until => {
                let CertifiedKey { cert, key, .. } = &*self.certified;
                self.bare.get_or_init(|| Arc::new(CertifiedKey::new(cert.clone(), key.clone()))).clone()
            }
            _ => self.certified.clone(),
        }
    }
}

/// The site that has the other certificate, where there are two: the companion of `site`, or the site whose companion it is.
fn other_of(site: &str) -> Option<DnsName> {
    let site: DnsName = site.parse().ok()?;
    site.companion_of().or_else(|| site.companion())
}

impl Weigh for Option<Arc<Entry>> {
    fn bytes(&self) -> u64 {
        let Some(entry) = self else { return 0 };
        let chain = entry.certified.cert.iter().map(|der| der.len() as u64).sum::<u64>();
        // With an answer the chain may be there twice.
        let stapled = entry.certified.ocsp.as_ref().map_or(0, |response| response.len() as u64 + chain);
        let names = entry.names.iter().map(|name| name.as_str().len() as u64 + 32).sum::<u64>();
        let key = match entry.kind {
            KeyKind::EcdsaP256 => ECDSA_BYTES,
            KeyKind::Rsa => RSA_BYTES,
        };
        chain + stapled + names + key
    }
}

/// The envelope, the bookkeeping around it, and what aws-lc keeps of a P-256 key, about.
const ECDSA_BYTES: u64 = 3 * 1024;

/// The same for RSA, with the numbers that it computes ahead.
const RSA_BYTES: u64 = 12 * 1024;

/// A site with a P-256 key and a chain of two.
const TYPICAL_BYTES: u64 = 6 * 1024;
