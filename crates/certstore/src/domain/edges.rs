//! The reports of edges, and the drills that they are asked for.

use certseal_service::problem::Refusal;
use certseal_store::{Expect, Write};
use certseal_wire::{
    AuditAction, Cursor, DrillOrder, EdgeList, EdgeOrders, EdgeReport, EdgeStatus, PoolName, ProblemKind, Role,
    RotationPlan,
};
use jiff::Timestamp;

use crate::{
    actor::Actor,
    audit_note::AuditNote,
    clock::now,
    records::{DRILLS, EDGES, FORGOTTEN},
    refusal::{malformed, storage_refusal},
    vault::Vault,
};

/// Keeps the report of an edge, and answers with the drill that it is asked for.
pub(crate) fn report(
    vault: &Vault,
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
    if vault.storage().get(FORGOTTEN, &edge_key(pool, name)).map_err(storage_refusal)?.is_some() {
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
    let known = vault.storage().get(EDGES, &edge_key(pool, name)).map_err(storage_refusal)?;
    let known = known.and_then(|record| serde_json::from_slice::<EdgeStatus>(&record.value).ok());
    // Reports come every few seconds; the keys, which rotations rest on, are noted when they change.
    if known.is_some_and(|known| known.report.keys == status.report.keys) {
        vault.commit_unaudited(vec![admitted, write].into())?;
    } else {
        let keys = status.report.keys.iter().map(|key| key.to_string()).collect::<Vec<_>>().join(", ");
        let note = AuditNote::new(caller, AuditAction::ReportEdge).target(format!("{pool}/{name}"));
        vault.commit(note.detail(format!("unseal keys: {keys}")), vec![admitted, write].into())?;
    }
    let order = vault.storage().get(DRILLS, pool.as_str().as_bytes()).map_err(storage_refusal)?;
    let drill = order.map(|record| serde_json::from_slice(&record.value)).transpose().map_err(Refusal::internal)?;
    Ok(EdgeOrders { drill })
}

/// The edges that have reported within the time that they are remembered.
pub(crate) fn list(vault: &Vault) -> Result<EdgeList, Refusal> {
    let records = vault.storage().scan(EDGES, None, MAX_EDGES).map_err(storage_refusal)?;
    let alive = records.into_iter().filter(|(_, record)| record.expires_at.is_none_or(|end| end > now()));
    let edges = alive.map(|(_, record)| serde_json::from_slice(&record.value)).collect::<Result<_, _>>();
    Ok(EdgeList { edges: edges.map_err(Refusal::internal)? })
}

/// Forgets an edge that is gone, or was taken over: nothing waits for it, and its reports are refused.
pub(crate) fn forget(vault: &Vault, actor: &Actor, pool: &PoolName, name: &str) -> Result<(), Refusal> {
    let key = edge_key(pool, name);
    let note = AuditNote::new(actor, AuditAction::ForgetEdge).target(format!("{pool}/{name}"));
    let forgotten = Write::put(FORGOTTEN, key.clone(), 1, Vec::new());
    vault.commit(note, vec![Write::delete(EDGES, key), forgotten].into()).map(drop)
}

/// Takes the reports of a forgotten edge again.
pub(crate) fn admit(vault: &Vault, actor: &Actor, pool: &PoolName, name: &str) -> Result<(), Refusal> {
    let note = AuditNote::new(actor, AuditAction::AdmitEdge).target(format!("{pool}/{name}"));
    vault.commit(note, Write::delete(FORGOTTEN, edge_key(pool, name)).into()).map(drop)
}

/// Asks the edges of a pool for a drill.
pub(crate) fn order_drill(vault: &Vault, actor: &Actor, pool: &PoolName, order: &DrillOrder) -> Result<(), Refusal> {
    if !(1..=DrillOrder::MAX_SAMPLE).contains(&order.sample) {
        return Err(malformed(format!("expected a sample of 1 to {}, got {}", DrillOrder::MAX_SAMPLE, order.sample)));
    }
    let value = serde_json::to_vec(order).map_err(Refusal::internal)?;
    let note = AuditNote::new(actor, AuditAction::OrderDrill).target(pool);
    vault.commit(note, Write::put(DRILLS, pool.as_str(), 1, value).into()).map(drop)
}

/// The edges of a rotation's pool that have not said that they have its new key under key ring `ring`.
pub(crate) fn without_key(vault: &Vault, plan: &RotationPlan, ring: u64) -> Result<Vec<String>, Refusal> {
    let edges = of_pool(vault, &plan.pool)?.into_iter();
    let without = edges.filter(|edge| !plan.is_loaded_by(edge, ring));
    Ok(without.map(|edge| format!("{}/{}", edge.pool, edge.name)).collect())
}

/// The edges of a rotation's pool that have not read the feed up to `cursor`, refuse something, or lack its new key.
pub(crate) fn behind(vault: &Vault, plan: &RotationPlan, cursor: Option<Cursor>) -> Result<Vec<String>, Refusal> {
    let edges = of_pool(vault, &plan.pool)?.into_iter();
    let behind = edges.filter(|edge| !plan.is_done_with_old_keys(edge, cursor));
    Ok(behind.map(|edge| format!("{}/{}", edge.pool, edge.name)).collect())
}

/// All edges of a pool that have reported within the time that they are remembered.
fn of_pool(vault: &Vault, pool: &PoolName) -> Result<Vec<EdgeReport>, Refusal> {
    let prefix = format!("{pool}/");
    let records = vault.storage().scan_prefix(EDGES, prefix.as_bytes(), MAX_EDGES + 1).map_err(storage_refusal)?;
    if records.len() > MAX_EDGES {
        let detail = format!("expected at most {MAX_EDGES} edges in pool {pool}: divide the pool");
        return Err(Refusal::new(ProblemKind::Conflict, detail));
    }
    let alive = records.into_iter().filter(|(_, record)| record.expires_at.is_none_or(|end| end > now()));
    let status = |record: certseal_store::Record| serde_json::from_slice::<EdgeStatus>(&record.value);
    let reports = alive.map(|(_, record)| Ok(status(record)?.report)).collect::<Result<_, serde_json::Error>>();
    reports.map_err(Refusal::internal)
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
