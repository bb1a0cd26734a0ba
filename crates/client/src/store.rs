//! The client of certstore.

use std::time::Duration;

use bytes::Bytes;
use certseal_wire::{DnsName, FeedPage, FeedQuery, PoolName, PutOutcome, Signed};

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

    /// Stores a signed [`certseal_wire::Challenge`] until it expires.
    pub async fn put_challenge(
        &self,
        host: &DnsName,
        token: &str,
        challenge: &Signed,
    ) -> Result<PutOutcome, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/challenges/{host}/{token}"), challenge)).await
    }

    /// A signed [`certseal_wire::Challenge`].
    pub async fn challenge(&self, host: &DnsName, token: &str) -> Result<Option<Signed>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/challenges/{host}/{token}"))).await
    }

    /// Forgets a challenge. It is no error when there is none.
    pub async fn delete_challenge(&self, host: &DnsName, token: &str) -> Result<(), ClientError> {
        self.0.bytes(Call::delete(&format!("/v1/challenges/{host}/{token}"))).await.map(drop)
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
