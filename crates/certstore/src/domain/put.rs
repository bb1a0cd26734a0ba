//! Puts: bundles, routes, account lists, checkpoints and OCSP answers that issuers signed, each by compare-and-swap.
//!
//! A put is checked off the reactor, and does not keep a thread while the storage makes it durable: many wait together.

use std::sync::Arc;

use certseal_service::problem::Refusal;
use certseal_store::{Expect, Position, StoreError, Transaction, Write};
use certseal_wire::{AuditAction, BundleInfo, KeyRing, Kind, ProblemKind, PutOutcome};
use tokio::sync::oneshot;

use crate::{
    actor::Actor,
    audit_note::AuditNote,
    blocking::blocking,
    clock::{now, seconds},
    documents::{Checked, Lasts},
    guards::set_mark,
    records::{self, BUNDLES, LATE, Presence, RING, ROUTES, Stored},
    refusal::{conflict, storage_refusal},
    vault::{Trusted, Vault},
};

/// A put that was checked.
enum Attempt {
    /// The same bytes are there already.
    Same(PutOutcome),
    /// On its way to the disk.
    Submitted(PutOutcome, oneshot::Receiver<Result<Position, StoreError>>),
}

/// Stores a bundle, route, account list, checkpoint or OCSP answer that `check` finds good under the key ring.
///
/// The version must be above the stored one; it need not be the very next: a writer that goes on after this store came
/// back from a backup is ahead of it. The same bytes again are no change.
pub(crate) async fn put(
    vault: Arc<Vault>,
    actor: Actor,
    check: impl Fn(&Trusted) -> Result<Checked, Refusal> + Send + Sync + 'static,
) -> Result<PutOutcome, Refusal> {
    let (actor, check) = (Arc::new(actor), Arc::new(check));
    let mut is_ring_stale = false;
    for _ in 0..ATTEMPTS {
        let (vault, actor, check) = (vault.clone(), actor.clone(), check.clone());
        let (outcome, submitted) = match blocking(move || attempt(&vault, &actor, &*check, is_ring_stale)).await? {
            Attempt::Same(outcome) => return Ok(outcome),
            Attempt::Submitted(outcome, submitted) => (outcome, submitted),
        };
        let gone = |_| Err(StoreError::Failed { cause: "the storage gave no answer".to_owned() });
        match submitted.await.unwrap_or_else(gone) {
            Ok(_) => return Ok(outcome),
            // The record itself is compared again, and the others may have changed for a moment only.
            Err(StoreError::Conflict { table, .. }) => is_ring_stale = table == RING,
            Err(error) => return Err(storage_refusal(error)),
        }
    }
    Err(Refusal::new(ProblemKind::Conflict, "what it rests on changes all the time: try again"))
}

fn attempt(
    vault: &Vault,
    actor: &Actor,
    check: &dyn Fn(&Trusted) -> Result<Checked, Refusal>,
    is_ring_stale: bool,
) -> Result<Attempt, Refusal> {
    let mut trusted = if is_ring_stale { vault.refresh()? } else { vault.trusted() };
    let checked = match check(&trusted) {
        // Another process may know a ring under which it is good.
        Err(refusal) if refusal.0.kind == ProblemKind::Unverified => {
            let newest = vault.refresh()?;
            if Arc::ptr_eq(&newest, &trusted) {
                return Err(refusal);
            }
            trusted = newest;
            check(&trusted)?
        }
        other => other?,
    };
    let (kind, version) = (checked.kind, checked.version);
    // The records in the conditions were read before anything is decided by them.
    let (beside, presence) = beside(vault, &checked, &trusted)?;
    let write = match prepare(vault, &checked, &trusted.ring, presence) {
        // Another process may know a ring in which the signer of the stored record is no issuer any more.
        Err(refusal) if refusal.0.kind == ProblemKind::Conflict && !Arc::ptr_eq(&vault.refresh()?, &trusted) => {
            return attempt(vault, actor, check, true);
        }
        other => other?,
    };
    let Some(write) = write else {
        vault.metrics.written(kind, false);
        return Ok(Attempt::Same(PutOutcome { version, changed: false }));
    };
    let writes = [trusted.guard()].into_iter().chain(beside).chain([write]).collect();
    let transaction = Transaction { writes, audit: note_of(actor, &checked).bytes()? };
    let (reply, submitted) = oneshot::channel();
    // This runs even if the caller has gone. It does not hold the vault: if this were the last handle of it, the storage
    // would be closed by its own thread, which would wait for itself.
    let (metrics, news) = (vault.metrics.clone(), vault.news().clone());
    let done = move |outcome: Result<Position, StoreError>| {
        match &outcome {
            Ok(position) => {
                metrics.written(kind, true);
                news.announce(*position);
            }
            Err(_) => metrics.commit_failed(),
        }
        let _ = reply.send(outcome);
    };
    vault.storage().submit(transaction, Box::new(done));
    Ok(Attempt::Submitted(PutOutcome { version, changed: true }, submitted))
}

/// The writes and conditions that go together with a record, and, for a bundle, whether its site is there.
fn beside(vault: &Vault, checked: &Checked, trusted: &Trusted) -> Result<(Vec<Write>, Presence), Refusal> {
    let name = checked.name.as_str();
    match checked.kind {
        // How long it is kept depends on whether the site has left.
        Kind::Bundle => {
            let (route, unmoved) = vault.seen(ROUTES, name.as_bytes())?;
            let mut writes = vec![Write::require(ROUTES, name, unmoved)];
            if checked.is_sealed_late(&trusted.ring) {
                writes.push(set_mark(LATE)?);
            }
            Ok((writes, route.as_ref().map_or(Presence::Present, Presence::by_route)))
        }
        Kind::Route => {
            let departs = checked.lasts == Lasts::UntilDeparted;
            let (route, unmoved) = vault.seen(ROUTES, name.as_bytes())?;
            // A damaged route may have said that the site has left.
            let is_unreadable = route.is_none() && unmoved == Expect::Any;
            let had_departed = is_unreadable || route.as_ref().map(Presence::by_route) == Some(Presence::Departed);
            let mut writes = vec![Write::require(ROUTES, name, unmoved)];
            if departs || had_departed {
                let (bundle, unmoved) = vault.seen(BUNDLES, name.as_bytes())?;
                let stored = bundle.as_ref().and_then(Stored::decode).filter(|stored| !stored.is_tombstone());
                writes.push(match stored {
                    None => Write::require(BUNDLES, name, unmoved),
                    Some(stored) if departs => until(name, &stored, now() + vault.retention().departed_seconds),
                    Some(stored) => until(name, &stored, end_of(vault, &stored)?),
                });
            }
            Ok((writes, Presence::Present))
        }
        _ => Ok((vec![], Presence::Present)),
    }
}

/// When a stored bundle is deleted, while its site stays.
fn end_of(vault: &Vault, stored: &Stored) -> Result<u64, Refusal> {
    let bundle = certseal_seal::Bundle::parse(&stored.bytes).map_err(Refusal::internal)?;
    let info: BundleInfo = serde_json::from_slice(&bundle.statement().payload.0).map_err(Refusal::internal)?;
    Ok(seconds(info.not_after) + vault.retention().expired_seconds)
}

/// The write that replaces a record; none when it is there already. `ring` says whose records keep out older ones, and
/// `presence` whether the site of a bundle is there.
pub(crate) fn prepare(
    vault: &Vault,
    checked: &Checked,
    ring: &KeyRing,
    presence: Presence,
) -> Result<Option<Write>, Refusal> {
    let (table, key) = (records::table(checked.kind), records::key(checked.kind, &checked.name));
    let (record, unmoved) = vault.seen(table, key)?;
    let current = record.as_ref().and_then(Stored::decode);
    let version = checked.version;
    let (before, revision, condition) = match &current {
        Some(stored) if stored.version == version && stored.bytes == checked.bytes => return Ok(None),
        Some(stored) => (stored.standing(checked.kind, ring), stored.revision, unmoved),
        None if unmoved == Expect::Absent => (0, 0, unmoved),
        // A good record replaces the damaged one, under a revision that the latter cannot have had.
        None => (0, now(), Expect::Any),
    };
    if version <= before {
        return Err(conflict(format!("expected a version above {before}, which is stored, got {version}")));
    }
    let mut event = checked.event();
    // Pools that served it before must learn that they no longer do.
    event.pools.extend(current.map(|stored| stored.pools).unwrap_or_default());
    event.pools.sort();
    event.pools.dedup();
    // They learn it from the route, and the feed keeps the newest event only: a pool that missed the one that said
    // so has to see those that follow.
    let pools = if checked.kind == Kind::Route { &event.pools } else { &checked.pools };
    let value = Stored::encode(version, pools, &checked.bytes);
    let event = serde_json::to_vec(&event).map_err(Refusal::internal)?;
    let mut write = Write::put(table, key, revision + 1, value).expect(condition).event(event);
    match checked.lasts {
        Lasts::ForEver => {}
        Lasts::Until(not_after) => {
            let end = match presence {
                Presence::Departed => now() + vault.retention().departed_seconds,
                Presence::Present => not_after + vault.retention().expired_seconds,
            };
            write = write.expires_at(end);
        }
        Lasts::UntilDeparted => {
            write = write.expires_at(now() + vault.retention().departed_seconds + vault.retention().tombstone_seconds)
        }
    }
    Ok(Some(write))
}

/// A bundle as it is, with another end.
fn until(site: &str, stored: &Stored, expires_at: u64) -> Write {
    let value = Stored::encode(stored.version, &stored.pools, &stored.bytes);
    let again = Write::put(BUNDLES, site, stored.revision + 1, value).expires_at(expires_at);
    again.expect(Expect::Version(stored.revision))
}

/// The note that a record is stored.
pub(crate) fn note_of(actor: &Actor, checked: &Checked) -> AuditNote {
    let action = match checked.kind {
        Kind::Bundle => AuditAction::PutBundle,
        Kind::Route => AuditAction::PutRoute,
        Kind::Ring => AuditAction::PutRing,
        Kind::Accounts => AuditAction::PutAccounts,
        Kind::Staple => AuditAction::PutStaple,
        // No check lets a record of an unknown kind through.
        Kind::Checkpoint | Kind::Unknown(_) => AuditAction::PutCheckpoint,
    };
    let note = AuditNote::new(actor, action).version(checked.version).digest(certseal_seal::sha256(&checked.bytes));
    if checked.name.is_empty() { note } else { note.target(&checked.name) }
}

/// How often a write is tried again that another one came before.
const ATTEMPTS: usize = 5;

#[cfg(test)]
mod faults;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use certseal_seal::SigningKey;
    use certseal_store::Table;
    use certseal_wire::{AcmeAccounts, Base64, Event, IssuerEntry};

    use super::*;
    use crate::{
        domain::ring,
        events,
        tests::{self, put_waiting, vault, vault_of},
    };

    /// A version that cannot be exceeded ends with the issuer that signed it, also as a tombstone.
    #[test]
    fn what_an_issuer_signed_who_is_gone_stands_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let keys = [(); 3].map(|()| SigningKey::generate().unwrap());
        let [security, taken, issuer] = &keys;
        let vault = vault_of(dir.path(), security.verifying_key());
        let put_ring = |version, issuers: &[&SigningKey]| {
            let entry = |key: &&SigningKey| IssuerEntry {
                id: key.verifying_key().id(),
                public_key: Base64(key.verifying_key().as_bytes().to_vec()),
            };
            let ring = KeyRing { version, issuers: issuers.iter().map(entry).collect(), ..KeyRing::default() };
            let signed = serde_json::to_vec(&security.sign(&ring)).unwrap();
            ring::put(&vault, &Actor::itself(), signed).unwrap();
        };
        let put = |version, key: &SigningKey| {
            let bytes = serde_json::to_vec(&key.sign(&AcmeAccounts { version, thumbprints: Vec::new() })).unwrap();
            let check = move |trusted: &Trusted| Checked::accounts(bytes.clone(), &trusted.issuers);
            put_waiting(&vault, Actor::itself(), check).map(|outcome| outcome.version).map_err(|refusal| refusal.0.kind)
        };
        put_ring(1, &[taken]);
        put(u64::MAX, taken).unwrap();
        put_ring(2, &[taken, issuer]);
        assert_eq!(put(5, issuer), Err(ProblemKind::Conflict), "while it is listed, it counts");
        put_ring(3, &[issuer]);
        assert_eq!(put(5, issuer), Ok(5));
        assert_eq!(put(4, issuer), Err(ProblemKind::Conflict));

        let ring = vault.trusted().ring.clone();
        let tombstone = |key: &SigningKey| {
            let bytes = [&[0xff], key.verifying_key().id().0.as_slice()].concat();
            Stored { version: 9, revision: 1, pools: Vec::new(), bytes, expires_at: None }
        };
        assert!(tombstone(taken).is_tombstone());
        assert_eq!(tombstone(taken).standing(Kind::Bundle, &ring), 0);
        assert_eq!(tombstone(issuer).standing(Kind::Bundle, &ring), 9);
        let floored = KeyRing { version_floor: 7, ..ring };
        assert_eq!(tombstone(taken).standing(Kind::Bundle, &floored), 7);
    }

    #[test]
    fn a_put_on_its_way_does_not_hold_the_vault() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path());
        // The storage's thread is kept from answering.
        let (go_on, held) = mpsc::channel::<()>();
        let other = Write::put(Table::new("other"), "a", 1, "v");
        vault.storage().submit(other.into(), Box::new(move |_| held.recv().unwrap_or(())));
        let check = |_: &Trusted| Ok(Checked::new(Kind::Accounts, String::new(), 1, Vec::new(), b"{}".to_vec()));
        let attempt = attempt(&vault, &Actor::itself(), &check, false).unwrap();
        assert_eq!(Arc::strong_count(&vault), 1);
        drop(go_on);
        let Attempt::Submitted(outcome, submitted) = attempt else { panic!("there was nothing before") };
        submitted.blocking_recv().unwrap().unwrap();
        assert!(outcome.changed);
    }

    /// The feed keeps one event of the site, and an edge that was away must learn from it that the site has left.
    #[test]
    fn a_pool_that_a_site_left_goes_on_seeing_its_routes_but_not_its_bundles() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path());
        for (version, names) in [(1, ["eu"]), (2, ["us"]), (3, ["us"])] {
            tests::put(&vault, Kind::Route, version, &names);
            tests::put(&vault, Kind::Bundle, version, &names);
        }
        let events = vault.storage().feed(0, 10).unwrap();
        let events: Vec<Event> = events.iter().map(|entry| events::parse(&entry.event).unwrap()).collect();
        let route = events.iter().find(|event| event.kind == Kind::Route).unwrap();
        assert_eq!((events.len(), route.version, &route.pools), (2, 3, &tests::pools(&["eu", "us"])));
        assert_eq!(vault.get(Kind::Route, "a.example").unwrap().unwrap().pools, tests::pools(&["eu", "us"]));
        assert_eq!(vault.get(Kind::Bundle, "a.example").unwrap().unwrap().pools, tests::pools(&["us"]));
    }
}
