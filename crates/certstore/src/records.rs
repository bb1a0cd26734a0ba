//! The tables of the database, and the meaning of a record in them.

use certseal_seal::Bundle;
use certseal_store::{Record, Table};
use certseal_wire::{KeyRing, Kind, PoolName, Signed, SignerId};

pub(crate) const BUNDLES: Table = Table::new("bundles");
pub(crate) const ROUTES: Table = Table::new("routes");
pub(crate) const CHALLENGES: Table = Table::new("challenges");
pub(crate) const RING: Table = Table::new("ring");
pub(crate) const ACCOUNTS: Table = Table::new("accounts");
pub(crate) const CHECKPOINTS: Table = Table::new("checkpoints");
pub(crate) const STAPLES: Table = Table::new("staples");
pub(crate) const ROTATIONS: Table = Table::new("rotations");
pub(crate) const EDGES: Table = Table::new("edges");
/// Edges that are forgotten until somebody admits them again.
pub(crate) const FORGOTTEN: Table = Table::new("forgotten edges");
pub(crate) const DRILLS: Table = Table::new("drills");

/// Records without a value; the version of one moves when an event happens that a decision rests on.
pub(crate) const MARKS: Table = Table::new("marks");

/// The mark of bundles that come sealed to a key that is not the active one any more.
pub(crate) const LATE: &str = "sealed late";

/// The mark of a store that is being restored.
pub(crate) const RESTORING: &str = "restoring";

/// The newest state of the audit log that certman saw and signed.
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
        Kind::Staple => STAPLES,
        Kind::Unknown(_) => UNKNOWN,
    }
}

/// The key of a record of `kind` with the name that events carry.
pub(crate) fn key(kind: Kind, name: &str) -> &[u8] {
    match kind {
        Kind::Bundle | Kind::Route | Kind::Checkpoint | Kind::Staple | Kind::Unknown(_) => name.as_bytes(),
        Kind::Ring | Kind::Accounts => ONLY,
    }
}

/// Where a record of `kind` with this name is.
pub(crate) fn table_and_key(kind: Kind, name: &str) -> (Table, &[u8]) {
    (table(kind), key(kind, name))
}

/// A record as it stands in the database: the pools that may see it, and the bytes as they came.
pub(crate) struct Stored {
    /// The document's own version.
    pub(crate) version: u64,
    /// Counts every write of the record: a rewrapped bundle keeps its version.
    pub(crate) revision: u64,
    pub(crate) pools: Vec<PoolName>,
    /// Of a tombstone: an octet that begins no record, and the signer of what is gone; nothing in tombstones of earlier
    /// releases.
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

    /// Reads a record back; none when it is not one of ours.
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

    /// The bytes that remain of a record of `kind`.
    pub(crate) fn tombstone(kind: Kind, record: &[u8]) -> Vec<u8> {
        let signer = signer(kind, record);
        signer.map(|signer| [&[TOMBSTONE], signer.0.as_slice()].concat()).unwrap_or_default()
    }

    /// The version that the next one has to be above. An issuer that the ring lists no more may have signed any version: its
    /// records keep out none above the ring's floor.
    pub(crate) fn standing(&self, kind: Kind, ring: &KeyRing) -> u64 {
        let signer = match kind {
            // The security team signs it, whose key does not change here.
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

/// Whether a site is there, as the record of its newest route says.
///
/// In the database a departure shows by the record's end: the route of a site that has left is deleted by itself in the end,
/// and no other route is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Present,
    Departed,
}

impl Presence {
    pub(crate) fn by_route(route: &Record) -> Self {
        if route.expires_at.is_some() { Self::Departed } else { Self::Present }
    }
}

/// The signer that a record names; its signature is not checked here.
pub(crate) fn signer(kind: Kind, bytes: &[u8]) -> Option<SignerId> {
    match kind {
        Kind::Bundle => Bundle::parse(bytes).ok().map(|bundle| bundle.statement().signer),
        _ => serde_json::from_slice::<Signed>(bytes).ok().map(|signed| signed.signer),
    }
}

/// The first octet of a tombstone; no bundle and no document begins with it.
const TOMBSTONE: u8 = 0xff;
