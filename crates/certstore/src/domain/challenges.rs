//! ACME challenges, which edges answer for a short time.

use certseal_service::problem::Refusal;
use certseal_store::{Record, Transaction, Write};
use certseal_wire::{AuditAction, DnsName};

use crate::{
    actor::Actor, audit_note::AuditNote, documents::challenge_expiry, records::CHALLENGES, refusal::storage_refusal,
    vault::Vault,
};

/// Keeps a challenge that an issuer signed, until it expires. `place` is its token, or that of all challenges for tls-alpn-01:
/// a host has one of these, the newest.
pub(crate) fn put(vault: &Vault, actor: &Actor, host: &DnsName, place: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let key = key(host, place);
    vault.commit_under_ring(|trusted| {
        let note = AuditNote::new(actor, AuditAction::PutChallenge).target(&key);
        let end = challenge_expiry(host, place, bytes, &trusted.issuers)?;
        let write = Write::put(CHALLENGES, key.as_str(), 1, bytes).expires_at(end);
        Ok(Transaction { writes: vec![write], audit: note.bytes()? })
    })
}

/// The challenge, if it is there and has not expired at `now`, in seconds since 1970.
pub(crate) fn find(vault: &Vault, host: &DnsName, place: &str, now: u64) -> Result<Option<Record>, Refusal> {
    let record = vault.storage().get(CHALLENGES, key(host, place).as_bytes()).map_err(storage_refusal)?;
    Ok(record.filter(|record| record.expires_at.is_none_or(|end| end > now)))
}

/// Forgets a challenge.
pub(crate) fn delete(vault: &Vault, actor: &Actor, host: &DnsName, place: &str) -> Result<(), Refusal> {
    let key = key(host, place);
    let note = AuditNote::new(actor, AuditAction::DeleteChallenges).target(&key);
    vault.commit(note, Write::delete(CHALLENGES, key.as_str()).into()).map(drop)
}

fn key(host: &DnsName, place: &str) -> String {
    format!("{host}/{place}")
}
