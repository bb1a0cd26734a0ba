//! A certstore that is its own master, against what certman really asks it, and the real journal.
//!
//! The adversary holds every byte that certstore ever had: rings of the security team (two of one version among them), and
//! whatever certman, another certman and thieves of their keys signed. It answers each request as chance says: another
//! document, an older one, one put together from two, the same for ever, nothing, rubbish, a refusal. It signs nothing.
//!
//! A run is one journal and many sequences of calls, each of which begins with a restart of certman in the state that the
//! one before left. Between them the security team publishes rings. After each call certman must be in order
//! ([`Certman::check`]), and with an honest store everything must work again ([`Certman::recovers`]). A failure prints the
//! seed of its run; `CERTSEAL_ADVERSARY_SEED=N` does that run alone, and `CERTSEAL_ADVERSARY_SEQUENCES=N` so many sequences.

#![allow(clippy::unwrap_used)]

mod documents;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use certseal_client::Connection;
use certseal_issuance::{Action, Advice, Attempt, AuthorityId, Issued, Moment, Next, Outcome, Policy, Step};
use certseal_seal::{LegacyKey, LegacySuite, RingMark, SealRequest, Suite, TlsPrivateKey, seal, sha256, spki_digest};
use certseal_wire::{
    AuditLine, AuditMark, AuditPage, Base64, Cursor, Epoch, IssuerEntry, Problem, PutOutcome, SiteRequest, UnsealEntry,
};
use http::{Method, Request, Response};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData,
};

use self::documents::*;
use super::*;
use crate::{
    journal::Writer,
    new_key::{Groups, sealed_key},
};

#[test]
fn whatever_certstore_does_certman_is_in_order_and_recovers() {
    let from_environment = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    if let Some(seed) = from_environment("CERTSEAL_ADVERSARY_SEED") {
        return run(seed);
    }
    let sequences = from_environment("CERTSEAL_ADVERSARY_SEQUENCES").unwrap_or(SEQUENCES);
    let base = u64::from(getrandom::u32().unwrap()) << 32;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (base + thread..base + sequences.div_ceil(SEQUENCES_OF_A_RUN)).step_by(threads as usize) {
                    let ran = std::panic::catch_unwind(|| run(seed));
                    assert!(ran.is_ok(), "run it again with CERTSEAL_ADVERSARY_SEED={seed}");
                }
            });
        }
    });
}

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let dir = scratch();
        let mut certman = Certman::new(seed, dir.path());
        for sequence in 0..SEQUENCES_OF_A_RUN {
            certman.restart();
            for _ in 0..CALLS {
                // A call that never ends is a failure, too.
                tokio::time::timeout(Duration::from_secs(3600), certman.call()).await.unwrap();
                certman.check();
            }
            if certman.chance.one_in(8) || sequence + 1 == SEQUENCES_OF_A_RUN {
                certman.recovers().await;
            }
        }
    });
}

/// In memory where the system has such a place: no crash is tried here.
fn scratch() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The result of an action.
enum Done {
    Outcome(Outcome),
    /// A whole order, to its end.
    Issued(Step),
}

/// A certman, and what is known of it.
struct Certman {
    certstore: Certstore,
    journal: Journal,
    store: Arc<Mutex<Hostile>>,
    chance: Chance,
    now: Timestamp,
    groups: Mutex<Groups>,
    /// The newest ring that it accepted, from which it may not go back.
    mark: RingMark,
    audit: Option<AuditSeen>,
    followed: Option<IssuersSeen>,
    /// Sites whose certificate may be ordered again since an issuer left.
    left: BTreeSet<DnsName>,
    /// When certificates were ordered again on certstore's word.
    reordered: VecDeque<Timestamp>,
    /// The checkpoint that is known to be stored.
    checkpoint: Option<u64>,
}

impl Certman {
    fn new(seed: u64, dir: &std::path::Path) -> Self {
        // Seeds that differ in few bits make sequences that differ.
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let store = Hostile::new(Chance(seed));
        let journal = Journal::open(dir).unwrap();
        for name in SITES {
            let issued = Issued {
                authority: "test".into(),
                ordered_from: None,
                names: None,
                not_before: None,
                not_after: Timestamp::MAX,
                renew_at: Timestamp::MAX,
                lineage: None,
                advice: Advice::default(),
                is_put_forward: false,
            };
            let site = Site {
                route_stored: true,
                certificate: Some(issued),
                bundle_version: 1,
                order: None,
                ..Site::new(name.parse().unwrap(), request(name, 1))
            };
            assert!(journal.write(None, &site, Writer::Request, &[]).unwrap().is_some());
        }
        let security = store.security.verifying_key();
        let own = copy(&store.own);
        let store = Arc::new(Mutex::new(store));
        Self {
            certstore: Certstore::new(connect(&store), own, security, journal.clone()),
            journal,
            store,
            chance: Chance(!seed | 1),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            groups: Mutex::new(Groups::new(1, SignedDuration::ZERO)),
            mark: RingMark::default(),
            audit: None,
            followed: None,
            left: BTreeSet::new(),
            reordered: VecDeque::new(),
            checkpoint: None,
        }
    }

    /// As certman starts, with the key that it has now.
    fn restart(&mut self) {
        let mut store = self.store.lock().unwrap();
        store.begin(self.chance.one_in(16));
        let (own, security) = (copy(&store.own), store.security.verifying_key());
        self.certstore = Certstore::new(connect(&self.store), own, security, self.journal.clone());
        self.checkpoint = None;
        let passed = if self.chance.one_in(50) { 48 * 60 } else { self.chance.below(30) };
        self.now += SignedDuration::from_mins(passed as i64);
    }

    async fn call(&mut self) {
        let name: DnsName = self.chance.pick(&SITES).parse().unwrap();
        match self.chance.below(14) {
            0 => self.certstore.forget_ring().await,
            1 => {
                let recipients = self.certstore.recipients(&pools()).await;
                let ring = self.ring();
                for recipient in recipients.into_iter().flatten() {
                    let active = ring.as_ref().and_then(|ring| ring.active(recipient.pool()));
                    assert_eq!(active.map(|entry| entry.key_id), Some(recipient.key_id()), "sealed to another key");
                }
            }
            2 => {
                if let Ok((version, _)) = self.certstore.active_pools().await {
                    assert_eq!(version, self.ring().unwrap().version, "goes by another ring than it remembers");
                }
            }
            3 => drop(self.certstore.vouch_for_account(OURS).await),
            4 => drop(self.stored_bundle(&name).await),
            5 => {
                let mut recent = RecentChanges::new(Timestamp::now());
                self.checkpoint = self.certstore.put_checkpoint(&EU, &mut recent, 1, self.checkpoint).await.ok();
            }
            6 => drop(self.certstore.witness_audit().await),
            7 => drop(self.follow_issuers().await),
            8 => {
                // As the platform asks for it.
                let entry = self.journal.read(&name).unwrap().unwrap();
                let site = match self.chance.below(8) {
                    0 => entry.site.clone().departed(),
                    _ => entry.site.clone().changed(request(name.as_str(), 1 + self.chance.below(2))),
                };
                assert!(self.journal.write(Some(&entry), &site, Writer::Request, &[]).unwrap().is_some());
            }
            9 => {
                let entry = self.journal.read(&name).unwrap().unwrap();
                let failure = self.certstore.put_route(&entry.site).await.err();
                self.check_outrun(&format!("/v1/routes/{name}"), failure.as_ref());
            }
            _ => self.drive(&name).await,
        }
    }

    /// The next action for a site, as the worker does it.
    async fn drive(&mut self, name: &DnsName) {
        let entry = self.journal.read(name).unwrap().unwrap();
        let Next::Do(action) = entry.site.next(self.now, &POLICY) else { return };
        let table = if action == Action::StoreRoute { "routes" } else { "bundles" };
        let outcome = self.perform(&entry.site, &action).await;
        if let Err(failure) = &outcome {
            self.check_outrun(&format!("/v1/{table}/{name}"), Some(failure));
        }
        let is_confirmed = matches!(outcome, Ok(Done::Outcome(Outcome::Confirmed(_))));
        let moment = Moment { now: self.now, chance: 0.0 };
        let after = |outcome| entry.site.clone().after(&action, outcome, moment, &POLICY);
        let site = match outcome {
            Ok(Done::Outcome(outcome)) => after(outcome),
            Ok(Done::Issued(step)) => Site { order: Some(step), ..entry.site.clone() },
            Err(failure) => after(Outcome::Failed(failure)),
        };
        if is_confirmed {
            let may_begin = self.left.remove(name);
            assert!(site.order.is_none() || may_begin, "{name} is ordered again, and no issuer left");
        }
        assert!(self.journal.write(Some(&entry), &site, Writer::Request, &[]).unwrap().is_some());
    }

    async fn perform(&mut self, site: &Site, action: &Action) -> Result<Done, Failure> {
        Ok(Done::Outcome(match action {
            Action::StoreRoute => {
                self.certstore.put_route(site).await?;
                Outcome::RouteStored
            }
            Action::Confirm => Outcome::Confirmed(self.stored_bundle(&site.site).await?.unwrap_or(0)),
            Action::TakeReorder => match self.journal.take_reorder(self.now, PER_DAY).unwrap() {
                Some(wait) => {
                    return Err(Failure::new(FailureKind::Throttled(wait.as_secs().unsigned_abs()), "no room"));
                }
                None => {
                    self.count_reorder();
                    Outcome::ReorderTaken
                }
            },
            Action::Revoke(revocation) => Outcome::Revoked(revocation.clone()),
            Action::Deactivate(order) => Outcome::Deactivated(order.clone()),
            Action::StoreBundle { sealed, chain } => {
                let chain = chain.iter().map(|der| der.0.clone()).collect();
                let (certified, _) = self.certstore.put_bundle(site, &sealed.bytes.0, chain).await?;
                let Certified { authority, not_before, not_after } = certified;
                Outcome::Stored { authority, id: None, not_before, not_after, responder: false }
            }
            // The CA says yes to everything at once.
            _ => {
                let recipients = self.certstore.recipients(&site.pools).await?;
                self.certstore.vouch_for_account(OURS).await?;
                let version = site.bundle_version.checked_add(1).ok_or_else(versions_used_up)?;
                let issuer = self.certstore.issuer();
                let sealed = sealed_key(site.key_type, &site.names, version, &recipients, issuer, &self.groups);
                let sealed = sealed.await.unwrap();
                let csr = sealed.csr.as_ref().unwrap().0.as_slice();
                let leaf = CertificateSigningRequestParams::from_der(&csr.into()).unwrap().signed_by(&CA).unwrap();
                let chain = vec![Base64(leaf.der().to_vec())];
                return Ok(Done::Issued(Step::Issued { sealed, chain, authority: None }));
            }
        }))
    }

    /// A bucket of [`PER_DAY`], which fills up within a day.
    fn count_reorder(&mut self) {
        self.reordered.push_back(self.now);
        while self.reordered.len() > 4 * PER_DAY as usize {
            self.reordered.pop_front();
        }
        for (index, since) in self.reordered.iter().enumerate() {
            let refilled = self.now.duration_since(*since).as_secs() * i64::from(PER_DAY) / (24 * 3600);
            let taken = self.reordered.len() - index;
            assert!(taken as i64 <= i64::from(PER_DAY) + refilled, "{taken} are ordered again since {since}");
        }
    }

    async fn stored_bundle(&self, site: &DnsName) -> Result<Option<u64>, Failure> {
        let Some((bundle, info)) = self.certstore.stored_bundle(site).await? else { return Ok(None) };
        let signer = bundle.statement().signer;
        assert_eq!(info.site, *site, "the bundle of another site");
        assert!(self.ring().unwrap().lists_issuer(signer), "a bundle of {signer}, which is no issuer");
        let store = self.store.lock().unwrap();
        let genuine = |record: &Record| Bundle::parse(&record.bytes).unwrap().is_rewrap_of(&bundle);
        let made = store.records[&format!("/v1/bundles/{site}")].iter().filter(|record| record.version == info.version);
        assert!(made.into_iter().any(genuine), "a bundle that nobody made");
        Ok(Some(info.version))
    }

    async fn follow_issuers(&mut self) -> Result<(), Failure> {
        self.certstore.follow_issuers().await?;
        let own = self.certstore.issuer.verifying_key().id();
        let now = IssuersSeen { own, listed: self.ring().unwrap().issuers.iter().map(|entry| entry.id).collect() };
        assert!(now.listed.contains(&own), "content with a ring that does not list its own key");
        if let Some(before) = self.followed.replace(now.clone())
            && (before.own != own || before.listed.iter().any(|before| !now.listed.contains(before)))
        {
            self.left.extend(SITES.map(|site| site.parse().unwrap()));
        }
        Ok(())
    }

    /// The genuine ring that certman goes by.
    fn ring(&self) -> Option<KeyRing> {
        self.store.lock().unwrap().ring(self.journal.ring_seen().unwrap())
    }

    /// Versions that are gone on from are those of documents that count, or the floor's.
    fn check_outrun(&self, path: &str, failure: Option<&Failure>) {
        let Some(Failure { kind: FailureKind::Outrun(version), .. }) = failure else { return };
        let ring = self.ring().unwrap();
        assert!(self.store.lock().unwrap().stands(&ring, path, *version), "{path} goes on from {version}");
    }

    /// Checks what certstore must never achieve.
    fn check(&mut self) {
        let mark = self.journal.ring_seen().unwrap();
        assert!(mark.version >= self.mark.version, "the ring went back from {} to {}", self.mark.version, mark.version);
        assert!(mark.version > self.mark.version || mark == self.mark, "another ring of version {}", mark.version);
        self.mark = mark;
        let audit = self.journal.audit_seen().unwrap();
        if let (Some(before), Some(now)) = (&self.audit, &audit)
            && before.epoch == now.epoch
        {
            assert!(now.head.number >= before.head.number, "the audit log was cut off");
            assert!(now.head.number > before.head.number || now == before, "the audit log's end is another one");
        }
        self.audit = audit;
        let mut store = self.store.lock().unwrap();
        // Before the first ring nobody else is believed.
        let nothing = || KeyRing { version: 0, keys: Vec::new(), issuers: Vec::new(), version_floor: 0 };
        let ring = &store.ring(mark).unwrap_or_else(nothing);
        for (path, record) in std::mem::take(&mut store.puts) {
            if path == ACCOUNTS {
                let listed = store.records[ACCOUNTS].iter().filter(|known| store.counts(ring, known.signer));
                let listed: BTreeSet<_> = listed.flat_map(|known| &known.thumbprints).collect();
                let is_good = |print: &String| print == OURS || listed.contains(print);
                assert!(record.thumbprints.iter().all(is_good), "{:?} of {listed:?}", record.thumbprints);
            }
            if path == ACCOUNTS || path.starts_with("/v1/checkpoints/") {
                let before = record.version - 1;
                assert!(store.stands(ring, &path, before), "{path} goes on from {before}");
            }
            store.records.entry(path).or_default().push(record);
        }
    }

    /// With an honest store, everything works again.
    async fn recovers(&mut self) {
        self.store.lock().unwrap().be_honest(self.mark);
        self.certstore.forget_ring().await;
        self.checkpoint = None;
        self.follow_issuers().await.unwrap();
        self.check();
        let (version, _) = self.certstore.active_pools().await.unwrap();
        let newest = self.store.lock().unwrap().rings.last().unwrap().0.version;
        assert_eq!((version, self.mark.version), (newest, newest));
        self.certstore.recipients(&pools()).await.unwrap();
        self.certstore.vouch_for_account(OURS).await.unwrap();
        self.check();
        let mut recent = self.certstore.recent_changes().await.unwrap();
        let first = self.certstore.put_checkpoint(&EU, &mut recent, version, None).await.unwrap();
        self.check();
        let second = self.certstore.put_checkpoint(&EU, &mut recent, version, Some(first)).await.unwrap();
        assert_eq!(second, first + 1);
        self.certstore.witness_audit().await.unwrap();
        self.check();
        for name in SITES {
            let name: DnsName = name.parse().unwrap();
            for _ in 0..4 {
                self.now += SignedDuration::from_mins(2);
                self.drive(&name).await;
                self.check();
            }
            let Site { route_stored, route_version, attempts, .. } = self.journal.read(&name).unwrap().unwrap().site;
            let Attempt { retry_at, dead, diagnosis, .. } = attempts.route;
            let waits = dead || retry_at.is_some_and(|at| at > self.now);
            assert!(route_stored || waits || route_version == u64::MAX, "no route for {name}: {diagnosis:?}");
            self.stored_bundle(&name).await.unwrap();
        }
        self.store.lock().unwrap().mood = Mood::Any;
    }
}

fn connect(store: &Arc<Mutex<Hostile>>) -> StoreClient {
    let store = store.clone();
    StoreClient::new(Connection::in_process(move |request| store.lock().unwrap().answer(&request)))
}

/// How the store answers in one sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    /// Anything, a document of the right kind more often than not.
    Any,
    /// Genuine documents, old and new, where they belong.
    Genuine,
    Errors,
    /// There is never any news.
    Frozen,
    /// As certstore is, with the newest of everything.
    Honest,
}

/// A stored document.
#[derive(Clone)]
struct Record {
    bytes: Bytes,
    signer: SignerId,
    version: u64,
    /// Of a list of accounts.
    thumbprints: Vec<String>,
}

/// The store, and the people who sign.
struct Hostile {
    chance: Chance,
    mood: Mood,
    security: SigningKey,
    own: SigningKey,
    /// Of another certman.
    guest: SigningKey,
    rings: Vec<(KeyRing, Signed, RingMark)>,
    /// Every document but the rings, by its path.
    records: BTreeMap<String, Vec<Record>>,
    /// The records that certman put during this call.
    puts: Vec<(String, Record)>,
    frozen: BTreeMap<String, Response<Bytes>>,
    /// The records of an honest store.
    honest: BTreeMap<String, Record>,
    honest_ring: usize,
    /// Entries of an honest store's audit log.
    entries: u64,
}

impl Hostile {
    fn new(chance: Chance) -> Self {
        let key = || SigningKey::generate().unwrap();
        let mut store = Self {
            chance,
            mood: Mood::Any,
            security: key(),
            own: key(),
            guest: key(),
            rings: Vec::new(),
            records: BTreeMap::from([(ACCOUNTS.to_owned(), Vec::new())]),
            puts: Vec::new(),
            frozen: BTreeMap::new(),
            honest: BTreeMap::new(),
            honest_ring: 0,
            entries: 1,
        };
        store.publish();
        let own = copy(&store.own);
        store.sign_all(&own, OURS, &[1]);
        store
    }

    /// A sequence begins, with another ring maybe.
    fn begin(&mut self, publishes: bool) {
        if publishes {
            self.publish();
        }
        self.frozen.clear();
        self.mood = self.chance.pick(&[Mood::Any, Mood::Any, Mood::Genuine, Mood::Genuine, Mood::Errors, Mood::Frozen]);
    }

    /// The next ring, maybe with another one of its version. Four by four: certman's key was taken and is replaced, another
    /// certman comes, the pool's key is rotated, the other certman is listed no more.
    fn publish(&mut self) {
        let step = self.rings.last().map_or(0, |(ring, ..)| ring.version);
        let (era, of_era) = (step / 4, step % 4);
        let base = ERA * era;
        let before = copy(&self.own);
        let listed = match of_era {
            0 if step > 0 => {
                self.own = SigningKey::generate().unwrap();
                self.sign_all(&before, &format!("taken in {era}"), &[base, base + 1, u64::MAX]);
                vec![copy(&self.own)]
            }
            1 => {
                self.guest = SigningKey::generate().unwrap();
                let guest = copy(&self.guest);
                let first = base + 1 + self.chance.below(40);
                let last = if self.chance.one_in(2) { u64::MAX } else { first + 1 };
                self.sign_all(&guest, &format!("guest of {era}"), &[first, last]);
                vec![copy(&self.own), guest]
            }
            2 => vec![copy(&self.own), copy(&self.guest)],
            _ => vec![copy(&self.own)],
        };
        let mut twins = vec![(listed, 0)];
        if self.chance.one_in(2) {
            twins.push((vec![copy(&self.own), copy(&self.guest)], 1));
            if step > 0 {
                twins[1].0.push(before);
            }
        }
        for (issuers, twin) in twins {
            let ring = KeyRing {
                version: step + 1,
                keys: vec![unseal_entry(&EU, step + 1, twin), unseal_entry(&US, 1, 0)],
                issuers: issuers.iter().map(issuer_entry).collect(),
                version_floor: base,
            };
            let signed = self.security.sign(&ring);
            let mark = RingMark::of(&ring, &signed);
            self.rings.push((ring, signed, mark));
        }
    }

    /// Everything that the owner of an issuer key could wish for.
    fn sign_all(&mut self, issuer: &SigningKey, thumbprint: &str, versions: &[u64]) {
        let mut made = Vec::new();
        for &version in versions {
            let accounts = AcmeAccounts { version, thumbprints: vec![thumbprint.to_owned()] };
            made.push((ACCOUNTS.to_owned(), record(issuer.sign(&accounts), version, accounts.thumbprints)));
            // Not of the same versions, so that it shows if one is taken for the other.
            for (pool, more) in pools().into_iter().zip([0, 100]) {
                let (at, version) = (Timestamp::UNIX_EPOCH, version.saturating_add(more));
                let checkpoint =
                    Checkpoint { pool: pool.clone(), version, issued_at: at, complete_since: at, changes: vec![] };
                let path = format!("/v1/checkpoints/{pool}");
                made.push((path, record(issuer.sign(&checkpoint), version, Vec::new())));
            }
            for (site, chain) in SITES.into_iter().zip(&*CHAINS) {
                let SiteRequest { names, upstream, pools, .. } = request(site, 9);
                let name: DnsName = site.parse().unwrap();
                let upstreams = vec![upstream.into()];
                let route = Route { site: name, names, version, pools, upstreams, https: HttpsMode::Redirect };
                made.push((format!("/v1/routes/{site}"), record(issuer.sign(&route), version, Vec::new())));
                let is_legacy = site != SITES[0];
                let bundle = bundle(issuer, site, version, chain, is_legacy);
                let signer = bundle.statement().signer;
                let bytes = bundle.to_bytes().unwrap().into();
                made.push((format!("/v1/bundles/{site}"), Record { bytes, signer, version, thumbprints: Vec::new() }));
            }
        }
        for (path, record) in made {
            self.records.entry(path).or_default().push(record);
        }
    }

    /// The ring that `mark` is of: it must be genuine.
    fn ring(&self, mark: RingMark) -> Option<KeyRing> {
        mark.digest?;
        Some(self.rings.iter().find(|(.., made)| *made == mark).expect("a ring that nobody signed").0.clone())
    }

    /// Whether what `signer` signs counts for certman.
    fn counts(&self, ring: &KeyRing, signer: SignerId) -> bool {
        ring.lists_issuer(signer) || signer == self.own.verifying_key().id()
    }

    /// Whether certman may go on from `version`.
    fn stands(&self, ring: &KeyRing, path: &str, version: u64) -> bool {
        let mut records = self.records.get(path).into_iter().flatten();
        version <= ring.version_floor
            || records.any(|record| record.version == version && self.counts(ring, record.signer))
    }

    /// From now on it is a certstore, with the ring that `seen` is the mark of, if there are two of the newest version.
    /// It lacks the documents that a listed guest signed: those would be above certman's.
    fn be_honest(&mut self, seen: RingMark) {
        self.mood = Mood::Honest;
        let newest = self.rings.last().unwrap().0.version;
        let of_newest = self.rings.iter().position(|(.., mark)| mark.version == newest).unwrap();
        self.honest_ring = self.rings.iter().position(|(.., mark)| *mark == seen).unwrap_or(0).max(of_newest);
        let ring = &self.rings[self.honest_ring].0;
        let own = self.own.verifying_key().id();
        let best = |records: &Vec<Record>| {
            let fit = records.iter().filter(|record| record.signer == own || !ring.lists_issuer(record.signer));
            fit.max_by_key(|record| (ring.standing(record.signer, record.version), record.signer == own)).cloned()
        };
        let best = self.records.iter().filter_map(|(path, records)| Some((path.clone(), best(records)?)));
        self.honest = best.collect();
        self.entries += 1;
    }

    fn answer(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let path = request.uri().path().to_owned();
        let after = || request.uri().query()?.strip_prefix("after=")?.split('&').next()?.parse().ok();
        let after = after().unwrap_or(0);
        if request.method() == Method::PUT {
            return self.put(path, request.body());
        }
        match self.mood {
            Mood::Honest => self.truth(&path),
            Mood::Frozen => {
                if let Some(shown) = self.frozen.get(&path) {
                    return shown.clone();
                }
                let shown = self.lie(&path, after);
                self.frozen.insert(path, shown.clone());
                shown
            }
            _ => self.lie(&path, after),
        }
    }

    fn put(&mut self, path: String, body: &Bytes) -> Response<Bytes> {
        let own = VerifyingKeys::from_iter([self.own.verifying_key()]);
        let signed = || serde_json::from_slice::<Signed>(body).unwrap();
        let (version, thumbprints) = match path.split('/').nth(2).unwrap() {
            "routes" => (own.verify::<Route>(&signed()).unwrap().version, Vec::new()),
            "checkpoints" => (own.verify::<Checkpoint>(&signed()).unwrap().version, Vec::new()),
            "accounts" => {
                let accounts = own.verify::<AcmeAccounts>(&signed()).unwrap();
                (accounts.version, accounts.thumbprints)
            }
            "bundles" => (Bundle::parse(body).unwrap().verify(&own).unwrap().version, Vec::new()),
            "audit" => (own.verify::<AuditCheckpoint>(&signed()).unwrap().head.number, Vec::new()),
            other => panic!("certman puts {other}"),
        };
        let record = Record { bytes: body.clone(), signer: self.own.verifying_key().id(), version, thumbprints };
        let answer = match self.mood {
            Mood::Honest => {
                let ring = &self.rings[self.honest_ring].0;
                let stored = self.honest.get(&path).filter(|stored| stored.bytes != record.bytes);
                let standing = stored.map_or(0, |stored| ring.standing(stored.signer, stored.version));
                if path.starts_with("/v1/audit/") || stored.is_none() || version > standing {
                    self.honest.insert(path.clone(), record.clone());
                    json(&PutOutcome { version, changed: true })
                } else {
                    refuse(ProblemKind::Conflict)
                }
            }
            Mood::Errors if self.chance.one_in(2) => self.refusal(),
            _ => match self.chance.below(8) {
                0 | 1 => refuse(ProblemKind::Conflict),
                2 => self.refusal(),
                _ => json(&PutOutcome { version, changed: !self.chance.one_in(4) }),
            },
        };
        if !path.starts_with("/v1/audit/") {
            self.puts.push((path, record));
        }
        answer
    }

    fn refusal(&mut self) -> Response<Bytes> {
        match self.chance.below(8) {
            0 => Response::new(Bytes::from_static(b"{\"version\": rubbish")),
            1 => Response::new(Bytes::new()),
            _ => {
                let kinds = [ProblemKind::NotFound, ProblemKind::Conflict, ProblemKind::Gone, ProblemKind::Unverified];
                let kinds = [&kinds[..], &[ProblemKind::Busy, ProblemKind::Unavailable]].concat();
                refuse(self.chance.pick(&kinds))
            }
        }
    }

    fn truth(&self, path: &str) -> Response<Bytes> {
        let entry = |number| AuditMark { number, hash: sha256(&number.to_be_bytes()) };
        match path {
            "/v1/ring" => json(&self.rings[self.honest_ring].1),
            // Of an epoch that the adversary does not know.
            "/v1/audit" => {
                let before = self.entries - 1;
                let line = AuditLine { mark: entry(self.entries), entry: String::new() };
                let feed = Cursor { epoch: [1; 16], seq: self.entries };
                json(&AuditPage { start: entry(before), head: entry(self.entries), feed, entries: vec![line] })
            }
            _ => match self.honest.get(path) {
                Some(record) => Response::new(record.bytes.clone()),
                None => refuse(ProblemKind::NotFound),
            },
        }
    }

    fn lie(&mut self, path: &str, after: u64) -> Response<Bytes> {
        let refuses = match self.mood {
            Mood::Errors => 2,
            Mood::Genuine => 20,
            _ => 8,
        };
        if self.chance.one_in(refuses) {
            return self.refusal();
        }
        match path {
            "/v1/ring" => {
                let count = self.rings.len() as u64;
                let back = match self.chance.below(4) {
                    0 | 1 => self.chance.below(2),
                    2 => self.chance.below(8),
                    _ => self.chance.below(count),
                };
                let mut signed = self.rings[count.saturating_sub(1 + back) as usize].1.clone();
                if self.mood == Mood::Any && self.chance.one_in(8) {
                    signed.payload = self.chance.pick(&self.rings.iter().collect::<Vec<_>>()).1.payload.clone();
                }
                json(&signed)
            }
            "/v1/audit" => self.audit_page(after),
            _ => {
                let elsewhere = self.mood == Mood::Any && self.chance.one_in(6);
                let kind = path.split('/').nth(2).unwrap();
                let fits = |other: &str| if elsewhere { other.split('/').nth(2) == Some(kind) } else { other == path };
                let found: Vec<&Record> =
                    self.records.iter().filter(|(other, _)| fits(other)).flat_map(|(_, records)| records).collect();
                if found.is_empty() {
                    return refuse(ProblemKind::NotFound);
                }
                let recent = if self.chance.one_in(2) { 6 } else { found.len() };
                let found = &found[found.len().saturating_sub(recent)..];
                let chosen = self.chance.pick(found).bytes.clone();
                if kind == "bundles" && self.mood == Mood::Any && self.chance.one_in(6) {
                    // Of parts that do not belong together.
                    let (one, other) = (Bundle::parse(&chosen), Bundle::parse(&self.chance.pick(found).bytes));
                    let (one, other) = (one.unwrap(), other.unwrap());
                    let mixed = match self.chance.below(2) {
                        0 => Bundle::new(one.statement().clone(), other.chain().to_vec(), one.sealed().clone()),
                        _ => one.with_sealed(other.sealed().clone()),
                    };
                    return Response::new(mixed.to_bytes().unwrap().into());
                }
                Response::new(chosen)
            }
        }
    }

    /// A page of one of several logs, forked, cut off or at odds with itself as chance says.
    fn audit_page(&mut self, after: u64) -> Response<Bytes> {
        let epoch = [self.chance.pick(&[7, 7, 7, 7, 7, 7, 7, 8, 9]); 16];
        let first = if self.chance.one_in(8) { self.chance.below(6) } else { after.saturating_add(1) };
        let last = match self.chance.below(64) {
            0 => u64::MAX,
            1..8 => self.chance.below(6),
            _ => first.saturating_add(self.chance.below(3)),
        };
        let before = if self.chance.one_in(8) { first.saturating_add(2) } else { first.saturating_sub(1) };
        let [start, line, head] = [before, first, last].map(|number| {
            let fork = u64::from(self.chance.one_in(8));
            AuditMark { number, hash: sha256(&[number.to_be_bytes(), fork.to_be_bytes()].concat()) }
        });
        let line = AuditLine { mark: line, entry: String::new() };
        let entries = if self.chance.one_in(8) { Vec::new() } else { vec![line] };
        json(&AuditPage { start, head, feed: Cursor { epoch, seq: 1 }, entries })
    }
}

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy {
    authority: AuthorityId("local".into()),
    further: Vec::new(),
    away: Vec::new(),
    retry: SignedDuration::from_secs(60),
    profile: None,
    looks_first: false,
    methods: Default::default(),
});
const PER_DAY: u32 = 2;

/// Versions that an issuer key comes to before it is replaced are below this, but for those of a thief.
const ERA: u64 = 10_000;

const SEQUENCES: u64 = 5_000;
const SEQUENCES_OF_A_RUN: u64 = 500;
const CALLS: usize = 6;
