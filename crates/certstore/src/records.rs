//! What stands in which table, and the checks before a write.

use std::fmt::Display;

use crate::vault::seconds;
use certseal_seal::{Bundle, MAX_STANZAS, RingMark, VerifyingKeys, accept_ring, sha256};
use certseal_service::problem::Refusal;
use certseal_store::{Record, Table};
use certseal_wire::{
    AcmeAccounts, Challenge, Checkpoint, DnsName, Epoch, Event, KeyRing, KeyState, Kind, PoolName, ProblemKind, Route,
    Signed, SignerId, UnsealEntry,
};

pub(crate) const BUNDLES: Table = Table::new("bundles");
pub(crate) const ROUTES: Table = Table::new("routes");
pub(crate) const CHALLENGES: Table = Table::new("challenges");
pub(crate) const RING: Table = Table::new("ring");
pub(crate) const ACCOUNTS: Table = Table::new("accounts");
pub(crate) const CHECKPOINTS: Table = Table::new("checkpoints");
pub(crate) const ROTATIONS: Table = Table::new("rotations");
pub(crate) const EDGES: Table = Table::new("edges");
/// Edges that are forgotten until somebody admits them again.
pub(crate) const FORGOTTEN: Table = Table::new("forgotten edges");
pub(crate) const DRILLS: Table = Table::new("drills");

/// Records without a value whose version moves when something happens that a decision rests on.
pub(crate) const MARKS: Table = Table::new("marks");

/// The mark of bundles that come sealed to a key that is not the active one any more.
pub(crate) const LATE: &str = "sealed late";

/// What certman saw of the audit log.
pub(crate) const AUDIT_CHECKPOINTS: Table = Table::new("audit checkpoints");

/// Where records of kinds would be that this release does not know: there are none.
const UNKNOWN: Table = Table::new("unknown");

/// The key of tables that hold one record.
pub(crate) const ONLY: &[u8] = b"only";

/// The table of a kind of record.
pub(crate) fn table(kind: Kind) -> Table {
    match kind {
        Kind::Bundle => BUNDLES,
        Kind::Route => ROUTES,
        Kind::Ring => RING,
        Kind::Accounts => ACCOUNTS,
        Kind::Checkpoint => CHECKPOINTS,
        Kind::Unknown(_) => UNKNOWN,
    }
}

/// The key of a record of `kind` with the name that events carry.
pub(crate) fn key(kind: Kind, name: &str) -> &[u8] {
    match kind {
        Kind::Bundle | Kind::Route | Kind::Checkpoint | Kind::Unknown(_) => name.as_bytes(),
        Kind::Ring | Kind::Accounts => ONLY,
    }
}

/// Where a record of `kind` with this name is.
pub(crate) fn table_and_key(kind: Kind, name: &str) -> (Table, &[u8]) {
    (table(kind), key(kind, name))
}

/// A record as it stands in the database: who may see it, and the bytes as they came.
pub(crate) struct Stored {
    /// The document's own version.
    pub(crate) version: u64,
    /// Counts every write of the record: a rewrapped bundle keeps its version.
    pub(crate) revision: u64,
    pub(crate) pools: Vec<PoolName>,
    /// Of a tombstone: an octet that begins no record, and who signed what is gone; nothing in those of earlier releases.
    pub(crate) bytes: Vec<u8>,
    /// When it is deleted, in seconds since 1970.
    pub(crate) expires_at: Option<u64>,
}

impl Stored {
    /// The value in the database: the version in eight octets, the pools as a comma-separated list after its length in
    /// two octets, then the bytes. The database's own version is the revision.
    pub(crate) fn encode(version: u64, pools: &[PoolName], bytes: &[u8]) -> Vec<u8> {
        let list = pools.iter().map(PoolName::as_str).collect::<Vec<_>>().join(",");
        // A list that two octets cannot count comes with an event that the storage refuses for its size.
        let len = (list.len() as u16).to_be_bytes();
        [version.to_be_bytes().as_slice(), &len, list.as_bytes(), bytes].concat()
    }

    /// Reads a record back. None when it is not one of ours.
    pub(crate) fn decode(record: &Record) -> Option<Self> {
        let (version, rest) = record.value.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (list, bytes) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let list = std::str::from_utf8(list).ok()?;
        let pools = list.split(',').filter(|name| !name.is_empty()).map(str::parse).collect::<Result<_, _>>().ok()?;
        let version = u64::from_be_bytes(*version);
        Some(Self { version, revision: record.version, pools, bytes: bytes.to_vec(), expires_at: record.expires_at })
    }

    /// Whether the record is gone, and only its version is kept.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.bytes.is_empty() || self.signer_of_gone().is_some()
    }

    /// What remains of a bundle.
    pub(crate) fn tombstone(bundle: &[u8]) -> Vec<u8> {
        let signer = signer(Kind::Bundle, bundle);
        signer.map(|signer| [&[TOMBSTONE], signer.0.as_slice()].concat()).unwrap_or_default()
    }

    /// The version that the next one has to be above. An issuer that the ring lists no more may have signed any, and
    /// keeps out none above the ring's floor.
    pub(crate) fn standing(&self, kind: Kind, ring: &KeyRing) -> u64 {
        let signer = match kind {
            // Signed by the security team, whose key does not change here.
            Kind::Ring => None,
            _ if self.is_tombstone() => self.signer_of_gone(),
            _ => signer(kind, &self.bytes),
        };
        signer.map_or(self.version, |signer| ring.standing(signer, self.version))
    }

    fn signer_of_gone(&self) -> Option<SignerId> {
        self.bytes.strip_prefix(&[TOMBSTONE])?.try_into().ok().map(SignerId)
    }
}

/// Who says that they signed a record.
pub(crate) fn signer(kind: Kind, bytes: &[u8]) -> Option<SignerId> {
    match kind {
        Kind::Bundle => Bundle::parse(bytes).ok().map(|bundle| bundle.statement().signer),
        _ => serde_json::from_slice::<Signed>(bytes).ok().map(|signed| signed.signer),
    }
}

/// What a tombstone begins with, and no bundle.
const TOMBSTONE: u8 = 0xff;

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
    /// Until some time after its certificate expires, in seconds since 1970.
    Until(u64),
    /// The route of a site that has left: until nobody needs to hear of it any more.
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

    /// The ring as a record, and as what it says.
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

/// A checked challenge: when it expires, in seconds since 1970.
pub(crate) fn challenge_expiry(
    host: &DnsName,
    token: &str,
    bytes: &[u8],
    issuers: &VerifyingKeys,
) -> Result<u64, Refusal> {
    let challenge: Challenge = issuers.verify(&signed(bytes)?).map_err(unverified)?;
    belongs("host", host, &challenge.host)?;
    if challenge.token != token || !Challenge::is_token(token) || challenge.thumbprint().is_none() {
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

pub(crate) fn malformed(detail: impl ToString) -> Refusal {
    Refusal::new(ProblemKind::Malformed, detail.to_string())
}

pub(crate) fn unverified(detail: impl ToString) -> Refusal {
    Refusal::new(ProblemKind::Unverified, detail.to_string())
}

/// The longest that a challenge may live: Let's Encrypt keeps pending authorizations for 7 days, orders need minutes.
const MAX_CHALLENGE_HOURS: i64 = 24;
