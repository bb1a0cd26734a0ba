//! The client of certman.

use certseal_wire::{DnsName, SiteList, SiteRequest, SiteStatus};

use crate::{ClientError, Connection, connection::Call};

/// Calls certman.
#[derive(Debug, Clone)]
pub struct CertmanClient(Connection);

impl CertmanClient {
    /// A client over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Adds a site, or changes it. The answer is its state right after.
    pub async fn put_site(&self, site: &DnsName, request: &SiteRequest) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/sites/{site}"), request)).await
    }

    /// One site.
    pub async fn site(&self, site: &DnsName) -> Result<Option<SiteStatus>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/sites/{site}"))).await
    }

    /// A page of sites, those after the name `after`.
    pub async fn sites(&self, after: Option<&DnsName>) -> Result<SiteList, ClientError> {
        let path = match after {
            Some(name) => format!("/v1/sites?after={name}"),
            None => "/v1/sites".to_owned(),
        };
        self.0.json(Call::get(&path)).await
    }

    /// Begins a site's renewal now.
    pub async fn renew(&self, site: &DnsName) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::post(&format!("/v1/sites/{site}/renew"))).await
    }

    /// Removes a site: its route, its bundle, its orders.
    pub async fn remove_site(&self, site: &DnsName) -> Result<(), ClientError> {
        self.0.bytes(Call::delete(&format!("/v1/sites/{site}"))).await.map(drop)
    }
}
