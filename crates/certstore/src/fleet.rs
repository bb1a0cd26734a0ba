//! What edges report, the drills they are asked for, and what certstore holds in numbers.

use std::collections::{BTreeMap, BTreeSet};

use certseal_seal::{Bundle, Sealed};
use certseal_service::problem::Refusal;
use certseal_store::{Expect, Write};
use certseal_wire::{
    AuditAction, Base64, Cursor, DnsName, DrillOrder, EdgeList, EdgeOrders, EdgeReport, EdgeStatus, EpochCount,
    Inventory, IssuerCount, Kind, PoolName, ProblemKind, Role, RotationPlan, SealedEntry, SealedPage, SealedQuery,
    SignerId,
};
use jiff::Timestamp;

use crate::{
    audit::{Actor, Entry},
    records::{self, DRILLS, EDGES, FORGOTTEN, Stored, malformed},
    sweep::now,
    vault::{Vault, refusal},
};

impl Vault {
    /// Keeps what an edge says of itself, and tells it what it is asked for.
    pub(crate) fn edge_reported(
        &self,
        caller: &Actor,
        pool: &PoolName,
        name: &str,
        report: EdgeReport,
    ) -> Result<EdgeOrders, Refusal> {
        let is_itself = caller.role == Role::Edge(pool.clone()) && caller.name == name;
        if !is_itself || report.pool != *pool || report.name != name {
            let detail =
                format!("an edge reports of itself only: the caller is {caller}, the report of edge/{pool}/{name}");
            return Err(Refusal::new(ProblemKind::Forbidden, detail));
        }
        if self.storage().get(FORGOTTEN, &edge_key(pool, name)).map_err(refusal)?.is_some() {
            let detail = format!("edge {pool}/{name} was forgotten: `certctl edges admit` takes it back");
            return Err(Refusal::new(ProblemKind::Forbidden, detail));
        }
        let status = EdgeStatus { report, received_at: Timestamp::now() };
        let value = serde_json::to_vec(&status).map_err(Refusal::internal)?;
        if value.len() > MAX_REPORT {
            let detail = format!("expected a report of at most {MAX_REPORT} octets, got {}", value.len());
            return Err(Refusal::new(ProblemKind::TooLarge, detail));
        }
        let write = Write::put(EDGES, edge_key(pool, name), 1, value).expires_at(now() + EDGE_REMEMBERED);
        let admitted = Write::require(FORGOTTEN, edge_key(pool, name), Expect::Absent);
        let known = self.storage().get(EDGES, &edge_key(pool, name)).map_err(refusal)?;
        let known = known.and_then(|record| serde_json::from_slice::<EdgeStatus>(&record.value).ok());
        // Reports come every few seconds; what rotations rest on is noted.
        match known.is_some_and(|known| known.report.keys == status.report.keys) {
            true => self.commit_unaudited(vec![admitted, write].into())?,
            false => {
                let keys = status.report.keys.iter().map(|key| key.to_string()).collect::<Vec<_>>().join(", ");
                let entry = Entry::new(caller, AuditAction::ReportEdge).target(format!("{pool}/{name}"));
                self.commit(entry.detail(format!("unseal keys: {keys}")), vec![admitted, write].into())?
            }
        };
        let order = self.storage().get(DRILLS, pool.as_str().as_bytes()).map_err(refusal)?;
        let drill = order.map(|record| serde_json::from_slice(&record.value)).transpose().map_err(Refusal::internal)?;
        Ok(EdgeOrders { drill })
    }

    /// The edges that have reported within the time that they are remembered.
    pub(crate) fn edges(&self) -> Result<EdgeList, Refusal> {
        let records = self.storage().scan(EDGES, None, MAX_EDGES).map_err(refusal)?;
        let alive = records.into_iter().filter(|(_, record)| record.expires_at.is_none_or(|end| end > now()));
        let edges = alive.map(|(_, record)| serde_json::from_slice(&record.value)).collect::<Result<_, _>>();
        Ok(EdgeList { edges: edges.map_err(Refusal::internal)? })
    }

    /// Forgets an edge that is gone, or was taken over: nothing waits for it, and its reports are refused.
    pub(crate) fn forget_edge(&self, actor: &Actor, pool: &PoolName, name: &str) -> Result<(), Refusal> {
        let key = edge_key(pool, name);
        let entry = Entry::new(actor, AuditAction::ForgetEdge).target(format!("{pool}/{name}"));
        let forgotten = Write::put(FORGOTTEN, key.clone(), 1, Vec::new());
        self.commit(entry, vec![Write::delete(EDGES, key), forgotten].into()).map(drop)
    }

    /// Takes the reports of a forgotten edge again.
    pub(crate) fn admit_edge(&self, actor: &Actor, pool: &PoolName, name: &str) -> Result<(), Refusal> {
        let entry = Entry::new(actor, AuditAction::AdmitEdge).target(format!("{pool}/{name}"));
        self.commit(entry, Write::delete(FORGOTTEN, edge_key(pool, name)).into()).map(drop)
    }

    /// Asks the edges of a pool for a drill.
    pub(crate) fn order_drill(&self, actor: &Actor, pool: &PoolName, order: &DrillOrder) -> Result<(), Refusal> {
        if !(1..=MAX_SAMPLE).contains(&order.sample) {
            return Err(malformed(format!("expected a sample of 1 to {MAX_SAMPLE}, got {}", order.sample)));
        }
        let value = serde_json::to_vec(order).map_err(Refusal::internal)?;
        let entry = Entry::new(actor, AuditAction::OrderDrill).target(pool);
        self.commit(entry, Write::put(DRILLS, pool.as_str(), 1, value).into()).map(drop)
    }

    /// The edges of a rotation's pool that have not said that they have its new key under key ring `ring`.
    pub(crate) fn edges_without(&self, plan: &RotationPlan, ring: u64) -> Result<Vec<String>, Refusal> {
        let edges = self.edges_of(&plan.pool)?.into_iter();
        let without = edges.filter(|edge| edge.ring < ring || !edge.keys.contains(&plan.to.key_id));
        Ok(without.map(|edge| format!("{}/{}", edge.pool, edge.name)).collect())
    }

    /// The edges of a rotation's pool that have not read the feed up to `cursor`, refuse something, or lack its new key.
    pub(crate) fn edges_behind(&self, plan: &RotationPlan, cursor: Option<Cursor>) -> Result<Vec<String>, Refusal> {
        let edges = self.edges_of(&plan.pool)?.into_iter();
        let needs_old =
            |edge: &EdgeReport| !edge.has_read(cursor) || edge.refused > 0 || !edge.keys.contains(&plan.to.key_id);
        let behind = edges.filter(needs_old);
        Ok(behind.map(|edge| format!("{}/{}", edge.pool, edge.name)).collect())
    }

    /// All edges of a pool that have reported within the time that they are remembered.
    fn edges_of(&self, pool: &PoolName) -> Result<Vec<EdgeReport>, Refusal> {
        let prefix = format!("{pool}/");
        let records = self.storage().scan_prefix(EDGES, prefix.as_bytes(), MAX_EDGES + 1).map_err(refusal)?;
        if records.len() > MAX_EDGES {
            let detail = format!("expected at most {MAX_EDGES} edges in pool {pool}: divide the pool");
            return Err(Refusal::new(ProblemKind::Conflict, detail));
        }
        let alive = records.into_iter().filter(|(_, record)| record.expires_at.is_none_or(|end| end > now()));
        let status = |record: certseal_store::Record| serde_json::from_slice::<EdgeStatus>(&record.value);
        let reports = alive.map(|(_, record)| Ok(status(record)?.report)).collect::<Result<_, serde_json::Error>>();
        reports.map_err(Refusal::internal)
    }

    /// A page of sealed keys, without the certificates around them.
    pub(crate) fn sealed(&self, query: &SealedQuery) -> Result<SealedPage, Refusal> {
        let limit = query.limit.unwrap_or(MAX_SEALED).clamp(1, MAX_SEALED);
        let mut page = SealedPage { keys: Vec::new(), next: None };
        let mut looked_at = 0;
        self.each_bundle(query.after.as_ref(), |site, version, bundle| {
            looked_at += 1;
            if is_asked_for(bundle.sealed(), query) {
                page.keys.push(entry(site, version, bundle));
            }
            let goes_on = page.keys.len() < limit && looked_at < MAX_LOOKED_AT;
            page.next = (!goes_on).then(|| site.clone());
            Ok(goes_on)
        })?;
        Ok(page)
    }

    /// Counts all bundles.
    pub(crate) fn inventory(&self) -> Result<Inventory, Refusal> {
        let mut inventory = Inventory::default();
        let mut epochs: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        let mut issuers: BTreeMap<SignerId, IssuerCount> = BTreeMap::new();
        self.each_bundle(None, |site, _, bundle| {
            inventory.bundles += 1;
            // What is kept of a site that has left is served to nobody.
            if !self.has_departed(site.as_str())? {
                let envelope = bundle.sealed().envelope().map(|envelope| envelope.header().issuer);
                for signer in [Some(bundle.statement().signer), envelope].into_iter().flatten().collect::<BTreeSet<_>>()
                {
                    issuers.entry(signer).or_default().bundles += 1;
                }
            }
            *inventory.suites.entry(bundle.sealed().suite_name().to_owned()).or_default() += 1;
            if let Sealed::Envelope(envelope) = bundle.sealed() {
                inventory.grouped += u64::from(envelope.header().group.is_some());
                for stanza in envelope.stanzas() {
                    let of_pool = envelope.stanzas().iter().filter(|other| other.pool == stanza.pool).count();
                    let (sealed, only) = epochs.entry((stanza.pool.clone(), stanza.epoch)).or_default();
                    *sealed += 1;
                    *only += u64::from(of_pool == 1);
                }
            }
            Ok(true)
        })?;
        for kind in [Kind::Route, Kind::Checkpoint, Kind::Accounts] {
            self.each_signer(kind, |signer| issuers.entry(signer).or_default().documents += 1)?;
        }
        inventory.issuers = issuers.into_iter().map(|(signer, count)| (signer.to_string(), count)).collect();
        let counts = epochs.into_iter();
        inventory.epochs =
            counts.map(|((pool, epoch), (sealed, only))| EpochCount { pool, epoch, sealed, only }).collect();
        Ok(inventory)
    }
}

impl Vault {
    /// Shows who signed each document of a kind, as it says itself.
    fn each_signer(&self, kind: Kind, mut look: impl FnMut(SignerId)) -> Result<(), Refusal> {
        let mut after = None::<Vec<u8>>;
        loop {
            let page = self.storage().scan(records::table(kind), after.as_deref(), SCANNED).map_err(refusal)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let signers = page.iter().filter_map(|(_, record)| records::signer(kind, &Stored::decode(record)?.bytes));
            signers.for_each(&mut look);
        }
    }
}

/// Records read at one time.
const SCANNED: usize = 500;

fn is_asked_for(sealed: &Sealed, query: &SealedQuery) -> bool {
    let Sealed::Envelope(envelope) = sealed else {
        return query.legacy || (query.pool.is_none() && query.lacking.is_none());
    };
    if query.legacy {
        return false;
    }
    let Some(pool) = &query.pool else { return true };
    let is_for_pool = envelope.stanzas().iter().any(|stanza| stanza.pool == *pool);
    is_for_pool && query.lacking.is_none_or(|epoch| envelope.stanza(pool, epoch).is_none())
}

fn entry(site: &DnsName, version: u64, bundle: &Bundle) -> SealedEntry {
    let spki = match bundle.sealed() {
        Sealed::Envelope(_) => None,
        Sealed::Legacy(_) => bundle.leaf_spki().map(|spki| Base64(spki.to_vec())),
    };
    SealedEntry { site: site.clone(), version, sealed: Base64(bundle.sealed().to_bytes()), spki }
}

fn edge_key(pool: &PoolName, name: &str) -> Vec<u8> {
    format!("{pool}/{name}").into_bytes()
}

/// How long an edge that does not report any more is waited for, in seconds.
const EDGE_REMEMBERED: u64 = 24 * 60 * 60;

/// Octets of an edge's report: 20 failures of a drill with long names and reasons.
const MAX_REPORT: usize = 16 * 1024;

/// Edges that are listed.
const MAX_EDGES: usize = 2_000;

/// Keys in one answer: with 16 stanzas each they have some 3 MB.
const MAX_SEALED: usize = 1000;

/// Bundles that one answer passes over.
const MAX_LOOKED_AT: usize = 20_000;

/// Keys that a drill opens of each epoch and suite.
pub(crate) const MAX_SAMPLE: u32 = 10_000;
