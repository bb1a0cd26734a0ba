//! The client of certstore.

use std::time::Duration;

use bytes::Bytes;
use certseal_wire::{
    Approval, AuditPage, AuditQuery, BackupPage, BackupPlan, BackupQuery, DeletionList, DeletionQuery, DnsName,
    DrillOrder, EdgeList, EdgeOrders, EdgeReport, Event, FeedPage, FeedQuery, Inventory, PoolName, PutOutcome,
    RestoreEnd, RestoreRequest, Retirement, RewrapOutcome, RewrapRequest, Rotation, RotationId, RotationList,
    SealedPage, SealedQuery, Segment, Signed, Snapshot, Verification,
};

use crate::{ClientError, Connection, connection::Call};

/// Calls certstore.
#[derive(Debug, Clone)]
pub struct StoreClient(Connection);

impl StoreClient {
    /// A client over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Stores a bundle. Its version must be above the stored one.
    pub async fn put_bundle(&self, site: &DnsName, bundle: Vec<u8>) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put(&format!("/v1/bundles/{site}"), bundle.into())).await
    }

    /// The bytes of a site's bundle.
    pub async fn bundle(&self, site: &DnsName) -> Result<Option<Bytes>, ClientError> {
        self.0.bytes(Call::get(&format!("/v1/bundles/{site}"))).await
    }

    /// Stores a signed [`certseal_wire::Route`]. Its version must be above the stored one.
    pub async fn put_route(&self, site: &DnsName, route: &Signed) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/routes/{site}"), route)).await
    }

    /// A site's signed [`certseal_wire::Route`].
    pub async fn route(&self, site: &DnsName) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/routes/{site}"))).await
    }

    /// Stores a signed [`certseal_wire::Staple`]. Its version must be above the stored one.
    pub async fn put_staple(&self, site: &DnsName, staple: &Signed) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/staples/{site}"), staple)).await
    }

    /// A site's signed [`certseal_wire::Staple`].
    pub async fn staple(&self, site: &DnsName) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/staples/{site}"))).await
    }

    /// Stores a signed [`certseal_wire::Challenge`] until it expires, in place of one that was there. `place` is that of its
    /// method: [`certseal_wire::ChallengeMethod::place`].
    pub async fn put_challenge(
        &self,
        host: &DnsName,
        place: &str,
        challenge: &Signed,
    ) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/challenges/{host}/{place}"), challenge)).await
    }

    /// A signed [`certseal_wire::Challenge`].
    pub async fn challenge(&self, host: &DnsName, place: &str) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/challenges/{host}/{place}"))).await
    }

    /// Forgets a challenge. It is no error when there is none.
    pub async fn delete_challenge(&self, host: &DnsName, place: &str) -> Result<(), ClientError> {
        self.0.bytes(Call::delete(&format!("/v1/challenges/{host}/{place}"))).await.map(drop)
    }

    /// Stores the signed [`certseal_wire::KeyRing`]. Its version must be above the stored one.
    pub async fn put_ring(&self, ring: &Signed) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json("/v1/ring", ring)).await
    }

    /// The signed [`certseal_wire::KeyRing`].
    pub async fn ring(&self) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get("/v1/ring")).await
    }

    /// Stores the signed [`certseal_wire::AcmeAccounts`]. Its version must be above the stored one.
    pub async fn put_accounts(&self, accounts: &Signed) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json("/v1/accounts", accounts)).await
    }

    /// The signed [`certseal_wire::AcmeAccounts`].
    pub async fn accounts(&self) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get("/v1/accounts")).await
    }

    /// Stores a signed [`certseal_wire::Checkpoint`]. Its version must be above the stored one.
    pub async fn put_checkpoint(&self, pool: &PoolName, checkpoint: &Signed) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/checkpoints/{pool}"), checkpoint)).await
    }

    /// A pool's signed [`certseal_wire::Checkpoint`].
    pub async fn checkpoint(&self, pool: &PoolName) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/checkpoints/{pool}"))).await
    }

    /// Proposes a rotation by its signed [`certseal_wire::RotationPlan`].
    pub async fn propose_rotation(&self, id: RotationId, plan: &Signed) -> Result<Rotation, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/rotations/{id}"), plan)).await
    }

    /// One rotation.
    pub async fn rotation(&self, id: RotationId) -> Result<Option<Rotation>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/rotations/{id}"))).await
    }

    /// All rotations, the newest first.
    pub async fn rotations(&self) -> Result<RotationList, ClientError> {
        self.0.json(Call::get("/v1/rotations").long_poll(Duration::ZERO, 64 * 1024 * 1024)).await
    }

    /// Approves a rotation that another admin proposed.
    pub async fn approve_rotation(&self, id: RotationId, approval: &Approval) -> Result<Rotation, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/rotations/{id}/approval"), approval)).await
    }

    /// Gives up a rotation whose key is not in the ring yet.
    pub async fn abort_rotation(&self, id: RotationId) -> Result<Rotation, ClientError> {
        self.0.json(Call::post(&format!("/v1/rotations/{id}/abort"))).await
    }

    /// Adds stanzas for a rotation's new key.
    pub async fn rewrap(&self, id: RotationId, request: &RewrapRequest) -> Result<RewrapOutcome, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/rotations/{id}/rewraps"), request).patient(LONG)).await
    }

    /// Says that bundles were opened with a rotation's new key.
    pub async fn verify_rotation(&self, id: RotationId, opened: &Verification) -> Result<Rotation, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/rotations/{id}/verification"), opened).patient(LONG)).await
    }

    /// Removes stanzas for a rotation's old keys from the next bundles.
    pub async fn retire_stanzas(&self, id: RotationId, from: &Retirement) -> Result<RewrapOutcome, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/rotations/{id}/retirements"), from).patient(LONG)).await
    }

    /// A page of sealed keys.
    pub async fn sealed(&self, query: &SealedQuery) -> Result<SealedPage, ClientError> {
        let mut path = format!("/v1/sealed?legacy={}", query.legacy);
        let mut add = |name: &str, value: Option<String>| {
            path += &value.map(|value| format!("&{name}={value}")).unwrap_or_default();
        };
        add("after", query.after.as_ref().map(|site| site.to_string()));
        add("limit", query.limit.map(|limit| limit.to_string()));
        add("pool", query.pool.as_ref().map(|pool| pool.to_string()));
        add("lacking", query.lacking.map(|epoch| epoch.to_string()));
        self.0.json(Call::get(&path).long_poll(LONG, 64 * 1024 * 1024)).await
    }

    /// The contents of the store, in numbers.
    pub async fn inventory(&self) -> Result<Inventory, ClientError> {
        self.0.json(Call::get("/v1/inventory").patient(LONG)).await
    }

    /// Says how an edge is. Answers what it is asked for.
    pub async fn report(&self, report: &EdgeReport) -> Result<EdgeOrders, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/edges/{}/{}", report.pool, report.name), report)).await
    }

    /// The edges that have reported lately.
    pub async fn edges(&self) -> Result<EdgeList, ClientError> {
        self.0.json(Call::get("/v1/edges").long_poll(Duration::ZERO, 64 * 1024 * 1024)).await
    }

    /// Takes the reports of a forgotten edge again.
    pub async fn admit_edge(&self, pool: &PoolName, name: &str) -> Result<(), ClientError> {
        self.0.json(Call::post(&format!("/v1/edges/{pool}/{name}/admission"))).await
    }

    /// Forgets an edge that is gone, and refuses its reports.
    pub async fn forget_edge(&self, pool: &PoolName, name: &str) -> Result<(), ClientError> {
        self.0.json(Call::delete(&format!("/v1/edges/{pool}/{name}"))).await
    }

    /// Asks the edges of a pool to open sealed keys at random.
    pub async fn order_drill(&self, pool: &PoolName, order: &DrillOrder) -> Result<(), ClientError> {
        self.0.json(Call::put_json(&format!("/v1/drills/{pool}"), order)).await
    }

    /// The snapshot that a reader without a cursor begins with.
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        self.0.json(Call::get("/v1/snapshot").long_poll(LONG, 64 * 1024 * 1024)).await
    }

    /// The events of one segment of a snapshot.
    pub async fn segment(&self, segment: &Segment) -> Result<Vec<Event>, ClientError> {
        let path = format!("/v1/snapshot/{}", segment.digest);
        self.0.json(Call::get(&path).long_poll(LONG, 64 * 1024 * 1024)).await
    }

    /// A page of the audit log.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ClientError> {
        let mut path = format!("/v1/audit?after={}", query.after.unwrap_or(0));
        path += &query.limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
        self.0.json(Call::get(&path).long_poll(Duration::ZERO, 64 * 1024 * 1024)).await
    }

    /// Stores a signed [`certseal_wire::AuditCheckpoint`].
    pub async fn put_audit_checkpoint(&self, checkpoint: &Signed) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json("/v1/audit/checkpoint", checkpoint)).await
    }

    /// The newest signed [`certseal_wire::AuditCheckpoint`].
    pub async fn audit_checkpoint(&self) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get("/v1/audit/checkpoint")).await
    }

    /// Bundles that will be deleted by themselves, the earliest first.
    pub async fn deletions(&self, query: &DeletionQuery) -> Result<DeletionList, ClientError> {
        let mut path = format!("/v1/deletions?limit={}", query.limit.unwrap_or(1000));
        path += &query.within.map(|within| format!("&within={within}")).unwrap_or_default();
        self.0.json(Call::get(&path)).await
    }

    /// The plan of what a backup has to copy.
    pub async fn backup_plan(&self) -> Result<BackupPlan, ClientError> {
        self.0.json(Call::get("/v1/backup").patient(LONG)).await
    }

    /// A page of the records of a table, as they are stored.
    pub async fn backup_page(&self, table: &str, query: &BackupQuery) -> Result<BackupPage, ClientError> {
        let mut path = format!("/v1/backup/{}", escaped(table));
        let mut separator = '?';
        for (name, value) in [("after", &query.after), ("only", &query.only)] {
            if let Some(value) = value {
                path += &format!("{separator}{name}={}", escaped(value));
                separator = '&';
            }
        }
        self.0.json(Call::get(&path).long_poll(LONG, 64 * 1024 * 1024)).await
    }

    /// Gives records of a backup to a store that holds nothing else.
    pub async fn restore(&self, request: &RestoreRequest) -> Result<(), ClientError> {
        self.0.json(Call::post_json("/v1/restore", request).patient(LONG)).await
    }

    /// Says that a store has all records of a backup: it serves from then on.
    pub async fn end_restore(&self, end: &RestoreEnd) -> Result<(), ClientError> {
        self.0.json(Call::post_json("/v1/restore/end", end).patient(LONG)).await
    }

    /// A page of the feed; waits for news when there are none and the query says so.
    pub async fn feed(&self, query: &FeedQuery) -> Result<FeedPage, ClientError> {
        let wait = query.wait.unwrap_or(0);
        let mut path = format!("/v1/feed?wait={wait}");
        if let Some(after) = query.after {
            path += &format!("&after={after}");
        }
        if let Some(limit) = query.limit {
            path += &format!("&limit={limit}");
        }
        self.0.json(Call::get(&path).long_poll(Duration::from_secs(wait), 64 * 1024 * 1024)).await
    }
}

/// A name as one segment of a path: every character that is not unreserved is percent-encoded (RFC 3986, 2.1).
fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}

/// In addition to the usual time, for what looks at every bundle.
const LONG: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_is_one_segment_of_a_path() {
        assert_eq!(escaped("forgotten edges"), "forgotten%20edges");
        assert_eq!(escaped("a/b?c%"), "a%2Fb%3Fc%25");
    }
}
